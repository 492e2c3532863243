"""`AuditFileHandler`: a `logging.Handler` that appends events to the segments of a trail.

It is the only target with all guarantees of this library. `active_segment` writes and rolls over, `pruning` deletes old
segments; this module connects both to `logging` and to the group commit.

**Guarantees.** With ``durability="os"`` the kernel has the line before the call returns, so the line survives the death of
the process. With ``durability="fsync"`` the disk has the line and the name of its file, so the line survives a loss of power.
One fsync serves all lines of a write, so concurrent callers share it. Files are created with mode 0600 and folders with 0700
(PCI DSS 10.3.2); rolled segments get 0400. Only a regular file of this user, root or the folder's owner is written to.

**Without an `AuditHandler` in front.** Event notices of the files are written as trail events after the event that caused them,
so retention works. The first lost event and the first damage to the file are reported on stderr; `check` has the numbers.

**Concurrency.** Every write, rollover and close holds `write_lock`. A signal handler that interrupts a write of its own
thread never touches the descriptor: an event that it logs is written later, and `write` raises a `DeliveryError`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import logging.handlers
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, cast

import msgspec

from structlog_audit._failures import DeliveryError, describe_failure, report_on_stderr
from structlog_audit._timers import call_later, try_call_later
from structlog_audit._validation import require_bool, require_callable, require_choice, require_integer
from structlog_audit.events.event_id import Stamp
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.fork_safety import fork_generation, register_fork_reset
from structlog_audit.recording.formatter import AuditJsonFormatter
from structlog_audit.recording.health_checks import Finding
from structlog_audit.recording.inherited_attributes import FixedAttribute, refuse_overrides, refuse_parameters
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.trail_events import encode_trail_event
from structlog_audit.trail.writing.active_segment import ActiveSegment
from structlog_audit.trail.writing.filesystem import (
    ACCESS_FIX,
    describe_user,
    require_trail_path,
    segments_at,
    unwritable_places,
    writable_by_others,
)
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.pruning import Pruning
from structlog_audit.trail.writing.retention import Retention, make_retention

if TYPE_CHECKING:
    from structlog_audit.integrity.background import BackgroundSealer

Durability = Literal["os", "fsync"]

_DAMAGES = ("replaced", "truncated", "close failed")
"""The operations of notices that may mean the loss of recorded events."""

_NAMES = "segments have fixed names, by which readers find them; compress or move rolled segments with another program"
_BY_ITSELF = "writes roll over by themselves, as maxBytes and the retention require"
_ONE_FILE = "lines are appended to the file without a stream of the standard library"

_OVERRIDES = {
    **dict.fromkeys(("namer", "rotator", "rotate", "rotation_filename"), _NAMES),
    **dict.fromkeys(("doRollover", "shouldRollover"), _BY_ITSELF),
    **dict.fromkeys(("stream", "setStream", "_open", "mode", "delay"), _ONE_FILE),
    **dict.fromkeys(("terminator", "encoding", "errors"), "a line of a trail is UTF-8 with an LF"),
}
"""The members of the standard library's class that a subclass can't override, each with the reason."""


class AuditFileHandler(logging.handlers.RotatingFileHandler):
    """Appends events as JSON lines, and keeps every segment unless a retention is configured.

    Use it as the target of an `AuditHandler`. Attached to a logger directly, it writes the same lines, but has no buffer, no
    pending events and no failure policy: an event that cannot be written is counted, and the first one is reported on stderr.

    Args:
        filename: The path of the active segment. Missing folders are created.
        maxBytes: Size in bytes at which a segment is rolled over; 0 means never, as in the standard library.
        backupCount: Number of rolled segments to keep; 0 keeps all (in the standard library it means "never roll over").
        retention: Further bounds: a `Retention` or a mapping of its attributes, such as ``{"max_age_days": 365}``.
        durability: When an event counts as recorded: once the kernel has it (``"os"``) or the disk (``"fsync"``).
        integrity: Makes the trail tamper-evident: a mapping with ``origin``, the name of the trail, and ``key``, the path of
            a private key or a command that signs, which needs ``verifier_key``; also ``previous_key``, ``witnesses`` and
            ``timestamps``. Without a key, lines are chained, and another program seals them. None: no integrity.
        mode, encoding, errors: Parameters of the standard library, with one possible value each: ``"a"``, UTF-8, None.
        delay: Whether to open the file with the first event, and not now.
        clock: Returns the current time in UTC, for the names of segments and for their age.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it. The
            path of a folder, a symbolic link or a special file is invalid, too, and so is one that this user may not write
            to: the message names the user, the place, its owner and its mode.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        maxBytes: int = 50_000_000,  # noqa: N803 (the name it has in the standard library)
        backupCount: int = 0,  # noqa: N803
        *,
        durability: Durability = "os",
        retention: Retention | Mapping[str, Any] | None = None,
        integrity: Mapping[str, Any] | None = None,
        mode: str = "a",
        encoding: str | None = "utf-8",
        delay: bool = False,
        errors: str | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        **unknown: Never,
    ) -> None:
        """Open the trail. The class documents the parameters."""
        refuse_parameters(AuditFileHandler, unknown, {})
        self._syncs: bool = require_choice("durability", durability, ("os", "fsync")) == "fsync"
        self._backup_count = require_integer("backupCount", backupCount, least=0)
        require_integer("maxBytes", maxBytes, least=0)
        _require_stdlib_values(mode, encoding, delay, errors)
        require_callable("clock", clock, "a function that returns the time in UTC")
        bounds = make_retention(retention, backupCount)

        path = require_trail_path("filename", filename)
        self.write_lock = threading.RLock()
        """Held during each write. The `AuditHandler` in front uses it for its group commit, so a write takes only one lock."""
        self.unwritten = 0
        """The number of events that came from a logger directly and could not be written."""
        self.notices = Notices()
        """Event notices about the files, for the `AuditHandler` to record, or for this handler if there is none."""
        self.has_front = False
        """Whether an `AuditHandler` is in front, which records the notices."""
        self._is_damage_reported = False
        self.stamp_class: type[Stamp] = Stamp
        """The source of ids, timestamps and, with integrity on, links of the lines."""
        self.integrity: BackgroundSealer | None = None
        """The sealer in the background; None without integrity, or if another program seals."""

        self._fork_generation = fork_generation()
        # Lines of records that came from a logger directly and are not written yet.
        self._waiting_lines: deque[bytes] = deque()

        # Open the file first: the base class registers the handler, and ``logging.shutdown`` closes what is registered.
        path = os.path.abspath(path)
        shared: dict[str, Any] = {"syncs": self._syncs, "clock": clock, "notices": self.notices}
        self._pruning = Pruning(path, bounds, **shared)
        try:
            self._active = ActiveSegment(path, maxBytes, pruning=self._pruning, delay=delay, **shared)
        except OSError as error:
            reason = error.strerror or describe_failure(error)
            raise AuditValueError(f"filename={path!r}: expected a path that can be written to: {reason}") from error

        # With `delay` the base class does not open the file: the active segment has done so.
        super().__init__(path, maxBytes=maxBytes, backupCount=backupCount, delay=True, encoding="utf-8")
        self.formatter = AuditJsonFormatter()
        if integrity is not None:
            self._begin_integrity(integrity)

        if bounds.is_bounded:
            self._pruning.announce_due(self._active.size)
        register_fork_reset(self)

    def _begin_integrity(self, value: Mapping[str, Any]) -> None:
        """Chain the lines from now on, and seal them in the background if there is a key."""
        # Imported lazily: only needed with `integrity=`.
        from structlog_audit.integrity.anchors import Anchors
        from structlog_audit.integrity.background import BackgroundSealer
        from structlog_audit.integrity.chain_link import ChainedStamp
        from structlog_audit.integrity.configuration import parse_integrity
        from structlog_audit.integrity.sealed_ranges import SealedRanges

        settings = parse_integrity(value)
        self.stamp_class = ChainedStamp
        cast(AuditJsonFormatter, self.formatter).stamp_class = ChainedStamp
        self._pruning.seal = SealedRanges(self.baseFilename)
        if settings is None or settings.key is None:
            return

        folder = f"{self.baseFilename}.seal"
        anchored_by = {"witnesses": list(settings.witnesses), "timestamps": settings.timestamps}
        anchors = Anchors.from_config(anchored_by, folder, notify=self.notices.add)
        self.integrity = BackgroundSealer(
            self.baseFilename,
            settings.origin or "",
            settings.signers,
            on_damage=self._note_damage,
            anchors=anchors,
        )
        self._active.wake_sealer = self.integrity.wake

    def withhold_seal(self) -> None:
        """Seal nothing from now on, for a trial of a configuration.

        The files of a trial are not the trail: its key must not sign another history under the same origin.
        """
        self._active.wake_sealer = None

    def _note_damage(self, name: str, reason: str) -> None:
        self.notices.add("seal damaged", segment=name, reason=reason)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_overrides(cls, _OVERRIDES)

    namer = FixedAttribute(None, _NAMES)
    rotator = FixedAttribute(None, _NAMES)
    stream = FixedAttribute(None, _ONE_FILE)
    mode = FixedAttribute("a", _ONE_FILE)
    delay = FixedAttribute(True, "the parameter of the constructor decides when the file is opened")
    encoding = FixedAttribute("utf-8", "a line of a trail is UTF-8")
    errors = FixedAttribute(None, "a line of a trail is UTF-8")
    terminator = FixedAttribute("\n", "a line of a trail ends with an LF")

    @property
    def syncs(self) -> bool:
        """Whether a write waits for the disk."""
        return self._syncs

    @property
    def baseFilename(self) -> str:  # noqa: N802
        """The absolute path of the active segment."""
        return self._active.path

    @baseFilename.setter
    def baseFilename(self, path: str) -> None:  # noqa: N802
        if path != self._active.path:
            raise AuditTypeError(f"baseFilename={path!r}: expected {self._active.path!r}: create another handler")

    @property
    def maxBytes(self) -> int:  # noqa: N802
        """Size in bytes at which a segment is rolled over; 0 means never. A new value applies from the next write."""
        return self._active.max_bytes

    @maxBytes.setter
    def maxBytes(self, value: int) -> None:  # noqa: N802
        with self.write_lock:
            self._active.set_max_bytes(require_integer("maxBytes", value, least=0))

    @property
    def retention(self) -> Retention:
        """The bounds of the trail. New ones apply from the next check of the path."""
        return self._pruning.retention

    @retention.setter
    def retention(self, value: Retention | Mapping[str, Any] | None) -> None:
        self._pruning.set_retention(make_retention(value, self._backup_count))

    @property
    def backupCount(self) -> int:  # noqa: N802
        """Number of rolled segments to keep; 0 keeps all. A new value replaces ``max_segments`` of the retention."""
        return self._backup_count

    @backupCount.setter
    def backupCount(self, value: int) -> None:  # noqa: N802
        # The constructor of the base class sets the value that is already in effect.
        if require_integer("backupCount", value, least=0) == self._backup_count:
            return
        self._backup_count = value
        self._pruning.set_retention(msgspec.structs.replace(self.retention, max_segments=value or None))

    @property
    def path(self) -> Path:
        """The path of the active segment."""
        return Path(self.baseFilename)

    @property
    def failed_rollovers(self) -> int:
        """The number of rollovers that failed. The segment stayed in use each time."""
        return self._active.failed_rollovers

    def segments(self) -> list[Path]:
        """Return the paths of the existing segments: rolled ones oldest first, then the active one."""
        return [path for path, _ in segments_at(self.baseFilename)]

    def has_lines(self) -> bool:
        """Return whether any segment contains data."""
        return any(status.st_size for _, status in segments_at(self.baseFilename))

    def last_event_id(self) -> str | None:
        """Return the id of the last event of the trail, of any process, or None if that is unknown."""
        return self._active.last_event_id()

    @property
    def deliver(self) -> Callable[[Sequence[QueueEntry]], None]:
        """The method of the active segment that writes entries. The caller, a group commit, holds `write_lock`.

        A property, so that the group commit calls that method directly.
        """
        return self._active.deliver

    def write(self, data: bytes) -> None:
        """Append *data*, the line or lines of one event, with the configured durability.

        Raises:
            DeliveryError: The event is not recorded. Its cause is the OSError.
        """
        with self.write_lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        entry = QueueEntry(b"", logging.INFO, "", line=data)
        self.deliver((entry,))

    def doRollover(self) -> None:  # noqa: N802
        """Roll over the active segment, unless another process holds a lock on it.

        Does nothing in a signal handler that interrupts a write of its own thread.

        Raises:
            OSError: The rollover failed. The segment stays in use.
        """
        with self.write_lock:
            if self._active.writing:
                return

            # From here on, a signal handler of this thread does not write.
            self._active.writing = True
            try:
                self._active.roll_over()
            finally:
                self._active.writing = False
                self._write_waiting_lines()

    def after_fork(self) -> None:
        """Reset the handler in a forked child: the open file, event notices and waiting lines belong to the parent.

        The `AuditHandler` in front may call this before `fork_safety` does, and uses the new lock from then on. So the
        second call after one fork does nothing.
        """
        if self._fork_generation == fork_generation():
            return
        self._fork_generation = fork_generation()

        self.write_lock = threading.RLock()
        self._waiting_lines.clear()
        self.notices.clear()
        self.notices.counts.clear()
        self._pruning.after_fork()
        self._active.after_fork()
        if self.integrity is not None:
            self.integrity.after_fork()

    def check(self) -> list[Finding]:
        """Return findings about failed writes and rollovers, a full disk ahead, unsafe file modes, and the seal."""
        findings = [*self._counter_findings(), *self._retention_findings(), *self._disk_findings()]
        return [*findings, *self._integrity_findings()]

    def _integrity_findings(self) -> Iterator[Finding]:
        integrity = self.integrity
        if integrity is None:
            return
        if integrity.failure:
            fix = "make the key and the seal folder usable for this process"
            yield Finding("sealing", f"the trail cannot be sealed: {integrity.failure}", fix)
        for name, reason in integrity.damages.items():
            yield Finding("damaged", f"{name}: {reason}", "verify the trail; compare it with a copy")

        # Imported lazily: only needed with integrity.
        from structlog_audit.recording.seal_checks import seal_findings

        now = dt.datetime.now(dt.UTC)
        yield from seal_findings(self.baseFilename, now, signers=integrity.signers, anchors=integrity.anchors)

    def _counter_findings(self) -> Iterator[Finding]:
        active = self._active
        attach = "make it the target of an AuditHandler, and attach that to the logger"

        if active.failed_rollovers:
            message = (
                f"{active.failed_rollovers} rollovers failed ({active.rollover_failure}); the segment stays in use"
            )
            yield Finding("rollover", message, "make the folder writable, on a file system with locks")
        if active.failed_syncs:
            message = f"{active.failed_syncs} fsyncs failed; events were written again"
            yield Finding("fsync", message, "check the disk")
        if self.unwritten:
            yield Finding("unwritten", f"{self.unwritten} events could not be written", attach)
        if self._waiting_lines:
            message = (
                f"{len(self._waiting_lines)} events of a signal handler wait for the next event, flush() or close()"
            )
            yield Finding("waiting", message, attach)
        yield from self._damage_findings()
        if self.notices.dropped:
            yield Finding("unnoticed", f"{self.notices.dropped} trail events were not recorded", attach)

        # A lock that is released soon is not a problem: report it only if the segment exceeds its size by a tenth.
        if active.postponed_rollovers and 0 < self.maxBytes * 1.1 < active.size:
            count = active.postponed_rollovers
            message = f"rollover was postponed {count} times: another process holds a lock on the file"
            yield Finding("postponed", message, "copy the file without locking it")

    def _damage_findings(self) -> Iterator[Finding]:
        counts = self.notices.counts
        for operation in _DAMAGES:
            if counts[operation]:
                message = f"{operation} {counts[operation]} times while in use: recorded events may be gone"
                yield Finding(
                    "damaged", message, "let only this library rename, delete or truncate the files of the trail"
                )

        if counts["descriptor lost"]:
            message = (
                f"other code closed the descriptor of the file {counts['descriptor lost']} times; it was opened again"
            )
            yield Finding("descriptor", message, "do not close descriptors that other code has opened")

    def _retention_findings(self) -> Iterator[Finding]:
        if not self.retention.is_bounded:
            fix = 'set retention={"max_age_days": …} or backupCount, or delete old segments by other means'
            yield Finding("unbounded", "the trail grows without bound", fix)

    def _disk_findings(self) -> Iterator[Finding]:
        for place, mode in writable_by_others(self.baseFilename):
            message = f"{place} can be changed by users other than its owner (mode {mode:04o})"
            yield Finding("permissions", message, f"chmod go-w {place}")
        for refusal in unwritable_places(self.baseFilename):
            yield Finding("access", f"{refusal}: events or rollovers may fail", ACCESS_FIX)

        folder = self.path.parent
        with contextlib.suppress(OSError):
            owner = folder.stat().st_uid
            if owner not in (os.geteuid(), 0):
                message = f"{folder} belongs to user {describe_user(owner)}, who can replace the files of the trail"
                yield Finding("permissions", message, "change the owner of the folder, or run as that user")

        try:
            disk = os.statvfs(folder)
        except FileNotFoundError:
            yield Finding("folder", f"{folder} does not exist", "do not delete it; the next event creates it again")
            return

        free_bytes = disk.f_bavail * disk.f_frsize
        twentieth = disk.f_blocks * disk.f_frsize // 20
        if free_bytes < max(twentieth, 2 * self.maxBytes):
            message = f"only {free_bytes // 1_000_000} MB are free on the disk of the trail"
            yield Finding("disk", message, "free disk space, or set a bound for the trail")

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, which comes from a logger directly and not from an `AuditHandler`."""
        line = self.format(record).encode() + b"\n"
        self._waiting_lines.append(line)
        with self.write_lock:
            self._write_waiting_lines()
            if self.notices and not self.has_front:
                self._report_damage()
                self._record_notices()

    def _write_waiting_lines(self) -> None:
        """Write the waiting lines, unless this call interrupts a write or rollover of its own thread.

        Then the interrupted `emit` or `doRollover` writes them; after an interrupted write of a group commit, the next `emit`,
        `flush` or `close`.
        """
        while self._waiting_lines and not self._active.writing:
            line = self._waiting_lines.popleft()
            try:
                self._write(line)
            except DeliveryError as error:
                self.unwritten += 1
                if self.unwritten == 1:
                    cause = describe_failure(error.__cause__)
                    report_on_stderr(f"{self.baseFilename} can't be written ({cause}); events are lost")

    def _report_damage(self) -> None:
        """Report the first damage to the file on stderr, for a handler without an `AuditHandler` in front."""
        counts = self.notices.counts
        found = [operation for operation in _DAMAGES if counts[operation]]
        if found and not self._is_damage_reported:
            self._is_damage_reported = True
            report_on_stderr(f"{self.baseFilename}: {found[0]} while in use; recorded events may be gone")

    def _record_notices(self) -> None:
        """Write the present event notices as trail events.

        For a handler without an `AuditHandler` in front. The writes may add further notices, which are left to the next event.
        """
        for _ in range(len(self.notices)):
            # A signal handler that interrupts a write of its own thread leaves the rest to the next event.
            if not self.notices or self._active.writing:
                return

            notice = self.notices.popleft()
            operation, metadata, on_recorded = notice
            is_recorded = self._write_trail_event(operation, metadata)
            if on_recorded is None:
                if not is_recorded:
                    self.notices.appendleft(notice)
                    return
            else:
                work = partial(on_recorded, is_recorded)
                if not try_call_later(call_later, 0.0, work):
                    work()

    def _write_trail_event(self, operation: str, metadata: dict[str, Any]) -> bool:
        """Write a trail event, and return whether it is recorded."""
        formatter = cast(AuditJsonFormatter, self.formatter)
        try:
            self._write(formatter.stamped(encode_trail_event(operation, metadata)))
        except DeliveryError:
            # The event gets another id with the next attempt.
            formatter.renew()
            return False
        return True

    def check_path(self) -> None:
        """Check before a close whether the path still refers to the open file; if not, add an event notice.

        Events of the last 50 ms may be in a file that was removed. Does nothing in a signal handler that interrupts a write
        of its own thread.
        """
        with self.write_lock:
            if self._active.writing:
                return
            try:
                self._active.check_before_close()
            except OSError as error:
                self.notices.add("check failed", error=describe_failure(error))

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        """Set the formatter, which must be an `AuditJsonFormatter` without options: a trail has one format.

        Raises:
            AuditTypeError: *fmt* is another formatter, or changes the lines.
        """
        if type(fmt) is not AuditJsonFormatter or fmt.changes_lines:
            raise AuditTypeError(
                f"formatter={fmt!r}: expected an AuditJsonFormatter without options, because a trail has one format; "
                f"set the formatter on another handler"
            )
        fmt.stamp_class = self.stamp_class
        self.formatter = fmt

    def close(self) -> None:
        """Close the file. The next event opens it again, because ``dictConfig`` closes handlers that are still in use.

        Checks the path first, so that a file that was removed is reported. In a signal handler that interrupts a write of its
        own thread, the file stays open.
        """
        with self.write_lock:
            self._write_waiting_lines()
            self.check_path()
            # A file that was removed is not created again for its trail event, unless another event follows.
            if not self.has_front:
                self._report_damage()
                if self._active.fd >= 0:
                    self._record_notices()
            if not self._active.writing:
                self._active.release()

        # Without the lock: the sealer waits for the disk.
        if self.integrity is not None:
            self.integrity.close()
        logging.Handler.close(self)

    def flush(self) -> None:
        """Write the lines of a signal handler that interrupted a write; others are never held back."""
        if self._waiting_lines:
            with self.write_lock:
                self._write_waiting_lines()

    def setStream(self, stream: Any) -> Any:  # noqa: N802
        """Refuse another stream: lines are appended to the file.

        Raises:
            AuditTypeError: *stream* is not None.
        """
        self.stream = stream

    def rotation_filename(self, default_name: str) -> str:
        """Return *default_name*: the names of segments are fixed."""
        return default_name

    def rotate(self, source: str, dest: str) -> None:
        """Refuse to rename *source*: `doRollover` rolls over.

        Raises:
            AuditTypeError: Always.
        """
        raise AuditTypeError(f"rotate({source!r}, {dest!r}): expected no call: use doRollover()")

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """Return 1 if the active segment has reached ``maxBytes``, otherwise 0.

        For callers of the standard library's interface: writes do not use it, and roll over without a call from outside.
        """
        return int(0 < self.maxBytes <= self._active.size)


def _require_stdlib_values(mode: Any, encoding: Any, delay: Any, errors: Any) -> None:
    """Raise an error if a parameter of the standard library has a value that a trail does not support."""
    require_choice("mode", mode, ("a",))
    require_bool("delay", delay)

    # The names of an encoding differ in case, hyphens and underscores.
    name = str(encoding).lower().replace("_", "-")
    if encoding is not None and name not in ("utf-8", "utf8"):
        raise AuditValueError(f"encoding={encoding!r}: expected 'utf-8', because a trail has one format")
    if errors not in (None, "strict"):
        raise AuditValueError(f"errors={errors!r}: expected None, because every event can be encoded")
