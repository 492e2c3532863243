"""The rules of a monitor, defined in code, in a ``dictConfig`` or in a file.

* A rule has one bound: ``more_than`` events, ``success_rate_below``, ``avg_duration_ms_above`` or ``p95_duration_ms_above``
  in a window of a length (``within``); ``first_seen`` values; or ``no_event_for`` a time. The filters of queries, ``during``
  and ``outside`` select the events that count.
* A duration is a `datetime.timedelta`, a number of seconds, or text: ``"90s"``, ``"15m"``, ``"24h"``, ``"7d"``, ``"1h30m"``.
* An error names the rule, the parameter, its value and the expected one; for a file, the file as well.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Unpack

from structlog_audit._config_files import load_file
from structlog_audit._durations import format_duration, parse_duration
from structlog_audit._references import resolve_references
from structlog_audit._validation import require_integer
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.monitoring.working_hours import WorkingHours, working_hours_of
from structlog_audit.query.field_tests import METADATA
from structlog_audit.query.filters import Conditions, Filters, conditions

Duration = dt.timedelta | str | float

_RATES = ("success_rate_below", "avg_duration_ms_above", "p95_duration_ms_above")
_WINDOWS = ("more_than", *_RATES)
_BOUNDS = (*_WINDOWS, "first_seen", "no_event_for")

_APPLIES_TO = {
    "within": (*_WINDOWS, "first_seen"),
    "min_events": _RATES,
    "quiet": _WINDOWS,
    "per": (*_WINDOWS, "no_event_for"),
    "outside": (*_WINDOWS, "first_seen"),
}
"""The bounds that a parameter applies to, if not all."""

_KEYS = ("rules", "working_hours")
"""The keys of a file."""

_NOT_FILTERS = frozenset(("event_id", "start_time", "end_time", "since", "until"))
_SUBJECTS = ("user_id", "session_id", "operation", "status")

Subjects = str | Collection[str]
"""A field or several: ``"user_id"``, ``"session_id"``, ``"operation"``, ``"status"``, or ``"metadata."`` and a path."""

DEFAULT_MIN_EVENTS = 20
"""The events in a window before a rate or a duration is compared, unless a rule specifies another number."""


@dataclass(frozen=True, init=False)
class Rule:
    """A condition on the events of a trail.

    ``Rule("deletions", operation_class="delete", more_than=100, within="1h", per="user_id")``

    Args:
        name: The name in alerts; unique among the rules that are used together.
        within: The length of the window; at least one second. With *first_seen*, the time after which a value is new again;
            None is never.
        more_than: Alert if there are more events than this; at least 0.
        success_rate_below: Alert if a smaller share of the events (0 to 1) succeeded.
        avg_duration_ms_above: Alert if events took longer than this on average, in milliseconds.
        p95_duration_ms_above: Alert if more than 5 % of the events took longer than this, in milliseconds.
        first_seen: Alert at the first event with this value of a field, or of several: ``["user_id", "operation"]``.
        no_event_for: Alert if there is no event for this time, once until the next one.
        per: A field, or several: one window for each value, events without a value among them. None: one for all events.
        min_events: The events in the window before a rate or a duration is compared; 20 by default.
        quiet: The time after an alert in which the same rule and subject gives no other.
        level: The level of alerts as log records.
        max_subjects: The values that are kept with *per* and *first_seen*; at least 1. The one longest without an event is
            dropped; with *no_event_for*, further ones are not watched.
        during: Only events in these working hours count; *no_event_for* measures working time.
        outside: Only events outside these working hours count.
        filters: The events that count, as in queries. Only application events, unless ``kind=`` selects others.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """

    name: str
    within: dt.timedelta | None
    bound: str
    """The name of the bound."""
    threshold: float
    """The value of the bound; of ``no_event_for``, in seconds."""
    per: str | tuple[str, ...] | None
    min_events: int
    quiet: dt.timedelta
    level: int
    max_subjects: int
    during: WorkingHours | None
    outside: WorkingHours | None
    filters: Mapping[str, Any] = field(compare=False)
    conditions: Conditions = field(repr=False, hash=False)

    def __init__(
        self,
        /,
        name: str,
        *,
        within: Duration | None = None,
        more_than: int | None = None,
        success_rate_below: float | None = None,
        avg_duration_ms_above: float | None = None,
        p95_duration_ms_above: float | None = None,
        first_seen: Subjects | None = None,
        no_event_for: Duration | None = None,
        per: Subjects | None = None,
        min_events: int | None = None,
        quiet: Duration | None = None,
        level: int | str = logging.WARNING,
        max_subjects: int = 10_000,
        during: WorkingHours | Mapping[str, Any] | None = None,
        outside: WorkingHours | Mapping[str, Any] | None = None,
        **filters: Unpack[Filters],
    ) -> None:
        if not isinstance(name, str) or not name:
            raise AuditTypeError(f"name={name!r}: expected a non-empty string")

        thresholds = (
            more_than,
            success_rate_below,
            avg_duration_ms_above,
            p95_duration_ms_above,
            first_seen,
            no_event_for,
        )
        given = {name: value for name, value in zip(_BOUNDS, thresholds, strict=True) if value is not None}
        optional = {"within": within, "min_events": min_events, "quiet": quiet, "per": per, "outside": outside}

        try:
            conditions = _conditions(filters)
            bound, threshold = _bound_of(given)
            _refuse_inapplicable(bound, optional)
            subjects = _subjects("per", per) if first_seen is None else _subjects("first_seen", first_seen)
            values = {
                "name": name,
                "within": _within(within, bound),
                "bound": bound,
                "threshold": threshold,
                "per": subjects,
                "min_events": require_integer("min_events", _or(min_events, DEFAULT_MIN_EVENTS), least=1),
                "quiet": checked_duration("quiet", _or(quiet, 0), minimum=0),
                "level": _level(level),
                "max_subjects": require_integer("max_subjects", max_subjects, least=1),
                "during": None if during is None else working_hours_of("during", during),
                "outside": None if outside is None else working_hours_of("outside", outside),
                "filters": dict(filters),
                "conditions": conditions,
            }
            _check_hours(values["during"], values["outside"], bound, threshold)
        except AuditError as error:
            raise type(error)(f"rule {name!r}: {error}") from None

        # The dataclass is frozen.
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)


_PARAMETERS = tuple(name for name in Rule.__init__.__annotations__ if name not in ("return", "filters"))


def rules_of(value: Any) -> tuple[Rule, ...]:
    """Return the rules that *value* holds.

    Args:
        value: A rule; a list of rules and of mappings of their arguments; a mapping with such a list under ``rules``, and
            with mappings of `WorkingHours` by name under ``working_hours``, which rules name; or the path of a file with one.

    Raises:
        AuditTypeError, AuditValueError: It holds no valid rules, or two of the same name.
    """
    value = resolve_references("monitor", value)
    if isinstance(value, (str, os.PathLike)):
        return load_rules(value)

    if isinstance(value, Rule):
        return (value,)

    named: dict[str, WorkingHours] = {}
    if isinstance(value, Mapping):
        _check_keys(value)
        named = _named_hours(value.get("working_hours", {}))
        value = value["rules"]
        if isinstance(value, Mapping):
            raise AuditTypeError(
                f"rules={value!r}: expected a list of rules, in TOML each below [[rules]], got a mapping"
            )

    if not isinstance(value, (list, tuple)):
        raise AuditTypeError(f"expected a list of rules, or the path of a file with one, got {value!r}")

    found = tuple(_rule(number, item, named) for number, item in enumerate(value, 1))
    if not found:
        raise AuditValueError(f"expected at least one rule, got {value!r}")

    _refuse_duplicate_names(found)

    return found


def _check_keys(value: Mapping[Any, Any]) -> None:
    for key in value:
        if key not in _KEYS:
            similar = get_close_matches(str(key), _KEYS, 1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise AuditTypeError(
                f"unknown key {key!r}: expected the keys 'rules' and, if needed, 'working_hours'.{hint}"
            )

    if "rules" not in value:
        keys = ", ".join(repr(key) for key in value) or "none"
        raise AuditTypeError(f"expected a list of rules, or a mapping with the key 'rules', got the keys {keys}")


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


def _named_hours(value: Any) -> dict[str, WorkingHours]:
    if not isinstance(value, Mapping):
        raise AuditTypeError(f"working_hours={value!r}: expected mappings by name, got {type(value).__name__}")
    return {str(name): working_hours_of(f"working_hours.{name}", hours) for name, hours in value.items()}


def _rule(number: int, item: Any, named: Mapping[str, WorkingHours]) -> Rule:
    if isinstance(item, Rule):
        return item

    if not isinstance(item, Mapping):
        raise AuditTypeError(f"rule {number}: expected a Rule or a mapping of its arguments, got {item!r}")

    name = item.get("name")
    if not isinstance(name, str) or not name:
        problem = f"name={name!r}" if "name" in item else "'name' is missing"
        raise AuditTypeError(f"rule {number}: {problem}: expected a name, for the alerts of the rule")

    arguments = {str(key): value for key, value in item.items()}

    for key in ("during", "outside"):
        hours = arguments.get(key)
        if isinstance(hours, str):
            if hours not in named:
                known = ", ".join(map(repr, named)) or "none"
                expected = f"a name under working_hours ({known}), or a mapping"
                raise AuditValueError(f"rule {name!r}: {key}={hours!r}: expected {expected}")
            arguments[key] = named[hours]

    return Rule(**arguments)


def _bound_of(given: Mapping[str, Any]) -> tuple[str, float]:
    """Return the name and the value of the only bound in *given*."""
    if len(given) != 1:
        raise AuditTypeError(f"expected one of {', '.join(_BOUNDS)}, got {', '.join(given) or 'none'}")

    ((name, value),) = given.items()
    if name == "more_than":
        return name, require_integer(name, value, least=0)

    if name == "no_event_for":
        return name, checked_duration(name, value, minimum=1).total_seconds()

    if name == "first_seen":
        return name, 0

    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AuditTypeError(f"{name}={value!r}: expected a number, got {type(value).__name__}")

    highest = 1.0 if name == "success_rate_below" else 1e15
    if not 0 <= value <= highest:
        raise AuditValueError(f"{name}={value!r}: expected a number between 0 and {highest:g}")

    return name, value


def _refuse_inapplicable(bound: str, given: Mapping[str, Any]) -> None:
    """Raise an `AuditValueError` for a parameter that does not apply to *bound*."""
    for name, value in given.items():
        if value is not None and bound not in _APPLIES_TO[name]:
            bounds = ", ".join(_APPLIES_TO[name])
            raise AuditValueError(
                f"{name}={value!r} does not apply to a rule with {bound}, only with {bounds}: leave it out"
            )


def _check_hours(during: Any, outside: Any, bound: str, threshold: float) -> None:
    """Raise an `AuditValueError` if the hours exclude each other, or never have the time of ``no_event_for``."""
    if during is not None and outside is not None:
        raise AuditValueError("expected either during or outside, got both")

    if during is not None and bound == "no_event_for":
        microseconds = int(threshold * 1_000_000)
        if during.time_after(0, microseconds) is None:
            expected = "a working time that passes within a year"
            time = format_duration(dt.timedelta(seconds=threshold))
            raise AuditValueError(f"no_event_for={time!r}: expected {expected}, with during={during!r}")


def _within(value: Any, bound: str) -> dt.timedelta | None:
    if value is not None:
        return checked_duration("within", value, minimum=1)

    if bound in _WINDOWS:
        raise AuditTypeError("'within' is missing: expected the length of the window, such as 15m")

    return None


def _or(value: Any, default: int) -> Any:
    return default if value is None else value


def _subjects(name: str, value: Any) -> str | tuple[str, ...] | None:
    """Return the field or the fields that *value* names."""
    if value is None:
        return None

    fields = (value,) if isinstance(value, str) else value
    if isinstance(fields, Mapping) or not isinstance(fields, Collection) or not fields:
        raise AuditTypeError(f"{name}={value!r}: expected a field such as 'user_id', or a list of fields")

    for item in fields:
        is_path = isinstance(item, str) and item.startswith(METADATA) and item != METADATA
        if item not in _SUBJECTS and not is_path:
            known = ", ".join(repr(choice) for choice in _SUBJECTS)
            raise AuditValueError(
                f"{name}={value!r}: expected one of {known}, 'metadata.KEY', or a list of them, got {item!r}"
            )

    return value if isinstance(value, str) else tuple(fields)


def _level(level: Any) -> int:
    number = logging.getLevelNamesMapping().get(level) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        raise AuditValueError(f"level={level!r}: expected the name or the number of a logging level")

    return number


def _conditions(filters: Filters) -> Conditions:
    known = set(Filters.__annotations__) - _NOT_FILTERS

    for name in filters:
        if name not in known:
            accepted = [*_PARAMETERS, *sorted(known)]
            similar = get_close_matches(name, accepted, 1) or [known for known in accepted if name in known]
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise AuditTypeError(f"unknown parameter or filter {name!r}: expected one of {', '.join(accepted)}.{hint}")

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
    Rule("deletions", operation_class="delete", more_than=100, within="1h"),
    Rule("failures", status="FAILURE", more_than=10, within="15m"),
    Rule("exports", operation_class="export", more_than=5, within="24h"),
)
"""The three rules of the memory SDK's audit page, for every operation of the class: many deletions, failures, exports."""
