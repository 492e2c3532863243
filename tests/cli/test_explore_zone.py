"""``explore --tz``: the site in the time zone of the reader, in this process."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import pairwise
from time import tzset
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import line_of, write_trail

from structlog_audit import AuditEvent
from structlog_audit.cli.commands import explore
from structlog_audit.cli.explore.local_times import add_local_times
from structlog_audit.cli.explore.overview import add_operation_class, overview_of
from structlog_audit.events.event import EventStatus, Operation
from structlog_audit.events.operation_classes import registered_operations
from structlog_audit.export import export

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [BERLIN, *map(ZoneInfo, ("America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"))]

CHANGE = dt.datetime(2025, 10, 26, 1, tzinfo=dt.UTC)
"""In Berlin, 03:00 becomes 02:00."""


def exported(folder, times, zone):
    """Return the path of a database of failed deletions at *times*, and its front page."""
    events = [
        AuditEvent(
            event_id=f"evt_{number}", timestamp=time, operation=Operation("document.delete"), user_id="ann",
            status=EventStatus.FAILURE,
        )
        for number, time in enumerate(times)
    ]  # fmt: skip
    path = str(folder / "audit.db")
    report = {"source": "s", "completeness": "unknown", "completeness_report": {"sentences": []}}
    report |= {"period_start": "2025-10-25T22:00:00.000000Z", "filters": {}}
    export(events, path, inform=lambda: report, now=CHANGE)
    add_operation_class(path, registered_operations())
    add_local_times(path, zone)
    return path, overview_of(path, (), zone)


@settings(max_examples=8)
@given(times=st.lists(st.datetimes(), min_size=1, max_size=5), zone=st.sampled_from(ZONES))
def test_bars_cover_all_local_times_once(tmp_path_factory, times, zone):
    """For all times and zones, each event is in one bar of the timeline, and its local day is that of Python."""
    times = [time.replace(tzinfo=dt.UTC) for time in times]
    path, overview = exported(tmp_path_factory.mktemp("x"), times, zone)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT timestamp, local_time, local_day FROM events ORDER BY number").fetchall()

    assert sum(bar.events for bar in overview.bars) == len(times)
    assert all(one.stop == following.start for one, following in pairwise(overview.bars))
    for time, (stored, local, day) in zip(times, rows, strict=True):
        assert dt.datetime.fromisoformat(stored) == time
        assert dt.datetime.fromisoformat(local) == time
        assert sum(bar.start <= local < bar.stop for bar in overview.bars) == 1
        try:
            assert day == time.astimezone(zone).date().isoformat()
        except OverflowError:
            assert day == time.date().isoformat()


def test_day_in_the_timeline_is_that_of_the_zone(tmp_path):
    """An event before midnight in UTC counts for the next day of Berlin; first and last have the offset of their time."""
    first = dt.datetime(2025, 10, 1, 22, 30, tzinfo=dt.UTC)
    _, overview = exported(tmp_path, [first, CHANGE], BERLIN)
    assert (overview.unit, overview.bars[0].start, overview.bars[-1].start) == ("day", "2025-10-02", "2025-10-26")
    assert overview.figures["first"] == "2025-10-02T00:30:00.000000+02:00"
    assert overview.figures["last"] == "2025-10-26T02:00:00.000000+01:00"


@pytest.fixture
def served(monkeypatch):
    """The front page and the first event of each site that the command would serve."""
    found = []

    def serve(path, overview):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            found.append((overview, dict(connection.execute("SELECT * FROM events").fetchone())))

    monkeypatch.setattr(explore, "find_spec", lambda name: True)
    monkeypatch.setattr(explore, "check_versions", lambda extra: None)
    monkeypatch.setattr(explore, "_serve", serve)
    return found


@pytest.fixture
def new_york(monkeypatch):
    """Set the local time zone to New York."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        tzset()
        yield
    tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("words", "start"),
    [((), "2025-01-01T00:00:00.000000Z"), (("--tz", "Europe/Berlin"), "2024-12-31T23:00:00.000000Z")],
)
def test_month_is_read_in_the_zone_that_is_shown(tmp_path, served, words, start):
    """A month is that of UTC or of ``--tz``, as in a report, whatever the local time is."""
    path = write_trail(tmp_path, active=line_of(1))
    assert run("explore", path, "--month", "2025-01", *words).code == 0
    assert served[0][0].information["period_start"] == start


