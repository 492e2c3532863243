"""Verified seals as evidence: in the verdict on completeness, in statistics, and in the section "Integrity" of reports."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace

import pytest
from commands import run
from seals import BEGIN, SIGNER, Sealer, SeedSigner, Writer, lines_of, make_trail, rolled_path, write_lines

from structlog_audit import AuditValueError, open_trail
from structlog_audit.integrity.seal_verdicts import verify_seals
from structlog_audit.query.completeness import Reason, Verdict
from structlog_audit.reports import compliance_report

KEY = str(SIGNER.key)
SECONDS = dt.timedelta(seconds=1)


@pytest.fixture
def sealer(tmp_path):
    """A sealed trail of two segments: a writer that was killed after 10 lines, and one that went on to 30, and closed."""
    trail = tmp_path / "audit.jsonl"
    killed, other = Writer(bits=1, step=1), Writer(bits=2, step=1, begin=BEGIN + 10 * SECONDS)
    trail.write_bytes(killed.opened() + b"".join(killed.event(number) for number in range(9)))
    sealer = Sealer(trail)
    sealer.seal()
    os.rename(trail, rolled_path(trail, 1))
    trail.write_bytes(b"".join([other.opened(), *(other.event(number) for number in range(18)), other.closed()]))
    sealer.seal()
    return sealer


def completeness(sealer, keys=(KEY,), **period):
    verdict = open_trail(sealer.trail).completeness(**period)
    return verdict.with_seals(verify_seals([sealer.trail], keys)) if keys is not None else verdict


def reasons(verdict):
    return [doubt.reason for doubt in verdict.doubts]


def test_verified_seal_shows_the_beginning_and_the_lives_of_all_writers(sealer):
    """Doubt is left only about the time after the newest sealed line."""
    period = {"start_time": BEGIN, "end_time": BEGIN + 25 * SECONDS}
    before = completeness(sealer, None, **period)
    assert (before.verdict, reasons(before)) == (Verdict.UNKNOWN, [Reason.BEFORE_FIRST, Reason.NOT_CLOSED])
    assert completeness(sealer, **period).verdict == Verdict.COMPLETE

    later = completeness(sealer, end_time=BEGIN + 60 * SECONDS)
    (doubt,) = later.doubts
    assert (doubt.reason, doubt.since) == (Reason.NOT_CLOSED, BEGIN + 30 * SECONDS)


def test_seal_without_a_key_or_with_another_one_shows_nothing(sealer):
    """The verdict stays as it is; with another key, the seal itself is in doubt."""
    period = {"start_time": BEGIN, "end_time": BEGIN + 25 * SECONDS}
    without = completeness(sealer, (), **period)
    assert without.doubts == completeness(sealer, None, **period).doubts
    assert without.seals[0].findings == ("Not verified: no key given.",)

    other = completeness(sealer, (str(SeedSigner(bytes(32)).key),), **period)
    assert other.doubts[:-1] == without.doubts
    assert other.doubts[-1].names == ("UNKNOWN_KEY",)


@pytest.mark.parametrize("damage", ["end", "segment"])
def test_lines_that_the_seal_shows_to_be_missing_are_a_loss(sealer, damage):
    """The end of the trail or a whole segment was removed, which the lines alone do not show."""
    if damage == "end":
        write_lines(sealer.trail, lines_of(sealer.trail)[:-5])
    else:
        rolled_path(sealer.trail, 1).unlink()
    assert completeness(sealer, None).verdict == Verdict.UNKNOWN
    verdict = completeness(sealer)
    assert (verdict.verdict, verdict.missing[-1].cause) == (Verdict.INCOMPLETE, "seal")
    assert "An unknown number of events missing, as the seal shows." in verdict.sentences()


def test_changed_line_leaves_completeness_in_doubt(sealer):
    """A line that is not as it was sealed proves no loss, but the trail is not what it was."""
    write_lines(sealer.trail, [line.replace(b"STORE", b"ERASE") for line in lines_of(sealer.trail)])
    verdict = completeness(sealer, start_time=BEGIN, end_time=BEGIN + 25 * SECONDS)
    assert verdict.doubts[-1].names == ("CHANGED",)
    assert "The trail does not verify against its seal (CHANGED)." in verdict.sentences()


def test_seal_of_another_trail_proves_nothing_about_this_one(sealer, tmp_path):
    """A seal counts for its own trail only."""
    other = tmp_path / "other"
    other.mkdir()
    make_trail(other)
    verdict = open_trail(sealer.trail).completeness(end_time=BEGIN + 25 * SECONDS)
    seals = verify_seals([other / "audit.jsonl"], [KEY])
    assert verdict.with_seals(seals).doubts == verdict.doubts


def test_deleted_segments_stay_in_doubt(sealer):
    """A seal of a pruned trail does not show the content of what is gone."""
    verdict = completeness(sealer, None, start_time=BEGIN, end_time=BEGIN + 25 * SECONDS)
    (seal,) = verify_seals([sealer.trail], [KEY])
    assert Reason.BEFORE_FIRST in reasons(verdict.with_seals([replace(seal, pruned=5)]))


def test_key_that_cannot_be_used_is_an_error(sealer):
    """A wrong key verifies nothing, and does not pass for one."""
    with pytest.raises(AuditValueError, match="expected a verifier key"):
        verify_seals([sealer.trail], ["nonsense"])


def test_evidence_names_keys_checkpoint_and_anchors(sealer, tmp_path):
    """A verdict states what it rests on, and that nothing outside of the host covers the trail if that is so."""
    (seal,) = verify_seals([sealer.trail], [KEY])
    evidence = dict(seal.evidence())
    assert (evidence["Keys given"], evidence["Signed by"]) == (KEY, KEY)
    assert evidence["Checkpoint"].startswith("30 lines, the newest of 2025-01-15T10:31:15.000000Z; root ")
    assert evidence["Checkpoints outside of the host"].startswith("none: ")

    anchor = tmp_path / "shipped.log"
    anchor.write_bytes((sealer.folder / "checkpoint").read_bytes())
    (seal,) = verify_seals([sealer.trail], [KEY], anchors=[anchor])
    assert dict(seal.evidence())["Checkpoints outside of the host"] == f"30 of 30 lines ({anchor})"
    assert json.loads(json.dumps(seal.to_dict()))["anchored"] == 30


# Reports and commands.


def report_of(sealer, keys):
    seals = verify_seals([sealer.trail], keys)
    return compliance_report(open_trail(sealer.trail), start_time=BEGIN, end_time=BEGIN + 25 * SECONDS, seals=seals)


def test_report_has_the_findings_and_what_they_rest_on(sealer):
    """The section "Integrity" has the verdict on each trail, its findings and its evidence; the data has the same."""
    text = report_of(sealer, [KEY]).to_markdown()
    assert "## 2. Integrity" in text or "Integrity" in text
    assert "INTACT. Every line up to the checkpoint is as it was sealed, and none is missing." in text
    assert "no seal was verified for all of them" not in text

    write_lines(sealer.trail, [line.replace(b"STORE", b"ERASE") for line in lines_of(sealer.trail)])
    report = report_of(sealer, [KEY])
    (seal,) = report.to_dict()["integrity"]
    assert (seal["verdict"], seal["counts"]) == ("CHANGED", {"CHANGED": 18})
    assert "The trail is not as it was sealed." in report.to_markdown()
    assert "line 2 of audit.jsonl was changed after it was sealed" in report.to_markdown()


def test_report_without_a_key_states_that_nothing_was_verified(sealer):
    """Neither the data nor the text claims anything about the seal."""
    assert "Not verified: no key given." in report_of(sealer, []).to_markdown()
    report = compliance_report(open_trail(sealer.trail))
    assert report.to_dict()["integrity"] == []
    assert "Not verified: no key given." in report.to_markdown()


def test_stats_use_the_seal_and_state_what_it_rests_on(sealer):
    """With --key, completeness uses the verified seal; without, the table says that nothing was verified."""
    words = ["stats", sealer.trail, "--since", "2025-01-15T10:30:45Z", "--until", "2025-01-15T10:31:10Z", "--strict"]
    without, proved = run(*words), run(*words, "--key", KEY)
    assert (without.code, "not verified: no key given" in without.out) == (4, True)
    assert (proved.code, "INTACT" in proved.out, f"Signed by: {KEY}" in proved.out) == (0, True, True)

    found = json.loads(run(*words, "--key", KEY, "-o", "json").out)["completeness"]
    assert (found["verdict"], found["seals"][0]["size"]) == ("complete", 30)
    assert run(*words, "--key", "nonsense").code == 2
    assert run(*words, "--anchor", sealer.trail).code == 2


def test_report_command_verifies_with_key_and_anchor(sealer, tmp_path):
    """The section of the report has the findings about the anchor, too."""
    anchor = tmp_path / "shipped.log"
    anchor.write_bytes((sealer.folder / "checkpoint").read_bytes())
    done = run("report", sealer.trail, "--since", "2025-01-15", "--key", KEY, "--anchor", anchor, "--json", "-")
    (seal,) = json.loads(done.out)["integrity"]
    assert (seal["verdict"], seal["anchored"]) == ("INTACT", 30)
