"""How the block of an operation ends: which exceptions are failures, and what the block itself states."""

import asyncio
import logging
import sys

import pytest
import typer

from structlog_audit import AuditTypeError, audited, instrument


class NotModified(Exception):
    """An exception of an application that answers a request."""


def only_event(handler):
    (event,) = handler.query_events()
    return event


def end(log, error, **options):
    """Record a block that *error* ends, and check that the error propagates."""
    with pytest.raises(BaseException) as caught, log.operation("EXPORT", **options):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(), SystemExit(0), SystemExit(None), SystemExit(False), typer.Exit()])
def test_successful_exit_is_not_a_failure(handler, log, error):
    """An exit with a code of success is not a failure of the block, and is named in the metadata."""
    end(log, error)
    event = only_event(handler)
    assert (event.status, event.error_message) == ("SUCCESS", None)
    assert event.metadata["ended_by"].startswith(type(error).__name__)


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit("no such file"), typer.Exit(1), typer.Abort()])
def test_exit_with_an_error_is_a_failure(handler, log, error):
    """An exit with another code, or with a text, is a failure."""
    end(log, error)
    event = only_event(handler)
    assert event.status == "FAILURE"
    assert event.error_message.startswith(type(error).__name__)


@pytest.mark.parametrize(("code", "status"), [(0, "SUCCESS"), (2, "FAILURE")])
def test_exit_of_click_counts_by_its_code(handler, log, code, status):
    """click's exits are failures only if their codes are."""
    exceptions = pytest.importorskip("click.exceptions")
    end(log, exceptions.Exit(code))
    assert only_event(handler).status == status


def test_exit_of_a_coroutine_is_not_a_failure(handler, log):
    """``async with`` treats exits alike."""

    async def main():
        async with log.operation("EXPORT"):
            sys.exit(0)

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert only_event(handler).status == "SUCCESS"


@pytest.mark.parametrize(("name", "status"), [("Ignore", "SUCCESS"), ("Retry", "PARTIAL"), ("Reject", "FAILURE")])
def test_signal_of_a_celery_task_has_its_own_status(handler, log, name, status):
    """Celery's Ignore is not a failure, its Retry neither failure nor success, and its Reject a failure."""
    exceptions = pytest.importorskip("celery.exceptions")
    end(log, getattr(exceptions, name)())
    assert only_event(handler).status == status


@pytest.mark.parametrize("stated", ["SUCCESS", "failed", "PARTIAL"])
def test_status_of_the_block_counts_if_its_end_is_not_a_failure(handler, log, stated):
    """A block that states a status and then exits with success has that status."""

    def export():
        with log.operation("EXPORT") as op:
            op.bind(status=stated)
            sys.exit(0)

    with pytest.raises(SystemExit):
        export()
    assert only_event(handler).status == {"failed": "FAILURE"}.get(stated, stated)


@pytest.mark.parametrize("classes", [NotModified, (NotModified, KeyError), [NotModified]])
def test_named_exception_is_not_a_failure(handler, log, classes):
    """The classes in ``not_failures`` and their subclasses are not failures."""
    end(log, NotModified("as before"), not_failures=classes)
    event = only_event(handler)
    assert (event.status, event.error_message) == ("SUCCESS", None)
    assert event.metadata == {"ended_by": "NotModified: as before"}


def test_other_exception_stays_a_failure(handler, log):
    """An exception that ``not_failures`` does not name is a failure."""
    end(log, ValueError("bad"), not_failures=NotModified)
    assert only_event(handler).status == "FAILURE"


@pytest.mark.parametrize("classes", [NotModified(), "NotModified", (NotModified, 5), None])
def test_not_failures_that_is_no_class_is_an_error(log, classes):
    """Anything but exception classes is an error when the operation is made."""
    with pytest.raises(AuditTypeError, match="not_failures="):
        log.operation("EXPORT", not_failures=classes)


def test_decorators_pass_not_failures_on(handler, log):
    """`audited` and `instrument` take ``not_failures`` as well."""

    class Documents:
        def read(self):
            raise NotModified

    @audited("READ", not_failures=NotModified)
    def read():
        raise NotModified

    documents = Documents()
    instrument(documents, {"read": "READ"}, not_failures=(NotModified,))
    for function in (read, documents.read):
        with pytest.raises(NotModified):
            function()
    assert [event.status for event in handler.query_events()] == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize(
    ("group", "status"),
    [
        (ExceptionGroup("g", [NotModified(), ExceptionGroup("h", [NotModified()])]), "SUCCESS"),
        (ExceptionGroup("g", [NotModified(), ExceptionGroup("h", [ValueError()])]), "FAILURE"),
        (BaseExceptionGroup("g", [SystemExit(0), SystemExit(1)]), "FAILURE"),
    ],
)
def test_group_is_a_failure_if_one_of_its_exceptions_is(handler, log, group, status):
    """A group is not a failure only if none of the exceptions in it is one."""
    end(log, group, not_failures=NotModified)
    assert only_event(handler).status == status


def test_group_names_its_causes(handler, log):
    """The error message of a failed task group names what failed in it."""

    async def work():
        raise PermissionError("ann may not delete e1")

    async def main():
        async with log.operation("FORGET"), asyncio.TaskGroup() as tasks:
            tasks.create_task(work())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    assert only_event(handler).error_message.endswith("(1 sub-exception): PermissionError: ann may not delete e1")


@pytest.mark.parametrize(("reason", "message"), [("no space", "no space"), (None, None)])
def test_fail_makes_the_outcome_a_failure(handler, log, reason, message):
    """``fail()`` makes the event a FAILURE with its reason, at level ERROR, without an exception."""
    levels = []
    logging.getLogger("audit").addFilter(lambda record: levels.append(record.levelno) or True)
    try:
        with log.operation("EXPORT") as op:
            op.fail(reason)
    finally:
        logging.getLogger("audit").filters.clear()
    event = only_event(handler)
    assert (event.status, event.error_message, levels) == ("FAILURE", message, [logging.ERROR])


def test_last_of_fail_and_partial_counts(handler, log):
    """``partial()`` after ``fail()`` makes the event PARTIAL."""
    with log.operation("EXPORT") as op:
        op.fail("no space")
        op.partial("2 of 3")
    event = only_event(handler)
    assert (event.status, event.error_message) == ("PARTIAL", "2 of 3")


@pytest.mark.parametrize("bind", [False, True])
def test_error_message_of_an_operation_makes_it_a_failure(handler, log, bind):
    """An ``error_message`` makes an operation a FAILURE, as it does any event."""
    fields = {"error_message": "no space"}
    with log.operation("EXPORT", **({} if bind else fields)) as op:
        op.bind(**(fields if bind else {}))
    log.info("EXPORT", error_message="no space")
    assert [event.status for event in handler.query_events()] == ["FAILURE", "FAILURE"]


def test_status_bound_to_the_logger_counts_for_an_operation(handler, log):
    """A status bound to the logger is that of its operations, as of any event."""
    with log.bind(status="PARTIAL").operation("EXPORT"):
        pass
    assert only_event(handler).status == "PARTIAL"