def test_command_exports_the_times_of_its_zone(tmp_path, served):
    """``--tz`` adds local times to the copy, whose timestamps and sentences keep their instants; without it there are none."""
    path = write_trail(tmp_path, active=line_of(1))
    assert run("explore", path, "--tz", "Europe/Berlin").code == 0
    assert run("explore", path).code == 0

    (local, row), (overview, plain) = served
    assert dt.datetime.fromisoformat(row["local_time"]) == dt.datetime.fromisoformat(row["timestamp"])
    assert (row["local_time"][-6:], row["local_day"]) == ("+01:00", "2025-01-15")
    assert (local.zone_name, overview.zone_name) == ("Europe/Berlin", "UTC")
    assert local.sentences != overview.sentences
    assert row.keys() - plain.keys() == {"local_time", "local_day"}


# --- its pages ---------------------------------------------------------------------------------------------------------------


class Pages:
    """The pages of a site, by their paths."""

    def __init__(self, path, overview):
        pytest.importorskip("datasette", reason="not installed: datasette")
        from structlog_audit.cli.explore.site import make_site

        self._site = make_site(path, overview, "token")

    def get(self, path, *, status=200, **query):
        """Return the answer to a request, which has *status*."""

        async def answer():
            return await self._site.client.get(f"{path}?{urlencode(query)}")

        found = asyncio.run(answer())
        assert found.status_code == status, found.text
        return found

    def text(self, path, *, status=200, **query):
        """Return the text of a page, without its markup."""
        return " ".join(re.sub(r"<[^>]*>", " ", self.get(path, status=status, **query).text).split())

    def rows(self, path, **query):
        """Return the rows of a page as dictionaries."""
        found = self.get(f"{path}.json", **query).json()
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


TIMES = [CHANGE + dt.timedelta(minutes=30 * number) for number in range(-6, 50)]
"""The half hours of the 26th of October in Berlin, from midnight on, which has 25 hours, and six of the next day."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of the site of events around the change in Berlin."""
    return Pages(*exported(tmp_path_factory.mktemp("site"), TIMES, BERLIN))


def test_facet_counts_local_days(pages):
    """A day of 25 hours has its events, and its facet leads to them."""
    facets = pages.get("/audit/events.json", _size=0).json()["facet_results"]
    counts = {one["value"]: one["count"] for one in facets["local_day"]["results"]}
    assert (
        counts
        == Counter(f"{time.astimezone(BERLIN):%Y-%m-%d}" for time in TIMES)
        == {"2025-10-26": 50, "2025-10-27": 6}
    )
    assert "timestamp" not in facets
    assert len(pages.rows("/audit/events", local_day="2025-10-26", _size="max")) == 50
    assert "day 2025-10-26 50 2025-10-27 6" in pages.text("/audit/events")


def test_pages_show_local_times_and_the_event_both(pages):
    """Tables have the local time with its offset, the page of an event the timestamp in UTC as well."""
    table = pages.text("/audit/events", _size=1)
    assert "local_time" in table
    assert "2025-10-27T02:30:00.000000+01:00" in table
    event = pages.text("/audit/events/7")
    assert "2025-10-26 02:00:00+01:00 Europe/Berlin" in event
    assert "2025-10-26 02:00:00+02:00 Europe/Berlin" in pages.text("/audit/events/5")
    assert "timestamp 2025-10-26T01:00:00.000000Z local_time 2025-10-26T02:00:00.000000+01:00" in event
    front = pages.text("/")
    assert "Period 2025-10-26 00:00:00+02:00 to the end (Europe/Berlin)" in front
    assert "Copied 2025-10-26 02:00:00+01:00 Europe/Berlin" in front
    assert "Events by hour, Europe/Berlin" in front


