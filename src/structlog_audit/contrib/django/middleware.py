"""`AuditContextMiddleware` for Django: names the actor in the events of a request.

**Scope.** It covers a request until its response is made, and each piece of a streamed response. A binding of a view or a
middleware in structlog's contextvars ends with the request. `structlog_audit.contrib.actor` has the rules of binding and trust.

**Position.** In ``MIDDLEWARE`` it comes after ``AuthenticationMiddleware``, and after the ``RequestMiddleware`` of
django-structlog, whose ``request_id`` it keeps. If a user appears only later, a warning reports it. The handler is configured
in Django's ``LOGGING``.

**User and session.** The user is ``request.user``, the session the digest of its key. Reading them for each request loads both
and lets the response vary by cookie. A user that only the view knows (a login, a token of REST framework) is bound there:
``bind_contextvars(user_id=…)``.

**Options.** The setting ``STRUCTLOG_AUDIT`` holds ``user`` and ``session`` (plain functions of the request, or dotted paths of
them, which under ASGI run in the thread where Django allows database access) and ``trusted_proxies``.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.utils.module_loading import import_string

from structlog_audit.contrib.actor import (
    Actor,
    SavedContext,
    checked_function,
    checked_proxies,
    own_context,
    request_actor,
    session_digest,
    set_actor,
)
from structlog_audit.events.context import ACTOR
from structlog_audit.exceptions import AuditTypeError

_OPTIONS = ("user", "session", "trusted_proxies")


def user_of_request(request: Any) -> Any:
    """Return the user that Django's authentication has set; None if it is not in use."""
    return getattr(request, "user", None)


def session_of_request(request: Any) -> str | None:
    """Return the digest of the key of the request's session.

    None without a session, or with a key that opens none.
    """
    session: Any = getattr(request, "session", None)
    if getattr(session, "session_key", None):
        # This loads the session. Only then does Django drop a key that it does not know.
        "" in session  # noqa: B015
    return session_digest(getattr(session, "session_key", None))


class AuditContextMiddleware:
    """Django middleware, for WSGI and ASGI, that names the actor in the events of each request.

    Raises:
        AuditTypeError: An option in the setting ``STRUCTLOG_AUDIT`` is unknown or has the wrong type.
        AuditValueError: ``trusted_proxies`` is negative.
        ImportError: A dotted path can't be imported.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        options = getattr(settings, "STRUCTLOG_AUDIT", {})
        unknown = set(options) - set(_OPTIONS)
        if unknown:
            raise AuditTypeError(f"STRUCTLOG_AUDIT: expected only {', '.join(_OPTIONS)}, got {sorted(unknown)}")

        self.get_response = get_response
        self._user = _function("user", options.get("user", user_of_request))
        self._session = _function("session", options.get("session", session_of_request))
        self._trusted_proxies = checked_proxies(options.get("trusted_proxies", 0))

        request_started.connect(_begin_request)
        request_finished.connect(_end_request)

        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Return the response to *request*; under ASGI, an awaitable of it.

        Raises:
            AuditTypeError: The user is an object without an id.
        """
        if self._is_async:
            return self._respond_async(request)

        is_early = self._is_early(request)
        with own_context():
            set_actor(self._actor(request))
            response = _with_context_in_stream(self.get_response(request))
        self._warn_if_early(is_early, request)
        return response

    async def _respond_async(self, request: Any) -> Any:
        is_early = self._is_early(request)
        with own_context():
            set_actor(await sync_to_async(self._actor)(request))
            response = _with_context_in_stream(await self.get_response(request))
        self._warn_if_early(is_early, request)
        return response

    def _actor(self, request: Any) -> Actor:
        return request_actor(
            self._user(request),
            self._session(request),
            request_id=request.headers.get("X-Request-ID"),
            peer=request.META.get("REMOTE_ADDR"),
            forwarded_for=request.headers.get("X-Forwarded-For"),
            trusted_proxies=self._trusted_proxies,
        )

    def _is_early(self, request: Any) -> bool:
        return self._user is user_of_request and not hasattr(request, "user")

    def _warn_if_early(self, was_early: bool, request: Any) -> None:
        if was_early and hasattr(request, "user"):
            warnings.warn(
                "AuditContextMiddleware ran before the user was known: put it behind AuthenticationMiddleware in MIDDLEWARE",
                RuntimeWarning,
                stacklevel=1,
            )


_before_request: ContextVar[SavedContext | None] = ContextVar("audit_before_request", default=None)
"""The context of a server's thread before its current request."""


def _begin_request(**_: Any) -> None:
    """Keep the context in which a request begins; middleware around this one may bind values and leave them."""
    before = _before_request.get()

    # The previous request has not ended. One in the middle of another, such as of a test client in a view, has an actor.
    if before is not None and ACTOR.get() is None:
        before.restore()
    _before_request.set(SavedContext())


def _end_request(**_: Any) -> None:
    """Restore the context in which the request began."""
    before = _before_request.get()
    if before is not None:
        before.restore()
        _before_request.set(None)


def _with_context_in_stream(response: Any) -> Any:
    """Let each piece of a streamed *response* be made in the current context.

    Return *response*, which is unchanged if it is not streamed.
    """
    # The server sends a file without calling code of the application.
    is_file = getattr(response, "file_to_stream", None) is not None
    if response.streaming and not is_file:
        context = SavedContext()
        close = response.close
        pieces = _pieces_async if response.is_async else _pieces
        response.streaming_content = pieces(response.streaming_content, context)
        response.close = lambda: _close_in(context, close)
    return response


def _close_in(context: SavedContext, close: Callable[[], None]) -> None:
    """Close a streamed response in its *context*.

    Its generator may still run code of the application then.
    """
    with context.active():
        close()


def _pieces(content: Iterator[bytes], context: SavedContext) -> Iterator[bytes]:
    """Yield the pieces of *content*, each made in *context*.

    Between them other code runs in this thread.
    """
    while True:
        with context.active():
            try:
                piece = next(content)
            except StopIteration:
                return
        yield piece


async def _pieces_async(content: AsyncIterator[bytes], context: SavedContext) -> AsyncIterator[bytes]:
    """Yield as `_pieces` does."""
    while True:
        with context.active():
            try:
                piece = await anext(content)
            except StopAsyncIteration:
                return
        yield piece


def _function(name: str, given: Any) -> Callable[[Any], Any]:
    """Return the function in the option *name*, which may be a dotted path."""
    function = checked_function(name, import_string(given) if isinstance(given, str) else given)
    if iscoroutinefunction(function):
        raise AuditTypeError(f"{name}={given!r}: expected a plain function, got an async one")
    return function
