"""Settings of logging that drop events: an entry point reports each such event, and check() each setting."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import logging.handlers
import os
import queue
import sys
import threading
import warnings

import pytest
import structlog

from structlog_audit import (
    AuditFileHandler,
    AuditHandler,
    AuditProcessor,
    AuditWriteError,
    get_audit_handler,
    get_audit_logger,
    unheard_events,
)
from structlog_audit.loggers import bound_logger


class UnguardedLogger(logging.Logger):
    """Handles nested records, like CPython before 3.13.4 and in 3.14."""

    def isEnabledFor(self, level):
        return level >= self.getEffectiveLevel()

    def handle(self, record):
        if self.filter(record):
            self.callHandlers(record)


class GuardedLogger(UnguardedLogger):
    """Discards nested records, like CPython 3.13.4 (gh-91555)."""

    def __init__(self, name, level=logging.NOTSET):
        super().__init__(name, level)
        self._tls = threading.local()

    def isEnabledFor(self, level):
        return not getattr(self._tls, "in_progress", False) and super().isEnabledFor(level)

    def handle(self, record):
        if getattr(self._tls, "in_progress", False):
            return
        self._tls.in_progress = True
        try:
            super().handle(record)
        finally:
            self._tls.in_progress = False


def audit():
    return logging.getLogger("audit")


def drop(record):
    return False


def level(handler):
    audit().setLevel(logging.WARNING)


def inherited_level(handler):
    audit().setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


def disable(handler):
    logging.disable(logging.INFO)


def existing_loggers_disabled(handler):
    logging.config.dictConfig({"version": 1})


def logger_filter(handler):
    audit().addFilter(drop)


def handler_filter(handler):
    handler.addFilter(drop)


def handler_level(handler):
    handler.setLevel(logging.ERROR)


def target_level(handler):
    handler.target.setLevel(logging.ERROR)


def target_filter(handler):
    handler.target.addFilter(drop)


def forced_basic_config(handler):
    audit().removeHandler(handler)
    audit().propagate = True
    logging.getLogger().addHandler(handler)
    logging.basicConfig(force=True, level=logging.INFO)


def child_that_does_not_propagate(handler):
    logging.getLogger("audit.child").propagate = False
    logging.getLogger("audit.child").setLevel(logging.INFO)


MUTINGS = [
    (level, "level", "audit"),
    (inherited_level, "level", "audit"),
    (disable, "logging-disable", "audit"),
    (existing_loggers_disabled, "disabled", "audit"),
    (logger_filter, "logger-filter", "audit"),
    (handler_filter, "handler-filter", "audit"),
    (handler_level, "handler-level", "audit"),
    (target_level, "target-level", "audit"),
    (target_filter, "target-filter", "audit"),
    (forced_basic_config, "detached", "audit"),
    (child_that_does_not_propagate, "propagate", "audit.child"),
]
TABLE = pytest.mark.parametrize(("mute", "code", "name"), MUTINGS, ids=[mute.__name__ for mute, _, _ in MUTINGS])


@TABLE
def test_an_unrecorded_event_is_counted_and_warned_of_once(handler, mute, code, name):
    """An event that no handler accepted is counted, with one warning per logger and cause."""
    mute(handler)
    log = get_audit_logger(name)
    with pytest.warns(RuntimeWarning, match=f"logger '{name}' was not recorded") as caught:
        log.info("STORE")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.info("STORE")
    assert sum(unheard_events().values()) == 2
    assert handler.count_events() == 0


@pytest.mark.parametrize(
    ("mute", "name"), [(mute, name) for mute, _, name in MUTINGS if mute is not forced_basic_config]
)
def test_an_unrecorded_event_raises_with_on_error_raise(handler, mute, name):
    """With on_error="raise" the caller of an unrecorded event gets an AuditWriteError."""
    handler.on_error = "raise"
    mute(handler)
    with pytest.raises(AuditWriteError, match="not recorded"):
        get_audit_logger(name).info("STORE")


@pytest.mark.parametrize(("is_detached", "is_closed", "raises"), [
    (False, False, True), (True, False, True), (False, True, True), (True, True, False),
])  # fmt: skip
def test_handler_elsewhere_decides_unless_it_is_closed_and_detached(handler, is_detached, is_closed, raises):
    """An event on a logger without a handler raises if one in the process has on_error="raise", unless it is discarded."""
    handler.on_error = "raise"
    if is_detached:
        audit().removeHandler(handler)
    if is_closed:
        handler.close()
    with pytest.raises(AuditWriteError) if raises else pytest.warns(RuntimeWarning, match="not recorded"):
        get_audit_logger("elsewhere").info("STORE")


@TABLE
def test_check_reports_each_muting_setting(handler, mute, code, name):
    """handler.check() reports each setting, with a message and a fix."""
    assert {finding.code for finding in handler.check()} <= {"re-entrancy", "unbounded"}
    mute(handler)
    finding, *_ = [finding for finding in handler.check() if finding.code == code]
    assert finding.message
    assert finding.fix


def test_check_reports_muted_child_loggers(handler):
    """A child logger with a higher level, or a disabled one, is a finding."""
    logging.getLogger("audit.quiet").setLevel(logging.ERROR)
    logging.getLogger("audit.off").disabled = True
    assert {"level", "disabled"} <= {finding.code for finding in handler.check()}


def codes(handler):
    """Return the codes of the findings, without those about this Python and the trail of the fixture."""
    return [finding.code for finding in handler.check() if finding.code not in {"re-entrancy", "unbounded"}]


def configure(wrapper_class, *before):
    processors = [*before, AuditProcessor(), structlog.processors.JSONRenderer()]
    structlog.configure(processors=processors, wrapper_class=wrapper_class)


@pytest.mark.parametrize(("level", "expected"), [
    (logging.WARNING, ["structlog-level"]), (logging.CRITICAL, ["structlog-level"]), (logging.INFO, []), (0, []),
])  # fmt: skip
def test_check_reports_a_filtering_bound_logger(handler, level, expected):
    """A wrapper class of structlog that drops events of level INFO before the AuditProcessor is a finding."""
    configure(structlog.make_filtering_bound_logger(level))
    assert codes(handler) == expected


@pytest.mark.parametrize(("name", "level", "expected"), [
    (None, logging.WARNING, ["structlog-filter"]), ("app", logging.ERROR, ["structlog-filter"]), (None, logging.INFO, []),
])  # fmt: skip
def test_check_reports_filter_by_level(handler, name, level, expected):
    """filter_by_level before the AuditProcessor is a finding if a logger drops events of level INFO."""
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger(name).setLevel(level)
    configure(structlog.stdlib.BoundLogger, structlog.stdlib.filter_by_level)
    assert codes(handler) == expected


def test_check_reports_the_same_processor_twice_in_a_chain(handler):
    """A list of processors that was put together wrongly records each event twice; two processors do not."""
    processor = AuditProcessor()
    for processors, expected in (([processor, processor], ["recorded-twice"]), ([processor, AuditProcessor()], [])):
        structlog.configure(processors=processors, wrapper_class=structlog.BoundLogger)
        assert codes(handler) == expected


def test_check_ignores_filters_of_a_chain_that_leads_elsewhere(handler):
    """A chain without a processor for this handler may filter as it likes."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, AuditProcessor("elsewhere")],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    assert codes(handler) == []


