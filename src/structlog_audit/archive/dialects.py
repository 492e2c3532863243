"""Conditions as SQL, with one table of fragments per engine.

**Guarantees.** SQL narrows: it separates the rows whose events certainly match from those about which
`structlog_audit.query.filters.Conditions.matches` decides. Equal answers therefore do not depend on how an engine compares
JSON. Values are bound as parameters, never written into the SQL.

Regular expressions are never translated: those of RE2 and Java differ from Python's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structlog_audit.archive.field_sql import FALSE, MOST_EXACT, Distinct, Pair, all_of, any_of, none_of, pair_of
from structlog_audit.archive.promotion import Path, json_place
from structlog_audit.query.field_tests import FieldConditions
from structlog_audit.query.filters import Conditions, microseconds

_MOST_LEAVES = 32
"""Members of a metadata filter that become SQL; further ones are left to Python."""


class Dialect(NamedTuple):
    """The fragments of one engine, as format strings. *name* is a parameter, *column* a column, *p* a member's place."""

    parameter: str
    time: str
    fetched_time: str
    bucket: str
    contains: str
    is_text: str
    is_number: str
    is_boolean: str
    is_null: str
    is_object: str
    is_array: str
    has_member: str

    # Without these, tests of fields are left to Python.
    text_at: str | None = None
    number_at: str | None = None
    is_string: str | None = None
    is_other: str | None = None
    items: str | None = None
    one_of: str | None = None


DUCKDB = Dialect(
    parameter="${name}",
    time="make_timestamptz({value})",
    fetched_time="epoch_us({column})",
    # `greatest` ignores NULL.
    bucket=(
        "CASE WHEN duration_ms IS NOT NULL THEN cast(ceil(ln(greatest(duration_ms, 1e-6)) / {growth!r}) AS INTEGER) END"
    ),
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
    text_at="json_extract_string(metadata, {p})",
    number_at=(
        "(CASE WHEN json_type(metadata, {p}) IN ('UBIGINT', 'BIGINT', 'DOUBLE') "
        "THEN try_cast(json_extract_string(metadata, {p}) AS DOUBLE) END)"
    ),
    is_string="(json_type(metadata, {p}) = 'VARCHAR')",
    is_other="(json_type(metadata, {p}) NOT IN ('VARCHAR', 'NULL'))",
    items="unnest({column})",
    # A list of many values takes three times as long.
    one_of="{column} IN (SELECT unnest({value}))",
)


class Where(NamedTuple):
    """Conditions as SQL: the rows that certainly match, those about which Python decides, and the parameters of both."""

    certain: str
    doubtful: str
    parameters: dict[str, Any]


class Writer:
    """Collects the fragments of one query."""

    def __init__(self, dialect: Dialect, promoted: Mapping[Path, str], distinct: Distinct, prefix: str) -> None:
        self.dialect = dialect
        self.promoted = promoted
        self.distinct = distinct
        self._prefix = prefix
        self.fragments: list[str] = []
        self.parameters: dict[str, Any] = {}
        self.is_exact = True

    def bind(self, value: Any) -> str:
        """Return the SQL of a parameter with this value."""
        name = f"{self._prefix}p{len(self.parameters)}"
        self.parameters[name] = value

        return self.dialect.parameter.format(name=name)

    def where(self, pairs: Sequence[Pair]) -> Where:
        """Return the conjunction of the fragments and of *pairs*."""
        if not self.is_exact:
            possible = all_of([*self.fragments, *(any_of(pair) for pair in pairs)])
            return Where(FALSE, possible, self.parameters)

        certain = all_of([*self.fragments, *(pair.certain for pair in pairs)])
        in_doubt = [pair for pair in pairs if pair.doubtful != FALSE]
        if not in_doubt:
            return Where(certain, FALSE, self.parameters)

        settled = [pair.certain for pair in pairs if pair.doubtful == FALSE]
        if len(in_doubt) == 1:
            return Where(certain, all_of([*self.fragments, *settled, in_doubt[0].doubtful]), self.parameters)

        possible = all_of([*self.fragments, *settled, *(any_of(pair) for pair in in_doubt)])
        is_certain = all_of(pair.certain for pair in in_doubt)

        return Where(certain, all_of([possible, none_of([is_certain])]), self.parameters)


def where(
    conditions: Conditions, dialect: Dialect, promoted: Mapping[Path, str], distinct: Distinct, prefix: str = ""
) -> Where:
    """Return *conditions* as SQL.

    Args:
        conditions: The conditions of a query.
        dialect: The fragments of the engine.
        promoted: The columns of the data files that hold a member of the metadata, by its path.
        distinct: Returns the values that a regular expression is searched in.
        prefix: The beginning of the names of parameters, so that several conditions fit into one query.
    """
    writer = Writer(dialect, promoted, distinct, prefix)

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

    tests = conditions.tests if isinstance(conditions, FieldConditions) else ()

    return writer.where([pair_of(writer, test) for test in tests])


def _any_of(writer: Writer, column: str, values: Iterable[str | None]) -> str:
    alternatives = []
    texts = sorted(value for value in values if value is not None)
    if texts:
        alternatives.append(f"{column} IN ({', '.join(map(writer.bind, texts))})")

    if None in frozenset(values):
        alternatives.append(f"{column} IS NULL")

    return f"({' OR '.join(alternatives) or 'false'})"


def _add_members(writer: Writer, above: Path, wanted: Mapping[str, Any]) -> None:
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


def _add_member(writer: Writer, path: Path, value: Any) -> None:
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
    place = writer.bind(json_place(path))
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
        if abs(value) < MOST_EXACT:
            return dialect.is_number, float(value), True
        # Engines round larger numbers: Python compares them.
        return dialect.has_member, None, False

    return dialect.is_array, None, False
