"""Exit codes and errors of the command line.

====  ================================================================================================================
code  meaning
====  ================================================================================================================
0     success
1     a negative answer: ``query`` and ``tail`` found no event (as grep), ``monitor`` raised an alert,
      ``catalogue`` found a recorded operation that the code does not declare
2     invalid usage: an unknown option, field, operator or time, a reversed range, an existing file
3     a trail, a configuration or a file cannot be read or written, or the reading cannot be recorded
4     findings: of ``doctor``, with ``--strict`` problems in the files, or with ``--verified`` lines that are not proved
130   interrupted
141   the reader of stdout is gone (as shells report it: 128 + SIGPIPE)
====  ================================================================================================================

An error is one line on stderr, and nothing on disk has changed.
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING

from structlog_audit.exceptions import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Exit(IntEnum):
    """The exit codes, described at the head of this module."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREADABLE = 3
    FINDINGS = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class UsageError(AuditError):
    """A command line is invalid. The message is written to stderr."""


class UnreadableError(AuditError):
    """A file cannot be read, written or recorded in. The message is written to stderr."""


class ClosedPipe(Exception):  # noqa: N818
    """The reader of stdout is gone, which is not an error."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the closest of *known* to *word*, after a space; an empty text without a close one."""
    closest = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {closest[0]!r}?" if closest else ""
