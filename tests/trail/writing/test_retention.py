"""Retention: which segments are due, and that they are deleted only after that is recorded."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import re
import types
from itertools import accumulate, count

import pytest
from conftest import DeferredCalls
from hypothesis import given, settings
from hypothesis import strategies as st
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditTypeError, AuditValueError
from structlog_audit._failures import DeliveryError
from structlog_audit.trail.writing.retention import (
    GRACE_SECONDS,
    Retention,
    RolledSegment,
    make_retention,
    rollover_times,
    trusted_now,
)

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def aged(*days):
    """Return rolled segments of 100 bytes each, with these ages in days."""
    return [RolledSegment(NOW - age * DAY, NOW, 100) for age in days]


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
def test_the_oldest_segments_beyond_a_bound_are_due(retention, due):
    """Segments are due by age, bytes or number, but not before their minimum age."""
    assert retention.count_due(aged(30, 20, 10), 50, NOW) == due


retentions = st.builds(
    Retention,
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 3000),
    st.none() | st.integers(0, 25),
    st.integers(0, 300),
)
trails = st.lists(st.integers(1, 30), max_size=20).map(lambda gaps: sorted(accumulate(gaps), reverse=True))
"""Lists of ages in days, without a gap that counts as a leap of the clock."""


@given(trails, retentions)
@settings(max_examples=200, deadline=None)
def test_due_segments_are_old_enough_and_no_more_than_necessary(days, retention):
    """For all trails, each due segment has its minimum age, and with one less a bound would be exceeded."""
    due_count = retention.count_due(aged(*days), 0, NOW)
    assert all(age >= retention.min_age_days for age in days[:due_count])
    if due_count:
        left = days[due_count - 1 :]
        broken = (
            (retention.max_age_days is not None and left[0] > retention.max_age_days)
            or (retention.max_bytes is not None and 100 * len(left) > retention.max_bytes)
            or (retention.max_segments is not None and len(left) > retention.max_segments)
        )
        assert broken


@given(trails, retentions, st.integers(31, 100_000), st.lists(st.integers(0, 7 * 86_399), max_size=5))
@settings(max_examples=200, deadline=None)
def test_no_segment_is_due_early_after_a_leap_of_the_clock(days, retention, leap, since):
    """For all leaps of more than 30 days, no segment is due for a week that would not be due without the leap."""
    before = aged(*days)
    ages = Retention(retention.max_age_days, min_age_days=retention.min_age_days)
    last = before[-1].named_at if before else NOW
    leapt = [last + leap * DAY + dt.timedelta(seconds=second) for second in sorted(since)]
    after = [RolledSegment(time, time, 100) for time in leapt]
    now = (leapt[0] if leapt else last + leap * DAY) + 6.99 * DAY
    # The segments rolled over since the leap have the age that the new clock gives them.
    due_count = min(len(before), ages.count_due([*before, *after], 0, now))
    assert due_count <= ages.count_due(before, 0, max(last, NOW))


@pytest.mark.parametrize(("days", "due"), [(0, 0), (6.9, 0), (7, 1), (30, 1)])
def test_a_leap_of_the_clock_is_trusted_after_a_week(days, due):
    """After a long gap, ages count by the new time once the trail has continued for a week."""
    rolled = [*aged(400), RolledSegment(NOW, NOW, 100)]
    assert Retention(max_age_days=30).count_due(rolled, 0, NOW + days * DAY) == due


def test_a_leap_of_the_clock_does_not_affect_other_bounds():
    """Bounds on bytes apply directly after a leap of the clock."""
    rolled = [*aged(400), RolledSegment(NOW, NOW, 100)]
    assert Retention(max_bytes=0).count_due(rolled, 0, NOW + DAY) == 2


def test_names_of_the_future_get_the_time_of_the_file_or_the_successor():
    """After a clock that was ahead, bounds and minimum ages still apply."""
    ahead = NOW + 3650 * DAY
    times = [NOW - 3 * DAY, NOW - 2 * DAY, NOW - 1 * DAY]
    future = [RolledSegment(ahead + dt.timedelta(microseconds=n), time, 100) for n, time in enumerate([ahead, *times])]
    rolled = [*aged(5), *future]
    assert rollover_times(rolled, NOW) == [NOW - 5 * DAY, times[0], *times]
    assert Retention(max_bytes=0).count_due(rolled, 0, NOW) == 5
    assert Retention(max_bytes=0, min_age_days=2).count_due(rolled, 0, NOW) == 4
    assert Retention(max_age_days=2.5).count_due(rolled, 0, NOW) == 3


@given(st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(-5_000, 5_000)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_rollover_times_ascend_and_are_not_in_the_future(days):
    """For all names and file times, the rollover times ascend, and neither they nor the trusted time are after now."""
    rolled = sorted(RolledSegment(NOW + named * DAY, NOW + changed * DAY, 1) for named, changed in days)
    times = rollover_times(rolled, NOW)
    assert times == sorted(times)
    assert len(times) == len(rolled)
    assert all(time <= NOW for time in times)
    assert trusted_now(times, NOW) in [*times, NOW]


def test_no_segment_is_due_within_the_grace_period():
    """A segment is never due in the second after its rollover, nor if the clock went back slightly."""
    for seconds, due in ((-0.5, 0), (0, 0), (GRACE_SECONDS - 0.01, 0), (GRACE_SECONDS, 1)):
        time = NOW - dt.timedelta(seconds=seconds)
        assert Retention(max_bytes=0).count_due([RolledSegment(time, time, 100)], 0, NOW) == due


def test_a_retention_object_equals_its_mapping():
    """A Retention object and a mapping of its attributes give the same retention."""
    assert make_retention(Retention(max_age_days=3), 0) == make_retention({"max_age_days": 3}, 0)


@pytest.mark.parametrize(("value", "error", "message"), [
    ({"max_age": 1}, AuditTypeError, "expected a mapping with keys from max_age_days, max_bytes, max_segments, min_age_days"),
    ({"max_bytes": 1, "days": 2}, AuditTypeError, "expected a mapping with keys from"),
    (30, AuditTypeError, "retention=30: expected a mapping"),
    ([("max_bytes", 1)], AuditTypeError, "expected a mapping"),
    ({"max_age_days": "30"}, AuditTypeError, "retention: max_age_days='30': expected a number of days"),
    ({"max_age_days": True}, AuditTypeError, "retention: max_age_days=True: expected a number of days"),
    ({"min_age_days": None}, AuditTypeError, "retention: min_age_days=None: expected a number of days"),
    ({"max_age_days": -1}, AuditValueError, "retention: max_age_days=-1: expected at least 0"),
    ({"min_age_days": float("nan")}, AuditValueError, "retention: min_age_days=nan: expected at least 0"),
    ({"max_bytes": -1}, AuditValueError, "retention: max_bytes=-1"),
    ({"max_bytes": 1.5}, AuditTypeError, "retention: max_bytes=1.5"),
    ({"max_segments": 1.5}, AuditTypeError, "retention: max_segments=1.5"),
    ({"max_age_days": 1, "min_age_days": 2}, AuditValueError, "min_age_days=2: expected at most max_age_days=1"),
])  # fmt: skip
def test_invalid_retention_is_refused_with_the_bound_and_its_value(value, error, message):
    """The message names the bound, its value and what was expected."""
    with pytest.raises(error, match=re.escape(message)):
        make_retention(value, 0)


def test_least_bounds_are_accepted():
    """Bounds of zero, and equal ages, are valid; a bound of the mapping takes the place of ``backupCount``."""
    zero = {"max_age_days": 0, "max_bytes": 0, "max_segments": 0, "min_age_days": 0}
    assert make_retention(zero, 5) == Retention(0, 0, 0, 0)
    assert make_retention({"max_age_days": 2, "min_age_days": 2}, 5) == Retention(2, None, 5, 2)
    assert make_retention({"max_segments": None}, 5) == Retention()


def test_backup_count_sets_the_maximum_number_of_segments():
    """Without a retention, ``backupCount`` bounds the number of rolled segments."""
    assert make_retention(None, 5) == Retention(max_segments=5)


def test_a_retention_of_none_is_not_bounded():
    """An attribute with the value None sets no bound."""
    assert not make_retention({"max_age_days": None}, 0).is_bounded


def fill(path, events, deferred, **options):
    """Record this number of *events* with a clock that advances by a minute at each call, and return the handler."""
    minutes = count()
    options = {"maxBytes": 1_000, "clock": lambda: NOW + dt.timedelta(minutes=next(minutes)), **options}
    handler = AuditHandler(target=AuditFileHandler(path, **options), call_later=deferred)
    record(handler, events)
    return handler


def record(handler, events):
    for number in range(events):
        handler.handle(record_of(f"OP{number}"))


def check_retention(handler):
    """Let the next event check the retention, as it does one second after a rollover."""
    handler.target._active.check_at = handler.target._pruning.check_at = 0.0


@pytest.mark.parametrize("options", [{"backupCount": 2}, {"retention": {"max_segments": 2}}])
def test_segments_are_deleted_after_their_announcement_is_recorded(path, options):
    """A trail event names the segments while they exist; then they are deleted, oldest first."""
    deferred = DeferredCalls()
    handler = fill(path, 40, deferred, **options)
    assert not deferred.calls
    existing = [segment.name for segment in handler.target.segments()]
    check_retention(handler)
    record(handler, 1)
    named = [name for event in handler.iter_events(kind="trail") for name in event.metadata.get("segments", [])]
    assert len(existing) > 4
    assert named == existing[:-3]
    assert set(existing) <= {segment.name for segment in handler.target.segments()}
    deferred.run()
    assert [segment.name for segment in handler.target.segments()][:2] == existing[-3:-1]


@pytest.mark.parametrize("retention", [{"max_segments": 2}, {"max_segments": 3}])
def test_segment_and_its_compressed_copy_are_one_segment(path, retention):
    """Retention counts a segment and its compressed copy once, as readers do, and deletes both."""
    deferred = DeferredCalls()
    handler = fill(path, 40, deferred, retention=retention)
    rolled = handler.target.segments()[:-1]
    packed = [segment.with_name(segment.name + ".gz") for segment in rolled]
    for segment, copy in zip(rolled, packed, strict=True):
        copy.write_bytes(gzip.compress(segment.read_bytes()))
    check_retention(handler)
    record(handler, 1)
    deferred.run()

    kept = retention["max_segments"]
    assert len(rolled) > kept
    assert [path.exists() for path in rolled] == [path.exists() for path in packed]
    assert [path for path in rolled if path.exists()] == rolled[-kept:]


def test_segments_whose_announcement_is_not_recorded_are_kept(path):
    """If the announcement can't be recorded, its segments are kept and announced again."""

    def failing(entries):
        raise DeliveryError(0) from OSError("disk")

    deferred = DeferredCalls()
    handler = fill(path, 40, deferred)
    before = handler.target.segments()
    handler.target._pruning.retention = Retention(max_segments=0)
    handler.target._pruning.announce_due(0)
    handler._trail_events._commit._deliver = failing
    handler.handle(record_of("X"))
    handler._trail_events._commit._deliver = lambda entries: None
    deferred.run()
    assert handler.target.segments() == before
    handler.target._pruning.announce_due(0)
    handler.handle(record_of("X"))
    deferred.run()
    assert handler.target.segments() == before[-1:]


