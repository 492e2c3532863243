"""Tests of `structlog_audit.monitoring.working_hours`."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditEvent, AuditTypeError, AuditValueError
from structlog_audit.events.event import operation_of
from structlog_audit.monitoring import Rule, WorkingHours, load_rules, replay
from structlog_audit.query.filters import microseconds

OFFICE = {"days": "mon-fri", "hours": "09:00-17:00", "tz": "Europe/Berlin", "holidays": ["2025-12-25"]}
MINUTE = 60_000_000


def us(text):
    return microseconds(dt.datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("time", "is_working"),
    [
        ("2025-01-15T08:59:59.999999+01:00", False),
        ("2025-01-15T09:00:00+01:00", True),
        ("2025-01-15T16:59:59.999999+01:00", True),
        ("2025-01-15T17:00:00+01:00", False),
        ("2025-01-15T23:30:00Z", False),
        ("2025-01-18T12:00:00+01:00", False),
        ("2025-12-25T12:00:00+01:00", False),
        ("2025-12-26T12:00:00+01:00", True),
        ("2025-07-15T07:00:00Z", True),
        ("2025-07-15T15:00:00Z", False),
    ],
)
def test_hours_are_those_of_a_clock_in_the_zone(time, is_working):
    """The begin is included and the end excluded, by the day and the time in the zone, except on holidays."""
    assert WorkingHours(**OFFICE).contains(us(time)) is is_working


@pytest.mark.parametrize(
    ("days", "numbers"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("Mon, WED ,sun", {0, 2, 6}),
        (["tue", "sat-sun"], {1, 5, 6}),
        ("sat", {5}),
        ("mon-sun", set(range(7))),
    ],
)
def test_days_are_names_and_ranges(days, numbers):
    """Days are a text or a list, in any case."""
    assert WorkingHours(days=days, hours="09:00-17:00", tz="UTC").days == numbers


def test_hours_may_be_several_up_to_midnight():
    """A lunch break, and the end of the day."""
    hours = WorkingHours(hours=["13:00-24:00", "9:00-12:00"], tz=dt.UTC)
    assert hours.hours == ((540, 720), (780, 1_440))
    assert [hours.contains(us(f"2025-01-15T{time}Z")) for time in ("12:00", "12:59", "13:00", "23:59")] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("since", "minutes", "until"),
    [
        ("2025-01-15T10:00+01:00", 30, "2025-01-15T10:30+01:00"),
        ("2025-01-15T16:50+01:00", 30, "2025-01-16T09:20+01:00"),
        ("2025-01-17T17:00+01:00", 30, "2025-01-20T09:30+01:00"),
        ("2025-12-24T16:59+01:00", 30, "2025-12-26T09:29+01:00"),
        ("2025-03-28T16:00+01:00", 120, "2025-03-31T10:00+02:00"),
        ("2025-01-15T16:30+01:00", 30, "2025-01-15T17:00+01:00"),
    ],
)
def test_working_time_passes_only_in_working_hours(since, minutes, until):
    """Nights, weekends and holidays do not count, also across a change of the clock."""
    assert WorkingHours(**OFFICE).time_after(us(since), minutes * MINUTE) == us(until)


@given(
    st.sampled_from(["Europe/Berlin", "America/Havana", "Australia/Lord_Howe"]),
    st.sampled_from(["09:00-17:00", "00:00-24:00", "01:30-03:30"]),
    st.datetimes(dt.datetime(2025, 1, 1), dt.datetime(2026, 1, 1), timezones=st.just(dt.UTC)),
    st.integers(1, 600),
)
def test_working_time_equals_the_minutes_that_are_in_the_hours(zone, hours, start, minutes):
    """For all times: the working time until the result is the number of minutes that `contains` finds."""
    working = WorkingHours(days="mon-sat", hours=hours, tz=zone)
    begin = microseconds(start.replace(second=0, microsecond=0))
    end = working.time_after(begin, minutes * MINUTE)
    assert sum(working.contains(minute) for minute in range(begin, end, MINUTE)) == minutes


def test_time_that_never_comes_is_none():
    """A working time that does not pass within a year is refused."""
    minute_a_week = {"days": "mon", "hours": "09:00-09:01", "tz": "UTC"}
    assert WorkingHours(**minute_a_week).time_after(0, 600 * MINUTE) is None
    with pytest.raises(AuditValueError, match="a working time that passes within a year"):
        Rule("x", no_event_for="10h", during=minute_a_week)


@pytest.mark.parametrize("time", [dt.datetime.min, dt.datetime.max])
def test_ends_of_the_calendar_have_an_answer(time):
    """The first and the last time are judged, although no zone can show them."""
    timestamp = microseconds(time.replace(tzinfo=dt.UTC))
    hours = WorkingHours(days="mon-sun", hours="00:00-24:00", tz="Pacific/Kiritimati")
    assert hours.contains(timestamp)
    assert hours.time_after(microseconds(dt.datetime.max.replace(tzinfo=dt.UTC)), 10**12) is None


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"days": ""}, AuditValueError, "days='': expected days such as 'mon-fri'"),
        ({"days": []}, AuditValueError, "got none"),
        ({"days": "mon-funday"}, AuditValueError, "got 'mon-funday'"),
        ({"days": "fri-mon"}, AuditValueError, "'fri-mon' ends before it begins"),
        ({"days": 5}, AuditTypeError, "got int"),
        ({"days": [1]}, AuditTypeError, "got 1 in the list"),
        ({"hours": "17:00-09:00"}, AuditValueError, "'17:00-09:00' ends before it begins"),
        ({"hours": "9-17"}, AuditValueError, "hours='9-17': expected hours such as '09:00-17:00', got '9-17'"),
        ({"hours": "09:00-25:00"}, AuditValueError, "up to 24:00"),
        ({"hours": []}, AuditValueError, "got none"),
        ({"hours": ["09:00-12:00", "11:00-13:00"]}, AuditValueError, "none of which overlap"),
        ({"tz": "Europe/Berln"}, AuditValueError, "Did you mean 'Europe/Berlin'?"),
        ({"tz": 1}, AuditTypeError, "tz=1: expected a tzinfo or the name"),
        ({"holidays": "2025-12-25"}, AuditTypeError, "expected a list of dates such as '2025-12-25', got str"),
        ({"holidays": ["25.12.2025"]}, AuditValueError, "got '25.12.2025'"),
        ({"holidays": [dt.datetime(2025, 12, 25)]}, AuditValueError, "expected a list of dates"),
    ],
)
def test_invalid_hours_are_an_error_that_names_the_key(changes, error, words):
    """The error names the key, its value and what is expected."""
    with pytest.raises(error) as caught:
        WorkingHours(**{**OFFICE, **changes})
    (key,) = changes
    assert str(caught.value).startswith(f"{key}=")
    assert words in str(caught.value)


def test_equal_hours_are_equal_values():
    """Hours made from equal arguments are equal, whichever type these have."""
    same = WorkingHours(
        days=["mon-fri"], hours=["9:00-17:00"], tz=ZoneInfo("Europe/Berlin"), holidays=[dt.date(2025, 12, 25)]
    )
    assert same == WorkingHours(**OFFICE)
    assert hash(same) == hash(WorkingHours(**OFFICE))
    assert same != WorkingHours(**{**OFFICE, "tz": "Europe/Paris"})
    assert repr(same) == "<WorkingHours mon, tue, wed, thu, fri 09:00-17:00 Europe/Berlin, 1 holidays>"


RULES = """
[working_hours.office]
hours = "09:00-17:00"
tz = "Europe/Berlin"
holidays = [2025-12-25, "2025-12-26"]

