"""Tests of the files that an export carries: they work without this package and without any other."""

import ast
import gzip
import hashlib
import importlib.resources
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from seals import (
    ORIGIN,
    SIGNER,
    SeedSigner,
    lines_of,
    make_trail,
    note_of,
    other_signer,
    rolled_path,
    write_lines,
)

from structlog_audit.integrity.merkle import inclusion_proof
from structlog_audit.integrity.notes import COSIGNATURE, Proof, cosign, parse_note
from structlog_audit.integrity.standalone import verify_trail
from structlog_audit.integrity.standalone.verify_trail import is_strong_key, verify_ed25519, verify_signature

FILES = importlib.resources.files("structlog_audit.integrity.standalone")
VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
VKEY = str(SIGNER.key)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Return a folder with a sealed trail and copies of the stand-alone files."""
    folder = tmp_path_factory.mktemp("export")
    make_trail(folder, 3, 40)
    for name in ("verify_trail.py", "check_checkpoint.sh"):
        (folder / name).write_bytes((FILES / name).read_bytes())
    return folder


def run(folder, *arguments):
    """Run the verifier with the standard library only: isolated, without site-packages."""
    command = [sys.executable, "-I", "-S", "-W", "error", str(folder / "verify_trail.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_file_imports_the_standard_library_only():
    """Outside of functions, nothing but the standard library is imported; within, cryptography and zstd."""
    tree = ast.parse((FILES / "verify_trail.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - sys.stdlib_module_names == {"cryptography", "compression", "backports"} - sys.stdlib_module_names


def test_copy_verifies_without_any_package(export):
    """The copied file verifies a trail in an interpreter that has the standard library only."""
    done = run(export, "audit.jsonl", "--key", VKEY)
    assert (done.returncode, done.stderr) == (0, "")
    lines = ["sealed lines: 120; not sealed yet: 0; deleted by retention: 0", "INTACT  audit.jsonl"]
    assert done.stdout.splitlines() == [f"origin: {ORIGIN}", *lines]


def test_copy_names_a_changed_line(export, tmp_path):
    """The output names segment and line in words, and the exit code is 1; several processes say the same."""
    shutil.copytree(export, tmp_path, dirs_exist_ok=True)
    path = rolled_path(tmp_path / "audit.jsonl", 1)
    lines = lines_of(path)
    lines[11] = lines[11].replace(b"user_", b"User_")
    write_lines(path, lines)
    alone = run(tmp_path, "audit.jsonl", "--key", VKEY)
    together = run(tmp_path, "audit.jsonl", "--key", VKEY, "--jobs", "2")
    assert alone.returncode == 1
    first, *_ = alone.stdout.splitlines()
    assert first.startswith(
        f"CHANGED  line 12 of {path.name} was changed after it was sealed (sealed at 2025-01-15T10:31:"
    )
    assert alone.stdout == together.stdout
    document = json.loads(run(tmp_path, "audit.jsonl", "--key", VKEY, "-o", "json").stdout)
    assert document["findings"][0]["line"] == 12


def test_key_may_be_a_file_or_a_policy(export, tmp_path):
    """A verifier key, a file with one, and a policy file name the same key."""
    key, policy = tmp_path / "audit.vkey", tmp_path / "policy"
    key.write_text(f"{VKEY}\n")
    policy.write_text(f"log {VKEY}\nquorum none\n")
    for argument in (VKEY, str(key), str(policy)):
        assert run(export, "audit.jsonl", "--key", argument).returncode == 0


def test_private_key_in_place_of_the_verifier_key_is_named(export, tmp_path):
    """An auditor who was given the wrong half is told which one is expected."""
    key = tmp_path / "audit.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n")
    done = run(export, "audit.jsonl", "--key", str(key))
    assert (done.returncode, "is a private key: expected its public half" in done.stderr) == (2, True)


def test_other_key_is_named_beside_the_expected_one(export):
    """Two keys of one origin differ in their ids, so the finding has both."""
    other = other_signer().key
    done = run(export, "audit.jsonl", "--key", str(other))
    expected, got = (f"{key.name}+{key.key_id.hex()}" for key in (SIGNER.key, other))
    assert (done.returncode, f"expected {expected}, got {got}" in done.stdout) == (2, True)


def test_state_and_anchor_options_work(export, tmp_path):
    """Anchors, a state file and an age can be given."""
    anchor, state = tmp_path / "anchor", tmp_path / "state"
    shutil.copy(export / "audit.jsonl.seal" / "checkpoint", anchor)
    options = ["--anchor", str(anchor), "--state", str(state), "--max-age", "none"]
    done = run(export, "audit.jsonl", "--key", VKEY, *options)
    assert done.returncode == 0
    assert "lines covered by checkpoints outside of the host: 120" in done.stdout
    assert state.read_bytes() == anchor.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["audit.jsonl"], "--key"),
        (["audit.jsonl", "--key", "nonsense"], "UNKNOWN_KEY  expected a verifier key"),
        (["audit.jsonl", "--key", VKEY, "--max-age", "soon"], "expected a number of seconds of at least 0, or none"),
        (["audit.jsonl", "--key", VKEY, "--max-age", "nan"], "expected a number of seconds of at least 0, or none"),
        (["audit.jsonl", "--key", VKEY, "--max-age=-1"], "expected a number of seconds of at least 0, or none"),
        (["audit.jsonl", "--key", VKEY, "--jobs", "0"], "expected a number of at least 1"),
    ],
)
def test_wrong_usage_exits_with_2_and_the_reason(export, arguments, reason):
    """A command line that cannot be meant exits with 2 and states why."""
    done = run(export, *arguments)
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.parametrize("output", ["text", "json"])
def test_names_that_are_not_utf_8_are_reported(export, tmp_path, output):
    """A file name of any bytes ends in a finding, in both forms of the output."""
    shutil.copytree(export, tmp_path, dirs_exist_ok=True)
    name = os.fsencode(tmp_path) + b"/audit\xff\x9b.jsonl"
    (tmp_path / "audit.jsonl.seal").rename(os.fsdecode(name + b".seal"))
    for path in tmp_path.glob("audit.jsonl*"):
        path.rename(os.fsdecode(name) + path.name.removeprefix("audit.jsonl"))
    write_lines(Path(os.fsdecode(name)), [b"other"])
    done = run(tmp_path, os.fsdecode(name), "--key", VKEY, "-o", output)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.isascii()


def test_folder_as_trail_or_key_is_unreadable(export):
    """Folders in the place of files end in a finding, not in a traceback."""
    assert run(export, ".", "--key", VKEY).returncode == 2
    done = run(export, "audit.jsonl", "--key", ".")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def proof_files(export, folder, index=50):
    """Write the proof of a line, and the line; return both paths."""
    trail = export / "audit.jsonl"
    line = lines_of(rolled_path(trail, 1))[index - 40]
    with verify_trail.HashFiles(str(export / "audit.jsonl.seal")) as hashes:
        proof = inclusion_proof(index, 120, hashes.read)
    note = parse_note((export / "audit.jsonl.seal" / "checkpoint").read_bytes())
    proof_path, line_path = folder / "event.tlog-proof", folder / "line.json"
    proof_path.write_text(str(Proof(index, tuple(proof), note)))
    line_path.write_bytes(line + b"\n")
    return proof_path, line_path


def test_proof_of_one_line_verifies_with_the_line_and_the_key(export, tmp_path):
    """An auditor needs the line, its proof and the key only; any other line is refused."""
    proof, line = proof_files(export, tmp_path)
    done = run(export, str(line), "--proof", str(proof), "--key", VKEY)
    assert (done.returncode, done.stdout) == (0, f"INTACT  the line is leaf 50 of {ORIGIN}\n")

    line.write_bytes(line.read_bytes().replace(b"user_", b"User_"))
    done = run(export, str(line), "--proof", str(proof), "--key", VKEY)
    assert (done.returncode, done.stdout[:7]) == (1, "CHANGED")


def test_proof_needs_the_key_and_the_quorum(export, tmp_path):
    """A proof by another key is not verified, and one without the quorum is not covered."""
    proof, line = proof_files(export, tmp_path)
    other = str(SeedSigner(bytes(32)).key)
    assert run(export, str(line), "--proof", str(proof), "--key", other).returncode == 2
    assert run(export, str(line), "--proof", str(tmp_path / "none"), "--key", VKEY).returncode == 2

    witness = SeedSigner(bytes(32), "witness.example/w", COSIGNATURE)
    policy = tmp_path / "policy"
    policy.write_text(f"log {VKEY}\nwitness w {witness.key}\nquorum w\n")
    assert run(export, str(line), "--proof", str(proof), "--key", str(policy)).returncode == 3

    parsed = Proof.parse(proof.read_bytes())
    proof.write_text(str(parsed._replace(note=cosign(parsed.note, witness, 1_700_000_000))))
    assert run(export, str(line), "--proof", str(proof), "--key", str(policy)).returncode == 0


def test_two_policies_with_quorums_are_refused(export, tmp_path):
    """Several keys may be given, but only one quorum."""
    witness = SeedSigner(bytes(32), "witness.example/w", COSIGNATURE)
    policy = tmp_path / "policy"
    policy.write_text(f"log {VKEY}\nwitness w {witness.key}\nquorum w\n")
    done = run(export, "audit.jsonl", "--key", str(policy), "--key", str(policy))
    assert (done.returncode, "at most one policy" in done.stderr) == (2, True)
    other = str(SeedSigner(bytes(32)).key)
    assert run(export, "audit.jsonl", "--key", other, "--key", VKEY).returncode == 0


# Ed25519.


def cctv_vectors():
    path = Path(__file__).with_name("ed25519_vectors.json.gz")
    return json.loads(gzip.decompress(path.read_bytes()))["vectors"]


def openssl_accepts(public_key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_nothing_that_openssl_refuses_is_accepted():
    """Of the 914 vectors of C2SP's CCTV, what OpenSSL refuses is refused, and keys of low order besides; no others."""
    differing = set()
    for key, signature, message, flags in cctv_vectors():
        arguments = bytes.fromhex(key), message.encode(), bytes.fromhex(signature)
        own = verify_ed25519(*arguments)
        theirs = openssl_accepts(*arguments)
        assert not own or theirs
        if own != theirs:
            differing.add("low_order_A" in flags)
        assert verify_signature(*arguments) is own
    assert differing == {True}


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 511))
@settings(max_examples=40)
def test_own_ed25519_verifies_right_signatures_only(seed, message, bit):
    """For all keys and messages, the right signature verifies, and with any bit changed it does not."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    signature = private.sign(message)
    assert verify_ed25519(public, message, signature)

    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify_ed25519(public, message, bytes(changed))
    assert not verify_ed25519(public, message + b"x", signature)


def test_vectors_of_rfc_8032_verify():
    """The first tests of RFC 8032 §7.1 verify."""
    cases = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ]
    for key, message, signature in cases:
        assert verify_ed25519(bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature))


def test_signature_with_a_large_s_is_refused():
    """s + L signs the same equation; only s below L is accepted."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = SIGNER.sign(b"text")
    s = int.from_bytes(signature[32:], "little") + order
    assert not verify_ed25519(SIGNER.key.public_key, b"text", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 63, 65])
