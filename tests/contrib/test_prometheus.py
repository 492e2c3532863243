"""Audit events as metrics, as the real Prometheus client exposes them."""

from __future__ import annotations

import logging
import os
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from structlog_audit import AuditHandler, AuditLogger, AuditTypeError, AuditValueError, EventStatus, get_audit_logger
from structlog_audit.contrib.prometheus import AuditCollector
from structlog_audit.loggers.unheard import CAUSES
from structlog_audit.testing import FailingTarget


def registry(*handlers, **options):
    made = CollectorRegistry(auto_describe=True)
    made.register(AuditCollector(*handlers, **options))
    return made


def value(registry, name, **labels):
    """Return the value of the sample *name* of the handler called audit."""
    return registry.get_sample_value(f"structlog_audit_{name}", {"handler": "audit", **labels})


def test_scrape_over_http_is_readable_by_prometheus(log):
    """The output of the client's server can be read by its own parser, and has the right numbers."""
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


def test_repeated_scrapes_count_each_event_once(log):
    """Counters grow by the number of new events only."""
    shown = registry()
    assert value(shown, "events_total", operation="STORE", status="SUCCESS") is None
    for count in range(1, 4):
        log.info("STORE")
        for _ in range(2):
            assert value(shown, "events_total", operation="STORE", status="SUCCESS") == count
            assert value(shown, "recorded_events_total") == count
    assert value(shown, "unseen_events_total") == 0
    assert value(shown, "buffered_events") == 4  # and that the trail was opened


def test_every_status_of_an_observed_operation_has_a_series_from_zero(log):
    """The first failure of an operation raises a series from zero, so that rates over it are right."""
    shown = registry()
    assert value(shown, "events_total", operation="STORE", status="FAILURE") is None
    log.info("STORE")
    assert value(shown, "events_total", operation="STORE", status="FAILURE") == 0
    assert value(shown, "events_total", operation="STORE", status="PARTIAL") == 0
    assert value(shown, "events_total", operation="FORGET", status="FAILURE") is None
    log.error("STORE")
    assert value(shown, "events_total", operation="STORE", status="FAILURE") == 1


def test_every_cause_and_every_rule_has_a_series_from_zero():
    """Causes of unrecorded events and rules of the monitor have a series before the first of each."""
    rules = [{"name": "quiet", "more_than": 10, "within": 60}]
    shown = registry(AuditHandler(monitor=rules, call_later=lambda *_: None))
    assert value(shown, "alerts_total", rule="quiet") == 0
    for cause in CAUSES:
        assert shown.get_sample_value("structlog_audit_unheard_events_total", {"cause": cause}) is not None


def test_durations_are_counted_in_cumulative_buckets(log):
    """Buckets are cumulative, include their upper ends, and the sum is in seconds."""
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


def test_operations_beyond_the_bound_share_one_label(log):
    """Operations beyond the bound, and overlong ones, share a label; the six keep theirs."""
    shown = registry(max_operations=8)
    for operation in [f"op{number}" for number in range(50)] + ["x" * 1_000, "EXPORT"]:
        log.info(operation)
    text = generate_latest(shown).decode()
    assert text.count("structlog_audit_events_total{") == 4 * len(EventStatus)
    assert value(shown, "events_total", operation="other", status="SUCCESS") == 49
    assert value(shown, "events_total", operation="EXPORT", status="SUCCESS") == 1


def test_failing_target_shows_in_pending_lost_and_raised(capsys):
    """Pending, lost and raised events are shown; lost ones are in no series by operation."""
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


def test_events_evicted_between_scrapes_are_counted_as_unseen():
    """If the buffer is too small for the interval of scrapes, the missed events are counted."""
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


def test_intents_and_warm_start_events_are_in_no_series(path):
    """Events of an earlier process, and intents, are in no series by operation."""
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


def test_collector_reads_the_handlers_attached_at_scrape_time(log, handler):
    """By default the handlers attached at the time of a scrape are read, each under its name."""
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


def test_alerts_and_unheard_events_are_counted_by_cause(log):
    """Alerts are counted by rule, and events that no handler accepted by cause."""
    handler = AuditHandler(monitor=[{"name": "any", "more_than": 0, "within": 60}], call_later=lambda *_: None)
    AuditLogger(handler=handler).record("STORE")
    shown = registry(handler)
    assert value(shown, "alerts_total", rule="any") == 1
    with pytest.warns(RuntimeWarning):
        get_audit_logger("nowhere").info("STORE")
    assert shown.get_sample_value("structlog_audit_unheard_events_total", {"cause": "detached"}) == 1
    handler.monitor._waiting.clear()


def test_registration_reads_no_handler(log):
    """Registering a collector needs the names of its metrics only."""
    log.info("STORE")
    collector = AuditCollector()
    CollectorRegistry(auto_describe=True).register(collector)
    assert not collector._observed


def test_second_collector_in_one_registry_is_refused():
    """Two collectors in one registry would report the same series."""
    shown = registry()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        shown.register(AuditCollector())


def test_forked_child_starts_at_zero(log):
    """Events that the parent counted are not in the metrics of the child."""
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
    ("arguments", "options", "error", "message"),
    [
        (("audit",), {}, AuditTypeError, "expected an AuditHandler, got 'audit'"),
        ((), {"max_operations": 5}, AuditValueError, "max_operations=5"),
        ((), {"buckets": ()}, AuditValueError, "buckets=()"),
        ((), {"buckets": (1.0, 0.5)}, AuditValueError, "buckets=(1.0, 0.5)"),
    ],
)
def test_invalid_parameter_is_an_error_that_names_it(arguments, options, error, message):
    """An invalid parameter is an error that names it."""
    with pytest.raises(error) as caught:
        AuditCollector(*arguments, **options)
    assert message in str(caught.value)
