"""Tests of `structlog_audit.redaction.vault`: real files, real processes, and faults of both."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import uuid

import pytest
from children import without_coverage
from hypothesis import given
from hypothesis import strategies as st

import structlog_audit.redaction.vault as vault_module
from structlog_audit import AuditError, AuditTypeError, AuditValueError, AuditVaultError, SubjectVault
from structlog_audit.redaction.erasable import TOKEN, Subject, token_of
from structlog_audit.redaction.vault import CHECK_SECONDS, _Keys

IDENTITY = "C4nary-person@example.org"


class Clock:
    """A clock and a timer that stand still unless a test moves them."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def __call__(self):
        return self.now

    def call_later(self, seconds, function):
        self.calls.append(function)

    def fire(self):
        calls, self.calls = self.calls, []
        for function in calls:
            function()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.vault"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def vault(path, clock):
    vault = SubjectVault(path, create=True, clock=clock, call_later=clock.call_later)
    yield vault
    vault.close()


@pytest.fixture
def impatient(monkeypatch):
    """No use waits for a lock."""
    monkeypatch.setattr(vault_module, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(vault_module, "_PATIENT_SECONDS", 0.01)


def keys_in(path):
    """Return identity, token and key of every subject in the file."""
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT identity, token, key FROM subjects").fetchall()
    database.close()
    return rows


def bytes_in(folder):
    """Return the bytes of all files in *folder*, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def run_child(code, *arguments, **options):
    """Run *code* in another Python process, and return it when it has ended."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=without_coverage(), check=False, **options)


# --- keys and tokens ---------------------------------------------------------------------------------------------------


def test_token_is_the_commitment_of_the_specification():
    """The token is ``s_`` and the base64url of the first 24 bytes of SHA-256 over the context and the key."""
    key = bytes(range(32))
    digest = hashlib.sha256(b"structlog-audit subject\x00" + key).digest()
    assert token_of(key) == "s_" + base64.urlsafe_b64encode(digest[:24]).decode()
    assert token_of(key) == "s_YHT5qQhxhRzxTTlIcm8dUtvqXp8cWA79"


def test_subject_keeps_its_token_across_connections(vault, path):
    """The same identity has the same token in every process; its key is 256 random bits."""
    token = vault.subject(IDENTITY).token
    assert TOKEN.fullmatch(token)
    assert SubjectVault(path).subject(IDENTITY).token == token
    ((identity, stored_token, key),) = keys_in(path)
    assert (identity, stored_token, len(key)) == (IDENTITY.encode(), token, 32)
    assert vault.subject("another").token != token


@given(st.text(min_size=1, max_size=50))
def test_any_text_can_be_an_identity(text):
    """Identities with NUL, lone surrogates or quotes are distinct subjects."""
    vault = shared_vault()
    assert vault.token(text) in (None, vault.subject(text).token)
    assert vault.token(text) == vault.subject(text).token


@pytest.mark.parametrize("identity", [42, uuid.UUID(int=42)])
def test_identity_is_compared_as_text(vault, identity):
    """A number and its text are one subject, as in a filter."""
    token = vault.subject(str(identity)).token
    assert vault.token(identity) == token


@pytest.mark.parametrize("identity", [None, "", True, 1.5, ["a"], object()])
def test_value_that_is_not_an_identity_is_refused(vault, identity):
    """Nothing is erased for a value that cannot be an identity."""
    with pytest.raises(AuditTypeError, match="subject: expected an identity"):
        vault.erase(identity)


def test_query_for_a_token_makes_no_key(vault, path):
    """Only recording adds a subject."""
    assert vault.token(IDENTITY) is None
    assert vault.known_subject("s_" + "A" * 32) is None
    assert keys_in(path) == []


# --- erasable values ---------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "é", ""]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(PLAIN, st.text())
def test_value_comes_back_with_its_key_and_field(value, field):
    """What is encrypted is decrypted to the same JSON value, and no two texts are equal."""
    subject = Subject(b"k" * 32)
    text = subject.encrypt(field, value)
    assert subject.decrypt(field, text) == value
    assert subject.encrypt(field, value) != text


@given(st.data())
def test_changed_or_moved_value_is_refused(data):
    """A text with any changed character, of another field or of another subject is not decrypted."""
    subject = Subject(b"k" * 32)
    text = subject.encrypt("email", "a@example.org")
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    changed = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    for other, field, its_text in (
        (subject, "email", changed), (subject, "phone", text), (Subject(b"l" * 32), "email", text),
        (subject, "email", ""), (subject, "email", "%"), (subject, "email", "é"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r".") as raised:
            other.decrypt(field, its_text)
        assert "example.org" not in str(raised.value)


def test_value_has_the_format_of_the_specification():
    """A value is nonce, ciphertext and tag of AES-256-GCM, with the token, a NUL and the field as associated data."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = bytes(range(32))
    text = Subject(key).encrypt("email", {"a": 1})
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    associated = token_of(key).encode() + b"\0email"
    assert AESGCM(key).decrypt(raw[:12], raw[12:], associated) == b'{"a":1}'


# --- erasure -----------------------------------------------------------------------------------------------------------


def test_erasure_leaves_no_byte_of_key_or_identity_in_any_file(vault, path, tmp_path):
    """Neither the file with its free pages, nor log and index of SQLite contain them, though other connections are open."""
    other = SubjectVault(path)
    for number in range(300):
        vault.subject(f"person-{number}" * 3)
    token = vault.subject(IDENTITY).token
    assert other.subject(IDENTITY).token == token
    for number in range(300):
        other.subject(f"more-{number}" * 3)

    rows = {row[0]: row for row in keys_in(path)}
    identity, _, key = rows[IDENTITY.encode()]
    assert any(key in data for data in bytes_in(tmp_path).values())

    assert vault.erase(IDENTITY) == token
    files = bytes_in(tmp_path)
    assert {"audit.vault", "audit.vault-wal"} <= files.keys()
    for name, data in files.items():
        assert data.count(key) == data.count(identity) == 0, name
    assert len(keys_in(path)) == 600
    other.close()


def test_erasure_leaves_no_free_pages(vault, path):
    """The file is rebuilt without the space of deleted rows, where a copy of its pages could keep them."""
    for number in range(200):
        vault.subject(f"person-{number}" * 20)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM subjects WHERE identity < ?", (b"person-2",))
    database.close()
    vault.erase(IDENTITY)
    with vault._database(1) as database:
        assert database.execute("PRAGMA freelist_count").fetchall() == [(0,)]


def test_erased_subject_gets_another_key_later(vault):
    """The token of an erased person follows from nothing: the same identity has another one afterwards."""
    token = vault.subject(IDENTITY).token
    vault.erase(IDENTITY)
    assert vault.known_subject(token) is None
    assert vault.token(IDENTITY) is None
    assert vault.subject(IDENTITY).token != token


def test_restored_subject_is_erased_by_its_token(vault, path, tmp_path):
    """After a restore only the tokens of erased subjects are known: they erase the subjects again."""
    token = vault.subject(IDENTITY).token
    vault.subject("another")
    vault.erase("unknown")
    copy = path.read_bytes()
    vault.erase(IDENTITY)
    vault.close()
    path.write_bytes(copy)
    assert vault.token(IDENTITY) == token
    assert vault.erase(token) == token
    assert [row[0] for row in keys_in(path)] == [b"another"]


def test_second_erasure_changes_nothing(vault):
    """Erasing an unknown subject is no error, and returns None."""
    vault.subject(IDENTITY)
    assert vault.erase(IDENTITY) is not None
    assert vault.erase(IDENTITY) is None
    assert vault.erase("never seen") is None


def test_erasure_is_unrecorded_until_it_is_confirmed(vault, path):
    """The token of an erased subject remains for the record, also in another process, and the identity does not."""
    token = vault.subject(IDENTITY).token
    vault.erase(IDENTITY)
    other = SubjectVault(path)
    assert other.unrecorded() == [token]
    other.confirm_recorded(token)
    assert vault.unrecorded() == []
    other.close()


def test_erasure_that_a_reader_blocks_is_an_error_and_completes_later(vault, path, tmp_path, impatient):
    """While a process reads an earlier state, the log keeps the key: the error says so, and a repetition removes it."""
    vault.subject(IDENTITY)
    key = keys_in(path)[0][2]
    vault.subject("another")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM subjects").fetchall()

    with pytest.raises(AuditVaultError, match="erase the subject again"):
        vault.erase(IDENTITY)
    assert vault.token(IDENTITY) is None
    reader.execute("COMMIT")
    reader.close()
    assert vault.erase(IDENTITY) is None
    assert not any(key in data or IDENTITY.encode() in data for data in bytes_in(tmp_path).values())
    assert len(vault.unrecorded()) == 1


# --- keys in memory ----------------------------------------------------------------------------------------------------


def test_erased_key_is_used_for_at_most_the_stated_time(vault, path, clock):
    """Until the next check a process uses the key in memory; from then on the subject has another one."""
    token = vault.subject(IDENTITY).token
    other = SubjectVault(path)
    other.erase(IDENTITY)
    other.close()

    clock.now += CHECK_SECONDS / 2
    assert vault.subject(IDENTITY).token == token
    clock.now += CHECK_SECONDS / 2
    assert vault.subject(IDENTITY).token != token


def test_own_erasure_forgets_the_key_at_once(vault):
    """The process that erases does not use the key again."""
    vault.subject(IDENTITY)
    vault.erase(IDENTITY)
    assert len(vault._keys) == 0


def test_idle_process_forgets_all_keys_after_two_intervals(vault, clock):
    """The timer runs while keys are used, and the first interval without use forgets them and ends it."""
    vault.subject(IDENTITY)
    clock.fire()
    assert len(vault._keys) == 1
    vault.subject(IDENTITY)
    clock.fire()
    clock.fire()
    assert len(vault._keys) == 0
    assert clock.calls == []
    vault.subject(IDENTITY)
    assert len(clock.calls) == 1


@given(st.integers(2, 9), st.lists(st.integers(0, 12)))
def test_keys_in_memory_are_bounded_and_the_most_recent_stay(most, names):
    """At most the limit is kept, and the most recently used half is never forgotten."""
    keys = _Keys(most)
    recent = []
    for name in map(str, names):
        if keys.get(name) is None:
            keys.put(name, Subject(b"k" * 32))
        recent = [other for other in recent if other != name] + [name]
        assert len(keys) <= most + 1
        assert all(keys._young.get(other) or keys._old.get(other) for other in recent[-(most // 2) :])


# --- processes ---------------------------------------------------------------------------------------------------------


def test_connection_is_not_carried_over_a_fork(vault, path):
    """A child has no connection of its parent; both add subjects, and the file stays whole."""
    vault.subject("before")
    child = os.fork()
    if child == 0:  # in a forked child
        is_clean = vault._connection is None and len(vault._keys) == 0 and not vault_module._abandoned
        os._exit(0 if is_clean and vault.subject("child").token else 1)
    vault.subject("parent")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert {row[0] for row in keys_in(path)} == {b"before", b"child", b"parent"}
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_fork_within_a_use_leaves_the_connection_to_the_parent(vault):
    """A child that is forked while the connection is in use abandons it unclosed, and opens its own."""
    with vault._database(1) as database:
        child = os.fork()
        if child == 0:  # in a forked child
            is_abandoned = vault_module._abandoned == [database]
            os._exit(0 if is_abandoned and vault.subject("child").token else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert vault.token("child")


CREATE = """
    import sys
    from structlog_audit import SubjectVault
    sys.stdin.readline()
    vault = SubjectVault(sys.argv[1], create=True)
    print(*(vault.subject(f"person-{number}").token for number in range(20)))
"""


def test_processes_that_start_together_agree_on_file_and_keys(path):
    """Any number of processes may create the vault and the same subjects at once."""
    command = [sys.executable, "-c", textwrap.dedent(CREATE), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": without_coverage()}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    printed = {child.communicate()[0] for child in children}
    assert [child.returncode for child in children] == [0] * 4
    assert len(printed) == 1
    assert len(keys_in(path)) == 20
    assert sorted(file for file in os.listdir(path.parent) if not file.endswith(("-wal", "-shm"))) == ["audit.vault"]


KILLED_BETWEEN = """
    import os, signal, sys
    from structlog_audit import AuditHandler, Redactor, SubjectVault

    class Killed(SubjectVault):
        def subject(self, identity):
            found = super().subject(identity)
            if identity == "last":
                os.kill(os.getpid(), signal.SIGKILL)
            return found

    vault = Killed(sys.argv[1], create=True)
    redactor = Redactor(keys={"email": "erasable"}, paths={"user_id": "subject"}, vault=vault)
    handler = AuditHandler(redactor=redactor, filename=sys.argv[2])
    for user in ("first", "last"):
        handler.record_fields({"operation": "STORE", "user_id": user, "email": "a@example.org"}, 20, "audit")
"""


def test_kill_between_key_and_line_leaves_a_key_without_line(path, tmp_path):
    """The key comes first: a killed process may leave a key that nothing uses, never a line without its key."""
    trail = tmp_path / "audit.jsonl"
    done = run_child(KILLED_BETWEEN, path, trail)
    assert done.returncode == -signal.SIGKILL, done.stderr
    vault = SubjectVault(path)
    users = [json.loads(line).get("user_id") for line in trail.read_text().splitlines()]
    assert users == [None, vault.token("first")]
    assert vault.token("last")
    vault.close()


KILLED_ANY_TIME = """
    import sys
    from structlog_audit import AuditHandler, Redactor
    redactor = Redactor(paths={"user_id": "subject"}, vault=sys.argv[1])
    handler = AuditHandler(redactor=redactor, filename=sys.argv[2])
    for number in range(100_000):
        handler.record_fields({"operation": "STORE", "user_id": f"{sys.argv[3]}-{number}"}, 20, "audit")
        print(number, flush=True)
"""


def test_every_token_in_a_trail_has_its_key_after_kills(path, tmp_path):
    """Processes that are killed while they record leave no line whose token the vault does not know."""
    trail = tmp_path / "audit.jsonl"
    for life in range(4):
        command = [sys.executable, "-c", textwrap.dedent(KILLED_ANY_TIME), str(path), str(trail), str(life)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=without_coverage())
        for _ in range(5 + 7 * life):
            child.stdout.readline()
        child.kill()
        child.communicate()

    vault = SubjectVault(path)
    lines = trail.read_bytes().splitlines()
    tokens = {json.loads(line).get("user_id") for line in lines if line.endswith(b"}")} - {None}
    assert len(tokens) >= 5 + 12 + 19 + 26
    assert all(vault.known_subject(token) for token in tokens)
    vault.close()


def test_commits_are_synchronous_and_deletions_overwrite(vault):
    """The connection has the settings that the guarantees need."""
    with vault._database(1) as database:
        settings = {name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in
                    ("journal_mode", "synchronous", "secure_delete", "temp_store")}  # fmt: skip
    assert settings == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "temp_store": 2}


# --- faults at the start -----------------------------------------------------------------------------------------------


def test_files_are_private_and_missing_folders_are_created(tmp_path):
    """The vault and the files beside it have mode 0600, whatever the umask; a new folder has 0700."""
    before = os.umask(0)
    try:
        vault = SubjectVault(tmp_path / "new" / "audit.vault", create=True)
        vault.subject(IDENTITY)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()}
    assert modes == dict.fromkeys(("audit.vault", "audit.vault-wal", "audit.vault-shm"), 0o600)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    vault.close()


def other_database(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (a)")
    database.close()


def truncated_vault(path):
    SubjectVault(path, create=True).close()
    os.truncate(path, 5_000)


def read_only_vault(path):
    # SQLite writes to no file of a version that it does not know. The mode would not stop root.
    SubjectVault(path, create=True).close()
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\3\3")


BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "expected a vault, got another file"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "expected a vault, got another file"),
    "other database": (other_database, "expected a vault, got another file"),
    "truncated": (truncated_vault, "restore the file from a copy"),
    "newer": (read_only_vault, "name another path|let this user write"),
    "folder": (lambda path: path.mkdir(), "expected a file"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_is_refused_with_path_and_remedy(path, kind):
    """A file that cannot be a vault is an error at the start, which names it and says what to do."""
    make, message = BAD_FILES[kind]
    make(path)
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(AuditVaultError, match=message) as raised:
        SubjectVault(path, create=True)
    assert repr(str(path)) in str(raised.value)


def test_vault_that_others_may_read_is_refused(vault, path):
    """The message names the mode and the command that corrects it."""
    vault.close()
    path.chmod(0o640)
    with pytest.raises(AuditVaultError, match=rf"expected mode 0600, got 0640: chmod 600 {path}"):
        SubjectVault(path)


def test_missing_vault_is_an_error_for_a_reader(path):
    """Only a redactor creates a vault."""
    with pytest.raises(AuditVaultError, match="expected an existing vault, got no file"):
        SubjectVault(path)
    assert not path.exists()


def test_locked_vault_is_refused_at_the_start(vault, path, impatient):
    """A writer that never ends is an error, not a wait without bound."""
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuditVaultError, match="database is locked: end the process that locks it"):
        SubjectVault(path, create=True)
    locking.close()


FULL = """
    import resource, signal, sys
    from structlog_audit import AuditVaultError, SubjectVault
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        SubjectVault(sys.argv[1], create=True)
    except AuditVaultError as error:
        print(error)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_full_disk_is_refused_at_the_start(path, exists):
    """No vault is created in part, and an existing one is tried with a commit."""
    if exists:
        SubjectVault(path, create=True).close()
    done = run_child(FULL, path, 100)
    assert "free disk space" in done.stdout, done.stderr
    leftover = ["audit.vault"] if exists else []
    assert [file for file in os.listdir(path.parent) if not file.endswith(("-wal", "-shm"))] == leftover


@pytest.mark.parametrize("value", [5, ["a"]])
def test_path_of_a_wrong_type_is_refused(value):
    """The error names the parameter."""
    with pytest.raises(AuditTypeError, match="vault="):
        SubjectVault(value)


def test_size_of_the_memory_is_checked(path):
    """The limit is an integer of at least 2."""
    with pytest.raises(AuditValueError, match="max_keys=1"):
        SubjectVault(path, max_keys=1)


def test_missing_package_is_named_with_its_extra(path):
    """Without cryptography, the error at the start says what to install."""
    code = """
        import sys
        sys.modules["cryptography"] = None
        from structlog_audit import SubjectVault
        SubjectVault(sys.argv[1], create=True)
    """
    done = run_child(code, path)
    assert "pip install 'structlog-audit[signing]'" in done.stderr.splitlines()[-1]
    assert not path.exists()


# --- faults in use -----------------------------------------------------------------------------------------------------


def test_removed_vault_is_not_used_any_more(vault, path, clock, capsys):
    """Keys in a removed file would be lost: the vault fails, says so once, and works again with the file."""
    vault.subject(IDENTITY)
    moved = path.rename(path.with_suffix(".moved"))
    clock.now += CHECK_SECONDS
    for _ in range(3):
        with pytest.raises(AuditVaultError, match="got no file"):
            vault.subject(IDENTITY)
    assert capsys.readouterr().err.count("erasable values are masked") == 1

    moved.rename(path)
    clock.now += CHECK_SECONDS
    assert vault.subject(IDENTITY).token == vault.token(IDENTITY)


def test_replaced_vault_is_opened_again(vault, path, clock, tmp_path):
    """The keys are those of the file that has the path now."""
    token = vault.subject(IDENTITY).token
    other = SubjectVault(tmp_path / "other.vault", create=True)
    other_token = other.subject(IDENTITY).token
    other.close()
    os.rename(tmp_path / "other.vault", path)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"audit.vault{suffix}").unlink(missing_ok=True)

    assert vault.token(IDENTITY) == other_token != token


def test_locked_vault_serves_known_subjects(vault, path, impatient, clock, capsys):
    """A lock stops new subjects only, is waited for once in a second, and ends by itself."""
    known = vault.subject("known")
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    clock.now += CHECK_SECONDS
    assert vault.subject("known").token == known.token
    with pytest.raises(AuditVaultError, match="database is locked"):
        vault.subject("new")
    with pytest.raises(AuditVaultError, match="no subject could be added within the last second"):
        vault.subject("new")
    assert capsys.readouterr().err.count("takes no new subject") == 1

    locking.close()
    clock.now += CHECK_SECONDS
    assert vault.subject("new").token == vault.token("new")


def test_damaged_key_is_never_used(vault, path, clock):
    """A key that does not belong to its token is an error: values would be lost with it."""
    vault.subject(IDENTITY)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE subjects SET key = ?", (b"x" * 32,))
    database.close()
    vault.close()
    with pytest.raises(AuditVaultError, match="a key is damaged"):
        vault.subject(IDENTITY)


def test_signal_handler_that_interrupts_a_use_gets_an_error(vault):
    """A signal handler never enters the transaction that it interrupts, and never waits for its own thread."""
    vault.subject("known")
    with vault._database(1):
        assert vault.subject("known")
        with pytest.raises(AuditVaultError, match="a signal handler interrupted its use"):
            vault.subject("new")
    assert vault.subject("new")


def test_check_is_put_off_while_the_connection_is_in_use(vault, clock):
    """Known subjects do not wait for a thread that waits for the file, but after its longest wait the check must be made."""
    known = vault.subject("known").token
    clock.now += CHECK_SECONDS
    with vault._database(1):
        assert vault.subject("known").token == known
        clock.now += vault_module._WAIT_SECONDS
        with pytest.raises(AuditVaultError, match="a signal handler interrupted its use"):
            vault.subject("known")


def test_interrupted_use_leaves_no_transaction(vault, path):
    """After a KeyboardInterrupt in a transaction, the next use begins with a new connection."""

    def interrupted():
        with vault._database(1) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO unrecorded VALUES ('x')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert vault.unrecorded() == []
    assert vault.subject(IDENTITY)


def test_no_text_shows_a_key(vault, path):
    """Neither texts of the objects nor errors contain a key, in any usual form, or an identity."""
    subject = vault.subject(IDENTITY)
    key = keys_in(path)[0][2]
    texts = [repr(vault), repr(subject), str(subject), repr(vault._keys)]
    with sqlite3.connect(path) as database:
        database.execute("UPDATE subjects SET token = 'x'")
    database.close()
    vault.close()
    with pytest.raises(AuditError) as raised:
        vault.subject(IDENTITY)
    texts += [str(raised.value), repr(raised.value), repr(raised.value.__cause__)]
    forms = (IDENTITY, key.hex(), str(key), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode())
    assert not [form for form in forms for text in texts if form in text]


_shared = []


def shared_vault():
    """Return one vault for all examples of a property."""
    if not _shared:
        import tempfile

        folder = tempfile.TemporaryDirectory()
        _shared.append((folder, SubjectVault(os.path.join(folder.name, "audit.vault"), create=True)))
    return _shared[0][1]
