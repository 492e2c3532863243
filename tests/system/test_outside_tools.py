"""Seals and proofs, verified by programs of others: Go, OpenSSL, signify, aics, scitt-cose, rfc3161-client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integrity"))

from seals import ORIGIN, SIGNER, Sealer, SeedSigner, make_trail, note_of, verified
from servers import free_port, get, stop, wait_until
from witnesses import answer_of, serving

from structlog_audit.integrity.anchors import Anchors, read_states, stored_proofs
from structlog_audit.integrity.cose import receipt
from structlog_audit.integrity.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at
from structlog_audit.integrity.notes import Proof, parse_note, sign_note
from structlog_audit.integrity.standalone.verify_trail import Policy, find_files
from structlog_audit.integrity.tiles import export_tiles

pytestmark = pytest.mark.system

GO = shutil.which("go")
GO_MODULES = Path("/usr/share/gocode")
SIGNIFY = shutil.which("signify-openbsd")
OPENSSL = shutil.which("openssl")
GUIDE = Path(__file__).parents[2] / "examples" / "guide" / "verify-without-us.md"


def run(*words, **options):
    """Return a finished command with its output as text; fail if its exit code is not *code*."""
    code = options.pop("code", 0)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def lines_of_trail(trail):
    """Return all lines of a trail, in the order of their leaves."""
    return [line for file in find_files(str(trail)) for line in Path(file.path).read_bytes().split(b"\n")[:-1]]


def encoded(hashes):
    return [base64.b64encode(digest).decode() for digest in hashes]


@pytest.fixture(scope="module")
def sealer(tmp_path_factory):
    """A sealed trail of 1,206 lines in three segments, so that the tree has two levels of tiles."""
    return make_trail(tmp_path_factory.mktemp("sealed"), segments=3, lines=402)


def proof_of(sealer, index, size=None):
    """Return the proof of one line for the newest checkpoint, or for an earlier size."""
    size = size or sealer.tree.size
    with sealer.hashes() as hashes:
        note = note_of(size, root_at(size, hashes.read))
        return Proof(index, tuple(inclusion_proof(index, size, hashes.read)), note)


# --- Go ----------------------------------------------------------------------------------------------------------------

GO_PROGRAM = r"""
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type input struct {
	Key, New, Old string
	Inclusion     [][]string
	Consistency   []string
	Wrong         int
}

func check(err error, what string) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what, err)
		os.Exit(1)
	}
}

func hashes(texts []string) (found []tlog.Hash) {
	for _, text := range texts {
		hash, err := tlog.ParseHash(text)
		check(err, "hash")
		found = append(found, hash)
	}
	return
}

func head(message string, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open([]byte(message), note.VerifierList(verifier))
	check(err, "note")
	lines := strings.Split(opened.Text, "\n")
	var size int64
	fmt.Sscan(lines[1], &size)
	root, err := tlog.ParseHash(lines[2])
	check(err, "root")
	return tlog.Tree{N: size, Hash: root}
}