def test_a_late_write_is_not_deleted_with_its_segment(path):
    """Lines of a writer that has not noticed a rollover are kept for a second, whatever the bounds."""
    deferred, now = DeferredCalls(), [NOW]
    options = {"retention": {"max_bytes": 3_000}, "clock": lambda: now[0]}
    late, busy = fill(path, 1, deferred, **options), fill(path, 1, deferred, **options)
    for _ in range(40):
        now[0] += dt.timedelta(milliseconds=1)
        check_retention(busy)
        record(busy, 1)
        deferred.run()
    late.target._active.check_at = float("inf")
    late.handle(record_of("LATE"))
    assert any(b"LATE" in segment.read_bytes() for segment in late.target.segments()[:-1])
    now[0] += dt.timedelta(seconds=1)
    check_retention(busy)
    record(busy, 1)
    deferred.run()
    assert sum(segment.stat().st_size for segment in busy.target.segments()) < 4_000


def test_segments_due_at_the_start_are_deleted(path):
    """A process that seldom rolls over deletes old segments when it records its first event."""
    deferred = DeferredCalls()
    fill(path, 40, deferred)
    handler = fill(path, 1, deferred, maxBytes=10_000, retention={"max_segments": 1}, clock=lambda: NOW + DAY)
    deferred.run()
    assert len(handler.target.segments()) == 2