def linked(path):
    """Return another name of the file at *path*, as a bind mount makes it."""
    other = path.with_name("other.jsonl")
    os.link(path, other)
    return other


@pytest.mark.parametrize("second", [
    lambda handler, path: AuditHandler(filename=path.parent / "." / path.name),
    lambda handler, path: AuditHandler(filename=linked(path)),
    lambda handler, path: AuditFileHandler(path),
    lambda handler, path: logging.FileHandler(path, delay=True),
    lambda handler, path: handler.target,
], ids=["audit handler", "other name", "audit file handler", "file handler", "target"])  # fmt: skip
def test_check_reports_a_second_handler_that_writes_to_the_trail(handler, path, second):
    """A script that runs again, or a list of handlers that includes the target, records each event twice."""
    other = second(handler, path)
    audit().addHandler(other)
    assert codes(handler) == ["recorded-twice"]
    audit().removeHandler(other)
    assert codes(handler) == []


def test_check_of_each_of_two_handlers_with_one_trail_reports_it(handler, path):
    """Both handlers report it, even if the file does not exist any more."""
    second = AuditHandler(filename=path)
    audit().addHandler(second)
    path.unlink()
    assert codes(handler) == codes(second) == ["recorded-twice"]


def test_check_accepts_another_handler_with_a_file_of_its_own(handler, path):
    """A handler that writes elsewhere repeats nothing in the trail."""
    audit().addHandler(logging.FileHandler(path.with_name("other.log"), delay=True))
    assert codes(handler) == []


