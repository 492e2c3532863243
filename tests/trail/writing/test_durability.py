"""fsync durability, and the threads and tasks that wait for it."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
import trio
from conftest import lines_in

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, AuditWriteError, audited, get_audit_logger


class Disk:
    """Counts the fsyncs of files, and delays them or lets them fail on demand."""

    def __init__(self, monkeypatch):
        self.syncs = 0
        self.failing = False
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        real = os.fsync

        def fsync(fd):
            if stat.S_ISREG(os.fstat(fd).st_mode):
                self.syncs += 1
                self.reached.set()
                assert self.free.wait(30)
                if self.failing:
                    raise OSError(5, "Input/output error")
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def logger_on(path, **options):
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = AuditHandler(target=AuditFileHandler(path, durability="fsync"), **options)
    logger.addHandler(handler)
    return handler, get_audit_logger()


def test_a_synchronous_call_returns_after_the_fsync(path, disk):
    """Every call is synced before it returns."""
    handler, log = logger_on(path)
    for number in range(3):
        log.info("STORE")
        assert disk.syncs == number + 1
    assert handler.get_statistics()["recorded"] == 3


def test_waiting_threads_share_an_fsync(path, disk):
    """The events that arrive while a thread waits for the disk are written and synced together afterwards."""
    handler, log = logger_on(path)
    disk.free.clear()
    first = threading.Thread(target=log.info, args=("FIRST",))
    first.start()
    assert disk.reached.wait(30)
    others = [threading.Thread(target=log.info, args=("OTHER",)) for _ in range(20)]
    for thread in others:
        thread.start()
    while len(handler._commit._inbox) < 20:
        pass
    disk.free.set()
    for thread in [first, *others]:
        thread.join()
    assert disk.syncs == 2
    assert handler.get_statistics()["recorded"] == 21


@pytest.mark.parametrize("entry_point", ["ainfo", "operation", "audited", "log_event"])
def test_the_event_loop_does_not_wait_for_the_disk(path, disk, entry_point):
    """While the disk is busy, other tasks continue; the caller continues when its event is recorded."""
    handler, log = logger_on(path)

    async def scope():
        async with log.operation("STORE"):
            pass

    @audited("STORE")
    async def function():
        return 7

    calls = {
        "ainfo": lambda: log.ainfo("STORE"),
        "operation": scope,
        "audited": function,
        "log_event": lambda: AuditLogger(handler=handler).log_event("STORE"),
    }

    async def run():
        disk.free.clear()
        tasks = [asyncio.create_task(calls[entry_point]()) for _ in range(64)]
        ticks = 0
        while not disk.reached.is_set():
            await asyncio.sleep(0)
            ticks += 1
        assert ticks
        assert not any(task.done() for task in tasks)
        disk.free.set()
        await asyncio.gather(*tasks)
        assert handler.get_statistics()["recorded"] == 64

    asyncio.run(run())
    assert disk.syncs < 64
    assert len(lines_in(path)) == 64


def drive(coroutine):
    """Run *coroutine*, which must not wait for anything, without an event loop."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def drive_in_thread(coroutine):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(drive, coroutine).result()


def drive_in_callback(coroutine):
    """Run *coroutine* in a callback of asyncio, as trio does in guest mode: there is a loop, but no task to wait in."""

    async def run():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_soon(lambda: done.set_result(drive(coroutine)))
        return await done

    return asyncio.run(run())


def drive_in_trio(coroutine):
    async def run():
        return await coroutine

    return trio.run(run)


@pytest.mark.parametrize("run", [drive, drive_in_thread, drive_in_callback, drive_in_trio])
@pytest.mark.parametrize("entry_point", ["ainfo", "aexception", "operation", "audited", "log_event"])
def test_awaited_event_is_on_the_disk_without_asyncio(path, disk, entry_point, run):
    """Without a task of asyncio each entry point records, and returns when the disk has the event."""
    handler, log = logger_on(path)

    async def scope():
        async with log.operation("STORE", intent=True):
            pass

    @audited("STORE")
    async def function():
        pass

    calls = {
        "ainfo": lambda: log.ainfo("STORE"),
        "aexception": lambda: log.aexception("STORE"),
        "operation": scope,
        "audited": function,
        "log_event": lambda: AuditLogger(handler=handler).log_event("STORE"),
    }
    syncs = disk.syncs
    run(calls[entry_point]())
    assert [line["operation"] for line in lines_in(path)] == ["STORE"]
    assert disk.syncs > syncs
    assert handler.get_statistics()["recorded"] >= 1


def test_error_of_the_disk_reaches_an_awaiting_caller_without_asyncio(path, disk):
    """Without asyncio, too, the caller gets the error with ``on_error="raise"``."""
    _, log = logger_on(path, on_error="raise", call_later=Timer())
    disk.failing = True
    with pytest.raises(AuditWriteError):
        log.ainfo("STORE").send(None)


