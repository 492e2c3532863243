"""``explore``: events in a browser."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from structlog_audit._version import check_versions
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Anchors, SealKeys, TrailOptions, reads_trails
from structlog_audit.cli.terminal import put_line
from structlog_audit.export import export as export_to
from structlog_audit.query.plurals import counted

if TYPE_CHECKING:
    from structlog_audit.cli.explore.overview import Overview
    from structlog_audit.cli.reading import Reading
    from structlog_audit.query.seal_verdict import SealVerdict

EXAMPLES = ("explore logs/audit.jsonl --since 30d", "explore logs/audit.jsonl --month last --tz Europe/Berlin")


@reads_trails()
def explore(
    options: TrailOptions,
    *,
    key: SealKeys = None,
    anchor: Anchors = None,
) -> Exit:
    """Show events in a browser, at an address for this user on this machine only, with times in UTC or in the zone of --tz."""
    if find_spec("datasette") is None:
        raise UsageError("explore needs datasette: pip install 'structlog-audit[explore]'")
    check_versions("explore")

    from structlog_audit.cli.explore.local_times import add_local_times
    from structlog_audit.cli.explore.overview import add_operation_class, overview_of
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.formats.sqlite import has_full_text

    classes = options.classes()
    options = options.for_document()
    zone = options.zone or dt.UTC
    seals: list[SealVerdict] = []
    with _removed_at_exit() as folder:
        path = os.path.join(folder, "audit.db")

        def write(reading: Reading) -> Exit:
            seals.extend(reading.seals(key, anchor))
            count = export_to(
                reading.events(),
                path,
                full_text=has_full_text(),
                inform=lambda: reading.export_information(seals, zone),
                now=reading.now,
            )
            put_line(counted(count, "event"))
            return Exit.DONE

        code = read_trails(options, write, quietly=True)
        add_operation_class(path, classes)
        add_local_times(path, zone)
        _serve(path, overview_of(path, seals, zone))
    return Exit(code)


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