def test_a_failed_deletion_is_recorded(path):
    """A segment that can't be deleted is recorded as "retention failed"."""
    deferred = DeferredCalls()
    handler = fill(path, 1, deferred, retention={"max_segments": 0})
    folder = path.with_name("audit.jsonl.20250115T103045.123456Z")
    folder.mkdir()
    handler.target._pruning.delete([folder], True)
    handler.close()
    operations = [json.loads(line)["operation"] for line in path.read_bytes().splitlines() if b'"trail"' in line]
    assert "retention failed" in operations


def test_check_reports_a_trail_without_bound(path):
    """check() warns of a trail that grows without bound, and only of that."""
    assert [finding.code for finding in AuditFileHandler(path).check()] == ["unbounded"]
    assert AuditFileHandler(path, backupCount=3).check() == []


def test_check_reports_a_nearly_full_disk(path, monkeypatch):
    """check() warns of a disk with little free space."""
    bounded = AuditFileHandler(path, backupCount=3)
    full = types.SimpleNamespace(f_blocks=10**9, f_bavail=10**6, f_frsize=1_000)
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    assert [finding.code for finding in bounded.check()] == ["disk"]


def test_rollover_without_a_bound_schedules_no_check(path):
    """Without a bound, the folder is not listed after a rollover."""
    target = AuditFileHandler(path, maxBytes=10)
    for _ in range(3):
        target.write(b"x" * 9 + b"\n")
    assert len(target.segments()) == 3
    assert target._pruning.check_at == float("inf")
