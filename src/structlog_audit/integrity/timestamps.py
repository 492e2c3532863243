"""Time stamps of checkpoints by a time-stamping authority (RFC 3161).

**Guarantees.** A stamp that is kept was granted, and is of the checkpoint and of this request. Who signed it is not verified
here: that is up to the auditor, with the authority's certificate and ``openssl ts -verify``.

``rfc3161-client`` is imported with the first stamp (extra ``timestamps``).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from structlog_audit.exceptions import AuditValueError
from structlog_audit.integrity.submission import Post, SubmissionError, post, require_url

_QUERY_TYPE = "application/timestamp-query"


class TimestampAuthority:
    """The client of one time-stamping authority.

    Args:
        url: Its address.
        post: Posts a request.
    """

    def __init__(self, url: str, *, post: Post = post) -> None:
        self.name = url
        self._post = post

    @classmethod
    def from_config(cls, place: str, config: Any, *, post: Post = post) -> TimestampAuthority:
        """Return the authority at the address *config*.

        Raises:
            AuditTypeError, AuditValueError: It is not an address, or the package is missing.
        """
        url = require_url(place, config)
        if find_spec("rfc3161_client") is None:
            raise AuditValueError(f"{place}: time stamps need a package: pip install 'structlog-audit[timestamps]'")
        return cls(url, post=post)

    def stamp(self, data: bytes, seconds: float) -> bytes:
        """Return the response of the authority with a time stamp of *data* (a TimeStampResp in DER).

        Raises:
            SubmissionError: There is no such response within *seconds*.
        """
        from rfc3161_client import HashAlgorithm, PKIStatus, TimestampRequestBuilder, decode_timestamp_response

        builder = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256)
        request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
        status, answer = self._post(self.name, _QUERY_TYPE, request.as_bytes(), seconds)
        if status != 200:
            raise SubmissionError(f"status {status}")

        try:
            response = decode_timestamp_response(answer)
            is_granted = response.status in (PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS)
            info = response.tst_info if is_granted else None
        except ValueError as error:
            raise SubmissionError("an answer that is not a time stamp") from error
        if info is None:
            raise SubmissionError(f"the authority does not grant the stamp: status {response.status}")
        if info.message_imprint.message != request.message_imprint.message or info.nonce != request.nonce:
            raise SubmissionError("a time stamp of something else")
        return answer
