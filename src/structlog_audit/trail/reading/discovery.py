"""Which files are a trail at this moment, in order.

Rules:

* The set is taken so that a rollover meanwhile neither repeats a segment nor misses one. Names of rolled segments are never
  used again, so this is enough: open the active segment, list the folder, and look whether the open file still is the
  active one. If it is, everything listed lies before it. If not, it was rolled over meanwhile, and the list is cut behind it.
* The folder is listed twice: a segment that is being compressed goes from one name to another, and one listing can miss both.
  Of a segment that is there plainly and compressed, the plain file counts: the other may not be whole yet.
* The numbered files of a `logging.handlers.RotatingFileHandler` change their names at every rollover. All of them are opened,
  and that again until names and files are the same twice.
* A segment is opened when it is its turn. It may have been compressed by then, which is looked for, or deleted.
* Reading follows symbolic links, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
import errno
import glob
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from structlog_audit.exceptions import AuditReadError, AuditTypeError
from structlog_audit.trail.segment_names import ACTIVE, PACKED, SegmentOrder, base_of, order_of, rollover_time

TRIES = 100
"""Rollovers that may come in between before taking the set of files is given up."""

TRAIL_SUFFIXES = (".jsonl", ".ndjson", ".log")
"""What the names of trails end in, when a whole folder is given."""

_Inode = tuple[int, int]


@dataclass(slots=True)
class Segment:
    """One file of a trail."""

    path: str
    place: SegmentOrder
    size: int = 0
    """Bytes when the set was taken, packed or not. What is appended later is not read. Of a stream, 0."""
    is_open: bool = False
    """Whether it may still be written to."""
    file: BinaryIO | None = None
    """The file, where it had to be opened when the set was taken."""
    begin: int = 0
    """Where it begins in that file."""

    @property
    def rolled_at(self) -> dt.datetime | None:
        """When it was rolled over, if its name says that."""
        time = self.place[1]
        return time if isinstance(time, dt.datetime) else None

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, at its beginning.

        Raises:
            FileNotFoundError: It was deleted.
            OSError: The system can't open it.
        """
        if self.file is not None:
            if self.file.seekable():
                self.file.seek(self.begin)
            yield self.file
            return
        with _opened_by_any(self.path) as file:
            yield file


def _opened_by_any(path: str) -> BinaryIO:
    """The file at *path*, open, or the one that it became by being compressed or unpacked."""
    plain = _unpacked_name(path)
    for name in (path, plain, *(plain + suffix for suffix in PACKED), path):
        file = open_file(name)
        if file is not None:
            return file
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def open_file(path: str) -> BinaryIO | None:
    """The file at *path*, open for reading; None if there is none."""
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None


