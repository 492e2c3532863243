"""The shared parts of the trackers of Django and SQLAlchemy: the recorded fields, and the events of rows before and after.

**Evidence.** A change is the difference between a row as the database returned it before a statement and after it, in the same
transaction. So an expression is recorded with its result, a value as the database stored it, and a statement that
changed nothing is not recorded.

**Time and actor.** The events of a transaction are recorded once it is committed, with the context in which each statement ran.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from enum import Enum
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.bound_logger import get_audit_logger

T = TypeVar("T")

MASK = "[redacted]"
"""The recorded value of a masked field, as of a redacted one."""

EXPRESSION = "[result of an expression]"
"""The recorded value of a key that a statement computed, so that the row cannot be found again."""

_KEYS_PER_QUERY = 500

Key = Hashable
"""The primary key of a row: a value that is not a tuple, or a tuple of the values of its columns."""

Row = dict[str, Any]
"""The values of a row by the names of their fields."""

Rows = dict[Key, Row]
"""Rows by their primary keys."""


class TrackedFields(NamedTuple):
    """The fields of a model that are recorded, and those whose values are not."""

    fields: frozenset[str] | None
    exclude: frozenset[str]
    mask: frozenset[str]

    def includes(self, name: str) -> bool:
        """Return whether changes of the field *name* are recorded."""
        if self.fields is not None:
            return name in self.fields
        return name not in self.exclude

    def recorded(self, row: Row) -> Row:
        """Return *row* without the fields that are not recorded."""
        return {name: value for name, value in row.items() if self.includes(name)}

    def shown(self, name: str, value: Any) -> Any:
        """Return *value* of the field *name* as it is recorded."""
        if value is None or name not in self.mask:
            return value
        return MASK


def tracked_fields(
    where: str, known: Iterable[str], fields: Iterable[str] | None, exclude: Iterable[str], mask: Iterable[str]
) -> TrackedFields:
    """Return the choice of fields of the model that *where* names.

    Args:
        where: The call, for messages.
        known: The fields that the model has.
        fields: The fields to record; None for all.
        exclude: The fields not to record.
        mask: The fields whose changes are recorded without their values.

    Raises:
        AuditTypeError: An argument is not a collection of names.
        AuditValueError: The model has no such field, *fields* and *exclude* are given both, or a masked field is not recorded.
    """
    if fields is not None and exclude:
        raise AuditValueError(f"{where}: expected fields= or exclude=, got both")

    only = None if fields is None else _names(where, "fields", fields)
    excluded = _names(where, "exclude", exclude)
    masked = _names(where, "mask", mask)

    names = frozenset(known)
    unknown = excluded | masked | (only or frozenset())
    unknown -= names
    if unknown:
        expected = ", ".join(sorted(names)) or "fields of models that are declared already"
        got = ", ".join(sorted(unknown))
        raise AuditValueError(f"{where}: expected names of {expected}, got {got}")

    chosen = TrackedFields(only, excluded, masked)
    unseen = [name for name in sorted(masked) if not chosen.includes(name)]
    if unseen:
        got = ", ".join(unseen)
        raise AuditValueError(f"{where}: expected mask= to name recorded fields, got {got}, not recorded at all")
    return chosen


def _names(where: str, parameter: str, given: Any) -> frozenset[str]:
    expected = f"{where}: {parameter}={given!r}: expected a list of names of fields"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise AuditTypeError(expected)

    names = frozenset(given)
    for name in names:
        if not isinstance(name, str):
            raise AuditTypeError(expected)
    return names


class ChangedRow(NamedTuple):
    """A row that a statement inserted, changed or deleted: its key and values before and after; None where it did not exist."""

    key_before: Key | None
    key_after: Key | None
    before: Row | None
    after: Row | None

    @property
    def verb(self) -> str:
        """The verb of its operation: ``create``, ``update`` or ``delete``."""
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"

    @property
    def keys(self) -> list[Key]:
        """Its keys, which are two if the statement changed it."""
        keys = [self.key_before, self.key_after]
        if self.key_before == self.key_after:
            keys.pop()
        return [key for key in keys if key is not None]

    def changes(self, fields: TrackedFields) -> dict[str, dict[str, Any]]:
        """Return the changed fields with their values before and after, masked as *fields* states."""
        return {
            name: {
                "before": fields.shown(name, old),
                "after": fields.shown(name, new),
            }
            for name, old, new in _different(self.before or {}, self.after or {})
        }


def changed_rows(before: Rows, after: Rows, moved: Mapping[Key, Key] | None = None) -> Iterator[ChangedRow]:
    """Yield the rows that differ between *before* and *after*.

    *moved* has the new keys of rows whose key the statement changed.
    """
    new_keys = {key: key for key in before}
    new_keys.update(moved or {})

    for key, old in before.items():
        new_key = new_keys[key]
        new = after.get(new_key)
        if new is None:
            yield ChangedRow(key, None, old, None)
        elif key != new_key or any(_different(old, new)):
            yield ChangedRow(key, new_key, old, new)

    known = set(new_keys.values())
    for key, new in after.items():
        if key not in known:
            yield ChangedRow(None, key, None, new)


def _different(before: Row, after: Row) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields that differ between two rows, with both values."""
    for name in before | after:
        old = before.get(name)
        new = after.get(name)
        if not _is_same(old, new):
            yield name, old, new


