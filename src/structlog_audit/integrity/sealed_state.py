"""The sealed part of a trail: its tree, segments and runs, as a sealer keeps them in memory.

A *run* is a number of lines of one segment that are consecutive leaves. Lines that come after a segment was rolled over, and
after lines of the next one were sealed, are a further run of their segment.

**Failure handling.** `restore` takes the leaves that the checkpoint covers. Lost stored hashes are made again from the
lines, and lost or wrong runs from stored hashes and lines, if that gives the signed root.

**Performance.** Memory is constant for each segment and each run.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile

from structlog_audit.exceptions import AuditReadError
from structlog_audit.integrity.merkle import HASH_BYTES, HashFiles, Tree, leaf_hash, leaf_hashes
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.standalone.verify_trail import (
    MAX_LINE_BYTES,
    Checkpoint,
    Policy,
    SealedSegment,
    SealError,
    SegmentFile,
    SegmentReader,
    VanishedError,
    match_segments,
    parse_segments,
    rebuild_segments,
)

MOST_RUNS = 1_000
"""The number of runs from which on those of deleted segments are joined."""

PACKED_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")

_LEFT_RUNS = 100
_LAST_LINE_BYTES = 4_096

Inode = tuple[int, int]
"""Device and inode of a file."""


@dataclass(slots=True, eq=False)
class KnownSegment:
    """A segment of which lines are sealed.

    Attributes:
        number: Its number in the file ``segments``.
        name: The name of its file, without the suffix of a compression.
        lines: The number of sealed lines.
        size: Their number of bytes, with their LFs.
        first_leaf, last_leaf: The leaves of the first and the last of them.
        inode: The file, if it exists and is not compressed.
        is_damaged: Whether its sealed lines were found to be damaged. The present lines of its file are another segment.
    """

    number: int
    name: str
    lines: int = 0
    size: int = 0
    first_leaf: bytes = b""
    last_leaf: bytes = b""
    inode: Inode | None = None
    is_damaged: bool = False


@dataclass(slots=True)
class KnownRun:
    """Consecutive lines of *segment* that are consecutive leaves."""

    segment: KnownSegment
    first: int
    lines: int = 0
    size: int = 0


@dataclass
class SealedState:
    """The tree of one trail, and the runs of its leaves.

    Attributes:
        tree: The tree.
        segments: The segments, in the order of their numbers.
        runs: The runs, in the order of their leaves.
        is_changed: Whether anything has changed since `to_text`.
    """

    tree: Tree = field(default_factory=Tree)
    segments: list[KnownSegment] = field(default_factory=list)
    runs: list[KnownRun] = field(default_factory=list)
    is_changed: bool = False

    # The lines of all runs but the last, as only that one grows. None if they have changed.
    _earlier: bytes | None = None

    def add_segment(self, name: str, inode: Inode | None) -> KnownSegment:
        """Add a segment, without lines yet."""
        number = self.segments[-1].number + 1 if self.segments else 0
        segment = KnownSegment(number, name, inode=inode)
        self.segments.append(segment)
        return segment

    def rename(self, segment: KnownSegment, name: str) -> None:
        """Note that the file of *segment* has another name."""
        if segment.name != name:
            segment.name = name
            self.is_changed = True
            self._earlier = None

    def join_gone(self, present: Collection[int]) -> None:
        """Join the runs of the oldest segments, of which no file is left, to one, if there are more than `MOST_RUNS`.

        Otherwise the file ``segments``, which is written with each checkpoint, would grow with each rollover for ever.

        Args:
            present: The numbers of the segments that have a file.
        """
        kept = [run.segment.number in present for run in self.runs]
        if len(self.runs) <= MOST_RUNS or True not in kept:
            return

        # The newest of them may only be on their way to another name. Late lines may be behind those of a kept segment.
        end = max(0, kept.index(True) - _LEFT_RUNS)
        later = {run.segment.number for run in self.runs[end:]}
        gone = list(takewhile(lambda run: run.segment.number not in later, self.runs[:end]))
        if len(gone) < 2:
            return

        last = gone[-1].segment
        joined = KnownSegment(
            last.number,
            last.name,
            sum(run.lines for run in gone),
            sum(run.size for run in gone),
            gone[0].segment.first_leaf,
            last.last_leaf,
        )
        numbers = {run.segment.number for run in gone}
        left = [segment for segment in self.segments if segment.number not in numbers]
        self.segments = sorted([joined, *left], key=lambda segment: segment.number)
        self.runs[: len(gone)] = [KnownRun(joined, 0, joined.lines, joined.size)]
        self.is_changed = True
        self._earlier = None

    def add_lines(self, segment: KnownSegment, block: bytes) -> int:
        """Add the lines in *block*, which ends in LF, to *segment* and to the tree; return their number."""
        leaves = leaf_hashes(block)
        count = len(leaves) // HASH_BYTES
        if not self.runs or self.runs[-1].segment is not segment:
            self.runs.append(KnownRun(segment, self.tree.size))
            self._earlier = None
        self.tree.extend(leaves)
        self.is_changed = True

        run = self.runs[-1]
        for part in (run, segment):
            part.lines += count
            part.size += len(block)
        segment.first_leaf = segment.first_leaf or leaves[:HASH_BYTES]
        segment.last_leaf = leaves[-HASH_BYTES:]
        return count

    def to_text(self) -> bytes:
        """Return the content of the file ``segments``."""
        if self._earlier is None:
            self._earlier = b"".join(map(_line_of, self.runs[:-1]))
        self.is_changed = False
        return self._earlier + b"".join(map(_line_of, self.runs[-1:]))


def _line_of(run: KnownRun) -> bytes:
    segment = run.segment
    line = f"{segment.number} {run.first} {run.lines} {run.size} {segment.name}\n"
    return line.encode("utf-8", "surrogateescape")


def restore(folder: SealFolder, policy: Policy, files: Sequence[SegmentFile]) -> SealedState:
    """Return the state that the checkpoint in *folder* covers, and remove everything else from the folder.

    Args:
        folder: The seal folder, which is locked.
        policy: The keys of the sealer, one of which must have signed the checkpoint.
        files: The files of the trail, oldest first.

    Raises:
        SealError: The checkpoint is by another key or cannot be read, or neither stored hashes nor lines give its root.
        OSError: A system call failed.
    """
    note = folder.read_checkpoint()
    if note is None:
        folder.cut_hashes(0)
        return SealedState()

    checkpoint, _ = policy.check(note)
    folder.cut_hashes(checkpoint.size)
    with folder.hashes() as hashes:
        hinted = parse_segments(folder.read_segments(), checkpoint.size)
        segments = rebuild_segments(files, hashes, checkpoint.size) if hinted is None else hinted
        matched = match_segments(files, segments, hashes)

        tree = _stored_tree(checkpoint, hashes)
        if tree is None:
            tree = _rebuilt_tree(checkpoint, folder, files, matched)

        by_number = _by_number(matched, files)
        state = _state_of(tree, segments, by_number, hashes)
        if hinted is None or _fits(state, by_number):
            return state

        # Either the hint is wrong or the trail is damaged. Only in the first case the lines fit other runs.
        recounted = _state_of(tree, segments, by_number, hashes, is_counted=True)
        if _fits(recounted, by_number):
            return recounted

        return _rebuilt_state(tree, files, hashes) or state


def _rebuilt_state(tree: Tree, files: Sequence[SegmentFile], hashes: HashFiles) -> SealedState | None:
    """Return the state without the hint; None if the lines of *files* are not all that were sealed."""
    rebuilt = rebuild_segments(files, hashes, tree.size)
    if sum(segment.lines for segment in rebuilt) < tree.size:
        return None

    by_number = _by_number(match_segments(files, rebuilt, hashes), files)
    state = _state_of(tree, rebuilt, by_number, hashes)

    return state if _fits(state, by_number) else None


def _fits(state: SealedState, files: dict[int | None, SegmentFile]) -> bool:
    """Return whether the sealed lines of all segments whose *files* are plain end as the seal knows it."""
    for segment in state.segments:
        file = files.get(segment.number)
        if file is None:
            continue

        with suppress(VanishedError), file.open() as opened:
            is_packed = opened.read(4).startswith(PACKED_MAGIC)
            if not is_packed and damage_of(opened.fileno(), os.fstat(opened.fileno()).st_size, segment):
                return False

    return True


def _by_number(matched: Sequence[SealedSegment | None], files: Sequence[SegmentFile]) -> dict[int | None, SegmentFile]:
    """Return the *files* of matched segments by the numbers of these."""
    return dict(zip(_numbers(matched), files, strict=True))


def _numbers(matched: Sequence[SealedSegment | None]) -> list[int | None]:
    return [None if segment is None else segment.number for segment in matched]


def _stored_tree(checkpoint: Checkpoint, hashes: HashFiles) -> Tree | None:
    """Return the tree from stored hashes, or None if they do not give the signed root."""
    with suppress(AuditReadError):
        tree = Tree.restore(checkpoint.size, hashes.read)
        if tree.root() == checkpoint.root:
            return tree
    return None


def _rebuilt_tree(
    checkpoint: Checkpoint,
    folder: SealFolder,
    files: Sequence[SegmentFile],
    matched: Sequence[SealedSegment | None],
) -> Tree:
    """Make the tree and its stored hashes again from the lines."""
    runs = []
    for file, segment in zip(files, matched, strict=True):
        position = 0
        for run in segment.runs if segment else ():
            runs.append((run.first, run.lines, position, file))
            position += run.lines

    # Nothing is written unless the lines give the signed root.
    for is_written in (False, True):
        tree = Tree()
        for first, lines, position, file in sorted(runs, key=lambda run: run[0]):
            if first != tree.size:
                break
            for leaves in _leaves_of(file, position, lines):
                tree.extend(leaves)
                added = tree.take_stored()
                if is_written:
                    folder.add_hashes(added, tree.size)
        if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
            message = "neither the stored hashes nor the lines give the signed root: verify the trail"
            raise SealError("BAD_SEAL", f"{folder.path}: {message}, and move the folder away to seal it anew")
    return tree


def _leaves_of(file: SegmentFile, position: int, count: int) -> Iterator[bytes]:
    """Yield the leaves of *count* lines from *position* on, several at a time."""
    for block in SegmentReader(file).blocks():
        leaves = leaf_hashes(block)[position * HASH_BYTES :][: count * HASH_BYTES]
        position = max(0, position - block.count(b"\n"))
        count -= len(leaves) // HASH_BYTES
        yield leaves
        if not count:
            return


def _state_of(
    tree: Tree,
    segments: Sequence[SealedSegment],
    files: dict[int | None, SegmentFile],
    hashes: HashFiles,
    *,
    is_counted: bool = False,
) -> SealedState:
    """Return the state with *segments*.

    Args:
        tree: The tree of all sealed lines.
        segments: The segments with their runs.
        files: Those that exist, by the numbers of their segments.
        hashes: The stored hashes.
        is_counted: Whether the bytes of runs are counted in the files, also those that are known.
    """
    state = SealedState(tree)
    for segment in segments:
        file = files.get(segment.number)
        known = KnownSegment(segment.number, segment.name if file is None else file.name, segment.lines)
        state.segments.append(known)

        sizes = [run.size for run in segment.runs]
        if (is_counted or None in sizes) and file is not None:
            sizes = _sizes_of(file, [run.lines for run in segment.runs])
        for run, size in zip(segment.runs, sizes, strict=True):
            state.runs.append(KnownRun(known, run.first, run.lines, size or 0))
            known.size += size or 0

        with suppress(SealError):
            known.first_leaf = hashes.read(0, segment.leaf_of(0), 1)
            known.last_leaf = hashes.read(0, segment.leaf_of(segment.lines - 1), 1)

    state.runs.sort(key=lambda run: run.first)
    return state


def _sizes_of(file: SegmentFile, counts: Sequence[int]) -> list[int | None]:
    """Return the bytes of each run of *file*, of which *counts* are the lines."""
    ends: list[int | None] = []
    left = list(counts)
    size = 0
    for block in SegmentReader(file).blocks():
        for line in block.split(b"\n")[:-1] if left else ():
            size += len(line) + 1
            left[0] -= 1
            if not left[0]:
                left.pop(0)
                ends.append(size)
                size = 0
            if not left:
                break
    return ends + [size] * len(left)


def damage_of(fd: int, size: int, segment: KnownSegment) -> str:
    """Return the damage of the sealed lines of an open file, as far as its size and its last sealed line show."""
    if size < segment.size:
        return f"the file has {size} bytes, of which {segment.size} were sealed"

    length = _LAST_LINE_BYTES
    while True:
        begin = max(0, segment.size - length)
        data = os.pread(fd, segment.size - begin, begin)
        start = data.rfind(b"\n", 0, len(data) - 1) + 1
        if start or not begin or length > MAX_LINE_BYTES:
            break
        length *= 2
    is_same = data.endswith(b"\n") and leaf_hash(data[start:-1]) == segment.last_leaf
    return "" if is_same else "its last sealed line was changed"
