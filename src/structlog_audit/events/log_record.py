"""The fields of an event from a log record, whatever shape the caller's logging gave it.

========================================================  =============================================================
the record comes from                                     its fields are
========================================================  =============================================================
a door of this library                                    the dictionary under `HANDOFF`, and nothing else
``logger.info("STORE", extra={…})``                       the attributes that `logging` itself does not set
structlog, ``render_to_log_kwargs``                       the same
structlog, ``render_to_log_args_and_kwargs``              the same; the arguments belong to the message
structlog, ``wrap_for_formatter``                         the dictionary that is the message, ``event`` its text
``logger.info({…})``                                      the same
structlog, ``JSONRenderer`` (a string or bytes)           the object in the text, if it has an ``event`` or ``operation``
========================================================  =============================================================

Rules:

* Of structlog's own keys, those that only repeat what the record says (level, logger) or are machinery are left out.
* To a record that no door made, structlog's contextvars are added, where it has no field of that name itself.
* Attributes that begin with an underscore are private and no fields.
* A message whose arguments do not fit is kept as its template, with the arguments beside it: nothing here raises.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from structlog_audit.events.context import bound_context
from structlog_audit.events.json_safe import JsonSanitizer, exception_text, type_name

HANDOFF = "_audit"
"""The attribute of a record under which a door hands over all fields of the event, as a dictionary."""


class Handoff(dict[str, Any]):
    """All fields of an event, on its way from a door to the handlers; and the way back: the handler's acknowledgement.

    It travels with the record through copies. Elsewhere, after pickling, it is a plain dictionary: who receives a record
    from a socket need not have this library.
    """

    __slots__ = ("entry", "kind", "later")

    entry: Any  # the acknowledgement: what the commit knows of the event; None as long as no handler took it on
    kind: str | None  # if it is no ordinary event; a field of that name is only a field
    later: Callable[[], Callable[[], None]] | None  # if the door must not wait for the disk: makes what wakes it

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: object) -> Handoff:
        return self


class Recorded(str):  # noqa: SLOT000 (it carries its handler)
    """The message of a record whose event was recorded on its way here, by *handler*: it does not record it again.

    A type, and not a field, since a field could be forged.
    """

    handler: logging.Handler | None = None


def recorder_of(record: logging.LogRecord) -> logging.Handler | None:
    """The handler that has recorded the event of *record* already."""
    message = record.msg.get("event") if type(record.msg) is dict else record.msg
    return message.handler if type(message) is Recorded else None


RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
MACHINERY = ("_record", "_from_structlog", "_logger", "_name")

_STRUCTLOGS_OWN = frozenset(("level", "logger", "level_number", "stack_info", "exc_info", "exception"))
"""What `_structlog_keys` looks for: most records have none of it."""


def fields_of(record: logging.LogRecord) -> tuple[dict[str, Any], str | None]:
    """The fields of *record*, the operation among them, and the text of its exception."""
    handoff = record.__dict__.get(HANDOFF)
    if isinstance(handoff, dict):
        failed = record.exc_info or record.exc_text
        return handoff, (error_of(record.exc_info) or _last_line(record.exc_text)) if failed else None
    fields = bound_context(record.__dict__)
    fields |= _others(record.__dict__)
    event = _event_dict(record.msg) if not record.args else None
    if event is None:
        message: Any = _message(record, fields)
    else:
        fields |= event
        message = fields.pop("event", None)
    error = _structlog_keys(fields, record)
    resolve_operation(fields, message)
    return fields, error


def _others(attributes: dict[Any, Any]) -> dict[Any, Any]:
    """Those *attributes* of a record that `logging` does not set and that are not private."""
    try:
        return {name: attributes[name] for name in attributes if name not in RESERVED and name[:1] != "_"}
    except TypeError:  # a name that is no text, as in extra={1: …}
        names = [name for name in attributes if name not in RESERVED]
        return {name: attributes[name] for name in names if not (issubclass(type(name), str) and name[:1] == "_")}


def resolve_operation(fields: dict[str, Any], message: Any) -> None:
    """Let *message* be the operation, or, if there is one and it is another, let it be the field ``message``."""
    operation = fields.setdefault("operation", message)
    if operation is message or message is None:
        return
    if type(operation) is not str or type(message) is not str or operation != message:
        fields["message_" if "message" in fields else "message"] = message


def _event_dict(msg: Any) -> dict[str, Any] | None:
    """The event that *msg* is, as a dictionary or as the text of one."""
    kind = type(msg)  # unlike isinstance, issubclass asks nothing of the value
    if issubclass(kind, dict):
        event = {name if type(name) is str else JsonSanitizer().key(name, ""): value for name, value in dict.items(msg)}
        return {name: value for name, value in event.items() if name not in MACHINERY}
    text = str.__str__(msg) if issubclass(kind, str) else msg
    if issubclass(kind, (str, bytes)) and text[:1] in ("{", b"{"):
        try:
            event = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        if "event" in event or "operation" in event:
            return dict(event)
    return None


def _message(record: logging.LogRecord, fields: dict[str, Any]) -> str:
    try:
        if isinstance(record.msg, bytes) and not record.args:
            return record.msg.decode("utf-8", "backslashreplace")
        return str.__str__(record.getMessage())
    except Exception:  # the arguments do not fit the template, or a __str__ raises
        if record.args:
            fields.setdefault("args", record.args)
        return str.__str__(record.msg) if issubclass(type(record.msg), str) else type_name(record.msg)


def _structlog_keys(fields: dict[str, Any], record: logging.LogRecord) -> str | None:
    """Take structlog's own keys out of *fields*; the text of the exception, if there was one."""
    if record.exc_info is None and record.exc_text is None and _STRUCTLOGS_OWN.isdisjoint(fields):
        return None
    repeated = {"level": record.levelname.lower(), "logger": record.name, "level_number": record.levelno}
    for name, value in repeated.items():
        if name in fields and type(fields[name]) is type(value) and fields[name] == value:
            del fields[name]
    if type(fields.get("stack_info")) in (bool, type(None)):
        fields.pop("stack_info", None)
    error = error_of(fields.pop("exc_info", None)) or error_of(record.exc_info)
    return error or _last_line(fields.get("exception", record.exc_text))


def _last_line(rendered: Any) -> str | None:
    """The last line of the traceback that a formatter before us made of an exception."""
    return str.__str__(rendered).strip().rpartition("\n")[2] if issubclass(type(rendered), str) else None


def error_of(exc_info: Any) -> str | None:
    """The text of the exception that *exc_info* means, in any of the forms that logging and structlog take."""
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if type(exc_info) is tuple and len(exc_info) == 3 else exc_info
    return exception_text(error) if issubclass(type(error), BaseException) else None
