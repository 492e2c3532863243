"""Tests of fields (`structlog_audit.query.field_tests`) as SQL: which rows certainly pass, and about which Python decides.

**Guarantees.** A row of neither sort does not pass, and the two sorts have no row in common. Neither a regular expression nor a
class is translated: Python searches the distinct values, and those found become a list. Where there are too many, and where a
path of the metadata leads through lists or keys with dots, Python decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from structlog_audit.archive.promotion import Path
from structlog_audit.archive.rows import metadata_text
from structlog_audit.query.field_tests import (
    METADATA,
    Absent,
    AnyTest,
    Bound,
    EqualTo,
    FieldTest,
    Includes,
    Matcher,
    Number,
    OneOf,
    Pattern,
    StartsWith,
    text_of,
)
from structlog_audit.query.filters import OfClass

if TYPE_CHECKING:
    from structlog_audit.archive.dialects import Writer

TRUE = "true"
FALSE = "false"

MOST_DISTINCT = 100_000
"""The distinct values that Python searches for a regular expression."""

_FEW_VALUES = 16
"""The values up to which a list of them is faster than a join."""

_MOST_ITEMS = 32
"""The entry ids that are looked for one by one."""

_LONGEST_PATH = 4
"""The keys of a path that becomes SQL. The places where keys with dots may be are their square."""

MOST_EXACT = 2**53
"""Integers below this are floats without rounding (IEEE 754, binary64)."""

_PLAIN_KEY = re.compile("[A-Za-z0-9_]+").fullmatch
"""Matches a key that JSON writes in one way only."""

Distinct = Callable[[str, str, dict[str, Any]], list[str] | None]
"""Returns the distinct values of an expression among the rows of a condition; None if there are more than `MOST_DISTINCT`."""


class Pair(NamedTuple):
    """The rows that certainly match, and those about which Python decides."""

    certain: str
    doubtful: str = FALSE


_UNDECIDED = Pair(FALSE, TRUE)


def all_of(conditions: Iterable[str]) -> str:
    """Return the conjunction of *conditions*."""
    parts = [condition for condition in conditions if condition != TRUE]
    if FALSE in parts:
        return FALSE

    return " AND ".join(parts) or TRUE


def any_of(conditions: Iterable[str]) -> str:
    """Return the disjunction of *conditions*, in parentheses."""
    parts = [condition for condition in dict.fromkeys(conditions) if condition != FALSE]
    if TRUE in parts or not parts:
        return TRUE if parts else FALSE

    return f"({' OR '.join(f'({part})' for part in parts)})"


def none_of(conditions: Iterable[str]) -> str:
    """Return the negation of the disjunction of *conditions*; NULL counts as false."""
    found = any_of(conditions)

    return {TRUE: FALSE, FALSE: TRUE}.get(found, f"(NOT coalesce({found}, false))")


def pair_of(writer: Writer, test: FieldTest | AnyTest) -> Pair:
    """Return *test* as SQL."""
    if isinstance(test, AnyTest):
        return _alternatives([pair_of(writer, alternative) for alternative in test.tests])

    translate = _member_pair if test.field.startswith(METADATA) else _column_pair
    pairs = [translate(writer, test.field, matcher) for matcher in test.alternatives]
    found = _alternatives(pairs)
    if not test.is_negated:
        return found

    has_key = _first_key(writer, test)
    certain = none_of([found.certain, *(pair.doubtful for pair in pairs)])

    return Pair(all_of([has_key, certain]), all_of([has_key, found.doubtful]))


def _first_key(writer: Writer, test: FieldTest) -> str:
    """Return a condition that costs less than parsing JSON, and holds wherever the member of a negated test is."""
    is_presence = all(isinstance(matcher, Absent) for matcher in test.alternatives)
    key = test.field.removeprefix(METADATA).partition(".")[0]
    if not is_presence or not test.field.startswith(METADATA) or not _PLAIN_KEY(key):
        return TRUE

    return f"contains(metadata, {writer.bind(key)})"


def _alternatives(pairs: Sequence[Pair]) -> Pair:
    """Return the disjunction of *pairs*."""
    certain = any_of(pair.certain for pair in pairs)
    doubtful = any_of(pair.doubtful for pair in pairs)
    if len(pairs) > 1:
        doubtful = all_of([doubtful, none_of([certain])])

    return Pair(certain, doubtful)


def _column_pair(writer: Writer, column: str, matcher: Matcher) -> Pair:
    """Return a comparison of a column as SQL."""
    if column == "entry_ids":
        return _entry_ids_pair(writer, matcher)

    if isinstance(matcher, Absent):
        is_empty = FALSE if column == "duration_ms" else f"{column} = ''"
        return Pair(any_of([f"{column} IS NULL", is_empty]))

    if isinstance(matcher, OneOf):
        texts = sorted(text for text in matcher.texts if text is not None)
        is_null = f"{column} IS NULL" if None in matcher.texts else FALSE

        return Pair(any_of([one_of(writer, column, texts), is_null]))

    if isinstance(matcher, OfClass) and not matcher.wanted:
        return Pair(FALSE)

    if isinstance(matcher, (Pattern, OfClass)):
        found = _found(matcher, writer.distinct(column, f"{column} IS NOT NULL", {}))
        return Pair(FALSE, f"{column} IS NOT NULL") if found is None else Pair(one_of(writer, column, found))

    if isinstance(matcher, StartsWith):
        return Pair(_starts_with(writer, column, matcher))

    if isinstance(matcher, Includes):
        return Pair(f"contains({column}, {writer.bind(matcher.text)})")

    operator, value = _comparison(matcher)

    return Pair(f"{column} {operator} {writer.bind(value)}")


def _comparison(matcher: EqualTo | Number | Bound) -> tuple[str, Any]:
    """Return the operator and the value of a matcher of one value."""
    if isinstance(matcher, Bound):
        return ">=" if matcher.is_lower else "<=", matcher.bound

    return "=", matcher.number if isinstance(matcher, Number) else matcher.text


def _found(matcher: Pattern | OfClass, values: Sequence[str] | None) -> list[str] | None:
    """Return those of *values* that *matcher* matches; None if they are not known."""
    if values is None:
        return None

    return sorted(value for value in values if matcher.matches([value]))


def is_storable(text: str) -> bool:
    """Return whether *text* is UTF-8, as all stored texts are. Words of a command line need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def one_of(writer: Writer, expression: str, texts: Iterable[str]) -> str:
    """Return the condition that *expression* is one of *texts*."""
    wanted = [text for text in texts if is_storable(text)]
    if not wanted:
        return FALSE

    if len(wanted) > _FEW_VALUES:
        dialect = writer.dialect
        return dialect.one_of.format(column=expression, value=writer.bind(dialect.list_of(wanted)))

    return f"{expression} IN ({', '.join(map(writer.bind, wanted))})"


