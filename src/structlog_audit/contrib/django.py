"""`AuditContextMiddleware` for Django: the events of a request name who acts. Takes Django 4.2 or newer.

Rules:

* What is bound, what is believed and when it ends: see `structlog_audit.contrib.actor`. It holds until the response is
  made, and for each piece of a streamed one.
* In ``MIDDLEWARE`` it comes behind ``AuthenticationMiddleware``, and behind
  ``django_structlog.middlewares.RequestMiddleware`` if that is there: its ``request_id`` is kept. If a user appears only
  later, a warning says so.
* The audit handler is configured in Django's ``LOGGING``, as in any ``dictConfig``.
* The user is ``request.user``. It is read for each request, which loads the session and the user and lets the response vary
  by cookie. The session is the digest of its key. A user whom only the view knows (a login, a token of REST framework) is
  bound there: ``bind_contextvars(user_id=…)``.
* Options are in the setting ``STRUCTLOG_AUDIT``: ``user`` and ``session``, functions of the request or the dotted paths of
  such, and ``trusted_proxies``.
* Under ASGI these functions run in the thread where Django allows its database, so they are plain functions.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.utils.module_loading import import_string

from structlog_audit.contrib.actor import (
    Actor,
    acting,
    checked_function,
    checked_proxies,
    current_actor,
    request_actor,
    session_digest,
)
from structlog_audit.exceptions import AuditTypeError

_OPTIONS = ("user", "session", "trusted_proxies")


def user_of_request(request: Any) -> Any:
    """The user that Django's authentication has found; None if it is not in use."""
    return getattr(request, "user", None)


def session_of_request(request: Any) -> str | None:
    """The digest of the key of the request's session; None if it has none, or the key that was sent opens none."""
    session: Any = getattr(request, "session", None)
    if getattr(session, "session_key", None):
        "" in session  # noqa: B015 (loads it: only then does Django drop a key that it does not know)
    return session_digest(getattr(session, "session_key", None))


class AuditContextMiddleware:
    """Django middleware, for WSGI and ASGI, that says who acts in the events of each request.

    Raises:
        AuditTypeError: An option in the setting ``STRUCTLOG_AUDIT`` is unknown, or of the wrong type.
        AuditValueError: ``trusted_proxies`` is negative.
        ImportError: There is nothing at a dotted path.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        options = getattr(settings, "STRUCTLOG_AUDIT", {})
        unknown = set(options) - set(_OPTIONS)
        if unknown:
            raise AuditTypeError(f"STRUCTLOG_AUDIT has {sorted(unknown)}: the options are {', '.join(_OPTIONS)}")
        self.get_response = get_response
        self._user = _function("user", options.get("user", user_of_request))
        self._session = _function("session", options.get("session", session_of_request))
        self._trusted_proxies = checked_proxies(options.get("trusted_proxies", 0))
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """The response to *request*; under ASGI, what is awaited for it.

        Raises:
            AuditTypeError: The user is an object that has no id.
        """
        if self._is_async:
            return self._answer(request)
        is_early = self._is_early(request)
        with acting(self._actor(request)):
            response = _kept(self.get_response(request))
        self._tell_if(is_early and hasattr(request, "user"))
        return response

    async def _answer(self, request: Any) -> Any:
        is_early = self._is_early(request)
        with acting(await sync_to_async(self._actor)(request)):
            response = _kept(await self.get_response(request))
        self._tell_if(is_early and hasattr(request, "user"))
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

    def _tell_if(self, was_early: bool) -> None:
        if was_early:
            warnings.warn(
                "AuditContextMiddleware ran before the user was known: put it behind AuthenticationMiddleware in MIDDLEWARE",
                RuntimeWarning,
                stacklevel=1,
            )


def _kept(response: Any) -> Any:
    """*response*; if it is streamed, who acts now acts while each piece is made."""
    is_file = (
        getattr(response, "file_to_stream", None) is not None
    )  # sent by the server, without code of the application
    if response.streaming and not is_file:
        actor, close = current_actor(), response.close
        pieces = _apieces if response.is_async else _pieces
        response.streaming_content = pieces(response.streaming_content, actor)
        response.close = lambda: _closed(close, actor)
    return response


def _closed(close: Callable[[], None], actor: Actor) -> None:
    """Close a streamed response: what its generator still does then, since nobody reads on, is done as *actor*."""
    with acting(actor):
        close()


def _pieces(content: Iterator[bytes], actor: Actor) -> Iterator[bytes]:
    """What *content* yields, each made as *actor*; between them it is somebody else's turn."""
    while True:
        with acting(actor):
            try:
                piece = next(content)
            except StopIteration:
                return
        yield piece


async def _apieces(content: AsyncIterator[bytes], actor: Actor) -> AsyncIterator[bytes]:
    """As `_pieces`."""
    while True:
        with acting(actor):
            try:
                piece = await anext(content)
            except StopAsyncIteration:
                return
        yield piece


def _function(name: str, given: Any) -> Callable[[Any], Any]:
    function = checked_function(name, import_string(given) if isinstance(given, str) else given)
    if iscoroutinefunction(function):
        raise AuditTypeError(f"{name}={given!r}: give a plain function, not an async one")
    return function