func main() {
	data, err := os.ReadFile(os.Args[1])
	check(err, "input")
	var in input
	check(json.Unmarshal(data, &in), "json")
	lines, err := os.ReadFile(os.Args[2])
	check(err, "lines")
	stored, err := os.ReadFile(os.Args[3])
	check(err, "hashes.0")

	verifier, err := note.NewVerifier(in.Key)
	check(err, "key")
	newest, old := head(in.New, verifier), head(in.Old, verifier)

	var all []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (found []tlog.Hash, err error) {
		for _, index := range indexes {
			found = append(found, all[index])
		}
		return
	})
	records := bytes.Split(bytes.TrimSuffix(lines, []byte("\n")), []byte("\n"))
	for number, record := range records {
		leaf := tlog.RecordHash(record)
		if !bytes.Equal(leaf[:], stored[32*number:32*number+32]) {
			check(fmt.Errorf("leaf %d", number), "stored hashes")
		}
		added, err := tlog.StoredHashesForRecordHash(int64(number), leaf, reader)
		check(err, "tree")
		all = append(all, added...)
	}
	root, err := tlog.TreeHash(newest.N, reader)
	check(err, "tree hash")
	if int64(len(records)) != newest.N || root != newest.Hash {
		check(fmt.Errorf("%s", base64.StdEncoding.EncodeToString(root[:])), "another root")
	}

	for index, proof := range in.Inclusion {
		leaf := tlog.RecordHash(records[index])
		check(tlog.CheckRecord(hashes(proof), newest.N, newest.Hash, int64(index), leaf), "inclusion")
		leaf = tlog.RecordHash(append([]byte("x"), records[index]...))
		if tlog.CheckRecord(hashes(proof), newest.N, newest.Hash, int64(index), leaf) == nil {
			check(fmt.Errorf("line %d", index), "accepted a changed line:")
		}
	}
	check(tlog.CheckTree(hashes(in.Consistency), newest.N, newest.Hash, old.N, old.Hash), "consistency")
	if tlog.CheckTree(hashes(in.Consistency), newest.N, newest.Hash, old.N, newest.Hash) == nil {
		check(fmt.Errorf("root"), "accepted another")
	}
	fmt.Println(len(records), "lines verified by Go")
}
"""


def test_go_verifies_checkpoint_leaves_and_every_proof(sealer, tmp_path):
    """The library of Go's checksum database agrees on signature, 1,206 leaves and their proofs, root and consistency."""
    if GO is None or not (GO_MODULES / "src/golang.org/x/mod/sumdb").exists():
        pytest.skip("not installed: golang-go golang-golang-x-mod-dev")

    size = sealer.tree.size
    with sealer.hashes() as hashes:
        proofs = [encoded(inclusion_proof(index, size, hashes.read)) for index in range(size)]
        consistency = encoded(consistency_proof(777, size, hashes.read))
        old = str(note_of(777, root_at(777, hashes.read)))
    newest = (sealer.folder / "checkpoint").read_text()
    members = {"Key": str(SIGNER.key), "New": newest, "Old": old, "Inclusion": proofs, "Consistency": consistency}
    (tmp_path / "input.json").write_text(json.dumps(members))
    (tmp_path / "lines").write_bytes(b"".join(line + b"\n" for line in lines_of_trail(sealer.trail)))
    (tmp_path / "verify.go").write_text(GO_PROGRAM)

    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_MODULES), "GOCACHE": str(tmp_path / "cache")}
    arguments = ("input.json", "lines", str(sealer.folder / "hashes.0"))
    done = run(GO, "run", "verify.go", *arguments, cwd=tmp_path, env=environment)
    assert done.stdout == "1206 lines verified by Go\n"


