r"""ArcSight Common Event Format, version 0: ``CEF:0|vendor|product|version|class id|name|severity|extension``.

**Mapping**

* In the header, a backslash escapes backslashes and pipes. The header cannot express a line break; it becomes a space.
* In the extension, a backslash escapes backslashes and equals signs; LF is ``\n`` and CR is ``\r``.
* CEF has no other control characters. They, and invisible characters (`structlog_audit.events.characters`), are written as
  JSON writes ``\u001b``, with the backslash escaped. So an event is one line without any of them.
* Keys come from the extension dictionary. Members without a key use the custom strings and their labels. Entry ids and metadata
  are JSON. Nothing is truncated; the dictionary allows 4,000 characters in a custom string, and a receiver may cut the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import attrgetter

from structlog_audit._version import __version__
from structlog_audit.events.characters import (
    BIDIRECTIONAL,
    C0_BUT_LINE_BREAKS,
    DELETE_AND_C1,
    INVISIBLE_FORMATTING,
    JOINERS,
    SEPARATORS,
    SURROGATES,
    ZERO_WIDTH,
    matching,
)
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.formats import field_mapping as t

SEVERITY = t.by_outcome(3, 7, 5, 3)
"""From 0 to 10: 0 to 3 is low, 4 to 6 medium, 7 and 8 high."""

_INVISIBLE = (BIDIRECTIONAL, INVISIBLE_FORMATTING, JOINERS, SEPARATORS, ZERO_WIDTH)
_CONTROLS = matching(C0_BUT_LINE_BREAKS, DELETE_AND_C1, SURROGATES, *_INVISIBLE)
_BREAKS = re.compile("[\r\n]+")
_IN_HEADER = str.maketrans({"\\": r"\\", "|": r"\|"})
_IN_EXTENSION = str.maketrans({"\\": r"\\", "=": r"\=", "\n": r"\n", "\r": r"\r"})


def _address_of_family(*, colon: bool) -> t.Value:
    """Return a value: the client address, if it is of IPv6 (with a *colon*) or of IPv4."""

    def found(event: AuditEvent) -> str | None:
        address = t.address(event)
        if address is None or (":" in address) is not colon:
            return None
        return address

    return found


def _json(name: str) -> t.Value:
    """Return a value: the member *name* as JSON, if it is not empty."""

    def found(event: AuditEvent) -> str | None:
        value = getattr(event, name)
        return to_json(value) if value else None

    return found


CEF: t.FieldTable = {
    "rt": t.timestamp_ms,
    "externalId": attrgetter("event_id"),
    "cat": lambda event: event.kind or "audit",
    "act": t.operation,
    "outcome": t.by_outcome("success", "failure", "partial", "pending"),
    "suid": attrgetter("user_id"),
    "src": _address_of_family(colon=False),
    "c6a2": _address_of_family(colon=True),
    "reason": attrgetter("error_message"),
    "cs1": attrgetter("session_id"),
    "cs2": _json("entry_ids"),
    "cs3": _json("metadata"),
    "cs4": attrgetter("status.value"),
    "cs5": lambda event: rfc3339(event.timestamp),
    "cfp1": attrgetter("duration_ms"),
}

LABELS = {
    "c6a2": "Source IPv6 Address",
    "cs1": "session_id",
    "cs2": "entry_ids",
    "cs3": "metadata",
    "cs4": "status",
    "cs5": "timestamp",
    "cfp1": "duration_ms",
}
"""The labels of the custom keys; each follows its key."""


def _json_escape(found: re.Match[str]) -> str:
    """Return the matched character as JSON writes it: beyond U+FFFF, as two surrogates."""
    code = ord(found[0])
    if code <= 0xFFFF:
        return f"\\u{code:04x}"

    high, low = divmod(code - 0x1_0000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _printable(text: str) -> str:
    # Only of ASCII, because what else is printable depends on the Unicode of this Python.
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(_json_escape, text)


def in_header(text: str) -> str:
    """Return *text* escaped as a part of the header."""
    return _BREAKS.sub(" ", _printable(text)).translate(_IN_HEADER)


def in_extension(text: str) -> str:
    """Return *text* escaped as a value of the extension."""
    return _printable(text).translate(_IN_EXTENSION)


def to_cef(event: AuditEvent) -> str:
    """Return *event* as a line of CEF, without the LF and without a syslog header."""
    name = in_header(event.operation.value)
    parts = ("CEF:0", t.PRODUCT, t.PRODUCT, __version__, name, name, str(SEVERITY(event)))
    header = "|".join(parts)
    extension = " ".join(f"{key}={in_extension(value)}" for key, value in _extension(event))
    return f"{header}|{extension}"


def _extension(event: AuditEvent) -> Iterator[tuple[str, str]]:
    for key, value in t.build_record(event, CEF).items():
        yield key, str(value)
        if key in LABELS:
            yield f"{key}Label", LABELS[key]