def _is_same(old: Any, new: Any) -> bool:
    """Return whether two values of a field are equal in the database."""
    # Arrays, such as those of vectors, compare their elements one by one.
    old, new = (value.tolist() if hasattr(value, "tolist") else value for value in (old, new))

    # In Python, but not in JSON, True equals 1.
    exact = (bool, dict, list)
    if isinstance(old, exact) or isinstance(new, exact):
        return repr(old) == repr(new)

    if old != old:
        # NaN differs from itself.
        return bool(new != new)
    return bool(old == new)


def key_of(values: Iterable[Any]) -> Key:
    """Return the key that the *values* of its columns are."""
    key = tuple(values)
    is_single = len(key) == 1 and not isinstance(key[0], tuple)
    return key[0] if is_single else key


def parts_of(key: Key) -> tuple[Any, ...]:
    """Return the values of the columns of a key."""
    return key if isinstance(key, tuple) else (key,)


def key_text(key: Key) -> str:
    """Return a primary key as the text of an entry id: the texts of its parts, in which a comma is escaped."""
    texts = [_part_text(part) for part in parts_of(key)]
    if len(texts) == 1:
        return texts[0]
    return ",".join(text.replace("\\", "\\\\").replace(",", "\\,") for text in texts)


def _part_text(part: Any) -> str:
    if isinstance(part, tuple):
        # The value of one column can be an array.
        return key_text(part)
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part).hex()
    if isinstance(part, Enum):
        return str(part.value)
    return str(part)


