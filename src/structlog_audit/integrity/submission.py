"""One request to a service that anchors checkpoints, by the standard library's HTTP client.

**Guarantees.** A request ends after its time, whatever the service does. TLS certificates are verified. Redirects are not
followed, proxies of the environment are not used, and an answer has at most `MAX_ANSWER_BYTES`.

**Failure handling.** Each failure is a `SubmissionError`, whose message has nothing of the answer but its status.
"""

from __future__ import annotations

# Used by each connection, and imported here, as the module head of `structlog_audit.integrity.background` explains.
import encodings.idna  # noqa: F401
import errno
import http.client
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from structlog_audit._failures import describe_failure
from structlog_audit._version import __version__
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError

MAX_ANSWER_BYTES = 1_000_000

Post = Callable[[str, str, bytes, float], tuple[int, bytes]]
"""Posts to an address data of a type within a number of seconds; returns the status and the body."""


class SubmissionError(AuditError):
    """A service could not be reached, or gave another answer than was requested. It is counted, and does not reach a caller."""


class RefusedError(SubmissionError):
    """A service refused a checkpoint because it contradicts one that it has.

    Attributes:
        code: ``FORKED`` or ``ROLLED_BACK``, as the verifier says it.
        size: The size of the checkpoint that the service has; None if it does not state it.
    """

    def __init__(self, code: str, message: str, size: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.size = size


def require_url(name: str, value: Any) -> str:
    """Return *value*, the address of a service.

    Raises:
        AuditTypeError: The value is not text.
        AuditValueError: The value is not an address with ``http`` or ``https`` and a host.
    """
    expected = f"{name}={value!r}: expected an address such as 'https://witness.example/prefix'"
    if not isinstance(value, str):
        raise AuditTypeError(f"{expected}, got {type(value).__name__}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise AuditValueError(f"{expected}, in ASCII and without spaces")
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise AuditValueError(f"{expected} ({error})") from None

    if parts.scheme not in ("http", "https") or not has_host:
        raise AuditValueError(expected)
    if parts.username is not None:
        raise AuditValueError(f"{name}: expected an address without a user name and a password")
    return value


def post(url: str, content_type: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """Return the status and the body of the answer to *body* at *url*.

    Raises:
        SubmissionError: There was no answer within *seconds*, or it is not one of HTTP, or too long.
    """
    parts = urlsplit(url)
    is_encrypted = parts.scheme == "https"
    connection_class = http.client.HTTPSConnection if is_encrypted else http.client.HTTPConnection
    connection = connection_class(parts.hostname or "", parts.port, timeout=seconds)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": content_type, "User-Agent": f"structlog-audit/{__version__}"}

    try:
        with _ending_after(seconds, connection):
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # A socket that is shut down meanwhile raises a ValueError in the TLS layer.
        raise SubmissionError(f"no answer: {describe_failure(error)}") from error
    finally:
        connection.close()

    if len(answer) > MAX_ANSWER_BYTES:
        raise SubmissionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    if response.length:
        raise SubmissionError("an answer that ends early")
    return response.status, answer


@contextmanager
def _ending_after(seconds: float, connection: http.client.HTTPConnection) -> Iterator[None]:
    """Shut *connection* down if the ``with`` block takes longer than *seconds*.

    The timeout of a socket is one for each read, and a service may send one byte at a time.

    Raises:
        TimeoutError: The block took longer, and did not notice.
    """
    opened: list[socket.socket] = []
    is_over = threading.Event()

    def shut_down() -> None:
        is_over.set()
        for sock in (*opened, connection.sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    # While the interpreter shuts down, no thread can be started; the timeout of the socket remains.
    with suppress(RuntimeError):
        timer.start()
    try:
        connection.connect()
        # The connection forgets its socket as soon as the answer begins.
        opened.append(connection.sock)
        yield
        # An answer without a length ends with the connection.
        if is_over.is_set():
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    finally:
        timer.cancel()
