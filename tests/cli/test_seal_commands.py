"""The commands about the seal of a trail: keygen, seal, verify, prove, verify-proof, export --tiles."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from archives import compacted, write_closed
from children import without_coverage
from commands import GOLDEN, PROGRAM, environment, process, run
from seals import Writer

from structlog_audit.integrity.merkle import leaf_hashes
from structlog_audit.integrity.seal_folder import SealFolder

ORIGIN = "audit.example/shop/web1"


@pytest.fixture
def trail(tmp_path):
    """A trail, and its key in ``audit.pem`` and ``audit.vkey``."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(GOLDEN.read_bytes())
    made = run("keygen", tmp_path / "audit.pem", "--origin", ORIGIN)
    (tmp_path / "audit.vkey").write_text(made.out)
    return path


def seal(trail):
    return run("seal", trail, "--key", trail.parent / "audit.pem", "--origin", ORIGIN)


def verify(trail, *words):
    return run("verify", trail, "--key", trail.parent / "audit.vkey", *words)


def first_id(trail):
    return json.loads(trail.read_bytes().splitlines()[2])["event_id"]


def test_keygen_makes_a_private_file_and_prints_its_public_half(tmp_path):
    """The file is readable by its owner only, and never replaced."""
    path = tmp_path / "audit.pem"
    made = run("keygen", path, "--origin", ORIGIN)
    assert made.out.startswith(f"{ORIGIN}+")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run("keygen", path, "--origin", ORIGIN)
    assert (again.code, "a key is never replaced" in again.error_line) == (3, True)
    wrong = run("keygen", tmp_path / "other.pem", "--origin", "a b")
    assert (wrong.code, (tmp_path / "other.pem").exists()) == (2, False)


def test_sealed_trail_verifies_and_a_changed_line_is_named(trail):
    """seal, verify: 0; a changed line: 1 and its place; without a seal or with another key: 2."""
    assert verify(trail).code == 2
    done = seal(trail)
    count = len(trail.read_bytes().splitlines())
    assert f"{count} lines of" in done.out
    assert (verify(trail).code, verify(trail).lines[-1].split()[0]) == (0, "INTACT")

    data = trail.read_bytes()
    trail.write_bytes(data.replace(b"STORE", b"ERASE", 1))
    changed = verify(trail, "-o", "json")
    assert changed.code == 1
    assert [finding["code"] for finding in json.loads(changed.out)["findings"]] == ["CHANGED"]

    other = run("keygen", trail.parent / "other.pem", "--origin", ORIGIN).out.strip()
    assert run("verify", trail, "--key", other).code == 2


def test_verify_takes_anchors_state_and_processes(trail):
    """A copy of the trail anchors it; --state holds the newest checkpoint; --jobs changes nothing."""
    seal(trail)
    copy = trail.parent / "shipped.log"
    copy.write_bytes(Path(f"{trail}.seal/checkpoint").read_bytes())
    state = trail.parent / "state"
    done = verify(trail, "--anchor", copy, "--state", state, "--jobs", 2, "--max-age", "none")
    assert (done.code, state.read_bytes()) == (0, copy.read_bytes())


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--max-age", "soon"], "--max-age soon: expected a number"),
     (["--key", "nonsense"], "--key: expected a verifier")],
)  # fmt: skip
def test_verify_refuses_invalid_options(trail, words, message):
    """An option that cannot be used is one line on stderr and exit code 2."""
    seal(trail)
    done = verify(trail, *words)
    assert (done.code, done.error_line.startswith(message)) == (2, True)


def test_seal_refuses_what_is_no_trail_or_no_key(trail):
    """A path without a trail, a file that is not a key and an invalid origin are errors, and make no folder."""
    key = trail.parent / "audit.pem"
    missing = run("seal", trail.parent / "none.jsonl", "--key", key, "--origin", ORIGIN)
    assert (missing.code, "expected the active file of a trail" in missing.error_line) == (2, True)
    assert run("seal", trail, "--key", trail, "--origin", ORIGIN).code == 3
    assert run("seal", trail, "--key", key, "--origin", "a b").code == 2
    assert not Path(f"{trail}.seal").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_key_that_other_users_reach_is_named(trail, mode):
    """The trail is sealed, and stderr says what to do: who reads the key can sign another history."""
    key = trail.parent / "audit.pem"
    assert seal(trail).err == ""
    key.chmod(mode)
    done = seal(trail)
    assert (done.code, f"chmod 600 {key}" in done.err) == (0, True)


