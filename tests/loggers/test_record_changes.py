"""What filters and record factories do to the record of an entry point, compared with a record of `logging`."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import sys
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import (
    AuditFileHandler,
    AuditHandler,
    AuditLogger,
    AuditProcessor,
    AuditWriteError,
    audited,
    get_audit_logger,
)
from structlog_audit.events.handoff import awaited

PLACES = ("logger", "handler", "target", "other handler", "factory")


class Rewriting(logging.Filter):
    """Lets *change* change each record, and returns what it returns, or True."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def filter(self, record):
        replaced = self.change(record)
        return True if replaced is None else replaced


def audit_handler_of(logger):
    """Return the audit handler of *logger*, which pytest gives other handlers as well."""
    (handler,) = [handler for handler in logger.handlers if isinstance(handler, AuditHandler)]
    return handler


def install(change, place, logger, monkeypatch):
    """Let *change* change the records of *logger* at a *place*."""
    logger.handlers[:] = [handler := audit_handler_of(logger)]
    if place == "factory":
        original = logging.getLogRecordFactory()

        def make(*args, **kwargs):
            record = original(*args, **kwargs)
            change(record)
            return record

        monkeypatch.setattr(logging, "_logRecordFactory", make)
    elif place == "other handler":
        other = logging.StreamHandler(io.StringIO())
        other.addFilter(Rewriting(change))
        logger.handlers.insert(0, other)
    else:
        {"logger": logger, "handler": handler, "target": handler.target}[place].addFilter(Rewriting(change))


@pytest.fixture
def audit(path):
    """The logger "audit" with an audit handler that raises."""
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [AuditHandler(filename=path, on_error="raise")]
    return logger


def facts(event):
    """Return the members of *event* that both entry points state alike."""
    members = event.to_dict()
    return {name: members[name] for name in members if name not in ("event_id", "timestamp")}


def recorded_facts(handler):
    """Return the facts of the application's events in *handler*."""
    return [facts(event) for event in handler.query_events(newest_first=False)]


def log_both(logger, *, with_error=False, **fields):
    """Record the same event through `logging` and through a bound logger; return what is recorded of each."""
    exc_info = {"exc_info": ValueError("secret")} if with_error else {}
    logger.info("STORE", extra=copy.deepcopy(fields), **exc_info)
    get_audit_logger(logger.name).info("STORE", **copy.deepcopy(fields), **exc_info)
    plain, bound = recorded_facts(audit_handler_of(logger))
    return plain, bound


def add_context(record):
    record.request_id = "r1"
    record.session_id = "s1"


def mask(record):
    record.user_id = "***"


def remove(record):
    record.__dict__.pop("user_id", None)


def mask_in_place(record):
    record.__dict__.get("metadata", {})["card"] = "***"


def replace_message(record):
    record.msg = "***"


def format_message(record):
    record.msg, record.args = "%s by %s", ("FORGET", "u1")


def misfit_arguments(record):
    record.msg, record.args = "%d", ("x",)


def decorate_message(record):
    record.msg = f"[r1] {record.msg}"


def state_operation(record):
    record.operation = "FORGET"


def raise_level(record):
    record.levelno, record.levelname = logging.ERROR, "ERROR"


def clear_exception(record):
    record.exc_info = None


def replace_exception(record):
    if record.exc_info:
        record.exc_info = (ValueError, ValueError("***"), None)


def exception_as_text(record):
    if record.exc_info:
        record.exc_info, record.exc_text = None, "Traceback (most recent call last):\n  …\nValueError: ***"


CHANGES = [
    *(add_context, mask, remove, mask_in_place, replace_message, format_message, misfit_arguments, decorate_message),
    *(state_operation, raise_level, clear_exception, replace_exception, exception_as_text),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("with_error", [False, True])
def test_change_of_a_record_counts_for_a_bound_logger_as_for_logging(audit, monkeypatch, change, place, with_error):
    """Whatever is added, masked or removed, wherever that happens, is so in the event of both."""
    if place == "factory" and change in (mask, state_operation, mask_in_place):
        pytest.skip("logging refuses extra fields that a factory has set")
    install(change, place, audit, monkeypatch)
    plain, bound = log_both(audit, with_error=with_error, user_id="u1", metadata={"card": "4111"})
    assert bound == plain


NAMES = st.sampled_from(["user_id", "tenant", "status", "name", "name_", "metadata", "entry_ids", "x"])
VALUES = st.none() | st.text(max_size=5) | st.integers(0, 9) | st.lists(st.text(max_size=3), max_size=2)
FIELDS = st.dictionaries(NAMES.filter(lambda name: name != "name"), VALUES, max_size=4)


@given(FIELDS, FIELDS, st.sets(NAMES.filter(lambda name: name != "name"), max_size=2))
def test_any_assignment_and_removal_counts_as_for_logging(fields, assigned, removed):
    """For all fields and all changes by a filter, a bound logger records what `logging` records."""

    def change(record):
        for name in removed:
            record.__dict__.pop(name, None)
        record.__dict__.update(copy.deepcopy(assigned))

    logger = logging.getLogger("audit.any")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler := AuditHandler()]
    handler.addFilter(Rewriting(change))
    plain, bound = log_both(logger, **fields)
    assert bound == plain


