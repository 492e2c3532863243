"""`audited` and `instrument`: record the calls of functions and of an object's methods.

**Guarantees.** The call itself is unchanged: its arguments, its result and its exceptions; the wrapped function keeps its
signature and its kind. `RecordedCall` decides over the outcome: a call is recorded when its result is over.
`instrument` changes one object; the function that it returns undoes that.

**Fields.** The fields of an event come from the arguments of the call, by the name of a parameter or by a function of all
arguments. ``on_result`` adds fields that depend on the result. One that raises is noted in the metadata, and changes nothing
else. A call that is wrapped twice for the same operation and logger is recorded once, with the options of the last time.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from structlog_audit.events.event import OperationName
from structlog_audit.events.json_safe import exception_text
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.block_endings import ExceptionClasses, exception_classes
from structlog_audit.loggers.bound_logger import get_audit_logger
from structlog_audit.loggers.recorded_call import OnResult, RecordedCall, async_generator_function

Function = TypeVar("Function", bound=Callable[..., Any])

Pick = str | Callable[[Mapping[str, Any]], Any]
"""The name of a parameter, or a function of all arguments by name."""

_BY_NAME = {"user_id": "user_id", "session_id": "session_id", "entry_ids": "entry_ids", "entry_id": "entry_ids"}
"""Parameters that `instrument` recognizes by their names, and the members of the event that they fill."""

_MISSING: Any = object()
"""Stands for an attribute or an argument that does not exist."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""The kinds of parameters whose arguments are found by name alone."""

_NO_DEFAULT: Any = inspect.Parameter.empty

_MARK = "_audit_wrapper"
"""The attribute of a wrapping function with its `_Wrapper`."""


def audited(
    operation: OperationName,
    *,
    user_id: Pick | None = None,
    session_id: Pick | None = None,
    entry_ids: Pick | None = None,
    metadata: Mapping[str, Pick] | None = None,
    on_result: OnResult | None = None,
    not_failures: ExceptionClasses | type[BaseException] = (),
    logger: str = "audit",
) -> Callable[[Function], Function]:
    """Record each call of the decorated function, with its duration and outcome.

    Args:
        operation: The name of the operation.
        user_id, session_id, entry_ids: The parameter that holds the value, or a function of the arguments by name.
        metadata: The same for each member of the metadata.
        on_result: Called with the operation and the result, to add fields: ``op.entry_ids.append(result)``.
        not_failures: The exception classes that are not failures, as for `AuditBoundLogger.operation`.
        logger: The name of the logger that an `AuditHandler` is attached to.

    Raises:
        AuditTypeError: The decorated object is not a function, the operation is missing, or *on_result* is not a function.
        AuditValueError: The function has no parameter of that name.
    """
    if callable(operation):
        raise AuditTypeError(f'operation={operation!r}: expected the name of an operation: @audited("document.read")')

    _check_on_result(on_result)
    given = {"user_id": user_id, "session_id": session_id, "entry_ids": entry_ids}
    picks = {name: pick for name, pick in given.items() if pick is not None}
    classes = exception_classes("not_failures", not_failures)

    def decorate(function: Function) -> Function:
        # The descriptors of a class body stay descriptors.
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        return _wrap(function, operation, picks, dict(metadata or {}), on_result, classes, logger)

    return decorate


