"""Retention: which segments go, and that it is recorded before."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import types
from itertools import accumulate, count

import pytest
from conftest import Later
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit._failures import DeliveryError
from structlog_audit.trail.writing.retention import LATE_SECONDS, Retention, Rolled, believed, retention_of, rollovers

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def aged(*days):
    """Rolled segments of 100 bytes each, so many days old."""
    return [Rolled(NOW - age * DAY, NOW, 100) for age in days]


@pytest.mark.parametrize(("retention", "due"), [
    (Retention(), 0),
    (Retention(max_age_days=25), 1),
    (Retention(max_age_days=15), 2),
    (Retention(max_age_days=0), 3),
    (Retention(max_bytes=350), 0),
    (Retention(max_bytes=349), 1),
    (Retention(max_bytes=0), 3),
    (Retention(max_segments=2), 1),
    (Retention(max_segments=0), 3),
    (Retention(max_bytes=0, min_age_days=20), 2),
    (Retention(max_segments=0, min_age_days=31), 0),
    (Retention(max_age_days=25, max_segments=1), 2),
])  # fmt: skip
def test_what_is_due(retention, due):
    """The oldest segments go by age, bytes or number, none before its minimum age."""
    assert retention.due(aged(30, 20, 10), 50, NOW) == due


retentions = st.builds(
    Retention,
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 3000),
    st.none() | st.integers(0, 25),
    st.integers(0, 300),
)
trails = st.lists(st.integers(1, 30), max_size=20).map(lambda gaps: sorted(accumulate(gaps), reverse=True))
"""Ages in days, with no gap that a clock could have made."""


@given(trails, retentions)
@settings(max_examples=200, deadline=None)
def test_never_too_young_and_never_more_than_needed(days, retention):
    """For all trails: what goes is old enough and the oldest, and with one segment less gone some bound would be broken."""
    gone = retention.due(aged(*days), 0, NOW)
    assert all(age >= retention.min_age_days for age in days[:gone])
    if gone:
        left = days[gone - 1 :]
        broken = (
            (retention.max_age_days is not None and left[0] > retention.max_age_days)
            or (retention.max_bytes is not None and 100 * len(left) > retention.max_bytes)
            or (retention.max_segments is not None and len(left) > retention.max_segments)
        )
        assert broken


@given(trails, retentions, st.integers(31, 100_000), st.lists(st.integers(0, 7 * 86_399), max_size=5))
@settings(max_examples=200, deadline=None)
def test_a_clock_that_leaps_forward_lets_nothing_go_early(days, retention, leap, since):
    """For all leaps of more than 30 days: within a week, and rollovers since, nothing goes that would not go without it."""
    before = aged(*days)
    ages = Retention(retention.max_age_days, min_age_days=retention.min_age_days)
    last = before[-1].named if before else NOW
    leapt = [last + leap * DAY + dt.timedelta(seconds=second) for second in sorted(since)]
    after = [Rolled(time, time, 100) for time in leapt]
    now = (leapt[0] if leapt else last + leap * DAY) + 6.99 * DAY
    gone = min(len(before), ages.due([*before, *after], 0, now))  # those rolled since are as old as the new clock says
    assert gone <= ages.due(before, 0, max(last, NOW))


def test_a_leap_that_stays_for_a_week_is_believed():
    """A process that was idle for long lets go of what is too old a week after it went on."""
    rolled = [*aged(400), Rolled(NOW, NOW, 100)]
    retention = Retention(max_age_days=30)
    assert [retention.due(rolled, 0, NOW + days * DAY) for days in (0, 6.9, 7, 30)] == [0, 0, 1, 1]
    assert Retention(max_bytes=0).due(rolled, 0, NOW + DAY) == 2  # what does not count by age goes on counting


def test_one_rollover_while_the_clock_was_ahead_keeps_nothing_for_ever():
    """Names of the future get the time of the file, or of the segment that follows: bounds and minimum ages still count."""
    ahead = NOW + 3650 * DAY
    times = [NOW - 3 * DAY, NOW - 2 * DAY, NOW - 1 * DAY]
    future = [Rolled(ahead + dt.timedelta(microseconds=n), time, 100) for n, time in enumerate([ahead, *times])]
    rolled = [*aged(5), *future]
    assert rollovers(rolled, NOW) == [NOW - 5 * DAY, times[0], *times]
    assert Retention(max_bytes=0).due(rolled, 0, NOW) == 5
    assert Retention(max_bytes=0, min_age_days=2).due(rolled, 0, NOW) == 4
    assert Retention(max_age_days=2.5).due(rolled, 0, NOW) == 3


@given(st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(-5_000, 5_000)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_rollovers_are_in_order_and_past_whatever_the_clock_did(days):
    """For all names and file times: the times taken for true ascend, none is after now, nor is what ages are measured by."""
    rolled = sorted(Rolled(NOW + named * DAY, NOW + changed * DAY, 1) for named, changed in days)
    times = rollovers(rolled, NOW)
    assert times == sorted(times)
    assert len(times) == len(rolled)
    assert all(time <= NOW for time in times)
    assert believed(times, NOW) in [*times, NOW]


def test_nothing_goes_while_it_may_still_be_written_to():
    """In the second after its rollover a segment stays, whatever the bounds say; so it does if the clock went back a bit."""
    for seconds, due in ((-0.5, 0), (0, 0), (LATE_SECONDS - 0.01, 0), (LATE_SECONDS, 1)):
        time = NOW - dt.timedelta(seconds=seconds)
        assert Retention(max_bytes=0).due([Rolled(time, time, 100)], 0, NOW) == due


def test_a_retention_may_be_given_as_itself():
    """A Retention is as good as a mapping, and backupCount joins it."""
    assert retention_of(Retention(max_age_days=3), 0) == retention_of({"max_age_days": 3}, 0)
    assert retention_of(None, 5) == Retention(max_segments=5)
    assert not retention_of({"max_age_days": None}, 0).bounds


def fill(path, events, later, **options):
    """Record so many events, a minute between two looks at the clock."""
    minutes = count()
    options = {"maxBytes": 1_000, "clock": lambda: NOW + dt.timedelta(minutes=next(minutes)), **options}
    handler = AuditHandler(target=AuditFileHandler(path, **options), call_later=later)
    record(handler, events)
    return handler


def record(handler, events):
    for number in range(events):
        handler.handle(logging.makeLogRecord({"msg": f"OP{number}", "levelno": 20}))


def look(handler):
    """Have the next event look what may go, as it does a second after a rollover."""
    handler.target._active.check_at = handler.target._pruning.look_at = 0.0


@pytest.mark.parametrize("options", [{"backupCount": 2}, {"retention": {"max_segments": 2}}])
def test_segments_go_after_that_is_recorded(path, options):
    """The act that names the segments is in the trail while they are still there; then they go, whole and oldest first."""
    later = Later()
    handler = fill(path, 40, later, **options)
    assert not later.calls
    there = [segment.name for segment in handler.target.segments()]
    look(handler)
    record(handler, 1)
    named = [name for event in handler.iter_events(kind="trail") for name in event.metadata.get("segments", [])]
    assert len(there) > 4
    assert named == there[:-3]
    assert set(there) <= {segment.name for segment in handler.target.segments()}
    later.run()
    assert [segment.name for segment in handler.target.segments()][:2] == there[-3:-1]


def test_an_act_that_is_not_recorded_deletes_nothing(path):
    """If the retention can't be recorded, no segment goes."""

    def failing(entries):
        raise DeliveryError(0) from OSError("disk")

    later = Later()
    handler = fill(path, 40, later)
    before = handler.target.segments()
    handler.target._pruning.retention = Retention(max_segments=0)
    handler.target._pruning.look(0)
    handler._trail_events._commit._deliver = failing
    handler.handle(logging.makeLogRecord({"msg": "X", "levelno": 20}))
    handler._trail_events._commit._deliver = lambda entries: None
    later.run()
    assert handler.target.segments() == before
    handler.target._pruning.look(0)
    handler.handle(logging.makeLogRecord({"msg": "X", "levelno": 20}))
    later.run()
    assert handler.target.segments() == before[-1:]


