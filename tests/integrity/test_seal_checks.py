"""Tests of `structlog_audit.recording.seal_checks`: what is wrong with the seal of a trail, without verifying it."""

from __future__ import annotations

import datetime as dt
import gzip
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from seals import BEGIN, ORIGIN, Writer, make_trail
from witnesses import NO_ANSWER, ReferenceWitness

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.cli.choices import Severity
from structlog_audit.cli.doctor import examine_trail
from structlog_audit.integrity.anchors import CHECKPOINTS_LOGGER, Anchors, AnchorState
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.recording.seal_checks import UNSEALED_SECONDS, seal_findings

LATER = BEGIN + dt.timedelta(days=1)


@pytest.fixture
def sealer(tmp_path):
    """A trail at rest, with a seal that others cannot reach."""
    sealer = make_trail(tmp_path)
    sealer.folder.chmod(0o700)
    return sealer


def codes_of(trail, now=LATER, **options):
    return [finding.code for finding in seal_findings(str(trail), now, **options)]


def with_anchor(sealer):
    """Let the seal folder state a witness that has the newest checkpoint."""
    reference = ReferenceWitness()
    anchors = Anchors.from_config({"witnesses": [reference.config]}, str(sealer.folder), post=reference.post)
    anchors.after_checkpoint((sealer.folder / "checkpoint").read_bytes(), lambda old, new: [])
    anchors.close(60)
    return anchors, reference


def test_sealed_trail_with_an_anchor_has_no_finding(sealer):
    """Nothing is reported of a trail whose lines are sealed, and whose checkpoints are elsewhere."""
    with_anchor(sealer)
    assert codes_of(sealer.trail) == []


def test_trail_without_anchor_is_reported(sealer):
    """Neither the process nor the seal folder has an anchor: a finding, which names the ways to have one."""
    (finding,) = seal_findings(str(sealer.trail), LATER)
    assert finding.code == "no-anchor"
    assert "witnesses" in finding.fix
    assert "ship" in finding.fix
    assert codes_of(sealer.trail, anchors=Anchors(str(sealer.folder))) == ["no-anchor"]


def test_handler_of_the_logger_of_checkpoints_is_an_anchor(sealer):
    """An application that ships checkpoints by a handler has an anchor."""
    logger = logging.getLogger(CHECKPOINTS_LOGGER)
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        assert codes_of(sealer.trail, anchors=Anchors(str(sealer.folder))) == []
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("is_direct", [True, False])
def test_logger_of_checkpoints_that_writes_to_the_trail_is_reported(sealer, is_direct):
    """A handler by which each checkpoint becomes a line, and so causes the next checkpoint, is a finding."""
    target = AuditFileHandler(sealer.trail)
    handler = target if is_direct else AuditHandler(target=target)
    logger = logging.getLogger(CHECKPOINTS_LOGGER)
    logger.addHandler(handler)
    try:
        assert "checkpoints-recorded" in codes_of(sealer.trail)
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_failing_anchor_is_reported_with_its_reason(sealer):
    """An anchor that cannot be reached is a finding that names it, the failures and the last success."""
    anchors, reference = with_anchor(sealer)
    # On a slow machine it is tried again meanwhile.
    reference.faults = [NO_ANSWER] * 100
    anchors.after_checkpoint((sealer.folder / "checkpoint").read_bytes().replace(b"\n120\n", b"\n121\n"), lambda *_: [])
    anchors.close(60)
    (finding,) = seal_findings(str(sealer.trail), LATER)
    assert finding.code == "anchor-failing"
    message = r"witness witness\.example/w1 does not take checkpoints \(\d+ failures, last at 20"
    assert re.match(f".*{message}", finding.message)
    assert "Connection refused" in finding.message


def test_refusal_is_reported_from_the_folder_and_by_the_process(sealer):
    """A refused checkpoint is a finding in every process, for as long as it is refused."""
    anchors, _ = with_anchor(sealer)
    state = AnchorState(9, 1_700_000_000.0, 1, "it has a checkpoint of 900 lines", "ROLLED_BACK")
    anchors._anchors[1].state = state
    assert codes_of(sealer.trail, anchors=anchors) == ["anchor-refused"]
    anchors._write_state()
    assert codes_of(sealer.trail) == ["anchor-refused"]
    (finding,) = seal_findings(str(sealer.trail), LATER)
    assert finding.message == (
        "ROLLED_BACK: witness witness.example/w1 refused a checkpoint: it has a checkpoint of 900 lines"
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0o700, []),
        (0o750, []),
        (0o755, ["seal-permissions"]),
        (0o770, ["seal-permissions"]),
        (0o702, ["seal-permissions"]),
    ],
)
def test_seal_folder_that_others_can_reach_is_reported(sealer, mode, expected):
    """The seal folder may be read by its group at most, and changed by its owner only."""
    with_anchor(sealer)
    sealer.folder.chmod(mode)
    assert codes_of(sealer.trail) == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, ["key-in-process"]), (0o640, ["key-readable", "key-in-process"])]
)
def test_key_in_the_process_is_reported_and_its_mode(sealer, tmp_path, mode, expected):
    """A key file in this process is stated, and a finding of its own if others can read it."""
    with_anchor(sealer)
    path = tmp_path / "audit.pem"
    generate_key(str(path), ORIGIN)
    path.chmod(mode)
    assert codes_of(sealer.trail, signers=[KeyFile(str(path), ORIGIN)]) == expected


