"""The last line of a file, where its LF is missing: read as if the LF were there, unless the line may still be written.

**Guarantees.** Only a line of this library in a segment that is open to writers may still be written: it starts as a canonical
line and is not closed. Any other last line, such as that of a file of another program or of a one-line document, is decoded
as all lines are: it is an event or a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from structlog_audit.trail.reading.line_blocks import BLOCK_BYTES, MAX_LINE_BYTES, Readable, Seekable, read_at
from structlog_audit.trail.reading.torn_lines import may_be_unfinished


class TerminatedFile:
    """The first *size* bytes of a seekable file, and an LF after them."""

    def __init__(self, file: Seekable, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0

    def seek(self, offset: int, /) -> int:
        """Continue at *offset*."""
        self._position = offset
        return self._file.seek(offset)

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        left = self._size - self._position
        if left == 0:
            self._position += 1
            return b"\n"

        data = self._file.read(max(0, min(size, left)))
        self._position += len(data)
        return data


def needs_line_end(file: Seekable, size: int, *, is_open: bool) -> bool:
    """Return whether the last line of the first *size* bytes of *file* lacks an LF and is to be read.

    Args:
        file: The file.
        size: The number of bytes to read.
        is_open: Whether a writer may still append to the file.
    """
    # An error of the system is counted when its place is read for a query.
    with contextlib.suppress(OSError):
        if not size or read_at(file, size - 1, size) in (b"\n", b""):
            return False
        return not (is_open and may_be_unfinished(_last_line(file, size)))
    return False


def terminated(stream: Readable) -> Iterator[bytes]:
    """Yield the data of *stream*, and an LF if it does not end in one."""
    last = b"\n"
    while data := stream.read(BLOCK_BYTES):
        last = data
        yield data

    if not last.endswith(b"\n"):
        yield b"\n"


def _last_line(file: Seekable, size: int) -> bytes:
    """Return the bytes after the last LF; of a line that is too long, some of them."""
    line = b""
    start = size
    while start and len(line) <= MAX_LINE_BYTES:
        stop = start
        start = max(0, stop - max(BLOCK_BYTES, len(line)))
        _, newline, end = read_at(file, start, stop).rpartition(b"\n")
        line = end + line
        if newline:
            break
    return line
