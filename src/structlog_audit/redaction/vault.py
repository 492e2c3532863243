"""`SubjectVault`: the keys of the persons in a trail, in a SQLite file that any number of processes share.

**Guarantees.** A key is on the disk before the event with its token is written. `erase` leaves no key and no identity in any
file. Other processes use an erased key for at most `CHECK_SECONDS` (and `_WAIT_SECONDS` while one of their threads waits for
the file), and idle ones forget it within two intervals; values that they encrypt meanwhile cannot be read either. No text or
error contains a key or an identity.

**Failure handling.** Opening a file that is not a vault, or is locked, full, not writable or open to others, raises an error.
Later failures raise one for each value, which the redactor masks and counts; after a failure the file is left alone for a
second.

**Concurrency.** One thread at a time uses the connection; the keys in memory need no lock. The connection is closed before a
fork. A signal handler that interrupts the use of the connection gets an error for new subjects.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import CallLater, call_later, try_call_later
from structlog_audit._validation import require_integer, require_path
from structlog_audit.events.json_safe import identifier_text
from structlog_audit.exceptions import AuditTypeError, AuditVaultError
from structlog_audit.query.filters import Conditions
from structlog_audit.redaction.erasable import KEY_BYTES, Event, Revealer, Subject, require_cipher, token_of

if TYPE_CHECKING:
    import sqlite3

CHECK_SECONDS: Final = 1.0
"""The longest time for which keys in memory are used without a check for erasures by other processes."""

_WAIT_SECONDS = 2.0
"""The longest time that an event of a new subject waits for another writer. An erasure among a million takes 1.5 s."""

_PATIENT_SECONDS = 10.0
"""The same for opening and erasing, which no event waits for."""

_APPLICATION_ID = 0x53415654
"""Marks a SQLite file as a vault: "SAVT"."""

_SCHEMA = (
    "CREATE TABLE subjects (identity BLOB PRIMARY KEY, token TEXT NOT NULL UNIQUE, key BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE unrecorded (token TEXT PRIMARY KEY) WITHOUT ROWID",
)
"""The subjects, and the tokens whose erasure no trail has recorded yet. ``user_version`` counts the erasures."""

_REMEDIES = {
    "SQLITE_BUSY": "end the process that locks it",
    "SQLITE_CANTOPEN": "let this user write to the file and to its folder",
    "SQLITE_CORRUPT": "restore the file from a copy",
    "SQLITE_FULL": "free disk space",
    "SQLITE_IOERR": "free disk space, or check the disk",
    "SQLITE_NOTADB": "expected a vault, got another file; name another path",
    "SQLITE_READONLY": "let this user write to the file and to its folder",
}
"""The remedy of an error, by the beginning of its name in SQLite."""

_abandoned: list[Any] = []
"""Connections of a parent process. Closing one here could delete files that the parent uses."""


class SubjectVault:
    """Stores a random key for each person, with which the values of that person in a trail are encrypted.

    A `Redactor` with ``vault=`` makes the keys. Here they are found, shown in clear, and erased.

    Args:
        path: The file. It has mode 0600, and so have the files that SQLite puts beside it. Network file systems do not work.
        create: Whether a missing file is created, with missing folders, and the file is checked to be writable.
        max_keys: The largest number of keys in memory, at least 2. The least recently used ones are forgotten first.

    Raises:
        AuditTypeError: *path* is not a path.
        AuditVaultError: The file cannot be used, or the extra ``signing`` is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        max_keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater = call_later,
    ) -> None:
        given = require_path("vault", path, "the path of a file")
        require_cipher()
        self.path = os.path.abspath(given)
        """The absolute path of the file."""
        self.counts: Counter[str] = Counter()
        """The number of values that were masked instead of encrypted, by reason."""

        self._clock = clock
        self._call_later = call_later
        self._keys = _Keys(require_integer("max_keys", max_keys, least=2))
        self._generation = -1
        self._check_at = 0.0
        self._create_at = 0.0
        self._failure: str | None = None
        self._refuses_new = False
        self._begin_process()

        with self._database(_PATIENT_SECONDS, create=create) as database:
            if create:
                # Only a commit shows that the disk takes one.
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._note_generation(database)
        _vaults.add(self)

    def _begin_process(self) -> None:
        """Set the state that a forked child does not share with its parent."""
        self._lock = threading.RLock()
        self._count_lock = threading.RLock()
        self._is_in_use = False
        self._is_forking = False
        self._is_watching = False
        self._was_used = False
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def subject(self, identity: str) -> Subject:
        """Return the subject with this *identity*, with a new key if there is none.

        For the redactor: a new subject waits at most two seconds for other processes.

        Raises:
            AuditVaultError: The vault fails.
        """
        subject = self._cached(identity)
        return subject if subject is not None else self._read_or_create(identity)

    def known_subject(self, token: str) -> Subject | None:
        """Return the subject with this *token*, or None if it is unknown or erased.

        Raises:
            AuditVaultError: The vault fails.
        """
        subject = self._cached(token)
        if subject is not None:
            return subject

        with self._database(_WAIT_SECONDS) as database:
            rows = database.execute("SELECT key FROM subjects WHERE token = ?", (token,)).fetchall()
            return self._remember(token, rows[0][0], token) if rows else None

    def token(self, subject: Any) -> str | None:
        """Return the token of *subject* in the trail, or None if it has no key. It never makes one.

        Args:
            subject: The identity: text, an integer, a UUID and the like, as in a filter.

        Raises:
            AuditTypeError: *subject* is not an identity.
            AuditVaultError: The vault cannot be read.
        """
        identity = _identity_bytes(subject)
        with self._database(_PATIENT_SECONDS) as database:
            rows = database.execute("SELECT token FROM subjects WHERE identity = ?", (identity,)).fetchall()
        return rows[0][0] if rows else None

    def reveal(self, event: Event) -> Event:
        """Return a copy of *event* with erasable values and identities in clear, as far as their keys exist.

        Raises:
            AuditVaultError: The vault cannot be read.
        """
        # A reader never uses an erased key.
        with self._database(_PATIENT_SECONDS) as database:
            self._note_generation(database)
        return Revealer(self.known_subject, self._identity_of).reveal(event)

    def with_tokens(self, conditions: Conditions) -> Conditions:
        """Return *conditions* that also match the tokens of their clear users, sessions and entry ids.

        Raises:
            AuditVaultError: The vault cannot be read.
        """
        names = []
        for name, values in conditions.names:
            names.append((name, self._and_tokens(values) if name in ("user_id", "session_id") else values))

        entry_ids = None if conditions.entry_ids is None else self._and_tokens(conditions.entry_ids)
        return msgspec.structs.replace(conditions, names=tuple(names), entry_ids=entry_ids)

    def erase(self, subject: Any) -> str | None:
        """Erase the key and the identity of *subject* from all files, for ever, and return its token.

        Nobody can read the erasable values of the subject afterwards. An event about the same person later makes a new key.
        Repeating the call is safe, and completes one that was interrupted.

        Args:
            subject: The identity: text, an integer, a UUID and the like, as in a filter; or its token.

        Returns:
            The token, or None if there was no key. `unrecorded` has it until `confirm_recorded`.

        Raises:
            AuditTypeError: *subject* is not an identity.
            AuditVaultError: The vault fails. The key may be erased already, or remain in a file: call again.
        """
        identity = _identity_bytes(subject)
        with self._database(_PATIENT_SECONDS) as database:
            token = _delete(database, identity)
            self._note_generation(database)
            _remove_remains(database)
        return token

    def unrecorded(self) -> list[str]:
        """Return the tokens of erased subjects whose erasure no trail has recorded."""
        with self._database(_PATIENT_SECONDS) as database:
            rows = database.execute("SELECT token FROM unrecorded ORDER BY token").fetchall()
        return [token for (token,) in rows]

    def confirm_recorded(self, token: str) -> None:
        """Note that the erasure of the subject with *token* is recorded."""
        with self._database(_PATIENT_SECONDS) as database:
            database.execute("DELETE FROM unrecorded WHERE token = ?", (token,))

    def count_masked(self, reason: str) -> None:
        """Count a value that was masked because of *reason*."""
        with self._count_lock:
            self.counts[reason] += 1

    def close(self) -> None:
        """Close the file and forget the keys in memory. The next use opens the file again."""
        with self._lock:
            self._keys = self._keys.empty()
            if not self._is_in_use:
                self._disconnect()

    def _cached(self, name: str) -> Subject | None:
        """Return the subject with the identity or token *name* if its key is in memory.

        Raises:
            AuditVaultError: Whether the key was erased cannot be checked.
        """
        now = self._clock()
        if now >= self._check_at:
            self._check(now)
        if self._failure is not None:
            raise AuditVaultError(self._failure)

        self._was_used = True
        return self._keys.get(name)

    def _check(self, now: float) -> None:
        """Forget all keys in memory if any subject was erased, or if that cannot be known."""
        # Another thread waits for a lock, or this is a signal handler: known subjects are served meanwhile.
        if self._is_in_use and now < self._check_at + _WAIT_SECONDS:
            return

        self._check_at = now + CHECK_SECONDS
        was_failing = self._failure is not None
        try:
            with self._database(_WAIT_SECONDS) as database:
                self._note_generation(database)
                self._failure = None
        except AuditVaultError as error:
            self._keys = self._keys.empty()
            self._failure = str(error)
            if not was_failing:
                report_on_stderr(f"{error}; erasable values are masked")

    def _note_generation(self, database: sqlite3.Connection) -> None:
        """Forget all keys in memory if any subject was erased since the last call."""
        ((generation,),) = database.execute("PRAGMA user_version").fetchall()
        if generation != self._generation:
            self._generation = generation
            self._keys = self._keys.empty()

    def _read_or_create(self, identity: str) -> Subject:
        """Return the subject with this *identity* from the file, which gets it if it is new."""
        stored = _stored(identity)
        with self._database(_WAIT_SECONDS) as database:
            query = "SELECT key, token FROM subjects WHERE identity = ?"
            rows = database.execute(query, (stored,)).fetchall()
            if not rows:
                self._create_key(database, stored)
                rows = database.execute(query, (stored,)).fetchall()
            ((key, token),) = rows
            return self._remember(identity, key, token)

    def _create_key(self, database: sqlite3.Connection, stored: bytes) -> None:
        """Write a new key, which is on the disk afterwards, unless another process has just done so."""
        if self._clock() < self._create_at:
            raise AuditVaultError(f"vault {self.path!r}: no subject could be added within the last second")

        key = secrets.token_bytes(KEY_BYTES)
        try:
            row = (stored, token_of(key), key)
            database.execute("INSERT OR IGNORE INTO subjects VALUES (?, ?, ?)", row)
            self._refuses_new = False
        except Exception as error:
            self._create_at = self._clock() + CHECK_SECONDS
            if not self._refuses_new:
                self._refuses_new = True
                report_on_stderr(
                    f"vault {self.path!r} takes no new subject ({_reason(error)}); their values are masked"
                )
            raise

    def _remember(self, name: str, key: bytes, token: str) -> Subject:
        """Return the subject with *key*, and keep it in memory under the identity or token *name*."""
        if not isinstance(key, bytes) or len(key) != KEY_BYTES or token_of(key) != token:
            raise AuditVaultError(f"vault {self.path!r}: a key is damaged: restore the file")

        subject = Subject(key)
        self._keys.put(name, subject)
        if not self._is_watching:
            self._is_watching = try_call_later(self._call_later, CHECK_SECONDS, self._forget_if_idle)
        return subject

    def _forget_if_idle(self) -> None:
        """Forget all keys in memory if none was used since the last call; otherwise look again later."""
        self._is_watching = False
        if not self._was_used:
            self._keys = self._keys.empty()
            return
        self._was_used = False
        self._is_watching = try_call_later(self._call_later, CHECK_SECONDS, self._forget_if_idle)

    def _identity_of(self, token: str) -> str | None:
        with self._database(_PATIENT_SECONDS) as database:
            rows = database.execute("SELECT identity FROM subjects WHERE token = ?", (token,)).fetchall()
        return rows[0][0].decode("utf-8", "surrogatepass") if rows else None

    def _and_tokens(self, values: frozenset[Any]) -> frozenset[Any]:
        tokens = {self.token(value) for value in values if value is not None}
        return values | (tokens - {None})

    @contextlib.contextmanager
    def _database(self, seconds: float, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread. After any failure the next use opens another one.

        Args:
            seconds: The longest time to wait for other threads, and then for other processes.
            create: Whether a missing file is created.

        Raises:
            AuditVaultError: The file cannot be used.
        """
        import sqlite3

        if not self._lock.acquire(timeout=seconds):
            raise AuditVaultError(f"vault {self.path!r}: another thread has used it for {seconds:g} s")
        try:
            if self._is_in_use:
                raise AuditVaultError(f"vault {self.path!r}: a signal handler interrupted its use")
            self._is_in_use = True
            try:
                database = self._connect(create)
                database.execute(f"PRAGMA busy_timeout = {seconds * 1_000:.0f}")
                yield database
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                raise AuditVaultError(f"vault {self.path!r}: {_reason(error)}") from error
            except AuditVaultError:
                raise
            except BaseException:
                # It may have interrupted a transaction.
                self._disconnect()
                raise
            finally:
                self._is_in_use = False
        finally:
            self._lock.release()

    def _connect(self, create: bool) -> sqlite3.Connection:
        """Return the connection to the file that has the path now."""
        if self._connection is not None:
            # Keys in a file that was removed or replaced would be lost.
            if self._file == _identity_of_file(self.path):
                return self._connection
            self._disconnect()

        if create and not os.path.lexists(self.path):
            _create_file(self.path)
        _require_private(self.path)
        self._connection = _open_file(self.path)
        self._file = _identity_of_file(self.path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closing rolls back an open transaction. A failure leaves nothing to do.
            with contextlib.suppress(Exception):
                connection.close()

    def before_fork(self) -> None:
        """Close the connection and hold the lock, so that a forked child gets neither in use."""
        self._is_forking = self._lock.acquire(timeout=_WAIT_SECONDS)
        if self._is_forking and not self._is_in_use:
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Release the lock."""
        if self._is_forking:
            self._is_forking = False
            self._lock.release()

    def after_fork(self) -> None:
        """Begin with a new lock and without a connection in the forked child."""
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._keys = self._keys.empty()
        self._begin_process()

    def __del__(self) -> None:
        # The constructor may have failed before there was a connection.
        if getattr(self, "_connection", None) is not None:
            self._disconnect()

    def __repr__(self) -> str:
        return f"SubjectVault({self.path!r})"


class _Keys:
    """The subjects in memory by identity or token, the least recently used ones being forgotten.

    Each of two generations has half of them. The younger one becomes the older one when it is full, and a used entry moves to
    the younger one. A method is one step for other threads; whoever clears replaces the object.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[str, Subject] = {}
        self._old: dict[str, Subject] = {}

    def get(self, name: str) -> Subject | None:
        """Return the subject with *name*, or None."""
        found = self._young.get(name)
        if found is None:
            found = self._old.get(name)
            if found is not None:
                self.put(name, found)
        return found

    def put(self, name: str, subject: Subject) -> None:
        """Add *subject* under *name*."""
        if len(self._young) >= self._most // 2:
            self._old, self._young = self._young, {}
        self._young[name] = subject

    def empty(self) -> _Keys:
        """Return an object of the same size without subjects."""
        return _Keys(self._most)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def _delete(database: sqlite3.Connection, stored: bytes) -> str | None:
    """Delete the row with the identity or token *stored*, and return its token.

    The note to record the erasure is written in the same transaction.
    """
    database.execute("BEGIN IMMEDIATE")
    names = (stored, stored.decode("utf-8", "replace"))
    rows = database.execute("SELECT token FROM subjects WHERE identity = ? OR token = ?", names).fetchall()
    if rows:
        ((generation,),) = database.execute("PRAGMA user_version").fetchall()
        database.execute("DELETE FROM subjects WHERE token = ?", rows[0])
        database.execute("INSERT OR IGNORE INTO unrecorded VALUES (?)", rows[0])
        database.execute(f"PRAGMA user_version = {(generation + 1) % 2**31}")
    database.execute("COMMIT")
    return rows[0][0] if rows else None


def _remove_remains(database: sqlite3.Connection) -> None:
    """Remove deleted rows from the write-ahead log, and from the free space of the file.

    Raises:
        AuditVaultError: Another process reads an earlier state of the file.
    """
    _truncate_log(database)
    database.execute("VACUUM")
    _truncate_log(database)


def _truncate_log(database: sqlite3.Connection) -> None:
    ((is_busy, _, _),) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if is_busy:
        raise AuditVaultError(
            "vault: the subject is deleted, but its key is still in the write-ahead log, because another process "
            "reads an earlier state: end that process, and erase the subject again"
        )


def _create_file(path: str) -> None:
    """Create an empty vault at *path*, complete or not at all, unless another process has just done so."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)

    new_path = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    os.close(os.open(new_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        database = _open_database(new_path)
        try:
            # The write-ahead log comes last: until then each statement is on the disk in the file itself.
            for statement in (f"PRAGMA application_id = {_APPLICATION_ID}", *_SCHEMA, "PRAGMA journal_mode = WAL"):
                database.execute(statement).fetchall()
        finally:
            database.close()
        with contextlib.suppress(FileExistsError):
            os.link(new_path, path)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new_path + suffix)

    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _require_private(path: str) -> None:
    """Raise an error unless *path* is a file that only its owner may read."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise AuditVaultError(f"vault {path!r}: expected a file, got something else at this path")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise AuditVaultError(f"vault {path!r}: expected mode 0600, got {mode:04o}: chmod 600 {path}")


def _open_file(path: str) -> sqlite3.Connection:
    """Return a connection to the vault at *path*."""
    database = _open_database(path)
    try:
        ((application_id,),) = database.execute("PRAGMA application_id").fetchall()
        if application_id != _APPLICATION_ID:
            raise AuditVaultError(f"vault {path!r}: expected a vault, got another file: name another path")
        database.execute("SELECT count(*) FROM (SELECT 1 FROM subjects, unrecorded LIMIT 1)").fetchall()
    except BaseException:
        database.close()
        raise
    return database


def _open_database(path: str) -> sqlite3.Connection:
    """Return a connection to an existing SQLite file, whose commits are on the disk and whose deletions overwrite."""
    # Imported lazily: few applications have a vault.
    import sqlite3
    from urllib.parse import quote

    database = sqlite3.connect(
        f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, timeout=_PATIENT_SECONDS, check_same_thread=False
    )
    # Temporary files would be copies of keys outside of the vault.
    try:
        for setting in ("synchronous = FULL", "fullfsync = ON", "secure_delete = ON", "temp_store = MEMORY"):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def _identity_of_file(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _identity_bytes(subject: Any) -> bytes:
    """Return *subject*, the parameter of that name, as it is stored."""
    identity = identifier_text(subject)
    if not identity:
        raise AuditTypeError(
            f"subject: expected an identity, such as the text of a user_id, got {type(subject).__name__}"
        )
    return _stored(identity)


def _stored(identity: str) -> bytes:
    return identity.encode("utf-8", "surrogatepass")


def _reason(error: BaseException) -> str:
    """Return the damage of the file, and the remedy. Neither the system nor SQLite puts values into messages."""
    if isinstance(error, FileNotFoundError):
        return "expected an existing vault, got no file: name the vault of the application's redactor"
    if isinstance(error, OSError):
        return describe_failure(error)

    name = getattr(error, "sqlite_errorname", "")
    for beginning, remedy in _REMEDIES.items():
        if name.startswith(beginning):
            return f"{error}: {remedy}"
    return f"{type(error).__name__}: {error}"


_vaults: weakref.WeakSet[SubjectVault] = weakref.WeakSet()


def _before_fork() -> None:
    for vault in list(_vaults):
        vault.before_fork()


def _after_fork_in_parent() -> None:
    for vault in list(_vaults):
        vault.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for vault in list(_vaults):
        vault.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
