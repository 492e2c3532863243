"""Exceptions that end a block of an operation without being a failure of it.

**Guarantees**

* ``SystemExit`` and the ``Exit`` of click and typer are failures unless their exit code says success.
* Celery's ``Ignore`` is not a failure. Its ``Retry`` is neither failure nor success, so the event is PARTIAL.
* A caller can name further classes: see `structlog_audit.AuditBoundLogger.operation`.
* A group is a failure if any exception in it is one.

Classes of libraries are compared by name, so none of them is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog_audit.events.event import EventStatus
from structlog_audit.events.json_safe import leaf_exceptions
from structlog_audit.exceptions import AuditTypeError

ExceptionClasses = tuple[type[BaseException], ...]


def exception_classes(name: str, given: Any) -> ExceptionClasses:
    """Return *given*, an exception class or a collection of them, as a tuple.

    Raises:
        AuditTypeError: It is something else; the message names the parameter *name*.
    """
    if type(given) is tuple and not given:
        return given

    classes = tuple(given) if isinstance(given, (tuple, list, set, frozenset)) else (given,)
    if all(isinstance(item, type) and issubclass(item, BaseException) for item in classes):
        return classes
    raise AuditTypeError(f"{name}={given!r}: expected an exception class or a tuple of them")


def status_of_ending(error: BaseException, not_failures: ExceptionClasses) -> EventStatus:
    """Return the status of a block that *error* ended.

    Args:
        error: The exception.
        not_failures: Classes of exceptions that are not failures, besides those in the module head.
    """
    status = EventStatus.SUCCESS
    for leaf in leaf_exceptions(error):
        if isinstance(leaf, not_failures):
            continue

        found = _status_of(leaf)
        if found is EventStatus.FAILURE:
            return found
        if found is EventStatus.PARTIAL:
            status = found
    return status


def _status_of(error: BaseException) -> EventStatus:
    for kind in type(error).__mro__:
        ending = _ENDINGS.get((kind.__module__, kind.__qualname__))
        if ending is not None:
            return ending(error)
    return EventStatus.FAILURE


def _by_exit_code(attribute: str) -> Callable[[BaseException], EventStatus]:
    """Return a function that reads the exit code of an exception from its *attribute*."""

    def status(error: BaseException) -> EventStatus:
        code = getattr(error, attribute, None)
        is_success = code is None or (isinstance(code, int) and code == 0)
        return EventStatus.SUCCESS if is_success else EventStatus.FAILURE

    return status


_ENDINGS: dict[tuple[str, str], Callable[[BaseException], EventStatus]] = {
    ("builtins", "SystemExit"): _by_exit_code("code"),
    ("click.exceptions", "Exit"): _by_exit_code("exit_code"),
    ("typer.exceptions", "Exit"): _by_exit_code("exit_code"),
    ("typer._click.exceptions", "Exit"): _by_exit_code("exit_code"),
    ("celery.exceptions", "Ignore"): lambda error: EventStatus.SUCCESS,
    ("celery.exceptions", "Retry"): lambda error: EventStatus.PARTIAL,
}
"""What an exception of a class means, by the module and the name of the class."""
