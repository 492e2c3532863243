"""What is watched for: rules about the events of the last so many minutes, made in code, in a ``dictConfig``, or in a file.

Rules:

* A rule names one bound: ``more_than`` events, ``success_rate_below``, ``avg_duration_ms_above`` or ``p95_duration_ms_above``;
  the time ``within`` which; and, as filters of queries, which events count.
* A time is a `datetime.timedelta`, a number of seconds, or text: ``"90s"``, ``"15m"``, ``"24h"``, ``"7d"``, ``"1h30m"``.
* Everything that can't be meant is an error that names the rule, the parameter and what is accepted; in a file, the file too.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

from structlog_audit._validation import require_choice, require_integer
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions, Filters, conditions

Duration = dt.timedelta | str | float

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile("".join(rf"(?:(\d+){unit})?" for unit in _UNITS))
_BOUNDS = ("more_than", "success_rate_below", "avg_duration_ms_above", "p95_duration_ms_above")
_NO_FILTERS = frozenset(("event_id", "start_time", "end_time"))
_SUBJECTS = ("user_id", "session_id", "operation")

LEAST_EVENTS = 20
"""Events without which a rate or a duration says nothing, unless a rule says otherwise."""


@dataclass(frozen=True, init=False)
class Rule:
    """Something to watch for.

    ``Rule("deletions", operation="FORGET", more_than=100, within="1h")``

    Args:
        name: What alerts are called; unique among the rules that are used together.
        within: The length of the window; at least a second.
        more_than: Alert when there are more events than this; at least 0.
        success_rate_below: Alert when less of the events than this share (0 to 1) succeeded.
        avg_duration_ms_above: Alert when events took longer than this on the average, in milliseconds.
        p95_duration_ms_above: Alert when more than 5 % of the events took longer than this, in milliseconds.
        per: ``"user_id"``, ``"session_id"`` or ``"operation"``: a window for each. Events without one are one of them. None:
            one window for all.
        min_events: Events in the window without which a rate or a duration says nothing; 20 unless told otherwise.
        quiet: How long after an alert there is no other of the same rule and subject.
        level: The level of alerts as log records.
        max_subjects: Windows that are kept with *per*; at least 1. The one longest without an event makes room.
        filters: Which events count, as in queries. Only ordinary ones, unless ``kind=`` says otherwise.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """

    name: str
    within: dt.timedelta
    bound: str
    """The name of the bound."""
    threshold: float
    """Its value."""
    per: str | None
    min_events: int
    quiet: dt.timedelta
    level: int
    max_subjects: int
    filters: Mapping[str, Any] = field(hash=False)
    conditions: Conditions = field(repr=False, compare=False)

    def __init__(
        self,
        /,
        name: str,
        *,
        within: Duration,
        more_than: int | None = None,
        success_rate_below: float | None = None,
        avg_duration_ms_above: float | None = None,
        p95_duration_ms_above: float | None = None,
        per: str | None = None,
        min_events: int | None = None,
        quiet: Duration = 0,
        level: int | str = logging.WARNING,
        max_subjects: int = 10_000,
        **filters: Unpack[Filters],
    ) -> None:
        if not isinstance(name, str) or not name:
            raise AuditTypeError(f"name={name!r}: give a rule a name")
        bounds = dict(
            zip(_BOUNDS, (more_than, success_rate_below, avg_duration_ms_above, p95_duration_ms_above), strict=True)
        )
        try:
            asked = _conditions(filters)
            bound, threshold = _one_bound({what: value for what, value in bounds.items() if value is not None})
            if bound == "more_than" and min_events is not None:
                raise AuditValueError(f"min_events={min_events!r} says nothing of a rule with more_than: leave it out")
            values = {
                "name": name,
                "within": duration("within", within, least=1),
                "bound": bound,
                "threshold": threshold,
                "per": None if per is None else require_choice("per", per, _SUBJECTS),
                "min_events": require_integer(
                    "min_events", LEAST_EVENTS if min_events is None else min_events, least=1
                ),
                "quiet": duration("quiet", quiet, least=0),
                "level": _level(level),
                "max_subjects": require_integer("max_subjects", max_subjects, least=1),
                "filters": dict(filters),
                "conditions": asked,
            }
        except AuditError as error:
            raise type(error)(f"rule {name!r}: {error}") from None
        for what, value in values.items():
            object.__setattr__(self, what, value)


_PARAMETERS = tuple(name for name in Rule.__init__.__annotations__ if name not in ("return", "filters"))


def rules_of(value: Any) -> tuple[Rule, ...]:
    """The rules that *value* means: a list of rules and of mappings with their arguments, a mapping with such a list
    under ``rules``, or the path of a file with one.

    Raises:
        AuditTypeError, AuditValueError: It means no rules, or two of the same name.
    """
    if isinstance(value, (str, os.PathLike)):
        return load_rules(value)
    if isinstance(value, Rule):
        return (value,)
    if isinstance(value, Mapping):
        if set(value) != {"rules"}:
            raise AuditTypeError(f"{value!r}: give a list of rules, or a mapping with nothing but one under 'rules'")
        value = value["rules"]
    if not isinstance(value, (list, tuple)):
        raise AuditTypeError(f"rules={value!r}: give a list of rules, or the path of a file with one")
    found = tuple(_rule(number, item) for number, item in enumerate(value, 1))
    if not found:
        raise AuditValueError(f"rules={value!r}: give at least one rule")
    names = [rule.name for rule in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AuditValueError(f"two rules are called {twice[0]!r}: give each a name of its own")
    return found


def load_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """The rules in the file at *path*: ``.toml``, ``.json``, ``.yaml`` or ``.yml``, with a list under ``rules``.

    Raises:
        AuditTypeError, AuditValueError: It can't be read, or a rule in it can't be meant; the message names the file.
    """
    place = os.fspath(path)
    read = _FORMATS.get(os.path.splitext(place)[1].lower())
    if read is None:
        raise AuditValueError(f"{place!r}: give a file of rules whose name ends in {', '.join(_FORMATS)}")
    try:
        with open(place, encoding="utf-8") as file:
            content = read(file.read())
        return rules_of(content)
    except (OSError, ValueError, AuditError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        kind = AuditTypeError if isinstance(error, AuditTypeError) else AuditValueError
        raise kind(f"{place!r}: {what}") from error


def _rule(number: int, item: Any) -> Rule:
    if isinstance(item, Rule):
        return item
    if not isinstance(item, Mapping):
        raise AuditTypeError(f"rule {number}: {item!r} is neither a Rule nor a mapping of its arguments")
    called = item.get("name")
    if not isinstance(called, str) or not called:
        what = f"name={called!r}" if "name" in item else "'name' is missing"
        raise AuditTypeError(f"rule {number}: {what}: give it a name, which alerts are called by")
    if "within" not in item:
        raise AuditTypeError(f"rule {called!r}: 'within' is missing: give the length of the window, such as 15m")
    return Rule(**{str(name): value for name, value in item.items()})


def _one_bound(given: Mapping[str, Any]) -> tuple[str, float]:
    """The name and the value of the one bound of a rule."""
    if len(given) != 1:
        raise AuditTypeError(f"give one of {', '.join(_BOUNDS)}; there are {', '.join(given) or 'none'}")
    ((name, value),) = given.items()
    if name == "more_than":
        return name, require_integer(name, value, least=0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AuditTypeError(f"{name}={value!r}: give a number")
    most = 1.0 if name == "success_rate_below" else 1e15
    if not 0 <= value <= most:
        raise AuditValueError(f"{name}={value!r}: give a number between 0 and {most:g}")
    return name, value


def _level(level: Any) -> int:
    number = logging.getLevelNamesMapping().get(level) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        raise AuditValueError(f"level={level!r}: give the name or the number of a level")
    return number


def _conditions(filters: Filters) -> Conditions:
    known = set(Filters.__annotations__) - _NO_FILTERS
    for name in filters:
        if name not in known:
            known_names = ", ".join([*_PARAMETERS, *sorted(known)])
            raise AuditTypeError(f"unknown parameter or filter {name!r}: use one of {known_names}")
    return conditions(**filters)


def duration(name: str, value: Any, *, least: int) -> dt.timedelta:
    """*value* as a time of at least so many seconds.

    Raises:
        AuditTypeError: Not a time.
        AuditValueError: A text that means none, or less than *least*.
    """
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if not found or not any(found.groups()):
            raise AuditValueError(f"{name}={value!r}: write it as 90s, 15m, 24h, 7d or 1h30m")
        value = sum(int(part or 0) * unit for part, unit in zip(found.groups(), _UNITS.values(), strict=True))
    if isinstance(value, bool) or not isinstance(value, (int, float, dt.timedelta)):
        raise AuditTypeError(f"{name}={value!r}: give a timedelta, a number of seconds, or text such as 15m")
    try:
        made = value if isinstance(value, dt.timedelta) else dt.timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise AuditValueError(f"{name}={value!r}: give less than {dt.timedelta.max.days} days") from None
    if made < dt.timedelta(seconds=least):
        raise AuditValueError(f"{name}={value!r}: give {least}s or more")
    return made


def duration_text(time: dt.timedelta) -> str:
    """*time* as it is written in rules, such as ``1h30m``; parts of a second are left out."""
    left, text = int(time.total_seconds()), ""
    for unit, seconds in _UNITS.items():
        count, left = divmod(left, seconds)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _toml(text: str) -> Any:
    import tomllib  # not needed by who has no such file

    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]  # an optional dependency
    except ImportError:
        raise AuditValueError("reading YAML takes the package pyyaml: install it, or write TOML or JSON") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AuditValueError(str(error)) from error


_FORMATS: dict[str, Callable[[str], Any]] = {".toml": _toml, ".json": json.loads, ".yaml": _yaml, ".yml": _yaml}

DEFAULT_RULES = (
    Rule("deletions", operation="FORGET", more_than=100, within="1h"),
    Rule("failures", status="FAILURE", more_than=10, within="15m"),
    Rule("exports", operation="EXPORT", more_than=5, within="24h"),
)
"""The three of the memory SDK's audit page: many deletions, many failures, many exports, by whomever."""
