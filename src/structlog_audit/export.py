"""Export events to files for other programs.

==========  =========================================================================================================
format      content
==========  =========================================================================================================
``json``    one document: ``events``, ``total_events``, ``exported_at`` (the format of the axon memory SDK's audit page)
``jsonl``   trail lines, one per event, of any length
``csv``     a table with a header, safe to open in a spreadsheet (`structlog_audit.formats.spreadsheet`)
``sqlite``  a database with indexes, for SQL (`structlog_audit.formats.sqlite`); also by the suffixes ``.db``, ``.sqlite3``
others      lines in the formats of other systems: ``ecs``, ``ocsf``, ``cadf``, ``cef``, ``otlp`` (`structlog_audit.formats`)
==========  =========================================================================================================

**Guarantees**: a file is written beside its final path and renamed when it is complete and on disk, so no reader sees half of
it and a failure leaves the previous file. A folder or special file is never replaced; a symbolic link is, and not its target.
Exports have mode 0600.
"""

from __future__ import annotations

import datetime as dt
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structlog_audit._validation import require_local
from structlog_audit.events.codec import StoredEvent, decode_event, encode_event
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.events.event_lists import EventList, lists_of
from structlog_audit.exceptions import AuditTypeError, AuditValueError

if TYPE_CHECKING:
    from structlog_audit.formats.spreadsheet import Cells


Exportable = AuditEvent | StoredEvent
"""An event, or one as a source selects it, which has its line nearly ready."""


Events = Sequence[Exportable]
"""Some events that are written together."""

CHUNK = 500
"""The number of events that are encoded at once, if they come one by one."""


def _events(events: Iterable[Exportable]) -> Iterator[AuditEvent]:
    return (event.event() if isinstance(event, StoredEvent) else event for event in events)


def _lines_of(events: Events) -> bytes:
    if isinstance(events, EventList):
        return events.lines()

    kind = type(events[0]) if events else AuditEvent
    if issubclass(kind, StoredEvent) and all(type(event) is kind for event in events):
        return kind.lines(events)
    return b"".join([encode_event(event) + b"\n" for event in _events(events)])


def _document(lists: Iterable[Events], exported_at: dt.datetime) -> Iterator[bytes]:
    yield b'{\n  "events": ['

    total = 0
    for events in filter(None, lists):
        separator = b",\n    " if total else b"\n    "
        yield separator + _lines_of(events)[:-1].replace(b"\n", b",\n    ")
        total += len(events)
        del events

    yield b"\n  ],\n" if total else b"],\n"
    yield f'  "total_events": {total},\n  "exported_at": "{rfc3339(exported_at)}"\n}}\n'.encode()


def _lines(lists: Iterable[Events], exported_at: dt.datetime) -> Iterator[bytes]:
    return map(_lines_of, lists)


def _table(lists: Iterable[Events], exported_at: dt.datetime) -> Iterator[bytes]:
    # Imported lazily: only needed for CSV.
    from structlog_audit.formats.spreadsheet import table

    return table(lists)


_Writer = Callable[[Iterable[Events], dt.datetime], Iterator[bytes]]


def _other_system(name: str) -> _Writer:
    """Return a writer of lines in the format *name* of another system."""

    def lines(lists: Iterable[Events], exported_at: dt.datetime) -> Iterator[bytes]:
        # Imported lazily: most processes never export to another system.
        from structlog_audit.formats import to_line

        for event in _events(chain.from_iterable(lists)):
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
"""The writers by the name of their format. Each yields the bytes of a file from lists of events, oldest first, and the export
time: those of a list as soon as it is there.

The names of other systems' formats are repeated here, so that offering them does not import `structlog_audit.formats`; a
test compares them with its table."""

_SQLITE = "sqlite"
_SUFFIXES = {"db": _SQLITE, "sqlite3": _SQLITE}
"""The formats of suffixes that are not their names."""

FORMATS = (*WRITERS, _SQLITE)
"""The names of all formats of files. A database has no bytes that could be written one after the other."""

