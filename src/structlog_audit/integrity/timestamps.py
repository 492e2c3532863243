"""Time stamps of checkpoints by a time-stamping authority (RFC 3161).

**Guarantees.** A stamp that is kept was granted, and has the hash of the checkpoint and the nonce of this request. Who signed
it is not verified here: that is up to the auditor, with the certificate of the authority and ``openssl ts -verify``.

The request is a constant around a hash and a nonce. Of the response only the status is parsed, so every authority can be used:
rfc3161-client 1.0.9 refuses responses whose certificates are not sorted, as those of ``openssl ts`` with a chain.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from structlog_audit.integrity.submission import Post, SubmissionError, post, require_url

_QUERY_TYPE = "application/timestamp-query"

_SHA256_IMPRINT = bytes.fromhex("3031300d060960864801650304020105000420")
"""The DER of a MessageImprint with SHA-256, up to the 32 bytes of the hash."""

_VERSION = bytes.fromhex("020101")
_CERTIFICATE_REQUESTED = bytes.fromhex("0101ff")
_SEQUENCE, _INTEGER = 0x30, 0x02
_GRANTED = (0, 1)
"""The statuses granted and grantedWithMods."""


class TimestampAuthority:
    """The client of one time-stamping authority.

    Args:
        url: Its address.
        post: Posts a request.
        randbytes: Returns random bytes.
    """

    def __init__(self, url: str, *, post: Post = post, randbytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._url = url
        self._post = post
        self._randbytes = randbytes

    @classmethod
    def from_config(cls, place: str, config: Any, *, post: Post = post) -> TimestampAuthority:
        """Return the authority at the address *config*.

        Raises:
            AuditTypeError, AuditValueError: It is not an address.
        """
        return cls(require_url(place, config), post=post)

    def stamp(self, data: bytes, seconds: float) -> bytes:
        """Return the response of the authority with a time stamp of *data* (a TimeStampResp in DER).

        Raises:
            SubmissionError: There is no such response within *seconds*.
        """
        digest = hashlib.sha256(data).digest()
        # A leading 1 makes the nonce a positive number of nine bytes in its shortest form.
        nonce = bytes([_INTEGER, 9, 1]) + self._randbytes(8)
        query = _VERSION + _SHA256_IMPRINT + digest + nonce + _CERTIFICATE_REQUESTED
        status, response = self._post(self._url, _QUERY_TYPE, bytes([_SEQUENCE, len(query)]) + query, seconds)

        if status != 200:
            raise SubmissionError(f"status {status}")
        granted = _status_of(response)
        if granted not in _GRANTED:
            raise SubmissionError(f"the authority does not grant the stamp: status {granted}")
        if digest not in response or nonce not in response:
            raise SubmissionError("a time stamp of something else")
        return response


def _status_of(response: bytes) -> int:
    """Return the PKIStatus of a TimeStampResp.

    Raises:
        SubmissionError: The bytes are not a TimeStampResp.
    """
    try:
        members, rest = _content(response, _SEQUENCE)
        info, _ = _content(members, _SEQUENCE)
        status, _ = _content(info, _INTEGER)
    except (IndexError, ValueError) as error:
        raise SubmissionError("an answer that is not a time stamp") from error
    if rest:
        raise SubmissionError("an answer with bytes behind the time stamp")
    return int.from_bytes(status, "big", signed=True)


def _content(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the DER element with *tag* at the beginning of *data*, and the rest.

    Raises:
        IndexError, ValueError: There is no such element.
    """
    begin, length = 2, data[1]
    if length > 0x80:
        begin += length - 0x80
        length = int.from_bytes(data[2:begin], "big")
    end = begin + length
    if data[0] != tag or length == 0 or length == 0x80 or end > len(data):
        raise ValueError("expected another element")
    return data[begin:end], data[end:]