class Instrumentation:
    """The methods that `instrument` replaced. A call puts them back, as does the end of its ``with`` block."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def add(self, undo: Callable[[], None]) -> None:
        """Call *undo*, which puts one method back, before those that were added earlier."""
        self._undo.append(undo)

    def __call__(self) -> None:
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self()


def instrument(
    obj: object,
    operations: Mapping[str, OperationName],
    *,
    user_id: Pick | None = None,
    session_id: Pick | None = None,
    entry_ids: Pick | None = None,
    metadata: Mapping[str, Pick] | None = None,
    on_result: OnResult | None = None,
    not_failures: ExceptionClasses | type[BaseException] = (),
    logger: str = "audit",
) -> Instrumentation:
    """Record each call of the given methods of *obj*, until the returned object is called or left.

    As a context manager, it records the calls within its block.

    Arguments called ``user_id``, ``session_id``, ``entry_ids`` or ``entry_id`` fill the members of these names, unless other
    parameters are given for them.

    Args:
        obj: Any object that allows setting attributes.
        operations: The names of the operations, by the names of the methods.
        user_id, session_id, entry_ids, metadata, on_result, not_failures, logger: As for `audited`; each applies to the
            methods that have the parameter.

    Raises:
        AuditTypeError: *operations* is not a mapping, a method is not callable or can't be replaced, or *on_result* is not a
            function.
        AuditValueError: *obj* has no method of that name, or Python calls it by the class and not by the object.
    """
    if not isinstance(operations, Mapping):
        raise AuditTypeError(f"operations={operations!r}: expected a mapping of methods to operations")

    _check_on_result(on_result)
    given = {"user_id": user_id, "session_id": session_id, "entry_ids": entry_ids}
    classes = exception_classes("not_failures", not_failures)
    undo = Instrumentation()

    def wrap(function: Callable[..., Any], operation: OperationName) -> Callable[..., Any]:
        signature = _signature(function)

        # Explicit picks override the arguments that are recognised by name.
        picks: dict[str, Pick] = _picks_by_name(signature)
        picks |= {member: pick for member, pick in given.items() if pick is not None and _fits(pick, signature)}
        members = {key: pick for key, pick in (metadata or {}).items() if _fits(pick, signature)}
        return _wrap(function, operation, picks, members, on_result, classes, logger)

    try:
        for name, operation in operations.items():
            undo.add(_instrument_method(obj, name, functools.partial(wrap, operation=operation)))
    except BaseException:
        undo()
        raise
    return undo


def _check_on_result(on_result: OnResult | None) -> None:
    if on_result is not None and not callable(on_result):
        got = type(on_result).__name__
        raise AuditTypeError(f"on_result={on_result!r}: expected a function of the operation and the result, got {got}")


def _instrument_method(
    obj: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None]:
    """Replace the method *name* of *obj* by its wrapped form; return a function that undoes this."""
    is_class = isinstance(obj, type)
    method = getattr(obj, name, None)
    if method is None:
        raise AuditValueError(f"operations: {type(obj).__name__} has no method {name!r}")
    if name[:2] == name[-2:] == "__" and not is_class:
        raise AuditValueError(
            f"operations: Python calls {name!r} by the class {type(obj).__name__}, not by the object;"
            " use audited in the class, or instrument the class"
        )

    # The descriptors of a class stay descriptors.
    descriptor = inspect.getattr_static(obj, name, None) if is_class else None
    if isinstance(descriptor, (staticmethod, classmethod)):
        wrapped = wrap(descriptor.__func__)
        return _replace(obj, name, type(descriptor)(wrapped), wrapped)

    wrapped = wrap(method)
    return _replace(obj, name, wrapped, wrapped)


def _replace(obj: object, name: str, replacement: Any, wrapped: Callable[..., Any]) -> Callable[[], None]:
    """Set the attribute *name* of *obj*; return a function that restores it, in any order with others."""
    wrapper: _Wrapper = getattr(wrapped, _MARK)
    wrapper.replaced = getattr(obj, "__dict__", {}).get(name, _MISSING)
    try:
        setattr(obj, name, replacement)
    except Exception as error:
        raise AuditTypeError(f"operations: {name!r} of {type(obj).__name__} can't be replaced: {error}") from error

    def restore() -> None:
        wrapper.is_undone = True
        if getattr(obj, "__dict__", {}).get(name, _MISSING) is not replacement:
            return

        # Leave out the methods that were undone before.
        before = wrapper.replaced
        while (earlier := _wrapper_of(before)) is not None and earlier.is_undone:
            before = earlier.replaced

        if before is _MISSING:
            delattr(obj, name)
        else:
            setattr(obj, name, before)

    return restore


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of *function*; None for a function in C without one."""
    if not callable(function):
        raise AuditTypeError(f"expected a function, got {function!r}")
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def _takes_any_keyword(signature: inspect.Signature | None) -> bool:
    parameters = () if signature is None else signature.parameters.values()
    return signature is None or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _fits(pick: Pick, signature: inspect.Signature | None) -> bool:
    """Return whether *pick* may find a value in a call."""
    if callable(pick) or (signature is not None and pick in signature.parameters):
        return True
    return isinstance(pick, str) and _takes_any_keyword(signature)


def _picks_by_name(signature: inspect.Signature | None) -> dict[str, Pick]:
    """Return the picks of the arguments named like members."""
    names: dict[str, list[str]] = {}
    for name, member in _BY_NAME.items():
        if _fits(name, signature):
            names.setdefault(member, []).append(name)

    return {member: functools.partial(_first_of, found) for member, found in names.items()}


def _first_of(names: list[str], arguments: Mapping[str, Any]) -> Any:
    """Return the first of the arguments *names* that the call has, or None."""
    values = (arguments[name] for name in names if arguments.get(name) is not None)
    return next(values, None)


@dataclass(slots=True)
class _Wrapper:
    """The state of a wrapping function.

    Attributes:
        outer: The wrapping function. Decorators copy the attributes of a function to others.
        function: The wrapped function.
        key: The operation and the logger.
        replaced: The attribute of the object that `instrument` replaced by it.
        is_undone: Whether that was undone.
    """

    outer: Callable[..., Any]
    function: Callable[..., Any]
    key: tuple[OperationName, str]
    replaced: Any = None
    is_undone: bool = False


def _wrapper_of(function: Any) -> _Wrapper | None:
    """Return the `_Wrapper` of *function*, a function, method or descriptor; None if it is not a wrapping function."""
    function = getattr(function, "__func__", function)
    wrapper = getattr(function, "__dict__", {}).get(_MARK)
    return wrapper if isinstance(wrapper, _Wrapper) and wrapper.outer is function else None