def has_entry_id(writer: Writer, item: str) -> str:
    """Return the condition that *item* is one of the entry ids."""
    if not is_storable(item):
        return FALSE

    return writer.dialect.contains.format(column="entry_ids", value=writer.bind(item))


def _starts_with(writer: Writer, expression: str, matcher: StartsWith) -> str:
    """Return the condition that *expression* is a text that *matcher* matches."""

    def starts_with(texts: Iterable[str]) -> Iterator[str]:
        for text in filter(is_storable, texts):
            yield writer.dialect.starts_with.format(column=expression, value=writer.bind(text))

    return all_of([any_of(starts_with(matcher.beginnings)), none_of(starts_with(matcher.others))])


def _has_item(writer: Writer, condition: str) -> str:
    """Return the condition that *condition* holds for one of the entry ids, which is ``item``."""
    items = writer.dialect.items.format(column="entry_ids")
    of_rows = f"SELECT trail, n, {items} AS item FROM {{{writer.table}}}"

    return f"(trail, n) IN (SELECT trail, n FROM ({of_rows}) WHERE {condition})"


def _has_any_entry_id(writer: Writer, items: Sequence[str]) -> str:
    if len(items) > _MOST_ITEMS:
        return _has_item(writer, one_of(writer, "item", items))

    return any_of(has_entry_id(writer, item) for item in items)


