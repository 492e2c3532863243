"""Discovery of trails at paths, and the set of a trail's files while writers roll it over.

**Guarantees.** A rollover while the set is taken neither repeats a segment nor misses one. Names of rolled segments are never
reused, so it is enough to open the active segment, list the folder, and check whether the open file still is the active one:
if so, every listed segment precedes it; if not, it was rolled over, and the list is cut at its new name.

**Concurrency.** The folder is listed twice, because one listing can miss both names of a segment that is being compressed.
Where a segment exists plain and compressed, the plain file is used: the other may be incomplete. The numbered files of a
`logging.handlers.RotatingFileHandler` change names at every rollover; all are opened until two passes find the same files.
A segment is opened when it is read; if it was compressed or decompressed by then, the other name is found.

Reading follows symbolic links and changes nothing. A trail whose segments all begin as those of another trail in the
folder, such as ``copy of audit.jsonl``, is a copy of it: it is left out and counted.
"""

from __future__ import annotations

import datetime as dt
import errno
import glob
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from structlog_audit.exceptions import AuditReadError, AuditTypeError
from structlog_audit.trail.reading.decompression import unpack
from structlog_audit.trail.reading.problems import Problems
from structlog_audit.trail.reading.torn_lines import CANONICAL_START
from structlog_audit.trail.segment_names import (
    ACTIVE,
    COMPRESSED_SUFFIXES,
    SegmentOrder,
    base_of,
    is_numbered,
    order_of,
    rollover_time,
)

MAX_ATTEMPTS = 100
"""The number of attempts to take a set of files that keeps changing."""

TRAIL_SUFFIXES = (".jsonl", ".ndjson", ".log")
"""The suffixes by which trails are recognized in a folder."""

_Inode = tuple[int, int]


