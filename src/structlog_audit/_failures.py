"""Failures of targets: how they are reported, without event content."""

from __future__ import annotations

import sys


class DeliveryError(Exception):
    """A target failed; ``__cause__`` is its error.

    Args:
        done: The number of entries that are complete in the trail.
        may_be_refusal: Whether the target may have refused the next entry for its own sake, and may take others.
    """

    def __init__(self, done: int, *, may_be_refusal: bool = False) -> None:
        super().__init__(f"the target failed after {done} entries")
        self.done = done
        self.may_be_refusal = may_be_refusal


def describe_failure(error: BaseException | None) -> str:
    """Return a description of *error* that contains no event content.

    Of an OSError it gives the error number and the message of the system, of any other error only the type.
    """
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: [Errno {error.errno}] {error.strerror}"
    return name


def report_on_stderr(message: str) -> None:
    """Write *message* to stderr if possible.

    It may be closed, on the same full disk as the trail, or in the middle of another write of this thread.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"structlog-audit: {message}\n")
    except Exception:
        # Nothing else is left to report to.
        pass
