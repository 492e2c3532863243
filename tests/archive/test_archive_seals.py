"""The seal in an archive: its copy, the verification of rows by it, proofs, and the seal of restored trails."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import duckdb
import msgspec
import pytest
from archives import compacted, write_closed
from commands import run
from seals import ORIGIN, POLICY, SIGNER, Sealer, SeedSigner, Writer, codes, lines_of, make_trail, verified
from test_compaction import HOSTILE
from trail_files import line_of, roll_over, rolled_name

from structlog_audit import AuditFileHandler, AuditLogger, AuditReadError, AuditValueError
from structlog_audit.archive import compaction as compaction_module
from structlog_audit.archive import gc, merge, prune, restore, show, verify
from structlog_audit.archive.delta_log import DeltaLog, Snapshot
from structlog_audit.archive.opening import opened_log
from structlog_audit.archive.proofs import prove_archived, verify_archived
from structlog_audit.archive.seal_copies import SealCopier
from structlog_audit.archive.storage import LocalStorage
from structlog_audit.integrity.proving import prove
from structlog_audit.integrity.signing import generate_key
from structlog_audit.integrity.standalone.verify_trail import (
    COSIGNATURE,
    Policy,
    Signature,
    cosigned_message,
    read_checkpoint,
)

DAY = 86_400
LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Sealed:
    """A sealed trail of six segments of 40 lines, and its archive, which has the first four."""

    sealer: Sealer
    trail: Path
    archive: Path

    def compact(self, **options):
        return compacted(self.trail, self.archive, **options)

    def report(self, **options):
        """Return the report of the only trail in the archive."""
        (report,) = verify_archived(self.archive, options.pop("policy", POLICY), **{"max_age": None, **options})
        return report

    def data_files(self):
        return sorted(self.archive.glob("date=*/*.parquet"), key=lambda path: first_number(path))

    def add_segment(self, second):
        """Roll the trail over, seal, and begin an active segment of one line."""
        roll_over(self.trail, second)
        self.trail.write_bytes(Writer(bits=second).event(second))
        self.sealer.seal()


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "logs").mkdir()
    sealer = make_trail(tmp_path / "logs", segments=6)
    made = Sealed(sealer, sealer.trail, tmp_path / "archive")
    made.compact()
    return made


def first_number(path):
    return duckdb.execute(f"SELECT min(n) FROM '{path}'").fetchall()[0][0]


def rewrite(path, rows):
    """Replace the rows of a data file by those of the SELECT *rows* from ``FILE``, as somebody with tools would."""
    source = f"read_parquet('{path}', hive_partitioning=false)"
    duckdb.execute(f"COPY ({rows.replace('FILE', source)}) TO '{path}.new' (FORMAT parquet)")
    os.replace(f"{path}.new", path)


def test_archive_gives_the_verdict_of_its_trail(sealed):
    """The same verifier runs over the rows; sealed lines that are not archived yet are counted, and no finding."""
    report = sealed.report()
    assert (report.verdict, codes(report), report.size, report.unarchived) == ("INTACT", {}, 240, 80)
    assert report.root == verified(sealed.trail).root


def test_copy_of_a_seal_follows_the_trail(sealed):
    """Each run takes the newest checkpoint along, and makes no commit if there is no newer one."""
    version = show(sealed.archive).version
    sealed.compact()
    assert show(sealed.archive).version == version

    sealed.add_segment(100)
    sealed.compact()
    report = sealed.report()
    assert (report.verdict, report.size, report.unarchived) == ("INTACT", 241, 41)


def test_stored_hashes_are_copied_in_blocks(sealed, monkeypatch):
    """A full block is written once; the last one of each level is written again."""
    monkeypatch.setattr("structlog_audit.archive.seal_copies.BLOCK_HASHES", 32)
    shutil.rmtree(sealed.archive)
    sealed.compact()
    first = set(sealed.archive.glob("_seals/*/hashes.0/*"))
    sealed.add_segment(100)
    sealed.compact()
    second = set(sealed.archive.glob("_seals/*/hashes.0/*"))
    assert (len(first), len(second - first)) == (8, 1)
    assert sealed.report().verdict == "INTACT"


def replacing(number, **values):
    """Return the SELECT that gives the row *number* other values, as SQL."""
    columns = [f"CASE WHEN n = {number} THEN {value} ELSE {name} END AS {name}" for name, value in values.items()]
    return f"SELECT * REPLACE ({', '.join(columns)}) FROM FILE"


CELLS = {
    "event_id": "replace(event_id, 'evt_', 'evx_')",
    "timestamp": "timestamp - INTERVAL 1 MICROSECOND",
    "operation": "'RECALL'",
    "user_id": "NULL",
    "session_id": "'s'",
    "entry_ids": "['e']",
    "metadata": "'{}'",
    "status": "'FAILURE'",
    "error_message": "'none'",
    "duration_ms": "0.0",
    "kind": "'trail'",
    "chain": "repeat('0', 64)",
    "trail": "'h1:/elsewhere'",
    "n": "n + 1000",
    "line": "''::BLOB",
}


@pytest.mark.parametrize("column", CELLS)
def test_any_cell_that_queries_or_lines_need_is_proven(sealed, column):
    """Another value in any column but the order of several trails is a finding of exit code 1."""
    rewrite(sealed.data_files()[1], replacing(47, **{column: CELLS[column]}))
    reports = verify_archived(sealed.archive, POLICY, max_age=None)
    assert reports[0].exit_code == 1


CHANGES = {
    "a member": replacing(47, user_id="'eve'"),
    "the time": replacing(47, timestamp="timestamp + INTERVAL 1 SECOND"),
    "the line": replacing(47, line="'x'::BLOB"),
    "no event": replacing(47, timestamp="NULL"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_row_is_named(sealed, change):
    """Segment and line are those of the trail, whatever column was changed."""
    rewrite(sealed.data_files()[1], CHANGES[change])
    report = sealed.report()
    assert codes(report) == {"CHANGED": 1}
    assert (report.findings[0].segment, report.findings[0].line) == ("audit.jsonl.20250115T100001.000000Z", 8)


def test_row_whose_columns_differ_from_its_line_is_changed(tmp_path):
    """A row that carries its line must have the columns of that line, and promoted ones those of the metadata."""
    (tmp_path / "logs").mkdir()
    lines = [line_of(number, metadata={"tenant": "acme"}) for number in range(4)]
    path = write_closed(tmp_path / "logs", b"".join(lines))
    Sealer(path).seal()
    made = Sealed(None, path, tmp_path / "archive")
    made.compact(promote=["tenant"])
    assert made.report().verdict == "INTACT"

    (data_file,) = made.data_files()
    original = data_file.read_bytes()
    rewrite(data_file, replacing(2, line=f"'{lines[2].decode()}'::BLOB", user_id="'eve'"))
    assert [(finding.code, finding.line) for finding in made.report().findings] == [("CHANGED", 3)]

    data_file.write_bytes(original)
    rewrite(data_file, replacing(1, md_tenant="'evil'"))
    assert [(finding.code, finding.line) for finding in made.report().findings] == [("CHANGED", 2)]


ATTACKS = {
    "row removed": ("SELECT * FROM FILE WHERE n != 47", {"MISSING", "GAP"}),
    "row doubled": (
        "SELECT * FROM (SELECT * FROM FILE UNION ALL SELECT * FROM FILE WHERE n = 47) ORDER BY n",
        {"INSERTED"},
    ),
    "rows swapped": (
        "SELECT * FROM (SELECT * REPLACE (CASE n WHEN 47 THEN 60 WHEN 60 THEN 47 ELSE n END AS n) FROM FILE) ORDER BY n",
        {"MOVED", "GAP"},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_rows_that_are_not_those_that_were_sealed_are_found(sealed, attack):
    """Removed, doubled and exchanged rows are what they are in a trail."""
    columns, expected = ATTACKS[attack]
    rewrite(sealed.data_files()[1], columns)
    report = sealed.report()
    assert report.exit_code == 1
    assert expected <= codes(report).keys()
    assert {finding.segment for finding in report.findings} == {"audit.jsonl.20250115T100001.000000Z"}


@pytest.mark.parametrize("member", ["n", "trail"])
def test_rows_of_no_segment_are_inserted(sealed, member):
    """Queries would find them, although no segment had their lines."""
    value = "n + 1000" if member == "n" else "'h9:/x'"
    added = f"SELECT * FROM FILE UNION ALL SELECT * REPLACE ({value} AS {member}) FROM FILE WHERE n = 47"
    rewrite(sealed.data_files()[1], added)
    trail, foreign = verify_archived(sealed.archive, POLICY, max_age=None)
    assert (trail.verdict, codes(foreign), foreign.exit_code) == ("INTACT", {"INSERTED": 1}, 1)


def test_lost_hint_accuses_no_line(sealed, tmp_path):
    """The segments of the copy are found again from the lines."""
    (sealed.sealer.folder / "segments").unlink()
    shutil.rmtree(sealed.archive)
    sealed.compact()
    report = sealed.report()
    assert (report.verdict, codes(report), report.unarchived) == ("INTACT", {}, 80)
    assert restore(sealed.archive, tmp_path / "restored").seals
    assert verified(tmp_path / "restored" / "audit.jsonl").verdict == "INTACT"


def test_removed_data_file_is_a_missing_segment(sealed):
    """The segment is named, the others stay verified; the newest one is not taken for one that is not archived yet."""
    files = sealed.data_files()
    for path in (files[1], files[3]):
        path.unlink()
    report = sealed.report()
    assert codes(report) == {"MISSING_SEGMENT": 2, "GAP": 1}
    assert report.unarchived == 80
    assert "audit.jsonl.20250115T100003.000000Z" in report.to_text()


@pytest.mark.parametrize("kept", range(4))
def test_removed_newest_data_files_are_missing_segments(sealed, kept):
    """What the log calls archived is never taken for lines that are not archived yet, even if no file is left."""
    for path in sealed.data_files()[kept:]:
        path.unlink()
    report = sealed.report()
    assert (report.verdict, codes(report)["MISSING_SEGMENT"], report.unarchived) == ("CHANGED", 4 - kept, 80)


@pytest.mark.parametrize(
    ("rows", "code"),
    [("SELECT * FROM FILE WHERE n < 159", "TRUNCATED"), (replacing(159, user_id="'eve'"), "CHANGED")],
)
def test_newest_archived_row_is_proven(sealed, rows, code):
    """A changed or removed last row is not taken for a line that is not archived yet."""
    rewrite(sealed.data_files()[3], rows)
    report = sealed.report()
    assert (report.verdict, codes(report), report.unarchived) == ("CHANGED", {code: 1}, 80)


def test_damaged_data_file_is_missing_and_the_reason_is_stated(sealed):
    """A file that cannot be read is no error of the command, and other segments are still judged."""
    path = sealed.data_files()[2]
    path.write_bytes(path.read_bytes()[:200])
    assert codes(sealed.report())["MISSING_SEGMENT"] == 1


def test_removed_file_of_one_day_leaves_missing_lines(tmp_path):
    """The rest of the segment is still compared line by line, however many lines are gone."""
    (tmp_path / "logs").mkdir()
    writer = Writer(step=144)
    path = write_closed(tmp_path / "logs", b"".join(writer.event(number) for number in range(1_200)))
    Sealer(path).seal()
    made = Sealed(None, path, tmp_path / "archive")
    made.compact()
    files = made.data_files()
    files[1].unlink()
    report = made.report()
    assert (
        codes(report)["MISSING"]
        == duckdb.execute(f"SELECT min(n) FROM '{files[2]}'").fetchall()[0][0]
        - 1
        - duckdb.execute(f"SELECT max(n) FROM '{files[0]}'").fetchall()[0][0]
    )
    assert "CHANGED" not in codes(report)


@pytest.mark.parametrize("name", [*HOSTILE, "all"])
def test_line_of_any_kind_is_intact(tmp_path, name):
    """What is not an event, or not in the form of this library, is a leaf like any other."""
    data = b"".join(HOSTILE.values()) if name == "all" else HOSTILE[name]
    path = write_closed(tmp_path / "logs", line_of(100) + data + line_of(101))
    Sealer(path).seal()
    made = Sealed(None, path, tmp_path / "archive")
    made.compact()
    # The rest of the trail, which is not archived, has gaps of its own.
    expected = [
        finding.message for finding in verified(path).findings if finding.segment == rolled_name("audit.jsonl", 100)
    ]
    assert [finding.message for finding in made.report().findings] == expected


def test_gaps_keep_their_places_among_changed_rows(tmp_path):
    """A changed row of another length does not displace the lines that are not events."""
    path = write_closed(tmp_path / "logs", line_of(1) + b"junk\n" + line_of(2) + b"more junk\n" + line_of(3))
    Sealer(path).seal()
    made = Sealed(None, path, tmp_path / "archive")
    made.compact()
    rewrite(
        made.data_files()[0],
        "SELECT * REPLACE (CASE WHEN n = 0 THEN 'somebody else' ELSE user_id END AS user_id) FROM FILE",
    )
    assert [(finding.code, finding.line) for finding in made.report().findings] == [("CHANGED", 1)]


def test_merged_archive_is_intact(sealed):
    """Segments that share a data file are told apart by the numbers of their events."""
    merge(sealed.archive)
    assert len(sealed.data_files()) - 4 == 1
    assert sealed.report().verdict == "INTACT"


# --- What is wrong with the copy of the seal ---


def test_seal_that_does_not_continue_its_copy_is_not_copied(sealed):
    """A trail that was sealed anew keeps the copy of its first seal: it is evidence, and proves what is archived."""
    shutil.rmtree(sealed.sealer.folder)
    rolled = sorted(sealed.trail.parent.glob("audit.jsonl.2*"))
    rolled[0].unlink()
    Sealer(sealed.trail).seal()
    assert sealed.compact().problems == {"seal": 1}
    assert sealed.report().verdict == "INTACT"


def test_seal_with_wrong_hashes_is_not_copied(sealed):
    """Hashes that do not give the root of the checkpoint would replace right ones."""
    sealed.add_segment(100)
    hashes = sealed.sealer.folder / "hashes.0"
    data = bytearray(hashes.read_bytes())
    data[-1] ^= 1
    hashes.write_bytes(data)
    assert sealed.compact().problems["seal"] == 1
    assert sealed.report().size == 240


def test_unreadable_seal_is_a_problem_and_segments_are_archived(sealed, tmp_path):
    """The archive then has no seal of the trail, which verification reports."""
    (sealed.sealer.folder / "checkpoint").unlink()
    (sealed.sealer.folder / "checkpoint").mkdir()
    done = compacted(sealed.trail, tmp_path / "other")
    assert (done.segments, done.problems["seal"]) == (4, 1)
    (report,) = verify_archived(tmp_path / "other", POLICY)
    assert (codes(report), report.exit_code) == ({"NO_SEAL": 1}, 2)


def test_lost_blocks_of_hashes_are_made_again_from_the_lines_where_they_can(sealed):
    """Without the hashes of lines that are not archived, the root cannot be computed: never intact."""
    for path in sealed.archive.glob("_seals/*/hashes.0/*"):
        path.unlink()
    assert sealed.report().exit_code != 0


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_lost_list_of_a_seal_is_unreadable(sealed, what):
    """The verification ends with a finding, not with an error."""
    (path,) = sealed.archive.glob("_seals/*/*.json")
    path.unlink() if what == "missing" else path.write_bytes(b"{")
    report = sealed.report()
    assert (codes(report), report.exit_code) == ({"UNREADABLE": 1}, 2)
    with pytest.raises(AuditReadError, match="the copy of a seal cannot be read"):
        restore(sealed.archive, sealed.archive.parent / "restored")


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_lost_list_of_a_seal_is_made_again_by_the_next_run(sealed, what):
    """The seal of the host is copied as a whole, if it still continues the copy that the log names."""
    (path,) = sealed.archive.glob("_seals/*/*.json")
    path.unlink() if what == "missing" else path.write_bytes(b"{}")
    sealed.compact()
    assert sealed.report().verdict == "INTACT"


def test_changed_list_of_a_seal_is_judged_and_found(sealed):
    """What it still says is verified; that it is not what was copied is a finding, with and without a key."""
    (path,) = sealed.archive.glob("_seals/*/*.json")
    document = json.loads(path.read_bytes())
    document["block_hashes"] += 1
    path.write_bytes(json.dumps(document).encode())
    report = sealed.report()
    assert (codes(report), report.size, report.exit_code) == ({"BAD_SEAL": 1}, 240, 1)
    assert [finding.code for finding in verify(sealed.archive).findings] == ["damaged"]
    with pytest.raises(AuditReadError, match="compact the trail again"):
        restore(sealed.archive, sealed.archive.parent / "restored")


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_stored_hashes_of_a_seal_are_verified_without_a_key(sealed, what):
    """`archive verify` reads the copies of seals, too."""
    assert verify(sealed.archive).findings == ()
    path = next(sealed.archive.glob("_seals/*/hashes.0/*"))
    path.unlink() if what == "missing" else path.write_bytes(bytes(path.stat().st_size))
    assert [finding.code for finding in verify(sealed.archive).findings] == [what]


@pytest.mark.parametrize("name", ["numbers", "times", "order", "ids"])
def test_rows_outside_of_the_bounds_in_the_log_are_found(sealed, monkeypatch, name):
    """Queries leave out a file by the bounds that the log states: whoever changes them hides its events."""
    apply = Snapshot.apply

    def applied(snapshot, actions, where):
        apply(snapshot, actions, where)
        for path, file in snapshot.files.items():
            first, last = getattr(file, name)
            narrowed = (first, first if name == "ids" else last - 1)
            snapshot.files[path] = msgspec.structs.replace(file, **{name: narrowed})

    monkeypatch.setattr(Snapshot, "apply", applied)
    reports = verify_archived(sealed.archive, POLICY, max_age=None)
    assert "CHANGED" in {code for report in reports for code in codes(report)}


def test_lost_seal_of_one_host_leaves_the_others_verified(hosts):
    """Each trail has its own list."""
    archive, policy = hosts
    (path,) = archive.glob("_seals/h1*/*.json")
    path.unlink()
    reports = verify_archived(archive, policy, max_age=None)
    assert [report.exit_code for report in reports] == [2, 0]


def test_age_of_archived_lines_is_that_of_their_events(tmp_path):
    """A torn end that is not sealed is old: the archive has no time of change."""
    path = write_closed(tmp_path / "logs", line_of(1))
    Sealer(path).seal()
    segment = path.with_name(rolled_name("audit.jsonl", 100))
    segment.write_bytes(segment.read_bytes() + b'{"event_id":"torn')
    made = Sealed(None, path, tmp_path / "archive")
    made.compact()
    assert codes(made.report(max_age=120.0)) == codes(made.report(max_age=120.0)) | {"TORN": 1}


def test_missing_archive_is_unreadable(tmp_path):
    """As a missing trail is."""
    (report,) = verify_archived(tmp_path / "none", POLICY)
    assert (codes(report), report.exit_code) == ({"UNREADABLE": 1}, 2)


def test_changed_checkpoint_has_a_bad_signature(sealed):
    """Whoever may write to the archive has no key."""
    (path,) = sealed.archive.glob("_seals/*/*.json")
    document = json.loads(path.read_bytes())
    from base64 import b64decode, b64encode

    text = b64decode(document["files"]["checkpoint"]).replace(b"\n240\n", b"\n160\n")
    document["files"]["checkpoint"] = b64encode(text).decode()
    path.write_bytes(json.dumps(document).encode())
    assert codes(sealed.report()) == {"BAD_SIGNATURE": 1, "BAD_SEAL": 1}


def test_other_key_verifies_nothing(sealed):
    """A trail of an origin without a key is never intact."""
    other = SeedSigner(bytes(32), name="audit.example/other")
    report = sealed.report(policy=Policy((other.key,)))
    assert (codes(report), report.exit_code) == ({"UNKNOWN_KEY": 1}, 2)


def test_policy_with_witnesses_holds_for_an_archive(sealed):
    """The cosigned checkpoints travel with the seal."""
    witness = SeedSigner(bytes(32), name="witness.example/w", kind=COSIGNATURE)
    policy = Policy(POLICY.logs, {"w": witness.key}, {}, "w")
    assert codes(sealed.report(policy=policy)) == {"UNANCHORED": 1}

    note = read_checkpoint(str(sealed.sealer.folder))
    signed = struct.pack(">Q", 1_736_937_045) + witness.sign(cosigned_message(note.text, 1_736_937_045))
    cosigned = note._replace(signatures=(*note.signatures, Signature(witness.key.name, witness.key.key_id, signed)))
    (sealed.sealer.folder / "cosigned").write_text(str(cosigned))
    sealed.compact()
    report = sealed.report(policy=policy)
    assert (report.verdict, report.anchored) == ("INTACT", 240)

    event_id = json.loads(lines_of(sealed.trail.with_name("audit.jsonl.20250115T100000.000000Z"))[3])["event_id"]
    proven = prove_archived(sealed.archive, event_id)
    assert proven.proof.verifies(proven.line, policy)


def test_rolled_back_archive_is_found_by_state_and_anchor(sealed, tmp_path):
    """The log and the seal of an older archive fit together: only what lies elsewhere shows it."""
    old = tmp_path / "old"
    shutil.copytree(sealed.archive, old)
    state = tmp_path / "state"
    shutil.copy(sealed.sealer.folder / "checkpoint", tmp_path / "anchor")
    assert sealed.report(state=str(state), anchors=[str(tmp_path / "anchor")]).anchored == 240

    sealed.add_segment(100)
    sealed.compact()
    assert sealed.report(state=str(state)).verdict == "INTACT"
    shutil.copy(sealed.sealer.folder / "checkpoint", tmp_path / "anchor")
    shutil.rmtree(sealed.archive)
    old.rename(sealed.archive)
    for options in ({"state": str(state)}, {"anchors": [str(tmp_path / "anchor")]}):
        assert codes(sealed.report(**options)) == {"ROLLED_BACK": 1}


# --- Several hosts ---


@pytest.fixture
def hosts(tmp_path):
    """An archive with the sealed trails of two hosts; return it, and a policy with both keys."""
    signers = []
    for number, name in enumerate(("h1", "h2")):
        signer = SeedSigner(bytes([number]) * 32, name=f"audit.example/{name}")
        writer = Writer(bits=number + 1)
        path = write_closed(tmp_path / name, b"".join(writer.event(n) for n in range(3)))
        Sealer(path, signer, signer.key.name).seal()
        compacted(path, tmp_path / "archive", host=name)
        signers.append(signer)
    return tmp_path / "archive", Policy(tuple(signer.key for signer in signers))


def test_progress_grows_to_the_size_of_all_archived_lines(hosts):
    """The bytes of one trail are added to those of the trails before it."""
    archive, policy = hosts
    steps = []
    verify_archived(archive, policy, max_age=None, progress=steps.append)
    assert len(steps) > 1
    assert steps == sorted(steps)
    assert steps[-1] == show(archive).bytes_archived


def test_each_trail_has_a_report(hosts, tmp_path):
    """Each has its own seal, and one without a seal is not verified."""
    archive, policy = hosts
    reports = verify_archived(archive, policy, max_age=None)
    assert [(report.origin, report.verdict) for report in reports] == [
        ("audit.example/h1", "INTACT"),
        ("audit.example/h2", "INTACT"),
    ]
    compacted(write_closed(tmp_path / "h3", line_of(1)), archive, host="h3")
    assert codes(verify_archived(archive, policy, max_age=None)[2]) == {"NO_SEAL": 1}


def test_state_has_a_checkpoint_of_each_trail(hosts, tmp_path):
    """A trail that disappears from the archive is a roll-back; a file of something else is refused, and stays."""
    archive, policy = hosts
    state = tmp_path / "state"
    for _ in range(2):
        assert [report.exit_code for report in verify_archived(archive, policy, state=str(state), max_age=None)] == [
            0,
            0,
        ]
    assert state.read_text().count("— ") == 2

    shutil.copytree(tmp_path / "h1", tmp_path / "h1only")
    path = tmp_path / "h1only" / "audit.jsonl"
    compacted(path, tmp_path / "alone")
    reports = verify_archived(tmp_path / "alone", policy, state=str(state), max_age=None)
    assert codes(reports[1]) == {"ROLLED_BACK": 1}

    state.write_text("my notes\n")
    assert {report.exit_code for report in verify_archived(archive, policy, state=str(state), max_age=None)} == {2}
    assert state.read_text() == "my notes\n"


def test_hosts_that_share_a_folder_have_one_trail(sealed):
    """Each segment was archived by one of them, and both have copied the seal."""
    sealed.add_segment(100)
    sealed.compact(host="h2")
    report = sealed.report()
    assert (report.verdict, report.size, report.unarchived) == ("INTACT", 241, 41)


# --- Pruned days ---


@pytest.fixture
def two_days(tmp_path):
    """A sealed archive of five segments, the third of which has lines of two days."""
    writer = Writer(step=3_600, begin=dt.datetime(2025, 1, 15, 2, tzinfo=dt.UTC))
    datas = [b"".join(writer.event(number) for number in range(9)) for _ in range(5)]
    path = write_closed(tmp_path / "logs", *datas, second=4 * DAY, last=5 * DAY)
    sealer = Sealer(path)
    sealer.seal()
    made = Sealed(sealer, path, tmp_path / "archive")
    made.compact()
    return made


def prune_first_day(sealed):
    return prune(sealed.archive, dt.timedelta(hours=1), now=lambda: dt.datetime(2025, 1, 16, 2, tzinfo=dt.UTC))


def test_pruned_days_keep_their_proof(two_days):
    """Whole segments and parts of them are PRUNED; the other lines are still compared."""
    assert two_days.report().verdict == "INTACT"
    count = prune_first_day(two_days)
    report = two_days.report()
    assert (report.verdict, set(codes(report)), report.pruned) == ("INTACT", {"PRUNED"}, count)
    assert "was deleted by archive prune" in report.to_text()


def test_row_changed_beside_pruned_days_is_named(two_days):
    """The line keeps its number in the segment."""
    prune_first_day(two_days)
    number = min(first_number(path) for path in two_days.archive.glob("date=2025-01-16/*.parquet"))
    path = next(path for path in two_days.archive.glob("date=2025-01-16/*.parquet") if first_number(path) == number)
    rewrite(path, replacing(number + 1, user_id="'eve'"))
    (finding,) = [finding for finding in two_days.report().findings if finding.code != "PRUNED"]
    assert (finding.code, finding.segment) == ("CHANGED", rolled_name("audit.jsonl", 4 * DAY + number // 9))


def test_row_removed_beside_pruned_days_is_not_taken_for_pruned(two_days):
    """The log knows how many rows each file has."""
    prune_first_day(two_days)
    number = min(first_number(path) for path in two_days.archive.glob("date=2025-01-16/*.parquet"))
    path = next(path for path in two_days.archive.glob("date=2025-01-16/*.parquet") if first_number(path) == number)
    rewrite(path, f"SELECT * FROM FILE WHERE n != {number + 1}")
    assert two_days.report().exit_code == 1


def test_pruned_event_has_no_proof_any_more(two_days):
    """Its line is gone; who has it elsewhere has the stored hashes."""
    event_id = json.loads(lines_of(two_days.trail.with_name(rolled_name("audit.jsonl", 4 * DAY)))[0])["event_id"]
    assert prove_archived(two_days.archive, event_id).proof.leaf_index == 0
    prune_first_day(two_days)
    with pytest.raises(AuditValueError, match="no line of the archive begins with this id"):
        prove_archived(two_days.archive, event_id)


# --- Proofs ---


def test_proof_is_that_of_the_trail(sealed):
    """Line, hashes and checkpoint are the same, and its verifier accepts it."""
    for segment, line in ((0, 0), (1, 7), (3, 39)):
        path = sealed.trail.with_name(f"audit.jsonl.20250115T10000{segment}.000000Z")
        event_id = json.loads(lines_of(path)[line])["event_id"]
        proven = prove_archived(sealed.archive, event_id)
        assert proven == prove(str(sealed.trail), event_id)
        assert proven.proof.verifies(proven.line, POLICY)


def test_event_without_a_proof_says_why(sealed, tmp_path):
    """It is not archived, its row was changed, or its trail has no seal."""
    event_id = json.loads(lines_of(sealed.trail)[3])["event_id"]
    with pytest.raises(AuditValueError, match="no line of the archive begins with this id"):
        prove_archived(sealed.archive, event_id)

    event_id = json.loads(lines_of(sealed.trail.with_name("audit.jsonl.20250115T100001.000000Z"))[7])["event_id"]
    rewrite(sealed.data_files()[1], CHANGES["a member"])
    with pytest.raises(AuditValueError, match="its line is not a sealed one"):
        prove_archived(sealed.archive, event_id)

    shutil.rmtree(sealed.sealer.folder)
    compacted(sealed.trail, tmp_path / "unsealed")
    with pytest.raises(AuditValueError, match="the archive has no seal of h1:"):
        prove_archived(tmp_path / "unsealed", event_id)


# --- Restored and deleted segments ---


def test_restored_trail_is_intact(sealed, tmp_path):
    """Its checkpoint is the newest one that covers archived lines only; lines after it are not sealed there."""
    restored = restore(sealed.archive, tmp_path / "restored")
    assert restored.seals == (str(tmp_path / "restored" / "audit.jsonl.seal"),)
    report = verified(tmp_path / "restored" / "audit.jsonl")
    assert (report.verdict, codes(report), report.size, report.unsealed) == ("INTACT", {}, 120, 40)


def test_restored_trail_of_damaged_rows_is_not_written(sealed, tmp_path):
    """Restoration compares digests before a segment appears."""
    rewrite(sealed.data_files()[1], CHANGES["a member"])
    with pytest.raises(AuditReadError, match="are damaged"):
        restore(sealed.archive, tmp_path / "restored")
    assert not (tmp_path / "restored" / "audit.jsonl.seal").exists()


def test_restoring_leaves_an_existing_seal_alone(sealed):
    """The folder beside the trail is that of a sealer, which may be at work."""
    before = (sealed.sealer.folder / "checkpoint").read_bytes()
    rolled = sealed.trail.with_name("audit.jsonl.20250115T100001.000000Z")
    rolled.unlink()
    restored = restore(sealed.archive, sealed.trail.parent)
    assert (restored.seals, restored.unsealed) == ((), ())
    assert (sealed.sealer.folder / "checkpoint").read_bytes() == before
    assert verified(sealed.trail).verdict == "INTACT"


def test_deleted_segments_are_pruned_in_the_trail_and_proven_by_the_archive(sealed):
    """The deletion names the leaves, as retention does; the archive must still have them."""
    done = sealed.compact(delete_after="0s", now=lambda: LATER)
    assert len(done.deleted) == 4
    sealed.sealer.seal()
    trail = verified(sealed.trail)
    assert (trail.verdict, set(codes(trail)), trail.pruned) == ("INTACT", {"PRUNED"}, 160)
    assert sealed.report().verdict == "INTACT"

    # The recorded deletion is no excuse for the archive, once it is archived itself.
    for second in (100, 101, 102):
        sealed.add_segment(second)
    sealed.compact()
    assert (sealed.report().verdict, sealed.report().pruned) == ("INTACT", 0)
    sealed.data_files()[1].unlink()
    assert codes(sealed.report())["MISSING_SEGMENT"] == 1


def test_segment_that_the_copied_seal_does_not_cover_is_not_deleted(sealed):
    """Otherwise its proof would be lost with the seal folder of the host."""
    for second in (100, 101):
        roll_over(sealed.trail, second)
        sealed.trail.write_bytes(Writer(bits=second).event(second))
    done = sealed.compact(delete_after="0s", now=lambda: LATER)
    assert len(done.deleted) == 5
    assert done.problems["seal"] == 1


def test_retention_before_compaction_is_pruned_in_the_archive(tmp_path):
    """Segments that the archive never had are excused by the event that names their leaves."""
    writer = Writer()
    path = write_closed(tmp_path / "logs", *(b"".join(writer.event(n) for n in range(4)) for _ in range(4)))
    sealer = Sealer(path)
    sealer.seal()
    path.with_name(rolled_name("audit.jsonl", 100)).unlink()
    from seals import trail_event

    roll_over(path, 90_002)
    path.write_bytes(writer.line(trail_event("retention", segments=["x"], leaves=[[0, 4]])))
    sealer.seal()
    for second in (90_003, 90_004):
        roll_over(path, second)
        path.write_bytes(writer.event(9))
        sealer.seal()
    made = Sealed(sealer, path, tmp_path / "archive")
    made.compact()
    report = made.report()
    assert (report.verdict, codes(report), report.pruned) == ("INTACT", {"PRUNED": 1}, 4)


# --- Crashes and races ---


def test_crash_at_any_write_of_the_copy_leaves_a_valid_archive(sealed, monkeypatch, tmp_path):
    """The copy before stays until the commit, and the next run completes it."""
    sealed.add_segment(100)
    create = LocalStorage.create
    for failing in range(1, 5):
        archive = tmp_path / f"archive{failing}"
        shutil.copytree(sealed.archive, archive)
        calls = []

        def crash(self, path, data, calls=calls, failing=failing):
            calls.append(path)
            if len(calls) == failing:
                raise OSError(5, "injected", path)
            create(self, path, data)

        monkeypatch.setattr(LocalStorage, "create", crash)
        with pytest.raises(OSError, match="injected"):
            compacted(sealed.trail, archive)
        monkeypatch.undo()

        (report,) = verify_archived(archive, POLICY, max_age=None)
        assert report.verdict == "INTACT"
        compacted(sealed.trail, archive)
        (report,) = verify_archived(archive, POLICY, max_age=None)
        assert (report.verdict, report.size) == ("INTACT", 241)


@pytest.mark.parametrize("winner", ["newer", "older"])
def test_of_two_compactors_the_newest_seal_prevails(sealed, monkeypatch, winner):
    """Whichever commits first; the files of the loser are deleted."""
    copy = SealCopier.copy
    sealed.add_segment(100)
    ran = []

    def racing(self):
        if ran:
            return copy(self)
        ran.append(True)
        made = copy(self) if winner == "newer" else None
        sealed.add_segment(101)
        sealed.compact()
        return copy(self) if made is None else made

    monkeypatch.setattr(SealCopier, "copy", racing)
    sealed.compact()
    monkeypatch.undo()
    assert sealed.report().size == 242
    assert len(list(sealed.archive.glob("_seals/*/*.json"))) == 2


def test_gc_keeps_the_copies_that_count(sealed):
    """Lists and blocks that later copies replaced are deleted after a day."""
    sealed.add_segment(100)
    sealed.compact()
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=23)
    assert gc(sealed.archive, now=lambda: soon).files == 0
    assert gc(sealed.archive, now=lambda: soon + dt.timedelta(hours=2)).files == 2
    assert sealed.report().verdict == "INTACT"


def test_folded_log_keeps_the_seals(sealed):
    """A reader that starts from a checkpoint of the log finds the copies."""
    with opened_log(sealed.archive, None) as (log, database):
        log.write_checkpoint(LATER)
        again = DeltaLog(log.storage, database.connect)
        assert again.require().seals == log.snapshot.seals != {}
    for path in sealed.archive.glob("_delta_log/*0.json"):
        path.unlink()
    assert sealed.report().verdict == "INTACT"


def test_late_lines_are_archived_with_their_run(sealed):
    """Lines after a rollover are a further run of their segment: not archived yet at first, and then like all others."""
    rolled = sealed.trail.with_name("audit.jsonl.20250115T100002.000000Z")
    with rolled.open("ab") as file:
        file.write(Writer(bits=9).event(1))
    sealed.sealer.seal()
    sealed.add_segment(100)
    before = {path: path.read_bytes() for path in sealed.archive.rglob("*") if path.is_file()}
    sealed.compact()
    assert (sealed.report().verdict, sealed.report().unarchived) == ("INTACT", 41)
    assert before.keys() <= {path for path in sealed.archive.rglob("*") if path.is_file()}


def test_sealed_late_lines_that_are_not_archived_yet_are_counted(sealed, monkeypatch):
    """The copy of the seal may be ahead of the rows within a segment, too."""
    rolled = sealed.trail.with_name("audit.jsonl.20250115T100002.000000Z")
    with rolled.open("ab") as file:
        file.write(Writer(bits=9).event(1))
    sealed.sealer.seal()
    monkeypatch.setattr(compaction_module._Compaction, "_add_segment", lambda self, segment, trail: None)
    sealed.compact()
    assert (sealed.report().verdict, sealed.report().unarchived) == ("INTACT", 81)


def test_archive_of_an_object_store_is_verified_and_proven(sealed):
    """The copy of the seal is read through fsspec as the rows are."""
    import fsspec

    root = "memory://audit-seals"
    compacted(sealed.trail, root)
    (report,) = verify_archived(root, POLICY, max_age=None)
    assert (report.verdict, report.unarchived) == ("INTACT", 80)
    event_id = json.loads(lines_of(sealed.trail.with_name("audit.jsonl.20250115T100000.000000Z"))[3])["event_id"]
    assert prove_archived(root, event_id) == prove(str(sealed.trail), event_id)
    fsspec.filesystem("memory").rm("/audit-seals", recursive=True)


def test_trail_of_an_application_is_archived_with_its_seal(tmp_path):
    """A handler that seals, rolls over and ends; segments deleted after compaction; the archive proves what the trail did."""
    key = generate_key(str(tmp_path / "audit.pem"), ORIGIN)
    path = tmp_path / "audit.jsonl"

    def record(count):
        target = AuditFileHandler(
            path, maxBytes=6_000, integrity={"origin": ORIGIN, "key": str(tmp_path / "audit.pem")}
        )
        with AuditLogger(target=target) as audit:
            for number in range(count):
                audit.record("document.read", f"user{number % 7}", metadata={"note": "\u202e", "tenant": "acme"})

    record(150)
    policy = Policy((key,))
    made = Sealed(None, path, tmp_path / "archive")
    done = made.compact(
        promote=["tenant"], delete_after="0s", now=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    )
    assert (len(done.deleted) > 3, done.problems) == (True, {})

    # The next life seals the record of the deletion.
    record(1)
    trail = verified(path, policy=policy)
    assert (trail.verdict, set(codes(trail))) == ("INTACT", {"PRUNED"})
    report = made.report(policy=policy)
    assert (report.verdict, codes(report)) == ("INTACT", {})
    assert report.size - report.unarchived == trail.pruned

    # Of the first copy, no checkpoint covers archived lines only; that of the second run covers what the third archives.
    assert restore(made.archive, tmp_path / "early").unsealed == (f"h1:{path}",)
    for _ in range(2):
        made.compact()
        record(150)
    made.compact()
    restored = restore(made.archive, tmp_path / "restored")
    assert (len(restored.seals), restored.unsealed) == (1, ())
    assert verified(tmp_path / "restored" / "audit.jsonl", policy=policy).verdict == "INTACT"


# Queries of proved lines only.


def verified_query(archive, *words):
    return run("query", archive, "--verified", "--key", str(SIGNER.key), "-o", "jsonl", *words)


def test_query_of_proved_lines_of_an_archive_has_all_of_them(sealed):
    """Those of an intact archive are its rows; what is not archived yet is stated and no finding."""
    done = verified_query(sealed.archive)
    assert (done.code, done.lines) == (0, run("query", sealed.archive, "-o", "jsonl").lines)
    assert "sealed lines that are not archived yet: 80" in done.err


@pytest.mark.parametrize("column", ["user_id", "operation"])
def test_changed_row_is_not_handed_out_as_proved(sealed, column):
    """The very line that is shown is hashed: a changed row is left out, and the exit code is 4."""
    rewrite(
        sealed.data_files()[1],
        f"SELECT * REPLACE (CASE WHEN n % 40 = 7 THEN 'X' ELSE {column} END AS {column}) FROM FILE",
    )
    unproved = run("query", sealed.archive, "-o", "jsonl")
    assert '"X"' in unproved.out

    done = verified_query(sealed.archive)
    assert (done.code, '"X"' in done.out, len(done.lines)) == (4, False, len(unproved.lines) - 1)
    assert "left out: 1 (line 8 of " in done.err


def test_export_of_an_archive_has_proved_events_only(sealed, tmp_path):
    """As for a trail."""
    rewrite(sealed.data_files()[0], "SELECT * REPLACE ('X' AS user_id) FROM FILE")
    to = tmp_path / "out.jsonl"
    done = run("export", sealed.archive, "--verified", "--key", str(SIGNER.key), "--to", to)
    unchanged = [line for line in run("query", sealed.archive, "-o", "jsonl").lines if '"X"' not in line]
    assert (done.code, b'"X"' in to.read_bytes(), len(lines_of(to))) == (4, False, len(unchanged))


def test_late_lines_that_are_not_archived_yet_accuse_no_line(sealed):
    """A segment that grew after it was archived has more sealed lines than rows, and none of them was removed."""
    segment = sorted(sealed.trail.parent.glob("audit.jsonl.*Z"))[0]
    with segment.open("ab") as file:
        file.write(Writer(bits=77).event(5))
    sealed.sealer.seal()
    sealed.add_segment(900)
    shutil.move(segment, segment.with_name("kept"))
    sealed.compact()
    done = verified_query(sealed.archive)
    assert "changed or removed" not in done.err
    assert done.code == 0


def test_query_of_proved_lines_needs_a_seal_of_each_trail(sealed, tmp_path):
    """An archive that has a trail without a seal proves nothing of it, and says so."""
    compacted(write_closed(tmp_path / "other", line_of(1)), sealed.archive)
    done = verified_query(sealed.archive)
    assert (done.code, done.out) == (3, "")
    assert "expected sealed trails, got no seal of h1:" in done.error_line


def test_query_of_proved_lines_refuses_a_second_source(sealed):
    """What archive and trail both have would come twice."""
    done = verified_query(sealed.archive, sealed.trail)
    assert (done.code, done.out, "expected one archive" in done.error_line) == (2, "", True)
