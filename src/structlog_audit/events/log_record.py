"""The fields of an event from a log record, whatever shape the caller's logging gave it.

========================================================  =============================================================
source of the record                                      fields
========================================================  =============================================================
an entry point of this library                            the dictionary under `HANDOFF`, as filters and factories changed it
``logger.info("STORE", extra={…})``                       the attributes that `logging` does not set itself
structlog, ``render_to_log_kwargs``                       the same
structlog, ``render_to_log_args_and_kwargs``              the same; the arguments belong to the message
structlog, ``wrap_for_formatter``                         the dictionary that is the message, ``event`` its text
``logger.info({…})``                                      the same
structlog, ``JSONRenderer`` (a string or bytes)           the object in the text, if it has a message or an ``operation``
========================================================  =============================================================

The message of a dictionary is its ``event``; without an ``event`` and an ``operation`` the text under one of `RENAMED_EVENT`.

Private attributes and structlog's own keys are omitted; structlog's contextvars are added, except to a handoff.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Mapping
from itertools import repeat
from operator import is_
from typing import Any

import msgspec

from structlog_audit.events.context import with_context
from structlog_audit.events.event import INTENT_ID
from structlog_audit.events.handoff import HANDOFF, RESERVED, TAKEN, Handoff, attribute_name
from structlog_audit.events.json_safe import MAX_CAUSES, JsonSanitizer, exception_text, type_name

_TRACEBACKS = (
    "\nTraceback (most recent call last):\n",
    "\n  + Exception Group Traceback (most recent call last):\n",
)
_STACK = "\nStack (most recent call last):\n"
"""Where `logging.Formatter` begins a traceback and a stack."""

STRUCTLOG_INTERNAL_KEYS = ("_record", "_from_structlog", "_logger", "_name")
"""The keys that structlog adds to an event dict for its own use."""

RENAMED_EVENT = ("message", "msg")
"""The keys to which applications rename ``event``, with structlog's ``EventRenamer``, as log shippers expect it."""

_STRUCTLOG_KEYS = frozenset(("level", "logger", "level_number", "stack_info", "exc_info", "exception"))
"""The keys that `_pop_structlog_keys` handles. Most records have none of them."""


_TRACEBACK_HEAD = "Traceback (most recent call last):"

_LOGGING_ATTRIBUTES = len(logging.makeLogRecord({}).__dict__)
"""The number of attributes that `logging` gives each record."""

_REMOVED = object()
"""The value of an attribute that a record does not have."""

_GROUP_LINE = re.compile(rf"^ *\| (?! |{re.escape(_TRACEBACK_HEAD)})(.+)$", re.MULTILINE)
"""A line about an exception in the traceback of a group. Lines about frames are indented more."""

_GROUP_END = re.compile(r"\(\d+ sub-exceptions?\)$")
"""The end of the line about a group."""


def fields_of(record: logging.LogRecord) -> tuple[dict[str, Any], str | None]:
    """Return the fields of *record*, with the operation, and its exception as text."""
    # A dictionary without an operation is an application's own value under this name.
    handoff = record.__dict__.get(HANDOFF)
    if type(handoff) is Handoff or (type(handoff) is dict and "operation" in handoff):
        return _handed_over(record, handoff)

    # The context has the lowest precedence, then attributes, then the members of a message that is a dictionary.
    fields = _extra_attributes(record.__dict__)
    args, queued, queued_error = record.args, None, None
    if args is None and type(record.msg) is str:
        queued, queued_error = _split_queued(record.msg)
        event = _event_dict(queued) or _literal_dict(queued)
    else:
        event = None if args else _event_dict(record.msg)

    if event is None:
        message: Any = _message_text(record, fields) if queued is None else queued
    else:
        fields |= event
        message = fields.pop(message_key(event), None)

    fields = with_context(fields, is_merged=True)
    error = _pop_structlog_keys(fields, record) or queued_error
    resolve_operation(fields, message)
    return fields, error