def test_go_program_of_the_guide_verifies_a_trail(sealer, tmp_path):
    """The program on the guide's page for auditors accepts the lines of a trail, and no changed one."""
    if GO is None or not (GO_MODULES / "src/golang.org/x/mod/sumdb").exists():
        pytest.skip("not installed: golang-go golang-golang-x-mod-dev")

    (program,) = re.findall(r"```go\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "verify.go").write_text(program)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_MODULES), "GOCACHE": str(tmp_path / "cache")}
    run(GO, "build", "-o", "verify", "verify.go", cwd=tmp_path, env=environment)
    words = (str(tmp_path / "verify"), str(sealer.folder / "checkpoint"), str(SIGNER.key))

    lines = "".join(f"{line.decode()}\n" for line in lines_of_trail(sealer.trail))
    assert run(*words, input=lines).stdout == f"verified: 1206 lines of {ORIGIN}\n"
    assert "signed are 1206 lines" in run(*words, input=lines.replace("user_7", "user_8"), code=1).stderr
    run(*words[:-1], str(SeedSigner(bytes(32)).key), input=lines, code=1)


GO_TILES_PROGRAM = r"""
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A folder with the tiles of C2SP, whose paths lack the height that those of Go have.
type folder string

func (top folder) read(tile tlog.Tile, level string) ([]byte, error) {
	parts := strings.SplitN(tile.Path(), "/", 4)
	return os.ReadFile(filepath.Join(string(top), "tile", strings.Replace(parts[2], "data", level, 1), parts[3]))
}

func (top folder) Height() int { return 8 }

func (top folder) ReadTiles(tiles []tlog.Tile) (found [][]byte, err error) {
	for _, tile := range tiles {
		data, err := top.read(tile, "")
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (top folder) SaveTiles([]tlog.Tile, [][]byte) {}

func head(top folder, key string) tlog.Tree {
	verifier, err := note.NewVerifier(key)
	check(err)
	message, err := os.ReadFile(filepath.Join(string(top), "checkpoint"))
	check(err)
	opened, err := note.Open(message, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	var size int64
	fmt.Sscan(lines[1], &size)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

// Usage: verify VKEY LINES FOLDER [OLD-FOLDER]
func main() {
	top := folder(os.Args[3])
	tree := head(top, os.Args[1])
	reader := tlog.TileHashReader(tree, top)
	root, err := tlog.TreeHash(tree.N, reader)
	check(err)
	if root != tree.Hash {
		log.Fatal("another root")
	}

	var entries [][]byte
	for int64(len(entries)) < tree.N {
		tile := tlog.Tile{H: 8, L: -1, N: int64(len(entries)) / 256, W: 256}
		if left := tree.N - int64(len(entries)); left < 256 {
			tile.W = int(left)
		}
		data, err := top.read(tile, "entries")
		check(err)
		for len(data) > 0 {
			end := 2 + int(binary.BigEndian.Uint16(data))
			entries = append(entries, data[2:end])
			data = data[end:]
		}
	}
	lines, err := os.ReadFile(os.Args[2])
	check(err)
	if !bytes.Equal(bytes.Join(append(entries, nil), []byte("\n")), lines) {
		log.Fatal("other lines")
	}

	for index := int64(0); index < tree.N; index++ {
		// Every edge of a tile, and some lines between.
		if index%256 > 1 && index%256 < 255 && index%97 != 0 && index != tree.N-1 {
			continue
		}
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entries[index])))
	}
	if len(os.Args) > 4 {
		old := head(folder(os.Args[4]), os.Args[1])
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
	}
	fmt.Println(tree.N, "entries verified by Go")
}
"""


def test_go_reads_the_tiles_of_a_growing_trail(tmp_path):
    """From the files of an export alone, Go finds the root, all lines, proofs of them, and that the second one continues it."""
    if GO is None or not (GO_MODULES / "src/golang.org/x/mod/sumdb").exists():
        pytest.skip("not installed: golang-go golang-golang-x-mod-dev")

    (tmp_path / "verify.go").write_text(GO_TILES_PROGRAM)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_MODULES), "GOCACHE": str(tmp_path / "cache")}
    run(GO, "build", "-o", "verify", "verify.go", cwd=tmp_path, env=environment)
    words = (str(tmp_path / "verify"), str(SIGNER.key), str(tmp_path / "lines"), str(tmp_path / "tiles"))

    # The second tree has three levels of tiles.
    sealer = Sealer(tmp_path / "audit.jsonl")
    for number, count in enumerate((1_000, 70_000)):
        with sealer.trail.open("ab") as file:
            file.write(b"".join(b"line %d\n" % line for line in range(sealer.tree.size, count)))
        sealer.seal()
        export_tiles(sealer.trail, tmp_path / "tiles")
        (tmp_path / "lines").write_bytes(sealer.trail.read_bytes())
        old = [str(tmp_path / "old")] if number else []
        assert run(*words, *old).stdout == f"{count} entries verified by Go\n"
        shutil.copytree(tmp_path / "tiles", tmp_path / "old", dirs_exist_ok=True)

    tile = tmp_path / "tiles/tile/0/123"
    tile.write_bytes(tile.read_bytes()[::-1])
    assert "invalid transparency proof" in run(*words, code=1).stderr


# --- OpenSSL and signify -----------------------------------------------------------------------------------------------


def test_openssl_verifies_the_signature_of_a_checkpoint(sealer, tmp_path):
    """``openssl pkeyutl`` accepts the signature over the text of the note, and no other text."""
    note = parse_note((sealer.folder / "checkpoint").read_bytes())
    (tmp_path / "der").write_bytes(bytes.fromhex("302a300506032b6570032100") + SIGNER.key.public_key)
    (tmp_path / "text").write_text(note.text)
    (tmp_path / "signature").write_bytes(note.signatures[0].data)
    words = (
        OPENSSL,
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "der",
        "-keyform",
        "DER",
        "-rawin",
        "-sigfile",
        "signature",
    )
    run(*words, "-in", "text", cwd=tmp_path)
    (tmp_path / "other").write_text(note.text.replace("1206", "1207"))
    run(*words, "-in", "other", cwd=tmp_path, code=1)


