"""Tests of `structlog_audit.integrity.timestamps`: what counts as a time stamp of a checkpoint."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.integrity.submission import SubmissionError
from structlog_audit.integrity.timestamps import TimestampAuthority


def element(tag, content):
    """Return the DER of one element."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + length.to_bytes(size, "big") + content


def granted(query, status=0, padding=300):
    """Return a response with *status* that repeats what *query* has."""
    info = element(0x30, element(0x02, bytes([status])))
    return element(0x30, info + element(0x30, query + bytes(padding)))


def stamp(respond, data=b"data"):
    queries = []

    def post(url, content_type, query, seconds):
        assert (url, content_type) == ("http://tsa.example", "application/timestamp-query")
        queries.append(query)
        return respond(query)

    authority = TimestampAuthority("http://tsa.example", post=post, randbytes=lambda count: b"\xff" * count)
    return authority.stamp(data, 10), queries


def test_query_is_the_der_of_a_time_stamp_request():
    """A request has version 1, the SHA-256 of the data, a nonce, and asks for the certificate (RFC 3161 section 2.4.1)."""
    _, (query,) = stamp(lambda query: (200, granted(query)))
    algorithm = element(0x30, bytes.fromhex("0609608648016503040201") + bytes.fromhex("0500"))
    imprint = element(0x30, algorithm + element(0x04, hashlib.sha256(b"data").digest()))
    nonce = element(0x02, b"\1" + b"\xff" * 8)
    assert query == element(0x30, element(0x02, b"\1") + imprint + nonce + element(0x01, b"\xff"))


@pytest.mark.parametrize("padding", [0, 1, 100, 40_000, 70_000])
@pytest.mark.parametrize("status", [0, 1])
def test_granted_responses_of_any_length_are_returned(status, padding):
    """The response is kept as it is, whether granted as requested or with modifications."""
    response, (query,) = stamp(lambda query: (200, granted(query, status, padding)))
    assert response == granted(query, status, padding)


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (lambda query: (500, granted(query)), "status 500"),
        (lambda query: (200, b""), "not a time stamp"),
        (lambda query: (200, b"<html></html>"), "not a time stamp"),
        (lambda query: (200, granted(query)[:-1]), "not a time stamp"),
        (lambda query: (200, granted(query) + b"x"), "bytes behind"),
        (lambda query: (200, granted(query, status=2)), "status 2"),
        (lambda query: (200, granted(query, status=0x85)), "status -123"),
        (lambda query: (200, granted(query[:40])), "something else"),
        (lambda query: (200, granted(query[:-4])), "something else"),
        (lambda query: (200, granted(query.replace(query[24:30], bytes(6)))), "something else"),
    ],
)
def test_other_answers_are_errors(respond, reason):
    """An answer that is cut, of another form, not granted, or of another hash or nonce is no time stamp."""
    with pytest.raises(SubmissionError, match=reason):
        stamp(respond)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_and_nothing_else(data):
    """For all bytes that do not have the hash and the nonce, the answer is an error."""
    with pytest.raises(SubmissionError):
        stamp(lambda query: (200, data))