def test_bar_leads_to_the_events_of_its_local_hour(pages):
    """The bar of the hour that occurs twice has the events of both, and its link finds them."""
    link = re.search(r'events\?([^"]*local_time__gte=2025-10-26T02[^"]*)"', pages.get("/").text)[1].replace(
        "&amp;", "&"
    )
    found = pages.get(f"/audit/events.json?{link}&_size=max&_x").json()["rows"]
    assert len(found) == 4


def test_questions_have_local_days(pages, monkeypatch):
    """The week of a day is that of the zone, and so are first and last of a user."""
    assert len(pages.rows("/audit/failures", day="2025-10-26")) == 50
    assert len(pages.rows("/audit/failures", day="2025-10-27")) == 6
    assert pages.rows("/audit/deletions")[0]["local_time"] == "2025-10-27T02:30:00.000000+01:00"
    (row,) = pages.rows("/audit/users")
    assert (row["first"], row["last"]) == ("2025-10-26T00:00:00.000000+02:00", "2025-10-27T02:30:00.000000+01:00")
    assert "Monday to Sunday (Europe/Berlin)" in pages.text("/")
    assert pages.get("/audit/deletions.csv").text.count("\r\n") == 57
    today = pages.rows("/audit", sql="SELECT local_today() AS today")[0]["today"]
    assert abs(dt.date.fromisoformat(today) - dt.datetime.now(dt.UTC).date()) <= dt.timedelta(days=1)


def test_page_has_every_facet_of_its_json(pages):
    """The page shows the facets for class, operation, user, status and day in this order, and one that was asked for."""
    page = pages.get("/audit/events", _facet="kind").text
    assert re.findall('id="facet-([^"]*)"', page) == [
        "operation_class", "operation", "user_id", "status", "local_day", "kind",
    ]  # fmt: skip
    assert "operation_class delete 56" in pages.text("/audit/events")


@pytest.mark.parametrize("suffix", ["", ".json", ".csv"])
def test_day_in_another_form_is_an_error(pages, suffix):
    """What is no day as the database writes it is refused with the form; without a day the week is this one."""
    for day in ("25.10.2026", "2026-10-5", "2026-10-25T10", "20261025", "2026-02-30", "x"):
        answer = pages.get(f"/audit/failures{suffix}", status=400, day=day).text
        assert "day: expected a day such as 2025-01-15, got" in answer
    assert pages.get(f"/audit/failures{suffix}", day="").text


def test_page_of_an_error_names_the_versions(pages):
    """The foot of every page says what serves it, also that of an error."""
    for path, status in (("/audit/events", 200), ("/audit/nothing", 404)):
        assert re.search(r"structlog-audit [\d.]+\S*, served by Datasette \d", pages.text(path, status=status))


def test_day_is_asked_for_as_a_date(pages):
    """The field of a day is one for dates, that of another text is not."""
    assert re.search('<input type="date"[^>]* name="day"', pages.get("/audit/failures").text)
    assert re.search('<input type="text"[^>]* name="user"', pages.get("/audit/deletions").text)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("events", "operation_clas", "delete"),
        ("events", "operation_clas__exact", "delete"),
        ("events", "user_id__is", "ann"),
        ("events", "_sort", "tim"),
        ("events", "_facet", "operation_clas"),
        ("failures", "dya", "2025-10-26"),
        ("deletions.csv", "usr", "ann"),
    ],
)
def test_unknown_name_in_an_address_is_an_error(pages, capfd, path, name, value):
    """A column, a comparison or a parameter that does not exist is refused, and no number is shown without it."""
    answer = pages.get(f"/audit/{path}", status=400, **{name: value}).text
    assert "expected one of " in answer
    assert "user, user" not in answer
    assert capfd.readouterr() == ("", "")


def test_facet_with_options_is_shown(pages):
    """Datasette also takes a JSON object as a facet."""
    assert pages.get("/audit/events", _facet='{"column": "session_id"}').text.count("session_id")


def test_mistake_in_sql_is_on_the_page_only(pages, capfd):
    """An error of SQL is shown where it was written, and the terminal stays as it is."""
    assert "no such column: nope" in pages.get("/audit", status=400, sql="select nope").text
    assert "no such column: nope" in pages.get("/audit/events", status=400, _where="nope = 1").text
    assert capfd.readouterr() == ("", "")