def _entry_ids_pair(writer: Writer, matcher: Matcher) -> Pair:
    if isinstance(matcher, EqualTo):
        return Pair(has_entry_id(writer, matcher.text))

    if isinstance(matcher, Absent):
        # A list of empty texts counts, too.
        return Pair("entry_ids IS NULL", has_entry_id(writer, ""))

    if isinstance(matcher, OneOf):
        return Pair(_has_any_entry_id(writer, sorted(text for text in matcher.texts if text is not None)))

    if isinstance(matcher, StartsWith):
        return Pair(_has_item(writer, _starts_with(writer, "item", matcher)))

    if not isinstance(matcher, Pattern):
        return _UNDECIDED

    items = writer.dialect.items.format(column="entry_ids")
    found = _found(matcher, writer.distinct(items, TRUE, {}))

    return Pair(FALSE, "entry_ids IS NOT NULL") if found is None else Pair(_has_any_entry_id(writer, found))


class _Member:
    """A member of the metadata that a path with dots names, in the SQL of one query."""

    def __init__(self, writer: Writer, keys: Path) -> None:
        self.column = writer.promoted.get(keys)
        self._key = keys[-1]
        self._writer = writer
        self._p = writer.bind(writer.dialect.place(keys))

    def sql(self, template: str, **values: str) -> str:
        """Return the SQL that *template* makes of the member."""
        return template.format(p=self._p, **values)

    def is_text(self, text: str) -> str:
        """Return the condition that the member is *text*."""
        dialect, bind = self._writer.dialect, self._writer.bind
        if not is_storable(text):
            return FALSE

        if self.column is not None:
            return f"{self.column} = {bind(text)}"

        is_text = self.sql(dialect.is_text, value=bind(text))
        if dialect.needle is None:
            return is_text

        return f"({dialect.needle.format(text=bind(needle(self._key, text)))} AND {is_text})"

    def unless_promoted(self, condition: str) -> str:
        """Return *condition*, about members that are not text. A column that has the text says so without reading JSON."""
        return condition if self.column is None else all_of([f"{self.column} IS NULL", condition])


def _member_pair(writer: Writer, name: str, matcher: Matcher) -> Pair:
    """Return a comparison of a path of the metadata as SQL."""
    path = name.removeprefix(METADATA)
    keys = tuple(path.split("."))
    if not _has_sql(writer, keys):
        return _UNDECIDED

    member = _Member(writer, keys)
    here = _value_pair(writer, member, matcher)

    # Where there may be another value at the same path, Python looks at all of them.
    elsewhere = any_of(_other_places(writer, keys))
    certain = all_of([here.certain, none_of([elsewhere])])
    doubtful = any_of([here.doubtful, elsewhere])

    return Pair(certain, doubtful)


def _has_sql(writer: Writer, keys: Path) -> bool:
    """Return whether the database finds the member at *keys*."""
    # A number, or the sign for the end, would lead into lists.
    are_plain = all(key and not key.isdigit() and key != "-" for key in keys)
    is_found = writer.reads_json and writer.dialect.place(keys) is not None

    return are_plain and is_found and len(keys) <= _LONGEST_PATH


