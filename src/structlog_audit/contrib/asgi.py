"""`AuditContextMiddleware` for FastAPI, Starlette and every other ASGI application: the events of a request name who acts.

Rules:

* What is bound, what is believed and when it ends: see `structlog_audit.contrib.actor`. It holds for HTTP requests and for
  WebSockets, until the application has finished, background tasks and streamed answers included.
* The user is ``scope["user"]``, which Starlette's ``AuthenticationMiddleware`` sets: it must run before, that is, be added
  after (Starlette runs the middleware that was added last first). If a user appears only later, a warning says so. An
  application that finds the user elsewhere gives ``user=``.
* A user whom only a dependency of the endpoint knows is bound there: ``bind_contextvars(user_id=…)`` in an ``async def``
  dependency. A plain ``def`` one runs in a thread, on a copy of the context, and what it binds is lost.
* No session is recorded unless ``session=`` says which: ASGI has none, and Starlette's have no id.
* uvicorn replaces the peer's address by what ``X-Forwarded-For`` says, if the peer is in ``--forwarded-allow-ips``,
  127.0.0.1 unless told otherwise. Then ``trusted_proxies`` stays 0.
* It is pure ASGI: nothing of a framework is imported, and no task stands between it and the application.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from structlog_audit.contrib.actor import Actor, acting, checked_function, checked_proxies, request_actor

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def user_of_scope(scope: Scope) -> Any:
    """The user that an authentication middleware has found; None if there is none."""
    return scope.get("user")


def no_session(scope: Scope) -> None:
    """None: no session is recorded."""


class AuditContextMiddleware:
    """ASGI middleware that says who acts in the events of each request.

    ``app.add_middleware(AuditContextMiddleware, trusted_proxies=1)``

    Args:
        app: The application.
        user: A function of the scope, ``async`` or not, that returns the user: an id, an object that has one, or None.
        session: A function of the scope, ``async`` or not, that returns what to record of the session, or None.
        trusted_proxies: How many proxies in front append to ``X-Forwarded-For``; 0 if it is not to be read.

    Raises:
        AuditTypeError: *user* or *session* is no function, or *trusted_proxies* no whole number.
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
        """Run the application; in a request, as who made it.

        Raises:
            AuditTypeError: The user is an object that has no id.
        """
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        is_early = self._user is user_of_scope and "user" not in scope
        with acting(await self._actor(scope)):
            await self.app(scope, receive, send)
        if is_early and "user" in scope:
            warnings.warn(
                "AuditContextMiddleware ran before the user was known: add it before AuthenticationMiddleware,"
                " since Starlette runs the middleware first that was added last",
                RuntimeWarning,
                stacklevel=1,
            )

    async def _actor(self, scope: Scope) -> Actor:
        client = scope.get("client")
        return request_actor(
            await _awaited(self._user(scope)),
            await _awaited(self._session(scope)),
            request_id=_header(scope, b"x-request-id"),
            peer=client[0] if client else None,
            forwarded_for=_header(scope, b"x-forwarded-for"),
            trusted_proxies=self._trusted_proxies,
        )


def _header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, several joined by commas; None if there is none."""
    values = [value for key, value in scope["headers"] if key == name]  # ASGI has the names in lower case
    return b",".join(values).decode("latin-1") if values else None


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
