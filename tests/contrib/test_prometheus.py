"""Audit events as metrics, as a real Prometheus client shows them."""

from __future__ import annotations

import logging
import os
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from structlog_audit import AuditHandler, AuditLogger, AuditTypeError, AuditValueError, get_audit_logger
from structlog_audit.contrib.prometheus import AuditCollector
from structlog_audit.testing import FailingTarget


def registry(*handlers, **options):
    made = CollectorRegistry(auto_describe=True)
    made.register(AuditCollector(*handlers, **options))
    return made


def value(registry, name, **labels):
    """The value of the sample of this *name*, of the one handler that there is."""
    return registry.get_sample_value(f"structlog_audit_{name}", {"handler": "audit", **labels})


def test_a_scrape_over_http(log):
    """What the real server of the client shows can be read by its own parser, and says what happened."""
    log.info("STORE", duration_ms=3.0)
    log.error("FORGET")
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry())
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    samples = {
        (sample.name, sample.labels.get("operation"), sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["structlog_audit_recorded_events_total", None, None] == 2
    assert samples["structlog_audit_events_total", "STORE", "SUCCESS"] == 1
    assert samples["structlog_audit_events_total", "FORGET", "FAILURE"] == 1
    assert samples["structlog_audit_duration_seconds_count", "STORE", None] == 1


def test_each_event_counts_once_however_often_it_is_scraped(log):
    """Counters only grow, by the events that came."""
    shown = registry()
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") is None
    for count in range(1, 4):
        log.info("STORE")
        for _ in range(2):
            assert value(shown, "events_total", operation="STORE", status="SUCCESS") == count
            assert value(shown, "recorded_events_total") == count
    assert value(shown, "unseen_events_total") == 0
    assert value(shown, "buffered_events") == 4  # and that the trail was opened


def test_durations_lie_in_buckets(log):
    """Buckets are cumulative, their upper ends belong to them, and the sum is in seconds."""
    for milliseconds in (5.0, 10.0, 11.0, 90_000.0):
        log.info("STORE", duration_ms=milliseconds)
    log.info("STORE")
    shown = registry(buckets=(0.01, 1.0))
    assert [value(shown, "duration_seconds_bucket", operation="STORE", le=end) for end in ("0.01", "1.0", "+Inf")] == [
        2,
        3,
        4,
    ]
    assert value(shown, "duration_seconds_sum", operation="STORE") == pytest.approx(90.026)
    assert value(shown, "duration_seconds_count", operation="STORE") == 4


def test_cardinality_is_bounded(log):
    """Operations beyond the bound, and endless ones, are one; the six keep their labels."""
    shown = registry(max_operations=8)
    for operation in [f"op{number}" for number in range(50)] + ["x" * 1_000, "EXPORT"]:
        log.info(operation)
    text = generate_latest(shown).decode()
    assert text.count("structlog_audit_events_total{") == 4
    assert value(shown, "events_total", operation="other", status="SUCCESS") == 49
    assert value(shown, "events_total", operation="EXPORT", status="SUCCESS") == 1


def test_failures_of_the_target(capsys):
    """Pending, lost and raised events are shown; what is lost is in no series by operation."""
    target = FailingTarget()
    handler = AuditHandler(target=target, max_pending=1, call_later=lambda seconds, function: None)
    audit = AuditLogger(handler=handler)
    shown = registry(handler)
    target.fail()
    audit.record("STORE")
    audit.record("STORE")
    assert value(shown, "pending_events") == 1
    assert value(shown, "lost_events_total") == 1
    assert value(shown, "accepted_events_total") == 2
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") == 1
    target.recover()
    handler.flush()
    assert value(shown, "pending_events") == 0
    assert value(shown, "recorded_events_total") == 1
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") == 1
    assert value(shown, "raised_events_total") == 0


def test_what_left_the_buffer_between_scrapes_is_counted():
    """If the buffer was too small for a scrape's time, how many events are in no series by operation is shown."""
    handler = AuditHandler(3)
    audit = AuditLogger(3, handler=handler)
    shown = registry(handler)
    for _ in range(10):
        audit.record("STORE")
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") == 3
    assert value(shown, "unseen_events_total") == 7
    audit.record("STORE")
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") == 4
    assert value(shown, "unseen_events_total") == 7
    assert value(shown, "evicted_events_total") == 8


def test_intents_and_a_warm_start_are_not_counted_as_events(path):
    """Events of an earlier process, and what was only intended, are in no series by operation."""
    before = AuditLogger(filename=path)
    before.record("STORE")
    before.close()
    handler = AuditHandler(filename=path, warm_start=True)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    shown = registry()
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") is None
    with get_audit_logger().operation("STORE", intent=True):
        pass
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") == 1
    assert value(shown, "recorded_events_total") == 2
    assert value(shown, "unseen_events_total") == 0


def test_handlers_are_those_that_are_attached(log, handler):
    """Without handlers given, those attached at the time of a scrape are read, each by its name."""
    shown = registry()
    log.info("STORE")
    assert value(shown, "recorded_events_total") == 1
    other = AuditHandler()
    other.name = "other"
    third = AuditHandler()
    logging.getLogger("elsewhere").addHandler(other)
    logging.getLogger("elsewhere").addHandler(third)
    assert value(shown, "recorded_events_total") == 1
    assert value(shown, "recorded_events_total", handler="other") == 0
    assert value(shown, "recorded_events_total", handler="audit#2") == 0
    logging.getLogger("audit").removeHandler(handler)
    logging.getLogger("elsewhere").handlers.clear()
    assert "structlog_audit_recorded_events_total{" not in generate_latest(shown).decode()
    other.name = None


def test_alerts_and_unheard_events_are_shown(log):
    """How often each rule alerted, and what reached no handler, by cause."""
    handler = AuditHandler(monitor=[{"name": "any", "more_than": 0, "within": 60}], call_later=lambda *_: None)
    AuditLogger(handler=handler).record("STORE")
    shown = registry(handler)
    assert value(shown, "alerts_total", rule="any") == 1
    with pytest.warns(RuntimeWarning):
        get_audit_logger("nowhere").info("STORE")
    assert shown.get_sample_value("structlog_audit_unheard_events_total", {"cause": "detached"}) == 1
    handler.monitor._waiting.clear()


def test_to_register_reads_no_handler(log):
    """Registering asks for the names of metrics only, and two collectors in one registry are refused."""
    log.info("STORE")
    collector = AuditCollector()
    shown = CollectorRegistry(auto_describe=True)
    shown.register(collector)
    assert not collector._seen
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        shown.register(AuditCollector())


def test_a_forked_child_begins_at_zero(log):
    """What the parent counted is the parent's."""
    shown = registry()
    log.info("STORE")
    assert value(shown, "recorded_events_total") == 1
    child = os.fork()
    if child == 0:
        log.info("STORE")
        counted = value(shown, "events_total", operation="STORE", status="SUCCESS")
        os._exit(0 if counted == value(shown, "recorded_events_total") == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (("audit",), {}, AuditTypeError, "'audit' is no AuditHandler"),
        ((), {"max_operations": 5}, AuditValueError, "max_operations=5"),
        ((), {"buckets": ()}, AuditValueError, "buckets=()"),
        ((), {"buckets": (1.0, 0.5)}, AuditValueError, "buckets=(1.0, 0.5)"),
    ],
)
def test_a_collector_that_cannot_be_meant(arguments, options, error, words):
    """What can't be meant is an error that names the parameter."""
    with pytest.raises(error) as caught:
        AuditCollector(*arguments, **options)
    assert words in str(caught.value)