def test_context_of_a_factory_counts_before_contextvars(audit, monkeypatch):
    """A factory wins over the context, and the call over both, as in `logging`."""
    install(lambda record: setattr(record, "tenant", "factory"), "factory", audit, monkeypatch)
    with structlog.contextvars.bound_contextvars(tenant="context", region="eu"):
        plain, bound = log_both(audit, user_id="u1")
        assert bound == plain
        get_audit_logger().info("STORE", tenant="call")
    assert bound["metadata"] == {"tenant": "factory", "region": "eu"}
    assert audit_handler_of(audit).query_events(limit=1)[0].metadata == {"tenant": "call", "region": "eu"}


class Making(logging.Logger):
    """A logger that adds to its records, as tracing libraries do by a patch."""

    def makeRecord(self, *args, **kwargs):
        record = super().makeRecord(*args, **kwargs)
        record.dd_trace_id = "7"
        return record


def test_context_of_an_overridden_make_record_is_in_the_event():
    """A logger that makes its records itself counts as a record factory does."""
    logger = Making("audit")
    logger.addHandler(handler := AuditHandler())
    type(get_audit_logger())(logger, (), {}).info("STORE")
    assert recorded_facts(handler)[0]["metadata"] == {"dd_trace_id": "7"}


def record_by_bound_logger(handler):
    get_audit_logger().info("STORE")


def record_by_operation(handler):
    with get_audit_logger().operation("STORE"):
        pass


def record_by_decorator(handler):
    audited("STORE")(lambda: None)()


def record_by_processor(handler):
    structlog.wrap_logger(structlog.ReturnLogger(), processors=[AuditProcessor(), lambda *_: ""]).info(
        "x", operation="STORE"
    )


def record_by_audit_logger(handler):
    AuditLogger(handler=handler).record("STORE")


@pytest.mark.parametrize("record", [
    record_by_bound_logger, record_by_operation, record_by_decorator, record_by_processor, record_by_audit_logger,
])  # fmt: skip
@pytest.mark.parametrize("place", ["handler", "target", "factory"])
def test_context_of_filters_and_factories_is_in_the_events_of_all_entry_points(audit, monkeypatch, record, place):
    """No entry point bypasses the filters of the handler and of its target, or the record factory."""
    handler = audit_handler_of(audit)
    install(add_context, place, audit, monkeypatch)
    record(handler)
    (event,) = handler.query_events()
    assert (event.session_id, event.metadata["request_id"]) == ("s1", "r1")


def copy_dictionaries(record):
    """Replace dictionaries by copies, as the secrets masker of Airflow does."""
    for name, value in record.__dict__.items():
        if type(value) is not str and isinstance(value, dict):
            record.__dict__[name] = dict(value)


def make_text(record):
    for name in record.__dict__:
        if name not in vars(logging.makeLogRecord({})):
            record.__dict__[name] = str(record.__dict__[name])


def drop_private_attributes(record):
    for name in [name for name in record.__dict__ if name[:1] == "_"]:
        del record.__dict__[name]


LOSSES = [copy_dictionaries, make_text, drop_private_attributes]


def begin_with_intent(audit):
    """Run a block with an intent; return whether it ran, and the kinds in the trail in order."""
    ran = False
    with get_audit_logger().operation("FORGET", entry_ids=["e1"], intent=True):
        ran = True
    handler = audit_handler_of(audit)
    kinds = [event.kind for event in handler.query_events(kind=["intent", None], newest_first=False)]
    return ran, kinds, handler.open_intents()


@pytest.mark.parametrize("place", PLACES[:-1])
@pytest.mark.parametrize("change", LOSSES)
def test_block_runs_although_a_change_loses_the_handoff(audit, monkeypatch, change, place):
    """The acknowledgement does not depend on attributes: the intent is recorded, the block runs, and nothing is open."""
    install(change, place, audit, monkeypatch)
    assert begin_with_intent(audit) == (True, ["intent", None], [])


