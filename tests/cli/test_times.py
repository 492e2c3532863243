"""The times that the command line accepts."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.times import parse_time, time_range
from structlog_audit.events.event import rfc3339

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
    ],
)
@pytest.mark.usefixtures("berlin")
def test_time_is_parsed_as_a_timestamp(text, expected):
    """Each form is one timestamp; a time without an offset is local, with the offset of that day."""
    assert parse_time("--since", text, NOW) == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2025-01-15", "2025-01-15T00:00:00Z"), ("today", "2025-03-30T00:00:00Z"), ("10:15", "2025-03-30T10:15:00Z"),
     ("2025-01-15T10:30+01:00", "2025-01-15T09:30:00Z")],
)  # fmt: skip
@pytest.mark.usefixtures("berlin")
def test_time_without_offset_is_utc_with_utc_option(text, expected):
    """With --utc, days and hours are those of UTC; a given offset is kept."""
    assert parse_time("--since", text, NOW, in_utc=True) == dt.datetime.fromisoformat(expected)


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
        assert parse_time("--since", day, NOW) == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(("word", "hours"), [("today", 12), ("yesterday", 36), ("tomorrow", -12)])
@pytest.mark.parametrize(("zone", "day", "expected"), SKIPPED_MIDNIGHTS[:-1])
def test_word_for_a_day_without_midnight_is_its_first_instant(zone, day, expected, word, hours):
    """Today, yesterday and tomorrow begin at their first instant, too."""
    start = dt.datetime.fromisoformat(expected)
    with local_zone(zone):
        assert parse_time("--since", word, start + dt.timedelta(hours=hours)) == start


@pytest.mark.parametrize("zone", sorted({zone for zone, _, _ in SKIPPED_MIDNIGHTS} | {"America/St_Johns", "UTC"}))
@given(day=st.dates(dt.date(1900, 1, 1), dt.date(2037, 12, 31)))
def test_day_begins_at_its_first_instant(zone, day):
    """For all days: local time reaches the day at its beginning, and not a second before it."""

    def local(timestamp):
        return timestamp.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    midnight = dt.datetime.combine(day, dt.time())
    with local_zone(zone):
        start = parse_time("--since", str(day), NOW)
    assert local(start) >= midnight
    assert local(start - dt.timedelta(seconds=1)) < midnight


@pytest.mark.parametrize(("text", "expected"), [("2025-03-09T00:30", "05:30"), ("2025-03-09T00:00", "05:00")])
def test_skipped_time_counts_by_the_clock_before_the_change(text, expected):
    """A local time that the clock skips is the same timestamp on every Python: as if the clock had not changed yet."""
    with local_zone("America/Havana"):
        assert parse_time("--since", text, NOW) == dt.datetime.fromisoformat(f"2025-03-09T{expected}Z")


@pytest.mark.parametrize("zone", ["America/Havana", "Asia/Tokyo"])
@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999", "0001-01-01T00:00"])
def test_time_at_the_end_of_the_calendar_is_a_timestamp(zone, text):
    """A local time beyond the calendar in UTC is taken as UTC."""
    with local_zone(zone):
        assert parse_time("--since", text, NOW).year in (1, 9999)


@pytest.mark.parametrize(
    "text",
    ["", "yesteday", "1", "h", "1y", "1h ago", "--1h", "2025-02-30", "2025-13-01", "25:00", "99999999999d", "²h"],
)
def test_invalid_time_is_an_error(text):
    """Any other text is an error that names the option and the text."""
    with pytest.raises(UsageError) as caught:
        parse_time("--since", text, NOW)
    assert str(caught.value).startswith(f"--since={text!r}: expected a time.")


def test_mistyped_word_gets_a_suggestion():
    """The error for a word close to a known one suggests that one."""
    with pytest.raises(UsageError, match="Did you mean 'yesterday'"):
        parse_time("--until", "yesteday", NOW)


@given(st.datetimes(min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1), timezones=st.just(dt.UTC)))
def test_timestamp_of_an_event_is_parsed_unchanged(time):
    """The timestamp of any event, as the trail contains it, is parsed as the same timestamp."""
    assert parse_time("--since", rfc3339(time), NOW) == time


@given(st.text(max_size=12))
def test_any_text_is_a_timestamp_or_an_error(text):
    """Every text is an aware timestamp or a usage error."""
    try:
        assert parse_time("--since", text, NOW).tzinfo is dt.UTC
    except UsageError:
        pass


def test_reversed_range_is_an_error():
    """A range that ends before it begins is an error that names both ends; a missing end is not a bound."""
    with pytest.raises(UsageError, match="--since='1h' must not be later than --until='2h'"):
        time_range("1h", "2h", NOW)
    assert time_range("1h", None, NOW) == (NOW - dt.timedelta(hours=1), None)
