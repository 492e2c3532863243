"""What recording an event must at least cost: the limit of Python, the steps of ours, and its whole path in one function.

`limit` is what any program in Python must at least do: a random id, the time, JSON, one ``write(2)``. `steps` is what an event
of ours consists of. `path` is that with nearly all that this library must look at and note, so that its promises hold, where
nothing unusual is found: its way through the modules, as one function, in which nobody could find his. What `path` takes
beyond a goal, no shorter way through the modules saves.
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

from example import CONTEXT, FIELDS, Call, file, logger_with


def limit() -> Call:
    import orjson

    fd = os.open(file("limit"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        os.write(fd, orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    return call


def limit_in_order() -> Call:
    """The limit for a trail: one write at a time, and then a look at where the file ends."""
    import orjson

    fd = os.open(file("in-order"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
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
    """What recording an event of ours consists of, step by step in one function: what it would cost without modules,
    without a policy for failures, and without anybody else to heed (signal handlers, threads, other handlers, rollover)."""
    import msgspec
    from structlog.contextvars import get_contextvars

    from structlog_audit.buffer.event_buffer import EventBuffer
    from structlog_audit.events.event_id import Stamp
    from structlog_audit.events.payload import Payload
    from structlog_audit.events.truncation import encode
    from structlog_audit.redaction.redactor import DEFAULT_REDACTOR

    fd = os.open(file("steps"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    logger = logger_with("steps", logging.NullHandler())
    lock, stamp, buffer, suspects = (
        threading.RLock(),
        Stamp(),
        EventBuffer(10_000),
        DEFAULT_REDACTOR.may_contain_secrets,
    )

    def call() -> None:
        if logger.isEnabledFor(logging.INFO):
            bound = get_contextvars() if copy_context() else {}
            event = {**bound, **CONTEXT, **FIELDS, "operation": "STORE"}
            body = msgspec.convert(event, Payload)
            data = encode(body)[1:]
            if suspects(body.metadata, data) or not data.isascii() or 0x7F in data or len(data) > 31_000:
                raise ValueError(data)
            lock.acquire()
            line = stamp.line(data)
            os.write(fd, line)
            os.lseek(fd, 0, os.SEEK_CUR)
            buffer.append(line, stamp.timestamp_us)
            lock.release()

    return call


class Unusual(Exception):
    """What the library has other ways for."""


class State:
    """What the library knows of a handler and its file when everything is as it should be."""

    def __init__(self) -> None:
        self.recorded = self.size = 0
        self.roll_over_at = 1 << 40
        self.check_at = 0.0
        self.leading = self.writing = self.failing = self.torn = self.others_wrote = self.untold = self.notices = False


def path() -> Call:
    return in_one_function("path", CONTEXT)


def path_two_more() -> Call:
    return in_one_function("path2", {**CONTEXT, "request_id": "r-1", "region": "eu"})


def in_one_function(name: str, context: dict[str, Any]) -> Call:  # noqa: C901 (that is what it is for)
    """The path from the call of a bound logger with this *context* to the file and the buffer, and back."""
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

    logger, fd = logger_with(name, AuditHandler()), os.open(file(name), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    lock, stamp, buffer, suspects = (
        threading.RLock(),
        Stamp(),
        EventBuffer(10_000),
        DEFAULT_REDACTOR.may_contain_secrets,
    )
    own, six = frozenset(Payload.__struct_fields__), frozenset(member.value for member in OperationType)
    handle, call_handlers = logging.Logger.handle, logging.Logger.callHandlers
    arrived: deque[QueueEntry] = deque()
    queue: deque[QueueEntry] = deque()
    state = State()

    def info(operation: str | None = None, /, **fields: Any) -> None:  # noqa: C901
        event = {**context, **fields}
        if copy_context():
            event = get_contextvars() | event
        if "operation" in fields or "exc_info" in event:
            raise Unusual
        event["operation"] = operation
        # does nobody else look?
        kind, handler = type(logger), logger.handlers[0]
        if logger.propagate or logger.filters or len(logger.handlers) != 1 or type(handler) is not AuditHandler:
            raise Unusual
        if kind.handle is not handle or kind.callHandlers is not call_handlers:
            raise Unusual
        if handler.filters or handler.level > logging.INFO or not logger.isEnabledFor(logging.INFO):
            raise Unusual
        # is everything as it should be?
        body = msgspec.convert(event if own.issuperset(event) else _gather_metadata(event), Payload)
        if MARKS in body.metadata or body.operation not in six or type(body.operation) is not str:
            raise Unusual
        if body.status is None:
            body.status = "SUCCESS"
        data = encode(body)[1:]
        if suspects(body.metadata, data) or not data.isascii() or 0x7F in data or len(data) > 31_000:
            raise Unusual
        # order, id and time; from here on nothing is lost
        entry = QueueEntry(data, logging.INFO, logger.name, handler)
        arrived.append(entry)
        if state.leading:
            raise Unusual
        try:
            lock.acquire()
            state.leading = True
            try:
                if entry.state != WAITING or queue or len(arrived) > 1:
                    raise Unusual
                entry.line = line = stamp.line(data)
                entry.timestamp_us = stamp.timestamp_us
                queue.append(entry)
                arrived.popleft()
                # the file
                if state.writing:
                    raise Unusual
                state.writing, written, size = True, 0, len(line)
                try:
                    if time.monotonic() >= state.check_at:
                        state.check_at = time.monotonic() + 0.05
                    if state.size + size > state.roll_over_at or state.torn:
                        raise Unusual
                    written = os.write(fd, line)
                    end = os.lseek(fd, 0, os.SEEK_CUR)
                finally:
                    state.size += written
                    state.writing = False
                if end != state.size or state.others_wrote or state.failing:
                    raise Unusual
                # acknowledge
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
        if arrived or state.untold or state.notices or entry.state == RAISED:
            raise Unusual

    return lambda: info("STORE", **FIELDS)
