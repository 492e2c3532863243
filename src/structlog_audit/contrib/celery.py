"""`carry_actor` for Celery: names the actor that caused a task in the events of the task. Needs Celery 5.4 or newer.

**Carried fields.** ``user_id``, ``session_id`` and ``request_id`` travel as strings in the header ``structlog_audit`` of the
task's message, in protocol 2 (the default since Celery 4.0). The client's address belongs to the request and is not carried,
nor is a value of more than 1,000 characters. Fields in a header that the sender passes to ``apply_async`` take precedence.

**Lifetime.** The fields are bound while the task runs, as during a request (see `structlog_audit.contrib.actor`), so retries,
chained tasks and tasks that it sends carry them on. A task from Celery's beat has no actor. An eager task runs in the
context of its caller.

**Trust.** The header is as trustworthy as the broker: any process that can send messages to the broker can name any actor.
A malformed header is refused: the task runs with nothing bound, and Celery logs the error.
"""

from __future__ import annotations

from typing import Any

try:
    from celery import signals
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.celery needs Celery: pip install 'structlog-audit[celery]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.contrib.actor import bind_actor, current_actor
from structlog_audit.exceptions import AuditValueError

HEADER = "structlog_audit"
"""The header of a task's message that holds its actor."""

CARRIED = ("user_id", "session_id", "request_id")
"""The fields of the actor in that header."""

_MAX_CHARACTERS = 1_000

_BLOCK_ATTRIBUTE = "structlog_audit_bound_actor"
"""The attribute of a task's request that holds the block to leave when the task ends."""


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
    # A worker refuses the whole header if one of its fields is invalid, so leave that field out.
    actor = {name: value for name, value in current_actor().items() if _is_carried(name, value)}
    if actor:
        headers.setdefault(HEADER, actor)


def _begin(task: Any, **_: Any) -> None:
    request = task.request
    if request.is_eager:
        return

    actor = getattr(request, HEADER, None) or {}
    is_valid = isinstance(actor, dict) and all(_is_carried(name, value) for name, value in actor.items())

    # Enter the block even without a valid actor: it unbinds the fields of the previous task.
    block = bind_actor(actor if is_valid else {})
    block.__enter__()
    setattr(request, _BLOCK_ATTRIBUTE, block)

    if not is_valid:
        raise AuditValueError(f"the header {HEADER!r} of task {task.name} is not an actor: no actor is bound")


def _end(task: Any, **_: Any) -> None:
    block = task.request.__dict__.pop(_BLOCK_ATTRIBUTE, None)
    if block is not None:
        block.__exit__(None, None, None)


def _is_carried(name: Any, value: Any) -> bool:
    return name in CARRIED and isinstance(value, str) and len(value) <= _MAX_CHARACTERS
