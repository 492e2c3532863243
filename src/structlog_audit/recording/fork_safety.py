"""What must begin anew in a forked child: locks that another thread may have held, descriptors, queues, ids.

One that can't begin anew keeps no other from it: a lock that stays taken would stop the child for good.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from structlog_audit._failures import describe_failure, report_on_stderr


class Forked(Protocol):
    """Has state that a forked child must not inherit."""

    def after_fork(self) -> None:
        """Begin anew. Called in the child, before anything else runs there; perhaps by another owner as well."""


_generation = 0
_live: weakref.WeakSet[Forked] = weakref.WeakSet()


def register_fork_reset(owner: Forked) -> None:
    """Have ``owner.after_fork()`` called in every child that is forked while *owner* is alive."""
    _live.add(owner)


def live_owners() -> list[Forked]:
    """The owners that are alive."""
    return list(_live)


def generation() -> int:
    """How many forks lie between the process that imported this and this one."""
    return _generation


def _renew() -> None:
    global _generation
    _generation += 1
    for owner in live_owners():
        try:
            owner.after_fork()
        except Exception as error:
            report_on_stderr(
                f"{type(owner).__name__} could not begin anew in a forked process ({describe_failure(error)})"
            )


os.register_at_fork(after_in_child=_renew)
