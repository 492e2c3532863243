"""`Handoff`: the fields of an event on the way from an entry point to a handler, and the acknowledgement on the way back.

**Guarantees.** The fields are attributes of the record as well, so that filters and other handlers see them and may change
them; `structlog_audit.events.log_record.fields_of` reads what they made of them. The acknowledgement does not depend on the
attributes: as long as the entry point waits, the handoff of its record is found by the record itself.

A filter may copy all attributes of a record, make them text, or leave out those it does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from structlog_audit.events.event import INTENT_ID

HANDOFF = "_audit"
"""The attribute of a record under which an entry point passes all fields of the event, as a dictionary."""

RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""The attributes of a record that `logging` sets."""

TAKEN = RESERVED | {HANDOFF}
"""The names that no field has as an attribute of a record."""


class Handoff(dict[str, Any]):
    """All fields of an event, as the entry point passed them.

    Copies of a record share it. Pickling makes it a plain dictionary, because the receiver of a socket handler does not need
    this library.

    Args:
        fields: The fields, with the operation.
        message: The message of the record.
        error: The error message, if it is only the text of the record's exception.
        kind: The kind of an event of the library itself. A field called "kind" is an ordinary field.
        make_waker: For an entry point that must not wait for the disk: a factory of the function that wakes it.
    """

    __slots__ = ("entry", "error", "intent_id", "kind", "make_waker", "message")

    def __init__(
        self,
        fields: dict[str, Any],
        message: Any = None,
        *,
        error: str | None = None,
        kind: str | None = None,
        make_waker: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        super().__init__(fields)
        self.message = message
        self.error = error
        self.kind = kind
        self.make_waker = make_waker

        # The intent that the event is the outcome of, if it is one.
        metadata = fields.get("metadata")
        self.intent_id: Any = metadata.get(INTENT_ID) if type(metadata) is dict else fields.get(INTENT_ID)

        # The acknowledgement: the queue entry of the group commit, or None as long as no handler has accepted the event.
        self.entry: Any = None

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


def hand_over(record: logging.LogRecord, handoff: Handoff) -> None:
    """Give *record* the fields of *handoff* as attributes, and the handoff itself.

    The actor and the operation are the last: handlers with a limit, such as OpenTelemetry's, drop the first ones.
    """
    attributes = {attribute_name(name, handoff) if name in TAKEN else name: handoff[name] for name in handoff}
    for name in ("session_id", "operation", "user_id"):
        if name in attributes:
            attributes[name] = attributes.pop(name)

    record.__dict__.update(attributes)
    record.__dict__[HANDOFF] = handoff


awaited: dict[int, tuple[logging.LogRecord, Handoff]] = {}
"""The records whose entry point waits for the acknowledgement, with their handoffs, by the identity of the record."""


@contextmanager
def awaiting(record: logging.LogRecord, handoff: Handoff) -> Iterator[None]:
    """Let `handoff_of` find *handoff* by *record* during the block."""
    awaited[id(record)] = record, handoff
    try:
        yield
    finally:
        del awaited[id(record)]


def handoff_of(record: logging.LogRecord) -> Handoff | None:
    """Return the handoff of *record*, whatever became of its attributes; None for a record of no entry point."""
    handoff = record.__dict__.get(HANDOFF)
    if type(handoff) is Handoff:
        return handoff

    # A forked child may have the entries of other threads of its parent, so the identity must be that of the same record.
    known, handoff = awaited.get(id(record), (None, None))
    return handoff if known is record else None
