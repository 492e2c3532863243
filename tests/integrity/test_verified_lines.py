"""Reading only lines that the seal proves: what is handed out, what is left out, and what that says."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from commands import run
from seals import (
    BEGIN,
    SIGNER,
    SeedSigner,
    Writer,
    lines_of,
    make_trail,
    note_of,
    other_signer,
    rolled_path,
    write_lines,
)

from structlog_audit import AuditReadError, open_trail
from structlog_audit.integrity import proving
from structlog_audit.integrity.merkle import Tree, leaf_hash
from structlog_audit.integrity.notes import COSIGNATURE, Policy
from structlog_audit.integrity.standalone import verify_trail
from structlog_audit.integrity.standalone.verify_trail import find_files
from structlog_audit.integrity.tiles import export_tiles
from structlog_audit.integrity.verified_lines import MOST_NAMED, VerifiedLines

KEY = str(SIGNER.key)
POLICY = Policy((SIGNER.key,))
SEGMENTS, LINES = 3, 300


@pytest.fixture
def sealer(tmp_path):
    return make_trail(tmp_path, SEGMENTS, LINES)


def files(sealer):
    return [*(rolled_path(sealer.trail, second) for second in range(SEGMENTS - 1)), sealer.trail]


def all_lines(sealer):
    return [line for path in files(sealer) for line in lines_of(path)]


def read(sealer, policy=POLICY):
    """Return the lines that are handed out, and the reader."""
    verified = VerifiedLines(sealer.trail, policy)
    data = verified.read()
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1], verified


def test_all_lines_of_an_intact_trail_are_handed_out(sealer):
    """Every line is proved, byte for byte and in order, and nothing is to be reported."""
    lines, verified = read(sealer)
    assert lines == all_lines(sealer)
    assert list(verified.problems(BEGIN)) == []
    verified.close()


def test_compressed_segments_are_proved(sealer):
    """The lines count, not the files."""
    lines = all_lines(sealer)
    path = rolled_path(sealer.trail, 0)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read(sealer)[0] == lines


@pytest.mark.parametrize("number", [0, 1, 150, 255, 256, LINES - 1])
@pytest.mark.parametrize("place", range(SEGMENTS))
def test_changed_line_is_not_handed_out(sealer, place, number):
    """It is left out, counted and named; all others are handed out."""
    path = files(sealer)[place]
    expected = all_lines(sealer)
    del expected[place * LINES + number]
    lines = lines_of(path)
    lines[number] += b" "
    write_lines(path, lines)

    found, verified = read(sealer)
    assert found == expected
    assert (verified.unproved, verified.absent, verified.examples) == (1, 1, [(path.name, number + 1)])


def test_any_bit_flip_costs_its_own_lines_only(sealer):
    """Whatever bit is flipped: no line is handed out that was not sealed, and at most two are left out."""
    path = rolled_path(sealer.trail, 1)
    data = path.read_bytes()
    sealed = all_lines(sealer)
    for seed in range(100):
        bit = random.Random(seed).randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(changed)
        found, verified = read(sealer)
        assert set(found) <= set(sealed)
        assert len(sealed) - 2 <= len(found) < len(sealed)
        assert verified.absent


def test_inserted_repeated_and_removed_lines_are_counted(sealer):
    """A forged line and a copy of a right one are left out; a removed line leaves the lines after it proved."""
    path = rolled_path(sealer.trail, 1)
    lines = lines_of(path)
    forged, sealed, removed = Writer(bits=9).event(0)[:-1], all_lines(sealer), set(lines[100:150])
    write_lines(path, [*lines[:10], forged, *lines[10:20], lines[5], *lines[20:100], *lines[150:]])
    found, verified = read(sealer)
    assert found == [line for line in sealed if line not in removed]
    assert (verified.unproved, verified.absent, verified.examples) == (2, 50, [(path.name, 11), (path.name, 22)])


def test_named_lines_are_bounded(sealer):
    """All unproved lines are counted, and the first ones named."""
    write_lines(sealer.trail, [line + b" " for line in lines_of(sealer.trail)])
    found, verified = read(sealer)
    assert (len(found), verified.unproved, len(verified.examples)) == ((SEGMENTS - 1) * LINES, LINES, MOST_NAMED)
    assert [text.endswith(", …)") for text, _ in verified.problems(BEGIN)] == [False, True]


def test_lines_that_are_not_sealed_are_left_out(sealer):
    """They are a finding once they are two minutes old, as for the verifier."""
    writer = Writer(bits=9, begin=BEGIN)
    with sealer.trail.open("ab") as file:
        file.write(writer.event(0) + writer.event(1) + b"torn")
    found, verified = read(sealer)
    assert len(found) == SEGMENTS * LINES
    assert (verified.unsealed, verified.unproved) == (2, 0)
    for age, is_finding in ((0, False), (100, False), (200, True), (-200, True)):
        ((text, found_one),) = verified.problems(BEGIN.fromtimestamp(BEGIN.timestamp() + age, BEGIN.tzinfo))
        assert ("not sealed yet, and left out: 2" in text, found_one) == (True, is_finding)


def test_line_with_its_stored_hash_changed_is_not_handed_out(sealer):
    """Stored hashes prove a line only if they give the signed root: the others of their tile are left out, too."""
    lines = lines_of(rolled_path(sealer.trail, 0))
    lines[7] += b" "
    write_lines(rolled_path(sealer.trail, 0), lines)
    path = sealer.folder / "hashes.0"
    stored = bytearray(path.read_bytes())
    stored[7 * 32 : 8 * 32] = leaf_hash(lines[7])
    path.write_bytes(stored)
    found, verified = read(sealer)
    assert found == all_lines(sealer)[256:]
    assert verified.absent == 256


@pytest.mark.parametrize("level", [0, 1])
def test_changed_upper_or_last_hashes_prove_nothing(sealer, level):
    """What does not give the signed root at all is an error."""
    path = sealer.folder / f"hashes.{level}"
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored)
    with pytest.raises(AuditReadError, match="do not give the signed root"):
        VerifiedLines(sealer.trail, POLICY)


def test_rewritten_trail_with_its_hashes_proves_nothing(sealer):
    """Somebody without the key who changes lines and all hashes cannot sign the new root."""
    lines = [line.replace(b"STORE", b"ERASE") for line in all_lines(sealer)]
    tree = Tree()
    for line in lines:
        tree.append(leaf_hash(line))
    for level, hashes in tree.take_stored().items():
        (sealer.folder / f"hashes.{level}").write_bytes(hashes)
    with pytest.raises(AuditReadError, match="do not give the signed root"):
        VerifiedLines(sealer.trail, POLICY)
    (sealer.folder / "checkpoint").write_text(str(note_of(tree.size, tree.root(), other_signer())))
    with pytest.raises(AuditReadError, match="no given key has signed"):
        VerifiedLines(sealer.trail, POLICY)


@pytest.mark.parametrize(
    ("module", "read_lines"),
    [
        (verify_trail, lambda trail: VerifiedLines(trail, POLICY)),
        (proving, lambda trail: proving.prove(str(trail), "evt_none")),
    ],
)
def test_segment_that_is_deleted_after_it_was_listed_is_an_error(sealer, monkeypatch, module, read_lines):
    """Retention may run meanwhile: the reader gets an error of the library that says to try again."""

    def list_then_delete(trail):
        found = find_files(trail)
        rolled_path(sealer.trail, 0).unlink()
        return found

    monkeypatch.setattr(module, "find_files", list_then_delete)
    with pytest.raises(AuditReadError, match="was deleted or renamed while it was read: try again"):
        read_lines(sealer.trail)


def test_segment_that_is_not_here_is_counted(sealer):
    """Only `verify` reads whether retention deleted it, so it is no finding here, but it is stated."""
    rolled_path(sealer.trail, 0).unlink()
    lines, verified = read(sealer)
    ((sentence, is_finding),) = verified.problems(BEGIN)
    assert (len(lines), f"segments that are not here: {LINES};" in sentence, is_finding) == (2 * LINES, True, False)
    assert f"not here: {LINES};" in run("query", sealer.trail, "--verified", "--key", KEY).err


def test_cosignatures_that_are_not_checked_are_stated(sealer):
    """With a policy that asks for witnesses, the reader is told that only `verify` asks for them."""
    witness = SeedSigner(bytes([7]) * 32, "witness.example/w1", COSIGNATURE).key
    policy = Policy.parse(f"log {KEY}\nwitness w1 {witness}\nquorum w1\n".encode())
    ((sentence, is_finding),) = read(sealer, policy)[1].problems(BEGIN)
    assert ("cosignatures of witnesses are not checked here" in sentence, is_finding) == (True, False)


def test_hint_is_not_needed(sealer):
    """Without ``segments``, the lines are found by their hashes."""
    (sealer.folder / "segments").unlink()
    assert read(sealer)[0] == all_lines(sealer)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A sealed trail of three short segments, and the place of its hint."""
    made = make_trail(tmp_path_factory.mktemp("small"), SEGMENTS, 5)
    return made, made.folder / "segments"


