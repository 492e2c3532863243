"""Lower bounds of the cost of recording an event, each as one function.

* `limit` is the minimum for any Python program: a random id, the time, JSON, one ``write(2)``.
* `steps` consists of the work that recording an event takes in this library.
* `path` adds nearly all checks and counters that the guarantees need, for the case in which no check finds anything. It is the
  library's way through its modules as one function, which would not be maintainable. If `path` exceeds a goal, no
  shorter way through the modules can meet it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
import uuid
from collections import deque
from contextvars import copy_context
from typing import Any

from example_event import CONTEXT, FIELDS, Call, logger_with, path_of


def limit() -> Call:
    """Return a call that writes a JSON line with a random id and the time."""
    import orjson

    fd = os.open(path_of("limit"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        os.write(fd, orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    return call


def limit_in_order() -> Call:
    """Return the limit for a trail, which has one write at a time.

    The position in the file is queried after each write.
    """
    import orjson

    fd = os.open(path_of("in-order"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    lock = threading.RLock()

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        with lock:
            os.write(fd, line)
            os.lseek(fd, 0, os.SEEK_CUR)

    return call


def steps() -> Call:
    """Return a call with the work of recording an event, in one function.

    It has no failure policy, and does not consider signal handlers, other threads and handlers, or rollover.
    """
    import msgspec
    from structlog.contextvars import get_contextvars

    from structlog_audit.buffer.event_buffer import EventBuffer
    from structlog_audit.events.event_id import Stamp
    from structlog_audit.events.payload import Payload
    from structlog_audit.events.truncation import encode
    from structlog_audit.redaction.redactor import DEFAULT_REDACTOR

    fd = os.open(path_of("steps"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    logger = logger_with("steps", logging.NullHandler())
    lock = threading.RLock()
    stamp = Stamp()
    buffer = EventBuffer(10_000)
    redact_keys = DEFAULT_REDACTOR.redact_keys

    def call() -> None:
        if logger.isEnabledFor(logging.INFO):
            # Convert.
            bound = get_contextvars() if copy_context() else {}
            event = {**bound, **CONTEXT, **FIELDS, "operation": "STORE"}
            body = msgspec.convert(event, Payload)

            # Encode, without the opening brace, and check for secrets, control characters and length.
            data = encode(body)[1:]
            if (
                redact_keys(body.metadata, data) is not body.metadata
                or not data.isascii()
                or 0x7F in data
                or len(data) > 31_000
            ):
                raise ValueError(data)

            # Commit.
            lock.acquire()
            line = stamp.line(data)
            os.write(fd, line)
            os.lseek(fd, 0, os.SEEK_CUR)
            buffer.append(line, stamp.timestamp_us)
            lock.release()

    return call


class UnusualCaseError(Exception):
    """The event would leave the fast path of the library."""


class State:
    """The state of a handler and its file when no check finds anything."""

    def __init__(self) -> None:
        self.recorded = self.size = 0
        self.roll_over_at = 1 << 40
        self.check_at = 0.0
        self.leading = self.writing = self.failing = False
        self.torn = self.others_wrote = False
        self.unreported = self.notices = False


def path() -> Call:
    """Return a call of the path with the fields of the example."""
    return in_one_function("path", CONTEXT)


def path_two_more() -> Call:
    """Return a call of the path with two more fields, which belong to the metadata."""
    return in_one_function("path2", {**CONTEXT, "request_id": "r-1", "region": "eu"})


def in_one_function(name: str, context: dict[str, Any]) -> Call:
    """Return a call of the path for a bound logger with this *context*.

    It leads to the file and the buffer, and back.
    """
    import msgspec
    from structlog.contextvars import get_contextvars

    from structlog_audit import AuditHandler
    from structlog_audit.buffer.event_buffer import EventBuffer
    from structlog_audit.events.codec import MARKS
    from structlog_audit.events.conversion import _gather_metadata
    from structlog_audit.events.event import OperationType
    from structlog_audit.events.event_id import Stamp
    from structlog_audit.events.payload import Payload
    from structlog_audit.events.truncation import encode
    from structlog_audit.recording.queue_entry import RAISED, RECORDED, WAITING, QueueEntry
    from structlog_audit.redaction.redactor import DEFAULT_REDACTOR

    logger = logger_with(name, AuditHandler())
    fd = os.open(path_of(name), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    lock = threading.RLock()
    stamp = Stamp()
    buffer = EventBuffer(10_000)
    redact_keys = DEFAULT_REDACTOR.redact_keys
    members = frozenset(Payload.__struct_fields__)
    known_operations = frozenset(member.value for member in OperationType)
    handle, call_handlers = logging.Logger.handle, logging.Logger.callHandlers
    arrived: deque[QueueEntry] = deque()
    queue: deque[QueueEntry] = deque()
    state = State()

    def info(operation: str | None = None, /, **fields: Any) -> None:
        # Merge the bound fields, those of the call, and the context variables.
        event = {**context, **fields}
        if copy_context():
            event = get_contextvars() | event
        if "operation" in fields or "exc_info" in event:
            raise UnusualCaseError
        event["operation"] = operation

        # Check that no other handler, filter or subclass would see a LogRecord.
        kind, handler = type(logger), logger.handlers[0]
        if logger.propagate or logger.filters or len(logger.handlers) != 1 or type(handler) is not AuditHandler:
            raise UnusualCaseError
        if kind.handle is not handle or kind.callHandlers is not call_handlers:
            raise UnusualCaseError
        if handler.filters or handler.level > logging.INFO or not logger.isEnabledFor(logging.INFO):
            raise UnusualCaseError

        # Convert, and check the members.
        body = msgspec.convert(event if members.issuperset(event) else _gather_metadata(event), Payload)
        if MARKS in body.metadata or body.operation not in known_operations or type(body.operation) is not str:
            raise UnusualCaseError
        if body.status is None:
            body.status = "SUCCESS"

        # Encode, and check for secrets, control characters and length.
        data = encode(body)[1:]
        if (
            redact_keys(body.metadata, data) is not body.metadata
            or not data.isascii()
            or 0x7F in data
            or len(data) > 31_000
        ):
            raise UnusualCaseError

        # From here on the event is either recorded or counted as lost.
        entry = QueueEntry(data, logging.INFO, logger.name, handler)
        arrived.append(entry)
        if state.leading:
            raise UnusualCaseError

        # Become the leader of the group commit.
        try:
            lock.acquire()
            state.leading = True
            try:
                if entry.state != WAITING or queue or len(arrived) > 1:
                    raise UnusualCaseError

                # Assign order, id and timestamp.
                entry.line = line = stamp.line(data)
                entry.timestamp_us = stamp.timestamp_us
                queue.append(entry)
                arrived.popleft()

                # Append to the file, and check that no other process did.
                if state.writing:
                    raise UnusualCaseError
                state.writing, written, size = True, 0, len(line)
                try:
                    if time.monotonic() >= state.check_at:
                        state.check_at = time.monotonic() + 0.05
                    if state.size + size > state.roll_over_at or state.torn:
                        raise UnusualCaseError
                    written = os.write(fd, line)
                    end = os.lseek(fd, 0, os.SEEK_CUR)
                finally:
                    state.size += written
                    state.writing = False
                if end != state.size or state.others_wrote or state.failing:
                    raise UnusualCaseError

                # Acknowledge.
                buffer.append(line, entry.timestamp_us)
                entry.state = RECORDED
                state.recorded += 1
                queue.popleft()
            finally:
                state.leading = False
        except BaseException:
            lock.release()
            raise
        lock.release()

        # Check for entries that arrived meanwhile, and for reports that are due.
        if arrived or state.unreported or state.notices or entry.state == RAISED:
            raise UnusualCaseError

    return lambda: info("STORE", **FIELDS)