def test_signify_verifies_the_signature_of_a_checkpoint(sealer, tmp_path):
    """OpenBSD's signify accepts the same 64 bytes in its own files, and no other text."""
    if SIGNIFY is None:
        pytest.skip("not installed: signify-openbsd")
    note = parse_note((sealer.folder / "checkpoint").read_bytes())
    number = hashlib.sha256(SIGNER.key.public_key).digest()[:8]
    for name, data in (("key.pub", SIGNER.key.public_key), ("text.sig", note.signatures[0].data)):
        content = base64.b64encode(b"Ed" + number + data).decode()
        (tmp_path / name).write_text(f"untrusted comment: of structlog-audit\n{content}\n")
    (tmp_path / "text").write_text(note.text)
    words = (SIGNIFY, "-V", "-p", "key.pub", "-x", "text.sig")
    assert run(*words, "-m", "text", cwd=tmp_path).stdout == "Signature Verified\n"
    (tmp_path / "other").write_text(note.text.replace("1206", "1207"))
    run(*words, "-m", "other", cwd=tmp_path, code=1)


# --- Time stamps -------------------------------------------------------------------------------------------------------

TSA_CONFIG = """
[tsa]
default_tsa = here
[here]
dir = .
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class Authority:
    """A time-stamping authority by ``openssl ts``, with a root certificate of its own."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "tsa.conf").write_text(TSA_CONFIG)
        (folder / "ext.conf").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA"
        )
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=TSA"
        )
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext.conf")
        self._openssl("x509", "-req", "-in", "tsa.csr", "-out", "tsa.pem", *signing)

    def _openssl(self, *words, **options):
        return run(OPENSSL, *words, cwd=self.folder, **options)

    def respond(self, connection, request):
        (self.folder / "query").write_bytes(request[1])
        words = (
            "-queryfile",
            "query",
            "-signer",
            "tsa.pem",
            "-inkey",
            "tsa.key",
            "-config",
            "tsa.conf",
            "-out",
            "reply",
        )
        self._openssl("ts", "-reply", *words)
        body = (self.folder / "reply").read_bytes()
        connection.sendall(answer_of(200, body, "Content-Type: application/timestamp-reply"))

    def verify(self, token, data, code=0):
        words = ("-in", str(token), "-data", str(data), "-CAfile", "ca.pem")
        return self._openssl("ts", "-verify", *words, code=code)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def stamp(sealer, authority):
    """Let the authority stamp the checkpoint of a trail; return the seal folder."""
    with serving(authority.respond) as url:
        anchors = Anchors.from_config({"timestamps": url}, str(sealer.folder))
        anchors.after_checkpoint((sealer.folder / "checkpoint").read_bytes(), stored_proofs(str(sealer.folder)))
        anchors.close(60)
    assert anchors.states()["time stamps"].error is None
    return sealer.folder


@pytest.fixture
def stamped(sealer, authority):
    """The folder of a trail whose checkpoint has a time stamp of the authority."""
    return stamp(sealer, authority)


def test_openssl_verifies_the_time_stamp_of_a_checkpoint(stamped, authority):
    """``openssl ts -verify`` accepts the stamp of the checkpoint, and not of another one."""
    assert (stamped / "stamped").read_text() == (stamped / "checkpoint").read_text()
    authority.verify(stamped / "stamped.tsr", stamped / "stamped")
    other = authority.folder / "other"
    other.write_text((stamped / "stamped").read_text().replace("1206", "1207"))
    authority.verify(stamped / "stamped.tsr", other, code=1)


def test_authority_that_sends_its_chain_can_be_used(sealer, authority):
    """Certificates in any order are accepted, as OpenSSL sends and verifies them."""
    with (authority.folder / "tsa.conf").open("a") as config:
        config.write("certs = ca.pem\n")
    folder = stamp(sealer, authority)
    authority.verify(folder / "stamped.tsr", folder / "stamped")


def test_rfc3161_client_verifies_the_time_stamp_of_a_checkpoint(stamped, authority):
    """The library of Sigstore accepts the stamp with the root certificate, and not of another checkpoint."""
    client = pytest.importorskip("rfc3161_client")
    from cryptography.x509 import load_pem_x509_certificate

    root = load_pem_x509_certificate((authority.folder / "ca.pem").read_bytes())
    verifier = client.VerifierBuilder().add_root_certificate(root).build()
    response = client.decode_timestamp_response((stamped / "stamped.tsr").read_bytes())
    note = (stamped / "stamped").read_bytes()
    assert verifier.verify_message(response, note)
    with pytest.raises(client.VerificationError):
        verifier.verify_message(response, note + b"x")


