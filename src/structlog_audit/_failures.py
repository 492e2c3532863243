"""Failures: how a target reports one, and how it is described without event content."""

from __future__ import annotations

import sys


class DeliveryError(Exception):
    """Raised by a target: it failed, with ``__cause__``, after *done* entries were whole in the trail."""

    def __init__(self, done: int) -> None:
        super().__init__(f"the target failed after {done} entries")
        self.done = done


def describe_failure(error: BaseException | None) -> str:
    """*error* without anything of an event: of an OSError what the system says, of any other its type."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: [Errno {error.errno}] {error.strerror}"
    return type(error).__name__


def report_on_stderr(what: str) -> None:
    """Say *what* is wrong on stderr, if that can be done: it may be closed, on the full disk too, or busy with just this."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"structlog-audit: {what}\n")
    except Exception:
        pass
