"""The content of a file as a stream of lines, from plain lines, gzip, zstd or an export document.

**Guarantees.** The first bytes of a file determine its format; its name does not.

**Failure handling.** Damaged data ends the stream at the damage, which is reported. Everything before it is read.

**Performance.** Only a little of the decompressed data is in memory at a time, whatever its size.

zstd needs Python 3.14, or the extra ``zstd``.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from structlog_audit._version import check_versions
from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.export_document import DOCUMENT_START, document_lines
from structlog_audit.trail.reading.line_blocks import Readable
from structlog_audit.trail.reading.problems import ProblemCallback

_GZIP = b"\x1f\x8b"

# A frame, or a skippable one (RFC 8878, sections 3.1.1 and 3.1.2).
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)

SNIFFED_BYTES = 4_096
"""The number of bytes that determine the format and the identity of a file."""

# A live stream may pause after any line. With this many bytes its format is known.
_MIN_LIVE_HEAD_BYTES = 64

_PACKED_BYTES = 65_536
_UNPACKED_BYTES = 65_536


class Stream:
    """A byte stream of *head*, followed by *chunks*."""

    def __init__(self, head: bytes, chunks: Iterator[bytes]) -> None:
        self._held = head
        self._chunks = chunks

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes; none at the end."""
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._held = chunk

        data = self._held[:size]
        self._held = self._held[size:]
        return data


def unpack(file: Readable, path: str, report: ProblemCallback) -> tuple[Readable, bool, bytes]:
    """Decompress *file*, which is positioned at its beginning.

    Args:
        file: The file as it is stored.
        path: Its path, for error messages.
        report: Receives findings, with offsets in the decompressed data.

    Returns:
        The stream of lines; whether *file* holds these lines as they are; and the beginning of the decompressed data.

    Raises:
        AuditReadError: The file is compressed with zstd, and no module for zstd is installed.
    """
    head = _read_head(file)
    stream, is_plain = Stream(head, _stored_chunks(file)), False
    if head.startswith(_GZIP):
        stream, head = _buffer_head(_gzip_chunks(stream, report))
    elif _ZSTD.match(head):
        zstd = _import_zstd(path)
        stream, head = _buffer_head(_zstd_chunks(stream, zstd, report))
    else:
        is_plain = True

    if DOCUMENT_START.match(head):
        return Stream(b"", document_lines(stream, report)), False, head
    return stream, is_plain, head


def _read_head(file: Readable) -> bytes:
    head = b""
    while len(head) < SNIFFED_BYTES and b"\n" not in head[_MIN_LIVE_HEAD_BYTES:]:
        more = _read_available(file, SNIFFED_BYTES - len(head))
        if not more:
            break
        head += more
    return head


def _read_available(file: Readable, size: int) -> bytes:
    """Read the bytes that are there, rather than waiting for *size* of them."""
    read = getattr(file, "read1", file.read)
    data: bytes = read(size)
    return data


def _stored_chunks(file: Readable) -> Iterator[bytes]:
    while data := _read_available(file, _PACKED_BYTES):
        yield data


def _buffer_head(chunks: Iterator[bytes]) -> tuple[Stream, bytes]:
    """Return the stream of *chunks*, and the beginning of it."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= SNIFFED_BYTES:
            break
    return Stream(head, chunks), head[:SNIFFED_BYTES]


def _gzip_chunks(packed: Readable, report: ProblemCallback) -> Iterator[bytes]:
    """Yield the data of all gzip members in *packed*."""
    file = gzip.GzipFile(fileobj=cast(BinaryIO, packed))
    offset = 0
    try:
        # Unlike `read`, `read1` returns the data before the damage rather than discarding it with the error.
        while data := file.read1(_UNPACKED_BYTES):
            offset += len(data)
            yield data
    except EOFError:
        report("truncated", offset, "the compressed data ends early")
    except (gzip.BadGzipFile, zlib.error) as error:
        report("truncated", offset, f"damaged: {error}")


def _zstd_chunks(packed: Readable, zstd: Any, report: ProblemCallback) -> Iterator[bytes]:
    """Yield the data of all zstd frames in *packed*.

    ``ZstdFile`` does not replace this: it rejects the NUL bytes that pad a file on a tape.
    """
    decompressor = zstd.ZstdDecompressor()
    is_in_frame = False
    data = b""
    offset = 0
    try:
        while data or not decompressor.needs_input or (data := packed.read(_PACKED_BYTES)):
            is_in_frame = True
            unpacked = decompressor.decompress(data, _UNPACKED_BYTES)
            data = b""
            if unpacked:
                offset += len(unpacked)
                yield unpacked

            if decompressor.eof:
                data = decompressor.unused_data.lstrip(b"\0")
                decompressor = zstd.ZstdDecompressor()
                is_in_frame = False
    except zstd.ZstdError as error:
        report("truncated", offset, f"damaged: {error}")
    else:
        if is_in_frame:
            report("truncated", offset, "the compressed data ends early")


def _import_zstd(path: str) -> Any:
    """Import the zstd module of the standard library (Python 3.14) or its backport."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        check_versions("zstd")
        try:
            from backports import zstd
        except ImportError:
            raise AuditReadError(
                f"{path!r} is compressed with zstd: pip install 'structlog-audit[zstd]', or decompress it"
            ) from None
    return zstd
