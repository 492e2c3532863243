"""Celery tasks name the actor that caused them, with a real worker on Celery's broker in memory."""

from __future__ import annotations

import uuid

import pytest
from celery import Celery, chain, signals
from celery.contrib.testing.worker import start_worker
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from structlog_audit import get_audit_logger
from structlog_audit.contrib.celery import HEADER, carry_actor

LOG = get_audit_logger()
ADA = {"user_id": "ada", "session_id": "s1", "request_id": "r1"}


@pytest.fixture(scope="module")
def celery():
    """Run an application with a worker in a thread."""

    def leave_logging_alone(**_):
        pass

    signals.setup_logging.connect(leave_logging_alone)
    carry_actor()
    carry_actor()
    app = Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.broker_connection_retry_on_startup = False
    app.conf.broker_transport_options = {"polling_interval": 0.01}

    @app.task
    def record(operation):
        LOG.info(operation)
        return sorted(get_contextvars())

    @app.task
    def fail():
        LOG.info("FAIL")
        raise RuntimeError("no")

    @app.task(bind=True, max_retries=2)
    def retry(self):
        LOG.info("RETRY", number=self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=0)

    @app.task
    def bind():
        bind_contextvars(tenant="acme")
        LOG.info("BIND")

    @app.task(bind=True)
    def cause(self):
        bind_contextvars(session_id="s2")
        record.apply_async(("CHILD",), task_id=self.request.id + "-child")

    with start_worker(app, perform_ping_check=False, pool="solo", concurrency=1):
        yield app
    signals.setup_logging.disconnect(leave_logging_alone)


def named(name, celery):
    """Return the task called *name*."""
    return celery.tasks[f"{__name__}.{name}"]


def finished(task_id, celery):
    """Wait for the task, and return its result."""
    return celery.AsyncResult(task_id).get(timeout=60, interval=0.01, propagate=False)


def actors(handler):
    """Return the operation and the actor of each event, the oldest first."""
    return [
        (event.operation, event.user_id, event.session_id, event.metadata.get("request_id"))
        for event in handler.iter_events()
    ]


def test_task_carries_user_session_and_request_id(handler, celery):
    """User, session and request id travel with the message as strings; the client's address and other fields do not."""
    user = uuid.UUID(int=7)
    bind_contextvars(**{**ADA, "user_id": user}, client_address="192.0.2.7", tenant="acme")
    result = named("record", celery).delay("STORE")
    assert finished(result.id, celery) == ["request_id", "session_id", "user_id"]
    assert actors(handler) == [("STORE", str(user), "s1", "r1")]


def test_task_without_an_actor_gets_none_of_the_previous_task(handler, celery):
    """A worker's thread keeps no field of the previous task, even if that failed."""
    bind_contextvars(**ADA)
    finished(named("fail", celery).delay().id, celery)
    clear_contextvars()
    result = named("record", celery).delay("STORE")
    assert finished(result.id, celery) == []
    assert actors(handler) == [("FAIL", "ada", "s1", "r1"), ("STORE", None, None, None)]


def test_retries_chains_and_children_carry_the_actor_on(handler, celery):
    """Retries and chained tasks name the first actor; a child names the actor that is bound when it is sent."""
    bind_contextvars(**ADA)
    finished(named("retry", celery).delay().id, celery)
    record = named("record", celery)
    finished(chain(record.si("FIRST"), record.si("SECOND")).apply_async().id, celery)
    cause = named("cause", celery).delay().id
    finished(cause, celery)
    finished(f"{cause}-child", celery)
    assert actors(handler) == [
        *[("RETRY", "ada", "s1", "r1")] * 3,
        ("FIRST", "ada", "s1", "r1"),
        ("SECOND", "ada", "s1", "r1"),
        ("CHILD", "ada", "s2", "r1"),
    ]


def in_worker(task, celery, *args, **options):
    finished(task.apply_async(args, **options).id, celery)


def by_apply(task, celery, *args, **options):
    task.apply(args, **options)


def always_eager(task, celery, *args, **options):
    celery.conf.task_always_eager = True
    try:
        task.apply_async(args, **options)
    finally:
        celery.conf.task_always_eager = False


RUNS = pytest.mark.parametrize("run", [in_worker, by_apply, always_eager])


@RUNS
def test_eager_task_records_what_a_worker_would(handler, celery, run):
    """A task has the carried fields of its caller and no others, in a worker and by both ways to run it eagerly."""
    bind_contextvars(**{**ADA, "user_id": uuid.UUID(int=7)}, client_address="192.0.2.7", tenant="acme")
    bound = get_contextvars()
    run(named("record", celery), celery, "STORE")
    (event,) = handler.query_events()
    assert (event.user_id, event.session_id) == (str(uuid.UUID(int=7)), "s1")
    assert event.metadata == {"request_id": "r1"}
    assert get_contextvars() == bound


@RUNS
def test_task_has_the_actor_in_its_headers(handler, celery, run):
    """A header of the sender names another actor, eagerly too."""
    bind_contextvars(**ADA)
    run(named("record", celery), celery, "STORE", headers={HEADER: {"user_id": "bob"}})
    assert actors(handler) == [("STORE", "bob", None, None)]


@RUNS
def test_values_bound_in_a_task_end_with_it(handler, celery, run):
    """What a task binds and does not clear is in no event of the next task, or of its caller."""
    run(named("bind", celery), celery)
    run(named("record", celery), celery, "STORE")
    LOG.info("CALLER")
    assert [event.metadata for event in handler.iter_events()] == [{"tenant": "acme"}, {}, {}]


@RUNS
def test_receiver_that_clears_the_context_keeps_the_actor(handler, celery, run):
    """The actor stays if another receiver clears structlog's contextvars, as django-structlog's does."""

    def clear(**_):
        clear_contextvars()
        bind_contextvars(task_id="t1")

    bind_contextvars(**ADA)
    signals.task_prerun.connect(clear)
    try:
        run(named("record", celery), celery, "STORE")
    finally:
        signals.task_prerun.disconnect(clear)
    (event,) = handler.query_events()
    assert (event.user_id, event.metadata) == ("ada", {"request_id": "r1", "task_id": "t1"})


@RUNS
def test_retries_keep_the_actor_of_the_header(handler, celery, run):
    """Each retry has the actor of the first run."""
    run(named("retry", celery), celery, headers={HEADER: {"user_id": "bob"}})
    assert actors(handler) == [("RETRY", "bob", None, None)] * 3


@RUNS
@pytest.mark.parametrize(
    "header", ["ada", ["ada"], {"user_id": 7}, {"user_id": {"a": "b"}}, {"admin": "yes"}, {"user_id": "x" * 1_001}]
)
def test_malformed_header_is_refused_and_logged(handler, celery, caplog, header, run):
    """The task runs without an actor, and Celery logs the error."""
    run(named("record", celery), celery, "STORE", headers={HEADER: header})
    assert actors(handler) == [("STORE", None, None, None)]
    assert "is not an actor: no actor is bound" in caplog.text


def test_value_that_is_too_long_is_not_carried(handler, celery):
    """A session id that is too long is left out; the user and the request id are carried."""
    bind_contextvars(user_id="ada", session_id="s" * 1_500, request_id="r1")
    finished(named("record", celery).delay("LONG").id, celery)
    clear_contextvars()
    (event,) = handler.query_events(operation="LONG")
    assert (event.user_id, event.session_id, event.metadata["request_id"]) == ("ada", None, "r1")
