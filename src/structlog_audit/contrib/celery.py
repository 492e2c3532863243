"""`carry_actor` for Celery: names the actor that caused a task in the events of the task. Needs Celery 5.4 or newer.

**Carried fields.** ``user_id``, ``session_id`` and ``request_id`` travel as strings in the header ``structlog_audit`` of the
task's message, in protocol 2 (the default since Celery 4.0). The client's address belongs to the request and is not carried,
nor is a value of more than 1,000 characters. Fields in a header that the sender passes to ``apply_async`` take precedence.

**Lifetime.** The task's events have these fields while it runs, as those of a request have (`structlog_audit.contrib.actor`),
so retries, chained tasks and tasks that it sends carry them on. The bindings of the task end with it. A task from Celery's beat
has no actor. An eager task records what it would in a worker: nothing else that its caller has bound.

**Trust.** The header is as trustworthy as the broker: any process that can send messages to the broker can name any actor.
A malformed header is refused: the task runs with nothing bound, and Celery logs the error.
"""

from __future__ import annotations

from typing import Any

from structlog_audit._version import check_versions

try:
    check_versions("celery")
    from celery import signals
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.celery needs Celery: pip install 'structlog-audit[celery]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.contrib.actor import SavedContext, current_actor, set_actor
from structlog_audit.exceptions import AuditValueError

HEADER = "structlog_audit"
"""The header of a task's message that holds its actor."""

CARRIED = ("user_id", "session_id", "request_id")
"""The fields of the actor in that header."""

_MAX_CHARACTERS = 1_000

_CONTEXT_ATTRIBUTE = "structlog_audit_context"
"""The attribute of a task's request that holds the context to restore when the task ends."""


def carry_actor() -> None:
    """Let every task that this process sends or runs carry its actor.

    May be called repeatedly.

    Call it where the Celery application is created, so that both senders and workers do so.
    """
    receivers = (
        (signals.before_task_publish, _send),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
    )
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False, dispatch_uid=f"{__name__}.{receiver.__name__}")


def _send(headers: dict[str, Any], **_: Any) -> None:
    actor = _carried_actor()
    if actor:
        headers.setdefault(HEADER, actor)


def _begin(task: Any, **_: Any) -> None:
    request = task.request
    actor = _sent_actor(request)
    is_valid = isinstance(actor, dict) and all(_is_carried(name, value) for name, value in actor.items())

    # Even without a valid actor the fields of the previous task, or of the caller, do not count.
    setattr(request, _CONTEXT_ATTRIBUTE, SavedContext())
    set_actor(actor if is_valid else {}, alone=request.is_eager)

    if not is_valid:
        raise AuditValueError(f"the header {HEADER!r} of task {task.name} is not an actor: no actor is bound")


def _sent_actor(request: Any) -> Any:
    """Return the actor in the message of a task; for an eager task, that of the message it replaces."""
    if not request.is_eager:
        return getattr(request, HEADER, None) or {}

    # An eager retry repeats these headers.
    request.headers = {HEADER: _carried_actor(), **(request.headers or {})}
    return request.headers[HEADER]


def _end(task: Any, **_: Any) -> None:
    outside = task.request.__dict__.pop(_CONTEXT_ATTRIBUTE, None)
    if outside is not None:
        outside.restore()


def _carried_actor() -> dict[str, Any]:
    """Return the part of the current actor that a message carries."""
    # A worker refuses the whole header if one of its fields is invalid, so leave that field out.
    return {name: value for name, value in current_actor().items() if _is_carried(name, value)}


def _is_carried(name: Any, value: Any) -> bool:
    return name in CARRIED and isinstance(value, str) and len(value) <= _MAX_CHARACTERS
