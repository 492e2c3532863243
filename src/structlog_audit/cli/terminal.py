"""Writing to stdout and stderr.

**Guarantees**

* Texts of events, paths and arguments are written with control characters, line ends and bidirectional controls escaped: an
  event can neither move the cursor nor forge a line.
* Colours are used only on a terminal, and neither with NO_COLOR (https://no-color.org) nor with TERM=dumb.
* Lines are cut to the width of the terminal, or to COLUMNS if that is set. In a pipe nothing is cut.
* stdout is UTF-8 in every locale.
* A progress bar appears on stderr after half a second, if stderr is a terminal and stdout does not write to one meanwhile.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import Any

import msgspec
from rich.console import Console

from structlog_audit.events.characters import (
    BIDIRECTIONAL,
    C0_BUT_LINE_BREAKS,
    DELETE_AND_C1,
    LINE_BREAKS,
    SEPARATORS,
    SURROGATES,
    matching,
)
from structlog_audit.events.codec import to_json

PROGRAM = "structlog-audit"

_DANGEROUS = matching(C0_BUT_LINE_BREAKS, LINE_BREAKS, DELETE_AND_C1, SEPARATORS, BIDIRECTIONAL, SURROGATES)
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PROGRESS_DELAY = 0.5
"""Seconds before a progress bar appears."""

_LEAST_WIDTH = 20


def clean(text: str) -> str:
    r"""Return *text* on one line, with dangerous characters as escapes: ``\n``, ``\x1b``, ``\u202e``."""
    return _DANGEROUS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    named = _NAMED_ESCAPES.get(found[0])
    if named is not None:
        return named
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def put(data: str | bytes) -> None:
    """Write *data* to stdout unchanged: the caller has cleaned it where necessary."""
    sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))


def put_document(value: Mapping[str, Any]) -> None:
    """Write *value* to stdout as one JSON document."""
    document = msgspec.json.format(to_json(value), indent=2)
    put(f"{document}\n")


def put_line(text: str) -> None:
    """Write *text*, cleaned, to stdout as a line."""
    put(clean(text) + "\n")


def put_error(text: str) -> None:
    """Write *text*, cleaned, to stderr as a line. A closed pipe is ignored."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{PROGRAM}: {clean(text)}\n")
        sys.stderr.flush()


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def stdout_console(width: int | None = None) -> Console:
    """Return rich's view of stdout; FORCE_COLOR does not make a terminal of a pipe."""
    return Console(file=sys.stdout, force_terminal=is_terminal(), width=width, legacy_windows=False)


def has_colours() -> bool:
    """Return whether stdout shows colours."""
    console = stdout_console()
    return console.color_system is not None and not console.no_color


def width() -> int | None:
    """Return the columns of the terminal; None where nothing is cut."""
    if not is_terminal() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return max(_LEAST_WIDTH, shutil.get_terminal_size().columns)


def wait_for_reader() -> Callable[[float], None]:
    """Return a function that waits a number of seconds, and raises `BrokenPipeError` once the reader of stdout is gone."""
    poller = select.poll()
    try:
        # Errors and hang-ups are reported without being requested; other events are not needed.
        poller.register(sys.stdout.fileno(), 0)
    except UnsupportedOperation:
        # stdout is not a file, as in tests.
        pass

    def wait(seconds: float) -> None:
        if poller.poll(seconds * 1_000):
            raise BrokenPipeError

    return wait


@contextmanager
def progress(total: Callable[[], int], *, quietly: bool) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar on stderr while the block runs.

    Args:
        total: Returns the number of bytes to read.
        quietly: Whether the block writes to stdout only at its end, so that the bar does not interfere.

    Yields:
        A function that takes the number of bytes read so far; None where a bar would not be seen.
    """
    can_draw = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not can_draw or (is_terminal() and not quietly):
        yield None
        return

    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(file=sys.stderr)
    bar = Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console, transient=True)
    started = time.monotonic()
    task = None

    def advance(done: int) -> None:
        nonlocal task
        if task is None and time.monotonic() - started > _PROGRESS_DELAY:
            bar.start()
            task = bar.add_task("", total=total() or None)
        if task is not None:
            bar.update(task, completed=done)

    try:
        yield advance
    finally:
        if task is not None:
            bar.stop()