def test_check_reports_a_handler_that_records_reach_twice(handler):
    """A handler on a logger and on its parent gets each record twice."""
    child = logging.getLogger("audit.child")
    child.addHandler(handler)
    assert codes(handler) == ["recorded-twice"]
    child.propagate = False
    assert "recorded-twice" not in codes(handler)


def test_check_reports_a_handler_on_the_root_logger(handler):
    """Records of all libraries become events there."""
    audit().removeHandler(handler)
    audit().propagate = True
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    assert codes(handler) == ["root"]


class Merging(logging.LoggerAdapter):
    """Merges the fields, as LoggerAdapter does with merge_extra=True since Python 3.13."""

    def process(self, msg, kwargs):
        return msg, {**kwargs, "extra": {**self.extra, **kwargs.get("extra", {})}}


@pytest.mark.parametrize(("adapter", "expected"), [(logging.LoggerAdapter, ["adapter"]), (Merging, [])])
@pytest.mark.parametrize("name", ["audit", "audit.child"])
@pytest.mark.parametrize("has_dictionary", [False, True])
def test_check_reports_an_adapter_that_drops_fields(handler, adapter, expected, name, has_dictionary):
    """An adapter that replaces the extra of a call is a finding as long as it exists."""
    made = adapter(logging.getLogger(name), {"region": "eu"})
    # The attributes of an object become a dictionary when they are first asked for.
    attributes = vars(made) if has_dictionary else None
    made.info("STORE", extra={"user_id": "u1"})
    assert (handler.query_events()[0].user_id is None) == bool(expected)
    assert codes(handler) == expected
    del made, attributes
    gc.collect()
    assert codes(handler) == []


def test_check_ignores_adapters_of_loggers_that_lead_elsewhere(handler):
    """An adapter of another logger, or of a library whose records reach a handler on the root, is no finding."""
    adapter = logging.LoggerAdapter(logging.getLogger("library"), {})
    assert codes(handler) == []
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    assert "adapter" not in codes(handler)
    assert adapter.extra == {}


def test_check_of_a_root_handler_reports_only_propagation(handler):
    """For a handler on the root logger, the levels of other loggers are not findings."""
    audit().removeHandler(handler)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("library").setLevel(logging.ERROR)
    messages = [finding.message for finding in handler.check()]
    assert "logger 'audit' does not propagate to 'root'" in messages
    assert not any("library" in message for message in messages)


@pytest.mark.parametrize("on", ["filter", "str"])
def test_an_event_logged_while_a_record_is_handled_is_recorded(handler, log, monkeypatch, on):
    """An entry point bypasses the guard of a logger that discards such calls (Python 3.13.4)."""

    guarded = GuardedLogger("guarded")
    guarded.addHandler(handler)
    inner = type(log)(guarded, (), {})

    def record_more(record):
        if record.getMessage() == "OUTER":
            inner.info("INNER")
        return True

    guarded.addFilter(record_more)
    inner.info("OUTER")
    assert [event.operation for event in handler.iter_events()] == ["INNER", "OUTER"]


@pytest.fixture
def attached_to(monkeypatch):
    """A function that attaches a new handler to a new logger of a class, and returns both."""
    loggers = {}
    monkeypatch.setattr(logging.root.manager, "loggerDict", loggers)

    def attach(logger_class):
        logger = loggers["audit"] = logger_class("audit", logging.INFO)
        logger.addHandler(handler := AuditHandler())
        return logger, handler

    return attach


@pytest.mark.parametrize("version", [(3, 11), (3, 13, 4), (3, 14, 2)])
@pytest.mark.parametrize(("logger_class", "codes"), [(GuardedLogger, ["re-entrancy"]), (UnguardedLogger, [])])
def test_check_reports_re_entrancy_of_a_logger_that_discards_nested_records(
    attached_to, monkeypatch, version, logger_class, codes
):
    """check() tries whether the logger discards nested records, because the version of Python does not tell."""
    monkeypatch.setattr(sys, "version_info", version)
    _, handler = attached_to(logger_class)
    assert [finding.code for finding in handler.check()] == codes


