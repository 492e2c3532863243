"""`AuditContextMiddleware` for FastAPI, Starlette and any other ASGI application: names the actor in the events of a request.

**Scope.** It covers HTTP requests and WebSockets until the application has finished, background tasks and streamed responses
included, and starts no task. `structlog_audit.contrib.actor` has the rules of binding and trust.

**User.** The user is ``scope["user"]``, which Starlette's ``AuthenticationMiddleware`` sets: add that middleware after this
one, since Starlette runs the last added first. If a user appears only later, a warning reports it. For a user in another place,
pass ``user=``. A dependency of an endpoint can bind one with ``bind_contextvars(user_id=…)``, but only from an ``async def``:
a plain ``def`` runs in a thread, on a copy of the context.

**Session.** No session is recorded without ``session=``: ASGI has none, and those of Starlette have no id.

**Proxies.** Leave ``trusted_proxies`` at 0 if uvicorn itself replaces the address of the peer by ``X-Forwarded-For``, as it
does for a peer in ``--forwarded-allow-ips`` (127.0.0.1 by default).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from structlog_audit.contrib.actor import (
    Actor,
    checked_function,
    checked_proxies,
    own_context,
    request_actor,
    set_actor,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def user_of_scope(scope: Scope) -> Any:
    """Return the user that an authentication middleware has set, or None."""
    return scope.get("user")


def no_session(scope: Scope) -> None:
    """Return None: no session is recorded."""


class AuditContextMiddleware:
    """ASGI middleware that names the actor in the events of each request.

    ``app.add_middleware(AuditContextMiddleware, trusted_proxies=1)``

    Args:
        app: The application.
        user: A function of the scope, ``async`` or not, that returns the user: an id, an object that has one, or None.
        session: A function of the scope, ``async`` or not, that returns the text to record for the session, or None.
        trusted_proxies: How many proxies in front append to ``X-Forwarded-For``; 0 ignores that header.

    Raises:
        AuditTypeError: *user* or *session* is not a function, or *trusted_proxies* not an integer.
        AuditValueError: *trusted_proxies* is negative.
    """

    def __init__(
        self,
        app: Application,
        *,
        user: Callable[[Scope], Any] = user_of_scope,
        session: Callable[[Scope], Any] = no_session,
        trusted_proxies: int = 0,
    ) -> None:
        self.app = app
        self._user = checked_function("user", user)
        self._session = checked_function("session", session)
        self._trusted_proxies = checked_proxies(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; in a request, with its actor bound.

        Raises:
            AuditTypeError: The user is an object without an id.
        """
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        is_early = self._user is user_of_scope and "user" not in scope
        with own_context() as outside:
            set_actor(await self._actor(scope))

            # A server may begin the next request in a copy of the context in which it is called here.
            await self.app(scope, outside.around(receive), outside.around(send))

        if is_early and "user" in scope:
            warnings.warn(
                "AuditContextMiddleware ran before the user was known: add it before AuthenticationMiddleware,"
                " since Starlette runs the middleware first that was added last",
                RuntimeWarning,
                stacklevel=1,
            )

    async def _actor(self, scope: Scope) -> Actor:
        user = await _awaited(self._user(scope))
        session_id = await _awaited(self._session(scope))
        client = scope.get("client")
        return request_actor(
            user,
            session_id,
            request_id=_header(scope, b"x-request-id"),
            peer=client[0] if client else None,
            forwarded_for=_header(scope, b"x-forwarded-for"),
            trusted_proxies=self._trusted_proxies,
        )


def _header(scope: Scope, name: bytes) -> str | None:
    """Return the value of the header *name*, or None.

    ASGI has names in lower case. Several values are joined by commas.
    """
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else None


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
