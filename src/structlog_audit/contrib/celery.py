"""`carry_actor` for Celery: the events of a task name who caused it. Takes Celery 5.4 or newer.

Rules:

* ``user_id``, ``session_id`` and ``request_id`` go with the message of a task, in its header ``structlog_audit``, as texts.
  The client's address does not: it is the request's, not the task's; nor does what has more than 1,000 characters.
* They are bound as long as the task runs, as those of a request are (see `structlog_audit.contrib.actor`), so a retry, the
  next task of a chain, and what the task itself sends carry them on. A task that nobody caused (Celery's beat) has none.
* A header that the sender gives (``apply_async(headers={"structlog_audit": {"user_id": …}})``) goes before what is bound.
* Who can send messages to the broker can name any actor: the header is as trustworthy as the broker. One of another form is
  refused: the task runs with nothing bound, and Celery logs the error.
* A task that runs eagerly runs in its caller's context anyway.
* Message protocol 2 is needed, Celery's own since 4.0.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from structlog_audit.contrib.actor import acting, current_actor
from structlog_audit.exceptions import AuditValueError

HEADER = "structlog_audit"
"""The header of a task's message that has its actor."""

CARRIED = ("user_id", "session_id", "request_id")
"""What is in it."""

_LONGEST = 1_000  # characters
_ACTING = "structlog_audit_acting"  # where a task's request keeps what ends with it


def carry_actor() -> None:
    """Have every task of this process carry its actor, whether it is sent or run here. Called once or more.

    To be called where the Celery application is made, so that senders and workers both do it.
    """
    for signal, receiver in (
        (signals.before_task_publish, _send),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"{__name__}.{receiver.__name__}")


def _send(headers: dict[str, Any], **_: Any) -> None:
    actor = {
        name: value
        for name, value in current_actor().items()
        if name in CARRIED and isinstance(value, str) and len(value) <= _LONGEST  # else all would be refused
    }
    if actor:
        headers.setdefault(HEADER, actor)


def _begin(task: Any, **_: Any) -> None:
    request = task.request
    if request.is_eager:
        return
    actor = getattr(request, HEADER, None) or {}
    valid = _is_actor(actor)
    block = acting(actor if valid else {})
    block.__enter__()
    setattr(request, _ACTING, block)
    if not valid:
        raise AuditValueError(f"the header {HEADER!r} of task {task.name} names no actor: nobody is bound")


def _end(task: Any, **_: Any) -> None:
    block = task.request.__dict__.pop(_ACTING, None)
    if block is not None:
        block.__exit__(None, None, None)


def _is_actor(header: Any) -> bool:
    return isinstance(header, dict) and all(
        name in CARRIED and isinstance(value, str) and len(value) <= _LONGEST for name, value in header.items()
    )