def test_damaged_hashes_are_made_again_after_they_were_moved_away(trail):
    """What the finding says repairs them: the checkpoint and all proofs stay as they were."""
    writer = Writer()
    trail.write_bytes(writer.opened() + b"".join(writer.event(number) for number in range(600)))
    seal(trail)
    hashes = Path(f"{trail}.seal/hashes.0")
    whole = hashes.read_bytes()
    hashes.write_bytes(whole[:40] + b"x" + whole[41:])

    damaged = verify(trail, "--max-age", "none")
    assert (damaged.code, "move the files hashes.* out of the seal folder" in damaged.lines[0]) == (3, True)
    for path in Path(f"{trail}.seal").glob("hashes.*"):
        path.rename(trail.parent / path.name)
    assert (seal(trail).code, verify(trail, "--max-age", "none").code, hashes.read_bytes()) == (0, 0, whole)


def test_key_that_replaces_itself_is_an_error(trail):
    """Both would sign, and nothing would have changed."""
    key = trail.parent / "audit.pem"
    done = run("seal", trail, "--key", key, "--previous-key", key, "--origin", ORIGIN)
    assert (done.code, "the key and the previous key are the same" in done.error_line) == (3, True)


def test_policy_without_an_address_of_a_witness_is_an_error(trail):
    """Nobody would cosign the checkpoints, although the policy asks for it."""
    policy = trail.parent / "policy"
    policy.write_text(f"log {(trail.parent / 'audit.vkey').read_text()}quorum none\n")
    done = run("seal", trail, "--key", trail.parent / "audit.pem", "--origin", ORIGIN, "--policy", policy)
    assert (done.code, "got none with an address" in done.error_line) == (2, True)


def test_seal_folder_that_is_no_folder_is_named(trail):
    """The error names what cannot be used."""
    Path(f"{trail}.seal").write_text("")
    done = seal(trail)
    assert (done.code, f"{trail}.seal: NotADirectoryError" in done.err) == (3, True)


def test_rotate_key_makes_no_key_for_a_seal_that_cannot_be_read(trail):
    """A checkpoint that cannot be read is named before the new key is made."""
    seal(trail)
    checkpoint = Path(f"{trail}.seal/checkpoint")
    checkpoint.unlink()
    checkpoint.mkdir()
    key = trail.parent / "new.pem"
    done = run("rotate-key", trail, "--key", key, "--previous-key", trail.parent / "audit.pem", "--origin", ORIGIN)
    assert (done.code, "checkpoint' cannot be read" in done.error_line, key.exists()) == (3, True, False)


