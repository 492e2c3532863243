"""``seal``: signs the lines of a trail, for an application that has no key."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated, Any

import typer

from structlog_audit.cli.exit_codes import Exit, UnreadableError, UsageError
from structlog_audit.cli.options import Origin, TrailPath
from structlog_audit.cli.terminal import put_error, put_line
from structlog_audit.exceptions import AuditValueError

EXAMPLE = "seal logs/audit.jsonl --key audit.pem --origin audit.example/shop/web1"


def seal(
    trail: TrailPath,
    *,
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="The private key.")],
    origin: Origin,
    watch: Annotated[bool, typer.Option("--watch", help="Continue once a second, until the process is ended.")] = False,
) -> Exit:
    """Seal a trail from its first line on, as a user whose files the application cannot read."""
    from structlog_audit.integrity.background import BackgroundSealer
    from structlog_audit.integrity.signing import KeyFile

    path = os.path.abspath(trail)
    if not (os.path.isfile(path) or (watch and os.path.isdir(os.path.dirname(path)))):
        raise UsageError(f"{trail!r}: expected the active file of a trail; with --watch, it may not exist yet")
    try:
        signer = KeyFile(key, origin)
    except AuditValueError as error:
        raise UsageError(f"--origin: {error}") from None

    sealer = BackgroundSealer(path, origin, lambda: signer, on_damage=_report_damage)
    if watch:
        _watch(sealer)
        return Exit.DONE

    is_sealed = sealer.seal_now()
    sealer.release()
    if not is_sealed:
        raise UnreadableError(sealer.failure or f"{trail!r} is sealed by another process")
    put_line(f"{sealer.size} lines of {trail} are sealed; verify them with the key {signer.key}")
    return Exit.DONE


def _report_damage(name: str, reason: str) -> None:
    put_error(f"{name} was changed after it was sealed: {reason}")


def _watch(sealer: Any) -> None:
    """Seal until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sealer.seal_now()
    sealer.run(stop)
    sealer.finish()
