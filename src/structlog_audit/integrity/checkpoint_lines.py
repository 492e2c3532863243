"""Checkpoint lines: checkpoints as lines of the trail itself, so that every shipped copy of it is an anchor.

**Guarantees.** A line is appended in one ``write(2)`` by a writer of its own, whatever other processes write. A file is never
created, and never rolled over: only the application decides that.
"""

from __future__ import annotations

import os
import stat

from structlog_audit.events.codec import encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import TrailPayload
from structlog_audit.integrity.chain_link import ChainedStamp
from structlog_audit.integrity.notes import Checkpoint, Note

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_LINE_BYTES = 32_000


class CheckpointLines:
    """Appends checkpoint lines to the active segment of one trail.

    Args:
        trail: The path of the active segment.
        stamp: The source of ids and links.
    """

    def __init__(self, trail: str, stamp: Stamp | None = None) -> None:
        self._trail = trail
        self._stamp = stamp or ChainedStamp()

    def append(self, note: Note, operation: str = "checkpoint") -> bool:
        """Append the line of the checkpoint *note*; return whether it is in the file as a whole, and for a key on the disk.

        Args:
            note: The checkpoint.
            operation: ``checkpoint``, or ``key`` for one that states a change of the key.
        """
        metadata = {"size": Checkpoint.parse(note.text).size, "note": str(note)}
        payload = TrailPayload(operation, metadata=metadata, status="SUCCESS", kind=Kind.CHECKPOINT.value)
        line = self._stamp.line(encode_payload(payload, _MAX_LINE_BYTES))

        written = 0
        try:
            # The copy of a statement about a key is deleted once its line is there.
            written = self._write(line, is_synced=operation == "key")
        except OSError:
            # The next checkpoint has all that this one has.
            pass
        finally:
            if written < len(line):
                self._stamp.renew()
        return written == len(line)

    def _write(self, line: bytes, *, is_synced: bool) -> int:
        fd = os.open(self._trail, _FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return 0
            written = os.write(fd, line)
            if is_synced:
                os.fsync(fd)
            return written
        finally:
            os.close(fd)