def files_below(folder):
    """Return the content of each file below *folder*, and None for each folder."""
    return {path: None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def process_without_room(*words, size=0):
    """Run a command that can create files and write up to *size* bytes to each; return its result."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    # Coverage could not write its file.
    return process(*words, preexec_fn=limit, env=without_coverage(environment()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("keygen new.pem --origin {origin}", "'new.pem' cannot be written: File too large"),
        ("seal other.jsonl --key audit.pem --origin {origin}", "other.jsonl was not sealed: OSError: [Errno 27] File too"),
        ("rotate-key audit.jsonl --key new.pem --previous-key audit.pem --origin {origin}", "'new.pem' cannot be written"),
        ("prove audit.jsonl {id} --line line", "line: File too large"),
        ("prove audit.jsonl {id} --cose receipt --key audit.pem", "receipt: File too large"),
        ("export audit.jsonl --tiles tiles", "tiles/tile/0/000.p/"),
        ("export audit.jsonl --tiles new/tiles", "File too large"),
        ("export audit.jsonl --to events.csv", "events.csv: File too large"),
        ("export audit.jsonl --to new/folder/events.csv", "events.csv: File too large"),
        ("query audit.jsonl --record", "cannot record the reading of 'audit.jsonl', so nothing was read"),
    ],
)  # fmt: skip
def test_command_that_cannot_write_leaves_nothing_and_states_why_once(trail, monkeypatch, words, message):
    """On a full disk, the error is one line on stderr, the exit code 3, and the folder as before."""
    seal(trail)
    (trail.parent / "other.jsonl").write_bytes(b"a line\n")
    before = files_below(trail.parent)
    monkeypatch.chdir(trail.parent)
    done = process_without_room(*words.format(origin=ORIGIN, id=first_id(trail)).split())
    assert (done.code, message in done.error_line, done.out) == (3, True, "")
    assert files_below(trail.parent) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_demo_that_cannot_record_says_so_and_leaves_nothing(tmp_path, is_there):
    """It does not show queries of a trail without events."""
    folder = tmp_path / "folder"
    if is_there:
        folder.mkdir()
    before = files_below(tmp_path)
    done = process_without_room("demo", folder)
    last = done.err.splitlines()[-1]
    assert (done.code, done.out, "was not recorded: OSError: [Errno 27] File too large" in last) == (3, "", True)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("words", ["--line audit.pem/line --cose receipt", "--line line --cose audit.pem/receipt"])
def test_prove_writes_all_of_its_files_or_none(trail, monkeypatch, words):
    """If one cannot be written, the other is not there either."""
    seal(trail)
    before = files_below(trail.parent)
    monkeypatch.chdir(trail.parent)
    done = run("prove", "audit.jsonl", first_id(trail), *words.split(), "--key", "audit.pem")
    assert (done.code, "Not a directory" in done.error_line, done.out) == (3, True, "")
    assert files_below(trail.parent) == before


@pytest.mark.parametrize(
    "words",
    ["--line audit.jsonl", "--line ./audit.pem --cose receipt", "--cose audit.pem", "--line receipt --cose receipt"],
)
def test_prove_replaces_no_other_file_of_its_own(trail, monkeypatch, words):
    """Neither the trail nor the key is replaced, and one output does not replace the other."""
    seal(trail)
    before = files_below(trail.parent)
    monkeypatch.chdir(trail.parent)
    key = ["--key", "audit.pem"] if "--cose" in words else []
    done = run("prove", "audit.jsonl", first_id(trail), *words.split(), *key)
    assert (done.code, "expected another file than that of" in done.error_line) == (2, True)
    assert files_below(trail.parent) == before


def test_restore_without_room_leaves_nothing_and_names_the_file(trail, tmp_path):
    """On a full disk, neither an unfinished file nor an empty folder stays."""
    path = write_closed(tmp_path / "logs", trail.read_bytes(), second=0, last=1)
    compacted(path, tmp_path / "archive")
    before = files_below(tmp_path)
    words = ["archive", "restore", tmp_path / "archive", "--to", tmp_path / "new" / "restored"]
    done = process_without_room(*words, size=1_000)
    assert (done.code, "File too large" in done.error_line, "new/restored/audit.jsonl" in done.error_line) == (
        3,
        True,
        True,
    )
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.new", "segments", "segments.new", "hashes.0", "anchors"])
def test_pipe_in_the_seal_folder_blocks_no_command(trail, name):
    """A pipe without a writer ends in an error or a finding, or is not needed; it would block for ever if it was opened."""
    seal(trail)
    path = Path(f"{trail}.seal/{name}")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with trail.open("ab") as file:
        file.write(b"another line\n")
    words = ["--key", trail.parent / "audit.pem", "--origin", ORIGIN]
    sealed = process("seal", trail, *words)
    verified = process("verify", trail, "--key", trail.parent / "audit.vkey")
    tiles = process("export", trail, "--tiles", trail.parent / "tiles")
    is_needed = name.startswith(("checkpoint", "hashes", "segments.new"))
    assert (sealed.code, bool(sealed.err)) == ((3, True) if is_needed else (0, False)), sealed.err
    assert verified.code == {"checkpoint": 2, "hashes.0": 3}.get(name, 0)
    assert tiles.code == (3 if name in ("checkpoint", "hashes.0") else 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not end in an empty line"),
        (b"a" * 2_000_000, "has more than 1000000 bytes"),
        (b"\xff\n\n\xe2\x80\x94 a AAAA\n", "is not UTF-8"),
    ],
)
def test_checkpoint_that_is_none_is_named_by_every_command(trail, content, message):
    """The error names the file, and nothing changes."""
    seal(trail)
    Path(f"{trail}.seal/checkpoint").write_bytes(content)
    before = files_below(trail.parent)
    words = ["--key", trail.parent / "audit.pem", "--origin", ORIGIN]
    for done in (
        run("seal", trail, *words),
        run("prove", trail, first_id(trail)),
        run("export", trail, "--tiles", trail.parent / "tiles"),
        run("rotate-key", trail, "--key", trail.parent / "new.pem", "--previous-key", *words[1:]),
    ):
        assert (done.code, "seal/checkpoint' is not a checkpoint" in done.error_line) == (3, True)
        assert message in done.error_line
    found = verify(trail)
    assert (found.code, message in found.lines[0], "is not a checkpoint" in found.lines[0]) == (2, True, True)
    assert files_below(trail.parent) == before


def test_proof_replaces_no_special_file(trail):
    """A pipe in place of --line would be replaced by a file."""
    seal(trail)
    pipe = trail.parent / "pipe"
    os.mkfifo(pipe)
    done = run("prove", trail, first_id(trail), "--line", pipe)
    assert (done.code, "expected a regular file" in done.error_line, pipe.is_fifo()) == (2, True, True)


def test_seal_of_a_trail_that_another_process_seals_is_an_error(trail):
    """Two processes never seal one trail at the same time."""
    folder = SealFolder(str(trail))
    assert folder.lock()
    done = seal(trail)
    folder.release()
    assert (done.code, "sealed by another process" in done.error_line) == (3, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watching_sealer_ends_with_a_checkpoint_line(trail, number):
    """--watch seals until a signal, and then appends a checkpoint line and seals that too."""
    words = ["seal", trail, "--key", trail.parent / "audit.pem", "--origin", ORIGIN, "--watch"]
    process = subprocess.Popen([*PROGRAM, *map(str, words)], env=environment(), stderr=subprocess.PIPE, text=True)
    while not Path(f"{trail}.seal/checkpoint").exists():
        assert process.poll() is None
    process.send_signal(number)
    assert process.communicate(timeout=60) == (None, "")
    assert process.returncode == 0
    last = json.loads(trail.read_bytes().splitlines()[-1])
    assert (last["kind"], verify(trail).code) == ("checkpoint", 0)


SIGNALLED = """
import importlib, os, sys
from structlog_audit.cli import main

module, owner, name = sys.argv.pop(1).split(":")
owner = getattr(importlib.import_module("structlog_audit." + module), owner)
original = getattr(owner, name)
number = int(sys.argv.pop(2))

def at_the_signal(*arguments, **options):
    setattr(owner, name, original)
    os.kill(os.getpid(), number)
    return original(*arguments, **options)

setattr(owner, name, at_the_signal)
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "moment",
    [
        "integrity.signing:KeyFile:__init__",
        "integrity.anchors:Anchors:from_config",
        "integrity.seal_folder:SealFolder:lock",
        "integrity.sealer:Sealer:seal",
        "integrity.background:BackgroundSealer:run",
        "cli.commands.seal:_SignalEvent:wait",
    ],
)
def test_signal_while_the_watching_sealer_starts_ends_it_with_a_checkpoint_line(trail, number, moment):
    """From its first line on, --watch answers a signal with a checkpoint of everything, and exit code 0."""
    words = [moment, "seal", number.value, trail, "--key", trail.parent / "audit.pem", "--origin", ORIGIN, "--watch"]
    command = [PROGRAM[0], "-c", SIGNALLED, *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"sealing {trail} once a second, until SIGTERM or SIGINT\n"
    last = json.loads(trail.read_bytes().splitlines()[-1])
    assert (last["kind"], verify(trail).code) == ("checkpoint", 0)


def test_proof_of_an_event_verifies_with_its_line_and_key_only(trail):
    """prove prints the proof and writes the line; verify-proof needs nothing else, and refuses another line."""
    seal(trail)
    line, proof = trail.parent / "line.json", trail.parent / "event.tlog-proof"
    done = run("prove", trail, first_id(trail), "--line", line)
    proof.write_text(done.out)
    trail.unlink()

    words = ["verify-proof", proof, line, "--key", trail.parent / "audit.vkey"]
    assert (run(*words).code, run(*words).out.split()[0]) == (0, "INTACT")
    line.write_bytes(line.read_bytes().replace(b"STORE", b"ERASE"))
    assert run(*words).code == 1
    proof.write_text("no proof")
    assert (run(*words).code, f"UNREADABLE  {str(proof)!r} is not a proof" in run(*words).out) == (2, True)


def test_event_without_a_proof_is_an_error_that_names_it(trail):
    """An unknown event, one that is not sealed yet, and a changed one have no proof."""
    seal(trail)
    unknown = run("prove", trail, "evt_none")
    assert (unknown.code, unknown.error_line) == (2, "evt_none: no line of the trail begins with this id")

    data = trail.read_bytes()
    trail.write_bytes(data + b'{"event_id":"evt_new"}\n')
    assert "not sealed yet" in run("prove", trail, "evt_new").error_line
    trail.write_bytes(data.replace(b"STORE", b"ERASE"))
    assert "was changed after it was sealed" in run("prove", trail, first_id(trail)).error_line


def test_proof_does_not_need_the_hint(trail):
    """Without ``segments``, the place of the line is found from the stored hashes."""
    seal(trail)
    before = run("prove", trail, first_id(trail)).out
    os.unlink(f"{trail}.seal/segments")
    assert run("prove", trail, first_id(trail)).out == before


def test_tiles_are_those_of_c2sp_and_only_grow(trail):
    """export --tiles writes hashes, entries and checkpoint; once more into the same folder, what is new only."""
    with trail.open("ab") as file:
        file.write(b"".join(b"%d\n" % number for number in range(600)))
    seal(trail)
    folder = trail.parent / "tiles"
    done = run("export", trail, "--tiles", folder)
    leaves = leaf_hashes(trail.read_bytes())
    count = len(leaves) // 32
    assert (done.code, done.out, done.err) == (0, f"8 files added in {folder}: {count} lines\n", "")
    assert (folder / "tile/0/000").read_bytes() == leaves[: 256 * 32]
    assert (folder / f"tile/0/002.p/{count - 512}").read_bytes() == leaves[512 * 32 :]
    assert len((folder / "tile/1/000.p/2").read_bytes()) == 64
    assert (folder / f"tile/entries/002.p/{count - 512}").read_bytes().endswith(b"\x00\x03599")
    assert (folder / "checkpoint").read_bytes() == Path(f"{trail}.seal/checkpoint").read_bytes()
    assert stat.S_IMODE((folder / "checkpoint").stat().st_mode) == 0o600

    again = run("export", trail, "--tiles", folder)
    assert (again.code, again.out) == (0, f"0 files added in {folder}: {count} lines\n")


def test_tiles_go_into_no_other_folder(trail):
    """A folder with other files, conditions, an archive and a trail without a seal are errors that say what to do."""
    folder = trail.parent / "tiles"
    unsealed = run("export", trail, "--tiles", folder)
    assert (unsealed.code, "the trail is not sealed" in unsealed.error_line, folder.exists()) == (3, True, False)

    seal(trail)
    foreign = run("export", trail, "--tiles", trail.parent)
    assert (foreign.code, "expected a new or an empty folder" in foreign.error_line) == (2, True)
    assert run("export", trail).code == 2
    assert run("export", trail, "user_id=ann", "--tiles", folder).code == 2

    archive = trail.parent / "archive"
    compacted(write_closed(trail.parent / "other", GOLDEN.read_bytes()), archive)
    assert "--jobs 2: expected 1 for an archive" in verify(archive, "--jobs", 2).error_line
    archived = run("export", archive, "--tiles", folder)
    assert (archived.code, f"archive restore {archive}" in archived.error_line, folder.exists()) == (2, True, False)


def test_tiles_without_lines_that_are_gone_are_counted(trail):
    """stderr states how many lines have no entry; the hashes are all there."""
    trail.write_bytes(b"".join(b"%d\n" % number for number in range(300)))
    seal(trail)
    trail.rename(f"{trail}.20250115T103045.123456Z")
    trail.write_bytes(b"next\n")
    seal(trail)
    os.unlink(f"{trail}.20250115T103045.123456Z")
    folder = trail.parent / "tiles"
    done = run("export", trail, "--tiles", folder)
    assert (done.code, done.error_line.split(": ")[:2]) == (0, ["lines without an entry", "301"])
    assert (folder / "tile/0/000").stat().st_size == 8_192


def test_tile_paths_group_their_digits():
    """Numbers of tiles have groups of three digits, all but the last with an x."""
    from structlog_audit.integrity.tiles import tile_path

    assert tile_path(0, 1_234_067, 256) == "tile/0/x001/x234/067"
    assert tile_path(2, 5, 3) == "tile/2/005.p/3"


def test_cose_receipt_is_signed_by_the_key_of_the_trail(trail):
    """--cose writes a receipt of the same proof, and refuses another key, or none."""
    seal(trail)
    receipt = trail.parent / "receipt.cbor"
    words = ["prove", trail, first_id(trail), "--cose", receipt]
    assert run(*words).code == 2
    run("keygen", trail.parent / "other.pem", "--origin", ORIGIN)
    assert run(*words, "--key", trail.parent / "other.pem").code == 2
    assert not receipt.exists()
    assert run(*words, "--key", trail.parent / "audit.pem").code == 0
    assert receipt.read_bytes().startswith(b"\xd2")


def test_rotated_key_is_made_and_signs_beside_the_old_one(trail):
    """rotate-key prints the new verifier key; seal with both keys goes on; with the new one only, the old one has ended."""
    old, new = trail.parent / "audit.pem", trail.parent / "audit-2.pem"
    words = ["rotate-key", trail, "--key", new, "--previous-key", old, "--origin", ORIGIN]
    assert run(*words).code == 2
    assert not new.exists()

    seal(trail)
    rotated = run(*words)
    assert (rotated.code, stat.S_IMODE(new.stat().st_mode)) == (0, 0o600)
    key = rotated.out.strip()
    assert verify(trail).code == run("verify", trail, "--key", key).code == 0

    assert run("seal", trail, "--key", new, "--previous-key", old, "--origin", ORIGIN).code == 0
    assert verify(trail).code == 0
    assert run("seal", trail, "--key", new, "--origin", ORIGIN).code == 0
    assert (verify(trail).code, verify(trail, "--key", key).code) == (2, 0)
    assert [json.loads(line)["operation"] for line in trail.read_bytes().splitlines()[-2:]] == ["key", "key"]


def test_rotate_key_without_a_usable_new_key_changes_nothing(trail):
    """The old key once more, or another old key than that of the seal, is an error."""
    seal(trail)
    old, other = trail.parent / "audit.pem", trail.parent / "other.pem"
    before = trail.read_bytes()
    same = run("rotate-key", trail, "--key", old, "--previous-key", old, "--origin", ORIGIN)
    assert (same.code, "expected another key" in same.error_line) == (3, True)
    run("keygen", other, "--origin", ORIGIN)
    words = ["rotate-key", trail, "--key", trail.parent / "new.pem", "--previous-key"]
    wrong = run(*words, other, "--origin", ORIGIN)
    assert (wrong.code, "no given key has signed the checkpoint" in wrong.error_line) == (3, True)

    folder = SealFolder(str(trail))
    assert folder.lock()
    locked = run(*words, old, "--origin", ORIGIN)
    folder.release()
    assert (locked.code, "give that one both keys" in locked.error_line) == (3, True)
    assert (trail.read_bytes(), (trail.parent / "new.pem").exists()) == (before, False)


def test_new_key_that_signs_already_is_kept(trail):
    """If only the statement about it cannot be appended, the key file stays: the checkpoint is by that key."""
    seal(trail)
    new = trail.parent / "new.pem"
    trail.rename(f"{trail}.20250115T103045.123456Z")
    old = trail.parent / "audit.pem"
    done = run("rotate-key", trail, "--key", new, "--previous-key", old, "--origin", ORIGIN)
    assert (done.code, "both keys sign" in done.error_line, new.exists()) == (3, True, True)
    trail.write_bytes(b"")
    assert run("seal", trail, "--key", new, "--previous-key", old, "--origin", ORIGIN).code == 0
    assert verify(trail).code == 0