def _wrap(
    function: Function,
    operation: OperationName,
    picks: Mapping[str, Pick],
    metadata: Mapping[str, Pick],
    on_result: OnResult | None,
    not_failures: ExceptionClasses,
    logger: str,
) -> Function:
    """Return a function that calls *function* and records the call."""
    signature = _signature(function)
    _check_picks(function, signature, [*picks.values(), *metadata.values()])
    function = _unwrapped(function, (operation, logger))
    log = get_audit_logger(logger)
    bound_to = getattr(function, "__self__", None)
    bind = _binder(signature)

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> RecordedCall:
        owner = args[0] if args and bound_to is None else bound_to
        arguments = bind(args, kwargs)
        if arguments is None:
            # The call raises a TypeError, which is recorded as a failure.
            return RecordedCall(log.operation(operation, not_failures=not_failures), on_result, {}, owner)

        unavailable: dict[str, str] = {}
        fields = _picked(picks, arguments, unavailable)
        members = _picked(metadata, arguments, unavailable)
        return RecordedCall(
            log.operation(operation, not_failures=not_failures, **fields, metadata=members),
            on_result,
            unavailable,
            owner,
        )

    outer: Any = functools.wraps(function)(_same_kind(function, begin))
    setattr(outer, _MARK, _Wrapper(outer, function, (operation, logger)))
    return outer  # type: ignore[no-any-return]


def _unwrapped(function: Any, key: tuple[OperationName, str]) -> Any:
    """Return *function* without a wrapper that records the same operation on the same logger."""
    wrapper = _wrapper_of(function)
    if wrapper is None or wrapper.key != key:
        return function

    inner = wrapper.function
    is_method = isinstance(function, types.MethodType)
    return types.MethodType(inner, function.__self__) if is_method else inner


def _same_kind(function: Callable[..., Any], begin: Callable[..., RecordedCall]) -> Callable[..., Any]:
    """Return a function of the same kind as *function* that calls it and records the call that *begin* begins."""

    def call(*args: Any, **kwargs: Any) -> Any:
        recorded = begin(args, kwargs)
        return recorded.pass_on(recorded.run(function, args, kwargs))

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        recorded = begin(args, kwargs)
        return await recorded.finish(recorded.run(function, args, kwargs))

    def generate(*args: Any, **kwargs: Any) -> Any:
        recorded = begin(args, kwargs)
        return (yield from recorded.generator(recorded.run(function, args, kwargs)))

    def begin_generator(*args: Any, **kwargs: Any) -> Any:
        recorded = begin(args, kwargs)
        return recorded, recorded.run(function, args, kwargs)

    # A generator function with the decorator `types.coroutine` is called like any function that returns an awaitable.
    code = getattr(function, "__code__", None)
    is_coroutine = bool(code and code.co_flags & inspect.CO_ITERABLE_COROUTINE)

    if inspect.iscoroutinefunction(function):
        return call_async
    if inspect.isasyncgenfunction(function):
        return async_generator_function(begin_generator)
    return generate if inspect.isgeneratorfunction(function) and not is_coroutine else call


def _check_picks(function: Callable[..., Any], signature: inspect.Signature | None, picks: Iterable[Pick]) -> None:
    """Raise unless each of *picks* may find a value in a call of *function*."""
    for pick in picks:
        if not _fits(pick, signature):
            available = ", ".join(signature.parameters if signature is not None else ()) or "none"
            raise AuditValueError(f"{pick!r}: expected the name of a parameter of {function!r}, which has {available}")


def _binder(signature: inspect.Signature | None) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any] | None]:
    """Return a function of the positional and the keyword arguments of a call.

    It returns the arguments by name, with defaults and those in ``**kwargs``; None if they do not fit.
    """
    if signature is None:
        return lambda args, kwargs: dict(kwargs)

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return None

        bound.apply_defaults()
        return kwargs | bound.arguments

    parameters = signature.parameters.values()
    if any(parameter.kind not in _NAMED for parameter in parameters):
        return bind

    names = signature.parameters.keys()
    positional = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    defaults = [(parameter.name, parameter.default) for parameter in parameters if parameter.default is not _NO_DEFAULT]

    def bind_named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        arguments = kwargs | dict(zip(positional, args, strict=False))

        # No argument is left over, none was given twice, and each has the name of a parameter.
        if len(arguments) != len(args) + len(kwargs):
            return None
        if len(arguments) != len(names):
            for name, default in defaults:
                arguments.setdefault(name, default)
        return arguments if arguments.keys() == names else None

    return bind_named


def _picked(picks: Mapping[str, Pick], arguments: Mapping[str, Any], unavailable: dict[str, str]) -> dict[str, Any]:
    """Return the value of each of *picks* that finds one. An exception goes to *unavailable*."""
    values = {}
    for name, pick in picks.items():
        try:
            value = arguments.get(pick, _MISSING) if isinstance(pick, str) else pick(arguments)
        except Exception as error:
            unavailable[name] = exception_text(error)
            continue

        if value is not _MISSING:
            values[name] = value
    return values
