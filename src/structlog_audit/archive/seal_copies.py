"""Copies of the seals of trails: the files of each seal folder that an archive keeps.

``_seals/TRAIL/ID.json`` lists one copy: the stored hashes in blocks of `BLOCK_HASHES`, and all other files with their content.
Full blocks are shared with later copies. A commit names the newest copy of its trail.

**Guarantees.** A copy is committed only if its hashes give the root of its checkpoint, and if it continues the copy before it.
Of several compactors, the one with the newest checkpoint prevails. Signatures are not verified: a compactor needs no key.

**Failure handling.** A seal that cannot be read or copied raises `SealError`, and the copy before it stays.

**Performance.** A copy writes the blocks that have changed, and computes one hash for each new line.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from contextlib import suppress
from urllib.parse import quote

import msgspec

from structlog_audit.archive.actions import SealCopy
from structlog_audit.archive.storage import Storage
from structlog_audit.exceptions import AuditReadError
from structlog_audit.integrity.standalone.verify_trail import (
    HASH_BYTES,
    TILE,
    Checkpoint,
    HashFiles,
    SealError,
    check_tiles,
    open_file,
    range_root,
    read_checkpoint,
)

SEALS_FOLDER = "_seals"
BLOCK_HASHES = 65_536
"""The number of stored hashes in one file."""

CHECKPOINT, SEGMENTS = "checkpoint", "segments"
CHANGED = (
    "the copy of a seal is not the one of which the log of the archive has the digest: copy this file again from where the "
    "archive was copied, or compact the trail again"
)
_MOST_FILE_BYTES = 1 << 28
_MOST_NOTES = 256


class CopiedSeal(msgspec.Struct, frozen=True):
    """The files of one copy.

    Attributes:
        files: The content of each file but the stored hashes.
        hashes: The paths of the blocks of each level.
        block_hashes: The number of hashes in each block but the last of a level.
        earlier: Checkpoints of copies before, from which a restored trail gets one that covers archived lines only.
    """

    files: dict[str, bytes]
    hashes: list[list[str]]
    block_hashes: int
    earlier: list[bytes] = []

    @property
    def size(self) -> int:
        """The number of lines that the checkpoint covers; 0 without files.

        Raises:
            SealError: The checkpoint is none.
        """
        return head_of(self.files.get(CHECKPOINT, b"")).size if self.files else 0

    def encode(self) -> bytes:
        """Return the content of the list."""
        return msgspec.json.encode(self)

    def is_as_stated(self, copy: SealCopy) -> bool:
        """Return whether these are the files of which the log of the archive has the digest."""
        return hashlib.sha256(self.encode()).hexdigest() == copy.sha256


_decode = msgspec.json.Decoder(CopiedSeal).decode


def head_of(note: bytes) -> Checkpoint:
    """Return the checkpoint in *note*, not verified.

    Raises:
        SealError: It has none.
    """
    text = note.decode("utf-8", "replace")
    return Checkpoint.parse(text.partition("\n\n")[0] + "\n")


def read_copy(storage: Storage, copy: SealCopy, *, is_strict: bool = True) -> CopiedSeal:
    """Return the files of *copy*.

    Args:
        storage: The files of the archive.
        copy: The copy, as the log of the archive states it.
        is_strict: Whether another digest than that in the log is an error.

    Raises:
        AuditReadError: The list is missing or damaged.
    """
    where = storage.location(copy.path)
    try:
        copied = _decode(storage.read(copy.path))
    except (OSError, msgspec.MsgspecError) as error:
        raise AuditReadError(f"{where}: the copy of a seal cannot be read: {error}") from error

    if is_strict and not copied.is_as_stated(copy):
        raise AuditReadError(f"{where}: {CHANGED}")
    return copied


def files_of(storage: Storage, copy: SealCopy) -> set[str]:
    """Return the paths of all files of *copy* in the archive."""
    paths = {copy.path}
    for blocks in read_copy(storage, copy).hashes:
        paths.update(blocks)

    return paths


class SealCopier:
    """Copies one seal folder into an archive.

    Args:
        storage: The files of the archive.
        trail: The trail, ``host:path``.
        path: The path of its active segment.
        previous: The copy in the archive, or None.
        archived: The number of lines of the trail in the archive.

    Attributes:
        written: The paths of the files that were written.
    """

    def __init__(self, storage: Storage, trail: str, path: str, previous: SealCopy | None, archived: int) -> None:
        self.written: list[str] = []
        self._storage = storage
        self._trail = trail
        self._folder = f"{path}.seal"
        self._previous = previous
        self._archived = archived
        self._hashes = HashFiles(self._folder)

    def copy(self) -> SealCopy | None:
        """Write a copy; return it, or None if there is no seal, or nothing new in it.

        Raises:
            SealError: The seal cannot be read, its hashes do not give its root, or it does not continue the copy.
            AuditError, OSError: The archive cannot be read or written.
        """
        with self._hashes:
            files = self._read_files()
            previous = self._read_previous()
            if files is None or files == previous.files:
                return None

            checkpoint = head_of(files[CHECKPOINT])
            size = checkpoint.size
            if self._previous is not None and not self.continues(self._previous, size):
                raise SealError(
                    "FORKED", "it does not continue the copy in the archive, which stays: verify trail and archive"
                )

            if not has_root(self._folder, checkpoint, known=previous.size):
                raise SealError(
                    "BAD_SEAL", "its stored hashes do not give the root of its checkpoint: verify the trail"
                )

            blocks = self._write_blocks(previous, size)

        earlier = _thinned(previous, self._archived)
        copied = CopiedSeal(files, blocks, BLOCK_HASHES, earlier)
        path = self._new_path("", "json")
        data = copied.encode()
        self._write(path, data)

        root = base64.b64encode(checkpoint.root).decode()
        digest = hashlib.sha256(data).hexdigest()
        return SealCopy(trail=self._trail, size=size, root=root, path=path, sha256=digest)

    def _read_previous(self) -> CopiedSeal:
        """Return the copy before; an empty one if there is none, or if it is damaged: then everything is copied again."""
        if self._previous is not None:
            with suppress(AuditReadError, SealError):
                previous = read_copy(self._storage, self._previous)
                # Its blocks are used only if they have the present size, and its checkpoint only if it is one.
                if previous.size and previous.block_hashes == BLOCK_HASHES:
                    return previous

        return CopiedSeal({}, [], BLOCK_HASHES)

    def continues(self, other: SealCopy, size: int) -> bool:
        """Return whether the first lines of this seal, which has *size*, are those of *other*."""
        with suppress(SealError):
            return other.size <= size and self._root(other.size) == other.root
        return False

    def discard(self) -> None:
        """Delete everything that was written."""
        for path in self.written:
            self._storage.delete(path)

    def _read_files(self) -> dict[str, bytes] | None:
        """Return the content of all files but the hashes; None without a seal.

        What belongs to older checkpoints is read before the newest one, and the segments that it covers after it.
        """
        try:
            note = read_checkpoint(self._folder)
        except SealError as error:
            if error.code == "NO_SEAL":
                return None
            raise

        files = {}
        try:
            names = set(os.listdir(self._folder))
            for name in sorted(names - {CHECKPOINT, SEGMENTS}):
                if not name.startswith("hashes.") and not name.endswith(".new"):
                    files[name] = self._read(name)

            note = read_checkpoint(self._folder)
            files[CHECKPOINT] = str(note).encode()

            if SEGMENTS in names:
                files[SEGMENTS] = self._read(SEGMENTS)
        except OSError as error:
            raise SealError("UNREADABLE", str(error)) from error

        return files

    def _read(self, name: str) -> bytes:
        with open_file(os.path.join(self._folder, name)) as file:
            return file.read(_MOST_FILE_BYTES)

    def _root(self, size: int) -> str:
        return base64.b64encode(range_root(self._hashes.read, 0, size)).decode()

    def _write_blocks(self, previous: CopiedSeal, size: int) -> list[list[str]]:
        """Write the stored hashes of *size* lines, but for the full blocks of *previous*; return the paths of all blocks."""
        blocks = []
        level = 0

        while count := size // TILE**level:
            full = previous.size // TILE**level // BLOCK_HASHES
            paths = previous.hashes[level][:full] if full else []

            for start in range(full * BLOCK_HASHES, count, BLOCK_HASHES):
                length = min(BLOCK_HASHES, count - start)
                path = self._new_path(f"hashes.{level}/{start}-", "bin")
                self._write(path, self._hashes.read(level, start, length))
                paths.append(path)

            blocks.append(paths)
            level += 1

        return blocks

    def _new_path(self, name: str, suffix: str) -> str:
        folder = quote(self._trail, safe="")
        unique = secrets.token_hex(6)
        return f"{SEALS_FOLDER}/{folder}/{name}{unique}.{suffix}"

    def _write(self, path: str, data: bytes) -> None:
        self.written.append(path)
        self._storage.create(path, data)


def has_root(folder: str, checkpoint: Checkpoint, *, known: int = 0) -> bool:
    """Return whether all stored hashes of a seal folder give the root of its checkpoint.

    Args:
        folder: The seal folder.
        checkpoint: The checkpoint.
        known: The number of leaves whose hashes were checked before.
    """
    with HashFiles(folder) as hashes, suppress(SealError):
        if range_root(hashes.read, 0, checkpoint.size) != checkpoint.root:
            return False

        # The root is made from the highest hashes, so those below them are checked tile by tile.
        level = 0
        while end := checkpoint.size // TILE ** (level + 1):
            if check_tiles(folder, level, known // TILE ** (level + 1), end):
                return False
            level += 1

        return True

    return False


def _thinned(copied: CopiedSeal, archived: int) -> list[bytes]:
    """Return the earlier checkpoints of the copy after *copied*.

    Of those that cover only the *archived* lines, the newest is enough.
    """
    if not copied.files:
        return []

    notes = [*copied.earlier, copied.files[CHECKPOINT]]
    covering = [note for note in notes if head_of(note).size <= archived]
    later = notes[len(covering) :]

    if len(later) > _MOST_NOTES:
        del later[:-1:2]

    return covering[-1:] + later


def write_seal(storage: Storage, copied: CopiedSeal, folder: str, *, size: int, is_strict: bool) -> None:
    """Write the seal folder of a copy, with the hashes of the first *size* lines.

    Args:
        storage: The files of the archive.
        copied: The copy.
        folder: The folder, which exists and is empty.
        size: The number of lines, at most that of the checkpoint.
        is_strict: Whether lost hashes are an error; otherwise they are a hole.

    Raises:
        AuditReadError: Hashes are lost.
        OSError: The folder cannot be written.
    """
    for name, data in copied.files.items():
        # The names come from the archive: they must not lead elsewhere.
        if os.path.basename(name) == name and name not in ("", ".", ".."):
            write_file(os.path.join(folder, name), data)

    for level, paths in enumerate(copied.hashes):
        count = size // TILE**level
        with open(os.path.join(folder, f"hashes.{level}"), "wb") as file:
            for number, path in enumerate(paths):
                left = max(0, count - number * copied.block_hashes)
                expected = min(copied.block_hashes, left) * HASH_BYTES

                # Lost hashes are a hole: the others keep their places.
                data = _read_block(storage, path, is_strict=is_strict)
                file.write(data[:expected].ljust(expected, b"\0"))

            file.flush()
            os.fsync(file.fileno())


def _read_block(storage: Storage, path: str, *, is_strict: bool) -> bytes:
    try:
        return storage.read(path)
    except (AuditReadError, OSError) as error:
        if is_strict:
            raise AuditReadError(f"{storage.location(path)}: the copy of a seal cannot be read: {error}") from error
        return b""


def write_file(path: str, data: bytes) -> None:
    """Write *data* to the file at *path*, and sync it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
