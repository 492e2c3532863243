"""The cases of the benchmark: the least (`least`), ours, and the peers. Each is a function that sets up and returns a call."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import logging.handlers
import uuid
from collections.abc import Callable

from example import CONTEXT, FIELDS, Call, file, logger_with
from least import limit, limit_in_order, path, path_two_more, steps


def rotating(name: str) -> logging.Handler:
    from pythonjsonlogger.orjson import OrjsonFormatter

    handler = logging.handlers.RotatingFileHandler(file(name), maxBytes=50_000_000, backupCount=5)
    handler.setFormatter(OrjsonFormatter("%(message)s", timestamp=True))
    return handler


def stdlib_json() -> Call:
    logger = logger_with("stdlib", rotating("stdlib"))
    return lambda: logger.info("STORE", extra={"event_id": uuid.uuid4().hex, **CONTEXT, **FIELDS})


def structlog_json() -> Call:
    import structlog

    log = structlog.wrap_logger(
        logger_with("structlog", rotating("structlog")),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    ).bind(**CONTEXT)
    return lambda: log.info("STORE", event_id=uuid.uuid4().hex, **FIELDS)


def stdlib_null() -> Call:
    """What `logging` itself takes to make a record with fields, which `ours_stdlib` takes as well."""
    logger = logger_with("null", logging.NullHandler())
    return lambda: logger.info("STORE", extra={**CONTEXT, **FIELDS})


def structlog_dropped() -> Call:
    """What structlog itself takes for the chain of `ours_processor`."""
    return chain()


def chain(*processors: Callable[..., object]) -> Call:
    """An application's own chain; what it would print itself is dropped, so that its renderer is not measured."""
    import structlog

    def drop(*_: object) -> None:
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *processors,
            drop,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    ).bind(**CONTEXT)
    return lambda: log.info("entry stored", operation="STORE", **FIELDS)


def loguru_json() -> Call:
    from loguru import logger

    logger.remove()
    logger.add(file("loguru"), serialize=True, rotation="50 MB")
    log = logger.bind(**CONTEXT, **FIELDS)
    return lambda: log.bind(event_id=uuid.uuid4().hex).info("STORE")


def eliot_file() -> Call:
    import eliot

    eliot.to_file(open(file("eliot"), "ab"))
    return lambda: eliot.log_message(message_type="STORE", event_id=uuid.uuid4().hex, **CONTEXT, **FIELDS)


def picologging_orjson() -> Call:
    import orjson
    import picologging

    logger = picologging.getLogger("bench.picologging")
    logger.setLevel(picologging.INFO)
    handler = picologging.FileHandler(file("picologging"))
    handler.setFormatter(picologging.Formatter("%(message)s"))
    logger.addHandler(handler)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        logger.info("%s", orjson.dumps(event).decode())

    return call


def axon() -> Call:
    from axon.core.audit import AuditLogger
    from axon.models.audit import EventStatus, OperationType

    peer, loop = AuditLogger(max_events=10_000), asyncio.new_event_loop()
    fields = {key: value for key, value in FIELDS.items() if key != "status"}

    async def many(count: int) -> None:
        for _ in range(count):
            await peer.log_event(operation=OperationType.STORE, status=EventStatus.SUCCESS, **CONTEXT, **fields)

    return lambda: loop.run_until_complete(many(100))


