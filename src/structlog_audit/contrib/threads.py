"""`in_context` and `ContextExecutor`: carry the actor to work in other threads.

**Problem.** A thread begins with an empty context (unless Python 3.14 runs with ``-X thread_inherit_context=1``), so
structlog's contextvars are lost there, and events lack their actor. ``asyncio.to_thread`` copies the caller's context;
``loop.run_in_executor``, ``Executor.submit`` and ``threading.Thread`` do not.

**Guarantees.** A function gets a copy of the context, made when it was handed over. Later bindings on either side do not reach
the other. Each call gets a separate copy, so one function can run in many threads at once.

**Processes.** A context can't be pickled. Pass the fields to other processes as arguments.
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
    """Bind *function* to these arguments and to a copy of the current context.

    Return it for a call in another thread, like ``functools.partial``.

    ``loop.run_in_executor(None, in_context(store, text, owner="u1"))``, ``Thread(target=in_context(store, text))``
    """
    call = partial(function, *args, **kwargs)
    context = copy_context()

    def run(*more: object, **named: object) -> T:
        return context.copy().run(call, *more, **named)

    return run


class ContextExecutor(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` that runs each call in a copy of the context in which it was submitted.

    ``loop.set_default_executor(ContextExecutor())`` makes it the executor of ``loop.run_in_executor(None, …)``.
    """

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call *function* in a thread, in a copy of the current context."""
        return super().submit(in_context(function, *args, **kwargs))
