"""The status that a word, a truth value or an HTTP code states: one table for every entry point and for lines of others.

**Guarantees**

* A text counts in any case; spaces, hyphens, underscores, full stops and capitals between its words do not matter:
  ``Permission denied``, ``PERMISSION_DENIED`` and ``PermissionDenied`` are one word.
* A text whose last one or two words say failure is a FAILURE, such as ``login_failed``, unless one negates it. What follows a
  colon does not matter: ``error: disk full``.
* Words for the end of an operation, such as ``done``, state nothing, nor do the states of a resource, such as
  ``archived``. `stated_status` returns None for them, and the caller keeps the value and marks it.
"""

from __future__ import annotations

import re
from enum import Enum
from numbers import Real
from typing import Any, Final

from structlog_audit.events.event import EventStatus
from structlog_audit.events.foreign_values import unwrapped


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUCCESS_WORDS: Final = _words(
    """
    success successful successfully succeed succeeds succeeded ok okay pass passed true yes
    accepted allowed approved authenticated authorised authorized granted permitted
    auditsuccess noerror noerrors
    """
)

FAILURE_WORDS: Final = _words(
    """
    failure failures fail fails failed failing unsuccessful unsuccessfully notok nok ko false no
    error errors errored err exception fatal panic crash crashed
    denied deny denial accessdenied permissiondenied rejected reject rejection refused refusal declined disapproved
    unauthorised unauthorized unauthenticated notauthorised notauthorized notauthenticated unapproved notapproved
    forbidden prohibited disallowed notallowed notpermitted notaccepted notgranted blocked
    timeout timedout deadlineexceeded abort aborted cancelled canceled interrupted killed oomkilled
    invalid invalidargument badrequest notfound conflict alreadyexists failedprecondition outofrange
    unprocessable unprocessableentity toomanyrequests ratelimited throttled resourceexhausted
    unavailable unreachable unimplemented notimplemented unsupported notsupported dataloss
    notsuccessful nosuccess notsucceeded notpassed
    """
)

PARTIAL_WORDS: Final = _words(
    """
    partial partially partly partialsuccess partiallysuccessful partiallysucceeded partialfailure partiallyfailed
    partialerror partialcontent incomplete mixed multistatus
    successwitherrors succeededwitherrors succeededwithissues completewitherrors completedwitherrors
    """
)

_STATUS_OF: Final = {
    **dict.fromkeys(SUCCESS_WORDS, EventStatus.SUCCESS),
    **dict.fromkeys(FAILURE_WORDS, EventStatus.FAILURE),
    **dict.fromkeys(PARTIAL_WORDS, EventStatus.PARTIAL),
}

_NEGATIONS: Final = frozenset(("no", "not", "non", "never", "without", "zero", "0"))

_LONGEST: Final = 200
"""The limit of characters of a text that can be a status."""

_BOUNDARY: Final = re.compile(r"[\s_.-]+|(?<=[a-z])(?=[A-Z])")

_NOTHING = frozenset(("", "0", "no", "none", "null", "false"))
"""Texts in place of a reason, for its absence."""

_CODE: Final = re.compile(
    r"(?:http(?:/[0-9.]+)?\s+)?([1-9])(?:[0-9]{2}|xx)(?:\s+([^\W\d].*))?", re.ASCII | re.IGNORECASE
)
"""An HTTP code or class of codes as text: ``404``, ``4xx``, ``404 Not Found``, ``HTTP/1.1 404 Not Found``."""


def stated_status(value: Any) -> EventStatus | None:
    """Return the status that *value* states, or None if it states none.

    Values of an application's classes may raise anything.

    Args:
        value: A text, a truth value, an HTTP code, an exception, or a member of an Enum, which counts by its value and
            then by its name.
    """
    value = unwrapped(value)
    if isinstance(value, Enum):
        return stated_status(value.value) or _status_of_text(value.name)
    if isinstance(value, BaseException):
        return EventStatus.FAILURE

    if isinstance(value, str):
        return _status_of_text(str.__str__(value))
    if isinstance(value, bytes):
        return _status_of_text(bytes.decode(value, "utf-8", "replace"))
    if value is True or value is False:
        return EventStatus.SUCCESS if value else EventStatus.FAILURE
    return _status_of_code(value) if isinstance(value, Real) else None


def is_status_name(value: Any) -> bool:
    """Return whether *value* is the name of a status itself, in any case."""
    if isinstance(value, Enum):
        value = value.value
    return isinstance(value, str) and str.upper(value) in EventStatus.__members__


def _status_of_text(text: str) -> EventStatus | None:
    if len(text) > _LONGEST:
        return None

    text = text.strip().rstrip(".!")
    code = _CODE.fullmatch(text)
    if code is not None:
        return _status_of_reply(code[1], code[2] or "")

    status = _STATUS_OF.get("".join(_words_of(text)))
    if status is not None:
        return status

    # A reason may follow a colon, or the number of errors.
    head, colon, reason = text.partition(":")
    if colon and reason.strip().casefold() in _NOTHING:
        return None
    words = _words_of(head)
    for count in (1, 2):
        ending = "".join(words[-count:])
        if ending in FAILURE_WORDS and _NEGATIONS.isdisjoint(words[:-count]):
            return EventStatus.FAILURE
    return None


def _status_of_reply(first_digit: str, phrase: str) -> EventStatus:
    """Return the status of an HTTP code with this *first_digit* and a reason *phrase*, such as ``Not Found``."""
    if first_digit >= "4":
        return EventStatus.FAILURE

    # "200 records failed" is not a success.
    stated = _status_of_text(phrase)
    return EventStatus.SUCCESS if stated is None else stated


def _words_of(text: str) -> list[str]:
    return [word.casefold() for word in _BOUNDARY.split(text)]


def _status_of_code(code: Any) -> EventStatus | None:
    """Return the status of an HTTP *code*, or None for any other number.

    RFC 9110 §15: a client treats codes above 599 as errors of the server.
    """
    if not 100 <= code < 1_000 or code % 1:
        return None
    return EventStatus.SUCCESS if code < 400 else EventStatus.FAILURE