def copied(record):
    made = copy.copy(record)
    made.user_id = "***"
    return made


def made_from_attributes(record):
    return logging.makeLogRecord({**record.__dict__, "user_id": "***"})


def made_from_public_attributes(record):
    public = {name: value for name, value in record.__dict__.items() if name[:1] != "_"}
    return logging.makeLogRecord({**public, "user_id": "***"})


REPLACEMENTS = [copied, made_from_attributes, made_from_public_attributes]
needs_replacement = pytest.mark.skipif(sys.version_info < (3, 12), reason="filters replace records since Python 3.12")


@needs_replacement
@pytest.mark.parametrize("place", ["logger", "handler", "target"])
@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_replacement_of_a_record_is_recorded(audit, monkeypatch, replace, place):
    """The record that a filter returns is what is recorded, of every entry point, and acknowledged."""
    install(replace, place, audit, monkeypatch)
    plain, bound = log_both(audit, user_id="u1", metadata={"a": 1})
    assert plain == bound
    assert bound["user_id"] == "***"
    with get_audit_logger().operation("FORGET", intent=True) as block:
        block.metadata["ran"] = True
    assert audit_handler_of(audit).query_events(operation="FORGET", kind=None)[0].metadata["ran"]
    assert audit_handler_of(audit).open_intents() == []


@needs_replacement
def test_level_of_a_replacement_is_that_of_the_event(audit, monkeypatch):
    """The target's level applies to the record that the filter of the handler returns."""

    def lower(record):
        made = copy.copy(record)
        made.levelno = logging.DEBUG
        return made

    install(lower, "handler", audit, monkeypatch)
    audit_handler_of(audit).target.setLevel(logging.INFO)
    audit.error("STORE")
    assert audit_handler_of(audit).count_events() == 0


@pytest.mark.parametrize("nested", ["logging", "bound logger"])
def test_event_that_a_filter_records_is_an_event_of_its_own(audit, nested):
    """A record that is made while an entry point waits for another one does not get its handoff."""

    def record_more(record):
        if record.getMessage() == "OUTER":
            (audit if nested == "logging" else get_audit_logger()).info("INNER")

    audit.addFilter(Rewriting(record_more))
    get_audit_logger().info("OUTER", user_id="u1")
    assert [event["operation"] for event in recorded_facts(audit_handler_of(audit))] == ["INNER", "OUTER"]
    assert [event["user_id"] for event in recorded_facts(audit_handler_of(audit))] == [None, "u1"]


def test_filter_of_a_logger_runs_once_per_event(audit):
    """A counting filter counts each event of a bound logger once."""
    seen = []
    audit.addFilter(Rewriting(lambda record: seen.append(record.msg)))
    get_audit_logger().info("STORE")
    assert seen == ["STORE"]


def test_target_of_another_class_gets_the_changed_event(audit):
    """Masking by the target's filter applies to what the target writes."""
    target = logging.StreamHandler(io.StringIO())
    target.setFormatter(logging.Formatter("%(message)s %(user_id)s"))
    target.addFilter(Rewriting(mask))
    audit.handlers[:] = [AuditHandler(target=target)]
    get_audit_logger().info("STORE", user_id="u1")
    assert target.stream.getvalue() == "STORE ***\n"


def test_bare_file_handler_writes_the_changed_record(audit, path):
    """The same changes count without an AuditHandler."""
    audit.handlers[:] = [AuditFileHandler(path)]
    audit.addFilter(Rewriting(mask))
    with contextlib.suppress(AuditWriteError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        get_audit_logger().info("STORE", user_id="u1")
    assert b'"user_id":"***"' in path.read_bytes()


@pytest.mark.parametrize("place", ["logger", "handler", "target"])
def test_error_of_a_filter_reaches_the_caller_and_leaves_no_record_behind(audit, monkeypatch, place):
    """As in `logging`, a filter that raises ends the call; its record is not awaited any more."""

    def fail(record):
        raise LookupError("filter")

    install(fail, place, audit, monkeypatch)
    with pytest.raises(LookupError, match="filter"):
        get_audit_logger().info("STORE")
    assert awaited == {}


def test_removed_field_and_added_one_are_both_seen(audit, monkeypatch):
    """A field without a value that makes way for another is not taken for an unchanged record."""

    def swap(record):
        del record.region
        record.tenant = "acme"

    install(swap, "handler", audit, monkeypatch)
    plain, bound = log_both(audit, region=None)
    assert bound == plain
    assert bound["metadata"] == {"tenant": "acme"}
