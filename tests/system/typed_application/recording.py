"""Recording, with the values that applications have."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import logging
import uuid
from collections.abc import Iterator

from structlog_audit import (
    AuditEvent,
    AuditFileHandler,
    AuditHandler,
    AuditLogger,
    EventStatus,
    OperationScope,
    OperationType,
    audited,
    get_audit_logger,
    instrument,
)

log = get_audit_logger()


class Action(enum.StrEnum):
    """The operations of the application."""

    READ = "document.read"
    DELETE = "document.delete"


class Wide(enum.Enum):
    """Operations that are not text."""

    MOVE = "document.move"


class Document:
    """A document with an id."""

    def __init__(self, key: uuid.UUID) -> None:
        self.key = key


def configure(path: str) -> AuditHandler:
    """Attach a handler to the logger, and return it."""
    handler = AuditHandler(target=AuditFileHandler(path), max_events=1_000, on_error="raise")
    logging.getLogger("audit").addHandler(handler)
    return handler


def record_with_the_bound_logger(document: Document, user: int, price: decimal.Decimal) -> None:
    """Record with ids and values that are not text."""
    log.info(Action.READ, user_id=user, entry_ids=[document.key], metadata={"price": price, "at": dt.date.today()})
    log.bind(user_id=uuid.uuid4(), session_id=42).warning("document.shared", entry_ids={document.key})
    log.info(Wide.MOVE)
    log.error("document.failed", status=EventStatus.FAILURE, duration_ms=3)


async def record_awaited(document: Document) -> None:
    """Record without blocking the event loop."""
    await log.ainfo(Action.READ, entry_ids=(document.key,))
    async with log.operation(Action.DELETE, user_id=document.key, intent=True) as scope:
        touch(scope, document)


def touch(scope: OperationScope, document: Document) -> None:
    """Add to an operation what is known only now."""
    scope.entry_ids.append(document.key)
    scope.metadata["reason"] = "retention"
    scope.bind(user_id=7)
    scope.partial("one of two")


def record_with_the_logger(audit: AuditLogger, documents: dict[uuid.UUID, Document]) -> AuditEvent:
    """Record with the interface of the memory SDK, with wide types."""
    audit.record(OperationType.STORE, user_id=uuid.uuid4(), session_id=17, entry_ids=documents.keys())
    audit.record("x", user_id=Action.READ, entry_ids=(1, 2, 3), status=False, duration_ms=dt.timedelta(seconds=1))
    audit.record("x", entry_ids=tuple(document_keys(documents)), metadata={"a": {"b": [1, None]}}, status=404)
    audit.record(Wide.MOVE, entry_ids=uuid.uuid4(), duration_ms=decimal.Decimal("1.5"))
    return audit.record("document.read", "ann", "s1", ["d1"], {"k": 1}, "ok", None, 1.0)


def document_keys(documents: dict[uuid.UUID, Document]) -> Iterator[uuid.UUID]:
    """Yield the keys."""
    yield from documents


async def record_with_the_logger_awaited(audit: AuditLogger) -> str:
    """Record and wait."""
    event = await audit.log_event(OperationType.RECALL, uuid.uuid4(), entry_ids=[uuid.uuid4()])
    return event.event_id


@audited("document.load", user_id="user", entry_ids=lambda call: [call["key"]], metadata={"size": "size"})
def load(key: uuid.UUID, user: str, size: int = 0) -> Document:
    """Return a document."""
    return Document(key)


@audited(Wide.MOVE)
async def delete(key: uuid.UUID) -> bool:
    """Delete a document."""
    return bool(key)


def call() -> Document:
    """The decorated function keeps its signature."""
    return load(uuid.uuid4(), user="ann")


async def call_async() -> bool:
    """The decorated coroutine function keeps its signature."""
    return await delete(uuid.uuid4())


class Store:
    """An object whose methods are recorded."""

    def put(self, entry_id: str) -> int:
        """Store an entry."""
        return len(entry_id)


def record_calls(store: Store) -> int:
    """Record the calls of methods, for the length of a block and until it is undone."""
    with instrument(store, {"put": "store.put"}):
        count = store.put("e1")

    undo = instrument(store, {"put": Wide.MOVE})
    count += store.put("e2")
    undo()
    return count
