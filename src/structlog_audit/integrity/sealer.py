"""The sealer of a trail: makes every line a leaf of the tree, and signs checkpoints.

**Guarantees.** Each byte sequence of the files that ends in LF is a leaf, in the order of the files. What a checkpoint covers
is on the disk before it: segment, stored hashes, ``segments``, ``checkpoint``. No sealed line is read again.

**Failure handling.** After any error, the state in memory is given up, and the next pass restores it from the seal folder: an
error and a crash have the same effect. A segment that is shorter than sealed, or whose last sealed line was changed, is
reported, and the existing lines are sealed as another segment, so everything after it stays verifiable.

**Concurrency.** The caller has the lock of the seal folder. Writers append and roll over meanwhile.

**Performance.** A pass without a change takes two system calls. It yields the GIL after each block of about 400 lines, and
ends after `MOST_LINES`.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.merkle import leaf_hash
from structlog_audit.integrity.notes import Checkpoint, Note, Policy, Signer, sign_note
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.sealed_state import PACKED_MAGIC, Inode, KnownSegment, SealedState, damage_of, restore
from structlog_audit.integrity.standalone.verify_trail import (
    KEY_BEGINS,
    KEY_ENDS,
    MAX_LINE_BYTES,
    NoTrailError,
    SealError,
    SegmentFile,
    SegmentReader,
    VanishedError,
    find_files,
)
from structlog_audit.trail.writing.filesystem import sync_folder

CLOSE_SECONDS = 1.0
"""Seconds after a rollover when the rolled segment is read once more: until then, other processes may append to it."""

MOST_LINES = 100_000
"""The number of lines from which on a pass ends, and leaves the rest to the next one."""

_MOST_LISTINGS = 5
_BLOCK_BYTES = 65_536
_YIELD_SECONDS = 0.00005

_Place = tuple[SegmentFile, KnownSegment | None]
"""A file, and the segment in it of which lines are sealed."""


class Sealer:
    """Seals one trail.

    Args:
        folder: The seal folder, whose lock the caller has during each pass.
        trail: The path of the active segment.
        origin: The name of the trail in checkpoints.
        signers: The keys: one, or during a rotation the new one and the old one.
        on_damage: Called with the name of a damaged segment and the damage.
        on_key_change: Called with a checkpoint whose extension lines state which key begins or ends with it; returns whether it
            is in the trail.
        monotonic: Returns seconds.
        sleep: Waits for seconds, and so yields the GIL.
    """

    def __init__(
        self,
        folder: SealFolder,
        trail: str,
        origin: str,
        signers: Sequence[Signer],
        *,
        on_damage: Callable[[str, str], None] = lambda name, reason: None,
        on_key_change: Callable[[Note], bool] = lambda note: True,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._trail = trail
        self._origin = origin
        self._signers = tuple(signers)
        self._policy = Policy(tuple(signer.key for signer in signers))
        self._on_damage = on_damage
        self._on_key_change = on_key_change
        self._monotonic = monotonic
        self._sleep = sleep
        self.forget()

    def forget(self) -> None:
        """Give up the state in memory. The next pass restores it from the seal folder."""
        self.checkpoint: Note | None = None
        """The newest checkpoint."""
        self.key_changes: list[Note] = []
        """The statements about changes of the keys that could not be appended to the trail yet."""
        self._state: SealedState | None = None
        self._places: list[_Place] = []
        self._seen_active: tuple[Inode, int] | None = None
        self._seen_folder = -1
        self._scan_at = -math.inf
        self._lines_left = 0

    @property
    def size(self) -> int:
        """The number of sealed lines."""
        return self._state.tree.size if self._state is not None else 0

    def rescan(self) -> None:
        """Let the next pass read the end of every file, also of those that were rolled over less than a second ago."""
        self._scan_at = -math.inf

    def is_behind(self) -> bool:
        """Return whether one of the two newest files has another size than the lines that are sealed of it."""
        for file, segment in self._places[-2:]:
            known = _inode_and_size(file.path)
            if segment is not None and known is not None and known[1] != segment.size:
                return True
        return False

    def seal(self) -> bool:
        """Seal the lines that are not sealed yet; return whether there are more.

        Raises:
            AuditSealError: The seal cannot be used, a segment cannot be read, or a key cannot sign.
            OSError: A system call failed.
        """
        try:
            with raising(AuditSealError):
                return self._seal()
        except BaseException:
            self.forget()
            raise

    def _seal(self) -> bool:
        if self._state is None:
            self._state = self._restored()
            self.checkpoint = self._folder.read_checkpoint()
            self._read_key_changes()
        state = self._state

        # The line with the statement is sealed by the keys that it states.
        if self.key_changes:
            self._state_key_changes()

        first = self._first_changed(state)
        self._lines_left = MOST_LINES
        self._add_places(state, first)
        if state.is_changed or self.checkpoint is None:
            self._write(state)

        has_more = self._lines_left <= 0
        if has_more:
            self.rescan()
        return has_more

    def _restored(self) -> SealedState:
        for _ in range(_MOST_LISTINGS - 1):
            # Retention or a compression may take files away meanwhile: list those that are left.
            with suppress(VanishedError):
                return restore(self._folder, self._policy, _list_files(self._trail))
        return restore(self._folder, self._policy, _list_files(self._trail))

    def _read_key_changes(self) -> None:
        """Read the statements that are not in the trail yet, and add one if the keys differ from those of the checkpoint.

        They are on the disk before a checkpoint by other keys, which no longer shows the change.
        """
        self.key_changes = self._folder.read_key_changes(self._origin)
        change = self._find_key_change()

        if change is not None and change not in self.key_changes:
            self.key_changes.append(change)
            self._folder.write_key_changes(self.key_changes)

    def _state_key_changes(self) -> None:
        """Append the statements to the trail. After a crash in between, they are there twice, which states the same."""
        while self.key_changes:
            if not self._on_key_change(self.key_changes[0]):
                return
            del self.key_changes[0]

        self._folder.write_key_changes([])

    def _find_key_change(self) -> Note | None:
        """Return the newest checkpoint with a statement of how its keys differ from those now; None if they do not.

        The first signature of a checkpoint is by the newest key. A process that has only the old key during a rotation changes
        nothing.
        """
        if self.checkpoint is None:
            return None
        keys = [signer.key for signer in self._signers]
        ours = [(key.name, key.key_id) for key in keys]

        signed = [signature[:2] for signature in self.checkpoint.signatures if signature.name == self._origin]

        statements = []
        if ours[0] not in signed:
            statements.append(f"{KEY_BEGINS}{keys[0]}")
        elif ours[0] == signed[0]:
            ended = [identity for identity in signed if identity not in ours]
            statements += [f"{KEY_ENDS}{name}+{key_id.hex()}" for name, key_id in ended]
        if not statements:
            return None

        unsigned = Checkpoint.parse(self.checkpoint.text)._replace(extensions=tuple(statements))
        return sign_note(str(unsigned), self._signers)

    # The changes since the last pass.

    def _first_changed(self, state: SealedState) -> int:
        """Update the places, and return the index of the first that may have new lines."""
        active = _inode_and_size(self._trail)
        folder = os.stat(os.path.dirname(self._trail)).st_mtime_ns
        previous, self._seen_active = self._seen_active, active
        is_same_file = active is not None and previous is not None and active[0] == previous[0]

        now = self._monotonic()
        newest = self._places[-1] if self._places else None
        is_newest = active is not None and newest is not None and newest[0].inode == active[0]
        is_listed = is_same_file and is_newest and folder == self._seen_folder

        if not is_listed or now >= self._scan_at:
            # A segment that was rolled over may get late lines for a while.
            if not is_same_file:
                self._scan_at = now + CLOSE_SECONDS
            elif now >= self._scan_at:
                self._scan_at = math.inf

            self._seen_folder = folder
            self._places = self._scan(state)
            return 0

        if active == previous or active is None or newest is None:
            return len(self._places)

        file, segment = newest
        self._places[-1] = file._replace(size=active[1]), segment
        return len(self._places) - 1

    def _scan(self, state: SealedState) -> list[_Place]:
        """List the files, and find the segment of each."""
        finder = _SegmentFinder(state, os.path.basename(self._trail))
        files = _list_files(self._trail)
        found = [finder.find(file) for file in files]

        # Other programs' rotation renames all files: only the first line tells which is which.
        for place, file in enumerate(files):
            if found[place] is None:
                found[place] = finder.find_by_first_line(file)
        state.join_gone({segment.number for segment in found if segment is not None})
        return list(zip(files, found, strict=True))

    # New lines become leaves.

    def _add_places(self, state: SealedState, first: int) -> None:
        places = self._places
        sealed = [place for place, (_, segment) in enumerate(places) if segment is not None]
        last_sealed = max(sealed, default=-1)

        for place in range(first, len(places)):
            file, segment = places[place]
            # A file between sealed ones is foreign: a rollover never makes one.
            if self._lines_left <= 0 or (segment is None and place < last_sealed):
                continue
            with suppress(VanishedError):
                places[place] = file, self._add_file(state, file, segment, is_newest=place >= last_sealed)

    def _add_file(
        self, state: SealedState, file: SegmentFile, segment: KnownSegment | None, *, is_newest: bool
    ) -> KnownSegment | None:
        """Add the new lines of *file*, and return the segment that it has now."""
        known = _inode_and_size(file.path) if file.inode is None else (file.inode, file.size or 0)
        if segment is not None and known is not None and known[1] == segment.size:
            return segment
        if segment is not None and known is None and segment.number < state.segments[-1].number - 1:
            # It was compressed long after its last line was sealed.
            return segment

        with file.open() as opened:
            if opened.read(4).startswith(PACKED_MAGIC):
                return self._add_packed(state, file, segment, opened)
            return self._add_plain(state, file, segment, opened, is_newest=is_newest)

    def _add_plain(
        self,
        state: SealedState,
        file: SegmentFile,
        segment: KnownSegment | None,
        opened: BinaryIO,
        *,
        is_newest: bool,
    ) -> KnownSegment | None:
        fd = opened.fileno()
        status = os.fstat(fd)
        damage = "" if segment is None else damage_of(fd, status.st_size, segment)
        if segment is not None and damage:
            self._on_damage(file.name, damage)
            segment.is_damaged = True
            if not is_newest:
                return None
            segment = None

        # First the disk, then the hashes. Lines that are written meanwhile are left to the next pass.
        os.fsync(fd)
        inode = status.st_dev, status.st_ino
        begin = 0 if segment is None else segment.size
        blocks = _blocks(fd, begin, status.st_size, file.name)
        return self._add_blocks(state, file.name, inode, segment, blocks)

    def _add_packed(
        self, state: SealedState, file: SegmentFile, segment: KnownSegment | None, opened: BinaryIO
    ) -> KnownSegment | None:
        os.fsync(opened.fileno())
        blocks = _skip(SegmentReader(file).blocks(), 0 if segment is None else segment.size)
        return self._add_blocks(state, file.name, None, segment, blocks)

    def _add_blocks(
        self,
        state: SealedState,
        name: str,
        inode: Inode | None,
        segment: KnownSegment | None,
        blocks: Iterator[bytes],
    ) -> KnownSegment | None:
        for block in blocks:
            if segment is None:
                segment = state.add_segment(name, inode)
                # An fsync of a file does not cover its name.
                sync_folder(os.path.dirname(self._trail))
            self._lines_left -= state.add_lines(segment, block)
            if self._lines_left <= 0:
                break
            self._sleep(_YIELD_SECONDS)
        return segment

    def _write(self, state: SealedState) -> None:
        """Write the additions to the seal folder, and sign them."""
        tree = state.tree
        self._folder.add_hashes(tree.take_stored(), tree.size)
        self._folder.replace("segments", state.to_text())

        checkpoint = self.checkpoint
        if checkpoint is None or Checkpoint.parse(checkpoint.text).size != tree.size:
            unsigned = Checkpoint(self._origin, tree.size, tree.root())
            note = sign_note(str(unsigned), self._signers)
            self._folder.replace("checkpoint", str(note).encode())
            self.checkpoint = note

        self._folder.sync()


def _list_files(trail: str) -> list[SegmentFile]:
    try:
        return find_files(trail)
    except NoTrailError:
        # The application has not recorded anything yet.
        return []


def _inode_and_size(path: str) -> tuple[Inode, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino), status.st_size


_ROLLED_NAME = re.compile(r".*\.\d{8}T\d{6}\.\d{6}Z", re.ASCII | re.DOTALL)
"""A name that is never used again."""


class _SegmentFinder:
    """Finds the segments of files, and notes where they are.

    Args:
        state: The sealed lines so far.
        base: The name of the active segment.
    """

    def __init__(self, state: SealedState, base: str) -> None:
        segments = [segment for segment in state.segments if not segment.is_damaged]
        self._state = state
        self._base = base
        self._by_inode = {segment.inode: segment for segment in segments if segment.inode is not None}
        self._by_name = {segment.name: segment for segment in segments if _ROLLED_NAME.fullmatch(segment.name)}
        self._left = {segment.number: segment for segment in segments}

    def find(self, file: SegmentFile) -> KnownSegment | None:
        """Return the segment in *file*: of the same inode, if it had the name or was active, or of the same name.

        The inode of a deleted file is used again.
        """
        inode = _inode_of(file)
        segment = None if inode is None else self._by_inode.get(inode)
        if segment is None or segment.name not in (file.name, self._base):
            segment = self._by_name.get(file.name)
        return self._take(segment, file, inode)

    def find_by_first_line(self, file: SegmentFile) -> KnownSegment | None:
        """Return the segment that begins with the first line of *file*."""
        leaf = _first_leaf(file) if self._left else None
        found = [segment for segment in self._left.values() if leaf is not None and segment.first_leaf == leaf]
        return self._take(found[-1] if found else None, file, _inode_of(file))

    def _take(self, segment: KnownSegment | None, file: SegmentFile, inode: Inode | None) -> KnownSegment | None:
        if segment is None or self._left.pop(segment.number, None) is None:
            return None
        self._state.rename(segment, file.name)
        segment.inode = inode
        return segment


def _inode_of(file: SegmentFile) -> Inode | None:
    if file.inode is not None:
        return file.inode
    found = _inode_and_size(file.path)
    return None if found is None else found[0]


def _first_leaf(file: SegmentFile) -> bytes | None:
    with suppress(VanishedError):
        for block in SegmentReader(file).blocks():
            return leaf_hash(block[: block.find(b"\n")])
    return None


def _blocks(fd: int, begin: int, end: int, name: str) -> Iterator[bytes]:
    """Yield blocks of whole lines of an open file, each with its LF."""
    length = _BLOCK_BYTES
    while begin < end:
        data = os.pread(fd, min(length, end - begin), begin)
        whole = data.rfind(b"\n") + 1
        if whole:
            yield data[:whole]
            begin += whole
            length = _BLOCK_BYTES
        elif len(data) < length:
            # The last line has no end yet.
            return
        else:
            length *= 2
            if length > MAX_LINE_BYTES:
                raise SealError("UNREADABLE", f"{name} has a line of more than {MAX_LINE_BYTES} bytes")


def _skip(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield *blocks* without their first *size* bytes."""
    for block in blocks:
        rest = block[size:]
        size = max(0, size - len(block))
        if rest:
            yield rest