def test_stamp_of_another_request_is_not_kept(sealer, authority):
    """An authority that answers with an old stamp, of other data or of another request, does not get it accepted."""
    replies = []

    def repeat(connection, request):
        if not replies:
            authority.respond(connection, request)
            replies.append((authority.folder / "reply").read_bytes())
        else:
            connection.sendall(answer_of(200, replies[0]))

    with serving(repeat) as url:
        note = (sealer.folder / "checkpoint").read_bytes()
        for expected in (None, "a time stamp of something else"):
            anchors = Anchors.from_config({"timestamps": url}, str(authority.folder))
            anchors.after_checkpoint(note, stored_proofs(str(sealer.folder)))
            anchors.close(60)
            assert anchors.states()["time stamps"].error == expected


# --- aics-tlog and aics-witness ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aics(tmp_path_factory):
    """The folder of the programs of aics-tlog and aics-witness, which need Python 3.12."""
    versions = Path(os.environ.get("PYENV_ROOT", "/root/.pyenv")) / "versions"
    found = [*map(str, sorted(versions.glob("3.1[2-9]*/bin/python"))), shutil.which("python3.12")]
    python = next(filter(None, found), None)
    if python is None:
        pytest.skip("not installed: Python 3.12")

    folder = tmp_path_factory.mktemp("aics")
    run(python, "-m", "venv", str(folder))
    words = ("install", "-q", "--disable-pip-version-check", "aics-tlog==0.2.1", "aics-witness==0.1.0")
    installed = subprocess.run([folder / "bin" / "pip", *words], capture_output=True, timeout=300)
    if installed.returncode:
        pytest.skip("cannot be installed: aics-tlog aics-witness")
    return folder / "bin"


def test_aics_tlog_verifies_checkpoint_and_proofs(sealer, aics, tmp_path):
    """aics-tlog accepts checkpoint, inclusion and consistency, and refuses another key and another line."""
    tlog = str(aics / "aics-tlog")
    checkpoint = str(sealer.folder / "checkpoint")
    run(tlog, "verify-checkpoint", "--note", checkpoint, "--log-key", str(SIGNER.key), "--origin", ORIGIN)
    other = SeedSigner(bytes(32)).key
    assert subprocess.run([tlog, "verify-checkpoint", "--note", checkpoint, "--log-key", str(other)]).returncode != 0

    size = sealer.tree.size
    root = base64.b64encode(sealer.tree.root()).decode()
    lines = lines_of_trail(sealer.trail)
    proof, leaf = tmp_path / "proof", tmp_path / "leaf"
    for index in (0, 1, 255, 256, 511, 512, 1023, 1024, size - 1):
        proof.write_text("".join(f"{digest}\n" for digest in encoded(proof_of(sealer, index).hashes)))
        leaf.write_bytes(lines[index])
        words = (
            tlog,
            "verify-inclusion",
            "--leaf",
            str(leaf),
            "--index",
            str(index),
            "--size",
            str(size),
            "--root",
            root,
        )
        run(*words, "--proof", str(proof))
    leaf.write_bytes(lines[0])
    assert subprocess.run([*words, "--proof", str(proof)], capture_output=True).returncode != 0

    with sealer.hashes() as hashes:
        old_root = base64.b64encode(root_at(300, hashes.read)).decode()
        proof.write_text("".join(f"{digest}\n" for digest in encoded(consistency_proof(300, size, hashes.read))))
    sizes = ("--old-size", "300", "--new-size", str(size), "--old-root", old_root, "--new-root", root)
    run(tlog, "verify-consistency", *sizes, "--proof", str(proof))


