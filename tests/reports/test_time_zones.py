"""Reports in a time zone: the bounds of months and days, and the times in documents."""

from __future__ import annotations

import datetime as dt
import json
import re
import zoneinfo
from collections import Counter
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import Events, stored

from structlog_audit import AuditError, AuditValueError
from structlog_audit.events.event import rfc3339
from structlog_audit.query.times import checked_zone, zone_name
from structlog_audit.reports import comparison_report, compliance_report, person_report
from structlog_audit.reports.period import floor, steps

BERLIN = "Europe/Berlin"
AFTER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Havana",
    "Pacific/Apia",
    "UTC",
]
"""Zones with offsets of half an hour, a change of the clock by half an hour, days without midnight, and a missing day."""


def at(text):
    return dt.datetime.fromisoformat(text)


def events_each_hour(start, end):
    count = (end - start) // HOUR
    return Events([stored(at=start + number * HOUR, user_id="ann") for number in range(count)], now=AFTER)


@pytest.mark.parametrize(
    ("month", "start", "end", "hours"),
    [
        ("2025-03", "2025-02-28T23:00:00.000000Z", "2025-03-31T22:00:00.000000Z", 743),
        ("2025-10", "2025-09-30T22:00:00.000000Z", "2025-10-31T23:00:00.000000Z", 745),
        ("2025-01", "2024-12-31T23:00:00.000000Z", "2025-01-31T23:00:00.000000Z", 744),
    ],
)
def test_month_of_a_zone_has_the_hours_of_its_days(month, start, end, hours):
    """A month in which the clock changes is an hour shorter or longer; its bounds in JSON are instants in UTC."""
    source = events_each_hour(at("2024-12-01T00:00Z"), at("2025-12-01T00:00Z"))
    found = compliance_report(source, month=month, tz=BERLIN).to_dict()
    assert found["period"] == {"start": start, "end": end, "month": month, "time_zone": BERLIN}
    assert found["summary"]["total_events"] == hours
    assert [(row["period"], row["total_events"]) for row in found["months"]] == [(month, hours)]


@pytest.mark.parametrize(("month", "day", "hours"), [("2025-03", "30", 23), ("2025-10", "26", 25)])
def test_day_on_which_the_clock_changes_has_its_hours(month, day, hours):
    """The day of a change has 23 or 25 hours, and every other day of the month 24."""
    source = events_each_hour(at("2025-03-01T00:00Z"), at("2025-11-01T00:00Z"))
    over_time = compliance_report(source, month=month, tz=BERLIN).to_dict()["over_time"]
    assert (over_time["unit"], len(over_time["steps"])) == ("day", 31)
    zone = ZoneInfo(BERLIN)
    totals = {f"{at(step['start']).astimezone(zone):%d}": step["total"] for step in over_time["steps"]}
    assert totals.pop(day) == hours
    if month == "2025-10":
        assert set(totals.values()) == {24}


def test_hour_repeated_in_part_has_one_beginning_after_the_change():
    """Where the clock is set back to the beginning of an hour, all times after the change are in the hour from then on."""
    zone = ZoneInfo("America/Indiana/Indianapolis")
    change = at("1883-11-18T18:00:00+00:00")
    before = change - dt.timedelta(minutes=15, seconds=22)
    minutes = [change + number * dt.timedelta(minutes=1) for number in range(-15, 60)]
    assert [floor(minute, "hour", zone) for minute in minutes] == [before] * 15 + [change] * 60


def test_hour_that_occurs_twice_is_two_steps_with_their_offsets():
    """In an hourly chart, both hours from 02:00 to 03:00 are shown, told apart by their offsets."""
    start, end = at("2025-10-26T00:00+02:00"), at("2025-10-27T00:00+01:00")
    report = compliance_report(events_each_hour(start, end), start_time=start, end_time=end, tz=BERLIN)
    assert len(report.to_dict()["over_time"]["steps"]) == 25
    text = report.to_markdown()
    assert "| 26 October 2025, 02:00 +02:00 | 1 |" in text
    assert "| 26 October 2025, 02:00 +01:00 | 1 |" in text