def inode(file: int | str) -> _Inode | None:
    """What identifies the *file*, an open one or a path, whatever its name; None if there is none."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Trail:
    """The segments of one trail.

    Args:
        folder: Where they lie.
        base: The name of the active segment.
        names: The segments, if it is not all of them.
    """

    def __init__(self, folder: str, base: str, names: Iterable[str] | None = None) -> None:
        self.folder = folder
        self.base = base
        self.names = None if names is None else sorted(names, key=self._place)

    @property
    def path(self) -> str:
        """The active segment."""
        return os.path.join(self.folder, self.base)

    def _place(self, name: str) -> SegmentOrder:
        return order_of(self.base, name) or ACTIVE

    @contextmanager
    def segments(self) -> Iterator[list[Segment]]:
        """The segments that exist now, in order, as long as this lasts.

        Raises:
            AuditReadError: The folder or the active segment can't be read, or there is nothing.
        """
        held: list[BinaryIO] = []
        try:
            try:
                taken = self._taken(held)
            except OSError as error:
                raise AuditReadError(f"{self.path} can't be read: {error}") from error
            yield taken
        finally:
            for file in held:
                file.close()

    def _taken(self, held: list[BinaryIO]) -> list[Segment]:
        if self.names is not None:
            return [
                Segment(os.path.join(self.folder, name), self._place(name), self._size(name)) for name in self.names
            ]
        for _ in range(TRIES):
            segments = self._attempt(held)
            if segments is not None:
                break
        else:
            raise AuditReadError(f"{self.path} is rolled over again and again while its files are listed: try again")
        if not segments:
            raise AuditReadError(f"{self.path}: there is no such trail")
        for segment in segments[-2:]:  # writers may not have noticed yet that the last but one was rolled over
            segment.is_open = True
        return segments

    def _attempt(self, held: list[BinaryIO]) -> list[Segment] | None:
        """The segments, or None if they changed too much while they were listed."""
        active = self._held(self.path, ACTIVE, held)
        places = self.places()
        if any(isinstance(number, int) for _, number in places):
            return self._numbered(places, held)
        rolled = [Segment(os.path.join(self.folder, name), place) for place, name in sorted(places.items())]
        for segment in rolled:
            segment.size = self._size(segment.path)
        if active is None:
            return rolled if inode(self.path) is None else None
        ours = inode(held[-1].fileno())
        if inode(self.path) == ours:
            return [*rolled, active]
        found = [place for place, name in self.places().items() if inode(os.path.join(self.folder, name)) == ours]
        return [*(segment for segment in rolled if segment.place < found[0]), active] if found else None

    def _numbered(self, places: dict[SegmentOrder, str], held: list[BinaryIO]) -> list[Segment] | None:
        """The segments of a trail whose files change their names: all of them held."""
        found: dict[_Inode, Segment] = {}
        before: list[_Inode | None] = []
        for _ in range(TRIES):
            paths = {place: os.path.join(self.folder, name) for place, name in [*places.items(), (ACTIVE, self.base)]}
            now = []
            for place, path in sorted(paths.items()):
                segment = self._held(path, place, held)
                key = None if segment is None else inode(held[-1].fileno())
                now.append(key)
                if segment is not None and key is not None:
                    found.setdefault(key, segment).place = place  # the last one that it was seen at
            if now == before:
                for key, segment in found.items():
                    if key not in now:  # deleted: it was the oldest
                        segment.place = (-1, segment.place[1])
                return sorted(map(_with_size, found.values()), key=lambda segment: segment.place)
            before, places = now, self.places()
        return None

    def places(self) -> dict[SegmentOrder, str]:
        """The names of the rolled segments, by their places."""
        found: dict[SegmentOrder, str] = {}
        for name in sorted([*os.listdir(self.folder), *os.listdir(self.folder)], key=len, reverse=True):
            place = order_of(self.base, name)
            if place is not None and place != ACTIVE:
                found[place] = name  # at last the shortest: the plain one
        return found

    def _held(self, path: str, place: SegmentOrder, held: list[BinaryIO]) -> Segment | None:
        file = open_file(path)
        if file is None:
            return None
        held.append(file)
        return _with_size(Segment(path, place, file=file))

    def _size(self, name: str) -> int:
        try:
            return os.stat(os.path.join(self.folder, name)).st_size
        except OSError:  # said when it is its turn
            return 0


class StreamTrail:
    """A trail that is no file that can be opened again: standard input, a pipe, or any open binary file."""

    def __init__(self, file: BinaryIO | str) -> None:
        self._file = file
        self.path = file if isinstance(file, str) else str(getattr(file, "name", "") or file)
        self._begin = file.tell() if not isinstance(file, str) and file.seekable() else None
        self._was_read = False

    @contextmanager
    def segments(self) -> Iterator[list[Segment]]:
        """The stream as the only segment.

        Raises:
            AuditReadError: It can be read once only, and was; or it can't be opened.
        """
        if self._begin is None and self._was_read:
            raise AuditReadError(f"{self.path} was read already, and can be read once only: save it to a file")
        self._was_read = True
        with ExitStack() as stack:
            file = self._file
            if isinstance(file, str):
                try:
                    file = stack.enter_context(open(file, "rb"))
                except OSError as error:
                    raise AuditReadError(f"{self.path} can't be read: {error}") from error
            yield [Segment(self.path, ACTIVE, file=file, begin=self._begin or 0)]


def _with_size(segment: Segment) -> Segment:
    """*segment*, which is held, with the size that it has now."""
    segment.size = os.fstat(segment.file.fileno()).st_size  # type: ignore[union-attr]
    return segment


AnyTrail = Trail | StreamTrail


def find_trails(paths: Iterable[str | os.PathLike[str] | BinaryIO]) -> list[AnyTrail]:
    """The trails at *paths*, each once.

    Raises:
        AuditTypeError: One of *paths* is neither a path nor an open binary file.
        AuditReadError: There is no trail at one of them, or it can't be read.
    """
    found: list[AnyTrail] = []
    for path in paths:
        if hasattr(path, "read") and not isinstance(path, (io.TextIOBase, type)):
            found.append(StreamTrail(cast(BinaryIO, path)))
            continue
        try:
            text = os.fsdecode(cast(str, path))
        except TypeError:
            raise AuditTypeError(f"path={path!r}: give a path, or a file that is open for reading bytes") from None
        try:
            found += _at(text)
        except OSError as error:
            raise AuditReadError(f"path={text!r} can't be read: {error}") from error
    return _each_once(found)


def _at(path: str) -> list[AnyTrail]:
    """The trails at *path*."""
    folder, name = os.path.split(path)
    trail = Trail(folder or ".", name)
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.exists(path) and not os.path.isfile(path):
        return [StreamTrail(path)]
    if name and os.path.isdir(trail.folder):
        if trail.places():
            return [trail]
        if os.path.exists(path):
            open(path, "rb").close()
            return [trail if base_of(name) == name else Trail(trail.folder, base_of(name), [name])]
    matches = [os.path.split(match) for match in glob.glob(path) if os.path.isfile(match)]
    if not matches:
        raise AuditReadError(f"path={path!r}: there is no such trail; give its active file, a folder or a pattern")
    return [
        Trail(folder or ".", base, None if base in names else names)
        for (folder, base), names in sorted(_by_trail(matches).items())
    ]


def _by_trail(files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Folders and names of *files*, by the folder and name of the trail that they belong to."""
    found: dict[tuple[str, str], list[str]] = {}
    for folder, name in files:
        found.setdefault((folder, base_of(name)), []).append(name)
    return found


