"""The hours and months of time zones, as SQL counts by them, are those of Python."""

from __future__ import annotations

import datetime as dt
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from archives import compacted, write_closed
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from test_archive_reports import text_of
from trail_files import at, line_of

from structlog_audit import open_trail
from structlog_audit.archive import open_archive
from structlog_audit.archive.local_days import LocalDays
from structlog_audit.archive.rows import time_of
from structlog_audit.query.filters import microseconds
from structlog_audit.reports import compliance_report
from structlog_audit.reports.period import floor, month_of

duckdb = pytest.importorskip("duckdb", reason="not installed: duckdb")

FIRST = dt.datetime.min.replace(tzinfo=dt.UTC)
LAST = dt.datetime.max.replace(tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)

ZONES = (
    *map(ZoneInfo, (
        "Europe/Berlin", "Europe/Amsterdam", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
        "America/St_Johns", "America/Havana", "Africa/Monrovia", "Asia/Manila", "Pacific/Kiritimati", "UTC",
    )),
    dt.timezone(dt.timedelta(hours=-3, minutes=-7, seconds=-1)),
    dt.UTC,
)  # fmt: skip
"""Zones with offsets of half and quarter hours, of seconds, with changes within an hour, a missing and a repeated day."""


@cache
def changes(zone):
    """Return times at which the offset of *zone* changes, most of those between 1840 and 2040."""
    found = []
    time, stop = dt.datetime(1840, 1, 1, tzinfo=dt.UTC), dt.datetime(2040, 1, 1, tzinfo=dt.UTC)
    while time < stop:
        before, after = time, time + 30 * DAY
        time = after
        if before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            while after - before > dt.timedelta(seconds=1):
                middle = before + (after - before) / 2
                is_before = middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset()
                before, after = (middle, after) if is_before else (before, middle)
            found.append(after.replace(microsecond=0))
    return found or [at(0)]


@st.composite
def times_in_a_zone(draw, most=12):
    """Draw a zone and times, most of which are around changes of its clock or the ends of its months."""
    zone = draw(st.sampled_from(ZONES))
    near = draw(st.lists(st.sampled_from(changes(zone)), min_size=1, max_size=2))
    near += [floor(near[0], "month", zone)]
    seconds = st.sampled_from([0, 1, 59, 900, 1_799, 1_800, 3_599, 3_600, 5_400, 7_200, 86_399, 86_400])
    microsecond = st.sampled_from([-1, 0, 0, 1, 500_000])
    steps = st.tuples(st.sampled_from([-1, 1]), seconds, microsecond)
    times = []
    for time, (sign, second, us) in draw(st.lists(st.tuples(st.sampled_from(near), steps), min_size=1, max_size=most)):
        times.append(time + dt.timedelta(seconds=sign * second, microseconds=us))
    return zone, times


@pytest.fixture(scope="module")
def database():
    """A connection to DuckDB."""
    with duckdb.connect() as connection:
        yield connection


@example(drawn=(ZONES[0], [FIRST, LAST]))
@example(drawn=(ZoneInfo("America/New_York"), [FIRST, FIRST + 0.25 * DAY, LAST - 0.25 * DAY, LAST]))
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(drawn=times_in_a_zone())
def test_time_counts_in_its_hour_and_month_of_the_zone(database, drawn):
    """For all zones and times around changes: SQL gives another time of the same hour, and a time is in one month, its own."""
    zone, times = drawn
    days = LocalDays(zone, (f"{time:%Y-%m-%d}".zfill(10) for time in times))
    found = database.execute(
        f"SELECT us, {days.hour('us')} FROM (SELECT unnest($times) AS us)", {"times": list(map(microseconds, times))}
    ).fetchall()
    months = list(days.months())

    assert [us for us, _ in found] == list(map(microseconds, times))
    for time, (us, part) in zip(times, found, strict=True):
        start = time_of(part)
        assert start <= time
        assert floor(start, "hour", zone) == floor(time, "hour", zone)
        names = [name for name, begin, stop in months if (begin is None or begin <= us) and (stop is None or us < stop)]
        assert names == [month_of(time, zone)]


@settings(max_examples=4, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(drawn=times_in_a_zone())
def test_report_of_an_archive_in_any_zone_is_that_of_the_files(tmp_path_factory, drawn):
    """For all zones and times around changes of the clock: the same hours, days and months, whatever the order of events."""
    zone, times = drawn
    folder = tmp_path_factory.mktemp("case")
    lines = [
        line_of(number, (time - at(0)).total_seconds(), user_id=f"u{number % 2}") for number, time in enumerate(times)
    ]
    path = write_closed(folder / "logs", b"".join(lines[: len(lines) * 3 // 4 + 1]), last=40_000_000)
    with path.open("ab") as file:
        file.write(b"".join(lines[len(lines) * 3 // 4 + 1 :]))
    compacted(path, folder / "archive")

    with open_archive(folder / "archive", live=path, host="h1") as source:
        found = compliance_report(source, tz=zone)
        assert text_of(found) == text_of(compliance_report(open_trail(path), tz=zone))
