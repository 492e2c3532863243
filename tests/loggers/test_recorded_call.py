"""The end of a call that returned something that is not over yet."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import types
import warnings
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import structlog

from structlog_audit import audited, instrument


def outcomes(handler):
    """Return the status and the error of each event, oldest first, and forget them."""
    found = [(event.status.value, event.error_message) for event in handler.iter_events()]
    handler.clear()
    return found


SUCCESS = ("SUCCESS", None)
BAD = ("FAILURE", "ValueError: bad")


class AsyncCall:
    """An object with an asynchronous ``__call__``."""

    async def __call__(self, value):
        await asyncio.sleep(0)
        if isinstance(value, Exception):
            raise value
        return value


def returns_coroutine(value):
    return AsyncCall()(value)


@types.coroutine
def generator_coroutine(value):
    yield from asyncio.sleep(0).__await__()
    if isinstance(value, Exception):
        raise value
    return value


def returns_task(value):
    return asyncio.create_task(AsyncCall()(value))


def returns_awaitable(value):
    return Request(AsyncCall()(value))


class Request:
    """An awaitable that is an asynchronous context manager as well, as HTTP clients and drivers of databases return it."""

    timeout = 5

    def __init__(self, coroutine):
        self.coroutine = coroutine

    def __await__(self):
        return self.coroutine.__await__()

    async def __aenter__(self):
        return await self.coroutine

    async def __aexit__(self, kind, error, traceback):
        return None

    async def __aiter__(self):
        yield await self.coroutine


PENDING = [
    AsyncCall(),
    functools.partial(AsyncCall()),
    returns_coroutine,
    generator_coroutine,
    returns_task,
    returns_awaitable,
]


@pytest.mark.parametrize("function", PENDING)
@pytest.mark.parametrize(("value", "expected"), [(5, SUCCESS), (ValueError("bad"), BAD)])
def test_awaitable_result_is_recorded_when_it_is_over(handler, function, value, expected):
    """Whatever function returns an awaitable, the event has the outcome and the result of what is awaited."""
    call = audited("STORE", on_result=lambda op, result: op.bind(user_id=result))(function)

    async def main():
        pending = call(value)
        assert handler.count_events() == 0
        assert await pending == value

    with contextlib.suppress(ValueError):
        asyncio.run(main())
    assert [event.user_id for event in handler.iter_events()] == ([None] if expected == BAD else ["5"])
    assert outcomes(handler) == [expected]


def test_coroutine_that_is_never_awaited_is_not_recorded(handler):
    """It has not run. Python warns of it once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        audited("STORE")(returns_coroutine)(1)
        gc.collect()
    assert len(caught) == 1
    assert "AsyncCall.__call__" in str(caught[0].message)
    assert handler.count_events() == 0