def _in_folder(folder: str) -> list[AnyTrail]:
    """The trails in *folder*; the export documents in it, if there are none."""
    names = [name for name in os.listdir(folder) if name[0] != "." and os.path.isfile(os.path.join(folder, name))]
    bases = {}
    for (_, base), segments in sorted(_by_trail(("", name) for name in names).items()):
        suffix = os.path.splitext(_unpacked_name(base))[1].lower()
        is_rolled = any(rollover_time(base, name) for name in segments)
        bases[base] = "trail" if is_rolled or suffix in TRAIL_SUFFIXES else suffix
    for kind in ("trail", ".json"):
        if kind in bases.values():
            return [Trail(folder, base) for base, of in bases.items() if of == kind]
    raise AuditReadError(
        f"path={folder!r}: there is no trail in this folder ({', '.join(TRAIL_SUFFIXES)}) and no export (.json); give a file"
    )


def _unpacked_name(name: str) -> str:
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return name


def _each_once(trails: list[AnyTrail]) -> list[AnyTrail]:
    """*trails* without those that are there twice, or of which another has all segments."""
    found: dict[tuple[str, str], AnyTrail] = {}
    for trail in trails:
        if isinstance(trail, StreamTrail):
            found["", str(id(trail))] = trail
            continue
        key = os.path.realpath(trail.folder), trail.base
        other = found.setdefault(key, trail)
        if isinstance(other, Trail) and other.names is not None:
            names = None if trail.names is None else {*other.names, *trail.names}
            found[key] = Trail(trail.folder, trail.base, names)
    return list(found.values())
