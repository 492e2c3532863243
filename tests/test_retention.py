"""Retention: which segments go, and that it is recorded before."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.entry import Undelivered
from structlog_audit.retention import Retention, retention_of

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def aged(*days):
    """Rolled segments of 100 bytes each, so many days old."""
    return [(NOW - dt.timedelta(days=age), 100) for age in days]


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


@given(
    st.lists(st.integers(0, 1000), max_size=20).map(lambda days: sorted(days, reverse=True)),
    st.none() | st.integers(0, 1000),
    st.none() | st.integers(0, 3000),
    st.none() | st.integers(0, 25),
    st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_never_too_young_and_never_more_than_needed(days, max_age, max_bytes, max_segments, min_age):
    """For all trails: what goes is old enough and the oldest, and with one segment less gone some bound would be broken."""
    retention = Retention(max_age, max_bytes, max_segments, min_age)
    gone = retention.due(aged(*days), 0, NOW)
    assert all(age >= min_age for age in days[:gone])
    if gone:
        left = days[gone - 1 :]
        broken = (
            (max_age is not None and left[0] > max_age)
            or (max_bytes is not None and 100 * len(left) > max_bytes)
            or (max_segments is not None and len(left) > max_segments)
        )
        assert broken


def test_a_retention_may_be_given_as_itself():
    """A Retention is as good as a mapping, and backupCount joins it."""
    assert retention_of(Retention(max_age_days=3), 0) == retention_of({"max_age_days": 3}, 0)
    assert retention_of(None, 5) == Retention(max_segments=5)
    assert not retention_of({"max_age_days": None}, 0).bounds


class Later:
    """Keeps what is to be done later until it is asked to."""

    def __init__(self):
        self.waiting = []

    def __call__(self, seconds, function):
        self.waiting.append(function)

    def now(self):
        while self.waiting:
            self.waiting.pop(0)()


def fill(path, events, later, **options):
    handler = AuditHandler(target=AuditFileHandler(path, maxBytes=1_000, **options), call_later=later)
    for number in range(events):
        handler.handle(logging.makeLogRecord({"msg": f"OP{number}", "levelno": 20}))
    return handler


@pytest.mark.parametrize("options", [{"backupCount": 2}, {"retention": {"max_segments": 2}}])
def test_segments_go_after_that_is_recorded(path, options):
    """The act that names the segments is in the trail while they are still there; then they go, whole and oldest first."""
    later = Later()
    handler = fill(path, 40, later, **options)
    there = [segment.name for segment in handler.target.segments()]
    named = [name for event in handler.iter_events(kind="trail") for name in event.metadata.get("segments", [])]
    assert len(there) > 4
    assert named == there[: len(named)]
    assert len(there) - 1 - len(named) <= 2
    later.now()
    assert [segment.name for segment in handler.target.segments()] == there[len(named) :]


def test_an_act_that_is_not_recorded_deletes_nothing(path):
    """If the retention can't be recorded, no segment goes."""
    later = Later()
    handler = fill(path, 40, later)
    before = handler.target.segments()
    handler.target.retention = Retention(max_segments=0)
    handler.target._notice_due()
    handler._acts._commit._deliver = lambda entries: (_ for _ in ()).throw(Undelivered(0))
    handler.handle(logging.makeLogRecord({"msg": "X", "levelno": 20}))
    handler._acts._commit._deliver = lambda entries: None
    later.now()
    assert handler.target.segments() == before
    handler.target._notice_due()
    handler.handle(logging.makeLogRecord({"msg": "X", "levelno": 20}))
    later.now()
    assert handler.target.segments() == before[-1:]


def test_what_is_due_at_the_start_goes(path):
    """A process that seldom rolls over lets go of old segments when it begins to record."""
    later = Later()
    fill(path, 40, later)
    handler = fill(path, 1, later, retention={"max_segments": 1})
    later.now()
    assert len(handler.target.segments()) == 2


def test_a_segment_that_cannot_be_deleted_is_noticed(path):
    """A failure to delete is an act of its own."""
    later = Later()
    handler = fill(path, 1, later, retention={"max_segments": 0})
    folder = path.with_name("audit.jsonl.20250115T103045.123456Z")
    folder.mkdir()
    handler.target._delete([folder], True)
    handler.close()
    acts = [json.loads(line)["operation"] for line in path.read_bytes().splitlines() if b'"trail"' in line]
    assert "retention failed" in acts


def test_check_tells_of_a_trail_without_bound_and_of_a_full_disk(path, monkeypatch):
    """check() warns of what will fill the disk, and of a disk that is nearly full."""
    assert [finding.code for finding in AuditFileHandler(path).check()] == ["unbounded"]
    bounded = AuditFileHandler(path, backupCount=3)
    assert bounded.check() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(total=10**12, free=10**9))
    assert [finding.code for finding in bounded.check()] == ["disk"]