@dataclass(slots=True)
class Segment:
    """One file of a trail."""

    path: str
    order: SegmentOrder
    size: int = 0
    """Bytes when the set was taken, compressed or not; 0 for a stream. Bytes appended later are not read."""
    is_open: bool = False
    """Whether a writer may still append to the file."""
    file: BinaryIO | None = None
    """The open file, if it had to be opened when the set was taken."""
    begin: int = 0
    """The offset in *file* at which the segment begins."""

    @property
    def rolled_at(self) -> dt.datetime | None:
        """The time of the rollover, if the name states it."""
        time = self.order[1]
        return time if isinstance(time, dt.datetime) else None

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file, at the beginning of the segment, for the duration of a ``with`` block.

        Raises:
            FileNotFoundError: It was deleted.
            OSError: The system cannot open it.
        """
        if self.file is None:
            with _open_by_any_name(self.path) as file:
                yield file
            return

        if self.file.seekable():
            self.file.seek(self.begin)
        yield self.file


def _open_by_any_name(path: str) -> BinaryIO:
    """Open the file at *path*, or the one that replaced it when it was compressed or decompressed."""
    plain = _without_packed_suffix(path)
    packed = [plain + suffix for suffix in COMPRESSED_SUFFIXES]
    # The last attempt finds a file that was decompressed and compressed again meanwhile.
    for name in (path, plain, *packed, path):
        file = open_file(name)
        if file is not None:
            return file
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def open_file(path: str) -> BinaryIO | None:
    """Open the file at *path* for reading; None if it does not exist."""
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None


def inode(file: int | str) -> _Inode | None:
    """Return device and inode of *file*, a descriptor or a path; None if it does not exist."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Trail:
    """The segments of one trail.

    Args:
        folder: The folder of the segments.
        base: The name of the active segment.
        names: The names of the segments to read, if not all of them.
    """

    def __init__(self, folder: str, base: str, names: Iterable[str] | None = None) -> None:
        self.folder = folder
        self.base = base
        self.names = None if names is None else sorted(names, key=self._order)

    @property
    def path(self) -> str:
        """The path of the active segment."""
        return self._path_of(self.base)

    def _path_of(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _order(self, name: str) -> SegmentOrder:
        return order_of(self.base, name) or ACTIVE

    @contextmanager
    def segments(self) -> Iterator[list[Segment]]:
        """Take the set of segments that exist now, in order, for the duration of a ``with`` block.

        Raises:
            AuditReadError: The folder or the active segment cannot be read, or there is no segment.
        """
        held: list[BinaryIO] = []
        try:
            try:
                segments = self._take_set(held)
            except OSError as error:
                raise AuditReadError(f"{self.path} cannot be read: {error}") from error
            yield segments
        finally:
            for file in held:
                file.close()

    def _take_set(self, held: list[BinaryIO]) -> list[Segment]:
        """Return the segments. Files that have to stay open are appended to *held*."""
        if self.names is not None:
            return [self._listed(name, self._order(name)) for name in self.names]

        for _ in range(MAX_ATTEMPTS):
            segments = self._try_to_take_set(held)
            if segments is not None:
                break
        else:
            raise AuditReadError(f"{self.path} is rolled over again and again while its files are listed: try again")
        if not segments:
            raise AuditReadError(f"{self.path}: no such trail")

        # Writers may not have noticed the last rollover yet.
        for segment in segments[-2:]:
            segment.is_open = True
        return segments

    def _try_to_take_set(self, held: list[BinaryIO]) -> list[Segment] | None:
        """Return the segments, or None if they changed too much while they were listed."""
        active = self._hold(self.path, ACTIVE, held)
        names = self.rolled_names()
        if _are_numbered(names):
            return self._take_numbered(names, held)

        rolled = [self._listed(name, order) for order, name in sorted(names.items())]
        if active is None:
            has_appeared = inode(self.path) is not None
            return None if has_appeared else rolled

        held_inode = inode(held[-1].fileno())
        if inode(self.path) == held_inode:
            return [*rolled, active]

        # The held file was rolled over meanwhile: find its new name, and leave out everything after it.
        for order, name in self.rolled_names().items():
            if inode(self._path_of(name)) == held_inode:
                preceding = [segment for segment in rolled if segment.order < order]
                return [*preceding, active]
        return None

    def _take_numbered(self, names: Mapping[SegmentOrder, str], held: list[BinaryIO]) -> list[Segment] | None:
        """Return the segments of a trail of numbered files, which change their names. All are held open."""
        found: dict[_Inode, Segment] = {}
        previous_pass: list[_Inode | None] = []
        for _ in range(MAX_ATTEMPTS):
            this_pass: list[_Inode | None] = []
            for order, name in sorted([*names.items(), (ACTIVE, self.base)]):
                segment = self._hold(self._path_of(name), order, held)
                if segment is None:
                    this_pass.append(None)
                    continue

                key = inode(held[-1].fileno())
                this_pass.append(key)
                if key is not None:
                    # Of several positions the last one seen counts.
                    first_seen = found.setdefault(key, segment)
                    first_seen.order = order

            if this_pass == previous_pass:
                return _in_order(found, this_pass)
            previous_pass = this_pass
            names = self.rolled_names()
        return None

    def rolled_names(self) -> dict[SegmentOrder, str]:
        """Return the names of the rolled segments by their order."""
        listed = [*os.listdir(self.folder), *os.listdir(self.folder)]
        names: dict[SegmentOrder, str] = {}

        # Longest first: of a plain and a compressed file, the plain one remains because its name is shorter.
        for name in sorted(listed, key=len, reverse=True):
            order = order_of(self.base, name)
            if order is not None and order != ACTIVE:
                names[order] = name
        return names

    def first_events(self) -> frozenset[bytes]:
        """Return the first line of each segment that is an event, for the recognition of copies."""
        names = self.names
        if names is None:
            names = [self.base, *self.rolled_names().values()]
        lines = (_first_event(self._path_of(name)) for name in names)
        return frozenset(line for line in lines if line)

    def _hold(self, path: str, order: SegmentOrder, held: list[BinaryIO]) -> Segment | None:
        """Open the segment at *path* and append the file to *held*; None if it does not exist."""
        file = open_file(path)
        if file is None:
            return None
        held.append(file)
        return Segment(path, order, _size_of(file), file=file)

    def _listed(self, name: str, order: SegmentOrder) -> Segment:
        path = self._path_of(name)

        try:
            size = os.stat(path).st_size
        except OSError:
            # Reported when the segment is opened.
            size = 0
        return Segment(path, order, size)


class StreamTrail:
    """A trail that is not a reopenable file: standard input, a pipe, or any open binary file."""

    def __init__(self, file: BinaryIO | str) -> None:
        self._file = file
        self._begin: int | None = None
        self._was_read = False
        if isinstance(file, str):
            self.path = file
            return

        name = getattr(file, "name", "")
        self.path = str(name or file)
        if file.seekable():
            self._begin = file.tell()

    @property
    def is_seekable(self) -> bool:
        """Whether the stream can be read more than once."""
        return self._begin is not None

    @contextmanager
    def segments(self) -> Iterator[list[Segment]]:
        """Provide the stream as the only segment for the duration of a ``with`` block.

        Raises:
            AuditReadError: The stream cannot be opened, or was read before and is not seekable.
        """
        if self._begin is None and self._was_read:
            raise AuditReadError(f"{self.path} can be read only once, and was read already: save it to a file")
        self._was_read = True

        with ExitStack() as stack:
            file = self._file
            if isinstance(file, str):
                try:
                    file = stack.enter_context(open(file, "rb"))
                except OSError as error:
                    raise AuditReadError(f"{self.path} cannot be read: {error}") from error
            yield [Segment(self.path, ACTIVE, file=file, begin=self._begin or 0)]


AnyTrail = Trail | StreamTrail


def rollover_before(segments: Sequence[Segment], number: int) -> dt.datetime | None:
    """Return when the segment before segment *number* was rolled over; None if unknown."""
    if number == 0:
        return None
    return segments[number - 1].rolled_at


def _are_numbered(names: Iterable[SegmentOrder]) -> bool:
    return any(map(is_numbered, names))


def _in_order(found: Mapping[_Inode, Segment], present: Iterable[_Inode | None]) -> list[Segment]:
    """Return the numbered segments *found*, with their present sizes, oldest first."""
    for key, segment in found.items():
        file = cast(BinaryIO, segment.file)
        segment.size = _size_of(file)
        if key not in present:
            # It was deleted meanwhile, so it is the oldest.
            segment.order = (-1, segment.order[1])
    return sorted(found.values(), key=lambda segment: segment.order)


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def find_trails(paths: Iterable[str | os.PathLike[str] | BinaryIO], problems: Problems | None = None) -> list[AnyTrail]:
    """Return the trails at *paths*, each once.

    Args:
        paths: As of `structlog_audit.trail.reading.opening.open_trail`.
        problems: Receives the copies of trails that are left out.

    Raises:
        AuditTypeError: One of *paths* is neither a path nor an open binary file.
        AuditReadError: There is no trail at one of *paths*, or it cannot be read.
    """
    trails: list[AnyTrail] = []
    for path in paths:
        if hasattr(path, "read") and not isinstance(path, (io.TextIOBase, type)):
            trails.append(StreamTrail(cast(BinaryIO, path)))
            continue

        try:
            text = os.fsdecode(cast(str, path))
        except TypeError:
            raise AuditTypeError(
                f"path={path!r}: expected a path or a file that is open for reading bytes, got {type(path).__name__}"
            ) from None
        try:
            trails += _trails_at(text)
        except OSError as error:
            raise AuditReadError(f"path={text!r} cannot be read: {error}") from error
    return _without_copies(_without_duplicates(trails), problems or Problems())


def _trails_at(path: str) -> list[AnyTrail]:
    if os.path.isdir(path):
        return _trails_in_folder(path)
    if os.path.exists(path) and not os.path.isfile(path):
        return [StreamTrail(path)]

    trail = _trail_of_file(path)
    return _trails_by_pattern(path) if trail is None else [trail]


def _trail_of_file(path: str) -> Trail | None:
    """Return the trail of the active segment *path*, or the single segment *path*; None if there is neither."""
    folder, name = os.path.split(path)
    folder = folder or "."
    if not name or not os.path.isdir(folder):
        return None

    trail = Trail(folder, name)
    if trail.rolled_names():
        return trail
    if not os.path.exists(path):
        return None

    # Raises an error now if the file cannot be read.
    open(path, "rb").close()
    base = base_of(name)
    return trail if base == name else Trail(folder, base, [name])


def _trails_by_pattern(pattern: str) -> list[AnyTrail]:
    matches = glob.glob(pattern)
    files = [os.path.split(match) for match in matches if os.path.isfile(match)]
    if not files:
        raise AuditReadError(f"path={pattern!r}: expected an active file, a folder or a pattern, got no such trail")

    trails: list[AnyTrail] = []
    names_by_trail = _group_by_trail(files)
    for (folder, base), names in sorted(names_by_trail.items()):
        # An active file stands for the whole trail.
        selected = None if base in names else names
        trails.append(Trail(folder or ".", base, selected))
    return trails


def _group_by_trail(files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Group *files*, pairs of folder and name, by the folder and base name of their trail."""
    names_by_trail: dict[tuple[str, str], list[str]] = {}
    for folder, name in files:
        key = folder, base_of(name)
        names = names_by_trail.setdefault(key, [])
        names.append(name)
    return names_by_trail


def _trails_in_folder(folder: str) -> list[AnyTrail]:
    """Return the trails in *folder*; without trails, the export documents."""
    files = []
    for name in os.listdir(folder):
        is_hidden = name.startswith(".")
        if not is_hidden and os.path.isfile(os.path.join(folder, name)):
            files.append((folder, name))

    trails: list[AnyTrail] = []
    documents: list[AnyTrail] = []
    names_by_trail = _group_by_trail(files)
    for (_, base), names in sorted(names_by_trail.items()):
        plain_name = _without_packed_suffix(base)
        suffix = os.path.splitext(plain_name)[1].lower()
        is_rolled = any(rollover_time(base, name) for name in names)

        if is_rolled or suffix in TRAIL_SUFFIXES:
            trails.append(Trail(folder, base))
        elif suffix == ".json":
            documents.append(Trail(folder, base))

    if not trails and not documents:
        raise AuditReadError(
            f"path={folder!r}: expected a folder with a trail ({', '.join(TRAIL_SUFFIXES)}) or an export (.json), "
            "got neither; name the file instead"
        )
    return trails or documents


def _without_packed_suffix(name: str) -> str:
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _without_duplicates(trails: list[AnyTrail]) -> list[AnyTrail]:
    """Return *trails* without repeated ones; segments of the same trail are joined."""
    unique: dict[tuple[str, str], AnyTrail] = {}
    for trail in trails:
        if isinstance(trail, StreamTrail):
            stream_key = "", str(id(trail))
            unique[stream_key] = trail
            continue

        key = os.path.realpath(trail.folder), trail.base
        other = unique.setdefault(key, trail)
        if not isinstance(other, Trail) or other.names is None:
            # The first one, or a trail that is read with all of its segments.
            continue

        names = None
        if trail.names is not None:
            names = {*other.names, *trail.names}
        unique[key] = Trail(trail.folder, trail.base, names)

    return list(unique.values())


def _first_event(path: str) -> bytes:
    """Return the first line of the file at *path* if it is an event; empty for any other file."""
    try:
        with open(path, "rb", buffering=0) as file:
            _, _, head = unpack(file, path, _ignore)
    except (OSError, AuditReadError):
        # Reported when the segment is opened.
        return b""

    line = head.lstrip().partition(b"\n")[0]
    return line if line.startswith(CANONICAL_START) else b""


def _ignore(*finding: object) -> None:
    """Count nothing: the finding is counted when the segment is read."""


def _without_copies(trails: list[AnyTrail], problems: Problems) -> list[AnyTrail]:
    """Return *trails* without those of which each segment begins as one of another trail in the same folder."""
    by_folder: dict[str, list[Trail]] = {}
    for trail in trails:
        if isinstance(trail, Trail):
            folder = os.path.realpath(trail.folder)
            by_folder.setdefault(folder, []).append(trail)

    copies = [copy for beside in by_folder.values() if len(beside) > 1 for copy in _copies_among(beside, problems)]
    return [trail for trail in trails if trail not in copies]


def _copies_among(trails: list[Trail], problems: Problems) -> list[Trail]:
    """Return those of *trails* in one folder that are copies of others, and count them."""
    first_events = {trail: trail.first_events() for trail in trails}
    # Of equal trails, the one with the shorter name is the original.
    ranked = sorted(trails, key=lambda trail: (-len(first_events[trail]), len(trail.base), trail.base))

    copies = []
    originals: list[Trail] = []
    for trail in ranked:
        original = next((other for other in originals if first_events[trail] <= first_events[other]), None)
        if original is None or not first_events[trail]:
            originals.append(trail)
        else:
            copies.append(trail)
            problems.add_once("copy", trail.path, 0, f"begins as a segment of {original.path}")
    return copies
