"""Who acts: what of a request goes into its events, and what of it is believed.

Rules:

* An actor is four fields in structlog's contextvars: ``user_id`` and ``session_id`` (members of every event),
  ``request_id`` and ``client_address`` (in its metadata). Every door of this library merges them into events, below what
  the call itself says.
* As long as a request lasts, they are that request's: a field that it doesn't have is unbound, so that nothing of another
  request is left; afterwards, whatever happened, they are as they were. This holds for what the application binds to one of
  them meanwhile, too: that ends with the request.
* The user is who the application says, never what a header says. ``None``, ``False`` and a user whose ``is_authenticated`` is
  false are nobody. Of any other user object ``pk``, ``id``, ``identity`` or ``username`` is taken, the first that there is; a
  user without any of them is an error, since an event that names nobody would be wrong evidence.
* A session's key opens the session to whoever reads it, so by default its digest is recorded. What an application gives
  itself is recorded as it is.
* ``X-Request-ID`` is a label that anyone can send. It is taken if it has 1 to 128 characters of ``A-Z a-z 0-9 . _ : / + =
  -``; otherwise the request gets a new one. A ``request_id`` that somebody outside has bound already (django-structlog, a
  middleware of the application) stays, so that the logs and the trail agree.
* ``X-Forwarded-For`` is not read, unless the application says how many proxies of its own are in front, each of which
  appends the address that it saw (RFC 7239, section 8.1: anything further left may be forged). Then the address is that
  many entries from the right. If there are fewer, or if it is no IP address, it is the peer's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from structlog.contextvars import bind_contextvars, reset_contextvars, unbind_contextvars

from structlog_audit.events.context import bound_context
from structlog_audit.exceptions import AuditTypeError, AuditValueError

FIELDS = ("user_id", "session_id", "request_id", "client_address")
"""The fields of an actor, in structlog's contextvars."""

Actor = Mapping[str, str | None]
"""The fields by their names; None for one that is not known."""

_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PORT = re.compile(r"\[(?P<six>[^\]]*)\](:\d+)?|(?P<four>[^:]*):\d+")
_ID_ATTRIBUTES = ("pk", "id", "identity", "username")


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """A block whose events are *actor*'s: those of `FIELDS` that it has, and none that it has not."""
    fields = {**dict.fromkeys(FIELDS), **actor}
    tokens = bind_contextvars(**fields)
    unbind_contextvars(*(name for name, value in fields.items() if value is None))
    try:
        yield
    finally:
        reset_contextvars(**tokens)


def current_actor() -> Actor:
    """Who acts here and now, as texts."""
    bound = bound_context({})
    return {name: None if bound.get(name) is None else str(bound[name]) for name in FIELDS}


def request_actor(
    user: Any,
    session_id: str | None,
    *,
    request_id: str | None,
    peer: str | None,
    forwarded_for: str | None,
    trusted_proxies: int,
) -> Actor:
    """The actor of a request.

    Args:
        user: The user, as for `user_id_of`.
        session_id: What is recorded of the session.
        request_id: What the header ``X-Request-ID`` says.
        peer: The address that the connection comes from.
        forwarded_for: What the header ``X-Forwarded-For`` says, several joined by commas.
        trusted_proxies: How many of its last entries are by proxies that are trusted.
    """
    found = (
        user_id_of(user),
        session_id,
        bound_context({}).get("request_id") or safe_request_id(request_id),
        client_address(peer, forwarded_for, trusted_proxies),
    )
    return dict(zip(FIELDS, found, strict=True))


def user_id_of(user: Any) -> str | None:
    """What is recorded of *user*: a text, whole number or UUID as it is, an object by its id, None for nobody.

    Raises:
        AuditTypeError: It is an object that has no id.
    """
    if user is None or user is False or not getattr(user, "is_authenticated", True):
        return None
    if isinstance(user, str | int | uuid.UUID):
        return str(user)
    for name in _ID_ATTRIBUTES:
        try:
            value = getattr(user, name, None)
        except NotImplementedError:  # Starlette's BaseUser leaves `identity` to its subclasses
            continue
        if value is not None:
            return str(value)
    raise AuditTypeError(
        f"user: {type(user).__name__} has none of {', '.join(_ID_ATTRIBUTES)}: give a user= that returns the id"
    )


def session_digest(key: str | None) -> str | None:
    """What can be recorded of a session whose random *key* must stay secret: 32 hex digits of its SHA-256; of None, None."""
    return hashlib.sha256(key.encode()).hexdigest()[:32] if key else None


def safe_request_id(header: str | None, *, new: Callable[[], str] = lambda: uuid.uuid4().hex) -> str:
    """*header* if it is safe to record, otherwise a *new* id."""
    return header if header is not None and _SAFE_ID.fullmatch(header) else new()


def client_address(peer: str | None, forwarded_for: str | None, trusted_proxies: int) -> str | None:
    """The address of the client, as far as it is known: from the headers of *trusted_proxies*, or the *peer*'s."""
    entries = (forwarded_for or "").split(",")
    if 0 < trusted_proxies <= len(entries):
        return _ip_address(entries[-trusted_proxies].strip()) or peer or None
    return peer or None


def _ip_address(entry: str) -> str | None:
    """The IP address that *entry* is, with or without a port; None if it is none."""
    port = _PORT.fullmatch(entry)
    text = (port["six"] or port["four"]) if port else entry
    try:
        return None if "%" in text else str(ipaddress.ip_address(text))  # what follows a % may be anything
    except ValueError:
        return None


def checked_proxies(trusted_proxies: Any) -> int:
    """*trusted_proxies*, if that is a number of proxies.

    Raises:
        AuditTypeError: It is no whole number.
        AuditValueError: It is negative.
    """
    if type(trusted_proxies) is not int:
        raise AuditTypeError(f"trusted_proxies={trusted_proxies!r}: give a whole number")
    if trusted_proxies < 0:
        raise AuditValueError(f"trusted_proxies={trusted_proxies!r}: give 0 or the number of proxies in front")
    return trusted_proxies


def checked_function(name: str, function: Any) -> Callable[[Any], Any]:
    """*function*, if it is one; *name* is the parameter that it was given by.

    Raises:
        AuditTypeError: It can't be called.
    """
    if not callable(function):
        raise AuditTypeError(f"{name}={function!r}: give a function of the request")
    checked: Callable[[Any], Any] = function
    return checked