def test_aics_tlog_accepts_either_key_of_a_rotation(sealer, aics, tmp_path):
    """A checkpoint with the signatures of a new and an old key verifies with each alone, and with no third one."""
    new, third = SeedSigner(bytes(32)), SeedSigner(bytes([9]) * 32)
    checkpoint = tmp_path / "checkpoint"
    text = parse_note((sealer.folder / "checkpoint").read_bytes()).text
    checkpoint.write_text(str(sign_note(text, [new, SIGNER])))
    words = (str(aics / "aics-tlog"), "verify-checkpoint", "--note", str(checkpoint), "--origin", ORIGIN, "--log-key")
    for signer in (new, SIGNER):
        run(*words, str(signer.key))
    assert subprocess.run([*words, str(third.key)], capture_output=True).returncode != 0


def test_tiles_of_aics_tlog_are_slices_of_the_stored_hashes(sealer, aics, tmp_path):
    """What aics-tlog builds from the lines as C2SP tiles are the bytes 8192·n of the files of hashes."""
    leaves = tmp_path / "lines"
    leaves.write_bytes(b"".join(line + b"\n" for line in lines_of_trail(sealer.trail)))
    out = tmp_path / "tiles"
    words = ("--out", str(out), "--size", "0", "--leaves", str(leaves), "--zero", "--no-fsync")
    run(str(aics / "aics-tlog"), "append-tiles", *words)
    stored = (sealer.folder / "hashes.0").read_bytes()
    for number in range(4):
        (tile,) = out.glob(f"**/tile/0/{number:03d}")
        assert tile.read_bytes() == stored[8192 * number : 8192 * (number + 1)]
    (tile,) = out.glob("**/tile/1/000.p/4")
    assert tile.read_bytes() == (sealer.folder / "hashes.1").read_bytes()


def test_aics_tlog_reads_the_tiles_of_an_export(sealer, aics, tmp_path):
    """aics-tlog verifies checkpoint, lines and consistency from the files alone, and hands out the very lines."""
    tlog = str(aics / "aics-tlog")
    folder = tmp_path / "tiles"
    export_tiles(sealer.trail, folder)
    words = ("--tiles", str(folder), "--log-key", str(SIGNER.key), "--origin", ORIGIN)
    run(tlog, "verify-checkpoint", *words)

    entry = tmp_path / "entry"
    lines = lines_of_trail(sealer.trail)
    for index in (0, 255, 256, 1023, 1024, len(lines) - 1):
        run(tlog, "verify-inclusion", *words, "--index", str(index), "--entry-out", str(entry))
        assert entry.read_bytes() == lines[index]

    with sealer.hashes() as hashes:
        (tmp_path / "old").write_text(str(note_of(300, root_at(300, hashes.read))))
    run(tlog, "verify-consistency", *words, "--old-checkpoint", str(tmp_path / "old"))


