"""`audited` and `instrument`: record the calls of functions and of an object's methods.

**Guarantees.** The call itself is unchanged: its arguments, its result and its exceptions. `instrument` changes one object; the
function that it returns undoes that.

**Fields.** The fields of an event come from the arguments of the call, by the name of a parameter or by a function of all
arguments. ``on_result`` adds fields that depend on the result.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.block_endings import ExceptionClasses, exception_classes
from structlog_audit.loggers.bound_logger import get_audit_logger
from structlog_audit.loggers.operation import OperationScope

Function = TypeVar("Function", bound=Callable[..., Any])

Pick = str | Callable[[Mapping[str, Any]], Any]
"""The name of a parameter, or a function of all arguments by name."""

OnResult = Callable[[OperationScope, Any], None]
"""Adds fields to the operation that depend on its result."""

_BY_NAME = {"user_id": "user_id", "session_id": "session_id", "entry_ids": "entry_ids", "entry_id": "entry_ids"}
"""Parameters that `instrument` recognizes by their names, and the members of the event that they fill."""


def audited(
    operation: str,
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
        AuditTypeError: The decorated object is not a function, or is a generator function, which does nothing when called;
            or the operation is missing.
        AuditValueError: The function has no parameter of that name.
    """
    if callable(operation):
        raise AuditTypeError(f'operation={operation!r}: expected the name of an operation: @audited("document.read")')

    given = {"user_id": user_id, "session_id": session_id, "entry_ids": entry_ids}
    picks = {name: pick for name, pick in given.items() if pick is not None}
    classes = exception_classes("not_failures", not_failures)

    def decorate(function: Function) -> Function:
        return _wrap(function, operation, picks, dict(metadata or {}), on_result, classes, logger)

    return decorate


def instrument(
    obj: object,
    operations: Mapping[str, str],
    *,
    user_id: Pick | None = None,
    session_id: Pick | None = None,
    entry_ids: Pick | None = None,
    metadata: Mapping[str, Pick] | None = None,
    on_result: OnResult | None = None,
    not_failures: ExceptionClasses | type[BaseException] = (),
    logger: str = "audit",
) -> Callable[[], None]:
    """Record each call of the given methods of *obj*.

    Return a function that undoes this.

    Parameters called ``user_id``, ``session_id``, ``entry_ids`` or ``entry_id`` fill the members of these names, unless other
    parameters are given for them.

    Args:
        obj: Any object whose attributes can be set.
        operations: The names of the operations, by the names of the methods.
        user_id, session_id, entry_ids, metadata, on_result, not_failures, logger: As for `audited`; each applies to the
            methods that have the parameter.

    Raises:
        AuditTypeError: *operations* is not a mapping, or a method is not callable or can't be replaced.
        AuditValueError: *obj* has no method of that name.
    """
    if not isinstance(operations, Mapping):
        raise AuditTypeError(f"operations={operations!r}: expected a mapping of methods to operations")

    given = {"user_id": user_id, "session_id": session_id, "entry_ids": entry_ids}
    classes = exception_classes("not_failures", not_failures)
    undo: list[Callable[[], None]] = []

    for name, operation in operations.items():
        method = getattr(obj, name, None)
        if method is None:
            raise AuditValueError(f"operations: {type(obj).__name__} has no method {name!r}")

        # Explicit picks override the parameters that are recognized by name.
        parameters = _parameters(method)
        picks: dict[str, Pick] = {member: found for found, member in _BY_NAME.items() if found in parameters}
        picks |= {member: pick for member, pick in given.items() if pick is not None and _fits(pick, parameters)}

        members = {key: pick for key, pick in (metadata or {}).items() if _fits(pick, parameters)}
        wrapped = _wrap(method, operation, picks, members, on_result, classes, logger)
        undo.append(_replace(obj, name, wrapped))

    def undo_all() -> None:
        while undo:
            undo.pop()()

    return undo_all


def _replace(obj: object, name: str, replacement: Callable[..., Any]) -> Callable[[], None]:
    """Set the attribute *name* of *obj*; return a function that restores it."""
    attributes = getattr(obj, "__dict__", {})
    is_instance_attribute = name in attributes
    before = attributes.get(name)

    try:
        setattr(obj, name, replacement)
    except (AttributeError, TypeError) as error:
        raise AuditTypeError(f"operations: {name!r} of {type(obj).__name__} can't be replaced: {error}") from error

    def restore() -> None:
        if is_instance_attribute:
            setattr(obj, name, before)
        else:
            delattr(obj, name)

    return restore


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    if not callable(function):
        raise AuditTypeError(f"expected a function, got {function!r}")
    return inspect.signature(function).parameters


def _fits(pick: Pick, parameters: Mapping[str, inspect.Parameter]) -> bool:
    return callable(pick) or pick in parameters


def _wrap(
    function: Function,
    operation: str,
    picks: Mapping[str, Pick],
    metadata: Mapping[str, Pick],
    on_result: OnResult | None,
    not_failures: ExceptionClasses,
    logger: str,
) -> Function:
    """Return a function that calls *function* and records the call."""
    _check_picks(function, [*picks.values(), *metadata.values()])
    signature = inspect.signature(function)
    log = get_audit_logger(logger)

    def scope(args: tuple[Any, ...], kwargs: dict[str, Any]) -> OperationScope:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            # The call raises the same error, which is recorded as a failure.
            return log.operation(operation, not_failures=not_failures)

        bound.apply_defaults()
        fields = {name: _picked(pick, bound.arguments) for name, pick in picks.items()}
        members = {name: _picked(pick, bound.arguments) for name, pick in metadata.items()}
        return log.operation(operation, not_failures=not_failures, **fields, metadata=members)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            async with scope(args, kwargs) as op:
                result = await function(*args, **kwargs)
                if on_result is not None:
                    on_result(op, result)
                return result

        return call_async  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with scope(args, kwargs) as op:
            result = function(*args, **kwargs)
            if on_result is not None:
                on_result(op, result)
            return result

    return call  # type: ignore[return-value]


def _check_picks(function: Callable[..., Any], picks: Iterable[Pick]) -> None:
    """Raise unless calls of *function* can be recorded with these *picks*."""
    parameters = _parameters(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise AuditTypeError(
            f"expected a function, got the generator function {function!r}, which does nothing when called;"
            " use log.operation(…) in it"
        )

    for pick in picks:
        if not _fits(pick, parameters):
            available = ", ".join(parameters) or "none"
            raise AuditValueError(f"{pick!r}: expected the name of a parameter of {function!r}, which has {available}")


def _picked(pick: Pick, arguments: Mapping[str, Any]) -> Any:
    return arguments[pick] if isinstance(pick, str) else pick(arguments)
