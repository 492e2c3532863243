"""What must begin anew in a forked child: locks that another thread may have held, descriptors, queues, ids."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Has state that a forked child must not inherit."""

    def after_fork(self) -> None:
        """Begin anew. Called in the child, before anything else runs there."""


_live: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_after_fork(owner: Forked) -> None:
    """Have ``owner.after_fork()`` called in every child that is forked while *owner* is alive."""
    _live.add(owner)


def living() -> list[Forked]:
    """The owners that are alive."""
    return list(_live)


def _renew() -> None:
    for owner in living():
        owner.after_fork()


os.register_at_fork(after_in_child=_renew)