def test_notices_do_not_block_the_event_loop(path, disk):
    """The event notices that follow an awaited event are recorded by another thread."""
    handler, log = logger_on(path)

    async def run():
        disk.free.clear()
        handler.target.notices.add("truncated")
        task = asyncio.create_task(log.ainfo("STORE"))
        while not disk.reached.is_set():
            await asyncio.sleep(0)
        disk.free.set()
        await task

    asyncio.run(run())
    handler.flush()
    while not handler.query_events(kind="trail", operation="truncated"):
        pass
    assert disk.syncs >= 1


def test_the_event_of_a_cancelled_task_is_recorded_once(path, disk):
    """Cancelling a task that waits for the disk neither loses its event nor records it twice."""
    handler, log = logger_on(path)

    async def run():
        disk.free.clear()
        task = asyncio.create_task(log.ainfo("STORE"))
        while not disk.reached.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        disk.free.set()
        await log.ainfo("RECALL")

    asyncio.run(run())
    assert [event.operation for event in handler.iter_events()] == ["STORE", "RECALL"]
    assert len(lines_in(path)) == 2


@pytest.mark.parametrize("recorded_first", [False, True])
def test_a_block_cancelled_at_its_intent_is_recorded_as_not_begun(path, disk, recorded_first):
    """The block does not run, and a failed outcome of the same user closes the intent."""
    handler, log = logger_on(path)

    async def block():
        with structlog.contextvars.bound_contextvars(user_id="u1"):
            async with log.operation("FORGET", intent=True):
                raise AssertionError("the block ran")

    async def run():
        disk.free.clear()
        task = asyncio.create_task(block())
        while not disk.reached.is_set():
            await asyncio.sleep(0)
        if recorded_first:
            disk.free.set()
            while not handler.query_events(kind="intent"):
                pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        disk.free.set()
        while not handler.query_events():
            await asyncio.sleep(0)

    asyncio.run(run())
    (intent,) = handler.query_events(kind="intent")
    (outcome,) = handler.query_events()
    assert handler.open_intents() == []
    assert (outcome.operation, outcome.user_id, outcome.status) == ("FORGET", "u1", "FAILURE")
    assert outcome.metadata == {"intent_id": intent.event_id}
    assert "was not begun: its task was cancelled" in outcome.error_message


def test_a_cancelled_intent_is_closed_after_the_end_of_the_loop(path, disk):
    """The outcome of a block that did not begin is recorded even if its event loop has ended."""
    handler, log = logger_on(path)

    async def block():
        async with log.operation("FORGET", intent=True):
            raise AssertionError("the block ran")

    async def run():
        disk.free.clear()
        asyncio.create_task(block()).add_done_callback(lambda task: None)
        while not disk.reached.is_set():
            await asyncio.sleep(0)

    asyncio.run(run())
    disk.free.set()
    handler.flush()
    assert [event.error_message is None for event in handler.iter_events(kind=[None, "intent"])] == [True, False]
    assert handler.open_intents() == []


class Timer:
    """Calls a function in a thread at once, or keeps it if it is to be called later."""

    def __init__(self):
        self.delayed = []

    def __call__(self, seconds, function):
        if seconds:
            self.delayed.append(function)
        else:
            threading.Thread(target=function).start()


def test_an_awaiting_caller_gets_the_error_of_a_failing_disk(path, disk):
    """With ``on_error="raise"`` the awaiting caller gets the error, and the event counts as raised."""
    handler, log = logger_on(path, on_error="raise", call_later=Timer())
    disk.failing = True
    with pytest.raises(AuditWriteError):
        asyncio.run(log.ainfo("STORE"))
    assert handler.get_statistics()["raised"] == 1


def test_an_awaited_event_is_pending_while_the_disk_fails(path, disk):
    """With ``on_error="retry"`` the event is pending, and recorded by the first retry after the outage."""
    timer = Timer()
    handler, log = logger_on(path, on_error="retry", call_later=timer)
    disk.failing = True
    asyncio.run(log.ainfo("STORE"))
    assert handler.get_statistics()["pending"] == 1
    disk.failing = False
    timer.delayed[0]()
    assert handler.get_statistics()["recorded"] == 1


def test_an_event_of_a_closed_loop_is_recorded(path, disk):
    """An event with an event loop that ended before it is recorded blocks no other event."""
    handler, log = logger_on(path)

    async def leave():
        disk.free.clear()
        task = asyncio.create_task(log.ainfo("STORE"))
        while not disk.reached.is_set():
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    disk.free.set()
    log.info("RECALL")
    assert [event.operation for event in handler.iter_events()] == ["STORE", "RECALL"]