def test_key_behind_a_command_and_removed_key_file_are_not_readable(sealer, tmp_path):
    """A key of a key service is not in the process; a key file that is gone cannot be read by others."""
    with_anchor(sealer)
    assert codes_of(sealer.trail, signers=[SimpleNamespace(sign=None)]) == []
    path = tmp_path / "audit.pem"
    generate_key(str(path), ORIGIN)
    signer = KeyFile(str(path), ORIGIN)
    path.unlink()
    assert codes_of(sealer.trail, signers=[signer]) == ["key-in-process"]


def append_event(sealer, time):
    """Append a line of *time* to the active segment."""
    with sealer.trail.open("ab") as file:
        file.write(Writer(bits=2, step=0, begin=time).event(1))


@pytest.mark.parametrize(("age", "expected"), [(UNSEALED_SECONDS, []), (UNSEALED_SECONDS + 1, ["unsealed"])])
def test_line_that_is_not_sealed_is_reported_from_ten_seconds_on(sealer, age, expected):
    """The age of the first line behind the seal counts, not that of the file or the checkpoint."""
    with_anchor(sealer)
    append_event(sealer, LATER - dt.timedelta(seconds=age))
    append_event(sealer, LATER)
    assert codes_of(sealer.trail) == expected


def test_rollover_since_the_last_seal_is_not_taken_for_unsealed_lines(sealer):
    """The seal knows a segment that was just rolled over by its old name: its lines are sealed all the same."""
    with_anchor(sealer)
    os.rename(sealer.trail, f"{sealer.trail}.20250116T000000.000000Z")
    assert codes_of(sealer.trail) == []
    sealer.trail.write_bytes(Writer(bits=2, step=0, begin=LATER).event(1))
    assert codes_of(sealer.trail) == []
    assert codes_of(sealer.trail, LATER + dt.timedelta(seconds=11)) == ["unsealed"]


def test_compressed_segments_and_unfinished_lines_are_not_unsealed(sealer):
    """Lengths of compressed segments say nothing, and a line without an end is not sealed yet."""
    with_anchor(sealer)
    for path in sealer.trail.parent.glob("audit.jsonl.2025*"):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with sealer.trail.open("ab") as file:
        file.write(b'{"event_id":"evt_')
    assert codes_of(sealer.trail) == []


def test_foreign_line_has_the_age_of_its_file(sealer):
    """A line without a timestamp counts from the last change of its segment."""
    with_anchor(sealer)
    with sealer.trail.open("ab") as file:
        file.write(b"foreign\n")
    os.utime(sealer.trail, (0, LATER.timestamp() - 11))
    assert codes_of(sealer.trail) == ["unsealed"]


def test_trail_whose_seal_was_never_made_is_reported(tmp_path):
    """With integrity on and no seal folder, the lines are not sealed."""
    trail = tmp_path / "audit.jsonl"
    assert codes_of(trail) == ["no-anchor"]
    trail.write_bytes(Writer().event(1))
    assert codes_of(trail) == ["unsealed", "no-anchor"]


def test_check_of_a_handler_reports_its_seal(sealer, tmp_path):
    """`check()` has the findings of a handler with integrity on, and none of a handler without."""
    path = tmp_path / "audit.pem"
    generate_key(str(path), ORIGIN)
    path.chmod(0o644)
    handler = AuditFileHandler(sealer.trail)
    before = {finding.code for finding in handler.check()}
    assert not before & {"no-anchor", "key-readable", "key-in-process"}

    signer, anchors = KeyFile(str(path), ORIGIN), Anchors(str(sealer.folder))
    handler.integrity = SimpleNamespace(signers=[signer], anchors=anchors, failure="", damages={}, close=lambda: None)
    added = {finding.code for finding in handler.check()} - before
    assert {"no-anchor", "key-readable", "key-in-process"} <= added
    handler.close()


def test_doctor_reports_the_seal_of_a_trail_with_severities(sealer):
    """The doctor has the findings of the seal folder; without a seal it has none of them."""
    sealer.folder.chmod(0o777)
    append_event(sealer, LATER)
    found = {
        diagnosis.finding.code: diagnosis.severity
        for diagnosis in examine_trail(str(sealer.trail), LATER + dt.timedelta(minutes=1), may_be_missing=False)
    }
    assert found["no-anchor"] == Severity.NOTE
    assert found["unsealed"] == found["seal-permissions"] == Severity.WARNING

    sealer.folder.rename(f"{sealer.folder}.away")
    diagnoses = examine_trail(str(sealer.trail), LATER, may_be_missing=False)
    assert not {diagnosis.finding.code for diagnosis in diagnoses} & {"no-anchor", "unsealed", "seal-permissions"}


@pytest.mark.parametrize("name", ["audit-2026-11-28.jsonl", "audit.20261128.jsonl", "audit_2026-11-28T10.jsonl.gz"])
def test_dated_file_beside_the_trail_without_a_seal_is_reported(sealer, name):
    """It looks like a part of the trail, but nothing proves it; one with a seal of its own is no finding."""
    with_anchor(sealer)
    (sealer.trail.parent / name).write_bytes(b"")
    (finding,) = seal_findings(str(sealer.trail), LATER)
    assert (finding.code, name in finding.message) == ("dated-unsealed", True)
    (sealer.trail.parent / f"{name}.seal").mkdir()
    assert codes_of(sealer.trail) == []
    (sealer.trail.parent / "audit-notes.jsonl").write_bytes(b"")
    assert codes_of(sealer.trail) == []