@given(st.sampled_from(ZONES), st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1)), st.integers(0, 10**8))
def test_steps_of_a_zone_cover_any_two_times(name, start, seconds):
    """For all zones: steps are in order, at most 100, begin at the floor of their time, and cover both ends."""
    zone = checked_zone("tz", name)
    first = start.replace(tzinfo=dt.UTC)
    last = first + dt.timedelta(seconds=seconds)
    unit, starts = steps(first, last, zone)
    assert starts == sorted(set(starts)) == [floor(start, unit, zone) for start in starts]
    assert (starts[0], starts[-1]) == (floor(first, unit, zone), floor(last, unit, zone))
    if unit == "day":
        local = [start.astimezone(zone).date() for start in starts]
        existing = {(first + number * HOUR).astimezone(zone).date() for number in range(seconds // 3_600 + 1)}
        assert local == sorted(existing | {local[-1]})


@given(
    st.sampled_from(ZONES),
    st.lists(st.datetimes(dt.datetime(2024, 12, 25), dt.datetime(2025, 5, 1), timezones=st.just(dt.UTC)), max_size=30),
)
def test_months_of_a_zone_count_its_local_months(name, instants):
    """For all events: each counts in the month that a clock of the zone shows at its time."""
    zone = checked_zone("tz", name)
    source = Events([stored(at=instant) for instant in sorted(instants)], now=AFTER)
    found = compliance_report(source, tz=name).to_dict()
    counted = {row["period"]: row["total_events"] for row in found["months"] if row["total_events"]}
    assert counted == Counter(f"{instant.astimezone(zone):%Y-%m}" for instant in instants)
    assert sum(step["total"] for step in found["over_time"]["steps"]) == len(instants)


NIGHT = at("2025-03-30T00:59:59Z")


def documents(tz):
    """Return the documents of each kind of report about two events around a change of the clock."""
    earlier = dt.timedelta(days=40)
    events = [
        stored(at=NIGHT - earlier, user_id="ann"),
        stored(at=NIGHT, user_id="ann"),
        stored(1, at=NIGHT, operation="FORGET", user_id="ann"),
    ]
    source = Events(events, now=at("2025-05-01T10:00Z"))
    compliance = compliance_report(source, month="2025-03", tz=tz)
    person = person_report(source, "ann", month="2025-03", tz=tz)
    comparison = comparison_report(source, month="2025-03", tz=tz)
    return {
        "compliance": compliance.to_markdown(),
        "html": compliance.to_html(),
        "person": person.to_markdown(),
        "comparison": comparison.to_markdown(),
    }


@pytest.mark.parametrize("kind", ["compliance", "html", "person", "comparison"])
def test_document_states_every_time_in_its_zone_with_the_offset(kind):
    """Every time in a document is of the zone, with the offset at that time; no time is of UTC."""
    text = re.sub(r"<svg.*?</svg>", "", documents(BERLIN)[kind], flags=re.DOTALL)
    stated = re.findall(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(?:\.\d+)?(.{7})", text)
    assert stated
    assert {rest[1:] for rest in stated} <= {"+01:00", "+02:00"}
    assert "from 2025-03-01 00:00:00 +01:00 to 2025-04-01 00:00:00 +02:00 (Europe/Berlin, end excluded)" in text
    assert "2025-05-01 12:00:00 +02:00 by structlog-audit" in text
    assert not re.search(r"\bUTC\b", text)


def test_row_has_the_local_time_with_its_offset():
    """An event in the hour before the change and one after it show their local times."""
    text = documents(BERLIN)["compliance"]
    assert "| Time (Europe/Berlin) | Operation | User | Status | Entries |" in text
    assert "| 2025-03-30 03:00:00 +02:00 | FORGET | ann |" in text
    assert (
        '<time datetime="2025-03-30T03:00:00.000000+02:00">2025-03-30 03:00:00 +02:00</time>'
        in documents(BERLIN)["html"]
    )


@pytest.mark.parametrize("tz", [None, "UTC", dt.UTC])
def test_document_is_in_utc_by_default(tz):
    """Without a zone, times have no offset, and headings state UTC."""
    text = documents(tz)["compliance"]
    assert "| Time (UTC) | Operation | User | Status | Entries |" in text
    assert "from 2025-03-01 00:00:00 to 2025-04-01 00:00:00 (UTC, end excluded)" in text
    assert "2025-05-01 10:00:00 UTC by structlog-audit" in text


def test_json_has_instants_in_utc_and_the_name_of_the_zone():
    """Data is the same in every zone, but for days and months."""
    source = Events([stored(at=NIGHT, user_id="ann")], now=AFTER)
    members = json.loads(compliance_report(source, month="2025-03", tz=BERLIN).to_json())
    assert members["period"]["time_zone"] == BERLIN
    assert members["summary"]["first_event"] == "2025-03-30T00:59:59.000000Z"
    assert members["over_time"]["steps"][0]["start"] == "2025-02-28T23:00:00.000000Z"
    assert members["generated_at"] == rfc3339(AFTER)


def test_name_of_an_event_that_is_the_name_of_a_time_stays_as_it_is():
    """An operation or a user may be called as a member with a time."""
    event = stored(at=NIGHT, operation="timestamp", user_id="first", metadata={"start": "2025-01-01"})
    text = compliance_report(Events([event], now=AFTER), tz=BERLIN).to_markdown()
    assert "timestamp" in text
    assert "| first | 1 |" in text


@pytest.mark.parametrize(
    ("start", "end", "month"),
    [
        ("2025-02-28T23:00Z", "2025-03-31T22:00Z", "2025-03"),
        ("2025-03-01T00:00Z", "2025-04-01T00:00Z", None),
        ("2025-02-28T23:00Z", "2025-04-30T22:00Z", None),
    ],
)
def test_range_that_is_exactly_a_month_of_the_zone_is_that_month(start, end, month):
    """A range is a month if its bounds are those of a month in the zone, not of UTC and not of two months."""
    found = compliance_report(Events([], now=AFTER), start_time=at(start), end_time=at(end), tz=BERLIN)
    assert found.to_dict()["period"]["month"] == month


def test_naive_time_is_of_the_zone():
    """A bound without a zone is of the zone of the report."""
    found = compliance_report(Events([], now=AFTER), start_time=dt.datetime(2025, 7, 1), tz=BERLIN)
    assert found.to_dict()["period"]["start"] == "2025-06-30T22:00:00.000000Z"


def test_month_of_a_zone_is_compared_with_the_month_before():
    """The month before begins and ends at midnight of the zone, also if the clock has changed."""
    found = comparison_report(Events([], now=AFTER), month="2025-04", tz=BERLIN).to_dict()
    assert (found["before"]["start"], found["before"]["end"]) == (
        "2025-02-28T23:00:00.000000Z",
        "2025-03-31T22:00:00.000000Z",
    )
    assert found["before"]["month"] == "2025-03"


@pytest.mark.parametrize(("word", "month"), [("this", "2025-12"), ("last", "2025-11")])
def test_month_by_a_word_is_that_of_the_zone_now(word, month):
    """At 23:30 UTC of the last day of a month, Berlin has the next one."""
    now = at("2025-11-30T23:30Z")
    found = compliance_report(Events([], now=now), month=word, tz=BERLIN).to_dict()
    assert found["period"]["month"] == month


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "Did you mean 'Europe/Berlin'?"),
        ("berlin", "Did you mean 'Europe/Berlin'?"),
        ("New York", "Did you mean 'America/New_York'?"),
        ("Mars", "such as 'Europe/Berlin'. The list is zoneinfo.available_timezones()"),
        ("Europe", "expected the name of a time zone"),
        ("", "expected the name of a time zone"),
        ("../UTC", "expected the name of a time zone"),
    ],
)
def test_unknown_zone_is_an_error_with_the_nearest_name(name, hint):
    """The error names the parameter, what it got, and a zone that may be meant."""
    with pytest.raises(AuditValueError, match="tz=") as caught:
        compliance_report(Events([]), tz=name)
    assert hint in str(caught.value)


