"""Tests of `structlog_audit.integrity.signing`: key files and signing commands."""

import os
import stat
import subprocess
import sys

import pytest
from seals import ORIGIN, SIGNER

from structlog_audit import AuditSealError, AuditValueError
from structlog_audit.integrity import signing
from structlog_audit.integrity.notes import COSIGNATURE, sign_note
from structlog_audit.integrity.signing import KeyCommand, KeyFile, generate_key


def test_generated_key_is_for_its_owner_only_and_signs(tmp_path):
    """A new key file has mode 0600, whatever the umask, and signs for the public half that was returned."""
    path = str(tmp_path / "audit.pem")
    before = os.umask(0)
    try:
        key = generate_key(path, ORIGIN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    signer = KeyFile(path, ORIGIN)
    assert signer.key == key
    assert signer.is_private
    assert sign_note("text\n", [signer]).signers([key]) == [key]


def test_existing_key_is_never_replaced(tmp_path):
    """An existing file stays, and the error names it."""
    path = tmp_path / "audit.pem"
    path.write_bytes(b"precious")
    with pytest.raises(AuditSealError, match=r"audit\.pem' exists: a key is never replaced"):
        generate_key(str(path), ORIGIN)
    assert path.read_bytes() == b"precious"


def test_key_in_a_folder_that_does_not_exist_is_an_error(tmp_path):
    """The error names the file and the reason."""
    with pytest.raises(AuditSealError, match="cannot be written: No such file"):
        generate_key(str(tmp_path / "none" / "audit.pem"), ORIGIN)


def test_key_that_others_can_read_is_noticed(tmp_path):
    """A key file with permissions for others is not private."""
    path = str(tmp_path / "audit.pem")
    generate_key(path, ORIGIN)
    os.chmod(path, 0o640)
    assert not KeyFile(path, ORIGIN).is_private


def test_key_of_openssl_signs(tmp_path):
    """A key of ``openssl genpkey`` is a key file, also for cosignatures."""
    path = str(tmp_path / "audit.pem")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    signer = KeyFile(path, "witness.example/w", kind=COSIGNATURE)
    assert signer.key.kind == COSIGNATURE
    assert len(signer.sign(b"text")) == 64


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-algorithm", "rsa"], "expected an Ed25519 key, got a RSA|expected an Ed25519 key"),
        (["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"], "is encrypted"),
    ],
)
def test_other_keys_are_refused_with_the_reason(tmp_path, arguments, reason):
    """A key of another algorithm, or with a password, is refused."""
    path = str(tmp_path / "audit.pem")
    subprocess.run(["openssl", "genpkey", *arguments, "-out", path], check=True, capture_output=True)
    with pytest.raises(AuditSealError, match=reason):
        KeyFile(path, ORIGIN)


@pytest.mark.parametrize("content", [b"", b"not a key", bytes(100_000)])
def test_files_that_are_not_keys_are_refused(tmp_path, content):
    """The error states what was expected, and nothing of the content."""
    path = tmp_path / "audit.pem"
    path.write_bytes(content)
    with pytest.raises(AuditSealError, match="expected a private key as PKCS#8 PEM") as caught:
        KeyFile(str(path), ORIGIN)
    assert "not a key" not in str(caught.value)


def test_missing_key_file_is_an_error(tmp_path):
    """The error names the file."""
    with pytest.raises(AuditSealError, match="cannot be read: No such file"):
        KeyFile(str(tmp_path / "none.pem"), ORIGIN)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_names_that_keys_cannot_have_are_refused(tmp_path, name):
    """A name with spaces, plus or control characters is refused before a key is made."""
    with pytest.raises(AuditValueError, match="expected a name without spaces and plus"):
        generate_key(str(tmp_path / "audit.pem"), name)
    assert not list(tmp_path.iterdir())


def test_command_signs_what_it_gets_on_standard_input(tmp_path):
    """A command that signs with openssl, as with a key service, makes the same signature as the file."""
    path = str(tmp_path / "audit.pem")
    key = generate_key(path, ORIGIN)
    script = f'cat > "{tmp_path}/in"; openssl pkeyutl -sign -inkey "{path}" -rawin -in "{tmp_path}/in"'
    signer = KeyCommand(["sh", "-c", script], key)
    assert signer.sign(b"text\n") == KeyFile(path, ORIGIN).sign(b"text\n")
    assert sign_note("text\n", [signer]).signers([key]) == [key]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/none/such"], "cannot be run: No such file"),
        (["sh", "-c", "echo locked >&2; exit 3"], "failed with status 3: locked"),
        (["sh", "-c", "printf abc"], "expected 64 bytes from it, got 3"),
        (["head", "-c", "64", "/dev/zero"], "signed with another key"),
    ],
)
def test_command_that_does_not_sign_is_an_error(command, reason):
    """A command that fails, or answers anything but a right signature, raises an error that names it."""
    with pytest.raises(AuditSealError, match=reason):
        KeyCommand(command, SIGNER.key).sign(b"text\n")


def test_command_that_hangs_is_ended(monkeypatch):
    """A command that takes too long is ended."""
    monkeypatch.setattr(signing, "COMMAND_SECONDS", 0.01)
    with pytest.raises(AuditSealError, match="took more than"):
        KeyCommand(["tail", "-f", "/dev/null"], SIGNER.key).sign(b"")


def test_missing_package_is_named(monkeypatch, tmp_path):
    """Without ``cryptography`` the error names the extra."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(AuditSealError, match=r"pip install 'structlog-audit\[signing\]'"):
        generate_key(str(tmp_path / "audit.pem"), ORIGIN)
