"""Conditions as SQL, with one table of fragments per engine.

**Guarantees.** SQL narrows: it separates the rows whose events certainly match from those about which
`structlog_audit.query.filters.Conditions.matches` decides. Equal answers therefore do not depend on how an engine compares
JSON. Values are bound as parameters, never written into the SQL.

Regular expressions are never translated: those of RE2 and Java differ from Python's. Nor are classes of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structlog_audit.archive.field_sql import (
    FALSE,
    MOST_EXACT,
    Distinct,
    Pair,
    all_of,
    any_of,
    has_entry_id,
    is_storable,
    needle,
    none_of,
    one_of,
    pair_of,
)
from structlog_audit.archive.promotion import Path, json_place
from structlog_audit.query.field_tests import FieldConditions, FieldTest, text_of
from structlog_audit.query.filters import Conditions, microseconds

SCALE = 2**73
"""Durations are added as integers in units of 1 / `SCALE` ms."""

_SCALE = repr(float(SCALE))

_MOST_LEAVES = 32
"""Members of a metadata filter that become SQL; further ones are left to Python."""


class Dialect(NamedTuple):
    """The fragments of one engine, as format strings. *name* is a parameter, *column* a column, *p* a member's place.

    `place` returns the place of a member, or None for one that the engine cannot name. `needle` is a first test for a member
    by its *text* in canonical JSON; None where parsing costs as little. `list_of` returns the parameter of `one_of` for texts.
    `scaled` is a duration in units of 1 / `SCALE` ms, NULL where it is not an integer of them, or larger than a sum allows;
    None where the engine has no integers of 128 bits. `wide` is the type of integers of 126 bits, and `numbered` a query of the
    `name` and `number` of each text in such a parameter.
    `in_share` is a test for the values of one share, *number* of so many. `keeps_order` states whether the rows of a file come
    in their order without ORDER BY. The last three are the rows of the files that are read together: first, at most, and at
    most if a query selects few of them.
    """

    place: Callable[[Path], str | None]
    needle: str | None
    parameter: str
    time: str
    fetched_time: str
    bucket: str
    scaled: str | None
    wide: str
    numbered: str
    grouping: str
    length: str
    contains: str
    items: str
    starts_with: str
    one_of: str
    list_of: Callable[[Sequence[str]], object]
    is_text: str
    is_number: str
    is_boolean: str
    is_null: str
    is_object: str
    is_array: str
    is_string: str
    is_other: str
    in_share: str
    has_member: str
    text_at: str
    number_at: str
    keeps_order: bool
    first_rows: int
    most_rows: int
    most_selected_rows: int

    # The sequence number in an event id. Without it, Python reads each id for the evidence of completeness.
    sequence: str | None = None


def _json_place(path: Path) -> str | None:
    """Return the JSON path or JSON Pointer that finds a member of objects, and nothing else.

    Below the first key, a number or the sign for the end would also lead into an array.
    """
    into_arrays = any(key.isdigit() or key == "-" for key in path[1:])
    is_plain = all("\0" not in key and is_storable(key) for key in path)
    return json_place(path) if is_plain and not into_arrays else None


def _variant_path(path: Path) -> str | None:
    """Return the path of a member in a variant of Spark, which has no escapes and no empty keys."""
    is_plain = all(key and is_storable(key) and not _NOT_IN_VARIANT_PATHS.intersection(key) for key in path)
    return "$" + "".join(f'["{key}"]' for key in path) if is_plain else None


_NOT_IN_VARIANT_PATHS = frozenset('"?')


DUCKDB = Dialect(
    place=_json_place,
    needle=None,
    parameter="${name}",
    time="make_timestamptz({value})",
    fetched_time="epoch_us({column})",
    # `greatest` ignores NULL.
    bucket=(
        "CASE WHEN duration_ms IS NOT NULL THEN cast(ceil(ln(greatest(duration_ms, 1e-6)) / {growth!r}) AS INTEGER) END"
    ),
    # A multiplication by a power of two is exact.
    scaled=(
        f"CASE WHEN abs({{column}}) < 16777216 AND {{column}} * {_SCALE} = floor({{column}} * {_SCALE}) "
        f"THEN cast({{column}} * {_SCALE} AS HUGEINT) END"
    ),
    wide="HUGEINT",
    numbered="SELECT unnest({value}) AS name, unnest(range(len({value}))) AS number",
    grouping="grouping({columns})",
    length="len({column})",
    # `= any(list)` and `list_has_any` take many times as long.
    contains="list_contains({column}, {value})",
    items="unnest({column})",
    starts_with="starts_with({column}, {value})",
    # A list of many values takes three times as long.
    one_of="{column} IN (SELECT unnest({value}))",
    list_of=list,
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
    is_string="(json_type(metadata, {p}) = 'VARCHAR')",
    is_other="(json_type(metadata, {p}) NOT IN ('VARCHAR', 'NULL'))",
    in_share="(hash({column}) % {of} = {number})",
    has_member="(json_type(metadata, {p}) IS NOT NULL)",
    text_at="json_extract_string(metadata, {p})",
    number_at=(
        "(CASE WHEN json_type(metadata, {p}) IN ('UBIGINT', 'BIGINT', 'DOUBLE') "
        "THEN try_cast(json_extract_string(metadata, {p}) AS DOUBLE) END)"
    ),
    keeps_order=True,
    first_rows=60_000,
    # To sort more takes memory.
    most_rows=60_000,
    most_selected_rows=4_000_000,
    sequence="try_cast('0x' || substr(event_id, 29, 8) AS BIGINT)",
)


_MEMBER = "try_variant_get(parse_json(metadata), {p}, 'variant')"
"""A member of the metadata for Spark. `parse_json` fails where Spark reads no JSON, such as numbers of a thousand digits."""

_IS_NUMBER = f"schema_of_variant({_MEMBER}) RLIKE '^(BIGINT|DOUBLE|DECIMAL)'"

SPARK = Dialect(
    place=_variant_path,
    # Three times as fast as parsing all metadata.
    needle="contains(metadata, {text})",
    parameter=":{name}",
    time="timestamp_micros({value})",
    fetched_time="unix_micros({column})",
    # Numbers with a point are decimals without the D.
    bucket=(
        "CASE WHEN duration_ms IS NOT NULL THEN cast(ceil(ln(greatest(duration_ms, 1e-6)) / {growth!r}D) AS INTEGER) END"
    ),
    # Its decimals have as many digits, but are made of the text of a double.
    scaled=None,
    wide="DECIMAL(38, 0)",
    numbered="SELECT posexplode(from_json({value}, 'ARRAY<STRING>')) AS (number, name)",
    grouping="grouping_id({columns})",
    length="CASE WHEN {column} IS NOT NULL THEN size({column}) END",
    contains="array_contains({column}, {value})",
    items="explode({column})",
    starts_with="startswith({column}, {value})",
    # One parameter, since PySpark takes a millisecond for each, and for each item of a list.
    one_of="{column} IN (SELECT explode(from_json({value}, 'ARRAY<STRING>')))",
    list_of=text_of,
    # The value first: its type is asked for only where it is equal. Texts and booleans are cast to numbers, too.
    is_text=f"(cast({_MEMBER} AS STRING) = {{value}} AND schema_of_variant({_MEMBER}) = 'STRING')",
    is_number=f"(try_cast({_MEMBER} AS DOUBLE) = {{value}} AND {_IS_NUMBER})",
    is_boolean=f"(cast({_MEMBER} AS STRING) = {{value}} AND schema_of_variant({_MEMBER}) = 'BOOLEAN')",
    is_null=f"(schema_of_variant({_MEMBER}) = 'VOID')",
    is_object=f"startswith(schema_of_variant({_MEMBER}), 'OBJECT')",
    is_array=f"startswith(schema_of_variant({_MEMBER}), 'ARRAY')",
    is_string=f"(schema_of_variant({_MEMBER}) = 'STRING')",
    is_other=f"(schema_of_variant({_MEMBER}) NOT IN ('STRING', 'VOID'))",
    in_share="(pmod(hash({column}), {of}) = {number})",
    has_member=f"({_MEMBER} IS NOT NULL)",
    text_at=f"cast({_MEMBER} AS STRING)",
    number_at=f"(CASE WHEN {_IS_NUMBER} THEN try_cast({_MEMBER} AS DOUBLE) END)",
    keeps_order=False,
    # Each query costs a second, however little it reads.
    first_rows=2_000_000,
    most_rows=20_000_000,
    most_selected_rows=1_000_000_000,
)


class Where(NamedTuple):
    """Conditions as SQL: the rows that certainly match, those about which Python decides, and the parameters of both."""

    certain: str
    doubtful: str
    parameters: dict[str, Any]


class Writer:
    """Collects the fragments of one query."""

    def __init__(
        self, dialect: Dialect, promoted: Mapping[Path, str], distinct: Distinct, table: str, reads_json: bool
    ) -> None:
        self.dialect = dialect
        self.promoted = promoted
        self.distinct = distinct
        self.reads_json = reads_json
        self.table = table
        self.fragments: list[str] = []
        self.parameters: dict[str, Any] = {}
        self.is_exact = True

    def bind(self, value: Any) -> str:
        """Return the SQL of a parameter with this value."""
        name = f"{self.table}p{len(self.parameters)}"
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
    conditions: Conditions,
    dialect: Dialect,
    promoted: Mapping[Path, str],
    distinct: Distinct,
    table: str = "",
    *,
    reads_json: bool = True,
) -> Where:
    """Return *conditions* as SQL.

    Args:
        conditions: The conditions of a query.
        dialect: The fragments of the engine.
        promoted: The columns of the data files that hold a member of the metadata, by its path.
        distinct: Returns the values that Python compares with a regular expression or a class.
        table: The name of the table, with which the names of parameters begin: several conditions fit into one query.
        reads_json: Whether the engine can parse the metadata of every row.
    """
    writer = Writer(dialect, promoted, distinct, table, reads_json)
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
        writer.fragments.append(any_of(has_entry_id(writer, item) for item in sorted(conditions.entry_ids)))

    if conditions.metadata is not None:
        _add_members(writer, (), conditions.metadata)

    tests = conditions.tests if isinstance(conditions, FieldConditions) else ()
    if conditions.operation_class is not None:
        tests = (FieldTest("operation", (conditions.operation_class,)), *tests)

    return writer.where([pair_of(writer, test) for test in tests])


def _any_of(writer: Writer, column: str, values: Iterable[str | None]) -> str:
    texts = sorted(value for value in values if value is not None)
    is_null = f"{column} IS NULL" if None in frozenset(values) else FALSE

    return any_of([one_of(writer, column, texts), is_null])


def _add_members(writer: Writer, above: Path, wanted: Mapping[str, Any]) -> None:
    """Add what a row must have so that its metadata contains the members *wanted* of the object at *above*."""
    for key, value in wanted.items():
        if len(writer.fragments) > _MOST_LEAVES:
            writer.is_exact = False
            return
        _add_member(writer, (*above, key), value)


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

    if dialect.needle is not None:
        text = writer.bind(needle(path[-1], value))
        writer.fragments.append(dialect.needle.format(text=text))

    place = dialect.place(path)
    if place is None or not writer.reads_json:
        writer.is_exact = False
        return

    # The place is one parameter, however often a fragment has it.
    place = writer.bind(place)
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
