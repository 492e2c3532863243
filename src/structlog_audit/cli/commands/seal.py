"""``seal``: signs the lines of a trail, for an application that has no key."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UnreadableError, UsageError
from structlog_audit.cli.options import Origin, PreviousKey, TrailPath
from structlog_audit.cli.terminal import put_error, put_line
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.plurals import counted

if TYPE_CHECKING:
    from structlog_audit.integrity.anchors import Anchors
    from structlog_audit.integrity.signing import KeyFile

EXAMPLES = ("seal logs/audit.jsonl --key audit.pem --origin audit.example/shop/web1",)


def seal(
    trail: TrailPath,
    *,
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="The private key.")],
    origin: Origin,
    previous_key: PreviousKey = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="FILE", help="Policy whose witnesses with an address cosign the checkpoints."),
    ] = None,
    timestamps: Annotated[
        str | None, typer.Option("--timestamps", metavar="URL", help="Time-stamping authority (RFC 3161).")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Continue once a second, until the process is ended.")] = False,
) -> Exit:
    """Seal a trail from its first line on, as a user whose files the application cannot read."""
    from structlog_audit.integrity.background import BackgroundSealer
    from structlog_audit.integrity.seal_folder import SealFolder
    from structlog_audit.trail.writing.filesystem import is_file

    path = os.path.abspath(trail)
    if not (is_file(path) or (watch and os.path.isdir(os.path.dirname(path)))):
        raise UsageError(f"{trail!r}: expected the active file of a trail; with --watch, it may not exist yet")
    stop = None
    if watch:
        stop = _stop_on_signals()
        put_line(f"sealing {trail} once a second, until SIGTERM or SIGINT")
        sys.stdout.flush()

    signers = load_keys(key, previous_key, origin)
    anchors = _anchors(f"{path}.seal", policy, timestamps)
    make = partial(BackgroundSealer, path, origin, lambda: signers, on_damage=_report_damage, anchors=anchors)
    if stop is not None:
        make().watch(stop)
        return Exit.DONE

    # The error of this command is the only report of a failure.
    is_new = not os.path.lexists(f"{path}.seal")
    sealer = make(report=lambda message: None)
    is_sealed = sealer.seal_now()
    sealer.release()
    anchors.close()
    if not is_sealed:
        if is_new:
            SealFolder(path).discard_unfinished()
        raise UnreadableError(f"{trail} was not sealed: {sealer.failure or 'it is sealed by another process'}")
    put_line(f"sealed {counted(sealer.size, 'line')} of {trail}; verify with the key {signers[0].key}")
    return Exit.DONE


def load_keys(key: str, previous_key: str | None, origin: str) -> list[KeyFile]:
    """Return the key of a trail, and the one that it replaces, if any. One that other users can read is named on stderr.

    Raises:
        UsageError: The origin cannot be the name of a key.
        AuditSealError: A key cannot be used.
    """
    from structlog_audit.integrity.configuration import check_different
    from structlog_audit.integrity.signing import KeyFile

    try:
        keys = [KeyFile(path, origin) for path in (key, previous_key) if path is not None]
    except AuditValueError as error:
        raise UsageError(f"--origin: {error}") from None

    check_different(keys)
    for loaded in keys:
        if not loaded.is_private:
            put_error(f"{loaded.path} can be read or changed by users other than its owner: chmod 600 {loaded.path}")
    return keys


def _anchors(folder: str, policy: str | None, timestamps: str | None) -> Anchors:
    """Return the anchors that the options describe."""
    from structlog_audit.integrity.anchors import Anchors
    from structlog_audit.integrity.notes import parse_policy

    witnesses = []
    try:
        if policy is not None:
            parsed = parse_policy(Path(policy).read_bytes())
            for name, key in parsed.witnesses.items():
                if str(key) in parsed.urls:
                    witnesses.append({"name": name, "key": str(key), "url": parsed.urls[str(key)]})
            if not witnesses:
                raise UsageError(
                    f"--policy {policy}: expected a line 'witness NAME VKEY URL', got none with an address"
                )

        return Anchors.from_config({"witnesses": witnesses, "timestamps": timestamps}, folder)
    except (AuditValueError, OSError) as error:
        raise UsageError(f"--policy, --timestamps: {error}") from None


def _report_damage(name: str, reason: str) -> None:
    put_error(f"{name} was changed after it was sealed: {reason}")


class _SignalEvent(threading.Event):
    """An event that a signal handler may set: that of `threading` has a lock, which the interrupted `wait` may hold."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: SimpleQueue[int] = SimpleQueue()

    def set(self) -> None:
        """Set the event."""
        self._numbers.put(0)

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return not self._numbers.empty()

    def clear(self) -> None:
        """Keep the event set: the process ends."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, for *timeout* seconds at most; return whether it is."""
        with suppress(Empty):
            self._numbers.put(self._numbers.get(timeout=timeout))
        return self.is_set()


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set from now on."""
    stop = _SignalEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
