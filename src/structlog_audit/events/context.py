"""Context of the running task or thread: its actor, structlog's contextvars and the active OpenTelemetry span.

This is the only module below the entry points that imports structlog.

**Guarantees**

* An actor, which `structlog_audit.contrib` sets for a request or a task, survives ``clear_contextvars()``. Code of the request
  overrides a field of it by binding another value.
* While a span is active, ``trace_id`` and ``span_id`` are added in lower-case hexadecimal, named as in OpenTelemetry's "Trace
  Context in non-OTLP Log Formats". If the event has either field already, neither is added.
* OpenTelemetry is never imported here. Without it, the check costs one dictionary look-up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from typing import Any, NamedTuple

from structlog import contextvars as structlog_contextvars

OPENTELEMETRY_TRACE = "opentelemetry.trace"
"""The name of the module that is imported wherever OpenTelemetry's tracing API is in use."""

_loaded_modules = sys.modules

_STRUCTLOG_VARIABLES: Mapping[str, ContextVar[Any]] | None = getattr(structlog_contextvars, "_CONTEXT_VARS", None)
"""The variables of structlog by their names, which begin with a prefix; None if another version of structlog has none.

`structlog.contextvars.get_contextvars` searches all variables of the context, of which a server may have a thousand.
"""

_PREFIX_LENGTH = len(structlog_contextvars.STRUCTLOG_KEY_PREFIX)


class CurrentActor(NamedTuple):
    """The actor of a request or a task.

    Attributes:
        known: Its fields by their names, without those that it lacks.
        around: The values of its fields in structlog's contextvars when it was set. It does not count as bound by the request.
    """

    known: dict[str, str]
    around: Mapping[str, Any]


ACTOR: ContextVar[CurrentActor | None] = ContextVar("audit_actor", default=None)
"""The current actor. Its name must not begin with ``structlog_``: applications clear structlog's contextvars in a request."""


def with_context(given: dict[str, Any], *, is_merged: bool = False) -> dict[str, Any]:
    """Return *given* with the fields that the running task or thread adds to each event.

    Args:
        given: The other fields of the event, which take precedence. If these name a trace or a span, the active span adds
            nothing.
        is_merged: Whether a processor of structlog may have merged its contextvars into *given*, see `own_fields`.
    """
    fields = given

    # An empty context is four times faster to detect than to convert.
    if copy_context():
        bound = bound_by_structlog()
        actor = ACTOR.get()
        if actor is not None:
            bound = actor.known | own_fields(bound)
            given = own_fields(given) if is_merged else given
        fields = bound | given

    if OPENTELEMETRY_TRACE in _loaded_modules:
        # The import may be incomplete, or a span of the application may raise: then the event has no span.
        try:
            span = _loaded_modules[OPENTELEMETRY_TRACE].get_current_span().get_span_context()
            if span.is_valid and not _names_span(fields):
                fields = fields | {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        except Exception:
            pass

    return fields


def bound_by_structlog() -> dict[str, Any]:
    """Return the fields that are bound by ``structlog.contextvars``. The time does not depend on other variables."""
    if _STRUCTLOG_VARIABLES is None:
        return structlog_contextvars.get_contextvars()

    # A copy, because another thread may bind a new name meanwhile.
    bound = {}
    for name, variable in tuple(_STRUCTLOG_VARIABLES.items()):
        value = variable.get(...)
        if value is not ...:
            bound[name[_PREFIX_LENGTH:]] = value
    return bound


def own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *fields* without what was bound around the actor for its fields.

    It may be in an event dict after structlog's ``merge_contextvars``. A value is recognized by its identity.
    """
    copied = dict(fields)
    actor = ACTOR.get()
    if actor is not None:
        for name, value in actor.around.items():
            if name in copied and copied[name] is value:
                del copied[name]
    return copied


def _names_span(given: Mapping[str, Any]) -> bool:
    """Return whether *given*, or its metadata, has a trace id or a span id."""
    for mapping in (given, given.get("metadata")):
        if type(mapping) is dict and ("trace_id" in mapping or "span_id" in mapping):
            return True

    return False
