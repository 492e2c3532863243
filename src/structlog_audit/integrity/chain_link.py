"""The chain of a writer: a link in its first line of each second.

**Format.** The last member ``chain`` is the hex SHA-256 of all lines, with their LFs, that the writer wrote from the line
with its last link on, up to this one. The first line of a writer has the SHA-256 of nothing. ``closed`` always has a link.

**Guarantees.** The links commit a line in the memory of its writer, before anything is sealed: if another process changes
it, the writer's next link does not fit. A used sequence number whose line is not written begins a new writer, hence a new
chain (`Stamp.renew`).

**Performance.** One hash update per line, without a lock, an allocation per line beside the line, or any I/O.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from structlog_audit.events.event_id import Stamp

CHAIN_BYTES = len(',"chain":""') + 64
"""The bytes that a link adds to a line."""

# In Python 3.11, `super()` costs as much as the hash update.
_stamped = Stamp.line

_LF = ord("\n")
_CLOSED = b'"operation":"closed","'
_KIND_TRAIL = b',"kind":"trail"}'


class ChainedStamp(Stamp):
    """The source of ids, timestamps and links for one writer. See `Stamp`."""

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, randbits: Callable[[int], int] = secrets.randbits
    ) -> None:
        super().__init__(clock, randbits)
        self._chain = hashlib.sha256()
        self._is_link_due = False

    def line(self, payload: bytes) -> bytes:
        """Return *payload* as a line with its id, timestamp, link if one is due, and LF."""
        if _LF in payload:
            return self._lines(*payload.split(b"\n"))

        line = _stamped(self, payload)
        if self._is_link_due or (payload.startswith(_CLOSED) and payload.endswith(_KIND_TRAIL)):
            line = self._linked(line)
        self._chain.update(line)
        return line

    def open_line(self) -> tuple[bytes, bytes]:
        """Return the parts of a line around a payload that is not known yet.

        The line is a writer of its own: the chain cannot go on behind bytes that are not known.
        """
        self.renew()
        head = super().line(b"")[:-1]
        end = self._linked(b"}\n")
        self.renew()
        return head, end

    def _linked(self, line: bytes) -> bytes:
        """Return *line* with a link, from which a new span of the chain begins."""
        link = self._chain.hexdigest().encode()
        self._chain = hashlib.sha256()
        self._is_link_due = False
        return b'%b,"chain":"%b"}\n' % (line[:-2], link)

    def _begin_format(self, timestamp_us: int) -> None:
        writer = self._writer
        second = self._second[0]
        super()._begin_format(timestamp_us)

        if self._writer is not writer:
            self._chain = hashlib.sha256()
            self._is_link_due = True
        elif self._second[0] != second:
            self._is_link_due = True
