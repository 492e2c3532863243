"""The actor of an event: the facts of a request that its events record, and the trust in each of them.

**Fields.** An actor has a ``user_id`` and a ``session_id`` (members of every event), a ``request_id`` and a ``client_address``
(in its metadata). Every entry point adds them to events. A value that the request binds itself in structlog's contextvars, or
passes in a call, overrides them; ``clear_contextvars()`` does not. For the application's own log they are bound in structlog's
contextvars as well, except where another middleware, such as django-structlog's, has bound a value.

**Lifetime.** At the end of a request structlog's contextvars are as before it, whatever it bound or cleared.

**Trust.** The user comes from the application, never from a header. ``X-Request-ID`` can be sent by anyone: it is a label, used
if it has 1 to 128 safe characters, and a ``request_id`` that is bound already takes precedence. ``X-Forwarded-For`` is ignored
unless the number of trusted proxies is given. Each appends the address that it saw, so the client's is that many entries from
the right (RFC 7239, section 8.1). Without such an entry, or if it is not an IP address, the peer's is used.
"""

from __future__ import annotations

import hashlib
import re
import types
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, unbind_contextvars

from structlog_audit.events.addresses import address_text
from structlog_audit.events.context import ACTOR, CurrentActor, with_context
from structlog_audit.exceptions import AuditTypeError, AuditValueError

P = ParamSpec("P")
T = TypeVar("T")

FIELDS = ("user_id", "session_id", "request_id", "client_address")
"""The fields of an actor."""

Actor = Mapping[str, str | None]
"""The fields by their names; None for an unknown one."""

_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PORT = re.compile(r"\[(?P<six>[^\]]*)\](:\d+)?|(?P<four>[^:]*):\d+")
_ID_ATTRIBUTES = ("pk", "id", "identity", "username")


