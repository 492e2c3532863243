"""The rules of a monitor, defined in code, in a ``dictConfig`` or in a file.

* A rule has one bound (``more_than`` events, ``success_rate_below``, ``avg_duration_ms_above`` or ``p95_duration_ms_above``),
  the length of the window (``within``) and, as the filters of queries, the events that count.
* A duration is a `datetime.timedelta`, a number of seconds, or text: ``"90s"``, ``"15m"``, ``"24h"``, ``"7d"``, ``"1h30m"``.
* An error names the rule, the parameter, its value and the expected one; for a file, the file as well.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

from structlog_audit._config_files import load_file
from structlog_audit._durations import parse_duration
from structlog_audit._references import resolve_references
from structlog_audit._validation import require_choice, require_integer
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions, Filters, conditions

Duration = dt.timedelta | str | float

_BOUNDS = ("more_than", "success_rate_below", "avg_duration_ms_above", "p95_duration_ms_above")
_NOT_FILTERS = frozenset(("event_id", "start_time", "end_time", "since", "until"))
_SUBJECTS = ("user_id", "session_id", "operation")

DEFAULT_MIN_EVENTS = 20
"""The events in a window before a rate or a duration is compared, unless a rule specifies another number."""


@dataclass(frozen=True, init=False)
class Rule:
    """A condition on the events of a sliding window.

    ``Rule("deletions", operation="FORGET", more_than=100, within="1h")``

    Args:
        name: The name in alerts; unique among the rules that are used together.
        within: The length of the window; at least one second.
        more_than: Alert if there are more events than this; at least 0.
        success_rate_below: Alert if a smaller share of the events (0 to 1) succeeded.
        avg_duration_ms_above: Alert if events took longer than this on average, in milliseconds.
        p95_duration_ms_above: Alert if more than 5 % of the events took longer than this, in milliseconds.
        per: ``"user_id"``, ``"session_id"`` or ``"operation"``: one window for each value, events without a value among
            them. None: one window for all events.
        min_events: The events in the window before a rate or a duration is compared; 20 by default.
        quiet: The time after an alert in which the same rule and subject gives no other.
        level: The level of alerts as log records.
        max_subjects: The windows that are kept with *per*; at least 1. The one longest without an event is dropped.
        filters: The events that count, as in queries. Only application events, unless ``kind=`` selects others.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """

    name: str
    within: dt.timedelta
    bound: str
    """The name of the bound."""
    threshold: float
    """The value of the bound."""
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
            raise AuditTypeError(f"name={name!r}: expected a non-empty string")

        thresholds = (more_than, success_rate_below, avg_duration_ms_above, p95_duration_ms_above)
        given = {name: value for name, value in zip(_BOUNDS, thresholds, strict=True) if value is not None}
        try:
            conditions = _conditions(filters)
            bound, threshold = _bound_of(given)
            values = {
                "name": name,
                "within": checked_duration("within", within, minimum=1),
                "bound": bound,
                "threshold": threshold,
                "per": None if per is None else require_choice("per", per, _SUBJECTS),
                "min_events": _min_events(min_events, bound),
                "quiet": checked_duration("quiet", quiet, minimum=0),
                "level": _level(level),
                "max_subjects": require_integer("max_subjects", max_subjects, least=1),
                "filters": dict(filters),
                "conditions": conditions,
            }
        except AuditError as error:
            raise type(error)(f"rule {name!r}: {error}") from None

        # The dataclass is frozen.
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)


_PARAMETERS = tuple(name for name in Rule.__init__.__annotations__ if name not in ("return", "filters"))


def rules_of(value: Any) -> tuple[Rule, ...]:
    """Return the rules that *value* holds.

    Args:
        value: A rule; a list of rules and of mappings of their arguments; a mapping with such a list under ``rules``; or
            the path of a file with one.

    Raises:
        AuditTypeError, AuditValueError: It holds no valid rules, or two of the same name.
    """
    value = resolve_references("monitor", value)
    if isinstance(value, (str, os.PathLike)):
        return load_rules(value)
    if isinstance(value, Rule):
        return (value,)

    if isinstance(value, Mapping):
        if set(value) != {"rules"}:
            raise AuditTypeError(f"expected a list of rules, or a mapping with only the key 'rules', got {value!r}")
        value = value["rules"]

    if not isinstance(value, (list, tuple)):
        raise AuditTypeError(f"expected a list of rules, or the path of a file with one, got {value!r}")

    found = tuple(_rule(number, item) for number, item in enumerate(value, 1))
    if not found:
        raise AuditValueError(f"expected at least one rule, got {value!r}")

    _refuse_duplicate_names(found)
    return found


def _refuse_duplicate_names(rules: tuple[Rule, ...]) -> None:
    seen = set()
    for rule in rules:
        if rule.name in seen:
            raise AuditValueError(f"two rules have the name {rule.name!r}: expected a different name for each")
        seen.add(rule.name)


def load_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Return the rules in the file at *path*: ``.toml``, ``.json``, ``.yaml`` or ``.yml``, with a list under ``rules``.

    Raises:
        AuditTypeError, AuditValueError: The file cannot be read, or a rule in it is invalid; the message names the file.
    """
    return load_file(path, "rules", rules_of)


