"""The span of an event, and audit events through OpenTelemetry's logging handler, with the real SDK."""

import logging
import logging.handlers
import queue
import subprocess
import sys
import threading
import types

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from structlog_audit import AuditBoundLogger, AuditHandler, AuditLogger, AuditProcessor, get_audit_logger
from structlog_audit.contrib.opentelemetry import AuditRecordProcessor
from structlog_audit.events.context import with_context
from structlog_audit.testing import FrozenClock

TRACER = TracerProvider().get_tracer("tests")


def ids_of(span):
    """Return the ids of *span* in the form of the metadata."""
    context = span.get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


# --- the span of an event ------------------------------------------------------------------------------------------------


def through_bound_logger(handler):
    get_audit_logger().info("STORE", user_id="u")


def through_logging(handler):
    logging.getLogger("audit").info("STORE", extra={"user_id": "u"})


def through_operation(handler):
    with get_audit_logger().operation("STORE", user_id="u"):
        pass


def through_processor(handler):
    AuditProcessor()(None, "info", {"event": "STORE", "operation": "STORE", "user_id": "u"})


def through_audit_logger(handler):
    AuditLogger(handler=handler).record("STORE", user_id="u")


ENTRY_POINTS = [through_bound_logger, through_logging, through_operation, through_processor, through_audit_logger]


@pytest.mark.parametrize("record", ENTRY_POINTS)
def test_active_span_is_in_the_metadata_through_every_entry_point(handler, record):
    """The ids of the active span are in the metadata, as 32 and 16 hexadecimal digits."""
    with TRACER.start_as_current_span("span") as span:
        record(handler)
    (event,) = handler.query_events()
    assert event.metadata == ids_of(span)
    assert (len(event.metadata["trace_id"]), len(event.metadata["span_id"])) == (32, 16)


@pytest.mark.parametrize("record", ENTRY_POINTS)
def test_inactive_or_invalid_span_adds_no_ids(handler, record):
    """Without an active span, or with an invalid one, no ids are added."""
    record(handler)
    with trace.use_span(trace.INVALID_SPAN):
        record(handler)
    assert [event.metadata for event in handler.query_events()] == [{}, {}]


def test_fields_named_like_ids_suppress_those_of_the_span(handler, log):
    """If a contextvar, a bound value or a field names a trace or span, neither id of the active span is added."""
    with TRACER.start_as_current_span("span"):
        with structlog.contextvars.bound_contextvars(trace_id="mine"):
            log.info("STORE")
        log.bind(trace_id="mine").info("STORE")
        log.info("STORE", trace_id="mine", span_id="too")
        log.info("STORE", metadata={"span_id": "mine"})
        logging.getLogger("audit").info("STORE", extra={"trace_id": "mine"})
    first, second, third, fourth, fifth = handler.query_events(newest_first=False)
    assert first.metadata == {"trace_id": "mine"}
    assert second.metadata == fifth.metadata == {"trace_id": "mine"}
    assert third.metadata == {"trace_id": "mine", "span_id": "too"}
    assert fourth.metadata == {"span_id": "mine"}


def test_query_by_trace_id_finds_the_events_of_a_trace(handler, log):
    """The events of a trace are those whose metadata has its id."""
    with TRACER.start_as_current_span("a") as span:
        log.info("STORE")
    with TRACER.start_as_current_span("b"):
        log.info("RECALL")
    (event,) = handler.query_events(metadata={"trace_id": ids_of(span)["trace_id"]})
    assert event.operation == "STORE"


def test_span_whose_context_raises_loses_no_event(handler, log):
    """An event is recorded even if the context of the active span raises."""

    class Raising(trace.NonRecordingSpan):
        def get_span_context(self):
            raise ValueError("no context")

    with trace.use_span(Raising(None), record_exception=False):
        log.info("STORE")
    assert [event.metadata for event in handler.query_events()] == [{}]


def test_package_during_its_import_has_no_span(monkeypatch):
    """While OpenTelemetry is being imported, there is no active span."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))
    assert with_context({}) == {}


def test_recording_does_not_import_opentelemetry():
    """Recording an event imports no module of OpenTelemetry by itself."""
    code = (
        "import logging, sys; from structlog_audit import AuditHandler, get_audit_logger;"
        "logger = logging.getLogger('audit'); logger.propagate = False; logger.setLevel('INFO');"
        "handler = AuditHandler(); logger.addHandler(handler); get_audit_logger().info('STORE');"
        "assert [event.metadata for event in handler.query_events()] == [{}];"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- through OpenTelemetry's handler -------------------------------------------------------------------------------------


class Pipeline:
    """OpenTelemetry's handler for `logging`, and the log records that it exports."""

    def __init__(self, *, processed=True):
        self.exporter = InMemoryLogRecordExporter()
        provider = LoggerProvider(shutdown_on_exit=False)
        if processed:
            provider.add_log_record_processor(AuditRecordProcessor())
        provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.handler = LoggingHandler(logger_provider=provider)

    def records(self):
        return [one.log_record for one in self.exporter.get_finished_logs()]