@pytest.mark.parametrize("logger_class", [GuardedLogger, UnguardedLogger])
def test_trial_of_re_entrancy_reaches_no_handler_or_filter(attached_to, logger_class):
    """The trial is not recorded, and the logger stays as it was."""
    logger, handler = attached_to(logger_class)
    seen = []
    logger.addFilter(lambda record: seen.append(record) is None)
    logger.addHandler(logging.handlers.QueueHandler(received := queue.SimpleQueue()))
    before = dict(vars(logger))
    handler.check()
    assert (seen, received.empty(), handler.count_events()) == ([], True, 0)
    assert vars(logger) == before


def test_check_reports_re_entrancy_while_a_record_is_handled(attached_to):
    """The trial gives the same answer if a filter of the logger calls check(), and does not end the guard of the logger."""
    logger, handler = attached_to(GuardedLogger)
    found = []

    def check(record):
        found.append([finding.code for finding in handler.check()])
        logger.info("NESTED")
        return True

    logger.addFilter(check)
    logger.info("STORE")
    assert found == [["logger-filter", "re-entrancy"]]
    assert handler.count_events() == 1


def test_an_event_passed_to_a_queue_is_not_unrecorded():
    """An event that was passed to a queue causes no warning."""
    audit().addHandler(logging.handlers.QueueHandler(queue.SimpleQueue()))
    audit().setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_audit_logger().info("STORE")
    assert unheard_events() == {}


def test_a_muted_call_of_plain_logging_is_not_reported(handler):
    """A muted call of plain logging causes no warning, but check() reports the setting."""
    audit().setLevel(logging.ERROR)
    audit().info("STORE")
    assert handler.count_events() == 0
    assert get_audit_handler().check()


def test_check_reports_a_lesser_target(tmp_path):
    """check() reports a target that does not give every promise."""
    made = AuditHandler(target=logging.FileHandler(tmp_path / "plain.log"))
    audit().addHandler(made)
    audit().setLevel(logging.INFO)
    assert "lesser-target" in [finding.code for finding in made.check()]
    made.close()


class Slow(logging.Handler):
    """Takes the *seconds* that it is made with, on a clock that it advances."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.now = 0.0

    def emit(self, record):
        self.now += self.seconds


def findings_after_awaited_event(monkeypatch, handler, slow):
    """Return the findings about slow calls after one awaited event and one that is not awaited."""
    monkeypatch.setattr(bound_logger, "perf_counter", lambda: slow.now)
    audit().addHandler(slow)
    asyncio.run(get_audit_logger().ainfo("STORE"))
    get_audit_logger().info("STORE")
    return [finding for finding in handler.check() if finding.code == "slow-call"]


def test_check_reports_a_handler_that_holds_the_event_loop(handler, monkeypatch):
    """A second handler that takes long in an awaited call is a finding, which names it and the time."""
    (finding,) = findings_after_awaited_event(monkeypatch, handler, slow := Slow(0.3))
    assert "logger 'audit' held the event loop for 300 ms" in finding.message
    assert repr(slow) in finding.message
    assert "QueueHandler" in finding.fix


def test_slow_call_without_other_handlers_is_a_finding_about_filters_and_disk(handler):
    """Without another handler that could be slow, the finding names none and advises to check the rest."""
    logger = logging.Logger("alone")
    logger.addHandler(handler)
    handler.note_slow_call(logger, 0.3)
    (finding,) = [finding for finding in handler.check() if finding.code == "slow-call"]
    assert finding.message == "an awaited event on logger 'alone' held the event loop for 300 ms"
    assert "filters" in finding.fix


def test_check_names_the_slowest_awaited_call(handler, monkeypatch):
    """The finding states the longest time of the process."""
    slow = Slow(0.3)
    findings_after_awaited_event(monkeypatch, handler, slow)
    slow.seconds = 0.1
    (finding,) = findings_after_awaited_event(monkeypatch, handler, slow)
    assert "300 ms" in finding.message


def test_check_does_not_report_quick_handlers(handler, monkeypatch):
    """A second handler that takes less than 20 ms is no finding."""
    assert findings_after_awaited_event(monkeypatch, handler, Slow(0.02)) == []


def test_check_does_not_report_a_queue_for_other_handlers(handler):
    """A queue beside the handler, as the fix of a slow call advises, does not delay its events."""
    audit().addHandler(logging.handlers.QueueHandler(queue.SimpleQueue()))
    assert "queue" not in [finding.code for finding in handler.check()]