def test_task_that_is_cancelled_before_it_begins_causes_no_warning(handler):
    """The coroutine in a task that never began is closed silently, as without the decorator."""

    async def main():
        task = asyncio.create_task(audited("STORE")(returns_coroutine)(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()


def test_future_is_passed_on_unchanged_and_recorded_when_it_is_done(handler):
    """The caller gets the same future; the event has the context of the call."""
    with ThreadPoolExecutor() as executor, structlog.contextvars.bound_contextvars(user_id="u1"):
        future = executor.submit(lambda: 1 / 0)
        assert audited("STORE")(lambda: future)() is future
    (event,) = handler.query_events()
    assert (event.user_id, event.error_message) == ("u1", "ZeroDivisionError: division by zero")


def test_cancelled_future_is_a_failure(handler):
    """A future that was cancelled did not succeed."""
    future = Future()
    audited("STORE")(lambda: future)()
    future.cancel()
    assert outcomes(handler) == [("FAILURE", "CancelledError")]


def test_exception_of_a_future_stays_unretrieved(handler):
    """asyncio still reports an exception that the application does not retrieve."""
    reports = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
        audited("STORE")(returns_task)(ValueError("bad"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert outcomes(handler) == [BAD]
    assert reports == ["Task exception was never retrieved"]


async def use_with(request):
    async with request as value:
        return value


async def use_for(request):
    (value,) = [value async for value in request]
    return value


async def use_task(request):
    return await asyncio.ensure_future(request)


@pytest.mark.parametrize("use", [use_with, use_for, use_task])
@pytest.mark.parametrize(("value", "expected"), [(5, SUCCESS), (ValueError("bad"), BAD)])
def test_awaitable_object_ends_in_the_way_in_which_it_is_used(handler, use, value, expected):
    """An object that can be awaited, entered and iterated keeps all of that, and each records its end."""

    async def main():
        request = audited("STORE")(returns_awaitable)(value)
        assert isinstance(request, Request)
        return await use(request)

    with contextlib.suppress(ValueError):
        assert asyncio.run(main()) == value
    assert outcomes(handler) == [expected]


def test_exception_in_the_block_of_an_awaitable_object_is_a_failure(handler):
    """The event of an object that is entered is recorded at the end of the block."""

    async def main():
        async with audited("STORE")(returns_awaitable)(5):
            assert handler.count_events() == 0
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(main())
    assert outcomes(handler) == [BAD]


def test_awaitable_object_that_is_used_otherwise_ends_the_call(handler):
    """An attribute of the object is read: it is the result, such as a pipeline or a connection."""
    request = audited("STORE")(returns_awaitable)(5)
    assert request.timeout == 5
    request.timeout = 6
    assert outcomes(handler) == [SUCCESS]
    assert asyncio.run(use_with(request)) == 5
    assert outcomes(handler) == []


def test_awaited_result_that_can_be_awaited_again_is_the_result(handler):
    """A connection that is awaited gives itself: the call is over."""
    connection = returns_awaitable(5)

    async def connect():
        return connection

    assert asyncio.run(audited("STORE")(connect)()) is connection
    assert outcomes(handler) == [SUCCESS]
    connection.coroutine.close()


def test_method_that_returns_its_awaitable_object_is_over(handler):
    """A pipeline returns itself from each method: each call is over when it returns."""

    class Pipeline:
        def __await__(self):
            yield

        def set(self, name):
            return self

    pipeline = Pipeline()
    instrument(pipeline, {"set": "STORE"})
    assert pipeline.set("a").set("b") is pipeline
    assert outcomes(handler) == [SUCCESS, SUCCESS]


def generate(items):
    try:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item
    except LookupError:
        yield "handled"
    return len(items)


async def generate_async(items):
    try:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item
    except LookupError:
        yield "handled"


@pytest.mark.parametrize("make", [generate, lambda items: generate(items)])
class TestGenerators:
    """A generator function, and a function that returns a generator."""

    @pytest.mark.parametrize(("items", "expected"), [([1, 2], SUCCESS), ([1, ValueError("bad")], BAD)])
    def test_generator_is_recorded_when_it_ends(self, handler, make, items, expected):
        """The event is recorded at the last value, and has the outcome."""
        iterator = audited("STORE")(make)(items)
        assert next(iterator) == 1
        assert handler.count_events() == 0
        with contextlib.suppress(ValueError):
            assert list(iterator) == [2]
        assert outcomes(handler) == [expected]

    def test_generator_that_is_closed_early_has_ended(self, handler, make):
        """A consumer that takes only some of the values makes no failure."""
        iterator = audited("STORE")(make)([1, 2])
        next(iterator)
        iterator.close()
        assert outcomes(handler) == [SUCCESS]

    def test_exception_thrown_into_a_generator_is_a_failure(self, handler, make):
        """An exception that the consumer throws in makes a FAILURE, even if the generator handles it."""
        iterator = audited("STORE")(make)([1, 2])
        next(iterator)
        assert iterator.throw(LookupError("lost")) == "handled"
        assert list(iterator) == []
        assert outcomes(handler) == [("FAILURE", "LookupError: lost")]

    def test_generator_passes_on_sent_and_returned_values(self, handler, make):
        """The result of a generator is its return value, for on_result too."""
        iterator = audited("STORE", on_result=lambda op, result: op.bind(user_id=result))(make)([1])
        assert next(iterator) == 1
        with pytest.raises(StopIteration) as stopped:
            iterator.send(None)
        assert stopped.value.value == 1
        assert handler.query_events()[0].user_id == "1"


def test_generator_whose_function_never_ran_is_not_recorded(handler):
    """Calling a generator function does nothing; a function that returned a generator has run."""
    audited("STORE")(generate)([1])
    gc.collect()
    assert outcomes(handler) == []
    audited("STORE")(lambda: generate([1]))()
    gc.collect()
    assert outcomes(handler) == [SUCCESS]


@pytest.mark.parametrize("make", [generate_async, lambda items: generate_async(items)])
class TestAsyncGenerators:
    """An asynchronous generator function, and a function that returns an asynchronous generator."""

    @pytest.mark.parametrize(("items", "expected"), [([1, 2], SUCCESS), ([1, ValueError("bad")], BAD)])
    def test_async_generator_is_recorded_when_it_ends(self, handler, make, items, expected):
        """The event is recorded after the last value, and has the outcome."""

        async def main():
            return [item async for item in audited("STORE")(make)(items)]

        with contextlib.suppress(ValueError):
            assert asyncio.run(main()) == items
        assert outcomes(handler) == [expected]

    def test_async_generator_that_is_closed_early_has_ended(self, handler, make):
        """A consumer that takes only some of the values makes no failure."""

        async def main():
            iterator = audited("STORE")(make)([1, 2])
            await anext(iterator)
            await iterator.aclose()

        asyncio.run(main())
        assert outcomes(handler) == [SUCCESS]

    def test_exception_thrown_into_an_async_generator_is_a_failure(self, handler, make):
        """An exception that the consumer throws in makes a FAILURE, even if the generator handles it."""

        async def main():
            iterator = audited("STORE")(make)([1, 2])
            await anext(iterator)
            assert await iterator.athrow(LookupError("lost")) == "handled"
            return [item async for item in iterator]

        assert asyncio.run(main()) == []
        assert outcomes(handler) == [("FAILURE", "LookupError: lost")]


@contextlib.contextmanager
def transaction():
    try:
        yield "cursor"
    except LookupError:
        pass


@contextlib.asynccontextmanager
async def async_transaction():
    with transaction() as cursor:
        yield cursor


def enter(manager, error=None):
    """Enter *manager*, and raise *error* in its block."""
    with manager as value:
        if error is not None:
            raise error
    return value


def enter_async(manager, error=None):
    """Do the same with an asynchronous one."""

    async def main():
        async with manager as value:
            if error is not None:
                raise error
        return value

    return asyncio.run(main())


@pytest.mark.parametrize(("make", "use"), [
    (audited("STORE")(transaction), enter),
    (contextlib.contextmanager(audited("STORE")(transaction.__wrapped__)), enter),
    (audited("STORE")(async_transaction), enter_async),
    (contextlib.asynccontextmanager(audited("STORE")(async_transaction.__wrapped__)), enter_async),
])  # fmt: skip
class TestContextManagers:
    """Context managers of `contextlib`, decorated above and below."""

    def test_context_manager_is_recorded_when_its_block_ends(self, handler, make, use):
        """The block gets the value, and the event is recorded behind it."""
        manager = make()
        assert handler.count_events() == 0
        assert use(manager) == "cursor"
        assert outcomes(handler) == [SUCCESS]

    def test_exception_in_the_block_is_a_failure(self, handler, make, use):
        """The exception propagates unchanged."""
        error = ValueError("bad")
        with pytest.raises(ValueError, match="bad") as raised:
            use(make(), error)
        assert raised.value is error
        assert outcomes(handler) == [BAD]

    def test_exception_that_the_context_manager_handles_is_a_failure(self, handler, make, use):
        """A transaction that rolls back did not succeed."""
        use(make(), LookupError("lost"))
        assert outcomes(handler) == [("FAILURE", "LookupError: lost")]


def session(who):
    yield


@pytest.mark.parametrize("make", [
    audited("STORE", user_id="who")(contextlib.contextmanager(session)),
    contextlib.contextmanager(audited("STORE", user_id="who")(session)),
])  # fmt: skip
def test_context_manager_as_decorator_is_recorded_for_each_call(handler, make):
    """Each call of the decorated function is an operation with its own outcome, and the decoration is none."""
    calls = []

    @make("u1")
    def function(error=None):
        calls.append(error)
        if error is not None:
            raise error

    assert handler.count_events() == 0
    function()
    with pytest.raises(ValueError, match="bad"):
        function(ValueError("bad"))
    function()
    assert len(calls) == 3
    assert [event.user_id for event in handler.query_events()] == ["u1"] * 3
    assert outcomes(handler) == [SUCCESS, BAD, SUCCESS]


def test_asynchronous_context_manager_as_decorator_is_recorded_for_each_call(handler):
    """An asynchronous context manager decorates coroutine functions in the same way."""

    @audited("STORE")(async_transaction)()
    async def function(error=None):
        if error is not None:
            raise error

    asyncio.run(function())
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(function(ValueError("bad")))
    assert outcomes(handler) == [SUCCESS, BAD]


def test_call_of_a_decorated_function_does_not_share_metadata_with_the_next(handler):
    """What one call adds to its event is not in the event of the next."""

    def add(operation, result):
        operation.entry_ids.append("e1")
        operation.metadata["calls"] = operation.metadata.get("calls", 0) + 1
        operation.bind(more=True)

    @audited("STORE", on_result=add)(transaction)()
    def function():
        pass

    function()
    function()
    events = handler.query_events()
    assert [(event.entry_ids, event.metadata) for event in events] == [(["e1"], {"calls": 1, "more": True})] * 2


def test_object_that_is_also_a_context_manager_ends_the_call(handler, tmp_path):
    """A file, a lock or a connection can be used without a block: the call is over, and the result is unchanged."""
    with audited("STORE")(open)(tmp_path / "x", "w") as file:
        assert type(file).__name__ == "TextIOWrapper"
        assert outcomes(handler) == [SUCCESS]


def test_generator_whose_cleanup_raises_is_a_failure(handler):
    """An exception of the code that runs while a generator is closed is recorded, and passes on."""

    def values():
        try:
            yield 1
        finally:
            raise ValueError("bad")

    generator = audited("STORE")(values)()
    next(generator)
    with pytest.raises(ValueError, match="bad"):
        generator.close()
    assert outcomes(handler) == [BAD]


def test_async_generator_whose_cleanup_raises_is_a_failure(handler):
    """An exception of the code that runs while an asynchronous generator is closed is recorded, and passes on."""

    async def values():
        try:
            yield 1
        finally:
            raise ValueError("bad")

    async def main():
        generator = audited("STORE")(values)()
        await anext(generator)
        with pytest.raises(ValueError, match="bad"):
            await generator.aclose()

    asyncio.run(main())
    assert outcomes(handler) == [BAD]


def test_future_that_is_done_needs_no_loop(handler):
    """A future that is done when it is returned is recorded at once, even if its loop is closed."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        future.set_result(5)
        return future

    future = asyncio.run(main())
    assert audited("STORE")(lambda: future)() is future
    assert outcomes(handler) == [SUCCESS]


class Pipeline:
    """An awaitable object with special methods of its own."""

    def __await__(self):
        return iter(())

    def __len__(self):
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_awaitable_object_with_special_methods_stays_what_it_is(handler):
    """An awaitable object that a proxy could not stand for is returned itself, and its call has ended."""
    pipeline = Pipeline()
    result = audited("STORE")(lambda: pipeline)()
    assert result is pipeline
    assert not result
    assert outcomes(handler) == [SUCCESS]
