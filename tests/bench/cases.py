"""The cases of the benchmark: the lower bounds, this library, and its peers.

Each case is a function that prepares its objects and returns the call to be measured.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import logging.handlers
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from example_event import CONTEXT, FIELDS, Call, logger_with, path_of
from lower_bounds import limit, limit_in_order, path, path_two_more, steps


def rotating(name: str) -> logging.Handler:
    """Return the rotating file handler with python-json-logger's orjson formatter."""
    from pythonjsonlogger.orjson import OrjsonFormatter

    handler = logging.handlers.RotatingFileHandler(path_of(name), maxBytes=50_000_000, backupCount=5)
    handler.setFormatter(OrjsonFormatter("%(message)s", timestamp=True))
    return handler


def stdlib_json() -> Call:
    """Return a call of `logging` that writes JSON to a rotating file."""
    logger = logger_with("stdlib", rotating("stdlib"))
    return lambda: logger.info("STORE", extra={"event_id": uuid.uuid4().hex, **CONTEXT, **FIELDS})


def structlog_json() -> Call:
    """Return a call of structlog that writes JSON through `logging`.

    The handler is that of `stdlib_json`.
    """
    return usual_stack("structlog", FIELDS)


def usual_stack(name: str, fields: Mapping[str, Any]) -> Call:
    """Return a call of structlog, through `logging` and python-json-logger to a rotating file, with *fields*."""
    import structlog

    log = structlog.wrap_logger(
        logger_with(name, rotating(name)),
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
    return lambda: log.info("STORE", event_id=uuid.uuid4().hex, **fields)


def stdlib_null() -> Call:
    """Return a call of `logging` without a handler.

    It shows the share of `ours_stdlib` that `logging` itself takes.
    """
    logger = logger_with("null", logging.NullHandler())
    return lambda: logger.info("STORE", extra={**CONTEXT, **FIELDS})


def structlog_dropped() -> Call:
    """Return a call of the chain of `ours_processor` without the processor.

    It shows the share that structlog itself takes.
    """
    return chain()


def chain(*processors: Callable[..., object]) -> Call:
    """Return a call of a chain of an application with *processors*.

    The last processor drops the event, so that no renderer is measured.
    """
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
    """Return a call of loguru that writes JSON, by its ``serialize`` option, to a rotating file."""
    from loguru import logger

    logger.remove()
    logger.add(path_of("loguru"), serialize=True, rotation="50 MB")
    log = logger.bind(**CONTEXT, **FIELDS)
    return lambda: log.bind(event_id=uuid.uuid4().hex).info("STORE")


def eliot_file() -> Call:
    """Return a call of eliot that writes to a file."""
    import eliot

    eliot.to_file(open(path_of("eliot"), "ab"))
    return lambda: eliot.log_message(message_type="STORE", event_id=uuid.uuid4().hex, **CONTEXT, **FIELDS)


def picologging_orjson() -> Call:
    """Return a call of picologging with a message that is encoded by the caller."""
    import orjson
    import picologging

    logger = picologging.getLogger("bench.picologging")
    logger.setLevel(picologging.INFO)
    handler = picologging.FileHandler(path_of("picologging"))
    handler.setFormatter(picologging.Formatter("%(message)s"))
    logger.addHandler(handler)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        logger.info("%s", orjson.dumps(event).decode())

    return call


def axon() -> Call:
    """Return a call that records a hundred events with axon, in memory only."""
    from axon.core.audit import AuditLogger
    from axon.models.audit import EventStatus, OperationType

    peer = AuditLogger(max_events=10_000)
    loop = asyncio.new_event_loop()
    fields = {key: value for key, value in FIELDS.items() if key != "status"}

    async def trail_lines(count: int) -> None:
        for _ in range(count):
            await peer.log_event(operation=OperationType.STORE, status=EventStatus.SUCCESS, **CONTEXT, **fields)

    return lambda: loop.run_until_complete(trail_lines(100))


def ours_bound() -> Call:
    """Return a call of a bound logger."""
    import structlog_audit

    logger = logger_with("ours", structlog_audit.AuditHandler(filename=path_of("ours")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_two_more() -> Call:
    """Return a call of a bound logger with two more fields, for the metadata."""
    import structlog_audit

    logger = logger_with("ours2", structlog_audit.AuditHandler(filename=path_of("ours2")))
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
"""A query that needs every index and has no result."""


def queried(name: str, filters: dict[str, str]) -> Call:
    """Return a call that records a thousand events and then queries with *filters*."""
    import structlog_audit

    handler = structlog_audit.AuditHandler(filename=path_of(name))
    logger = logger_with(name, handler)
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)

    def call() -> None:
        for _ in range(1_000):
            log.info("STORE", **FIELDS)
        handler.count_events(**filters)

    return call


def ours_queried_by_user() -> Call:
    """Return a call that records a thousand events and then queries by user."""
    return queried("ours3", {"user_id": "nobody"})


def ours_queried_by_all() -> Call:
    """Return a call that records a thousand events and then filters by all fields."""
    return queried("ours8", EVERY_FILTER)


def ours_monitored() -> Call:
    """Return a call of a bound logger with the default monitoring rules."""
    import structlog_audit
    from structlog_audit.monitoring import DEFAULT_RULES

    handler = structlog_audit.AuditHandler(filename=path_of("monitored"), monitor=DEFAULT_RULES)
    logger = logger_with("monitored", handler)
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_unredacted() -> Call:
    """Return a call of a bound logger without redaction."""
    import structlog_audit

    logger = logger_with("ours6", structlog_audit.AuditHandler(filename=path_of("ours6"), redactor=None))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def integrity_of(name: str) -> dict[str, str]:
    """Return the settings of a sealed trail, with a new key."""
    from structlog_audit.integrity.signing import generate_key

    origin, key = "bench.example/trail", f"{path_of(name)}.pem"
    generate_key(key, origin)
    return {"origin": origin, "key": key}


def ours_unsealed(name: str = "unsealed") -> Call:
    """Return a call of a bound logger like those of `ours_chained` and `ours_sealed`."""
    import structlog_audit

    logger = logger_with(name, structlog_audit.AuditHandler(filename=path_of(name)))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_chained() -> Call:
    """Return a call of a bound logger with links, whose lines another process seals."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(path_of("chained"), integrity={"origin": "bench.example/trail"})
    logger = logger_with("chained", structlog_audit.AuditHandler(target=target))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


SEALED_EVENTS = 20_000


def ours_sealed() -> Call:
    """Return a call that records `SEALED_EVENTS` events and seals them, without the thread that does so once a second."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(path_of("sealed"), integrity=integrity_of("sealed"))
    target.integrity._start = lambda *_: False
    logger = logger_with("sealed", structlog_audit.AuditHandler(target=target))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)

    def call() -> None:
        for _ in range(SEALED_EVENTS):
            log.info("STORE", **FIELDS)
        target.integrity.seal_now()

    return call


def ours_beside_sealer(name: str = "beside") -> Call:
    """Return a call of a bound logger in whose process a thread seals once a second."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(path_of(name), integrity=integrity_of(name))
    logger = logger_with(name, structlog_audit.AuditHandler(target=target))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_processor() -> Call:
    """Return a call of an application's structlog chain with the processor in it."""
    import structlog_audit

    audit = logger_with("ours7", structlog_audit.AuditHandler(filename=path_of("ours7")))
    return chain(structlog_audit.AuditProcessor(audit.name))


def ours_stdlib() -> Call:
    """Return a call of `logging`."""
    import structlog_audit

    logger = logger_with("ours4", structlog_audit.AuditHandler(filename=path_of("ours4")))
    return lambda: logger.info("STORE", extra={**CONTEXT, **FIELDS})


def ours_log_event() -> Call:
    """Return a call that records a hundred events with the coroutine of `AuditLogger`."""
    import structlog_audit

    audit = structlog_audit.AuditLogger(filename=path_of("ours5"))
    loop = asyncio.new_event_loop()

    async def trail_lines(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **CONTEXT, **FIELDS)

    return lambda: loop.run_until_complete(trail_lines(100))


def ours_operation() -> Call:
    """Return a call that records a block."""
    return operation("ours9", intent=False)


def ours_operation_intent() -> Call:
    """Return a call that records a block and its intent, which are two events."""
    return operation("ours10", intent=True)


def operation(name: str, *, intent: bool) -> Call:
    """Return a call that records a block with the fields of the example."""
    import structlog_audit

    logger = logger_with(name, structlog_audit.AuditHandler(filename=path_of(name)))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    fields = {key: value for key, value in FIELDS.items() if key != "duration_ms"}

    def call() -> None:
        with log.operation("STORE", intent=intent, **fields):
            pass

    return call


def ours_audited() -> Call:
    """Return a call of a function that is recorded, with the values of the example in its arguments."""
    import structlog_audit

    logger = logger_with("ours11", structlog_audit.AuditHandler(filename=path_of("ours11")))
    metadata = FIELDS["metadata"]

    @structlog_audit.audited(
        "STORE",
        user_id="user_id",
        session_id="session_id",
        entry_ids="entry_ids",
        metadata={name: name for name in metadata},  # type: ignore[attr-defined]
        logger=logger.name,
    )
    def store(
        user_id: str, session_id: str, entry_ids: list[str], importance: float, tags: list[str], source: str
    ) -> None:
        """Do nothing."""

    arguments = {**CONTEXT, "entry_ids": FIELDS["entry_ids"], **metadata}  # type: ignore[dict-item]
    return lambda: store(**arguments)


CASES: dict[str, tuple[Callable[[], Call], int]] = {
    "limit (uuid4, clock, orjson, one write)": (limit, 1),
    "the steps of ours, in one function": (steps, 1),
    "the path of ours, in one function": (path, 1),
    "the same, with two extra fields": (path_two_more, 1),
    "ours: get_audit_logger().info": (ours_bound, 1),
    "ours: the same, with two extra fields": (ours_two_more, 1),
    "ours: the same, queried by user every 1,000": (ours_queried_by_user, 1_000),
    "ours: the same, queried by all every 1,000": (ours_queried_by_all, 1_000),
    "ours: the same, with three monitoring rules": (ours_monitored, 1),
    "ours: the same, without redaction": (ours_unredacted, 1),
    "ours: AuditProcessor in an app's chain": (ours_processor, 1),
    "ours: logging.info(extra=...)": (ours_stdlib, 1),
    "ours: await log_event(...)": (ours_log_event, 100),
    "ours: with log.operation(...)": (ours_operation, 1),
    "ours: the same, with an intent": (ours_operation_intent, 2),
    "ours: @audited": (ours_audited, 1),
    "structlog: an app's chain, dropped": (structlog_dropped, 1),
    "stdlib: logging.info(extra=...), no handler": (stdlib_null, 1),
    "axon AuditLogger, memory only": (axon, 100),
    "picologging, orjson by hand": (picologging_orjson, 1),
    "eliot": (eliot_file, 1),
    "stdlib, json-logger orjson, rotating": (stdlib_json, 1),
    "structlog, json-logger orjson, rotating": (structlog_json, 1),
    "loguru serialize": (loguru_json, 1),
}
"""The cases, each with the number of events that one call records."""

LIMIT_OF_THREADS = "the limit"
OURS_OF_THREADS = "ours: get_audit_logger().info"

THREADED: dict[str, Callable[[], Call]] = {
    LIMIT_OF_THREADS: limit,
    "the limit, one write at a time": limit_in_order,
    OURS_OF_THREADS: ours_bound,
}
"""The cases that run in several threads at once."""

UNSEALED = "without integrity"

SEALED: dict[str, tuple[Callable[[], Call], int]] = {
    UNSEALED: (ours_unsealed, 1),
    "with links, which is the caller's part": (ours_chained, 1),
    "with links and seals, which is everything": (ours_sealed, SEALED_EVENTS),
}
"""The cases of the cost of integrity, each with the number of events that one call records."""

OURS = [name for name in CASES if name.startswith("ours: ")]
"""The cases of this library."""


READ_EVENTS = 10_000
"""The events of the trail that the cases of reading read."""


def _trail() -> Path:
    """Write a trail of four segments, and return the path of the active one."""
    import reading

    folder = Path(path_of("trail")).with_suffix("")
    path = folder / "audit.jsonl"
    if not folder.exists():
        folder.mkdir()
        reading.write(folder, READ_EVENTS, 4)
    return path


def read_all() -> Call:
    """Return a call that reads and decodes all events of a trail."""
    import structlog_audit

    path = _trail()
    return lambda: structlog_audit.open_trail(path).count_events()


def read_user() -> Call:
    """Return a call that counts the few events of a user."""
    import structlog_audit

    path = _trail()
    return lambda: structlog_audit.open_trail(path).count_events(user_id="user_5")


def read_statistics() -> Call:
    """Return a call that computes the statistics of all events."""
    import structlog_audit

    path = _trail()
    return lambda: structlog_audit.open_trail(path).get_statistics()


def export_as(suffix: str) -> Call:
    """Return a call that exports all events."""
    import structlog_audit

    path = _trail()
    target = path_of("export") + suffix
    return lambda: structlog_audit.open_trail(path).export_to_file(target)


def export_jsonl() -> Call:
    """Return a call that exports all events as lines."""
    return export_as(".jsonl")


def export_csv() -> Call:
    """Return a call that exports all events as a table."""
    return export_as(".csv")


READING: dict[str, tuple[Callable[[], Call], int]] = {
    "reading: all events": (read_all, READ_EVENTS),
    "reading: the events of a user": (read_user, READ_EVENTS // 5),
    "reading: statistics": (read_statistics, READ_EVENTS),
    "reading: export as jsonl": (export_jsonl, READ_EVENTS),
    "reading: export as csv": (export_csv, READ_EVENTS),
}
"""The cases of reading, each with the number of events that a call stands for in the length of a round."""

COMPARED = {**{name: CASES[name] for name in OURS}, **READING}
"""The cases that two checkouts are compared by."""


def ours_held(events: int, filled: int) -> Call:
    """Return a call that records into a buffer that holds indexed events.

    Args:
        events: The size of the buffer.
        filled: The number of events in it at the beginning.
    """
    import structlog_audit

    handler = structlog_audit.AuditHandler(events, filename=path_of("held"))
    logger = logger_with("held", handler)
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    for _ in range(filled):
        log.info("STORE", **FIELDS)

    # The first query builds the index.
    handler.count_events(user_id="nobody")
    return lambda: log.info("STORE", **FIELDS)


def ours_on(path: str, max_bytes: int) -> Call:
    """Return a call that records into the trail at *path*.

    Other processes may append to it as well.
    """
    import structlog_audit

    target = structlog_audit.AuditFileHandler(path, maxBytes=max_bytes)
    logger = logger_with("shared", structlog_audit.AuditHandler(target=target))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)