Information = Mapping[str, Any]
"""The facts of the source about an export: columns of ``export_information`` (`structlog_audit.formats.sqlite`)."""


def _write_bytes(writer: _Writer, lists: Iterable[Events], path: Path, now: dt.datetime) -> None:
    with path.open("wb") as file:
        file.writelines(writer(lists, now))


def _write_database(
    full_text: bool, inform: Callable[[], Information], lists: Iterable[Events], path: Path, now: dt.datetime
) -> None:
    # Imported lazily: only needed for SQLite.
    import sqlite3

    from structlog_audit.formats.sqlite import complete, write_events

    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            count = write_events(connection, map(_plain, chain.from_iterable(lists)))
            complete(connection, inform(), count, now, full_text=full_text)
    except sqlite3.Error as error:
        # SQLite does not tell the number of the system's error.
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        number = errno.ENOSPC if is_full else errno.EIO
        raise OSError(number, f"SQLite: {error}") from error


def _plain(event: Exportable) -> AuditEvent:
    """Return *event* with plain values: one that an application made may hold any."""
    return event.event() if isinstance(event, StoredEvent) else decode_event(encode_event(event))


def export(
    events: Iterable[Exportable],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    cells: Cells = "safe",
    full_text: bool = False,
    inform: Callable[[], Information] = dict,
    now: dt.datetime,
    replace: bool = True,
) -> int:
    """Write *events* to *path* and return their number.

    Args:
        events: Read one by one, so they need not fit in memory.
        path: The file. Missing folders are created.
        format: A name in `FORMATS`; None selects it by the suffix of *path*.
        columns: For ``csv``, the columns in their order: names of members, or ``metadata.KEY`` for a value in the metadata at
            any depth. None selects all members.
        cells: For ``csv``, how texts are written. ``safe``: no spreadsheet evaluates one as a formula. ``text``: nor does it
            convert one to a number or date, because an apostrophe is before each. ``raw``: unchanged, for programs only.
        full_text: For ``sqlite``, whether the database gets a full-text index.
        inform: For ``sqlite``, called after the last event: it returns the facts that the source states about the export.
        now: The time of the export.
        replace: Whether an existing file is replaced.

    Raises:
        AuditTypeError: *path* is not a path, or *columns* are not names.
        AuditValueError: The format is unknown, or *path* is a folder or not a regular file. A column or *cells* is unknown, or
            the format has neither; the same for *full_text*. An event needs further rows, and *columns* lacks the two that
            mark them.
        FileExistsError: The file exists, and *replace* is False.
        OSError: The system could not write the file; the previous file is unchanged.
    """
    destination, name = checked_destination(path, format)
    write = checked_writer(name, columns, cells, full_text=full_text, inform=inform)
    count = 0

    def counted() -> Iterator[Events]:
        nonlocal count
        for some in lists_of(events, CHUNK):
            count += len(some)
            yield some

            # Not kept while the next ones are decoded, which reuses their memory.
            del some

    with _replacement(destination, replace=replace) as temporary:
        write(counted(), temporary, now)
    return count


def checked_writer(
    format: str,
    columns: Sequence[str] | None = None,
    cells: Cells = "safe",
    *,
    full_text: bool = False,
    inform: Callable[[], Information] = dict,
) -> Callable[[Iterable[Events], Path, dt.datetime], None]:
    """Return the function that writes events to a file in *format*. Raises as `export`, before any write.

    It takes lists of events, the path of an empty file, and the time of the export; the other parameters are those of `export`.
    """
    if full_text:
        from structlog_audit.formats.sqlite import require_full_text

        if format != _SQLITE:
            raise AuditValueError(f"full_text: expected the format {_SQLITE}, got {format!r}, which has no index")
        require_full_text()

    if columns is not None or cells != "safe":
        from structlog_audit.formats.spreadsheet import checked_cells, checked_columns, table

        if format != "csv":
            raise AuditValueError(f"columns, cells: expected the format csv, got {format!r}, which has no columns")

        names, form = checked_columns(columns), checked_cells(cells)
        return partial(_write_bytes, lambda lists, exported_at: table(lists, names, form))

    if format == _SQLITE:
        return partial(_write_database, full_text, inform)
    return partial(_write_bytes, WRITERS[format])