def test_a_late_write_is_not_deleted_with_its_segment(path):
    """What a writer that has not looked yet puts into a segment just rolled over stays for a second, bounds or not."""
    later, now = Later(), [NOW]
    options = {"retention": {"max_bytes": 3_000}, "clock": lambda: now[0]}
    late, busy = fill(path, 1, later, **options), fill(path, 1, later, **options)
    for _ in range(40):
        now[0] += dt.timedelta(milliseconds=1)
        look(busy)
        record(busy, 1)
        later.run()
    late.target._active.check_at = float("inf")
    late.handle(logging.makeLogRecord({"msg": "LATE", "levelno": 20}))
    assert any(b"LATE" in segment.read_bytes() for segment in late.target.segments()[:-1])
    now[0] += dt.timedelta(seconds=1)
    look(busy)
    record(busy, 1)
    later.run()
    assert sum(segment.stat().st_size for segment in busy.target.segments()) < 4_000


def test_what_is_due_at_the_start_goes(path):
    """A process that seldom rolls over lets go of old segments when it begins to record."""
    later = Later()
    fill(path, 40, later)
    handler = fill(path, 1, later, maxBytes=10_000, retention={"max_segments": 1}, clock=lambda: NOW + DAY)
    later.run()
    assert len(handler.target.segments()) == 2


def test_a_segment_that_cannot_be_deleted_is_noticed(path):
    """A failure to delete is an act of its own."""
    later = Later()
    handler = fill(path, 1, later, retention={"max_segments": 0})
    folder = path.with_name("audit.jsonl.20250115T103045.123456Z")
    folder.mkdir()
    handler.target._pruning.delete([folder], True)
    handler.close()
    acts = [json.loads(line)["operation"] for line in path.read_bytes().splitlines() if b'"trail"' in line]
    assert "retention failed" in acts


def test_check_tells_of_a_trail_without_bound_and_of_a_full_disk(path, monkeypatch):
    """check() warns of what will fill the disk, and of a disk that is nearly full."""
    assert [finding.code for finding in AuditFileHandler(path).check()] == ["unbounded"]
    bounded = AuditFileHandler(path, backupCount=3)
    assert bounded.check() == []
    full = types.SimpleNamespace(f_blocks=10**9, f_bavail=10**6, f_frsize=1_000)
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    assert [finding.code for finding in bounded.check()] == ["disk"]
