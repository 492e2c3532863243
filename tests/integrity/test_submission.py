"""Tests of `structlog_audit.integrity.submission`: one request, whatever the service does."""

import socket

import pytest
from witnesses import answer_of, serving

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit.integrity.submission import MAX_ANSWER_BYTES, SubmissionError, post, require_url


def send(data):
    return lambda connection, request: connection.sendall(data)


def test_post_returns_status_and_body_and_sends_the_data_with_its_type():
    """A request has the path, the query, the type and the data; its answer is returned whatever its status."""
    seen = []

    def respond(connection, request):
        seen.append(request)
        connection.sendall(answer_of(422, b"no"))

    with serving(respond) as url:
        assert post(f"{url}/a/b?c=d", "text/x", b"data", 10) == (422, b"no")
    ((head, body),) = seen
    assert head.startswith(b"POST /a/b?c=d HTTP/1.1\r\n")
    assert b"Content-Type: text/x\r\n" in head
    assert body == b"data"


def test_post_does_not_follow_a_redirect():
    """A redirect is an answer: the checkpoint goes to the address of the configuration only."""
    requests = []

    def respond(connection, request):
        requests.append(request)
        connection.sendall(answer_of(307, b"", "Location: /elsewhere"))

    with serving(respond) as url:
        assert post(url, "text/plain", b"", 10) == (307, b"")
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "RemoteDisconnected"),
        (b"SSH-2.0-OpenSSH_9\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "ends early"),
        (answer_of(200, b"x" * (MAX_ANSWER_BYTES + 1)), "more than"),
    ],
)
def test_answers_that_are_not_http_or_too_long_are_errors(data, reason):
    """A service that breaks the protocol raises an error that has the reason, and nothing of the answer."""
    with serving(send(data)) as url, pytest.raises(SubmissionError, match=reason) as caught:
        post(url, "text/plain", b"", 10)
    assert "OpenSSH" not in str(caught.value)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"])
def test_answer_that_never_ends_is_an_error(beginning):
    """A service that sends a byte now and then, in the headers or the body, does not hold up the request."""

    def respond(connection, request):
        connection.settimeout(0.05)
        connection.sendall(beginning)
        while True:
            connection.sendall(b"a")
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    with serving(respond) as url, pytest.raises(SubmissionError, match="no answer"):
        post(url, "text/plain", b"", 0.3)


def test_refused_connection_is_an_error_with_its_reason():
    """An address where nothing listens raises an error that has the error of the system."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SubmissionError, match="ConnectionRefusedError"):
        post(f"http://127.0.0.1:{port}", "text/plain", b"", 10)


def test_https_to_a_server_without_tls_is_an_error():
    """The scheme https never falls back to plain text."""
    with serving(send(answer_of(200, b"ok"))) as url, pytest.raises(SubmissionError, match="SSL"):
        post(url.replace("http:", "https:"), "text/plain", b"", 10)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "witness.example",
        "ftp://witness.example",
        "http://",
        "http:///path",
        "http://witness.example:port",
        "http://witness.example:0",
        "http://witness.example:99999",
        "http://[::1",
        "http://user:secret@witness.example",
        "http://witness.example/a b",
        "http://witness.example/\r\nX: y",
        "http://wîtness.example",
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_passwords(value):
    """An address without scheme or host, or with anything that http.client would misread, is an invalid value."""
    with pytest.raises(AuditValueError, match="expected an address") as caught:
        require_url("url", value)
    assert "secret" not in str(caught.value)


def test_address_of_another_type_is_refused():
    """An address that is not text is a wrong type."""
    with pytest.raises(AuditTypeError, match="got NoneType"):
        require_url("url", None)
