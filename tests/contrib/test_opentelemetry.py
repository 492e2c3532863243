"""Tests with the real OpenTelemetry SDK: the span of an event, and audit events through OpenTelemetry's logging handler."""

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

from structlog_audit import AuditHandler, AuditLogger, AuditProcessor, get_audit_logger
from structlog_audit.contrib.opentelemetry import AuditRecordProcessor
from structlog_audit.events.context import bound_context

TRACER = TracerProvider().get_tracer("tests")


def ids_of(span):
    """The ids of *span* as the metadata has them."""
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


DOORS = [through_bound_logger, through_logging, through_operation, through_processor, through_audit_logger]


@pytest.mark.parametrize("door", DOORS)
def test_the_active_span_is_in_the_metadata(handler, door):
    """By every door, the ids of the span that is active are in the metadata, as 32 and 16 hexadecimal digits."""
    with TRACER.start_as_current_span("span") as span:
        door(handler)
    (event,) = handler.query_events()
    assert event.metadata == ids_of(span)
    assert (len(event.metadata["trace_id"]), len(event.metadata["span_id"])) == (32, 16)


@pytest.mark.parametrize("door", DOORS)
def test_without_a_span_nothing_is_added(handler, door):
    """Without an active span, or with one that is invalid, nothing is added."""
    door(handler)
    with trace.use_span(trace.INVALID_SPAN):
        door(handler)
    assert [event.metadata for event in handler.query_events()] == [{}, {}]


def test_other_fields_of_these_names_win(handler, log):
    """Where a contextvar, a bound value or a field names a trace or a span, neither id of the active span is added to it."""
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


def test_events_are_found_by_their_trace(handler, log):
    """The events of a trace are those whose metadata has its id."""
    with TRACER.start_as_current_span("a") as span:
        log.info("STORE")
    with TRACER.start_as_current_span("b"):
        log.info("RECALL")
    (event,) = handler.query_events(metadata={"trace_id": ids_of(span)["trace_id"]})
    assert event.operation == "STORE"


def test_a_span_that_raises_costs_no_event(handler, log):
    """A span of somebody's own whose context raises, or a package that is only half imported, costs no event."""

    class Raising(trace.NonRecordingSpan):
        def get_span_context(self):
            raise ValueError("no context")

    with trace.use_span(Raising(None), record_exception=False):
        log.info("STORE")
    assert [event.metadata for event in handler.query_events()] == [{}]


def test_a_package_that_is_being_imported_has_no_span(monkeypatch):
    """While somebody imports OpenTelemetry, there is no span."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))
    assert bound_context({}) == {}


def test_nobody_imports_opentelemetry_for_it():
    """Recording an event imports nothing of OpenTelemetry where nobody else has."""
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
    """OpenTelemetry's handler for `logging`, and what comes out at the other end."""

    def __init__(self, *, tidy=True):
        self.exporter = InMemoryLogRecordExporter()
        provider = LoggerProvider(shutdown_on_exit=False)
        if tidy:
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


@pytest.mark.parametrize("tidy", [True, False], ids=["tidy", "as it is"])
def test_every_field_reaches_the_exporter(handler, log, tidy):
    """A second handler on the audit logger exports every field of an event, and the ids of its span, with or without help."""
    pipeline = Pipeline(tidy=tidy)
    logging.getLogger("audit").addHandler(pipeline.handler)
    with TRACER.start_as_current_span("span") as span:
        log.warning("STORE", metadata={"k": {"deep": [1, None]}}, **FIELDS)
    (record,) = pipeline.records()
    context = span.get_span_context()
    assert (record.trace_id, record.span_id) == (context.trace_id, context.span_id)
    assert (record.body, record.severity_text) == ("STORE", "WARN")
    attributes = dict(record.attributes)
    assert ("_audit" in attributes) is not tidy
    attributes.pop("_audit", None)
    assert attributes == {**EXPORTED, **ids_of(span)}
    assert record.event_name == ("STORE" if tidy else None)
    assert handler.count_events(user_id="u", metadata=ids_of(span)) == 1


def test_exceptions_reach_the_exporter(handler, log):
    """An exception is in the record as OpenTelemetry has it, and in the event."""
    pipeline = Pipeline()
    logging.getLogger("audit").addHandler(pipeline.handler)
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("STORE")
    (record,) = pipeline.records()
    assert (record.attributes["exception.type"], record.attributes["exception.message"]) == ("ValueError", "no")
    assert handler.query_events()[0].error_message == "ValueError: no"


def test_as_a_target_it_gets_what_was_recorded():
    """As the target of an `AuditHandler` it exports the event as it was recorded: redacted, with its id and time."""
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


def test_an_event_has_its_own_span_whoever_writes_it():
    """An event that another thread writes, itself in a span, is exported with the span it was sent in, or none."""
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


def test_records_of_others_are_left_alone():
    """A record that is no audit event passes through as it is, whatever its attributes are called."""
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


def test_the_processor_holds_nothing():
    """Flushing and shutting down have nothing to do."""
    processor = AuditRecordProcessor()
    assert processor.force_flush() is True
    assert processor.shutdown() is None
