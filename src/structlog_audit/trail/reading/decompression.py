"""What a file holds, as a stream of lines: plain lines, gzip, zstd, or an export document.

Rules:

* What a file is, its first bytes say, not its name.
* Damaged data ends the stream where the damage is, and is told to `Report`. What came before it is there.
* Of packed data only a little is in memory at a time, whatever it unpacks to.
* zstd needs Python 3.14, or the extra ``zstd``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.export_document import BEGINS, document_lines
from structlog_audit.trail.reading.line_blocks import Readable
from structlog_audit.trail.reading.problems import Report

_GZIP = b"\x1f\x8b"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)  # a frame, or a skippable one

BEGINNING_BYTES = 4_096
"""Bytes that are looked at to find out what a file is, and which."""

_LEAST_BYTES = 64  # before a live stream that waits after a line is believed to be lines
_PACKED_BYTES = 65_536  # that are read at once
_UNPACKED_BYTES = 65_536  # that they may become at once


class _Unpacker(Protocol):
    """What the decompressors of `bz2`, `lzma` and ``compression.zstd`` have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's decompressor, in the form of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(found) < max_length
        return found

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class Stream:
    """A stream of what is in *head*, and then of what *chunks* gives."""

    def __init__(self, head: bytes, chunks: Iterator[bytes]) -> None:
        self._held = head
        self._chunks = chunks

    def read(self, size: int, /) -> bytes:
        """Up to *size* bytes; none at the end."""
        while not self._held:
            more = next(self._chunks, None)
            if more is None:
                return b""
            self._held = more
        data, self._held = self._held[:size], self._held[size:]
        return data


def unpacked(file: Readable, where: str, report: Report) -> tuple[Readable, bool, bytes]:
    """The lines of *file*, which stands at its beginning, as a stream; whether they lie there plainly; and their beginning.

    Raises:
        AuditReadError: It is packed with zstd, and nothing that unpacks zstd is installed.
    """
    head = b""
    while len(head) < BEGINNING_BYTES and b"\n" not in head[_LEAST_BYTES:]:
        more = _read(file, BEGINNING_BYTES - len(head))
        if not more:
            break
        head += more
    stream, is_plain = Stream(head, _chunks(file)), False
    if head.startswith(_GZIP):
        stream, head = _begun(_unpacked(stream, _Gunzip, zlib.error, report))
    elif _ZSTD.match(head):
        zstd = _zstd(where)
        stream, head = _begun(_unpacked(stream, zstd.ZstdDecompressor, zstd.ZstdError, report))
    else:
        is_plain = True
    if BEGINS.match(head):
        return Stream(b"", document_lines(stream, report)), False, head
    return stream, is_plain, head


def _begun(chunks: Iterator[bytes]) -> tuple[Stream, bytes]:
    """The stream of *chunks*, and its beginning."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= BEGINNING_BYTES:
            break
    return Stream(head, chunks), head[:BEGINNING_BYTES]


def _read(file: Readable, size: int) -> bytes:
    """What is there, rather than waiting for all of it."""
    data: bytes = getattr(file, "read1", file.read)(size)
    return data


def _chunks(file: Readable) -> Iterator[bytes]:
    while data := _read(file, _PACKED_BYTES):
        yield data


def _unpacked(packed: Readable, make: Any, damage: type[Exception], report: Report) -> Iterator[bytes]:
    """What is packed in *packed*, one frame or member after the other."""
    unpacker: _Unpacker = make()
    begun = False  # the frame that the unpacker is for
    data, given = b"", 0
    try:
        while data or not unpacker.needs_input or (data := packed.read(_PACKED_BYTES)):
            begun = True
            found = unpacker.decompress(data, _UNPACKED_BYTES)
            data = b""
            given += len(found)
            if found:
                yield found
            if unpacker.eof:
                data = unpacker.unused_data.lstrip(b"\0")  # what pads a file on a tape
                unpacker, begun = make(), False
    except damage as error:
        report("truncated", given, f"damaged: {error}")
    else:
        if begun:
            report("truncated", given, "the packed data ends early")


def _zstd(where: str) -> Any:
    """The module that unpacks zstd."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # since Python 3.14
    except ImportError:
        try:
            from backports import zstd  # its backport, by the same interface
        except ImportError:
            raise AuditReadError(f"{where} is packed with zstd: install structlog-audit[zstd], or unpack it") from None
    return zstd
