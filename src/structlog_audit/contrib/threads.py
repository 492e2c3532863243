"""`in_context` and `ContextExecutor`: work in other threads knows who acts.

Rules:

* A thread begins with an empty context (unless Python 3.14 runs with ``-X thread_inherit_context=1``).
  ``asyncio.to_thread`` copies the caller's; ``loop.run_in_executor``, ``Executor.submit`` and ``threading.Thread`` do not,
  so structlog's contextvars are lost there, and events name nobody.
* What a function gets is a copy, made when it was handed over: what is bound later on either side does not reach the other.
* Each call has a copy of its own, so that one function can run in many threads at once.
* Processes are something else: a context can't be pickled. Give the fields as arguments there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_context(function: Callable[..., T], /, *args: object, **kwargs: object) -> Callable[..., T]:
    """*function* with these arguments, to be called elsewhere in the context of here: as ``functools.partial`` otherwise.

    ``loop.run_in_executor(None, in_context(store, text, owner="u1"))``, ``Thread(target=in_context(store, text))``
    """
    call, context = partial(function, *args, **kwargs), copy_context()

    def run(*more: object, **named: object) -> T:
        return context.copy().run(call, *more, **named)

    return run


class ContextExecutor(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that runs each call in a copy of the context in which it was submitted.

    ``loop.set_default_executor(ContextExecutor())`` makes it the one of ``loop.run_in_executor(None, …)``.
    """

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have *function* called in a thread, in a copy of this context."""
        return super().submit(in_context(function, *args, **kwargs))