def _other_places(writer: Writer, keys: Path) -> Iterator[str]:
    """Yield the conditions that a value may be elsewhere than at the nested keys: below lists, or at keys with dots."""
    dialect = writer.dialect

    for length in range(1, len(keys)):
        is_array = _Member(writer, keys[:length]).sql(dialect.is_array)
        yield f"(contains(metadata, '[') AND {is_array})"

    backslash = writer.bind("\\")

    for start in range(len(keys)):
        for stop in range(start + 2, len(keys) + 1):
            dotted = ".".join(keys[start:stop])
            exists = _Member(writer, (*keys[:start], dotted)).sql(dialect.has_member)
            # JSON writes a text without a backslash in one way only.
            text = text_of([dotted])[2:-2]
            may_have = f"contains(metadata, {writer.bind(text)}) OR contains(metadata, {backslash})"
            yield f"(({may_have}) AND {exists})"


def _value_pair(writer: Writer, member: _Member, matcher: Matcher) -> Pair:
    """Return a comparison of the value of *member*, where it is the only one, as SQL."""
    dialect = writer.dialect
    is_list = f"contains(metadata, '[') AND {member.sql(dialect.is_array)}"
    doubtful = member.unless_promoted(f"({is_list})")
    if isinstance(matcher, EqualTo):
        return _equality(writer, member, matcher, doubtful)

    if isinstance(matcher, Absent):
        is_missing = none_of([member.sql(dialect.has_member)])
        return Pair(any_of([is_missing, member.sql(dialect.is_null), member.is_text("")]), doubtful)

    if isinstance(matcher, Bound):
        number = member.sql(dialect.number_at)
        operator, bound = _comparison(matcher)
        within = f"abs({number}) < {MOST_EXACT} AND {number} {operator} {writer.bind(bound)}"

        return Pair(within, any_of([doubtful, f"abs({number}) >= {MOST_EXACT}"]))

    if isinstance(matcher, StartsWith):
        text, is_text = member.sql(dialect.text_at), member.sql(dialect.is_string)
        is_other = member.unless_promoted(member.sql(dialect.is_other))
        return Pair(all_of([_starts_with(writer, text, matcher), is_text]), is_other)

    return _pattern(writer, member, matcher) if isinstance(matcher, Pattern) else _UNDECIDED


def _equality(writer: Writer, member: _Member, matcher: EqualTo, doubtful: str) -> Pair:
    dialect = writer.dialect
    is_text = member.is_text(matcher.text)
    scalar = matcher.scalar
    if isinstance(scalar, bool):
        is_boolean = member.sql(dialect.is_boolean, value=writer.bind("true" if scalar else "false"))
        return Pair(any_of([is_text, is_boolean]), doubtful)

    if not isinstance(scalar, (int, float)):
        return Pair(is_text, doubtful)

    if abs(scalar) < MOST_EXACT:
        return Pair(any_of([is_text, member.sql(dialect.is_number, value=writer.bind(float(scalar)))]), doubtful)

    return Pair(is_text, all_of([member.sql(dialect.has_member), none_of([is_text])]))


def _pattern(writer: Writer, member: _Member, pattern: Pattern) -> Pair:
    dialect = writer.dialect
    is_other = member.unless_promoted(member.sql(dialect.is_other))
    if member.column is not None:
        found = _found(pattern, writer.distinct(member.column, f"{member.column} IS NOT NULL", {}))
        if found is not None:
            return Pair(one_of(writer, member.column, found), is_other)

    is_text = member.sql(dialect.is_string)
    text = member.sql(dialect.text_at)
    found = _found(pattern, writer.distinct(text, is_text, writer.parameters))
    if found is None:
        return Pair(FALSE, any_of([is_text, is_other]))

    return Pair(all_of([one_of(writer, text, found), is_text]), is_other)


def needle(key: str, value: Any) -> str:
    """Return a text that canonical JSON has if its member *key* contains *value*."""
    is_literal = value is None or isinstance(value, (str, bool))
    # Numbers have several forms; of arrays and objects only parts may be wanted.
    text = metadata_text({key: value if is_literal else ""}) or ""
    return text[1:-1] if is_literal else text[1:-3]
