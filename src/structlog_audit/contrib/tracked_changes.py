"""What the trackers of Django and SQLAlchemy share: which fields are recorded, and the events of rows before and after a write.

**Evidence.** A change is the difference between a row as the database returned it before a statement and after it, in the same
transaction. So an expression is recorded with its result, a value with what the database made of it, and a statement that
changed nothing is not recorded.

**Time and actor.** The events of a transaction are recorded once it is committed, with the context in which each statement ran.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextvars import copy_context
from typing import Any, NamedTuple

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.bound_logger import get_audit_logger

MASK = "[redacted]"
"""The recorded value of a masked field, as of a redacted one."""

EXPRESSION = "[result of an expression]"
"""The recorded value of a key that a statement computed, so that the row cannot be found again."""

Key = Hashable
"""The primary key of a row: a value, or a tuple of several."""

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
        return name not in self.exclude and (self.fields is None or name in self.fields)

    def shown(self, name: str, value: Any) -> Any:
        """Return *value* of the field *name* as it is recorded."""
        return MASK if name in self.mask and value is not None else value


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
        AuditValueError: The model has no such field, or *fields* and *exclude* are given both.
    """
    if fields is not None and exclude:
        raise AuditValueError(f"{where}: expected fields= or exclude=, got both")

    names = {name: _names(where, name, given) for name, given in (("exclude", exclude), ("mask", mask))}
    chosen = None if fields is None else _names(where, "fields", fields)

    fields_known = frozenset(known)
    unknown = ((chosen or frozenset()) | names["exclude"] | names["mask"]) - fields_known
    if unknown:
        expected = ", ".join(sorted(fields_known))
        raise AuditValueError(f"{where}: expected names of {expected}, got {', '.join(sorted(unknown))}")

    return TrackedFields(chosen, names["exclude"], names["mask"])


def _names(where: str, parameter: str, given: Any) -> frozenset[str]:
    is_collection = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    names = frozenset(given) if is_collection else frozenset()
    if not is_collection or not all(isinstance(name, str) for name in names):
        raise AuditTypeError(f"{where}: {parameter}={given!r}: expected a list of names of fields")
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
        keys = (self.key_before, self.key_after)
        return list(dict.fromkeys(key for key in keys if key is not None))

    def changes(self, fields: TrackedFields) -> dict[str, dict[str, Any]]:
        """Return the changed fields with their values before and after, masked as *fields* states."""
        before, after = self.before or {}, self.after or {}
        changes = {}
        for name in before | after:
            old, new = before.get(name), after.get(name)
            if not _is_same(old, new):
                changes[name] = {"before": fields.shown(name, old), "after": fields.shown(name, new)}
        return changes


def changed_rows(before: Rows, after: Rows, moved: Mapping[Key, Key] | None = None) -> Iterator[ChangedRow]:
    """Yield the rows that differ between *before* and *after*.

    *moved* has the new keys of rows whose key the statement changed.
    """
    new_keys = moved or {}
    for key, old in before.items():
        new_key = new_keys.get(key, key)
        new = after.get(new_key)
        if new is None or any(not _is_same(old.get(name), new.get(name)) for name in old | new):
            yield ChangedRow(key, None if new is None else new_key, old, new)

    moved_to = {new_keys.get(key, key) for key in before}
    for key, new in after.items():
        if key not in moved_to:
            yield ChangedRow(None, key, None, new)


def _is_same(old: Any, new: Any) -> bool:
    """Return whether two values of a field are equal in the database."""
    # In Python, but not in JSON, True equals 1.
    exact = (bool, dict, list)
    if isinstance(old, exact) or isinstance(new, exact):
        return repr(old) == repr(new)

    # NaN differs from itself.
    return bool(old == new) or bool(old != old and new != new)


def key_text(key: Key) -> str:
    """Return a primary key as the text of an entry id."""
    return ",".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


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
        for event in events:
            context.run(log.info, event.operation, entry_ids=event.entry_ids, metadata=event.metadata)

    return record