FIELDS = {
    "user_id": "u",
    "session_id": "s",
    "entry_ids": ["e1", "e2"],
    "status": "PARTIAL",
    "error_message": "half of it",
    "duration_ms": 1.5,
    "tags": ["a"],
    "name": "reserved by logging",
}
EXPORTED = {
    **{name: tuple(value) if isinstance(value, list) else value for name, value in FIELDS.items() if name != "name"},
    "name_": "reserved by logging",
    "operation": "STORE",
    "metadata": {"k": {"deep": (1, None)}},
}


@pytest.mark.parametrize("processed", [True, False], ids=["processed", "as it is"])
def test_second_handler_exports_every_field_and_the_span(handler, log, processed):
    """A second handler exports every field of an event and the ids of its span, with or without the processor."""
    pipeline = Pipeline(processed=processed)
    logging.getLogger("audit").addHandler(pipeline.handler)
    with TRACER.start_as_current_span("span") as span:
        log.warning("STORE", metadata={"k": {"deep": [1, None]}}, **FIELDS)
    (record,) = pipeline.records()
    context = span.get_span_context()
    assert (record.trace_id, record.span_id) == (context.trace_id, context.span_id)
    assert (record.body, record.severity_text) == ("STORE", "WARN")
    attributes = dict(record.attributes)
    assert ("_audit" in attributes) is not processed
    attributes.pop("_audit", None)
    assert attributes == {**EXPORTED, **ids_of(span)}
    assert record.event_name == ("STORE" if processed else None)
    assert handler.count_events(user_id="u", metadata=ids_of(span)) == 1


def test_exception_reaches_the_exporter_and_the_event(handler, log):
    """An exception is in the log record in OpenTelemetry's form, and in the event."""
    pipeline = Pipeline()
    logging.getLogger("audit").addHandler(pipeline.handler)
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("STORE")
    (record,) = pipeline.records()
    assert (record.attributes["exception.type"], record.attributes["exception.message"]) == ("ValueError", "no")
    assert handler.query_events()[0].error_message == "ValueError: no"


def test_handler_as_target_exports_the_recorded_event():
    """As a target it exports the event as recorded: redacted, with its id and time."""
    pipeline = Pipeline()
    handler = AuditHandler(target=pipeline.handler)
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "user_id": "u", "password": "clear"}))
    (record,), (event,) = pipeline.records(), handler.query_events()
    assert dict(record.attributes) == {
        name: value for name, value in event.to_dict().items() if value not in (None, [], {})
    }
    assert "clear" not in str(record.attributes)
    assert (record.event_name, record.body) == ("STORE", "STORE")
    handler.close()


LIMIT = "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT"


@pytest.mark.parametrize("processed", [True, False], ids=["processed", "as it is"])
@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
def test_dropped_attributes_are_counted_and_the_actor_is_kept(handler, log, monkeypatch, processed):
    """Of more fields than OpenTelemetry takes, a second handler exports the actor, and the dropped ones are counted."""
    monkeypatch.setenv(LIMIT, "10")
    pipeline = Pipeline(processed=processed)
    logging.getLogger("audit").addHandler(pipeline.handler)
    log.info("STORE", user_id="u", session_id="s", **{f"f{number}": number for number in range(20)})
    (found,) = pipeline.exporter.get_finished_logs()
    attributes = dict(found.log_record.attributes)
    internal = attributes.pop("_audit", None)
    assert (attributes["user_id"], attributes["session_id"], attributes["operation"]) == ("u", "s", "STORE")
    assert len(attributes) + found.dropped_attributes == 23
    assert (internal is None) is processed


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 100])
@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
def test_limit_keeps_the_actor_of_a_recorded_event(monkeypatch, limit):
    """Of a recorded event, the actor is kept before all other members, and the dropped ones are counted."""
    monkeypatch.setenv(LIMIT, str(limit))
    pipeline = Pipeline()
    handler = AuditHandler(target=pipeline.handler)
    AuditLogger(handler=handler).record("STORE", "u", "s", ["e1"], metadata={"k": 1}, duration_ms=1.5)
    (found,), (event,) = pipeline.exporter.get_finished_logs(), handler.query_events()
    members = {name: value for name, value in event.to_dict().items() if value is not None}
    kept = [
        "user_id",
        "operation",
        "status",
        "event_id",
        "session_id",
        "timestamp",
        "duration_ms",
        "entry_ids",
        "metadata",
    ]
    assert list(found.log_record.attributes)[::-1] == kept[:limit]
    assert len(found.log_record.attributes) + found.dropped_attributes == len(members)
    handler.close()


