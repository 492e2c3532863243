"""Events as files for others.

==========  ===========================================================================================================
format      what it is
==========  ===========================================================================================================
``json``    one document: ``events``, ``total_events``, ``exported_at`` (the format of the axon memory SDK's audit page)
``jsonl``   the lines of a trail, one event each, however long
``csv``     a table with a header; entry ids and metadata as JSON; safe to open in a spreadsheet (OWASP, CSV injection)
others      lines in the formats of other systems: ``ecs``, ``ocsf``, ``cadf``, ``cef``, ``otlp``; see `structlog_audit.formats`
==========  ===========================================================================================================

Rules:

* The format is that of the suffix, unless given.
* A file is written beside its place and renamed into it when it is whole: nobody ever sees half of it, and a failure leaves
  what was there. An existing file is replaced; a folder, or anything that is no regular file, is refused.
* Exports are created 0600, like trails.
* The formats of other systems are imported when one is asked for: most processes never do.
"""

from __future__ import annotations

import datetime as dt
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
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _document(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    yield b'{\n  "events": ['
    count = 0
    for count, event in enumerate(events, 1):
        yield (b",\n    " if count > 1 else b"\n    ") + encode_event(event)
    yield b"\n  ],\n" if count else b"],\n"
    yield f'  "total_events": {count},\n  "exported_at": "{rfc3339(exported_at)}"\n}}\n'.encode()


def _lines(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    for event in events:
        yield encode_event(event) + b"\n"


def _table(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
    import csv  # who exports none has no need of it

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
    yield row.getvalue().encode()


def safe_cell(value: str | float | None) -> str | float | None:
    """*value* with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_Writer = Callable[[Iterable[AuditEvent], dt.datetime], Iterator[bytes]]


def _foreign(name: str) -> _Writer:
    """Writes lines in the format *name* of another system."""

    def lines(events: Iterable[AuditEvent], exported_at: dt.datetime) -> Iterator[bytes]:
        from structlog_audit.formats import to_line

        for event in events:
            plain = decode_event(encode_event(event))  # an event that somebody made may hold anything
            yield to_line(plain, name).encode() + b"\n"

    return lines


FORMATS: dict[str, _Writer] = {
    "json": _document,
    "jsonl": _lines,
    "csv": _table,
    **{name: _foreign(name) for name in ("ecs", "ocsf", "cadf", "cef", "otlp")},
}
"""The formats by name: each makes the bytes of a file from events, oldest first, and the time of the export."""


def export(
    events: Iterable[AuditEvent],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    now: dt.datetime,
    replace: bool = True,
) -> int:
    """Write *events* to *path*; the number of events.

    Args:
        events: Taken one by one, so that they need not all be in memory.
        path: Where to. Missing folders are created.
        format: A name in `FORMATS`; None means that of the suffix.
        now: The time of the export.
        replace: Whether a file that is there is replaced.

    Raises:
        AuditTypeError: *path* is no path.
        AuditValueError: No such format, or *path* is a folder or no regular file.
        FileExistsError: There is a file, and it is not to be replaced.
        OSError: The system could not write it; what was there is still there.
    """
    place, name = checked_place(path, format)
    count = 0

    def counted() -> Iterator[AuditEvent]:
        nonlocal count
        for event in events:
            count += 1
            yield event

    write_beside(place, FORMATS[name](counted(), now), replace=replace)
    return count


def checked_place(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, str]:
    """*path*, if an export may lie there, and the name of its format. Raises as `export` does, before anything is written."""
    try:
        place = Path(os.fsdecode(path))
    except TypeError:
        raise AuditTypeError(f"path={path!r}: give the path of a file") from None
    if place.exists() and not stat.S_ISREG(place.stat().st_mode):
        raise AuditValueError(f"path={str(place)!r} is a folder or no regular file: give the path of a file")
    name = format if format is not None else place.suffix.removeprefix(".").lower()
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise AuditValueError(f"format={name!r} of path={str(place)!r}: use one of {known}, as suffix or as format=")
    return place, name


def write_beside(place: Path, chunks: Iterable[bytes], *, replace: bool = True) -> None:
    """Write *chunks* to a new file beside *place*, and when it is whole and on disk, give it the name *place*.

    Raises:
        FileExistsError: There is a file of that name, and it is not to be replaced.
        OSError: The system could not write it; what was there is still there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name[:100]}.{secrets.token_hex(8)}.tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(beside, place)
        else:
            os.link(beside, place)
    finally:
        beside.unlink(missing_ok=True)