@pytest.mark.parametrize("word", [0, 3, 4])
@pytest.mark.parametrize("number", range(SEGMENTS))
def test_flipped_bit_of_the_hint_is_ignored(small, tmp_path, number, word):
    """With a wrong number, size or name of a segment, all lines are proved, alone or together, and exported as entries."""
    sealer, hint = small
    content = hint.read_bytes()
    rows = [row.split(b" ") for row in content.splitlines()]
    value = rows[number][word]
    rows[number][word] = bytes([value[0] ^ 2]) + value[1:]
    lines = all_lines(sealer)
    ids = [json.loads(line)["event_id"] for line in lines[::7]]
    try:
        hint.write_bytes(b"".join(b" ".join(row) + b"\n" for row in rows))
        assert read(sealer)[0] == lines
        assert [proving.prove(sealer.trail, id).line for id in ids] == lines[::7]
        assert export_tiles(sealer.trail, tmp_path / "tiles").left_out == 0
    finally:
        hint.write_bytes(content)


@pytest.mark.parametrize("size", [3, 255, 256, 257, 511, 512, 1_000])
def test_tree_of_any_size_proves_its_lines(tmp_path, size):
    """With and without full tiles and a rest of one."""
    sealer = make_trail(tmp_path, 1, size)
    assert read(sealer)[0] == lines_of(sealer.trail)


