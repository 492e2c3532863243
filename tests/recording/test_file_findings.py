"""The findings of a file handler's `check`, compared as a whole: code, message and fix."""

from __future__ import annotations

import os
import types

import pytest

from structlog_audit import AuditFileHandler
from structlog_audit.recording.health_checks import Finding

UNBOUNDED = Finding(
    "unbounded",
    "the trail grows without bound",
    'set retention={"max_age_days": …} or backupCount, or delete old segments by other means',
)
ATTACH = "make it the target of an AuditHandler, and attach that to the logger"
ONLY_THIS_LIBRARY = "let only this library rename, delete or truncate the files of the trail"


@pytest.fixture
def target(path, monkeypatch):
    """A bounded file handler on a disk with enough space, which has no findings."""
    monkeypatch.setattr(os, "statvfs", lambda folder: types.SimpleNamespace(f_blocks=100, f_bavail=50, f_frsize=10**9))
    made = AuditFileHandler(path, maxBytes=1_000, backupCount=3)
    assert made.check() == []
    return made


def test_trail_without_a_bound_is_a_finding(target, path):
    """A trail that no retention bounds grows without end."""
    assert AuditFileHandler(path).check() == [UNBOUNDED]


def test_failed_rollovers_and_syncs_are_findings(target):
    """Failed rollovers are counted with their latest error, and failed syncs are counted."""
    target._active.failed_rollovers, target._active.rollover_failure, target._active.failed_syncs = 2, "OSError: no", 3
    assert target.check() == [
        Finding(
            "rollover",
            "2 rollovers failed (OSError: no); the segment stays in use",
            "make the folder writable, on a file system with locks",
        ),
        Finding("fsync", "3 fsyncs failed; events were written again", "check the disk"),
    ]


def test_events_and_notices_without_an_audit_handler_are_findings(target):
    """Events that were not written or wait, and notices that were not recorded, are counted with the way to avoid that."""
    target.unwritten = 4
    target._waiting_lines.append(b"{}\n")
    target.notices.dropped = 5
    waiting = "1 events of a signal handler wait for the next event, flush() or close()"
    assert target.check() == [
        Finding("unwritten", "4 events could not be written", ATTACH),
        Finding("waiting", waiting, ATTACH),
        Finding("unnoticed", "5 trail events were not recorded", ATTACH),
    ]


@pytest.mark.parametrize("operation", ["replaced", "truncated", "close failed"])
def test_damage_of_the_files_is_a_finding(target, operation):
    """Each kind of damage is counted."""
    target.notices.counts[operation] = 2
    message = f"{operation} 2 times while in use: recorded events may be gone"
    assert target.check() == [Finding("damaged", message, ONLY_THIS_LIBRARY)]


def test_lost_descriptor_is_a_finding_and_other_notices_are_not(target):
    """A descriptor that other code closed is counted; retention and torn lines are not problems of this handler."""
    target.notices.counts.update({"descriptor lost": 2, "retention": 3, "quarantine": 1})
    message = "other code closed the descriptor of the file 2 times; it was opened again"
    assert target.check() == [Finding("descriptor", message, "do not close descriptors that other code has opened")]


@pytest.mark.parametrize(("size", "is_found"), [(1_100, False), (1_101, True)])
def test_postponed_rollover_is_a_finding_once_the_segment_is_a_tenth_too_long(target, size, is_found):
    """A lock of another process is a problem only if the segment exceeds its size by more than a tenth."""
    target._active.postponed_rollovers, target._active.size = 2, size
    message = "rollover was postponed 2 times: another process holds a lock on the file"
    finding = Finding("postponed", message, "copy the file without locking it")
    assert target.check() == [finding] * is_found


def test_places_that_others_can_change_are_findings(target, path):
    """The file and its folder are named with their modes and the command that changes these."""
    path.chmod(0o620)
    path.parent.chmod(0o707)
    assert target.check() == [
        Finding(
            "permissions", f"{place} can be changed by users other than its owner (mode {mode})", f"chmod go-w {place}"
        )
        for place, mode in ((path, "0620"), (path.parent, "0707"))
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")
def test_folder_of_a_user_without_a_name_is_a_finding(target, path):
    """The message names the folder and its owner."""
    os.chown(path.parent, 12_345, -1)
    message = f"{path.parent} belongs to user 12345, who can replace the files of the trail"
    assert target.check() == [Finding("permissions", message, "change the owner of the folder, or run as that user")]


def test_missing_folder_is_the_last_finding(target, path, monkeypatch):
    """A folder that was deleted is named; nothing is known of its disk."""
    path.unlink()
    path.parent.rmdir()

    def missing(folder):
        raise FileNotFoundError(folder)

    monkeypatch.setattr(os, "statvfs", missing)
    fix = "do not delete it; the next event creates it again"
    assert target.check() == [Finding("folder", f"{path.parent} does not exist", fix)]


@pytest.mark.parametrize(("blocks", "free", "max_bytes", "is_found"), [
    (100, 5, 1_000, False), (100, 4, 1_000, True), (0, 2, 10**9, False), (0, 1, 10**9, True),
])  # fmt: skip
def test_nearly_full_disk_is_a_finding(path, monkeypatch, blocks, free, max_bytes, is_found):
    """A disk is nearly full with less than a twentieth of it free, or less than two segments."""
    disk = types.SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=10**9)
    monkeypatch.setattr(os, "statvfs", lambda folder: disk)
    message = f"only {free}000 MB are free on the disk of the trail"
    finding = Finding("disk", message, "free disk space, or set a bound for the trail")
    assert AuditFileHandler(path, maxBytes=max_bytes, backupCount=1).check() == [finding] * is_found
