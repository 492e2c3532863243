"""Pruning: when a trail is checked, what is announced, and what is deleted."""

from __future__ import annotations

import datetime as dt
import errno
import math
import os
import types

import pytest

from structlog_audit.trail.writing import pruning as pruning_module
from structlog_audit.trail.writing.notices import MAX_NOTICES, Notice, Notices
from structlog_audit.trail.writing.pruning import RETENTION_CHECK_SECONDS, Pruning
from structlog_audit.trail.writing.retention import GRACE_SECONDS, Retention

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of the module, whose attribute `now` is its value."""
    clock = types.SimpleNamespace(now=1_000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(pruning_module, "time", clock)
    return clock


def pruning_of(path, *, syncs=False, **bounds):
    """Return the pruning of the trail at *path*, and its notices."""
    notices = Notices()
    made = Pruning(str(path), Retention(**bounds), syncs=syncs, clock=lambda: NOW, notices=notices)
    return made, notices


def segments_of(path, *days, size=10):
    """Write rolled segments of *size* bytes, this many days old, and return their paths."""
    path.parent.mkdir(exist_ok=True)
    segments = []
    for age in days:
        time = NOW - dt.timedelta(days=age)
        segments.append(path.with_name(f"{path.name}.{time:%Y%m%dT%H%M%S.%fZ}"))
        segments[-1].write_bytes(b"x" * size)
    return segments


def announced(notices):
    """Take all notices; return their operations and metadata."""
    taken = [(notice.operation, notice.metadata) for notice in notices]
    notices.clear()
    return taken


@pytest.mark.parametrize(("bounds", "check_at"), [({}, math.inf), ({"max_segments": 1}, 0.0)])
def test_check_is_due_at_once_if_the_trail_has_a_bound(path, bounds, check_at):
    """The first write checks a trail with a bound; one without is never checked. So does a change of the retention."""
    assert pruning_of(path, **bounds)[0].check_at == check_at
    changed, _ = pruning_of(path, max_bytes=5)
    changed.check_at = 7.0
    changed.set_retention(Retention(**bounds))
    assert (changed.check_at, changed.retention) == (check_at, Retention(**bounds))


def test_rollover_schedules_a_check_after_the_grace_period_which_later_ones_do_not_postpone(path, clock):
    """A trail that is rolled over more than once in a second is checked one second after the first of these rollovers."""
    pruning, _ = pruning_of(path, max_segments=1)
    pruning.announce_due(0)
    assert pruning.check_at == clock.now + RETENTION_CHECK_SECONDS == 4_600.0

    pruning.on_rollover()
    for _ in range(5):
        clock.now += 0.4
        pruning.on_rollover()
    assert pruning.check_at == 1_000.0 + GRACE_SECONDS


def test_rollover_of_an_unbounded_trail_schedules_nothing(path, clock):
    """Without a bound, no check follows a rollover."""
    pruning, _ = pruning_of(path)
    pruning.on_rollover()
    assert pruning.check_at == math.inf


def test_notice_names_the_due_segments_oldest_first_and_their_bytes(path):
    """The notice has the names of the due segments, oldest first, their bytes, and the oldest segment that is kept."""
    segments = segments_of(path, 40, 30, 20, size=7) + segments_of(path, 10, size=1_000)
    path.write_bytes(b"y" * 5)
    path.with_name("audit.jsonl.1").write_bytes(b"numbered")
    path.with_name("other.jsonl.20200101T000000.000000Z").write_bytes(b"of another trail")
    pruning, notices = pruning_of(path, max_segments=2)
    pruning.announce_due(5)
    names = [segment.name for segment in segments[:2]]
    assert announced(notices) == [("retention", {"segments": names, "kept": segments[2].name, "bytes": 14})]


@pytest.mark.parametrize(("active_bytes", "due"), [(80, 0), (81, 1), (91, 2)])
def test_bytes_of_the_active_segment_count_for_the_bound(path, active_bytes, due):
    """The bound on bytes is one on the rolled segments and the active one together."""
    segments_of(path, 20, 10)
    pruning, notices = pruning_of(path, max_bytes=100)
    pruning.announce_due(active_bytes)
    assert [len(metadata["segments"]) for _, metadata in announced(notices)] == ([due] if due else [])


def test_time_of_the_file_counts_if_the_name_is_of_the_future(path):
    """A segment named by a clock that was ahead has the age of its file."""
    (segment,) = segments_of(path, -400)
    now = dt.datetime.fromtimestamp(segment.stat().st_ctime, dt.UTC)
    for days, due in ((4, 0), (6, 1)):
        pruning, notices = pruning_of(path, max_age_days=5)
        pruning._clock = lambda days=days: now + dt.timedelta(days=days)
        pruning.announce_due(0)
        assert len(announced(notices)) == due


def test_announced_segment_is_neither_announced_nor_counted_again(path):
    """Until they are deleted, announced segments are left out of further checks; those that are due since are announced."""
    segments = segments_of(path, 40, 30, 20)
    pruning, notices = pruning_of(path, max_segments=2)
    pruning.announce_due(0)
    assert len(announced(notices)) == 1
    pruning.announce_due(0)
    assert announced(notices) == []
    segments_of(path, 10)
    pruning.announce_due(0)
    expected = {"segments": [segments[1].name], "kept": segments[2].name, "bytes": 10}
    assert announced(notices) == [("retention", expected)]


@pytest.mark.parametrize("how", ["not recorded", "no room for the notice", "fork"])
def test_segment_whose_announcement_failed_is_announced_again(path, how):
    """A segment that was announced and not deleted is announced by the next check."""
    (segment,) = segments_of(path, 30)
    expected = [("retention", {"segments": [segment.name], "kept": path.name, "bytes": 10})]
    pruning, notices = pruning_of(path, max_segments=0)
    if how == "no room for the notice":
        notices.extend([Notice("x", {})] * MAX_NOTICES)
    pruning.announce_due(0)
    if how == "not recorded":
        notices[0].on_recorded(False)
    if how == "fork":
        pruning.after_fork()
    notices.clear()
    assert segment.exists()
    pruning.announce_due(0)
    assert announced(notices) == expected


def test_recorded_announcement_deletes_its_segments_only(path):
    """Once the notice is recorded, the segments it names are deleted, also those that another process has deleted."""
    segments = segments_of(path, 40, 30, 20, 10)
    pruning, notices = pruning_of(path, max_segments=1)
    pruning.announce_due(0)
    segments[1].unlink()
    (notice,) = notices
    notices.clear()
    notice.on_recorded(True)
    assert [segment.exists() for segment in segments] == [False, False, False, True]
    assert announced(notices) == []

    # A new segment with the name of a deleted one is announced again.
    segments_of(path, 40)
    pruning.announce_due(0)
    expected = {"segments": [segments[0].name], "kept": segments[3].name, "bytes": 10}
    assert announced(notices) == [("retention", expected)]


def test_segment_that_cannot_be_deleted_is_reported_and_the_others_are_deleted(path):
    """The notice names the segment and the error."""
    first, folder, last = segments_of(path, 30, 20, 10)
    folder.unlink()
    folder.mkdir()
    pruning, notices = pruning_of(path, max_segments=0)
    pruning.delete([first, folder, last], True)
    assert [segment.exists() for segment in (first, folder, last)] == [False, True, False]
    ((operation, metadata),) = announced(notices)
    assert (operation, metadata["of"]) == ("retention failed", folder.name)
    assert metadata["error"].startswith(("IsADirectoryError", "PermissionError"))


@pytest.mark.parametrize(("syncs", "folders"), [(True, 1), (False, 0)])
def test_deletions_are_synced_with_fsync_durability(path, monkeypatch, syncs, folders):
    """With fsync durability, the folder is synced after the deletions."""
    segments = segments_of(path, 30)
    synced = []
    monkeypatch.setattr(pruning_module, "sync_folder", lambda folder: synced.append((folder, segments[0].exists())))
    pruning, notices = pruning_of(path, syncs=syncs, max_segments=0)
    pruning.delete(segments, True)
    assert synced == [(path.parent, False)] * folders
    assert announced(notices) == []


@pytest.mark.parametrize("fails", ["listing", "sync"])
def test_failed_check_or_sync_is_reported(path, monkeypatch, fails):
    """A folder that can be neither listed nor synced adds a notice with the error."""

    def fail(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    pruning, notices = pruning_of(path, syncs=True, max_segments=0)
    monkeypatch.setattr(pruning_module, "segments_at" if fails == "listing" else "sync_folder", fail)
    if fails == "listing":
        pruning.announce_due(0)
    else:
        pruning.delete([], True)
    ((operation, metadata),) = announced(notices)
    assert operation == "retention failed"
    assert list(metadata) == ["error"]
    assert "Input/output error" in metadata["error"]
