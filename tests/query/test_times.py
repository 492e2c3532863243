"""Times as people write them."""

from __future__ import annotations

import datetime as dt
import re
import time
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit.events.event import rfc3339
from structlog_audit.query.times import month_range, parse_time, resolve_time

# The day on which summer time begins in Berlin.
NOW = dt.datetime(2025, 3, 30, 10, 30, tzinfo=dt.UTC)


@pytest.fixture
def berlin():
    """Set the local time zone to Berlin."""
    with local_zone("Europe/Berlin"):
        yield


@contextmanager
def local_zone(name):
    """Set the local time zone in the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-15T10:30:00Z", "2025-01-15T10:30:00Z"),
        ("2025-01-15 10:30:00.123456+02:00", "2025-01-15T08:30:00.123456Z"),
        ("2025-01-15t10:30:00z", "2025-01-15T10:30:00Z"),
        ("2025-01-15T10:30", "2025-01-15T09:30:00Z"),
        ("2025-01-15", "2025-01-14T23:00:00Z"),
        ("2025-07-15", "2025-07-14T22:00:00Z"),
        ("12:15", "2025-03-30T10:15:00Z"),
        ("now", "2025-03-30T10:30:00Z"),
        ("today", "2025-03-29T23:00:00Z"),
        ("Yesterday", "2025-03-28T23:00:00Z"),
        ("tomorrow", "2025-03-30T22:00:00Z"),
        ("1h", "2025-03-30T09:30:00Z"),
        ("-1h", "2025-03-30T09:30:00Z"),
        ("30m", "2025-03-30T10:00:00Z"),
        ("45s", "2025-03-30T10:29:15Z"),
        ("7d", "2025-03-23T10:30:00Z"),
        ("2w", "2025-03-16T10:30:00Z"),
        ("1d12h", "2025-03-28T22:30:00Z"),
        ("0001-01-01", "0001-01-01T00:00:00Z"),
        # NOW is a Sunday.
        ("sunday", "2025-03-29T23:00:00Z"),
        ("last sunday", "2025-03-22T23:00:00Z"),
        ("Monday", "2025-03-23T23:00:00Z"),
        ("last  monday", "2025-03-23T23:00:00Z"),
        ("saturday", "2025-03-28T23:00:00Z"),
        ("this week", "2025-03-23T23:00:00Z"),
        ("last week", "2025-03-16T23:00:00Z"),
        ("this month", "2025-02-28T23:00:00Z"),
        ("last month", "2025-01-31T23:00:00Z"),
        ("this year", "2024-12-31T23:00:00Z"),
        ("last year", "2023-12-31T23:00:00Z"),
        ("2025-02", "2025-01-31T23:00:00Z"),
        ("2025-W02", "2025-01-05T23:00:00Z"),
        ("9:00", "2025-03-30T07:00:00Z"),
        ("yesterday 9:00", "2025-03-29T08:00:00Z"),
        ("monday 14:30:15.5", "2025-03-24T13:30:15.500000Z"),
        ("last sunday 00:00", "2025-03-22T23:00:00Z"),
        ("2025-01-15 9:30", "2025-01-15T08:30:00Z"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_time_is_parsed_as_a_timestamp(text, expected):
    """Each form is one timestamp; a time without an offset is local, with the offset of that day."""
    assert parse_time("since", text, NOW) == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2025-01-15", "2025-01-15T00:00:00Z"), ("today", "2025-03-30T00:00:00Z"), ("10:15", "2025-03-30T10:15:00Z"),
     ("2025-01-15T10:30+01:00", "2025-01-15T09:30:00Z")],
)  # fmt: skip
@pytest.mark.usefixtures("berlin")
def test_time_without_offset_is_utc_with_utc_option(text, expected):
    """With --utc, days and hours are those of UTC; a given offset is kept."""
    assert parse_time("since", text, NOW, dt.UTC) == dt.datetime.fromisoformat(expected)


SKIPPED_MIDNIGHTS = [
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
    ("America/Havana", "2025-03-09", "2025-03-09T05:00:00Z"),
    ("Africa/Cairo", "2024-04-26", "2024-04-25T22:00:00Z"),
    ("Asia/Beirut", "2024-03-31", "2024-03-30T22:00:00Z"),
    ("America/Santiago", "2024-09-08", "2024-09-08T04:00:00Z"),
    ("Africa/Monrovia", "1972-01-07", "1972-01-07T00:44:30Z"),
    # The change began before midnight: at 23:30, and at midnight of a day that does not exist.
    ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"),
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
]


@pytest.mark.parametrize(("zone", "day", "expected"), SKIPPED_MIDNIGHTS)
def test_day_without_midnight_begins_at_its_first_instant(zone, day, expected):
    """A day whose midnight the clock skips begins at its first instant; one that is skipped, with the next."""
    with local_zone(zone):
        assert parse_time("since", day, NOW) == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(("word", "hours"), [("today", 12), ("yesterday", 36), ("tomorrow", -12)])
@pytest.mark.parametrize(("zone", "day", "expected"), SKIPPED_MIDNIGHTS[:-1])
def test_word_for_a_day_without_midnight_is_its_first_instant(zone, day, expected, word, hours):
    """Today, yesterday and tomorrow begin at their first instant, too."""
    start = dt.datetime.fromisoformat(expected)
    with local_zone(zone):
        assert parse_time("since", word, start + dt.timedelta(hours=hours)) == start


@pytest.mark.parametrize("zone", sorted({zone for zone, _, _ in SKIPPED_MIDNIGHTS} | {"America/St_Johns", "UTC"}))
@given(day=st.dates(dt.date(1900, 1, 1), dt.date(2037, 12, 31)))
def test_day_begins_at_its_first_instant(zone, day):
    """For all days: local time reaches the day at its beginning, and not a second before it."""

    def local(timestamp):
        return timestamp.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    midnight = dt.datetime.combine(day, dt.time())
    with local_zone(zone):
        start = parse_time("since", str(day), NOW)
    assert local(start) >= midnight
    assert local(start - dt.timedelta(seconds=1)) < midnight


@pytest.mark.parametrize(("text", "expected"), [("2025-03-09T00:30", "05:30"), ("2025-03-09T00:00", "05:00")])
def test_skipped_time_counts_by_the_clock_before_the_change(text, expected):
    """A local time that the clock skips is the same timestamp on every Python: as if the clock had not changed yet."""
    with local_zone("America/Havana"):
        assert parse_time("since", text, NOW) == dt.datetime.fromisoformat(f"2025-03-09T{expected}Z")


@pytest.mark.parametrize("zone", ["America/Havana", "Asia/Tokyo"])
@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999", "0001-01-01T00:00"])
def test_time_at_the_end_of_the_calendar_is_a_timestamp(zone, text):
    """A local time beyond the calendar in UTC is taken as UTC."""
    with local_zone(zone):
        assert parse_time("since", text, NOW).year in (1, 9999)


@pytest.mark.parametrize(
    "text",
    ["", "yesteday", "1", "h", "1y", "1h ago", "--1h", "2025-02-30", "2025-13-01", "25:00", "99999999999d", "²h"],
)
def test_invalid_time_is_an_error(text):
    """Any other text is an error that names the option and the text."""
    with pytest.raises(AuditValueError) as caught:
        parse_time("since", text, NOW)
    assert str(caught.value).startswith(f"since={text!r}: expected a time.")


@pytest.mark.parametrize("text", ["someday", "moon"])
def test_word_unlike_any_known_one_gets_the_forms(text):
    """A word that is not near a known one is no mistyped one: the error lists what is accepted."""
    with pytest.raises(AuditValueError, match="Use RFC 3339, a date"):
        parse_time("until", text, NOW)


def test_mistyped_word_gets_a_suggestion():
    """The error for a word close to a known one suggests that one."""
    with pytest.raises(AuditValueError, match="Did you mean 'yesterday'"):
        parse_time("until", "yesteday", NOW)


@given(st.datetimes(min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1), timezones=st.just(dt.UTC)))
def test_timestamp_of_an_event_is_parsed_unchanged(time):
    """The timestamp of any event, as the trail contains it, is parsed as the same timestamp."""
    assert parse_time("since", rfc3339(time), NOW) == time


@given(st.text(max_size=12))
def test_any_text_is_a_timestamp_or_an_error(text):
    """Every text is an aware timestamp or a usage error."""
    try:
        assert parse_time("since", text, NOW).tzinfo is dt.UTC
    except AuditValueError:
        pass


@pytest.mark.parametrize("zone", [None, dt.UTC, ZoneInfo("America/Havana"), ZoneInfo("Asia/Kathmandu")])
@given(day=st.dates(dt.date(1990, 1, 1), dt.date(2037, 12, 31)))
def test_periods_contain_the_day_from_their_first_instant_on(zone, day):
    """For all days: this week begins at most six days before, last week a week earlier, and so do months and years."""
    noon = dt.datetime.combine(day, dt.time(12), tzinfo=zone or dt.UTC).astimezone(dt.UTC)

    def first_day(word):
        return parse_time("since", word, noon, zone).astimezone(zone).date()

    today = noon.astimezone(zone).date()
    assert first_day("this week") == today - dt.timedelta(days=today.weekday())
    assert first_day("last week") == first_day("this week") - dt.timedelta(days=7)
    assert first_day("this month") == today.replace(day=1)
    assert first_day("last month") == (today.replace(day=1) - dt.timedelta(days=1)).replace(day=1)
    assert first_day("last year") == dt.date(today.year - 1, 1, 1)
    for word in ("monday", "friday", "sunday"):
        assert 0 <= (today - first_day(word)).days < 7
        assert 1 <= (today - first_day(f"last {word}")).days <= 7
        assert first_day(word).strftime("%A").lower() == word


@pytest.mark.parametrize(
    "text", ["week", "last day", "next week", "last week 9:00", "monday tuesday", "9", "24:30", "last"]
)
def test_word_that_names_no_time_is_an_error(text):
    """What looks like a period or a day, and is none, is an error."""
    with pytest.raises(AuditValueError):
        parse_time("since", text, NOW)


@pytest.mark.parametrize(
    ("month", "start", "end"),
    [
        ("2025-03", "2025-02-28T23:00:00Z", "2025-03-31T22:00:00Z"),
        ("this", "2025-02-28T23:00:00Z", "2025-03-31T22:00:00Z"),
        ("Last", "2025-01-31T23:00:00Z", "2025-02-28T23:00:00Z"),
        ("2024-12", "2024-11-30T23:00:00Z", "2024-12-31T23:00:00Z"),
    ],
)
def test_month_is_a_half_open_range_in_the_zone(month, start, end):
    """A month begins and ends with the days of the zone."""
    expected = tuple(map(dt.datetime.fromisoformat, (start, end)))
    assert month_range(month, NOW, ZoneInfo("Europe/Berlin")) == expected


@pytest.mark.parametrize("month", ["", "2025", "2025-13", "2025-00", "march", "last week", "last year", "0000-01"])
def test_text_that_is_no_month_is_an_error(month):
    """Any other text is an error that names it."""
    with pytest.raises(AuditValueError, match=re.escape(f"month={month!r}: expected a month")):
        month_range(month, NOW)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (None, None),
        ("7d", "2025-03-23T10:30:00Z"),
        (dt.timedelta(days=7), "2025-03-23T10:30:00Z"),
        (dt.timedelta(days=-7), "2025-03-23T10:30:00Z"),
        (dt.date(2025, 3, 30), "2025-03-29T23:00:00Z"),
        (dt.datetime(2025, 3, 30, 12), "2025-03-30T10:00:00Z"),
        (dt.datetime(2025, 3, 30, 12, tzinfo=dt.UTC), "2025-03-30T12:00:00Z"),
    ],
)
def test_every_type_of_time_is_resolved(time, expected):
    """Texts, dates, datetimes and timedeltas are times; those without an offset are in the zone."""
    wanted = None if expected is None else dt.datetime.fromisoformat(expected)
    assert resolve_time("since", time, NOW, ZoneInfo("Europe/Berlin")) == wanted


def test_other_type_of_time_is_a_type_error():
    """A number could be seconds, days or a year: it is an error that names what is expected."""
    with pytest.raises(AuditTypeError, match="since=7: expected a datetime, a date, a timedelta or a text"):
        resolve_time("since", 7, NOW)


@pytest.mark.parametrize("age", [dt.timedelta.min, dt.timedelta.max])
def test_age_beyond_the_calendar_is_an_error(age):
    """A time before the year 1 is an error of this library, as is the same age as a text."""
    with pytest.raises(AuditValueError, match=r"since=datetime\.timedelta.*: expected a time since the year 1"):
        resolve_time("since", age, NOW, dt.UTC)
