"""Conditions as SQL, with one table of fragments per engine.

**Guarantees.** SQL narrows: each fragment holds for every row whose event matches, and states if it holds for no other. Where
one is not exact, `structlog_audit.query.filters.Conditions.matches` decides about the rows that are left. Equal answers
therefore do not depend on how an engine compares JSON. Values are bound as parameters, never written into the SQL.

Regular expressions are never translated: those of RE2 and Java differ from Python's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from structlog_audit.archive.promotion import Path, pointer
from structlog_audit.query.filters import Conditions, microseconds

_MOST_EXACT = 2**53
"""Integers below this are floats without rounding (IEEE 754, binary64)."""

_MOST_LEAVES = 32
"""Members of a metadata filter that become SQL; further ones are left to Python."""


class Dialect(NamedTuple):
    """The fragments of one engine, as format strings. *name* is a parameter, *column* a column, *p* a member's place.

    `keeps_order` states whether the rows of one file come in their order without ORDER BY. The last three are the rows of the
    files that are read together: first, at most, and at most if a query selects few of them.
    """

    parameter: str
    time: str
    fetched_time: str
    bucket: str
    total: str
    grouping: str
    contains: str
    is_text: str
    is_number: str
    is_boolean: str
    is_null: str
    is_object: str
    is_array: str
    has_member: str
    keeps_order: bool
    first_rows: int
    most_rows: int
    most_selected_rows: int


DUCKDB = Dialect(
    parameter="${name}",
    time="make_timestamptz({value})",
    fetched_time="epoch_us({column})",
    # `greatest` ignores NULL.
    bucket=(
        "CASE WHEN duration_ms IS NOT NULL THEN cast(ceil(ln(greatest(duration_ms, 1e-6)) / {growth!r}) AS INTEGER) END"
    ),
    total="fsum({column})",
    grouping="grouping({columns})",
    # `= any(list)` and `list_has_any` take many times as long.
    contains="list_contains({column}, {value})",
    # CASE, unlike AND, asks for the type only where the value is equal.
    is_text=(
        "CASE WHEN json_extract_string(metadata, {p}) = {value} THEN json_type(metadata, {p}) = 'VARCHAR' ELSE false END"
    ),
    is_number=(
        "CASE WHEN try_cast(json_extract_string(metadata, {p}) AS DOUBLE) = {value} "
        "THEN json_type(metadata, {p}) IN ('UBIGINT', 'BIGINT', 'DOUBLE') ELSE false END"
    ),
    is_boolean=(
        "CASE WHEN json_extract_string(metadata, {p}) = {value} THEN json_type(metadata, {p}) = 'BOOLEAN' ELSE false END"
    ),
    is_null="(json_type(metadata, {p}) = 'NULL')",
    is_object="(json_type(metadata, {p}) = 'OBJECT')",
    is_array="(json_type(metadata, {p}) = 'ARRAY')",
    has_member="(json_type(metadata, {p}) IS NOT NULL)",
    keeps_order=True,
    first_rows=60_000,
    most_rows=500_000,
    most_selected_rows=50_000_000,
)


class Where(NamedTuple):
    """A condition of SQL, its parameters, and whether it selects exactly the matching events."""

    sql: str
    parameters: dict[str, Any]
    is_exact: bool


class _Writer:
    """Collects the fragments of one query."""

    def __init__(self, dialect: Dialect, promoted: Mapping[Path, str], prefix: str) -> None:
        self.dialect = dialect
        self.promoted = promoted
        self._prefix = prefix
        self.fragments: list[str] = []
        self.parameters: dict[str, Any] = {}
        self.is_exact = True

    def bind(self, value: Any) -> str:
        """Return the SQL of a parameter with this value."""
        name = f"{self._prefix}p{len(self.parameters)}"
        self.parameters[name] = value
        return self.dialect.parameter.format(name=name)

    def where(self) -> Where:
        """Return the conjunction of the fragments."""
        return Where(" AND ".join(self.fragments) or "true", self.parameters, self.is_exact)


def where(conditions: Conditions, dialect: Dialect, promoted: Mapping[Path, str], prefix: str = "") -> Where:
    """Return *conditions* as SQL.

    Args:
        conditions: The conditions of a query.
        dialect: The fragments of the engine.
        promoted: The columns of the data files that hold a member of the metadata, by its path.
        prefix: The beginning of the names of parameters, so that several conditions fit into one query.
    """
    writer = _Writer(dialect, promoted, prefix)
    for name, values in conditions.names:
        writer.fragments.append(_any_of(writer, name, values))
    for operator, time in ((">=", conditions.start_time), ("<", conditions.end_time)):
        if time is not None:
            bound = dialect.time.format(value=writer.bind(microseconds(time)))
            writer.fragments.append(f"timestamp {operator} {bound}")
    for operator, duration in ((">=", conditions.min_duration_ms), ("<=", conditions.max_duration_ms)):
        if duration is not None:
            writer.fragments.append(f"duration_ms {operator} {writer.bind(duration)}")

    if conditions.entry_ids is not None:
        items = [
            dialect.contains.format(column="entry_ids", value=writer.bind(item))
            for item in sorted(conditions.entry_ids)
        ]
        writer.fragments.append(f"({' OR '.join(items) or 'false'})")
    if conditions.metadata is not None:
        _add_members(writer, (), conditions.metadata)
    return writer.where()


def _any_of(writer: _Writer, column: str, values: Iterable[str | None]) -> str:
    alternatives = []
    texts = sorted(value for value in values if value is not None)
    if texts:
        alternatives.append(f"{column} IN ({', '.join(map(writer.bind, texts))})")
    if None in frozenset(values):
        alternatives.append(f"{column} IS NULL")
    return f"({' OR '.join(alternatives) or 'false'})"


def _add_members(writer: _Writer, above: Path, wanted: Mapping[str, Any]) -> None:
    """Add what a row must have so that its metadata contains the members *wanted* of the object at *above*."""
    for key, value in wanted.items():
        path = (*above, key)
        is_known = _is_plain_key(key, is_nested=bool(above))
        if not is_known or len(writer.fragments) > _MOST_LEAVES:
            writer.is_exact = False
            continue
        _add_member(writer, path, value)


def _is_plain_key(key: str, *, is_nested: bool) -> bool:
    """Return whether a JSON Pointer finds the member *key* of an object, and nothing else.

    A number, or the sign for the end, would also lead into an array.
    """
    return "\0" not in key and not (is_nested and (key.isdigit() or key == "-"))


def _add_member(writer: _Writer, path: Path, value: Any) -> None:
    dialect = writer.dialect
    column = writer.promoted.get(path)
    if column is not None and isinstance(value, str):
        writer.fragments.append(f"{column} = {writer.bind(value)}")
        return

    # A member that is there proves that the value above it is an object.
    if isinstance(value, dict) and value:
        _add_members(writer, path, value)
        return

    # The place is one parameter, however often a fragment has it.
    place = writer.bind(pointer(path))
    template, bound, is_exact = _leaf(dialect, value)
    writer.is_exact &= is_exact
    operand = "" if bound is None else writer.bind(bound)
    writer.fragments.append(template.format(p=place, value=operand))


def _leaf(dialect: Dialect, value: Any) -> tuple[str, Any, bool]:
    """Return the fragment for a member that is *value*, the parameter, and whether the fragment is exact."""
    if isinstance(value, str):
        return dialect.is_text, value, True
    if isinstance(value, bool):
        return dialect.is_boolean, "true" if value else "false", True
    if value is None:
        return dialect.is_null, None, True
    if isinstance(value, dict):
        return dialect.is_object, None, True
    if isinstance(value, (int, float)):
        if abs(value) < _MOST_EXACT:
            return dialect.is_number, float(value), True
        # Engines round larger numbers: Python compares them.
        return dialect.has_member, None, False
    return dialect.is_array, None, False