def ours_bound() -> Call:
    import structlog_audit

    logger = logger_with("ours", structlog_audit.AuditHandler(filename=file("ours")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_two_more() -> Call:
    import structlog_audit

    logger = logger_with("ours2", structlog_audit.AuditHandler(filename=file("ours2")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT, request_id="r-1", region="eu")
    return lambda: log.info("STORE", **FIELDS)


EVERY_FILTER = {
    "user_id": "nobody",
    "session_id": "none",
    "operation": "NOTHING",
    "entry_ids": "none",
    "status": "PARTIAL",
    "kind": "gap",
}
"""A question that needs every index."""


def asked(name: str, filters: dict[str, str]) -> Call:
    import structlog_audit

    handler = structlog_audit.AuditHandler(filename=file(name))
    log = structlog_audit.get_audit_logger(logger_with(name, handler).name).bind(**CONTEXT)

    def call() -> None:
        for _ in range(1_000):
            log.info("STORE", **FIELDS)
        handler.count_events(**filters)

    return call


def ours_asked_by_user() -> Call:
    return asked("ours3", {"user_id": "nobody"})


def ours_asked_by_all() -> Call:
    return asked("ours8", EVERY_FILTER)


def ours_watched() -> Call:
    import structlog_audit
    from structlog_audit.monitoring import DEFAULT_RULES

    logger = logger_with("watched", structlog_audit.AuditHandler(filename=file("watched"), monitor=DEFAULT_RULES))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_unredacted() -> Call:
    import structlog_audit

    logger = logger_with("ours6", structlog_audit.AuditHandler(filename=file("ours6"), redactor=None))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_processor() -> Call:
    import structlog_audit

    audit = logger_with("ours7", structlog_audit.AuditHandler(filename=file("ours7")))
    return chain(structlog_audit.AuditProcessor(audit.name))


def ours_stdlib() -> Call:
    import structlog_audit

    logger = logger_with("ours4", structlog_audit.AuditHandler(filename=file("ours4")))
    return lambda: logger.info("STORE", extra={**CONTEXT, **FIELDS})


def ours_log_event() -> Call:
    import structlog_audit

    audit, loop = structlog_audit.AuditLogger(filename=file("ours5")), asyncio.new_event_loop()

    async def many(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **CONTEXT, **FIELDS)

    return lambda: loop.run_until_complete(many(100))


CASES: dict[str, tuple[Callable[[], Call], int]] = {
    "limit (uuid4, clock, orjson, one write)": (limit, 1),
    "the steps of ours, in one function": (steps, 1),
    "the path of ours, in one function": (path, 1),
    "the same, with two extra fields": (path_two_more, 1),
    "ours: get_audit_logger().info": (ours_bound, 1),
    "ours: the same, with two extra fields": (ours_two_more, 1),
    "ours: the same, asked by user every 1,000": (ours_asked_by_user, 1_000),
    "ours: the same, asked by all every 1,000": (ours_asked_by_all, 1_000),
    "ours: the same, watched by three rules": (ours_watched, 1),
    "ours: the same, without redaction": (ours_unredacted, 1),
    "ours: AuditProcessor in an app's chain": (ours_processor, 1),
    "ours: logging.info(extra=...)": (ours_stdlib, 1),
    "ours: await log_event(...)": (ours_log_event, 100),
    "structlog: an app's chain, dropped": (structlog_dropped, 1),
    "stdlib: logging.info(extra=...), no handler": (stdlib_null, 1),
    "axon AuditLogger, memory only": (axon, 100),
    "picologging, orjson by hand": (picologging_orjson, 1),
    "eliot": (eliot_file, 1),
    "stdlib, json-logger orjson, rotating": (stdlib_json, 1),
    "structlog, json-logger orjson, rotating": (structlog_json, 1),
    "loguru serialize": (loguru_json, 1),
}
"""The cases, and how many events a call of each records."""

LIMIT_OF_THREADS, OURS_OF_THREADS = "the limit", "ours: get_audit_logger().info"

THREADED: dict[str, Callable[[], Call]] = {
    LIMIT_OF_THREADS: limit,
    "the limit, one write at a time": limit_in_order,
    OURS_OF_THREADS: ours_bound,
}
"""The cases that several threads share."""

OURS = [name for name in CASES if name.startswith("ours: ")]


def ours_held(events: int, filled: int) -> Call:
    """A buffer for so many *events* that holds *filled*, its indexes up to date."""
    import structlog_audit

    handler = structlog_audit.AuditHandler(events, filename=file("held"))
    log = structlog_audit.get_audit_logger(logger_with("held", handler).name).bind(**CONTEXT)
    for _ in range(filled):
        log.info("STORE", **FIELDS)
    handler.count_events(user_id="nobody")
    return lambda: log.info("STORE", **FIELDS)


def ours_on(path: str, max_bytes: int) -> Call:
    """A writer of the trail at *path*, which other processes may write as well."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(path, maxBytes=max_bytes)
    logger = logger_with("shared", structlog_audit.AuditHandler(target=target))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)
