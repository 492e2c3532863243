"""A segment that is open for reading."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from structlog_audit.trail.reading.decompression import SNIFFED_BYTES
from structlog_audit.trail.reading.discovery import Segment
from structlog_audit.trail.reading.export_document import DOCUMENT_START
from structlog_audit.trail.reading.line_blocks import Readable

END_OF_PACKED = -1
"""The offset after the last event of compressed data. The decompressed size is unknown until all of it has been read."""


@dataclass(slots=True)
class OpenSegment:
    """A segment that is open for reading."""

    segment: Segment
    raw: BinaryIO
    """The file as it is stored."""
    file: Readable
    """The lines of the file, decompressed. Seekable if the segment is plain."""
    is_plain: bool
    """Whether the file holds plain lines, neither compressed nor in an export document, and is seekable."""
    size: int
    """The number of stored bytes to read, and of an LF that the file lacks."""
    head: bytes
    """The first decompressed bytes."""

    @property
    def is_open(self) -> bool:
        """Whether a writer may still append to the segment."""
        return self.segment.is_open and self.is_plain

    @property
    def identity(self) -> str | None:
        """The digest that identifies this segment after a rename, or None if the segment is too short to have one.

        The digest covers the first whole line that may be an event. Earlier bytes may belong to a torn line, which a
        writer can still cut off.
        """
        if DOCUMENT_START.match(self.head):
            return _digest(self.head)

        whole_lines = self.head.split(b"\n")[:-1]
        for line in whole_lines:
            if b"{" in line:
                return _digest(line)

        return _digest(self.head) if len(self.head) >= SNIFFED_BYTES else None

    @property
    def key(self) -> str:
        """The identity of the segment; its path as long as it has none."""
        return self.identity or self.segment.path

    def stored_bytes_read(self) -> int:
        """Return how many bytes of the stored file have been read; 0 for a stream."""
        return self.raw.tell() if self.raw.seekable() else 0


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=9).hexdigest()
