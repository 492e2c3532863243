"""Export events to files for other programs.

==========  =========================================================================================================
format      content
==========  =========================================================================================================
``json``    one document: ``events``, ``total_events``, ``exported_at`` (the format of the axon memory SDK's audit page)
``jsonl``   trail lines, one per event, of any length
``csv``     a table with a header; entry ids and metadata as JSON; safe to open in a spreadsheet (OWASP, CSV injection)
others      lines in the formats of other systems: ``ecs``, ``ocsf``, ``cadf``, ``cef``, ``otlp`` (`structlog_audit.formats`)
==========  =========================================================================================================

**Guarantees**: a file is written beside its final path and renamed when it is complete and on disk, so no reader sees half of
it and a failure leaves the previous file. Folders, links and other things that are not regular files are never overwritten.
Exports have mode 0600.
"""

from __future__ import annotations

import datetime as dt
import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from structlog_audit.events.codec import decode_event, encode_event, to_json
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.exceptions import AuditTypeError, AuditValueError

COLUMNS = AuditEvent.__struct_fields__
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def _document(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    yield b'{\n  "events": ['

    count = 0
    for count, event in enumerate(events, 1):
        separator = b",\n    " if count > 1 else b"\n    "
        yield separator + encode_event(event)

    yield b"\n  ],\n" if count else b"],\n"
    yield f'  "total_events": {count},\n  "exported_at": "{rfc3339(exported_at)}"\n}}\n'.encode()


def _lines(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    for event in events:
        yield encode_event(event) + b"\n"


def _table(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    # Imported lazily: only needed for CSV.
    import csv

    row = io.StringIO()
    writer = csv.writer(row, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for event in events:
        members = event.to_dict()
        members["entry_ids"] = to_json(event.entry_ids) if event.entry_ids else None
        members["metadata"] = to_json(event.metadata) if event.metadata else None
        writer.writerow([safe_cell(members.get(name)) for name in COLUMNS])

        yield row.getvalue().encode()
        row.seek(0)
        row.truncate()

    # Without events only the header is left.
    yield row.getvalue().encode()


def safe_cell(value: str | float | None) -> str | float | None:
    """Return *value*, with an apostrophe in front if a spreadsheet would evaluate it as a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


_Writer = Callable[[Iterable[AuditEvent], dt.datetime], Iterator[bytes]]


def _other_system(name: str) -> _Writer:
    """Return a writer of lines in the format *name* of another system."""

    def lines(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
        # Imported lazily: most processes never export to another system.
        from structlog_audit.formats import to_line

        for event in events:
            # An event made by hand may hold any value; decoding its line makes all of them plain.
            plain = decode_event(encode_event(event))
            yield to_line(plain, name).encode() + b"\n"

    return lines


WRITERS: dict[str, _Writer] = {
    "json": _document,
    "jsonl": _lines,
    "csv": _table,
    **{name: _other_system(name) for name in ("ecs", "ocsf", "cadf", "cef", "otlp")},
}
"""The writers by the name of their format. Each yields the bytes of a file from events, oldest first, and the export time.

The names of other systems' formats are repeated here, so that offering them does not import `structlog_audit.formats`; a
test compares them with its table."""


def export(
    events: Iterable[AuditEvent],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    now: dt.datetime,
    replace: bool = True,
) -> int:
    """Write *events* to *path* and return their number.

    Args:
        events: Read one by one, so they need not fit in memory.
        path: The file. Missing folders are created.
        format: A name in `WRITERS`; None selects it by the suffix of *path*.
        now: The time of the export.
        replace: Whether an existing file is replaced.

    Raises:
        AuditTypeError: *path* is not a path.
        AuditValueError: The format is unknown, or *path* is a folder or not a regular file.
        FileExistsError: The file exists, and *replace* is False.
        OSError: The system could not write the file; the previous file is unchanged.
    """
    destination, name = checked_destination(path, format)
    count = 0

    def counted() -> Iterator[AuditEvent]:
        nonlocal count
        for event in events:
            count += 1
            yield event

    write_atomically(destination, WRITERS[name](counted(), now), replace=replace)
    return count


def checked_destination(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, str]:
    """Return *path* and the name of its format, if an export may be written there. Raises as `export`, before any write."""
    try:
        destination = Path(os.fsdecode(path))
    except TypeError:
        raise AuditTypeError(f"path={path!r}: expected the path of a file") from None

    if destination.exists() and not stat.S_ISREG(destination.stat().st_mode):
        raise AuditValueError(f"path={str(destination)!r}: expected a regular file, got a folder or special file")

    name = format if format is not None else destination.suffix.removeprefix(".").lower()
    if name not in WRITERS:
        known = ", ".join(WRITERS)
        if format is not None:
            raise AuditValueError(f"format={format!r}: expected one of {known}")
        raise AuditValueError(
            f"path={str(destination)!r}: expected one of {known}, as the suffix of the path or as the format"
        )
    return destination, name


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # The path, or a folder above it, is a file. The error of the system would be "File exists".
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def write_atomically(destination: Path, chunks: Iterable[bytes], *, replace: bool = True) -> None:
    """Write *chunks* to a temporary file beside *destination*, sync it, and rename it to *destination*.

    Raises:
        FileExistsError: The file exists, and *replace* is False.
        OSError: The system could not write the file; the previous file is unchanged.
    """
    _make_folder(destination.parent)
    temporary = destination.with_name(f".{destination.name[:100]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600)
    except OSError as error:
        # The caller knows the destination, not the temporary file.
        raise OSError(error.errno, error.strerror, str(destination)) from error

    try:
        with open(fd, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())

        if replace:
            os.replace(temporary, destination)
        else:
            os.link(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