def test_signature_of_another_length_is_refused(length):
    """A signature has 64 bytes."""
    assert not verify_ed25519(SIGNER.key.public_key, b"text", bytes(length))
    assert not verify_signature(SIGNER.key.public_key, b"text", bytes(length))


def test_without_cryptography_the_own_verification_is_used(monkeypatch):
    """The result does not depend on the package."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    assert verify_signature(SIGNER.key.public_key, b"text", SIGNER.sign(b"text"))
    assert not verify_signature(SIGNER.key.public_key, b"Text", SIGNER.sign(b"text"))


def test_strong_keys_are_points_without_small_order():
    """A genuine key is strong; one that is not a point is not."""
    assert is_strong_key(SIGNER.key.public_key)
    # About half of all values of y have no x.
    strong = sum(is_strong_key(hashlib.sha256(b"%d" % number).digest()) for number in range(100))
    assert 10 < strong < 90


# The shell script.


def check(folder, *arguments):
    command = ["sh", str(folder / "check_checkpoint.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_openssl_alone_verifies_a_checkpoint(export):
    """The shell script verifies the signature with openssl, and prints what is signed."""
    checkpoint = export / "audit.jsonl.seal" / "checkpoint"
    done = check(export, checkpoint, VKEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == checkpoint.read_text().split("\n\n")[0] + "\n"


def test_openssl_finds_its_signature_among_others(export, tmp_path):
    """Signatures of other keys, before and behind, do no harm."""
    note = note_of(3, bytes(32))
    others = note_of(3, bytes(32), SeedSigner(bytes(32))).signatures
    path = tmp_path / "checkpoint"
    path.write_text(str(note._replace(signatures=(*others, *note.signatures, *others))))
    assert check(export, path, VKEY).returncode == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("\n3\n", "\n4\n"), 1),
        (lambda text: text.replace(ORIGIN, "audit.example/other", 1), 1),
        (lambda text: text.split("\n\n")[0] + "\n\n", 1),
        (lambda text: text.split("\n\n")[0] + "\n", 1),
        (lambda text: "", 1),
        (lambda text: text.replace("— ", "— x "), 1),
        (lambda text: text[:-10] + "AAAAAAA=\n", 1),
    ],
    ids=["size", "origin", "no signature", "no empty line", "empty", "name", "signature"],
)
def test_openssl_refuses_what_the_key_has_not_signed(export, tmp_path, change, code):
    """Without a right signature the script fails, also if there is none at all."""
    path = tmp_path / "checkpoint"
    path.write_text(change(str(note_of(3, bytes(32)))))
    done = check(export, path, VKEY)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr


@pytest.mark.parametrize("key", ["", "nonsense", VKEY[:-4], str(SeedSigner(kind=COSIGNATURE).key)])
def test_script_refuses_other_keys(export, key):
    """A text that is not a verifier key of type 1 is wrong usage."""
    done = check(export, export / "audit.jsonl.seal" / "checkpoint", key)
    assert done.returncode == 2


def test_script_without_arguments_prints_its_usage(export):
    """Wrong usage exits with 2."""
    assert check(export).returncode == 2
    assert "usage" in check(export, "/none", VKEY).stderr


def test_published_vector_verifies_with_openssl(export, tmp_path):
    """The checkpoint of the vectors verifies."""
    path = tmp_path / "checkpoint"
    path.write_text(VECTORS["checkpoint"])
    assert check(export, path, VECTORS["vkey"]).returncode == 0


def test_script_is_executable():
    """The script in the package can be run as it is."""
    assert os.stat(str(FILES / "check_checkpoint.sh")).st_mode & stat.S_IXUSR
