"""Findings of ``doctor`` about the contents of trails."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil

import pytest
from commands import GOLDEN, run
from doctor_helpers import clean_process, findings_of, trail_folder  # noqa: F401

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, get_audit_logger, open_trail
from structlog_audit._failures import DeliveryError
from structlog_audit.cli.choices import Severity
from structlog_audit.cli.doctor.trail_history import check_history

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class FailingFileHandler(AuditFileHandler):
    """A file handler with a disk that fails on request."""

    fails = False

    def deliver(self, entries):
        if self.fails:
            raise DeliveryError(0) from OSError("the disk fails")
        super().deliver(entries)


@pytest.fixture
def eventful_trail(folder):
    """A trail with one open intent, an outage with two lost events, a truncation and a replacement."""
    path = folder / "audit.jsonl"
    target = FailingFileHandler(path)
    handler = AuditHandler(target=target, max_pending=1)
    logger = logging.getLogger("audit")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    log = get_audit_logger()

    # One operation with an outcome, one without.
    with log.operation("FORGET", intent=True):
        pass
    log.operation("EXPORT", intent=True).__enter__()

    target.fails = True
    for _ in range(3):
        log.info("STORE")
    target.fails = False
    handler.flush()

    handler._trail_events.record("truncated", {"segment": "audit.jsonl"})
    handler._trail_events.record("replaced", {"segment": "audit.jsonl"})
    handler.close()
    return path


@pytest.fixture
def golden_trail(folder):
    """A private copy of the golden trail. Its events are of 2025-01-15."""
    path = folder / "audit.jsonl"
    shutil.copy(GOLDEN, path)
    path.chmod(0o600)
    return path


def history_codes(path, now):
    """Return the codes of the findings about the history of the trail at *path*."""
    return {diagnosis.finding.code for diagnosis in check_history(open_trail(path), str(path), now)}


def test_trail_of_library_has_no_findings(folder):
    """A trail as the library writes it has no findings."""
    with AuditLogger(filename=folder / "audit.jsonl") as logger:
        logger.record("STORE")
    assert findings_of(folder / "audit.jsonl") == {}


def test_events_of_unknown_status_are_noted(folder):
    """Events whose status states neither success nor failure are counted in a note."""
    with AuditLogger(filename=folder / "audit.jsonl") as logger:
        logger.record("document.move", status="archived")
        logger.record("document.move", status="failed")
    finding = findings_of(folder / "audit.jsonl")["unknown-status"]
    assert finding["severity"] == "note"
    assert finding["message"].startswith("1 event ")


def test_folder_means_all_trails_in_it(folder):
    """A folder stands for the trails in it, with or without an active segment."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.20250115T103000.000000Z"):
        (folder / name).touch(0o640)
    document = json.loads(run("doctor", folder, "-o", "json").out)
    where = {finding["where"] for finding in document["findings"] if finding["code"] == "permissions"}
    assert where == {str(folder / name) for name in ("a.jsonl", "b.jsonl", "c.jsonl")}


def test_trail_without_active_segment_is_examined(folder):
    """Rolled segments without an active segment are a trail."""
    (folder / "c.jsonl.20250115T103000.000000Z").touch(0o640)
    assert "permissions" in findings_of(folder / "c.jsonl")


def test_gap_event_is_error_with_number_of_lost_events(eventful_trail):
    """A gap is an error, and the message has the number of lost events."""
    finding = findings_of(eventful_trail)["gaps"]
    assert finding["severity"] == "error"
    assert finding["message"] == "2 events lost, as recorded in 1 gap event"


def test_intent_without_outcome_names_operation(eventful_trail):
    """An intent without an outcome is a finding that names the operation; one with an outcome is not counted."""
    finding = findings_of(eventful_trail)["open-intents"]
    assert finding["message"].startswith("1 operation started without an outcome")
    assert "EXPORT" in finding["message"]


@pytest.mark.parametrize("code", ["truncated", "replaced"])
def test_file_changed_by_another_program_is_error(eventful_trail, code):
    """A trail event about a truncated or replaced file is an error."""
    assert findings_of(eventful_trail)[code]["severity"] == "error"


def test_event_in_future_has_finding(golden_trail):
    """A newest event after the present time is a finding."""
    before = dt.datetime(2025, 1, 15, 10, 0, tzinfo=dt.UTC)
    assert "clock-ahead" in history_codes(golden_trail, before)
    assert "clock-ahead" not in history_codes(golden_trail, before + dt.timedelta(days=1))


def test_timestamps_that_go_back_have_finding(golden_trail):
    """Timestamps that go back by more than a second are a finding."""
    assert "clock-steps" in history_codes(golden_trail, dt.datetime(2025, 1, 16, tzinfo=dt.UTC))


def test_foreign_line_has_finding_with_path(golden_trail):
    """A line that is not an event is a warning with the path of the file."""
    with golden_trail.open("ab") as file:
        file.write(b"nonsense\n")
    finding = findings_of(golden_trail)["foreign"]
    assert finding["severity"] == "warning"
    assert str(golden_trail) in finding["message"]


def test_missing_events_are_an_error(folder):
    """A hole in the sequence numbers is an error that names writer and number."""
    path = folder / "audit.jsonl"
    with AuditLogger(filename=path) as logger:
        for _ in range(3):
            logger.record("STORE")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    (diagnosis,) = [
        found for found in check_history(open_trail(path), str(path), NOW) if found.finding.code == "incomplete"
    ]
    assert diagnosis.severity == Severity.ERROR
    assert diagnosis.finding.message.startswith("Incomplete: 1 event missing: 1 event of writer ")


def test_doubt_about_completeness_is_a_note(folder):
    """Lines without a sequence number are noted, and the open end of the trail is not."""
    path = folder / "audit.jsonl"
    path.write_text('{"event_id":"evt_1","timestamp":"2025-01-15T10:30:45.123456Z","operation":"STORE"}\n')
    found = {
        diagnosis.finding.code: diagnosis.severity for diagnosis in check_history(open_trail(path), str(path), NOW)
    }
    assert found["completeness-unknown"] == Severity.NOTE
