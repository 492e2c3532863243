"""Reset of inherited state in a forked child: locks, descriptors, queues and ids.

**Guarantees.** In the child, every registered object is reset before any other code runs.

**Failure handling.** An object that can't be reset is reported on stderr and does not stop the others from being reset: a
lock that another thread of the parent held would block the child forever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from structlog_audit._failures import describe_failure, report_on_stderr


class ResetsAfterFork(Protocol):
    """An object with state that a forked child must not inherit."""

    def after_fork(self) -> None:
        """Reset the object. Called first in the child, and possibly once more by another object that owns this one."""


_fork_generation = 0
_owners: weakref.WeakSet[ResetsAfterFork] = weakref.WeakSet()


def register_fork_reset(owner: ResetsAfterFork) -> None:
    """Register *owner*, so that ``owner.after_fork()`` is called in every forked child while *owner* is alive."""
    _owners.add(owner)


def live_owners() -> list[ResetsAfterFork]:
    """Return the registered objects that are alive."""
    return list(_owners)


def fork_generation() -> int:
    """Return the number of forks between the process that imported this module and this process."""
    return _fork_generation


def _reset_owners() -> None:
    global _fork_generation
    _fork_generation += 1

    for owner in live_owners():
        try:
            owner.after_fork()
        except Exception as error:
            name = type(owner).__name__
            report_on_stderr(f"{name} could not be reset in a forked process ({describe_failure(error)})")


os.register_at_fork(after_in_child=_reset_owners)
