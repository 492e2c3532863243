"""Work in other threads knows who acts; without help it doesn't."""

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
    """Who is named by an event that *hand_over* has recorded elsewhere, while ada acts here."""

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
def test_without_help_nobody_is_named(handler, log, hand_over):
    """What breaks: an executor's thread and a thread of one's own begin with an empty context."""
    as_ada(log, hand_over)
    assert [event.user_id for event in handler.query_events()] == [None]


@pytest.mark.parametrize("hand_over", HANDING_OVER)
def test_in_context_the_event_names_who_handed_it_over(handler, log, hand_over):
    """The same ways, with `in_context` around the function."""
    as_ada(log, lambda work: hand_over(in_context(work)))
    assert [event.user_id for event in handler.query_events()] == ["ada"]


def test_a_loop_can_have_a_context_executor(handler, log):
    """As a loop's default executor, it makes `run_in_executor(None, …)` carry the context."""

    async def hand_over(work):
        asyncio.get_running_loop().set_default_executor(ContextExecutor())
        await default_executor(work)

    as_ada(log, hand_over)
    assert [event.user_id for event in handler.query_events()] == ["ada"]


def test_a_context_executor_keeps_callers_apart(handler, log):
    """For many callers on few threads: each call names who submitted it, and leaves nothing to the next one."""

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


def test_one_function_runs_in_many_threads_at_once(handler, log):
    """Each call has a copy of its own: a context can be entered only once at a time."""
    together = threading.Barrier(4)

    def work(number, *, more):
        together.wait()
        log.info("STORE", number=number, more=more)
        return number

    bind_contextvars(user_id="ada")
    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(in_context(work, more=1), range(4))) == [0, 1, 2, 3]
    assert [event.user_id for event in handler.query_events()] == ["ada"] * 4


def test_what_is_bound_later_stays_where_it_is(handler, log):
    """The function gets what was bound when it was handed over; what it binds itself does not come back."""
    bind_contextvars(user_id="ada")

    def work():
        log.info("STORE")
        bind_contextvars(user_id="eve")

    later = in_context(work)
    bind_contextvars(user_id="bob")
    later()
    log.info("RECALL")
    assert [event.user_id for event in handler.iter_events()] == ["ada", "bob"]


def test_errors_and_results_are_the_functions_own():
    """Nothing is added to a call but its context."""
    assert in_context(divmod, 7)(2) == (3, 1)
    with ContextExecutor() as executor, pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result()
