"""``explore``: events in a browser."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from structlog_audit._version import check_versions
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Operations, TrailOptions, reads_trails
from structlog_audit.cli.terminal import put_line
from structlog_audit.export import export as export_to

if TYPE_CHECKING:
    from structlog_audit.cli.explore.overview import Integrity, Overview
    from structlog_audit.cli.reading import Reading

EXAMPLE = "explore logs/audit.jsonl --since 30d"


@reads_trails()
def explore(
    options: TrailOptions,
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="VKEY|FILE", help="Verifier key: the front page states whether the trail is intact."
        ),
    ] = None,
    operations: Operations = None,
) -> Exit:
    """Show events in a browser, at an address for this user on this machine only."""
    if find_spec("datasette") is None:
        raise UsageError("explore needs datasette: pip install 'structlog-audit[explore]'")
    check_versions("explore")

    from structlog_audit.cli.explore.overview import add_operation_classes, overview_of
    from structlog_audit.cli.operation_files import load_operations
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.formats.sqlite import has_full_text

    classes = load_operations(operations)
    integrity = _verified(options, key) if key else None
    with _removed_at_exit() as folder:
        path = os.path.join(folder, "audit.db")

        def write(reading: Reading) -> Exit:
            count = export_to(
                reading.events(), path, full_text=has_full_text(), inform=reading.export_information, now=reading.now
            )
            put_line(f"{count} events")
            return Exit.DONE

        code = read_trails(options, write, quietly=True)
        add_operation_classes(path, classes)
        _serve(path, overview_of(path, integrity))
    return Exit(code)


def _verified(options: TrailOptions, keys: Sequence[str]) -> Integrity:
    """Return the verdict on the integrity of the one trail that *options* name."""
    from structlog_audit.cli.conditions import split_words
    from structlog_audit.cli.explore.overview import Integrity
    from structlog_audit.integrity.standalone import verify_trail

    named, _ = split_words(options.words)
    if len(named) != 1 or not os.path.isfile(named[0]):
        raise UsageError("--key: expected the active file of one trail, which has its seal beside it")
    try:
        policy = verify_trail.load_policies(keys)
    except verify_trail.SealError as error:
        raise UsageError(f"--key: {error}") from None

    report = verify_trail.verify(named[0], policy)
    level = ("complete", "incomplete", "unknown", "unknown")[report.exit_code]
    return Integrity(report.verdict.capitalize(), level, tuple(report.to_text().splitlines()[:-1]))


@contextmanager
def _removed_at_exit() -> Iterator[str]:
    """Yield a new folder that only this user can read, and remove it also if the process is told to stop."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    def hang_up(number: int, frame: Any) -> None:
        # While the site is served, the server handles this one.
        signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: stop, signal.SIGHUP: hang_up}
    before = [(number, signal.signal(number, handler)) for number, handler in handlers.items()]
    try:
        with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
            yield folder
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _serve(path: str, overview: Overview) -> None:
    from structlog_audit.cli.explore.server import serve

    def announce(address: str) -> None:
        put_line(address)
        put_line("Press Ctrl+C to stop.")
        sys.stdout.flush()

    serve(path, overview, announce)
