"""A segment that is open for reading."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from structlog_audit.trail.reading.decompression import BEGINNING_BYTES
from structlog_audit.trail.reading.discovery import Segment
from structlog_audit.trail.reading.export_document import BEGINS
from structlog_audit.trail.reading.line_blocks import (
    Readable,
)

WHOLLY = -1
"""The offset behind the last event of packed data, which isn't known before all of it was read."""


@dataclass(slots=True)
class OpenSegment:
    """A segment that is being read."""

    segment: Segment
    raw: BinaryIO
    """The file as it is."""
    file: Readable
    """Its lines. Where they lie plainly it can be read from anywhere, and backwards."""
    is_plain: bool
    size: int
    """Bytes to read of the file as it is."""
    head: bytes
    """The beginning of its lines."""

    @property
    def is_open(self) -> bool:
        """Whether it may still be written to."""
        return self.segment.is_open and self.is_plain

    @property
    def identity(self) -> str | None:
        """What tells this segment from others, whatever becomes of its name; None if nothing tells yet.

        It is the first whole line that may be an event: what a writer that died left before that may still be cut off.
        """
        if BEGINS.match(self.head):
            return _digest(self.head)
        for line in self.head.split(b"\n")[:-1]:
            if b"{" in line:
                return _digest(line)
        return _digest(self.head) if len(self.head) >= BEGINNING_BYTES else None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=9).hexdigest()