# The commands.


def test_query_hands_out_proved_events_only(sealer):
    """A changed event is not shown, is named on stderr, and the exit code is 4."""
    words = ["query", sealer.trail, "--verified", "--key", KEY, "-o", "jsonl"]
    intact = run(*words)
    assert (intact.code, intact.out) == (0, run("query", sealer.trail, "-o", "jsonl").out)

    lines = lines_of(sealer.trail)
    write_lines(sealer.trail, [*lines[:4], lines[4].replace(b"user_", b"USER_"), *lines[5:]])
    changed = run(*words)
    assert (changed.code, "USER_" in changed.out, len(changed.lines)) == (4, False, len(intact.lines) - 1)
    assert "left out: 1 (line 5 of audit.jsonl)" in changed.err
    assert "USER_" in run("query", sealer.trail, "-o", "jsonl").out


def test_query_works_in_every_order_and_without_a_match(sealer):
    """Newest first, the newest few, and conditions select among the proved events."""
    words = ["query", sealer.trail, "--verified", "--key", KEY, "-o", "jsonl"]
    newest = [json.loads(line)["user_id"] for line in run(*words, "-n", "2", "-r").lines]
    assert newest == ["user_895", "user_894"]
    none = run(*words, "user_id=nobody")
    assert (none.code, none.err) == (1, "")


def test_export_has_proved_events_only(sealer, tmp_path):
    """The file has them, and the exit code tells that others were left out."""
    write_lines(sealer.trail, [line.replace(b"user_", b"USER_") for line in lines_of(sealer.trail)])
    to = tmp_path / "out.jsonl"
    done = run("export", sealer.trail, "--verified", "--key", KEY, "--to", to)
    assert (done.code, b"USER_" in to.read_bytes()) == (4, False)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--verified"], 2, "--verified: expected --key as well"),
        (["--key", KEY], 2, "--key: expected --verified as well"),
        (["--verified", "--key", "nonsense"], 2, "expected a verifier key"),
        (["--verified", "--key", str(other_signer().key)], 3, "no given key has signed"),
    ],
)
def test_query_without_a_usable_key_hands_out_nothing(sealer, words, code, message):
    """Nothing is shown that was not proved."""
    done = run("query", sealer.trail, *words)
    assert (done.code, done.out, message in done.error_line) == (code, "", True)


def test_query_of_a_trail_without_a_seal_hands_out_nothing(tmp_path):
    """Nothing proves its lines."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(Writer().event(0))
    done = run("query", trail, "--verified", "--key", KEY)
    assert (done.code, done.out, "expected the active file of a sealed trail" in done.error_line) == (2, "", True)


def test_reader_accepts_the_stream(sealer):
    """In Python, `open_trail` reads the proved lines as those of any file."""
    reader = open_trail(VerifiedLines(sealer.trail, POLICY))
    assert len(reader.query_events(user_id="user_5")) == 1
