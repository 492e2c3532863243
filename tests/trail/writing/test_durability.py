"""fsync durability and those who wait for it."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading

import pytest
import structlog
from conftest import lines_in

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, AuditWriteError, audited, get_audit_logger


class Disk:
    """Counts the fsyncs of files, and holds them up or fails them on demand."""

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


def test_a_synchronous_call_returns_when_the_disk_has_the_event(path, disk):
    """Every call is synced before it returns."""
    handler, log = logger_on(path)
    for number in range(3):
        log.info("STORE")
        assert disk.syncs == number + 1
    assert handler.get_statistics()["recorded"] == 3


def test_threads_that_wait_together_share_an_fsync(path, disk):
    """While one thread waits for the disk, what the others bring is written and synced in one go after it."""
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


@pytest.mark.parametrize("door", ["ainfo", "operation", "audited", "log_event"])
def test_the_event_loop_does_not_wait_for_the_disk(path, disk, door):
    """While the disk is busy, other tasks go on; the caller goes on when its event is recorded."""
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
        tasks = [asyncio.create_task(calls[door]()) for _ in range(64)]
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


def test_what_the_target_noticed_does_not_hold_the_event_loop(path, disk):
    """An act that an awaited event brings up is recorded by another thread as well."""
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


def test_a_cancelled_caller_stores_its_event_once(path, disk):
    """Cancelling a task that waits for the disk neither loses its event nor stores it twice."""
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


@pytest.mark.parametrize("settled_first", [False, True])
def test_a_block_whose_task_was_cancelled_at_its_intent_was_not_begun(path, disk, settled_first):
    """Nobody runs the block, and an event of the same user says so under the intent's id: no intent stays open."""
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
        if settled_first:
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


def test_a_cancelled_intent_stays_closed_when_the_loop_ends_before_the_disk(path, disk):
    """That a block was not begun is recorded even if its event loop is gone by then."""
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


@pytest.mark.parametrize("on_error", ["raise", "retry"])
def test_a_disk_that_fails_is_told_to_those_who_await(path, disk, on_error):
    """With "raise" the awaiting caller gets the error; with "retry" its event is pending, and goes on when the disk does."""
    retries = []

    def call_later(seconds, function):
        if seconds:
            retries.append(function)
        else:
            threading.Thread(target=function).start()

    handler, log = logger_on(path, on_error=on_error, call_later=call_later)
    disk.failing = True
    if on_error == "raise":
        with pytest.raises(AuditWriteError):
            asyncio.run(log.ainfo("STORE"))
        assert handler.get_statistics()["raised"] == 1
        return
    asyncio.run(log.ainfo("STORE"))
    assert handler.get_statistics()["pending"] == 1
    disk.failing = False
    retries[0]()
    assert handler.get_statistics()["recorded"] == 1


def test_who_waits_in_a_closed_loop_holds_nothing_up(path, disk):
    """An event whose loop is gone by the time it is recorded is recorded all the same."""
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
