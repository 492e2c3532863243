"""The lines of a sealed trail that are proved, as a stream of bytes that every reader of trails accepts.

**Guarantees.** Each line that the stream gives is a leaf of a checkpoint by a given key, in its place: what is hashed are the
very bytes that are handed out. The stored hashes are authentic, because each tile must give a node of the signed root. All
other lines are left out and counted, and the first of them are named.

**Performance.** A stream is read once, from its beginning, whatever is queried. Reading takes about 1 µs of CPU per line more
than without. Memory is constant, and 32 bytes for 256 lines.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress

from structlog_audit.exceptions import AuditReadError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.standalone.verify_trail import (
    HASH_BYTES,
    KEY_STATEMENT,
    MAX_AGE_SECONDS,
    TILE,
    Checkpoint,
    HashFiles,
    KeyUse,
    Note,
    Policy,
    SealedSegment,
    SealError,
    SegmentFile,
    SegmentReader,
    TrailFolder,
    first_leaf,
    fold_right,
    leaf_hashes,
    match_segments,
    perfect_root,
    read_checkpoint,
    read_segments,
    rebuild_segments,
    timestamp_in,
)

MOST_NAMED = 10
"""The number of lines that are named one by one."""

_WINDOW = 512
"""The number of leaves ahead among which a line is looked for, after lines that are missing."""

_MOST_TILES = 32
_UNKNOWN = bytes(HASH_BYTES)
"""In place of a stored hash that is not authentic. No line has it."""


class VerifiedLines(io.RawIOBase):
    """A file with the proved lines of one trail.

    Args:
        trail: The path of the active segment, or the trail in an archive.
        policy: The trusted keys.

    Attributes:
        name: The path of the trail.
        checkpoint: The checkpoint that proves the lines.
        unproved: The number of lines that were left out because they are not as they were sealed.
        absent: The number of sealed lines of the files read so far that were not found as they were sealed.
        unsealed: The number of lines that were left out because the checkpoint does not cover them.
        examples: The first of the unproved lines, as segment and number.
        oldest_unsealed: The time of the first line that is not sealed.

    Raises:
        AuditReadError: The seal cannot be read, no key of *policy* has signed it, or its stored hashes do not give the signed
            root.
    """

    def __init__(self, trail: str | os.PathLike[str] | TrailFolder, policy: Policy) -> None:
        super().__init__()
        self._trail = trail if isinstance(trail, TrailFolder) else TrailFolder(os.fspath(trail))
        self.name = self._trail.trail
        self.unproved = 0
        self.absent = 0
        self.unsealed = 0
        self.examples: list[tuple[str, int]] = []
        self.oldest_unsealed: dt.datetime | None = None

        folder = self._trail.seal
        self._hashes = HashFiles(folder)
        with raising(AuditReadError):
            # The checkpoint comes first: everything that it covers is on the disk already.
            note = read_checkpoint(folder)
            self.checkpoint, _ = policy.check(note)
            self._key_use = KeyUse(policy.logs)
            self._key_use.add(note, self.checkpoint, "the checkpoint of the seal", {})

            self._leaves = _AuthenticLeaves(self._hashes, self.checkpoint)
            self._files = self._trail.files()
            self._segments = self._find_segments(folder)
        self._blocks = self._proved_blocks()
        self._rest = memoryview(b"")
        self._has_quorum = policy.quorum != "none"

    def _find_segments(self, folder: str) -> Sequence[SealedSegment | None]:
        size = self.checkpoint.size
        hinted = read_segments(folder, size)
        matched = [] if hinted is None else self._match(hinted)
        if matched and self._begin_as_sealed(matched):
            return matched

        # The hint is lost or wrong, or lines were changed. It stays where it names more lines than are found.
        found = self._match(rebuild_segments(self._files, self._hashes, size))
        if hinted is None or _line_count(found) >= _line_count(matched):
            return found

        # The trail remembers the last segments that it was asked for, so these are matched again.
        return self._match(hinted)

    def _match(self, segments: Sequence[SealedSegment]) -> list[SealedSegment | None]:
        """Return the segment in each file, without what the trail does not have."""
        present = self._trail.present(self._files, list(segments), self._hashes, self.checkpoint.size)
        return match_segments(self._files, present, self._hashes)

    def _begin_as_sealed(self, matched: Sequence[SealedSegment | None]) -> bool:
        """Return whether each file begins with the first line of its segment, and one without a segment with another line."""
        for file, segment in zip(self._files, matched, strict=True):
            leaf = first_leaf(file)
            if segment is not None and segment.read(self._hashes, 0, 1) != leaf:
                return False
            if segment is None and leaf and self._hashes.find(leaf, 0, self.checkpoint.size) is not None:
                return False

        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to as many bytes as *buffer* holds; return their number, 0 at the end."""
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)

        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the files of the seal."""
        self._hashes.close()
        super().close()

    def problems(self, now: dt.datetime) -> Iterator[tuple[str, bool]]:
        """Yield what was left out so far, in words, and whether that is a finding: lines of the last seconds are not."""
        for finding in self._key_use.findings():
            yield f"{self.name}: {finding['message']}; nothing is proved: verify the trail", True
        if self._has_quorum:
            yield f"{self.name}: cosignatures of witnesses are not checked here: verify does that", False

        unarchived = sum(run.lines for run in self._trail.unarchived)
        if unarchived:
            yield f"{self.name}: sealed lines that are not archived yet: {unarchived}", False

        here = sum(segment.lines for segment in self._segments if segment is not None)
        elsewhere = self.checkpoint.size - here - unarchived
        if elsewhere:
            reason = "retention deleted them, or they are missing: verify tells which"
            yield f"{self.name}: sealed lines in segments that are not here: {elsewhere}; {reason}", False

        if self.absent:
            yield f"{self.name}: sealed lines that were changed or removed: {self.absent}; verify the trail", True
        if self.unproved:
            named = ", ".join(f"line {number} of {segment}" for segment, number in self.examples)
            more = ", …" if self.unproved > len(self.examples) else ""
            yield (
                f"{self.name}: lines that are not as they were sealed, and left out: {self.unproved} ({named}{more})",
                True,
            )
        if self.unsealed:
            oldest = self.oldest_unsealed

            is_old = oldest is None or abs((now - oldest).total_seconds()) > MAX_AGE_SECONDS

            yield f"{self.name}: lines that are not sealed yet, and left out: {self.unsealed}", is_old

    def _proved_blocks(self) -> Iterator[bytes]:
        for file, segment in zip(self._files, self._segments, strict=True):
            proved = _ProvedSegment(self, file, segment, self._leaves)
            with raising(AuditReadError):
                for block in SegmentReader(file).blocks():
                    lines = proved.of(block)
                    if KEY_STATEMENT in lines:
                        self._note_statements(lines)
                    yield lines

            self.absent += proved.absent

    def _note_statements(self, block: bytes) -> None:
        """Take note of the statements about keys in the proved lines of *block*."""
        for line in filter(lambda line: KEY_STATEMENT in line, block.split(b"\n")):
            # Such a text in any other line is not a statement.
            with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
                event = json.loads(line)
                note = Note.parse(event["metadata"]["note"].encode())
                if event["kind"] == "checkpoint":
                    self._add_note(note)

    def _add_note(self, note: Note) -> None:
        head = Checkpoint.parse(note.text)
        if head.origin == self.checkpoint.origin:
            self._key_use.add(note, head, "a checkpoint of the trail", {})

    def leave_out(self, line: bytes, segment: str, number: int, *, is_sealed: bool) -> None:
        """Count a line that is not proved."""
        if not is_sealed:
            self.oldest_unsealed = self.oldest_unsealed or timestamp_in(line)
            self.unsealed += 1
            return

        self.unproved += 1
        if len(self.examples) < MOST_NAMED:
            self.examples.append((segment, number))


class _ProvedSegment:
    """Finds the proved lines of one file, in the order of its leaves."""

    def __init__(
        self, result: VerifiedLines, file: SegmentFile, segment: SealedSegment | None, leaves: _AuthenticLeaves
    ) -> None:
        self._result = result
        self._name = file.name
        self._segment = segment
        self._total = segment.lines if segment else 0
        self._leaves = leaves
        self._position = 0
        self._lines = 0
        self._proved = 0

    @property
    def absent(self) -> int:
        """The number of sealed lines that were not found so far."""
        return self._total - self._proved

    def of(self, block: bytes) -> bytes:
        """Return the proved lines of *block*."""
        leaves = leaf_hashes(block)
        count = len(leaves) // HASH_BYTES
        if self._ahead(count) == leaves:
            self._position += count
            self._lines += count
            self._proved += count
            return block

        proved = []
        lines = block.split(b"\n")[:-1]
        for number, line in enumerate(lines):
            begin = number * HASH_BYTES
            leaf = leaves[begin : begin + HASH_BYTES]
            if self._is_proved(leaf, line):
                proved.append(line + b"\n")

        return b"".join(proved)

    def _is_proved(self, leaf: bytes, line: bytes) -> bool:
        self._lines += 1
        is_sealed = self._position < self._total
        skipped = _index_of(leaf, self._ahead(1)) if is_sealed else None
        if is_sealed and skipped is None:
            skipped = _index_of(leaf, self._ahead(_WINDOW))

        if skipped is None:
            self._result.leave_out(line, self._name, self._lines, is_sealed=is_sealed)
            return False

        self._position += skipped + 1
        self._proved += 1
        return True

    def _ahead(self, count: int) -> bytes:
        """Return the next *count* leaves, or those that are left."""
        if self._segment is None:
            return b""
        return b"".join(self._leaves.read(first, number) for first, number in self._ranges(count))

    def _ranges(self, count: int) -> Iterator[tuple[int, int]]:
        position = self._position
        for run in self._segment.runs if self._segment else ():
            if position < run.lines and count:
                taken = min(count, run.lines - position)
                yield run.first + position, taken

                count -= taken
                position += taken
            position -= min(position, run.lines)


def _line_count(segments: Sequence[SealedSegment | None]) -> int:
    return sum(segment.lines for segment in segments if segment is not None)


def _index_of(leaf: bytes, leaves: bytes) -> int | None:
    at = leaves.find(leaf)
    while at >= 0 and at % HASH_BYTES:
        at = leaves.find(leaf, at + 1)
    return None if at < 0 else at // HASH_BYTES


class _AuthenticLeaves:
    """The leaves of a checkpoint, from stored hashes that give its root.

    Raises:
        SealError: The stored hashes above the leaves do not.
    """

    def __init__(self, hashes: HashFiles, checkpoint: Checkpoint) -> None:
        tiles, rest = divmod(checkpoint.size, TILE)
        self._hashes = hashes
        self._roots = hashes.read(1, 0, tiles) if tiles else b""
        self._tail = hashes.read(0, tiles * TILE, rest) if rest else b""
        self._tiles: OrderedDict[int, bytes] = OrderedDict()

        nodes = [*_perfect_nodes(self._roots), *_perfect_nodes(self._tail)]
        if nodes and fold_right(nodes) != checkpoint.root:
            message = "the stored hashes do not give the signed root, so they prove no line: verify the trail"
            raise SealError("BAD_SEAL", message)

    def read(self, first: int, count: int) -> bytes:
        """Return *count* leaves from *first* on."""
        parts = []
        while count:
            number, offset = divmod(first, TILE)
            begin = offset * HASH_BYTES
            end = begin + count * HASH_BYTES
            part = self._tile(number)[begin:end]
            parts.append(part)

            taken = len(part) // HASH_BYTES
            first += taken
            count -= taken

        return b"".join(parts)

    def _tile(self, number: int) -> bytes:
        root = self._roots[number * HASH_BYTES : (number + 1) * HASH_BYTES]
        if not root:
            return self._tail
        tile = self._tiles.get(number)
        if tile is None:
            tile = self._tiles[number] = self._authentic(number, root)

            if len(self._tiles) > _MOST_TILES:
                self._tiles.popitem(last=False)
        return tile

    def _authentic(self, number: int, root: bytes) -> bytes:
        try:
            tile = self._hashes.read(0, number * TILE, TILE)
        except SealError:
            return _UNKNOWN * TILE
        return tile if perfect_root(tile) == root else _UNKNOWN * TILE


def _perfect_nodes(hashes: bytes) -> Iterator[bytes]:
    """Yield the roots of the perfect subtrees above *hashes*, the largest first."""
    at, count = 0, len(hashes) // HASH_BYTES
    for height in range(count.bit_length() - 1, -1, -1):
        if count >> height & 1:
            end = at + (HASH_BYTES << height)
            yield perfect_root(hashes[at:end])
            at = end