class SavedContext:
    """The actor and structlog's contextvars of one place in a program, for code that runs at another."""

    def __init__(self) -> None:
        self._save()

    def _save(self) -> None:
        self._actor, self._values = ACTOR.get(), get_contextvars()

    def restore(self) -> None:
        """Make it the current context."""
        ACTOR.set(self._actor)
        clear_contextvars()
        bind_contextvars(**self._values)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the current context in the block, and keep the changes of the block."""
        elsewhere = SavedContext()
        self.restore()
        try:
            yield
        finally:
            self._save()
            elsewhere.restore()

    def around(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return *function* as a coroutine function, all steps of which run in this context."""

        async def awaited(*args: P.args, **kwargs: P.kwargs) -> T:
            return await function(*args, **kwargs)

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self._in_steps(awaited(*args, **kwargs))

        return call

    @types.coroutine
    def _in_steps(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        step = partial(coroutine.send, None)
        while True:
            with self.active():
                try:
                    awaits = step()
                except StopIteration as end:
                    result: T = end.value
                    return result
            try:
                step = partial(coroutine.send, (yield awaits))
            except BaseException as error:
                step = partial(coroutine.throw, error)


@contextmanager
def own_context() -> Iterator[SavedContext]:
    """Restore the current context after the block, which gets it."""
    outside = SavedContext()
    try:
        yield outside
    finally:
        outside.restore()


@contextmanager
def bind_actor(actor: Actor) -> Iterator[None]:
    """Record the fields of *actor* in the events of the block, and restore the current context after it.

    Those of `FIELDS` that it lacks are not recorded.
    """
    with own_context():
        set_actor(actor)
        yield


def set_actor(actor: Actor, *, alone: bool = False) -> None:
    """Make *actor* the one of all further events of the current context. `own_context` ends that.

    *alone* clears structlog's contextvars before.
    """
    if alone:
        clear_contextvars()

    known = {name: value for name, value in actor.items() if value is not None}
    current = ACTOR.get()
    bound = get_contextvars()

    # Variables of another actor are replaced; those of a middleware or the application stay.
    former = {} if current is None else current.known
    replaced = {name for name, value in former.items() if bound.get(name) is value}
    unbind_contextvars(*replaced)
    kept = bound.keys() - replaced
    bind_contextvars(**{name: value for name, value in known.items() if name not in kept})

    around = {name: value for name, value in get_contextvars().items() if name in FIELDS}
    ACTOR.set(CurrentActor(known, around))


def current_actor() -> Actor:
    """Return the actor that is bound in the current context, each field as a string."""
    bound = with_context({})
    actor: dict[str, str | None] = {}
    for name in FIELDS:
        value = bound.get(name)
        actor[name] = None if value is None else str(value)
    return actor


def request_actor(
    user: Any,
    session_id: str | None,
    *,
    request_id: str | None,
    peer: str | None,
    forwarded_for: str | None,
    trusted_proxies: int,
) -> Actor:
    """Return the actor of a request.

    Args:
        user: The user, as for `user_id_of`.
        session_id: The text to record for the session.
        request_id: The value of the header ``X-Request-ID``.
        peer: The address that the connection comes from.
        forwarded_for: The value of the header ``X-Forwarded-For``, several joined by commas.
        trusted_proxies: How many of its last entries were appended by trusted proxies.
    """
    return {
        "user_id": user_id_of(user),
        "session_id": session_id,
        "request_id": current_actor()["request_id"] or safe_request_id(request_id),
        "client_address": client_address(peer, forwarded_for, trusted_proxies),
    }


def user_id_of(user: Any) -> str | None:
    """Return the id to record for *user*.

    A string, integer or UUID is its own id. Of any other object the first of ``pk``, ``id``, ``identity`` and ``username``
    that is present is used. None, False and a user whose ``is_authenticated`` is false have no id: the result is None.

    Raises:
        AuditTypeError: The object has none of these attributes. An event without its user would be wrong evidence.
    """
    if user is None or user is False or not getattr(user, "is_authenticated", True):
        return None
    if isinstance(user, str | int | uuid.UUID):
        return str(user)

    for name in _ID_ATTRIBUTES:
        try:
            value = getattr(user, name, None)
        except NotImplementedError:
            # Starlette's BaseUser leaves `identity` to its subclasses.
            continue
        if value is not None:
            return str(value)

    raise AuditTypeError(
        f"user: expected an object with one of {', '.join(_ID_ATTRIBUTES)}, got {type(user).__name__};"
        " pass a user= that returns the id"
    )


def session_digest(key: str | None) -> str | None:
    """Return 32 hex digits of the SHA-256 of a session's *key*, or None without a key.

    The key itself would open the session to every reader of the trail.
    """
    return hashlib.sha256(key.encode()).hexdigest()[:32] if key else None


def safe_request_id(header: str | None, *, new: Callable[[], str] = lambda: uuid.uuid4().hex) -> str:
    """Return *header* if it is safe to record, otherwise a *new* id."""
    return header if header is not None and _SAFE_ID.fullmatch(header) else new()


def client_address(peer: str | None, forwarded_for: str | None, trusted_proxies: int) -> str | None:
    """Return the address of the client.

    It is the one that *trusted_proxies* forwarded, otherwise the one of the *peer*.
    """
    entries = (forwarded_for or "").split(",")
    if 0 < trusted_proxies <= len(entries):
        forwarded = _ip_address(entries[-trusted_proxies].strip())
        return forwarded or peer or None
    return peer or None


def _ip_address(entry: str) -> str | None:
    """Return the IP address in *entry*, which may have a port, or None."""
    address = entry
    match = _PORT.fullmatch(entry)
    if match is not None:
        # One of the groups is None; either may be empty.
        address = match["four"] if match["six"] is None else match["six"]

    # A scope id may be any text, so an address with one is not recorded.
    return None if "%" in address else address_text(address)


def checked_proxies(trusted_proxies: Any) -> int:
    """Return *trusted_proxies* if it is a valid number of proxies.

    Raises:
        AuditTypeError: It is not an integer.
        AuditValueError: It is negative.
    """
    if type(trusted_proxies) is not int:
        raise AuditTypeError(f"trusted_proxies={trusted_proxies!r}: expected an integer")
    if trusted_proxies < 0:
        raise AuditValueError(f"trusted_proxies={trusted_proxies!r}: expected 0 or the number of proxies in front")
    return trusted_proxies


def checked_function(name: str, function: Any) -> Callable[[Any], Any]:
    """Return *function* if it is callable; *name* is the parameter that holds it.

    Raises:
        AuditTypeError: It is not callable.
    """
    if not callable(function):
        raise AuditTypeError(f"{name}={function!r}: expected a function of the request")
    checked: Callable[[Any], Any] = function
    return checked
