"""`Handoff`: the fields of an event on the way from an entry point to a handler, and the acknowledgement on the way back.

**Guarantees.** The fields are attributes of the record as well, so that filters and other handlers see them and may change
them; `structlog_audit.events.log_record.fields_of` reads what they made of them. The acknowledgement does not depend on the
attributes: as long as the entry point waits, the handoff of its record is found by the record itself.

A filter may copy all attributes of a record, make them text, or leave out those it does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from structlog_audit.events.event import INTENT_ID

HANDOFF = "_audit"
"""The attribute of a record under which an entry point passes all fields of the event, as a dictionary."""

RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""The attributes of a record that `logging` sets."""

TAKEN = RESERVED | {HANDOFF}
"""The names that no field has as an attribute of a record."""


class Handoff(dict[str, Any]):
    """All fields of an event, as the entry point passed them. Made by `hand_over`.

    Copies of a record share it. Pickling makes it a plain dictionary, because the receiver of a socket handler does not need
    this library.
    """

    __slots__ = ("attributes", "entry", "error", "intent_id", "kind", "make_waker", "message")

    # The fields by their attributes of the record.
    attributes: dict[str, Any]

    # The acknowledgement: the queue entry of the group commit, or None as long as no handler has accepted the event.
    entry: Any

    # The error message, if it is only the text of the record's exception.
    error: str | None

    # The intent that the event is the outcome of, if it is one.
    intent_id: str | None

    # The kind of an event of the library itself. A field called "kind" is an ordinary field.
    kind: str | None

    # For an entry point that must not wait for the disk: a factory of the function that wakes it.
    make_waker: Callable[[], Callable[[], None] | None] | None

    # The message of the record.
    message: Any

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: object) -> Handoff:
        return self


def attribute_name(name: str, fields: dict[str, Any]) -> str:
    """Return the attribute of a record that has the field *name* of *fields*: `logging` reserves some names."""
    attribute = name
    while attribute in TAKEN or (attribute is not name and attribute in fields):
        attribute = f"{attribute}_"
    return attribute


def hand_over(
    record: logging.LogRecord,
    fields: dict[str, Any],
    message: Any,
    error: str | None = None,
    kind: str | None = None,
    make_waker: Callable[[], Callable[[], None] | None] | None = None,
) -> Handoff:
    """Give *record* the *fields* as attributes, and return their handoff, which it gets as well.

    The actor and the operation are the last: handlers with a limit, such as OpenTelemetry's, drop the first ones.

    Args:
        record: A record as `logging` makes it.
        fields: All fields of the event, with the operation.
        message: The message that the record was made with.
        error: The error message, if it is only the text of the record's exception.
        kind: The kind of an event of the library itself.
        make_waker: For an entry point that must not wait for the disk: a factory of the function that wakes it.
    """
    attributes = {attribute_name(name, fields) if name in TAKEN else name: fields[name] for name in fields}
    for name in ("session_id", "operation", "user_id"):
        if name in attributes:
            attributes[name] = attributes.pop(name)

    # The attributes are set here, because an initializer takes twice the time.
    handoff = Handoff(fields)
    handoff.attributes = attributes
    handoff.entry = None
    handoff.error = error
    handoff.kind = kind
    handoff.make_waker = make_waker
    handoff.message = message

    metadata = fields.get("metadata")
    handoff.intent_id = metadata.get(INTENT_ID) if type(metadata) is dict else fields.get(INTENT_ID)

    record.__dict__.update(attributes)
    record.__dict__[HANDOFF] = handoff
    return handoff


awaited: dict[int, tuple[logging.LogRecord, Handoff]] = {}
"""The records whose entry point waits for the acknowledgement, with their handoffs, by the identity of the record."""


def restore_handoff(record: logging.LogRecord) -> None:
    """Give *record* the handoff that it lost, if its entry point waits for the acknowledgement."""
    known, handoff = awaited.get(id(record), (None, None))

    # A forked child may have the entries of other threads of its parent, so only the same record counts.
    if known is record:
        record.__dict__[HANDOFF] = handoff