def _handed_over(record: logging.LogRecord, handoff: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the fields of a record of an entry point, and its exception as text.

    The fields are those of *handoff*, with the later changes by record factories and filters.
    """
    attributes = record.__dict__
    error = error_of(record.exc_info) or _error_text(record.exc_text)
    names = {name if name not in TAKEN else attribute_name(name, handoff): name for name in handoff}
    fields = {name: attributes[attribute] for attribute, name in names.items() if attribute in attributes}

    added = _extra_attributes(attributes)
    fields |= {name: added[name] for name in added if name not in names}

    # Pickling loses the rest of the handoff.
    if type(handoff) is Handoff:
        _apply_message(record, handoff, fields)
        _apply_error(record, handoff, fields, error)
        _restore_intent(handoff, fields)
    return fields, error


def is_unchanged(record: logging.LogRecord, handoff: Handoff) -> bool:
    """Return whether *record* surely has the fields of *handoff* and no others, as nearly always, and no exception."""
    if record.exc_info or record.exc_text or handoff.error is not None:
        return False
    if record.args or record.msg is not handoff.message:
        return False

    # Formatters set the message and the time.
    attributes = record.__dict__
    sent = handoff.attributes
    expected = _LOGGING_ATTRIBUTES + len(sent) + 1 + ("message" in attributes) + ("asctime" in attributes)
    if len(attributes) != expected:
        return False

    # By identity: comparisons of an application's values may do anything.
    return all(map(is_, sent.values(), map(attributes.get, sent, repeat(_REMOVED))))


def _apply_message(record: logging.LogRecord, handoff: Handoff, fields: dict[str, Any]) -> None:
    """Give *fields* the message of *record*, if it is not that of *handoff* any more, or if the operation changed."""
    original = handoff.message
    operation = fields.get("operation")
    is_same = record.msg is original and not record.args
    if is_same and operation is handoff["operation"]:
        return

    message: Any = original
    if not is_same:
        message = _message_text(record, fields)
        before = _message_text(logging.LogRecord("", 0, "", 0, original, None, None), {})

        # A queue handler formats the message: one that contains the original is not another one.
        is_formatted = record.args is None
        message = _split_queued(message)[0] if is_formatted else message
        if message == before or (is_formatted and before in message):
            message = original

    # The message is the operation, unless the entry point stated both.
    holder = next((name for name in ("operation", "message_", "message") if handoff.get(name) is original), "operation")
    if fields.get(holder) is original:
        del fields[holder]
    if holder == "operation":
        resolve_operation(fields, message)
    else:
        fields.setdefault(holder, message)


def _apply_error(record: logging.LogRecord, handoff: Handoff, fields: dict[str, Any], error: str | None) -> None:
    """Remove the error message from *fields* if it is the text of an exception that *record* has no more.

    Args:
        error: The text of the exception that it has instead.
    """
    # A queue handler removes every exception.
    is_formatted = record.args is None
    is_replaced = handoff.error != error and not (is_formatted and error is None)
    if handoff.error is not None and is_replaced and fields.get("error_message") is handoff.error:
        del fields["error_message"]


def _restore_intent(handoff: Handoff, fields: dict[str, Any]) -> None:
    """Let *fields* name the intent that *handoff* names, or it would seem to have no outcome."""
    if handoff.intent_id is None:
        return

    metadata = fields.get("metadata")
    if type(metadata) is dict:
        fields["metadata"] = metadata | {INTENT_ID: handoff.intent_id}
    else:
        fields[INTENT_ID] = handoff.intent_id


def _split_queued(text: str) -> tuple[str, str | None]:
    """Return the message in *text*, and the text of the exception that a ``QueueHandler`` appended to it, or None.

    ``QueueHandler.prepare`` formats the record: afterwards the message ends with the traceback and the stack.
    """
    formatted = text.partition(_STACK)[0]
    starts = [start for marker in _TRACEBACKS if (start := formatted.find(marker)) >= 0]
    if not starts:
        return formatted, None
    return formatted[: min(starts)], _error_text(formatted[min(starts) :])


def _literal_dict(text: str) -> dict[str, Any] | None:
    """Return the dictionary that a ``QueueHandler`` made to *text*, if all its values have a literal form."""
    if text[:1] != "{" or text[-1:] != "}":
        return None

    # Imported lazily: only needed behind a queue.
    import ast

    try:
        event = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return _public_members(event) if type(event) is dict and _is_event(event) else None


def _extra_attributes(attributes: dict[Any, Any]) -> dict[Any, Any]:
    """Return the public *attributes* of a record that `logging` does not set."""
    try:
        return {name: attributes[name] for name in _public_names(tuple(attributes))}
    except TypeError:
        pass

    # A name is not text, as in extra={1: …}, or of another class.
    extra = {}
    for name, value in attributes.items():
        is_private = issubclass(type(name), str) and name[:1] == "_"
        if name not in RESERVED and not is_private:
            extra[name] = value
    return extra


@functools.lru_cache(maxsize=256)
def _public_names(names: tuple[Any, ...]) -> tuple[str, ...]:
    """Return those of *names* that an application gave to attributes. Nearly all records have one of few lists of names.

    Raises:
        TypeError: A name is not exactly text, so that it may equal another name and yet have another text.
    """
    if any(type(name) is not str for name in names):
        raise TypeError("a name is not text")
    return tuple(name for name in names if name not in RESERVED and name[:1] != "_")


def resolve_operation(fields: dict[str, Any], message: Any) -> None:
    """Make *message* the operation of *fields* if they have none.

    If they have another, it becomes their field ``message``.
    """
    operation = fields.setdefault("operation", message)
    if operation is message or message is None:
        return

    # Only exact strings are compared: a subclass could override the comparison.
    are_strings = type(operation) is str and type(message) is str
    if are_strings and operation == message:
        return

    name = "message_" if "message" in fields else "message"
    fields[name] = message


def _event_dict(msg: Any) -> dict[str, Any] | None:
    """Return the event that *msg* contains as a dictionary or as JSON text, or None."""
    kind = type(msg)
    if kind is str and msg[:1] != "{":
        return None

    # `issubclass` of the type, because `isinstance` would call methods of the value.
    if issubclass(kind, dict):
        return _public_members(msg)

    text = str.__str__(msg) if issubclass(kind, str) else msg
    if not issubclass(kind, (str, bytes)) or text[:1] not in ("{", b"{"):
        return None

    try:
        event = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None

    return dict(event) if _is_event(event) else None


def _is_event(members: Mapping[str, Any]) -> bool:
    """Return whether a text with *members* is an event."""
    return "operation" in members or message_key(members) in members


def message_key(event_dict: Mapping[str, Any]) -> str:
    """Return the key of *event_dict* that holds its message: ``event``, unless it was renamed."""
    if "event" not in event_dict and "operation" not in event_dict:
        for name in RENAMED_EVENT:
            if type(event_dict.get(name)) is str:
                return name
    return "event"


def _public_members(event_dict: dict[Any, Any]) -> dict[str, Any]:
    """Return *event_dict* with keys of type str, without structlog's internal ones."""
    members = {}
    for key, value in dict.items(event_dict):
        name = key if type(key) is str else JsonSanitizer().sanitize_key(key, "")
        if name not in STRUCTLOG_INTERNAL_KEYS:
            members[name] = value
    return members


def _message_text(record: logging.LogRecord, fields: dict[str, Any]) -> str:
    """Return the message of *record*.

    If its arguments do not fit the template, they are added to *fields*.
    """
    try:
        if isinstance(record.msg, bytes) and not record.args:
            return record.msg.decode("utf-8", "backslashreplace")
        return str.__str__(record.getMessage())
    except Exception:
        if record.args:
            fields.setdefault("args", record.args)

    is_text = issubclass(type(record.msg), str)
    return str.__str__(record.msg) if is_text else type_name(record.msg)


def _pop_structlog_keys(fields: dict[str, Any], record: logging.LogRecord) -> str | None:
    """Remove structlog's keys from *fields* and return the text of the exception."""
    if record.exc_info is None and record.exc_text is None and _STRUCTLOG_KEYS.isdisjoint(fields):
        return None

    # Keys that repeat an attribute of the record.
    attributes = {"level": str(record.levelname).lower(), "logger": record.name, "level_number": record.levelno}
    for name, expected in attributes.items():
        if name not in fields:
            continue
        value = fields[name]
        if type(value) is type(expected) and value == expected:
            del fields[name]

    # A stack_info that StackInfoRenderer has not replaced by text.
    if type(fields.get("stack_info")) in (bool, type(None)):
        fields.pop("stack_info", None)

    exc_info = fields.pop("exc_info", None)
    error = error_of(exc_info) or error_of(record.exc_info)
    return error or rendered_error(fields.get("exception", record.exc_text))


def level_of(record: logging.LogRecord) -> int:
    """Return the level of *record*, which an application may have made without one, or with that of another library."""
    level: Any = record.levelno
    if type(level) is int:
        return level

    try:
        return int(level)
    except (TypeError, ValueError, OverflowError):
        name = str(record.levelname).upper()
        return logging.getLevelNamesMapping().get(name, logging.INFO)


def rendered_error(value: Any) -> str | None:
    """Return the text of the exception in *value*, which a processor of structlog wrote under ``exception``.

    ``format_exc_info`` writes a traceback, ``dict_tracebacks`` a list of stacks. Any other value has no exception.
    """
    return _stacks_text(value) if type(value) is list else _error_text(value)


class _Stack(msgspec.Struct):
    """An exception in the list of ``dict_tracebacks``; the first one was raised, and the others are its causes."""

    exc_type: str
    exc_value: str = ""
    exceptions: list[list[_Stack]] = []

    def line(self) -> str:
        return f"{self.exc_type}: {self.exc_value}" if self.exc_value else self.exc_type


def _stacks_text(value: list[Any]) -> str | None:
    """Return the text of the exception in *value*, as `exception_text` does for the exception."""
    # A key with a lone surrogate makes msgspec raise, and a mapping of an application's class may raise anything.
    try:
        stacks = msgspec.convert(value, list[_Stack])
    except Exception:
        return None
    if not stacks:
        return None

    leaves: list[str] = []
    waiting = [group[0] for group in reversed(stacks[0].exceptions) if group]
    while waiting:
        stack = waiting.pop()
        waiting += [group[0] for group in reversed(stack.exceptions) if group]
        if not stack.exceptions:
            leaves.append(stack.line())
    return _with_causes(stacks[0].line(), leaves)


def _with_causes(error: str, causes: list[str]) -> str:
    """Return the text of an *error*, and of its *causes* up to a limit if it is a group."""
    named = causes[:MAX_CAUSES] + ["…"] * (len(causes) > MAX_CAUSES)
    return f"{error}: {'; '.join(named)}" if named else error


def _error_text(traceback: Any) -> str | None:
    """Return the text of the exception in a formatted traceback, as `exception_text` does for the exception."""
    if not issubclass(type(traceback), str):
        return None

    text = str.__str__(traceback).strip()
    last_line = text.rpartition("\n")[2]
    if last_line.lstrip().startswith("+---"):
        return _group_text(text) or last_line

    _, head, last_traceback = text.rpartition(_TRACEBACK_HEAD)
    if not head:
        return last_line

    # A message of several lines, and notes, follow the first line that is not indented.
    lines = last_traceback.split("\n")
    for number, line in enumerate(lines):
        if number and line[:1] not in ("", " "):
            return "\n".join(lines[number:])
    return last_line


def _group_text(traceback: str) -> str | None:
    """Return the text of the exception group that *traceback* shows, with its causes."""
    group, *others = _GROUP_LINE.findall(traceback) or [None]
    if group is None:
        return None

    causes = [line for line in others if not _GROUP_END.search(line)]
    return _with_causes(group, causes)


def error_of(exc_info: Any) -> str | None:
    """Return the text of the exception in *exc_info*.

    Every form that logging and structlog accept is valid.
    """
    if exc_info is True:
        exc_info = sys.exc_info()

    error = exc_info
    if type(exc_info) is tuple and len(exc_info) == 3:
        error = exc_info[1]
    return exception_text(error) if issubclass(type(error), BaseException) else None