def test_time_of_a_recorded_event_is_exact():
    """The time of the log record is that of the event to the microsecond, for all microseconds."""
    pipeline = Pipeline()
    clock = FrozenClock("2025-01-15T10:30:45.000000Z")
    handler = AuditHandler(target=pipeline.handler, clock=clock)
    expected = []
    for _ in range(300):
        AuditLogger(handler=handler).record("STORE")
        expected.append(clock() // 1_000 * 1_000)
        clock.advance(microseconds=3_337)
    assert [record.timestamp for record in pipeline.records()] == expected
    handler.close()


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (2**63 - 1, 2**63 - 1),
        ([1, 2**63], (1, str(2**63))),
        ({"deep": [{"n": 2**64 - 1}]}, {"deep": ({"n": str(2**64 - 1)},)}),
        (True, True),
        ("é\ud800", "é\\ud800"),
        ({"\ud800": 1}, {"\\ud800": 1}),
    ],
    ids=repr,
)
def test_value_that_otlp_cannot_encode_is_text(handler, log, value, exported):
    """A value beyond 64 bits or UTF-8 becomes text, so that the others beside it are exported."""
    pipeline = Pipeline()
    logging.getLogger("audit").addHandler(pipeline.handler)
    log.info("STORE", metadata={"n": value, "k": 1})
    (record,) = pipeline.records()
    assert record.attributes["metadata"] == {"n": exported, "k": 1}


def test_large_integer_of_a_recorded_event_is_text():
    """An integer beyond 64 bits in a recorded event becomes text, and the metadata beside it is exported."""
    pipeline = Pipeline()
    handler = AuditHandler(target=pipeline.handler)
    AuditLogger(handler=handler).record("STORE", metadata={"n": 2**63, "k": 1})
    (record,) = pipeline.records()
    assert record.attributes["metadata"] == {"n": str(2**63), "k": 1}
    handler.close()


def test_name_that_utf8_cannot_encode_is_escaped(handler):
    """Operations and names of attributes with lone surrogates are escaped: they would take a whole batch with them."""
    pipeline = Pipeline()
    # A logger outside the tree: pytest-xdist cannot pass on a captured log with a lone surrogate.
    logger = logging.Logger("audit.apart", logging.INFO)
    logger.addHandler(handler)
    logger.addHandler(pipeline.handler)
    AuditBoundLogger(logger, (), {}).info("\ud800", **{"\udcff": 1})
    (record,) = pipeline.records()
    assert (record.body, record.event_name) == ("\\ud800", "\\ud800")
    assert record.attributes["\\udcff"] == 1


def test_forged_line_changes_nothing_else():
    """An application's value under the internal name is removed, and the others are exported."""
    pipeline = Pipeline()
    for forged in (b"not a line", "text", 5):
        pipeline.handler.handle(
            logging.makeLogRecord({"msg": "hello", "levelno": 20, "_audit_line": forged, "user_id": "u"})
        )
    assert [dict(record.attributes) for record in pipeline.records()] == [{"user_id": "u"}] * 3


def test_event_keeps_the_span_of_its_sender_across_threads():
    """An event that another thread writes is exported with the span of its sender, or without one."""
    pipeline = Pipeline()
    target = AuditHandler(target=pipeline.handler)
    listener = logging.handlers.QueueListener(queue.SimpleQueue(), target)
    logger = logging.getLogger("audit")
    logger.propagate = False
    logger.setLevel("INFO")
    logger.addHandler(logging.handlers.QueueHandler(listener.queue))
    log = get_audit_logger()
    with TRACER.start_as_current_span("sender") as span:
        log.info("STORE")
    log.info("RECALL")

    def listen():
        with TRACER.start_as_current_span("listener"):
            for _ in range(2):
                listener.handle(listener.dequeue(True))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    first, second = pipeline.records()
    context = span.get_span_context()
    assert (first.trace_id, first.span_id) == (context.trace_id, context.span_id)
    assert (second.trace_id, second.span_id) == (0, 0)
    target.close()


def test_processor_leaves_other_records_unchanged():
    """A record that is not an audit event passes unchanged, whatever its attributes are called."""
    pipeline = Pipeline()
    logger = logging.getLogger("app")
    logger.propagate = False
    logger.setLevel("INFO")
    logger.addHandler(pipeline.handler)
    with TRACER.start_as_current_span("span") as span:
        logger.info("hello", extra={"operation": "STORE", "trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1"})
    (record,) = pipeline.records()
    assert record.event_name is None
    assert record.trace_id == span.get_span_context().trace_id
    assert record.attributes["operation"] == "STORE"


def test_processor_flush_and_shutdown_do_nothing():
    """The processor holds no records, so flushing and shutting down have no effect."""
    processor = AuditRecordProcessor()
    assert processor.force_flush() is True
    assert processor.shutdown() is None
