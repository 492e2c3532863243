"""What reaches stdout and stderr.

Rules:

* Text of events, paths and words reaches a terminal with its control characters, line ends and bidirectional controls as
  escapes: an event must neither move the cursor nor forge a line.
* Colours only on a terminal, and neither with NO_COLOR (https://no-color.org) nor with TERM=dumb.
* Lines are cut to the width of the terminal, or to COLUMNS if that is set. In a pipe nothing is cut.
* stdout is written as UTF-8 whatever the locale: what goes into a pipe is data.
* A progress bar appears on stderr, after half a second, only if that is a terminal and stdout does not write to one meanwhile.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation

PROGRAM = "structlog-audit"

_DANGEROUS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PATIENCE = 0.5


def clean(text: str) -> str:
    r"""*text* on one line, with everything that a terminal would act on as an escape: ``\n``, ``\x1b``, ``\u202e``."""
    return _DANGEROUS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _NAMED.get(found[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def put(data: str | bytes) -> None:
    """Write *data*, which is clean or meant as it is, to stdout."""
    sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))


def put_line(text: str) -> None:
    """Write *text*, cleaned, as a line to stdout."""
    put(clean(text) + "\n")


def put_error(text: str) -> None:
    """Say *text*, cleaned, in one line on stderr, if anybody is there to read it."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{PROGRAM}: {clean(text)}\n")
        sys.stderr.flush()


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def has_colours() -> bool:
    """Whether stdout takes colours."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """The columns of the terminal; None where nothing is to be cut."""
    if not is_terminal() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return max(20, shutil.get_terminal_size().columns)


def wait_for_reader() -> Callable[[float], None]:
    """Return a function that waits so many seconds and raises `BrokenPipeError` if the reader of stdout is gone."""
    poller = select.poll()
    try:
        # Errors and hang-ups are always reported: no other event is of interest.
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
    """Something that can be told how many bytes were read so far, or None if nobody is to see it.

    Args:
        total: How many bytes there are to read.
        quietly: Whether stdout stays silent meanwhile, so that a bar does not get in its way.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or (is_terminal() and not quietly):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress(
        BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True
    )
    begun = time.monotonic()
    task = None

    def told(done: int) -> None:
        nonlocal task
        if task is None and time.monotonic() - begun > _PATIENCE:
            bar.start()
            task = bar.add_task("", total=total() or None)
        if task is not None:
            bar.update(task, completed=done)

    try:
        yield told
    finally:
        if task is not None:
            bar.stop()
