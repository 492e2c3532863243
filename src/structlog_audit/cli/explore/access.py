"""The guard in front of the site: who may read it, and what its pages may do.

**Guarantees**

* Only requests for the printed address are answered: the token is the first part of each path, so no cookie carries it to
  another server on the same host. Everything else is 403, as is a request with the name of another host (DNS rebinding).
* Nothing is written: methods other than GET and HEAD are 405.
* Pages run no scripts, and load nothing from elsewhere; they are neither cached nor framed, and send no referrer.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy. Styles within a page name its columns on small screens."""

_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_OWN = frozenset(name for name, _ in _HEADERS)
_REFUSALS = {403: b"403: open the address that structlog-audit explore printed\n", 405: b"405: read-only\n"}


class Guard:
    """An ASGI application that passes permitted requests to another one.

    Args:
        application: The site, which gets paths without the token.
        token: The first part of each permitted path.

    Attributes:
        host: The permitted ``Host``, with the port, which is known once the socket is bound.
    """

    def __init__(self, application: Application, token: str) -> None:
        self.host = ""
        self._application = application
        self._token = token.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or the events of the server's life."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        status = self._refusal(scope)
        if status is not None:
            await _refuse(status, send)
            return

        async def send_with_headers(message: Message) -> None:
            await send(_with_headers(message))

        # As behind a proxy: Datasette adds the token to its links, and would add it twice to those made from the path.
        prefix = len(self._token) + 1
        inner = dict(scope)
        for name in ("path", "raw_path"):
            inner[name] = scope[name][prefix:]

        await self._application(inner, receive, send_with_headers)

    def _refusal(self, scope: Message) -> int | None:
        """Return the status with which a request is refused, or None."""
        path = scope["raw_path"].partition(b"?")[0]
        parts = path.split(b"/")
        given = parts[1] if len(parts) > 2 else b""
        if not secrets.compare_digest(given, self._token):
            return 403

        hosts = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
        if hosts != [self.host.encode()]:
            return 403

        if scope["method"] not in ("GET", "HEAD"):
            return 405
        return None


def _with_headers(message: Message) -> Message:
    """Return *message* with the headers of the guard, if it is the start of an answer."""
    if message["type"] != "http.response.start":
        return message

    headers = []
    for name, value in message.get("headers", ()):
        if name.lower() not in _OWN:
            headers.append((name, value))
    headers += _HEADERS

    return {**message, "headers": headers}


async def _refuse(status: int, send: Send) -> None:
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [content_type, *_HEADERS],
    }
    await send(start)

    body = {"type": "http.response.body", "body": _REFUSALS[status]}
    await send(body)
