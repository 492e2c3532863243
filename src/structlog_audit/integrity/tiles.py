"""A sealed trail as the files of a static log (C2SP tlog-tiles): its checkpoint, its hashes, and its lines as entries.

**Guarantees.** Entries and hashes give the root of the checkpoint, which is written last. Files of an earlier export into the
same folder stay, because its checkpoint is one of the same tree, and only those that it lacks are added.

**Failure handling.** A changed line or stored hash is an error, and the folder is as before, except for tiles that an earlier
export lacked. Bundles with a line that the trail no longer has, or that is too long for an entry, are left out and counted.

**Performance.** Memory is constant. Segments whose lines are all in the folder are not read.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from structlog_audit._validation import require_local
from structlog_audit.exceptions import AuditReadError, AuditValueError
from structlog_audit.export import made_folder, write_atomically
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.merkle import HASH_BYTES, TILE, leaf_hash, root_at
from structlog_audit.integrity.notes import MAX_NOTE_BYTES, Checkpoint, Note, parse_checkpoint, parse_note
from structlog_audit.integrity.proving import segments_of
from structlog_audit.integrity.standalone.verify_trail import (
    HashFiles,
    Run,
    SealError,
    SegmentFile,
    SegmentReader,
    find_files,
    open_file,
    perfect_root,
    read_checkpoint,
)
from structlog_audit.trail.writing.filesystem import sync_folder

MAX_ENTRY_BYTES = 65_535
"""The bytes that a line in an entry bundle can have."""

_ENTRIES = "entries"
_CHECKPOINT = "checkpoint"
_DAMAGED = "the stored hashes do not give the root of the checkpoint: verify the trail"


class ExportedTiles(NamedTuple):
    """What an export has written.

    Attributes:
        files: The number of files that were added or replaced.
        lines: The number of lines that the checkpoint covers.
        left_out: How many of them are in no entry bundle.
    """

    files: int
    lines: int
    left_out: int


def export_tiles(trail: str | os.PathLike[str], folder: str | os.PathLike[str]) -> ExportedTiles:
    """Write the files that a server of tiles has for *trail* to *folder*.

    Args:
        trail: The path of the active segment.
        folder: A new or an empty folder, or one with an earlier export of this trail.

    Raises:
        AuditValueError: The folder has other files, or an export of another trail, or is a URL.
        AuditReadError: Trail or seal cannot be read, or are not as they were sealed.
        OSError: The folder cannot be written.
    """
    path = os.path.abspath(trail)
    seal = f"{path}.seal"
    with raising(AuditReadError), HashFiles(seal) as hashes:
        # The checkpoint comes first: everything that it covers is on the disk already.
        note = read_checkpoint(seal)
        checkpoint = Checkpoint.parse(note.text)
        if root_at(checkpoint.size, hashes.read) != checkpoint.root:
            raise SealError("BAD_SEAL", _DAMAGED)

        target = _Target(require_local("folder", os.fspath(folder)), checkpoint, hashes)
        runs = _runs_of(path, hashes, checkpoint.size)
        with made_folder(Path(folder)), target.cleared_after_failure():
            try:
                _write_tiles(target, runs)
            except AuditReadError:
                # Perhaps only the hint is wrong. A trail that lacks sealed lines is not exported without them.
                found = _runs_of(path, hashes, checkpoint.size, is_hinted=False)
                if _line_count(found) < _line_count(runs):
                    raise
                _write_tiles(target, found)
            target.write_checkpoint(note)

        return ExportedTiles(target.files, checkpoint.size, _lines_left_out(target))


class _Target:
    """The folder of an export.

    Args:
        folder: Its path.
        checkpoint: The head of the tree.
        hashes: The stored hashes.

    Attributes:
        files: The number of files that were written.

    Raises:
        AuditValueError: The folder has other files, or an export of another trail.
    """

    def __init__(self, folder: str, checkpoint: Checkpoint, hashes: HashFiles) -> None:
        self.checkpoint = checkpoint
        self.hashes = hashes
        self.files = 0
        self._folder = Path(folder)
        self._is_new = not os.path.lexists(folder) or not os.listdir(folder)

        if not self._is_new:
            self._check_earlier()

    def _check_earlier(self) -> None:
        """Check that the folder has an export of an earlier state of this trail."""
        expected = f"{str(self._folder)!r}: expected a new or an empty folder, or one with an export of this trail"
        try:
            with open_file(os.fspath(self.path_of(_CHECKPOINT))) as file:
                earlier = parse_checkpoint(parse_note(file.read(MAX_NOTE_BYTES + 1)).text)
        except FileNotFoundError:
            raise AuditValueError(f"{expected}, got other files, or an export that was interrupted") from None
        except AuditValueError as error:
            raise AuditValueError(f"{expected}, got a checkpoint that cannot be read: {error}") from None

        origin, size = self.checkpoint.origin, self.checkpoint.size
        if earlier.origin != origin:
            raise AuditValueError(f"{expected}, {origin!r}, got one of {earlier.origin!r}")
        if earlier.size > size:
            message = f"got one of {earlier.size} lines, and the seal has {size}: verify the trail"
            raise AuditValueError(f"{expected}, {message}")
        if root_at(earlier.size, self.hashes.read) != earlier.root:
            message = f"got one with another root for its {earlier.size} lines: verify the trail"
            raise AuditValueError(f"{expected}, {message}")

    @contextmanager
    def cleared_after_failure(self) -> Iterator[None]:
        """Remove everything that was written to a new folder if the ``with`` block fails."""
        try:
            yield
        except BaseException:
            if self._is_new:
                shutil.rmtree(os.path.join(self._folder, "tile"), ignore_errors=True)
            raise

    def width(self, level: int, number: int) -> int:
        """Return the number of hashes in a tile."""
        return min(TILE, (self.checkpoint.size >> 8 * level) - number * TILE)

    def count(self, level: int) -> int:
        """Return the number of tiles of a level."""
        return -(-(self.checkpoint.size >> 8 * level) // TILE)

    def has(self, name: str) -> bool:
        """Return whether the file *name* exists."""
        return self.path_of(name).exists()

    def has_entries(self, number: int) -> bool:
        """Return whether there is a bundle of entries."""
        return self.has(tile_path(_ENTRIES, number, self.width(0, number)))

    def read(self, name: str) -> bytes:
        """Return the content of the file *name*."""
        return self.path_of(name).read_bytes()

    def path_of(self, name: str) -> Path:
        """Return the path of the file *name*."""
        return self._folder / name

    def write_checkpoint(self, note: Note) -> None:
        """Write the checkpoint, unless it is there, once the names of all files are on the disk."""
        data = str(note).encode()
        if self.has(_CHECKPOINT) and self.read(_CHECKPOINT) == data:
            return

        # An fsync of a file does not cover its name.
        for folder, _, _ in os.walk(self._folder):
            sync_folder(folder)
        self.write(_CHECKPOINT, data)
        sync_folder(self._folder)

    def write(self, name: str, data: bytes) -> None:
        """Write the file *name*, which appears when it is complete and on the disk."""
        write_atomically(self.path_of(name), [data])
        self.files += 1


def _write_tiles(target: _Target, runs: Sequence[_PlacedRun]) -> None:
    """Write the tiles of hashes and the bundles of the lines of *runs*."""
    _write_hashes(target, runs)
    _write_entries(target, runs)


def _write_hashes(target: _Target, runs: Sequence[_PlacedRun]) -> None:
    """Write the tiles of all levels.

    Those of leaves may be left out, if their hashes were freed: that is possible for lines that are gone.
    """
    level = 0
    while count := target.count(level):
        for number in range(count):
            name = tile_path(level, number, target.width(level, number))
            if not target.has(name):
                is_needed = level > 0 or any(placed.has_leaf_of(number) for placed in runs)
                with nullcontext() if is_needed else suppress(SealError):
                    target.write(name, _authentic_tile(target, level, number))

        level += 1


def _authentic_tile(target: _Target, level: int, number: int) -> bytes:
    """Return the hashes of a tile.

    Raises:
        SealError: They are lost or damaged.
    """
    tile = target.hashes.read(level, number * TILE, target.width(level, number))
    if not _is_authentic(target, level, number, tile):
        raise SealError("BAD_SEAL", _DAMAGED)
    return tile


def _is_authentic(target: _Target, level: int, number: int, tile: bytes) -> bool:
    """Return whether *tile* gives the hash above it. Those of partial tiles are part of the root, which was checked."""
    width = target.width(level, number)
    if width < TILE:
        return tile == target.hashes.read(level, number * TILE, width)
    return len(tile) == TILE * HASH_BYTES and perfect_root(tile) == target.hashes.read(level + 1, number, 1)


def _write_entries(target: _Target, runs: Sequence[_PlacedRun]) -> None:
    """Write the bundles of lines, as far as all lines of a bundle are there.

    Raises:
        AuditReadError: A line is not as it was sealed.
    """
    for number, group in groupby(_lines_in(target, runs), key=lambda line: line.leaf_index // TILE):
        width = target.width(0, number)
        if target.has_entries(number):
            continue
        lines = list(group)
        if len(lines) < width:
            continue

        leaves = _published_leaves(target, number)
        for at, line in enumerate(lines):
            if line.leaf != leaves[at * HASH_BYTES : (at + 1) * HASH_BYTES]:
                where = f"line {line.number} of {line.segment}"
                raise AuditReadError(f"{where} is not as it was sealed: verify the trail")

        entries = [line.entry for line in lines if line.entry is not None]
        if len(entries) == width:
            target.write(tile_path(_ENTRIES, number, width), b"".join(entries))


def _published_leaves(target: _Target, number: int) -> bytes:
    """Return the hashes of a tile of leaves in the folder.

    Raises:
        AuditReadError: The tile is of an earlier export, and was changed since.
    """
    name = tile_path(0, number, target.width(0, number))
    leaves = target.read(name)
    if not _is_authentic(target, 0, number, leaves):
        raise AuditReadError(f"{str(target.path_of(name))!r} was changed after it was exported: export to a new folder")
    return leaves


class _Line(NamedTuple):
    """A line with its place in the tree and in the trail, and its entry, if it is not too long for one."""

    leaf_index: int
    segment: str
    number: int
    leaf: bytes
    entry: bytes | None


def _lines_in(target: _Target, runs: Sequence[_PlacedRun]) -> Iterator[_Line]:
    """Yield the lines of the runs with bundles that are missing.

    Raises:
        AuditReadError: There are fewer than were sealed.
    """
    for run, file, position in runs:
        stop = run.first + run.lines
        if all(map(target.has_entries, range(run.first // TILE, -(-stop // TILE)))):
            continue

        index = run.first
        for line in _lines_of(file, position, run.lines):
            entry = struct.pack(">H", len(line)) + line if len(line) <= MAX_ENTRY_BYTES else None
            index += 1
            yield _Line(index - 1, file.name, position + index - run.first, leaf_hash(line), entry)

        if index < stop:
            raise AuditReadError(f"{file.name} has fewer lines than were sealed: verify the trail")


def _lines_of(file: SegmentFile, position: int, count: int) -> Iterator[bytes]:
    """Yield up to *count* lines of *file* from *position* on, without their LFs."""
    for block in SegmentReader(file).blocks():
        lines = block.count(b"\n")
        if position < lines:
            taken = block.split(b"\n")[position:-1][:count]
            yield from taken
            count -= len(taken)

        position = max(0, position - lines)
        if not count:
            return


class _PlacedRun(NamedTuple):
    """A sealed run, the file that has it, and the position of its first line there."""

    run: Run
    file: SegmentFile
    position: int

    def has_leaf_of(self, tile: int) -> bool:
        """Return whether a leaf of the tile is in the run."""
        return self.run.first < (tile + 1) * TILE and tile * TILE < self.run.first + self.run.lines


def _line_count(runs: Sequence[_PlacedRun]) -> int:
    return sum(placed.run.lines for placed in runs)


def _runs_of(trail: str, hashes: HashFiles, size: int, *, is_hinted: bool = True) -> list[_PlacedRun]:
    """Return the sealed runs that have a file, in the order of their leaves; with the hint of the seal if it *is_hinted*."""
    files = find_files(trail)
    segments = segments_of(trail, files, hashes, size, is_hinted=is_hinted)
    runs = []
    for file, segment in zip(files, segments, strict=True):
        position = 0
        for run in segment.runs if segment else ():
            runs.append(_PlacedRun(run, file, position))
            position += run.lines

    return sorted(runs, key=lambda placed: placed.run.first)


def _lines_left_out(target: _Target) -> int:
    missing = (number for number in range(target.count(0)) if not target.has_entries(number))
    return sum(target.width(0, number) for number in missing)


def tile_path(level: int | str, number: int, width: int) -> str:
    """Return the path of a tile: groups of three digits, of which all but the last begin with x.

    Args:
        level: The level, or ``entries``.
        number: The index of the tile in its level.
        width: The number of its hashes or entries.
    """
    groups = [f"{number % 1_000:03d}"]
    while number >= 1_000:
        number //= 1_000
        groups.insert(0, f"x{number % 1_000:03d}")

    suffix = "" if width == TILE else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{suffix}"