def _rule(number: int, item: Any) -> Rule:
    if isinstance(item, Rule):
        return item
    if not isinstance(item, Mapping):
        raise AuditTypeError(f"rule {number}: expected a Rule or a mapping of its arguments, got {item!r}")

    name = item.get("name")
    if not isinstance(name, str) or not name:
        problem = f"name={name!r}" if "name" in item else "'name' is missing"
        raise AuditTypeError(f"rule {number}: {problem}: expected a name, for the alerts of the rule")
    if "within" not in item:
        raise AuditTypeError(f"rule {name!r}: 'within' is missing: expected the length of the window, such as 15m")

    return Rule(**{str(key): value for key, value in item.items()})


def _bound_of(given: Mapping[str, Any]) -> tuple[str, float]:
    """Return the name and the value of the only bound in *given*."""
    if len(given) != 1:
        raise AuditTypeError(f"expected one of {', '.join(_BOUNDS)}, got {', '.join(given) or 'none'}")

    ((name, value),) = given.items()
    if name == "more_than":
        return name, require_integer(name, value, least=0)

    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AuditTypeError(f"{name}={value!r}: expected a number")

    highest = 1.0 if name == "success_rate_below" else 1e15
    if not 0 <= value <= highest:
        raise AuditValueError(f"{name}={value!r}: expected a number between 0 and {highest:g}")
    return name, value


def _min_events(value: int | None, bound: str) -> int:
    if value is None:
        return require_integer("min_events", DEFAULT_MIN_EVENTS, least=1)
    if bound == "more_than":
        raise AuditValueError(f"min_events={value!r} does not apply to a rule with more_than: leave it out")
    return require_integer("min_events", value, least=1)


def _level(level: Any) -> int:
    number = logging.getLevelNamesMapping().get(level) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        raise AuditValueError(f"level={level!r}: expected the name or the number of a logging level")
    return number


def _conditions(filters: Filters) -> Conditions:
    known = set(Filters.__annotations__) - _NOT_FILTERS
    for name in filters:
        if name not in known:
            accepted = ", ".join([*_PARAMETERS, *sorted(known)])
            raise AuditTypeError(f"unknown parameter or filter {name!r}: expected one of {accepted}")
    return conditions(**filters)


def checked_duration(name: str, value: Any, *, minimum: int) -> dt.timedelta:
    """Return *value* as a duration of at least *minimum* seconds.

    Raises:
        AuditTypeError: It is not a duration.
        AuditValueError: The text states no duration, or the duration is too short or too long.
    """
    try:
        duration = _duration_of(name, value)
    except AuditError:
        raise
    except (OverflowError, ValueError):
        raise AuditValueError(f"{name}={value!r}: expected less than {dt.timedelta.max.days} days") from None

    if duration < dt.timedelta(seconds=minimum):
        raise AuditValueError(f"{name}={value!r}: expected {minimum}s or more")
    return duration


def _duration_of(name: str, value: Any) -> dt.timedelta:
    if isinstance(value, str):
        parsed = parse_duration(value.strip())
        if parsed is None:
            raise AuditValueError(f"{name}={value!r}: expected a duration such as 90s, 15m, 24h, 7d or 1h30m")
        return parsed

    if isinstance(value, bool) or not isinstance(value, (int, float, dt.timedelta)):
        raise AuditTypeError(f"{name}={value!r}: expected a timedelta, a number of seconds, or text such as 15m")
    return value if isinstance(value, dt.timedelta) else dt.timedelta(seconds=value)


DEFAULT_RULES = (
    Rule("deletions", operation="FORGET", more_than=100, within="1h"),
    Rule("failures", status="FAILURE", more_than=10, within="15m"),
    Rule("exports", operation="EXPORT", more_than=5, within="24h"),
)
"""The three rules of the memory SDK's audit page: many deletions, many failures, many exports, by any user."""