def in_batches(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield *keys* in parts that a query can name: databases limit the parameters of a statement."""
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]


class TrackedEvent(NamedTuple):
    """An event of a change, to be recorded when its transaction is committed."""

    operation: str
    entry_ids: list[str]
    metadata: dict[str, Any]


def recorder(events: list[TrackedEvent]) -> Callable[[], None]:
    """Return a function that records *events* with the current context, whenever it is called."""
    context = copy_context()

    def record() -> None:
        log = get_audit_logger()
        call_all(
            partial(log.info, event.operation, entry_ids=event.entry_ids, metadata=event.metadata) for event in events
        )

    return lambda: context.run(record)


def call_all(functions: Iterable[Callable[[], object]]) -> None:
    """Call all *functions*, and raise the first error afterwards: each event is recorded, or counted as lost."""
    errors = []
    for function in functions:
        try:
            function()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


# --- What databases do to transactions by themselves --------------------------------------------------------------------

COMMITTING_BY_DDL = frozenset({"mysql", "mariadb"})
"""The names of the databases that commit before they execute a definition."""

_BEFORE = r"(?: \s | /\*.*?\*/ | (?:\#|--\s).*?(?:\n|$) )*"
"""Space and comments before the first word of a statement, for verbose expressions."""

_COMMITTING = re.compile(
    rf"""(?ix) {_BEFORE}
    (?! (?:CREATE | CREATE\s+OR\s+REPLACE | DROP) \s+ TEMPORARY\b )
    (?: ALTER | ANALYZE\s+TABLE | BEGIN | CACHE | CHANGE | CHECK | CREATE | DROP | FLUSH | GRANT | INSTALL | LOAD\s+INDEX
      | LOCK | OPTIMIZE | RENAME | REPAIR | RESET | REVOKE | SET\s+PASSWORD | START | STOP | TRUNCATE | UNINSTALL ) \b"""
)
"""The statements before which MariaDB and MySQL commit: mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit."""

_CONTROL = re.compile(
    rf"""(?ix) {_BEFORE} (?P<verb> ABORT | COMMIT | END | RELEASE | ROLLBACK | SAVE | SAVEPOINT ) \b
    (?: \s+ (?: SAVEPOINT | TO | TRAN | TRANSACTION | WORK ) \b )* (?: \s+ ["`\[]? (?P<name> [^\s;"`\]]+ ) )?"""
)
"""The statements that end a transaction or a part of it, in the words of all databases."""

_VERBS = {"END": "commit", "ABORT": "rollback", "SAVE": "savepoint"}

_DEADLOCK = 1213
"""The error with which MariaDB and MySQL roll back a whole transaction, not only its statement."""


def commits_first(database: str, sql: str) -> bool:
    """Return whether a database commits the transaction before it executes *sql*, even if that fails then."""
    return database in COMMITTING_BY_DDL and _COMMITTING.match(sql) is not None


def control_of(sql: str) -> tuple[str, str]:
    """Return what *sql* does to its transaction, and the name of the savepoint.

    Returns:
        ``commit``, ``rollback``, ``rollback to``, ``savepoint`` or ``release``; an empty text for other statements.
    """
    found = _CONTROL.match(sql)
    if found is None:
        return "", ""

    word, name = found["verb"].upper(), (found["name"] or "").lower()
    verb = _VERBS.get(word, word.lower())
    if verb not in ("commit", "rollback"):
        return verb, name

    # The end of a transaction of two phases is not that of this one, and AND CHAIN begins another.
    if name == "prepared":
        return "", ""
    is_whole = verb == "commit" or name in ("", "and")
    return (verb, "") if is_whole else ("rollback to", name)


class Savepoints:
    """The savepoints of a transaction, with the number of changes that there were when each of them began."""

    def __init__(self) -> None:
        # Several can have the same name: the newest counts.
        self._begun: list[tuple[str, int]] = []

    def follow(self, verb: str, name: str, count: int) -> int:
        """Follow a statement, and return how many of the *count* changes before it are kept."""
        if not count:
            # What is left from another transaction.
            self._begun.clear()
        if verb == "savepoint":
            self._begun.append((name, count))
        elif verb == "release":
            self._return_to(name)
            del self._begun[-1:]
        elif verb == "rollback to":
            return self._return_to(name)
        return 0 if verb == "rollback" else count

    def _return_to(self, name: str) -> int:
        """Forget the savepoints after *name*, and return how many changes there were when it began."""
        while self._begun and self._begun[-1][0] != name:
            self._begun.pop()

        # One that is not known began before the first change.
        return self._begun[-1][1] if self._begun else 0


def outcome_of_error(database: str, error: Any) -> Literal["kept", "failed", "rolled back"]:
    """Return what an error of a statement means for the changes that its transaction made before.

    Args:
        database: The name of the database, as Django and SQLAlchemy have it.
        error: The exception of the driver.

    Returns:
        ``failed`` if a commit would be answered by a rollback, unless one to a savepoint comes first.
    """
    if database == "postgresql":
        # Errors that the driver finds by itself have no code, and do not reach the server.
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        return "failed" if code else "kept"

    is_deadlock = database in COMMITTING_BY_DDL and error.args[:1] == (_DEADLOCK,)
    return "rolled back" if is_deadlock else "kept"
