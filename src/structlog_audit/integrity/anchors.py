"""Anchors of a trail: its checkpoints in the hands of others, so that a roll-back or a rewritten history shows.

=======================  ==============================================================================================
logger of checkpoints    each checkpoint is a record of `CHECKPOINTS_LOGGER`, for the handlers attached to this logger
witnesses                their cosignatures are in the file ``cosigned`` of the seal folder (C2SP tlog-witness)
time stamps              ``stamped`` is a checkpoint, ``stamped.tsr`` its time stamp (RFC 3161)
=======================  ==============================================================================================

**Guarantees.** Nothing here raises to the caller or makes it wait, except `Anchors.close`, for its time. What an anchor has,
and why it failed, is in the file ``anchors`` of the seal folder. A refused checkpoint is reported on stderr and to *notify*.

**Concurrency.** One daemon thread submits the newest checkpoint; older ones are left out. A forked child starts with nothing.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.integrity.merkle import HashFiles, consistency_proof
from structlog_audit.integrity.notes import Checkpoint, Note, parse_checkpoint, parse_note
from structlog_audit.integrity.standalone.verify_trail import (
    SealError,
    VanishedError,
    notes_in,
    open_file,
    read_checkpoint,
)
from structlog_audit.integrity.submission import Post, RefusedError, SubmissionError, post
from structlog_audit.integrity.timestamps import TimestampAuthority
from structlog_audit.integrity.witness import Proofs, Witness

CHECKPOINTS_LOGGER = "structlog_audit.checkpoints"
"""The logger of checkpoints."""

WITNESS_SECONDS = 10.0
"""The time between two checkpoints for the witnesses."""

TIMESTAMP_SECONDS = 60.0
"""The time between two time stamps."""

REQUEST_SECONDS = 10.0
"""The time for one request."""

LONGEST_BACKOFF_SECONDS = 300.0

STATE_FILE = "anchors"
COSIGNED_FILE = "cosigned"
STAMPED_FILE = "stamped"

_MEMBERS = {"witnesses", "timestamps"}
_MAX_STATE_BYTES = 1_000_000
_LOG = "log"

# A pipe in place of a file would block.
_REPLACE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_logger = logging.getLogger(CHECKPOINTS_LOGGER)


class AnchorState(msgspec.Struct):
    """The state of one anchor.

    Attributes:
        size: The number of lines of the newest checkpoint that it has.
        time: When it got that, in seconds since 1970.
        failures: The number of failed submissions.
        error: Why the last submission failed; None if it did not.
        refused: The code of the refusal, if the last submission was refused because of another history.
    """

    size: int = 0
    time: float | None = None
    failures: int = 0
    error: str | None = None
    refused: str | None = None


def read_states(folder: str) -> dict[str, AnchorState]:
    """Return the states of the anchors in the seal *folder*, by name; nothing if they cannot be read."""
    try:
        with open_file(os.path.join(folder, STATE_FILE)) as file:
            return msgspec.json.decode(file.read(_MAX_STATE_BYTES), type=dict[str, AnchorState])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def read_cosigned(folder: str) -> list[Note]:
    """Return the cosigned checkpoints in the seal *folder*, the newest first, not verified; none if they cannot be read."""
    path = os.path.join(folder, COSIGNED_FILE)
    try:
        with open_file(path) as file:
            origin = file.readline(1_000).decode(errors="replace").rstrip("\n")
        return [parse_note(text.encode()) for text in notes_in(path, origin)] if origin else []
    except (OSError, ValueError, VanishedError):
        return []


class _Submitted(NamedTuple):
    """A checkpoint on its way to the anchors."""

    note: Note
    checkpoint: Checkpoint
    proofs: Proofs


class _Submit(Protocol):
    def __call__(self, submitted: _Submitted, seconds: float) -> None:
        """Raise a `SubmissionError` or an `OSError` if the anchor does not have the checkpoint afterwards."""


class _Anchor:
    """One anchor, and when it gets the next checkpoint.

    Args:
        name: Its name in files and messages.
        seconds: The time between two checkpoints.
        submit: Gives it a checkpoint.
    """

    def __init__(self, name: str, seconds: float, submit: _Submit) -> None:
        self.name = name
        self.seconds = seconds
        self.submit = submit
        self.due = 0.0
        self.state = AnchorState()
        self.newest: str | None = None
        self._failed_in_a_row = 0

    @property
    def is_well(self) -> bool:
        """Whether the last submission did not fail."""
        return self.state.error is None

    def leave_out(self, submitted: _Submitted, now: float) -> None:
        """Note that the anchor does not need a checkpoint."""
        self.newest = submitted.note.text
        self.due = now + self.seconds

    def succeed(self, submitted: _Submitted, now: float) -> None:
        """Note that the anchor has a checkpoint."""
        self.leave_out(submitted, now)
        self.state.size = submitted.checkpoint.size
        self.state.time = time.time()
        self.state.error = self.state.refused = None
        self._failed_in_a_row = 0

    def fail(self, error: Exception, now: float) -> bool:
        """Note a failure; return whether it is a refusal for a reason that is new."""
        is_ours = isinstance(error, SubmissionError)
        self.state.error = str(error) if is_ours else describe_failure(error)
        self.state.failures += 1
        self._failed_in_a_row += 1
        backoff = max(self.seconds, 1.0) * 2 ** min(self._failed_in_a_row - 1, 16)
        self.due = now + min(backoff, LONGEST_BACKOFF_SECONDS)

        before = self.state.refused
        self.state.refused = error.code if isinstance(error, RefusedError) else before
        return self.state.refused != before


class Anchors:
    """All anchors of one trail, for its sealer.

    Args:
        folder: The seal folder.
        witnesses: The witnesses.
        authority: The time-stamping authority; None for no time stamps.
        notify: Records a refusal in the trail: an operation, and its metadata as keywords.
        clock: Returns the seconds of a monotonic clock.
        start: Starts a thread that runs a function, and returns it.

    Attributes:
        unsaved: The number of times that the file of states could not be written.
    """

    def __init__(
        self,
        folder: str,
        witnesses: Sequence[Witness] = (),
        authority: TimestampAuthority | None = None,
        *,
        notify: Callable[..., object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], threading.Thread | None] | None = None,
    ) -> None:
        self.folder = folder
        self.unsaved = 0
        self._notify = notify
        self._clock = clock
        self._start = start or _start_thread
        self._witnesses = {f"witness {witness.name}": witness for witness in witnesses}
        self._authority = authority
        self._begin()

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], folder: str, *, notify: Callable[..., object] | None = None, post: Post = post
    ) -> Anchors:
        """Return the anchors that *config* describes.

        Args:
            config: ``witnesses``, a list of mappings with ``name``, ``key`` and ``url``, and ``timestamps``, an address.
            folder: The seal folder.
            notify: Records a refusal in the trail: an operation, and its metadata as keywords.
            post: Posts a request.

        Raises:
            AuditTypeError, AuditValueError: A member is unknown or wrong.
        """
        if not isinstance(config, Mapping):
            raise AuditTypeError(f"integrity={config!r}: expected a mapping with witnesses and timestamps")
        unknown = set(config) - _MEMBERS
        if unknown:
            names = ", ".join(sorted(map(repr, unknown)))
            raise AuditValueError(f"integrity: expected witnesses and timestamps, got {names}")

        described = config.get("witnesses")
        if described is not None and (not isinstance(described, Sequence) or isinstance(described, str)):
            raise AuditTypeError(f"integrity['witnesses']={described!r}: expected a list of mappings")
        witnesses = [
            Witness.from_config(f"integrity['witnesses'][{number}]", witness, post=post)
            for number, witness in enumerate(described or ())
        ]
        for attribute in ("name", "key"):
            values = [getattr(witness, attribute) for witness in witnesses]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise AuditValueError(f"integrity['witnesses']: expected witnesses once, got {attribute} {twice} twice")

        url = config.get("timestamps")
        place = "integrity['timestamps']"
        authority = None if url is None else TimestampAuthority.from_config(place, url, post=post)
        return cls(folder, witnesses, authority, notify=notify)

    def _begin(self) -> None:
        """Start with nothing: at first, and in a forked child, whose locks and threads are not its own."""
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._newest: tuple[bytes, Proofs] | None = None
        self._is_closing = False
        self._has_read = False
        self._cosigned: list[Note] = []
        self._anchors = self._make_anchors()

    def _make_anchors(self) -> list[_Anchor]:
        anchors = [_Anchor(_LOG, 0.0, _log)]
        for name, witness in self._witnesses.items():
            anchors.append(_Anchor(name, WITNESS_SECONDS, _WitnessSubmission(witness, self._add_cosignatures)))
        if self._authority is not None:
            anchors.append(_Anchor("time stamps", TIMESTAMP_SECONDS, self._stamp))
        return anchors

    @property
    def has_any(self) -> bool:
        """Whether there is any anchor in the configuration: a witness, time stamps, or a handler for checkpoints."""
        return bool(self._witnesses or self._authority or _logger.handlers)

    def states(self) -> dict[str, AnchorState]:
        """Return the state of each anchor, by name. The logger is one if it has a handler."""
        has_log = bool(_logger.handlers)
        return {anchor.name: anchor.state for anchor in self._anchors if has_log or anchor.name != _LOG}

    def after_checkpoint(self, note: bytes, proofs: Proofs) -> None:
        """Let the anchors have a new checkpoint, in the background, in place of one that still waits.

        Args:
            note: The signed note.
            proofs: Returns the proof of consistency between two sizes. It is called on another thread.
        """
        if self._pid != os.getpid():
            self._begin()
        if not self.has_any:
            return
        with self._changed:
            self._newest = note, proofs
            self._is_closing = False
            if self._thread is None or not self._thread.is_alive():
                # Without a thread, as at the end of the interpreter, the next checkpoint tries again.
                self._thread = self._start(self._run)
            self._changed.notify_all()

    def close(self, timeout: float = 5.0) -> None:
        """Submit the newest checkpoint to the anchors that do not have it, and wait up to *timeout* seconds for that."""
        if self._pid != os.getpid():
            self._begin()
        with self._changed:
            self._is_closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        """Submit the checkpoints that are due, until closed: then also those that are not due yet."""
        while True:
            with self._changed:
                while (delay := self._delay()) != 0:
                    self._changed.wait(delay)
                newest, is_last = self._newest, self._is_closing

            self.submit_due()
            with self._changed:
                # A checkpoint that came meanwhile is submitted first.
                if is_last and self._is_closing and self._newest is newest:
                    self._thread = None
                    return

    def _delay(self) -> float | None:
        """Return the seconds until an anchor is due; None if only a new checkpoint makes one due."""
        if self._is_closing:
            return 0
        if self._newest is None:
            return None
        text = _text_of(self._newest[0])
        waiting = [anchor.due for anchor in self._anchors if anchor.newest != text]
        return max(0.0, min(waiting) - self._clock()) if waiting else None

    def submit_due(self) -> None:
        """Submit the newest checkpoint to each anchor that is due for it. For the thread, and for tests."""
        with self._changed:
            newest, is_closing = self._newest, self._is_closing
        if newest is None:
            return

        try:
            note = parse_note(newest[0])
            submitted = _Submitted(note, parse_checkpoint(note.text), newest[1])
        except AuditValueError as error:
            with self._changed:
                self._newest = None if self._newest is newest else self._newest
            report_on_stderr(f"a checkpoint was not anchored: {error}")
            return

        self._read_state()
        now = self._clock()
        without = [anchor for anchor in self._anchors if anchor.newest != note.text]
        due = [anchor for anchor in without if is_closing or anchor.due <= now]

        # Witnesses that are well get the same checkpoints, so that a quorum is on one of them.
        paces = {anchor.seconds for anchor in due}
        due += [anchor for anchor in without if anchor not in due and anchor.is_well and anchor.seconds in paces]
        for anchor in due:
            self._submit(anchor, submitted, now)
        if any(anchor.name != _LOG for anchor in due):
            self._write_state()

    def _submit(self, anchor: _Anchor, submitted: _Submitted, now: float) -> None:
        try:
            anchor.submit(submitted, REQUEST_SECONDS)
        except Exception as error:
            # The proofs, and the handlers of the application, may raise anything.
            if isinstance(error, RefusedError) and self._is_overtaken(error):
                anchor.leave_out(submitted, now)
            elif anchor.fail(error, now) and isinstance(error, RefusedError):
                self._report_refusal(anchor, error, submitted.checkpoint)
        else:
            anchor.succeed(submitted, now)

    def _is_overtaken(self, error: RefusedError) -> bool:
        """Return whether another process has sealed, and submitted, a larger checkpoint meanwhile."""
        if error.code != "ROLLED_BACK" or error.size is None:
            return False
        try:
            newest = Checkpoint.parse(read_checkpoint(self.folder).text)
        except SealError:
            return False
        return newest.size >= error.size

    def _report_refusal(self, anchor: _Anchor, error: RefusedError, checkpoint: Checkpoint) -> None:
        report_on_stderr(f"{error.code}: {anchor.name} refused a checkpoint of {checkpoint.origin}: {error}")
        if self._notify is not None:
            sizes = {"size": checkpoint.size, "known_size": error.size}
            # A trail that cannot take the notice counts it itself; the state of the anchor keeps the refusal.
            with suppress(Exception):
                self._notify("checkpoint refused", anchor=anchor.name, code=error.code, **sizes)

    def _add_cosignatures(self, note: Note) -> None:
        """Add the cosignatures of *note* to the file of cosigned checkpoints.

        The file has the newest one first, and then those that more witnesses have cosigned: a quorum may need them.
        """
        same = [known for known in self._cosigned if known.text == note.text]
        earlier = [known for known in self._cosigned if known.text != note.text]

        # Each signature once, those that are known first.
        signatures = [signature for known in (*same, note) for signature in known.signatures]
        kept = [note._replace(signatures=tuple(dict.fromkeys(signatures)))]

        for known in earlier:
            most = len(kept[-1].signatures)
            if len(known.signatures) > most:
                kept.append(known)

        self._cosigned = kept
        text = "".join(map(str, kept))
        self._replace(COSIGNED_FILE, text.encode())

    def _stamp(self, submitted: _Submitted, seconds: float) -> None:
        if self._authority is not None:
            data = str(submitted.note).encode()
            response = self._authority.stamp(data, seconds)
            self._replace(f"{STAMPED_FILE}.tsr", response)
            self._replace(STAMPED_FILE, data)

    def _read_state(self) -> None:
        """Take over, once, the states of the anchors in an earlier process."""
        if self._has_read:
            return
        self._has_read = True
        states = read_states(self.folder)
        for anchor in self._anchors:
            anchor.state = states.get(anchor.name, anchor.state)
            witness = self._witnesses.get(anchor.name)
            if witness is not None:
                witness.size = anchor.state.size
        self._cosigned = read_cosigned(self.folder)

    def _write_state(self) -> None:
        try:
            self._replace(STATE_FILE, msgspec.json.encode(self.states()) + b"\n")
        except OSError:
            self.unsaved += 1

    def _replace(self, name: str, data: bytes) -> None:
        """Replace the file *name* of the seal folder. Who may read the folder may read the file."""
        path = os.path.join(self.folder, name)
        beside = f"{path}.new"

        of_folder = stat.S_IMODE(os.stat(self.folder).st_mode)
        mode = of_folder & 0o644 | 0o600
        fd = os.open(beside, _REPLACE_FLAGS, mode)

        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)

        os.replace(beside, path)


class _WitnessSubmission:
    """Submits a checkpoint to one witness, and passes its cosignatures on."""

    def __init__(self, witness: Witness, add: Callable[[Note], None]) -> None:
        self._witness = witness
        self._add = add

    def __call__(self, submitted: _Submitted, seconds: float) -> None:
        note = submitted.note
        cosignatures = self._witness.submit(note, submitted.proofs, seconds)
        self._add(note._replace(signatures=note.signatures + cosignatures))


def _log(submitted: _Submitted, seconds: float) -> None:
    """Pass the checkpoint to the handlers of its logger, as a record whose message is the note.

    Handlers of other loggers do not get it: an audit handler at the root would record each one, and so cause the next.
    """
    if _logger.disabled or _logger.level > logging.INFO or _logger.manager.disable >= logging.INFO:
        return
    arguments = (str(submitted.note),)
    record = _logger.makeRecord(
        CHECKPOINTS_LOGGER, logging.INFO, __file__, 0, "%s", arguments, None, "after_checkpoint"
    )
    for handler in _logger.handlers:
        if handler.level <= logging.INFO:
            handler.handle(record)


def _text_of(note: bytes) -> str:
    """Return the text of a note, as `Note.text` of the parsed note is."""
    return f"{note.decode(errors='replace').rpartition(chr(10) * 2)[0]}\n"


def _start_thread(run: Callable[[], None]) -> threading.Thread | None:
    """Start a daemon thread; return None if that is not possible."""
    thread = threading.Thread(target=run, name="structlog-audit anchors", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def stored_proofs(folder: str) -> Proofs:
    """Return a function that makes proofs of consistency from the stored hashes in the seal *folder*."""

    def proofs(old: int, new: int) -> list[bytes]:
        with HashFiles(folder) as hashes:
            return consistency_proof(old, new, hashes.read)

    return proofs