def checked_destination(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, str]:
    """Return *path* and the name of its format, if an export may be written there. Raises as `export`, before any write."""
    try:
        destination = Path(require_local("path", os.fsdecode(path)))
    except TypeError:
        raise AuditTypeError(f"path={path!r}: expected the path of a file") from None

    _require_regular(destination)
    suffix = destination.suffix.removeprefix(".").lower()
    name = format if format is not None else _SUFFIXES.get(suffix, suffix)
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        if format is not None:
            raise AuditValueError(f"format={format!r}: expected one of {known}")
        raise AuditValueError(
            f"path={str(destination)!r}: expected one of {known}, as the suffix of the path or as the format"
        )
    return destination, name


def _require_regular(destination: Path) -> None:
    """Raise an error if there is anything but a regular file at *destination*."""
    if destination.exists() and not stat.S_ISREG(destination.stat().st_mode):
        raise AuditValueError(f"path={str(destination)!r}: expected a regular file, got a folder or special file")


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Create *folder*, and those above it, for the ``with`` block; if that fails, remove those that it left empty.

    Raises:
        OSError: A folder cannot be created.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    _make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # The path, or a folder above it, is a file. The error of the system would be "File exists".
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def write_atomically(destination: Path, chunks: Iterable[bytes], *, replace: bool = True) -> None:
    """Write *chunks* to a temporary file beside *destination*, sync it, and rename it to *destination*.

    Raises:
        AuditValueError: *destination* is a folder or a special file, which is not replaced.
        FileExistsError: There is such a file, folder or link, and *replace* is False.
        OSError: The system could not write the file; the previous file is unchanged.
    """
    with _replacement(destination, replace=replace) as temporary, temporary.open("wb") as file:
        file.writelines(chunks)


def write_all_atomically(files: Mapping[str, bytes]) -> None:
    """Write *files*, contents by path, as `write_atomically` does: none is renamed before all are written and synced.

    Raises:
        AuditValueError, OSError: As `write_atomically`.
    """
    with ExitStack() as stack:
        for path, data in files.items():
            temporary = stack.enter_context(_replacement(Path(require_local("path", path)), replace=True))
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def _replacement(destination: Path, *, replace: bool) -> Iterator[Path]:
    """Yield the path of a new, empty file beside *destination*; then sync it, and rename it to *destination*.

    Raises:
        AuditValueError, FileExistsError, OSError: As `write_atomically`.
    """
    if replace:
        _require_regular(destination)
    with made_folder(destination.parent), _file_beside(destination, replace=replace) as temporary:
        yield temporary


@contextmanager
def _file_beside(destination: Path, *, replace: bool) -> Iterator[Path]:
    """Yield the path of a new, empty file beside *destination*, as `_replacement` in a folder that exists."""
    temporary = destination.with_name(_temporary_name(destination.name))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600)
    except OSError as error:
        # The caller knows the destination, not the temporary file.
        raise OSError(error.errno, error.strerror, str(destination)) from error

    try:
        yield temporary
        # A descriptor that was open all the time also reports writes that failed in the background.
        os.fsync(fd)

        if replace:
            os.replace(temporary, destination)
        else:
            os.link(temporary, destination)
    except OSError as error:
        # A failed write does not name its file.
        if error.filename is None:
            error.filename = str(destination)
        raise
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """Return an unused name that begins as *name* does and is not too long for a file system.

    File systems limit names in bytes (Linux) or UTF-16 code units (macOS).
    """
    beginning = os.fsencode(name)[:100].decode("utf-8", "ignore")
    return f".{beginning}.{secrets.token_hex(8)}.tmp"
