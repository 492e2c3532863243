"""What the front page shows about an exported database: key figures, the verdict on completeness, and a timeline."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from structlog_audit.cli.explore.local_times import LOCAL_DAY, local_time, time_column
from structlog_audit.events.operation_classes import UNCLASSIFIED, OperationClasses
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.query.times import zone_name

_UNITS = {"hour": (13, 4), "day": (10, 100), "month": (7, 3_650), "year": (4, 10_000_000)}
"""The units of the timeline: the characters of a timestamp that name one, and the greatest number of days that uses it."""

_AFTER_ALL = "~"
"""A text that sorts after every timestamp."""

_TIMELINE = """
SELECT substr({column}, 1, ?), count(*), sum(status = 'FAILURE') FROM events GROUP BY 1
"""
_FIGURES = """
SELECT count(*) AS events, count(DISTINCT user_id) AS users, count(DISTINCT operation) AS operations,
       total(status = 'FAILURE') AS failures, min(timestamp) AS first, max(timestamp) AS last FROM events
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the timeline.

    Attributes:
        start: The first timestamp of its time, as far as it is written.
        stop: The first timestamp after it.
        events, failures: Their numbers.
        height, failure_height: The parts of the highest bar, from 0 to 1.
    """

    start: str
    stop: str
    events: int
    failures: int
    height: float
    failure_height: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The content of the front page."""

    information: dict[str, Any]
    figures: dict[str, Any]
    unit: str
    bars: tuple[Bar, ...]
    sentences: tuple[str, ...] = field(default=())
    seals: tuple[SealVerdict, ...] = ()
    zone: dt.tzinfo = dt.UTC

    @property
    def zone_name(self) -> str:
        """The name of the time zone."""
        return zone_name(self.zone)

    @property
    def time_column(self) -> str:
        """The column of the events with their times in the zone."""
        return time_column(self.zone)

    @property
    def day_facet(self) -> Any:
        """The facet for the days of the zone. SQLite takes an offset off before it makes a day."""
        return {"date": "timestamp"} if self.zone is dt.UTC else LOCAL_DAY

    def local(self, text: str | None) -> str | None:
        """Return a timestamp as the time of the zone."""
        return local_time(text, self.zone)


def add_operation_class(path: str, classes: OperationClasses) -> None:
    """Add the column ``operation_class`` to the events in the database at *path*."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("class_of", 1, lambda name: str(classes.class_of(name) or UNCLASSIFIED))
        connection.execute("ALTER TABLE events ADD COLUMN operation_class TEXT")
        connection.execute("UPDATE events SET operation_class = class_of(operation)")
        connection.execute("CREATE INDEX events_operation_class ON events (operation_class)")


def overview_of(path: str, seals: Iterable[SealVerdict], zone: dt.tzinfo = dt.UTC) -> Overview:
    """Return the content of the front page for the database at *path*, which has the times of *zone*."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        information = dict(connection.execute("SELECT * FROM export_information").fetchone())

        figures = dict(connection.execute(_FIGURES).fetchone())
        figures["failures"] = int(figures["failures"])
        figures |= {name: local_time(figures[name], zone) for name in ("first", "last")}

        unit = _unit_of(figures["first"], figures["last"])
        counted = connection.execute(_TIMELINE.format(column=time_column(zone)), (_UNITS[unit][0],)).fetchall()

    report = json.loads(information.pop("completeness_report"))
    bars = tuple(_bars(unit, map(tuple, counted)))
    return Overview(information, figures, unit, bars, tuple(report["sentences"]), tuple(seals), zone)


def _unit_of(first: str | None, last: str | None) -> str:
    """Return the smallest unit that gives few enough bars."""
    if first is None or last is None:
        return "day"

    first_day = dt.date.fromisoformat(first[:10])
    last_day = dt.date.fromisoformat(last[:10])
    days = (last_day - first_day).days

    for unit, (_, most) in _UNITS.items():
        if days < most:
            return unit
    return "year"


def _bars(unit: str, counted: Iterable[tuple[Any, ...]]) -> Iterator[Bar]:
    """Yield a bar for each unit from the first with an event to the last, also for those without one."""
    by_start = {}
    highest = 0
    for start, events, failures in counted:
        by_start[start] = (events, failures)
        highest = max(highest, events)
    if not by_start:
        return

    start = min(by_start)
    last = max(by_start)
    while start <= last:
        stop = _following(unit, start)
        events, failures = by_start.get(start, (0, 0))
        yield Bar(
            start=start,
            stop=stop,
            events=events,
            failures=failures,
            height=events / highest,
            failure_height=failures / highest,
        )
        start = stop


def _following(unit: str, start: str) -> str:
    """Return the unit after *start*, in the same form."""
    if unit == "year":
        return _text_of_month(int(start) + 1, 1)[:4]

    if unit == "month":
        year = int(start[:4])
        month = int(start[5:])
        if month == 12:
            return _text_of_month(year + 1, 1)
        return _text_of_month(year, month + 1)

    if unit == "hour":
        step = dt.timedelta(hours=1)
        time = dt.datetime.fromisoformat(f"{start}:00")
    else:
        step = dt.timedelta(days=1)
        time = dt.datetime.fromisoformat(start)

    if time > dt.datetime.max - step:
        return _AFTER_ALL
    text = (time + step).isoformat()
    return text[: len(start)]


def _text_of_month(year: int, month: int) -> str:
    return f"{year:04d}-{month:02d}" if year <= dt.MAXYEAR else _AFTER_ALL