@pytest.fixture
def witness(aics, tmp_path):
    """A running aics-witness that knows the key of the trail: its configuration for this library."""
    program, config, port = str(aics / "aics-witness"), str(tmp_path / "witness.json"), free_port()
    listen = f"127.0.0.1:{port}"
    run(program, "init", "--config", config, "--name", "witness.example/w1", "--listen", listen)
    run(program, "add-log", "--config", config, "--origin", ORIGIN, "--vkey", str(SIGNER.key))
    status = run(program, "status", "--config", config).stdout
    key = next(word for word in status.split() if word.startswith("witness.example/w1+"))

    process = subprocess.Popen(
        [program, "serve", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: get(port, "/healthz"), process, "the witness")
        yield {"name": "w1", "key": key, "url": f"http://{listen}"}
    finally:
        stop(process)


def submit(sealer, witness, notices=None):
    """Let the witness have the newest checkpoint of a trail; return what is known of it then."""
    notify = None if notices is None else lambda operation, **metadata: notices.append(metadata)
    anchors = Anchors.from_config({"witnesses": [witness]}, str(sealer.folder), notify=notify)
    anchors.after_checkpoint((sealer.folder / "checkpoint").read_bytes(), stored_proofs(str(sealer.folder)))
    anchors.close(60)
    return anchors.states()["witness w1"]


def test_aics_witness_cosigns_and_its_quorum_verifies(aics, witness, tmp_path):
    """A growing trail is cosigned; this verifier and aics-tlog accept the cosigned checkpoint for a quorum of one."""
    (tmp_path / "trail").mkdir()
    sealer = make_trail(tmp_path / "trail")
    assert submit(sealer, witness).error is None
    with sealer.trail.open("ab") as file:
        file.write(b"a further line\n")
    sealer.seal()
    state = submit(sealer, witness)
    assert (state.error, state.size) == (None, sealer.tree.size)

    policy = f"log {SIGNER.key}\nwitness w1 {witness['key']}\nquorum w1\n"
    report = verified(sealer.trail, policy=Policy.parse(policy.encode()))
    assert (report.exit_code, report.anchored) == (0, sealer.tree.size)
    words = ("--note", str(sealer.folder / "cosigned"), "--log-key", str(SIGNER.key))
    quorum = ("--witness-key", witness["key"], "--quorum", "1", "--max-age", "600")
    run(str(aics / "aics-tlog"), "verify-checkpoint", *words, *quorum)


def test_aics_witness_refuses_roll_back_and_fork(aics, witness, tmp_path, capsys):
    """A trail that was rolled back or rewritten with the stolen key is refused, told and kept as evidence."""
    for name, lines in (("trail", 40), ("shorter", 20), ("longer", 60)):
        (tmp_path / name).mkdir()
        sealer = make_trail(tmp_path / name, segments=1, lines=lines, step=0.25 if name == "trail" else 0.5)
        notices = []
        state = submit(sealer, witness, notices)
        if name == "trail":
            assert (state.size, notices) == (40, [])
        else:
            code = "ROLLED_BACK" if name == "shorter" else "FORKED"
            assert (state.refused, notices[0]["code"], notices[0]["known_size"]) == (code, code, 40)
            assert f"structlog-audit: {code}: witness w1" in capsys.readouterr().err
            assert read_states(str(sealer.folder))["witness w1"].refused == code
            assert not (sealer.folder / "cosigned").exists()

    evidence = run(str(aics / "aics-witness"), "evidence", "--config", str(tmp_path / "witness.json")).stdout
    assert ORIGIN in evidence


# --- COSE --------------------------------------------------------------------------------------------------------------


def test_scitt_cose_accepts_the_receipt_of_a_line_and_of_no_other(sealer):
    """scitt-cose verifies receipts of RFC 9942 with the public key as PEM, and reads issuer, subject and place."""
    scitt = pytest.importorskip("scitt_cose")
    lines = lines_of_trail(sealer.trail)
    der = bytes.fromhex("302a300506032b6570032100") + SIGNER.key.public_key
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
    for index in (0, 255, 256, 1205):
        data = receipt(proof_of(sealer, index), SIGNER, subject=f"evt_{index}")
        result = scitt.verify_receipt(data, leaf_entry_hex=lines[index].hex(), log_public_key_pem=pem)
        assert (result.ok, result.errors) == (True, [])
        assert (result.leaf_index, result.tree_size, result.root) == (index, 1206, sealer.tree.root().hex())
        assert (result.issuer, result.subject) == (ORIGIN, f"evt_{index}")
        assert not scitt.verify_receipt(data, leaf_entry_hex=lines[index - 1].hex(), log_public_key_pem=pem).ok


def test_receipt_has_the_same_members_as_that_of_scitt_cose():
    """For the same tree, key and claims, both receipts have the same members; the bytes are those of cbor2."""
    scitt = pytest.importorskip("scitt_cose")
    import cbor2
    from cryptography.hazmat.primitives import serialization

    lines = [b"line %d" % number for number in range(7)]
    entries = [line.hex() for line in lines]
    stored = b"".join(map(leaf_hash, lines))
    hashes = tuple(inclusion_proof(3, 7, lambda level, start, count: stored[32 * start : 32 * (start + count)]))
    root = root_at(7, lambda level, start, count: stored[32 * start : 32 * (start + count)])
    ours = receipt(Proof(3, hashes, note_of(7, root)), SIGNER, subject="evt_1")

    forms = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    options = {"iss": ORIGIN, "sub": "evt_1", "kid": SIGNER.key.key_id, "alg": "EdDSA"}
    theirs = scitt.build_receipt(
        leaf_entry_hex=entries[3],
        leaf_index=3,
        tree_entries_hex=entries,
        log_private_key_pem=SIGNER._private.private_bytes(*forms),
        **options,
    )

    def members(data):
        protected, unprotected, payload, signature = cbor2.loads(data).value
        return cbor2.loads(protected), unprotected, payload, len(signature), len(data)

    assert members(ours) == members(theirs)
    assert cbor2.dumps(cbor2.loads(ours), canonical=True) == ours