def test_machine_without_time_zones_is_an_error_with_the_remedy(monkeypatch):
    """Without the database of zones, the error says how to install it; UTC needs none."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    try:
        ZoneInfo.clear_cache()
        with pytest.raises(AuditValueError, match=r"pip install tzdata") as caught:
            checked_zone("tz", "Atlantis/Nowhere")
        assert (
            str(caught.value) == "tz='Atlantis/Nowhere': this machine has no time zones: pip install tzdata, or use UTC"
        )
        assert checked_zone("tz", "UTC") is dt.UTC
    finally:
        zoneinfo.reset_tzpath(to=before)


@pytest.mark.parametrize(
    ("zone", "name"),
    [(ZoneInfo(BERLIN), BERLIN), (dt.UTC, "UTC"), (dt.timezone(dt.timedelta(hours=2)), "UTC+02:00")],
)
def test_zone_has_a_name(zone, name):
    """A zone of the database has its name, any other one its own text."""
    assert zone_name(zone) == name


@pytest.mark.parametrize("report", [compliance_report, lambda source, **range: person_report(source, "ann", **range)])
@pytest.mark.parametrize(
    ("spoken", "exact"),
    [
        ({"since": "yesterday"}, {"start_time": at("2025-12-30T23:00Z")}),
        ({"since": dt.date(2025, 12, 31)}, {"start_time": at("2025-12-30T23:00Z")}),
        (
            {"since": dt.timedelta(hours=30), "until": "6h"},
            {"start_time": AFTER - 30 * HOUR, "end_time": AFTER - 6 * HOUR},
        ),
    ],
)
def test_range_as_people_say_it_is_that_of_the_zone(report, spoken, exact):
    """The bounds `since` and `until` count from the present time of the source, in days of the zone of the report."""
    source = events_each_hour(at("2025-12-30T00:00Z"), AFTER)
    assert report(source, tz=BERLIN, **spoken).to_dict() == report(source, tz=BERLIN, **exact).to_dict()


def test_ranges_of_a_comparison_as_people_say_them():
    """Both ranges take texts; without a zone, their days are those of UTC."""
    source = events_each_hour(at("2025-12-28T00:00Z"), AFTER)
    found = comparison_report(
        source, since="yesterday", against_since="2025-12-28", against_until="2025-12-29"
    ).to_dict()
    assert (found["before"]["total"], found["now"]["total"]) == (24, 24)


@pytest.mark.parametrize(
    ("range", "message"),
    [
        ({"since": "7d", "start_time": AFTER}, "since='7d': expected one of them"),
        ({"until": "never"}, "until='never': expected a time"),
        ({"since": "1d", "until": "2d"}, "since='1d', until='2d': expected since not to be later than until"),
        ({"month": "2025-01", "since": "7d"}, "month='2025-01': expected either a month or a start_time"),
    ],
)
def test_mistake_in_a_range_as_people_say_it_is_an_error(range, message):
    """A bound that is given twice, is no time or lies after the other one is an error that names the parameter."""
    with pytest.raises(AuditError, match=re.escape(message)):
        compliance_report(Events([], now=AFTER), **range)
