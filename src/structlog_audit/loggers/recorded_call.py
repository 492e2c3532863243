"""`RecordedCall`: one call of a function, from its beginning to the end of its result; for `audited` and `instrument`.

**Guarantees.** The outcome is that of the work, not of the call that began it:

* A coroutine or another awaitable ends when it has been awaited, a future when it is done. One that is never awaited has not
  run, and is not recorded.
* A generator, or a context manager made of one, ends with its last value or when it is closed. An exception that its consumer
  throws into it makes it a FAILURE, even if it handles that. As a decorator, the context manager is recorded for each call.
* An awaitable that is also an asynchronous context manager or iterator ends in the way in which it is used.
* Any other result ends the call.

**Failure handling.** An exception of ``on_result`` is noted in the metadata, under `UNAVAILABLE`, and changes nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from contextvars import copy_context
from typing import Any

from structlog_audit.events.event import EventStatus
from structlog_audit.events.foreign_values import PLAIN_TYPES
from structlog_audit.events.json_safe import exception_text
from structlog_audit.loggers.operation import OperationScope

UNAVAILABLE = "unavailable"
"""The key of the metadata with the fields that could not be determined, and why."""

OnResult = Callable[[OperationScope, Any], None]
"""Adds fields to the operation that depend on its result."""


class RecordedCall:
    """One call that is recorded once it is over.

    Args:
        scope: The operation, which begins now.
        on_result: Adds fields that depend on the result.
        unavailable: The fields that could not be determined, and the text of the exception.
        owner: The object that the method belongs to. If that returns the object itself, the call is over.
    """

    __slots__ = ("_on_result", "_owner", "_scope", "_unavailable")

    def __init__(
        self, scope: OperationScope, on_result: OnResult | None, unavailable: dict[str, str], owner: object
    ) -> None:
        self._scope = scope.__enter__()
        self._on_result = on_result
        self._unavailable = unavailable
        self._owner = owner

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of the function. Its exception is the end of the call."""
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self.fail(error)
            raise

    def pass_on(self, result: Any) -> Any:
        """Return *result*, or a wrapper that records its end."""
        pending = None if type(result) in PLAIN_TYPES else self._pending(result)
        if pending is None:
            self.end(result)
            return result
        return pending

    async def finish(self, awaitable: Any) -> Any:
        """Await *awaitable*, and return its result as `pass_on` does."""
        try:
            result = await awaitable
        except GeneratorExit as error:
            # Nothing can be awaited any more.
            self.fail(error)
            raise
        except BaseException as error:
            await self.fail_async(error)
            raise

        # A value that can be awaited once more is the result itself, such as a connection.
        pending = None if _is_awaitable_object(result) else self._pending(result)
        if pending is None:
            await self.end_async(result)
            return result
        return pending

    def end(self, result: Any) -> None:
        """Record the call, which returned *result*."""
        self._add_result(result)
        self._scope.__exit__(None, None, None)

    def fail(self, error: BaseException) -> None:
        """Record the call, which raised *error*."""
        self._add_unavailable()
        self._scope.__exit__(type(error), error, error.__traceback__)

    async def end_async(self, result: Any) -> None:
        """Record the call as `end` does, without blocking the event loop."""
        self._add_result(result)
        await self._scope.__aexit__(None, None, None)

    async def fail_async(self, error: BaseException) -> None:
        """Record the call as `fail` does, without blocking the event loop."""
        self._add_unavailable()
        await self._scope.__aexit__(type(error), error, error.__traceback__)

    def _close(self) -> None:
        """Record the call after its result was closed early."""
        self._add_unavailable()
        self._scope.__exit__(None, None, None)

    def _add_result(self, result: Any) -> None:
        if self._on_result is not None:
            try:
                self._on_result(self._scope, result)
            except Exception as error:
                self._unavailable["on_result"] = exception_text(error)
        self._add_unavailable()

    def _add_unavailable(self) -> None:
        if self._unavailable:
            self._scope.bind(**{UNAVAILABLE: self._unavailable})

    def _add_thrown(self, error: str | None) -> None:
        """Make the operation a FAILURE if an exception with the text *error* was thrown into it."""
        if error is not None:
            self._scope.bind(status=EventStatus.FAILURE, error_message=error)

    def _pending(self, result: Any) -> Any:
        """Return the wrapper of *result* that records its end; None if the call is over."""
        kind: Any = type(result)
        if kind is types.GeneratorType:
            if result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
                return self._coroutine(result)
            return _started(self.generator(result, paused=True))

        if kind is types.CoroutineType:
            return self._coroutine(result)
        if kind is types.AsyncGeneratorType:
            return _started_async(self.async_generator(result, paused=True))

        if _is_future(result):
            # The loop of a future that is done may be closed, so it takes no callback.
            if result.done():
                self._end_future(result)
                return result

            context = copy_context()
            result.add_done_callback(lambda future: context.run(self._end_future, future))
            return result

        if _is_made_of_generator(result):
            if hasattr(result, "func"):
                result.func = self._recording_again(result.func)
            result.gen = self._delegate(result.gen)
            return result

        if _is_awaitable_object(result) and result is not self._owner and _can_be_proxied(kind):
            return _proxy_class(kind)(result, self)
        return None

    def _delegate(self, generator: Any) -> Any:
        """Return the generator in place of that of a context manager."""
        is_async = type(generator) is types.AsyncGeneratorType
        return self.async_generator(generator) if is_async else self.generator(generator)

    def _recording_again(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return *function*, which makes the generator of a context manager, such that it begins and records a new call.

        `contextlib` calls it for each call of a function that the context manager decorates.
        """
        scope, unavailable = self._scope.copy(), dict(self._unavailable)

        @functools.wraps(function)
        def make(*args: Any, **kwargs: Any) -> Any:
            call = RecordedCall(scope.copy(), self._on_result, dict(unavailable), self._owner)
            return call._delegate(call.run(function, args, kwargs))

        return make

    def _coroutine(self, awaited: Any) -> Any:
        """Return a coroutine in place of the coroutine *awaited* that records its end."""
        coroutine: Any = self.finish(awaited)
        coroutine.__name__, coroutine.__qualname__ = awaited.__name__, awaited.__qualname__

        # A task may be cancelled before it begins. Only one of the two coroutines may warn that it was never awaited.
        weakref.finalize(coroutine, awaited.close).atexit = False
        return coroutine

    def _end_future(self, future: Any) -> None:
        # The method `exception` of asyncio's futures would count as a retrieval of the exception by the application.
        error = CancelledError() if future.cancelled() else future._exception
        if error is not None:
            self.fail(error)
        else:
            self.end(future.result())

    def generator(self, generator: Generator[Any, Any, Any], *, paused: bool = False) -> Generator[Any, Any, Any]:
        """Delegate to *generator*, and record its end.

        *paused* adds a pause before it, so that the call is over, too, if its result is dropped unused.
        """
        watched = _WatchedGenerator(generator)
        try:
            if paused:
                yield
            result = yield from watched
        except GeneratorExit:
            # The code that runs while the generator is closed may raise as well.
            try:
                generator.close()
            except BaseException as error:
                self.fail(error)
                raise
            self._close()
            raise
        except BaseException as error:
            self.fail(error)
            generator.close()
            raise

        self._add_thrown(watched.thrown)
        self.end(result)
        return result

    def async_generator(self, generator: AsyncGenerator[Any, Any], *, paused: bool = False) -> AsyncGenerator[Any, Any]:
        """Delegate to the asynchronous *generator* as `generator` does, and record its end."""
        return async_generator_function(lambda *args, **kwargs: (self, generator), paused=paused)()


def async_generator_function(
    begin: Callable[..., tuple[RecordedCall, AsyncGenerator[Any, Any]]], *, paused: bool = False
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an asynchronous generator function that delegates to a generator, and records its end.

    Args:
        begin: Takes the arguments of the function. Returns the call and the generator, when the first value is taken.
        paused: Whether it pauses before it delegates.
    """

    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call, generator = begin(*args, **kwargs)
        thrown: str | None = None
        try:
            if paused:
                yield

            step = generator.asend(None)
            while True:
                value = await step
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = exception_text(error)
                    step = generator.athrow(error)
                else:
                    step = generator.asend(sent)

        except StopAsyncIteration:
            call._add_thrown(thrown)
            await call.end_async(None)
        except GeneratorExit:
            # The garbage collector closes a generator without an event loop: to record must not wait for one.
            await _close_and_record(generator, call)
            raise
        except BaseException as error:
            await call.fail_async(error)
            raise

    return generate


async def _close_and_record(generator: AsyncGenerator[Any, Any], call: RecordedCall) -> None:
    """Close *generator* and record *call*; the code that runs while it is closed may raise as well."""
    try:
        await generator.aclose()
    except BaseException as error:
        call.fail(error)
        raise
    call._close()


class _WatchedGenerator:
    """A generator that keeps the text of the exception that was thrown into it."""

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self.thrown: str | None = None
        self.send = generator.send
        self.close = generator.close
        self._generator = generator

    def __iter__(self) -> _WatchedGenerator:
        return self

    def __next__(self) -> Any:
        return next(self._generator)

    def throw(self, *error: Any) -> Any:
        """Throw *error* into the generator: an exception, or its class, its value and its traceback."""
        values = [part for part in error if isinstance(part, BaseException)]
        self.thrown = exception_text(values[0]) if values else error[0].__name__
        return self._generator.throw(*error)


class _AwaitableProxy:
    """An awaitable object that records the end of *call*, in whichever way it is used.

    Its class has the special methods that the object has; all other attributes are those of the object.
    """

    __slots__ = ("_awaitable", "_call", "_driver", "_entered")

    def __init__(self, awaitable: Any, call: RecordedCall) -> None:
        _set_own(self, "_awaitable", awaitable)
        _set_own(self, "_call", call)
        _set_own(self, "_driver", None)
        _set_own(self, "_entered", None)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the object, for `isinstance`."""
        return type(self._awaitable)

    def __getattr__(self, name: str) -> Any:
        # A proxy that is not initialized yet, as `copy` makes it, has nothing to delegate to.
        if name in _AwaitableProxy.__slots__:
            raise AttributeError(name)
        value = getattr(self._awaitable, name)

        # It is used as an ordinary object, the result of the call.
        call = _take_call(self) if name[:1] != "_" else None
        if call is not None:
            call.end(self._awaitable)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._awaitable, name, value)


_set_own = object.__setattr__


def _take_call(proxy: Any) -> RecordedCall | None:
    """Return the call of *proxy*, unless its end is being recorded already."""
    call: RecordedCall | None = proxy._call
    _set_own(proxy, "_call", None)
    return call


def _coroutine_of(proxy: Any) -> Any:
    """Return the coroutine that awaits the object of *proxy* and records the end of its call."""
    if proxy._driver is None:
        call = _take_call(proxy)
        _set_own(proxy, "_driver", _await(proxy._awaitable) if call is None else call.finish(proxy._awaitable))
    return proxy._driver


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _enter(proxy: Any) -> Any:
    """Enter the asynchronous context manager; its call ends with the block."""
    call = _take_call(proxy)
    try:
        value = await proxy._awaitable.__aenter__()
    except BaseException as error:
        if call is not None:
            await call.fail_async(error)
        raise

    _set_own(proxy, "_entered", (call, value))
    return value


async def _leave(proxy: Any, kind: Any, error: BaseException | None, traceback: Any) -> Any:
    """Leave the asynchronous context manager, and record its call."""
    call, value = proxy._entered or (None, None)
    _set_own(proxy, "_entered", None)
    try:
        is_handled = await proxy._awaitable.__aexit__(kind, error, traceback)
    except BaseException as failure:
        error = failure
        raise
    finally:
        if call is not None:
            await (call.end_async(value) if error is None else call.fail_async(error))
    return is_handled


def _iterate(proxy: Any) -> Any:
    """Return the asynchronous iterator; its call ends with the iteration."""
    call = _take_call(proxy)
    iterator = proxy._awaitable.__aiter__()
    return iterator if call is None else call.async_generator(_values(iterator))


async def _values(iterator: Any) -> AsyncGenerator[Any, Any]:
    async for value in iterator:
        yield value


_PROXY_METHODS: dict[str, Callable[..., Any]] = {
    "__await__": lambda proxy: _coroutine_of(proxy).__await__(),
    "__aenter__": _enter,
    "__aexit__": _leave,
    "__aiter__": _iterate,
    "send": lambda proxy, value: _coroutine_of(proxy).send(value),
    "throw": lambda proxy, *error: _coroutine_of(proxy).throw(*error),
    "close": lambda proxy: proxy._awaitable.close() if proxy._driver is None else proxy._driver.close(),
}


_HARMLESS = frozenset(dir(object)) | {
    *("__dict__", "__weakref__", "__module__", "__slots__", "__doc__", "__annotations__", "__del__"),
    *("__orig_bases__", "__parameters__", "__abstractmethods__", "__class_getitem__", "__match_args__"),
    *("__static_attributes__", "__firstlineno__", "__annotate__", "__annotations_cache__", "__annotate_func__"),
}
"""Special names that a proxy does not need."""


@functools.lru_cache(maxsize=256)
def _can_be_proxied(kind: Any) -> bool:
    """Return whether a proxy behaves as an object of the class *kind* does.

    Python looks special methods up in the class, so an object with others than a proxy has, such as ``__len__``, stays what
    it is, and its call ends with the return.
    """
    special = {name for name in dir(kind) if name[:2] == name[-2:] == "__"}
    has_own_identity = kind.__eq__ is object.__eq__ and kind.__hash__ is object.__hash__
    return has_own_identity and special <= _HARMLESS | _PROXY_METHODS.keys()


@functools.lru_cache(maxsize=256)
def _proxy_class(kind: Any) -> Callable[[Any, RecordedCall], Any]:
    """Return the class of proxies for objects of the class *kind*."""
    # Only a coroutine has `send`. A method `close` of any other object is its own.
    is_coroutine = issubclass(kind, Coroutine)
    names = [name for name in _PROXY_METHODS if hasattr(kind, name) and (is_coroutine or name[:2] == "__")]
    methods = {name: _PROXY_METHODS[name] for name in names}
    return type(kind.__name__, (_AwaitableProxy,), {"__slots__": (), **methods})


def _is_awaitable_object(result: Any) -> bool:
    """Return whether *result* can be awaited, and is neither a coroutine nor a future."""
    kind = type(result)
    return hasattr(kind, "__await__") and kind is not types.CoroutineType and not _is_future(result)


def _is_future(result: Any) -> bool:
    """Return whether *result* is a future of `asyncio` or `concurrent.futures`."""
    return hasattr(type(result), "add_done_callback") and hasattr(result, "_exception")


def _is_made_of_generator(result: Any) -> bool:
    """Return whether *result* is a context manager from a function with the decorator of `contextlib`."""
    managers = (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager)
    if not issubclass(type(result), managers):
        return False

    attributes = getattr(result, "__dict__", {})
    return type(attributes.get("gen")) in (types.GeneratorType, types.AsyncGeneratorType)


def _started(paused: Any) -> Any:
    """Return a *paused* generator that has reached its pause."""
    next(paused)
    return paused


def _started_async(paused: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """Return a *paused* asynchronous generator that has reached its pause."""
    # The pause is its first value, and nothing is awaited before.
    with contextlib.suppress(StopIteration):
        paused.asend(None).send(None)
    return paused
