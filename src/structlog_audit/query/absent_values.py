"""Hints for a query without an answer: which of its values no event has, and which ones events have instead.

**Guarantees**

* One pass over the events that the query could have found, in bounded memory. A value is called absent only if no event of
  that pass has it.
* Near values are equal but for case or style, contain the value as a word, match it as a pattern, or are spelled alike.
* A clear value that is asked of pseudonyms is named as the reason.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

import msgspec

from structlog_audit.events.codec import MARKS, StoredEvent
from structlog_audit.events.operation_classes import UNCLASSIFIED, OperationClasses, registered_operations
from structlog_audit.query.filters import ORDINARY, Conditions
from structlog_audit.query.plurals import counted

PSEUDONYM: Final = re.compile(r"hmac:[A-Za-z0-9._-]{1,32}:[A-Za-z0-9_-]{22}|s_[A-Za-z0-9_-]{32}")
"""The form of the pseudonyms of a `Redactor`, and of the tokens of subjects in its vault."""

_SUBJECT_START: Final = "s_"

_MOST_VALUES: Final = 10_000
"""Maximum distinct values of a member that are counted. Later ones are only checked for being asked for."""

_MOST_COMPARED: Final = 1_000
"""Maximum values, the most common ones, that are compared for alike spelling, which takes quadratic time."""

_MOST_SAMPLED: Final = 1_000
"""Maximum events among which pseudonyms are looked for."""

_PSEUDONYMIZED: Final = ("user_id", "session_id", "operation")

_MOST_NEAR: Final = 3
_LEAST_LIKENESS: Final = 0.6
_PATTERN_SIGNS: Final = frozenset("*?[")
_STYLE = re.compile(r"[\W_]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\da-zA-Z_]+|\d+")

EXPLAINED: Final = ("operation", "operation_class", "user_id", "session_id", "status")
"""The members beside the metadata with values that are explained."""

METADATA: Final = "metadata."
"""The beginning of the name of a member of the metadata."""


class _Values:
    """The values that the events have for one member, and those of them that a query asks for."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self.wanted = list(dict.fromkeys(map(str, wanted)))
        self.counts: Counter[str] = Counter()
        self.found: set[str] = set()

    def add(self, value: str, count: int = 1) -> None:
        """Count *value*."""
        if value in self.wanted:
            self.found.add(value)
        if value in self.counts or len(self.counts) < _MOST_VALUES:
            self.counts[value] += count


def absent_values(
    events: Iterable[StoredEvent], wanted: Mapping[str, Iterable[str]], classes: OperationClasses | None = None
) -> list[str]:
    """Return a sentence for each of the values *wanted* that none of *events* has. O(number of events).

    Args:
        events: The events that a query without these conditions finds.
        wanted: The values that the query asks for, by member: one of `EXPLAINED`, or ``metadata.KEY``.
        classes: The classes of operations; None stands for those of this process.
    """
    class_of = (classes or registered_operations()).class_of
    values = {name: _Values(given) for name, given in wanted.items()}
    keys: Counter[str] = Counter()
    asks_for_keys = any(name.startswith(METADATA) for name in values)

    total = 0
    for event in events:
        total += 1
        for name, of_member in values.items():
            if name == "operation_class":
                of_member.add(str(class_of(event.operation) or UNCLASSIFIED))
                continue
            for value in _values_of(event, name):
                of_member.add(value)
        if asks_for_keys:
            keys.update(_some_keys(event, keys))

    if not total:
        return []
    hints: list[str] = []
    for name, of_member in values.items():
        hints += _hints(name, of_member, keys)
    return hints


def absent_of_counted(
    counted: Mapping[str, Iterable[tuple[str | None, int]]],
    wanted: Mapping[str, Iterable[str]],
    classes: OperationClasses | None = None,
) -> list[str]:
    """As `absent_values`, of values that are counted already.

    Args:
        counted: The values of each member and how often events have them, in the order of the first; None is no value.
            Of ``operation_class`` the operations.
        wanted: The values that the query asks for, of members in `EXPLAINED`.
        classes: As for `absent_values`.
    """
    class_of = (classes or registered_operations()).class_of
    hints: list[str] = []
    for name, given in wanted.items():
        values = _Values(given)
        total = 0
        for value, count in counted[name]:
            total += count
            if name == "operation_class":
                values.add(str(class_of(value or "") or UNCLASSIFIED), count)
            elif value is not None:
                values.add(value, count)
        if total:
            hints += _hints(name, values, Counter())
    return hints


def warn_of_pseudonyms(select: Callable[..., Iterator[StoredEvent]], conditions: Conditions) -> None:
    """Warn the caller of a query without an answer if it asked pseudonyms for a clear name.

    Args:
        select: The method `structlog_audit.query.event_source.EventSource.select` of the source, whose method
            ``_explain_absence`` calls this.
        conditions: The filters of the query.
    """
    in_range = msgspec.structs.replace(ORDINARY, start_time=conditions.start_time, end_time=conditions.end_time)
    events = select(in_range, newest_first=True, at_most=_MOST_SAMPLED)
    reason = asked_of_pseudonyms(events, conditions)
    if reason is not None:
        # Above this function are `_explain_absence`, the query, and its caller.
        warnings.warn(reason, RuntimeWarning, stacklevel=4)


