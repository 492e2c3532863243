"""Work in other threads, with and without the actor of its caller."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.contextvars import bind_contextvars

from structlog_audit.contrib.threads import ContextExecutor, in_context


def as_ada(log, hand_over):
    """Record an event in the thread that *hand_over* chooses, while ada is bound here."""

    async def run():
        bind_contextvars(user_id="ada")
        await hand_over(functools.partial(log.info, "STORE"))

    asyncio.run(run())


async def default_executor(work):
    await asyncio.get_running_loop().run_in_executor(None, work)


async def own_executor(work):
    with ThreadPoolExecutor() as executor:
        executor.submit(work).result()


async def thread(work):
    started = threading.Thread(target=work)
    started.start()
    started.join()


HANDING_OVER = [default_executor, own_executor, thread]


@pytest.mark.skipif(
    getattr(sys.flags, "thread_inherit_context", 0), reason="here threads inherit the context without help"
)
@pytest.mark.parametrize("hand_over", HANDING_OVER)
def test_plain_executors_and_threads_lose_the_actor(handler, log, hand_over):
    """The thread of an executor, and any new thread, begin with an empty context."""
    as_ada(log, hand_over)
    assert [event.user_id for event in handler.query_events()] == [None]


@pytest.mark.parametrize("hand_over", HANDING_OVER)
def test_in_context_carries_the_actor_into_a_thread(handler, log, hand_over):
    """With `in_context` around the function the event names the actor of the caller."""
    as_ada(log, lambda work: hand_over(in_context(work)))
    assert [event.user_id for event in handler.query_events()] == ["ada"]


def test_context_executor_serves_as_default_executor_of_a_loop(handler, log):
    """As the default executor of a loop it makes `run_in_executor(None, …)` carry the context."""

    async def hand_over(work):
        asyncio.get_running_loop().set_default_executor(ContextExecutor())
        await default_executor(work)

    as_ada(log, hand_over)
    assert [event.user_id for event in handler.query_events()] == ["ada"]


def test_context_executor_keeps_its_callers_apart(handler, log):
    """With many callers on few threads each call names its submitter, and leaves no field to the next one."""

    def work(number):
        log.info("STORE", number=number)
        bind_contextvars(user_id="left behind", tenant="left behind")

    with ContextExecutor(max_workers=2) as executor:
        for number in range(50):
            bind_contextvars(user_id=f"u{number}")
            executor.submit(work, number)
        list(executor.map(work, range(50, 60)))
    events = handler.query_events()
    assert len(events) == 60
    assert all(event.user_id == f"u{min(event.metadata['number'], 49)}" for event in events)
    assert all("tenant" not in event.metadata for event in events)


def test_in_context_function_runs_in_many_threads_at_once(handler, log):
    """Each call has a separate copy: a context can be entered only once at a time."""
    together = threading.Barrier(4)

    def work(number, *, more):
        together.wait()
        log.info("STORE", number=number, more=more)
        return number

    bind_contextvars(user_id="ada")
    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(in_context(work, more=1), range(4))) == [0, 1, 2, 3]
    assert [event.user_id for event in handler.query_events()] == ["ada"] * 4


def test_in_context_separates_later_bindings_of_both_sides(handler, log):
    """The function gets the fields bound when it was handed over; fields that it binds do not come back."""
    bind_contextvars(user_id="ada")

    def work():
        log.info("STORE")
        bind_contextvars(user_id="eve")

    later = in_context(work)
    bind_contextvars(user_id="bob")
    later()
    log.info("RECALL")
    assert [event.user_id for event in handler.iter_events()] == ["ada", "bob"]


def test_in_context_leaves_results_and_errors_unchanged():
    """The call differs from a plain one in its context only."""
    assert in_context(divmod, 7)(2) == (3, 1)
    with ContextExecutor() as executor, pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result()