[[rules]]
name = "night"
more_than = 0
within = "1h"
per = "user_id"
outside = "office"

[[rules]]
name = "day"
more_than = 0
within = "1h"
during = {days = "mon-sun", hours = "00:00-24:00", tz = "UTC"}
"""


def test_rules_of_a_file_share_hours_by_name(tmp_path):
    """Hours are stated once under working_hours and named by rules, or stated in a rule."""
    (tmp_path / "rules.toml").write_text(RULES)
    night, day = load_rules(tmp_path / "rules.toml")
    assert night.outside == WorkingHours(**{**OFFICE, "holidays": ["2025-12-25", "2025-12-26"]})
    assert day.during == WorkingHours(days="mon-sun", hours="00:00-24:00", tz="UTC")


def event(number, time, user="ann"):
    return AuditEvent(
        event_id=f"evt_{number:032x}",
        timestamp=dt.datetime.fromisoformat(time),
        operation=operation_of("STORE"),
        user_id=user,
    )


@pytest.mark.parametrize(
    ("key", "expected", "words"), [("outside", [0, 2], "outside working hours"), ("during", [1], "in working hours")]
)
def test_rule_counts_only_events_of_its_hours(key, expected, words):
    """A rule counts events during or outside working hours, and its alerts state which."""
    rule = Rule("hours", more_than=0, within="1m", per="user_id", **{key: OFFICE})
    times = ["2025-01-15T07:00+01:00", "2025-01-15T10:00+01:00", "2025-01-18T10:00+01:00"]
    alerts = list(replay(rule, [event(number, time) for number, time in enumerate(times)]))
    assert [int(alert.event_id[4:], 16) for alert in alerts] == expected
    assert str(alerts[0]) == f"hours: more than 0 events within 1m {words}, user_id 'ann'"


MISTAKES = {
    'more_then = 1': ["'more_then'", "expected one of name, within, more_than", "Did you mean 'more_than'?"],
    'within = "15 minutes"': ["within='15 minutes'", "expected a duration such as 90s, 15m"],
    'more_than = -1': ["more_than=-1", "expected an integer of at least 0"],
    'outside = "ofice"': ["outside='ofice'", "a name under working_hours ('office')"],
    'outside = {hours = "17:00-09:00", tz = "UTC"}': ["outside: hours='17:00-09:00'", "ends before it begins"],
    'outside = {days = "", hours = "09:00-17:00", tz = "UTC"}': ["outside: days=''", "expected days such as", "got none"],
    'outside = {hours = "09:00-17:00", tz = "Mars"}': ["outside: tz='Mars'", "expected the name of a time zone"],
    'outside = {hours = "09:00-17:00"}': ["outside: 'tz' is missing", "'Europe/Berlin'"],
    'outside = {hour = "09:00-17:00", tz = "UTC"}': ["outside: unknown key 'hour'", "Did you mean 'hours'?"],
    'outside = 9': ["outside=9", "expected a mapping with days, hours, tz, holidays", "got int"],
    'first_seen = "user_id"': ["expected one of more_than", "got more_than, first_seen"],
    'operation_class = "remove"': ["operation_class='remove'", "expected one of create, read, update, delete"],
    'per = "metadata."': ["per='metadata.'", "'metadata.KEY'"],
    'min_events = 5': ["min_events=5 does not apply to a rule with more_than"],
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_file_names_file_rule_key_and_both_values(tmp_path, mistake):
    """Each error names the file, the rule, the key, what it got and what it expected."""
    key = mistake.split(" ", 1)[0]
    rule = {"name": 'name = "odd"', "more_than": "more_than = 1", "within": 'within = "1h"', key: mistake}
    text = '[working_hours.office]\nhours = "09:00-17:00"\ntz = "UTC"\n[[rules]]\n' + "\n".join(rule.values())
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises((AuditTypeError, AuditValueError)) as caught:
        load_rules(tmp_path / "rules.toml")
    for words in [f"{str(tmp_path / 'rules.toml')!r}: rule 'odd': ", *MISTAKES[mistake]]:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"first_seen": "user_id", "per": "operation"}, "per='operation' does not apply to a rule with first_seen"),
        ({"first_seen": "user_id", "quiet": "1h"}, "quiet='1h' does not apply"),
        ({"first_seen": []}, "first_seen=[]: expected a field such as 'user_id', or a list of fields"),
        ({"first_seen": "timestamp"}, "first_seen='timestamp': expected one of 'user_id'"),
        ({"no_event_for": "1h", "within": "1h"}, "within='1h' does not apply to a rule with no_event_for"),
        ({"no_event_for": "1h", "outside": OFFICE}, "does not apply to a rule with no_event_for"),
        ({"no_event_for": "0s"}, "no_event_for='0s': expected 1s or more"),
        ({"more_than": 1, "within": "1h", "during": OFFICE, "outside": OFFICE}, "expected either during or outside"),
    ],
)
def test_parameters_that_exclude_each_other_are_an_error(rule, words):
    """A parameter that a bound does not use is refused, not ignored."""
    with pytest.raises((AuditTypeError, AuditValueError)) as caught:
        Rule("x", **rule)
    assert words in str(caught.value)
