"""How the command line ends.

====  ================================================================================================================
code  meaning
====  ================================================================================================================
0     done
1     the answer is no: of ``query`` and ``tail``, no event matched (as grep); of ``monitor``, there was an alert;
      of ``catalogue``, something is recorded that is declared nowhere
2     the command can't be meant: an unknown option, field, operator or time, a reversed range, a file in the way
3     a trail, a configuration or a file can't be read or written, or reading can't be recorded
4     findings: of ``doctor``, or with ``--strict`` problems in what was read
130   interrupted
141   whoever read our output is gone (as a shell says of any program: 128 + SIGPIPE)
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
    """The exit codes; see the head of this module."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREADABLE = 3
    FINDINGS = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class UsageError(AuditError):
    """The command can't be meant. The message is what stderr says."""


class UnreadableError(AuditError):
    """Something can't be read, written or recorded. The message is what stderr says."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the one of *known* that is nearest to *word*, with a space before it; nothing if none is near."""
    near = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


class ClosedPipe(Exception):  # noqa: N818 (nothing is wrong)
    """Whoever reads our output is gone."""