def asked_of_pseudonyms(events: Iterable[StoredEvent], conditions: Conditions) -> str | None:
    """Return why *conditions* with a clear name may match none of *events*: the first of them have pseudonyms. O(1).

    Args:
        events: The events of the time range, of which a limited number is read.
        conditions: The filters of the query.
    """
    asked = {}
    for name, values in conditions.names:
        clear = [value for value in values if value is not None and not PSEUDONYM.fullmatch(value)]
        if clear and name in _PSEUDONYMIZED:
            asked[name] = clear[0]
    if not asked:
        return None

    for event in islice(events, _MOST_SAMPLED):
        for name, value in asked.items():
            pseudonym = getattr(event, name) or ""
            if PSEUDONYM.fullmatch(pseudonym):
                remedy = _remedy(pseudonym, value)
                return f"{name}={value!r} matches no event, but events have a pseudonym as {name}; {remedy}"
    return None


def _remedy(pseudonym: str, value: str) -> str:
    """Return how the events with the *pseudonym* of a clear *value* are found."""
    if pseudonym.startswith(_SUBJECT_START):
        return f"only the vault of the redactor finds them by {value!r}, until the subject is erased"
    return f"without the key of the redactor, only Redactor(…).pseudonym({value!r}) finds them"


def _values_of(event: StoredEvent, name: str) -> Iterator[str]:
    if not name.startswith(METADATA):
        value = getattr(event, name)
        if value is not None:
            yield str(value)
        return

    found: Any = event.metadata.get(name.removeprefix(METADATA))
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, bool):
            yield "true" if item else "false"
        elif isinstance(item, (int, float)):
            yield str(item)


def _some_keys(event: StoredEvent, known: Mapping[str, int]) -> list[str]:
    """Return the keys of the metadata of *event*, as far as they are counted."""
    return [key for key in event.metadata if key != MARKS and (key in known or len(known) < _MOST_VALUES)]


def _hints(name: str, values: _Values, keys: Counter[str]) -> Iterator[str]:
    key = name.removeprefix(METADATA)
    if key != name and not values.counts:
        # A key may hold objects only, or stand below another: its values are not counted then.
        if key not in keys and "." not in key:
            yield f"no event has the key {key!r} in its metadata{_near(key, keys)}"
        return

    for value in values.wanted:
        if value not in values.found:
            pseudonyms = _pseudonyms(name, value, values.counts)
            yield f"no event has {name} {value!r}{pseudonyms or _near(value, values.counts)}"


def _pseudonyms(name: str, value: str, counts: Mapping[str, int]) -> str:
    """Return the part of a sentence that explains pseudonyms, or nothing if there are none, or one was asked for."""
    if PSEUDONYM.fullmatch(value):
        return ""

    pseudonyms = [known for known in counts if PSEUDONYM.fullmatch(known)]
    if not pseudonyms:
        return ""

    events = sum(counts[known] for known in pseudonyms)
    have = "has" if events == 1 else "have"

    return f": {counted(events, 'event')} {have} a pseudonym as {name}; {_remedy(pseudonyms[0], value)}"


def _near(value: str, counts: Counter[str]) -> str:
    """Return the part of a sentence with the values near *value*, or else the most common ones."""
    named = [f"{known!r} ({counts[known]})" for known in near_values(value, counts)]
    if named:
        return f"; near: {', '.join(named)}"

    common = [f"{known!r} ({count})" for known, count in counts.most_common(_MOST_NEAR)]
    return f"; the most common: {', '.join(common)}" if common else ""


def near_values(value: str, counts: Counter[str]) -> list[str]:
    """Return the values of *counts* that are nearest to *value*, the nearest kind first and then the most common."""
    ranked = [known for known, _ in counts.most_common() if known != value]
    near: dict[str, None] = {}
    for is_near in _tests(value):
        near.update(dict.fromkeys(filter(is_near, ranked)))
        if len(near) >= _MOST_NEAR:
            return list(near)[:_MOST_NEAR]

    # Of values that differ only by case, the most common one stands for all.
    by_folded = {known.casefold(): known for known in reversed(ranked[:_MOST_COMPARED])}
    alike = get_close_matches(value.casefold(), list(by_folded), n=_MOST_NEAR, cutoff=_LEAST_LIKENESS)
    near.update(dict.fromkeys(by_folded[folded] for folded in alike))
    return list(near)[:_MOST_NEAR]


def _tests(value: str) -> Iterator[Callable[[str], bool]]:
    """Yield the tests for nearness, the strictest first."""
    folded = value.casefold()
    styled = _STYLE.sub("", folded)
    words = set(_words_of(value))

    yield lambda known: known.casefold() == folded
    if styled:
        yield lambda known: _STYLE.sub("", known.casefold()) == styled
    if not _PATTERN_SIGNS.isdisjoint(value):
        yield lambda known: fnmatch.fnmatchcase(known.casefold(), folded)
    if words:
        yield lambda known: words <= set(_words_of(known))


def _words_of(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
