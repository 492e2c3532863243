"""The standard library's handlers that send messages, as targets: an event that they refuse never blocks the others."""

from __future__ import annotations

import contextlib
import errno
import http.server
import io
import logging
import logging.handlers
import pickle
import queue
import smtplib
import socket
import threading
import urllib.parse

import pytest
from test_targets import audit_over, counters, entry_of, log_to

from structlog_audit import AuditJsonFormatter, AuditWriteError
from structlog_audit._failures import DeliveryError
from structlog_audit.events.codec import decode
from structlog_audit.recording.targets import ForeignTarget

MANY_IDS = [f"entry_{number:06d}" for number in range(6_000)]


class HttpServer(http.server.ThreadingHTTPServer):
    """A server that answers 413 to requests of more than 60 kB, and to all others `status`."""

    status = 200

    def __init__(self):
        self.bodies = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-length"]))
                status = 413 if len(body) > 60_000 else server.status
                if status < 400:
                    server.bodies.append(dict(urllib.parse.parse_qsl(body.decode())))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments):
                """Keep quiet."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def http_server():
    with HttpServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def datagrams():
    """A UDP socket, and a function that returns the next datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        yield receiver


def syslog_to(receiver):
    target = logging.handlers.SysLogHandler(receiver.getsockname())
    target.append_nul = False
    target.setFormatter(AuditJsonFormatter())
    return target


def record_three(handler, **fields):
    """Record an event that may be refused between two others."""
    log_to(handler, "FIRST")
    log_to(handler, "IMPORT", **fields)
    log_to(handler, "LAST")


def gap_of(handler):
    (gap,) = handler.query_events(kind="gap")
    return gap.metadata["operation"], gap.metadata["error"]


def test_syslog_message_that_is_too_long_is_set_aside(datagrams):
    """A datagram that the system refuses to send does not hold up those behind it."""
    target = syslog_to(datagrams)
    with contextlib.closing(target):
        handler = audit_over(target)
        record_three(handler, entry_ids=MANY_IDS)
        found = [decode(datagrams.recv(65_536).partition(b">")[2]) for _ in range(3)]
    assert [event.operation for event in found] == ["FIRST", "LAST", "gap"]
    assert found[2].metadata["event_id"] == handler.query_events(operation="IMPORT")[0].event_id
    assert counters(handler) == {"recorded": 2, "pending": 0, "raised": 0, "lost": 1}


def test_pickle_that_is_too_long_for_a_datagram_is_set_aside(datagrams):
    """A DatagramHandler refuses a long event and takes the others."""
    target = logging.handlers.DatagramHandler(*datagrams.getsockname())
    with contextlib.closing(target):
        handler = audit_over(target)
        record_three(handler, entry_ids=MANY_IDS)
        names = [pickle.loads(datagrams.recv(65_536)[4:])["msg"] for _ in range(3)]
    assert names == ["FIRST", "LAST", "gap"]
    assert gap_of(handler) == ("IMPORT", f"OSError: [Errno {errno.EMSGSIZE}] Message too long")


def test_event_that_an_http_server_refuses_is_set_aside(http_server):
    """A status of 400 or more is a failure, although HTTPHandler itself ignores it."""
    address = "{}:{}".format(*http_server.server_address)
    handler = audit_over(logging.handlers.HTTPHandler(address, "/events", method="POST"))
    record_three(handler, entry_ids=MANY_IDS)
    assert [body["operation"] for body in http_server.bodies] == ["FIRST", "LAST", "gap"]
    assert gap_of(handler) == ("IMPORT", f"OSError: [Errno {errno.EPROTO}] HTTP status 413")


def test_http_server_that_refuses_everything_is_an_outage(http_server):
    """While each response is an error, all events are pending, and they are sent in order afterwards."""
    address = "{}:{}".format(*http_server.server_address)
    handler = audit_over(logging.handlers.HTTPHandler(address, "/events", method="POST"))
    http_server.status = 503
    for name in ("A", "B", "C", "D"):
        log_to(handler, name)
    assert counters(handler) == {"recorded": 0, "pending": 4, "raised": 0, "lost": 0}
    http_server.status = 200
    handler.flush()
    assert [body["operation"] for body in http_server.bodies] == ["A", "B", "C", "D"]


@pytest.mark.parametrize(("error", "outcome"), [
    (ValueError("content"), True), (TimeoutError(), True), (ConnectionResetError(errno.ECONNRESET, "reset"), True),
    (OSError(errno.EMSGSIZE, "long"), True), (OSError(errno.EPROTO, "HTTP status 413"), True),
    (smtplib.SMTPDataError(552, b"too large"), True), (smtplib.SMTPDataError(452, b"no storage"), False),
    (OSError(errno.ENOSPC, "full"), False), (BlockingIOError(errno.EAGAIN, "busy"), False), (queue.Full(), False),
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False), (socket.gaierror(-2, "unknown"), False),
])  # fmt: skip
def test_error_of_the_place_is_not_a_refusal_of_an_event(error, outcome):
    """Errors of a place that is full, busy or cannot be reached concern every event; others may concern a single one."""

    class Failing(logging.Handler):
        def emit(self, record):
            raise error

    with pytest.raises(DeliveryError) as caught:
        ForeignTarget(Failing()).deliver([entry_of("STORE")])
    assert caught.value.may_be_refusal is outcome


def test_bounded_queue_that_is_drained_slowly_loses_nothing():
    """A full queue takes any event as soon as it has room, so none is set aside."""
    records = queue.Queue(maxsize=1)
    handler = audit_over(logging.handlers.QueueHandler(records))
    taken = []
    for number in range(20):
        log_to(handler, f"op{number}")
        taken.append(records.get_nowait().msg)
    while handler.get_statistics()["pending"]:
        handler.flush()
        taken.append(records.get_nowait().msg)
    assert taken == [f"op{number}" for number in range(20)]


def test_event_that_a_mail_server_refuses_is_set_aside(monkeypatch):
    """A mail server that refuses a message by its content gets the others."""
    sent = []

    class Server:
        def __init__(self, *arguments, **options):
            pass

        def send_message(self, message):
            if "IMPORT" in message.get_content().split(" ", 1)[0]:
                raise smtplib.SMTPDataError(552, b"message too large")
            sent.append(message.get_content().strip())

        def quit(self):
            pass

    monkeypatch.setattr(smtplib, "SMTP", Server)
    target = logging.handlers.SMTPHandler("mail.example.org", "a@example.org", ["b@example.org"], "audit")
    target.setFormatter(logging.Formatter("%(message)s by %(user_id)s"))
    handler = audit_over(target)
    record_three(handler, user_id="ann")
    assert sent == ["FIRST by -", "LAST by -", "gap by -"]
    assert gap_of(handler) == ("IMPORT", "SMTPDataError")


def test_raise_gives_the_error_to_the_caller_of_the_refused_event(datagrams):
    """With "raise" the caller of the refused event gets the error of the system, and the others are sent."""
    target = syslog_to(datagrams)
    with contextlib.closing(target):
        handler = audit_over(target, on_error="raise")
        log_to(handler, "FIRST")
        with pytest.raises(AuditWriteError, match="Message too long"):
            log_to(handler, "IMPORT", entry_ids=MANY_IDS)
        log_to(handler, "LAST")
    assert counters(handler) == {"recorded": 2, "pending": 0, "raised": 1, "lost": 0}


def test_formatter_that_fails_for_one_event_does_not_block_the_others():
    """An event whose formatting fails is set aside."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(logging.Formatter("%(message)s %(duration_ms)d"))
    handler = audit_over(target)
    log_to(handler, "FIRST", duration_ms=1.0)
    log_to(handler, "IMPORT")
    log_to(handler, "LAST", duration_ms=2.0)
    assert stream.getvalue() == "FIRST 1\nLAST 2\n"
    assert counters(handler)["lost"] == 1


def test_characters_that_a_stream_cannot_encode_are_set_aside_and_named():
    """A stream of ASCII refuses other characters; the gap that names the event has none."""
    raw = io.BytesIO()
    target = logging.StreamHandler(io.TextIOWrapper(raw, "ascii", write_through=True))
    target.setFormatter(AuditJsonFormatter())
    handler = audit_over(target)
    for name in ("löschen", "größer", "LAST"):
        log_to(handler, name)
    handler.flush()
    found = [decode(line) for line in raw.getvalue().splitlines()]
    assert [event.metadata.get("operation", event.operation) for event in found] == [
        "l\\xf6schen",
        "LAST",
        "gr\\xf6\\xdfer",
    ]
    assert counters(handler) == {"recorded": 1, "pending": 0, "raised": 0, "lost": 2}


@pytest.mark.parametrize("style", ["%", "{", "$"])
def test_format_string_may_name_an_absent_member(style):
    """A plain formatter shows an absent member as a hyphen, in each style of format strings."""
    template = {"%": "%(message)s %(user_id)s", "{": "{message} {user_id}", "$": "$message $user_id"}[style]
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(logging.Formatter(template, style=style))
    handler = audit_over(target)
    log_to(handler, "LOGIN")
    log_to(handler, "STORE", user_id="ann")
    assert stream.getvalue() == "LOGIN -\nSTORE ann\n"


def test_default_of_the_formatter_wins_over_the_hyphen():
    """A formatter with defaults of its own keeps them."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(logging.Formatter("%(user_id)s", defaults={"user_id": "nobody"}))
    log_to(audit_over(target), "LOGIN")
    assert stream.getvalue() == "nobody\n"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def read_pickles(connection, count):
    """Return the messages of *count* pickled records."""
    names = []
    with connection, connection.makefile("rb") as file:
        for _ in range(count):
            size = int.from_bytes(file.read(4))
            names.append(pickle.loads(file.read(size))["msg"])
    return names


def test_socket_handler_that_is_not_connected_is_an_outage(listener):
    """A SocketHandler drops records silently while it has no connection: those events are pending."""
    address = listener.getsockname()
    target = logging.handlers.SocketHandler(*address)
    target.makeSocket, connect = raising_os_error, target.makeSocket
    with contextlib.closing(target):
        handler = audit_over(target)
        for name in ("A", "B", "C"):
            log_to(handler, name)
        assert counters(handler) == {"recorded": 0, "pending": 3, "raised": 0, "lost": 0}
        target.makeSocket, target.retryTime = connect, None
        handler.flush()
        assert read_pickles(listener.accept()[0], 3) == ["A", "B", "C"]
    assert counters(handler) == {"recorded": 3, "pending": 0, "raised": 0, "lost": 0}


def raising_os_error(*arguments, **options):
    raise OSError("no route")


def test_subclass_that_sends_without_the_socket_is_not_an_outage():
    """A subclass of SocketHandler with a send() of its own may do without the attribute sock."""
    sent = []

    class Loopback(logging.handlers.SocketHandler):
        def send(self, s):
            sent.append(s)

    handler = audit_over(Loopback("localhost", 0))
    log_to(handler, "A")
    assert (len(sent), counters(handler)["recorded"]) == (1, 1)


def test_syslog_over_tcp_connects_again_after_a_failure(listener):
    """A connection that broke is closed, and the next attempt opens another."""
    target = logging.handlers.SysLogHandler(listener.getsockname(), socktype=socket.SOCK_STREAM)
    target.setFormatter(logging.Formatter("%(message)s"))
    with contextlib.closing(target):
        handler = audit_over(target)
        listener.accept()[0].close()
        target.socket.shutdown(socket.SHUT_WR)
        log_to(handler, "A")
        assert counters(handler)["pending"] == 1
        log_to(handler, "B")
        with listener.accept()[0] as connection:
            assert connection.recv(100).startswith(b"<14>A")
    assert counters(handler)["recorded"] == 2


def test_event_in_parts_is_one_message(listener):
    """A handler that sends messages gets an event in parts as one line, with all entry ids and no mark of parts."""
    target = logging.handlers.SysLogHandler(listener.getsockname(), socktype=socket.SOCK_STREAM)
    target.setFormatter(AuditJsonFormatter())
    handler = audit_over(target, max_event_bytes=5_000)
    with listener.accept()[0] as connection, connection.makefile("rb") as file:
        with contextlib.closing(target):
            log_to(handler, "IMPORT", entry_ids=[*MANY_IDS[:1_000], "x" * 500], plan="pro")
        data = file.read().partition(b">")[2].removesuffix(b"\0")

    event = decode(data)
    assert data.count(b"\n") == 0
    assert (len(event.entry_ids), event.metadata) == (1_001, {"plan": "pro", "_audit": {"entry_ids": "cut: 1 ids"}})


def test_stream_gets_an_event_in_parts_as_lines():
    """A handler that writes lines gets an event in parts as lines of at most max_event_bytes."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(AuditJsonFormatter())
    handler = audit_over(target, max_event_bytes=5_000)
    log_to(handler, "IMPORT", entry_ids=MANY_IDS[:1_000])
    lines = stream.getvalue().encode().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) < 5_000
    assert decode("\n".join(map(bytes.decode, lines)).encode()).entry_ids == MANY_IDS[:1_000]


class Shipping(logging.Handler):
    """A handler that overrides handle() and not emit(), as CPython's own RecordingHandler does."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer
        self.operations = []

    def handle(self, record):
        if self.answer is None:
            self.operations.append(record.operation)
        return self.answer


def test_target_that_overrides_handle_gets_its_events():
    """The method that does the work of the target is called, as `logging` itself would call it."""
    target = Shipping()
    handler = audit_over(target)
    log_to(handler, "STORE")
    assert (target.operations, counters(handler)["recorded"]) == (["STORE"], 1)


def test_target_whose_handle_drops_an_event_has_not_recorded_it():
    """If handle() returns False, the record was dropped, and the event is not acknowledged."""
    handler = audit_over(Shipping(answer=False))
    log_to(handler, "STORE")
    assert counters(handler) == {"recorded": 0, "pending": 1, "raised": 0, "lost": 0}


def test_custom_target_that_needs_a_member_does_not_block():
    """A target that fails for each event without some member, gaps included, takes those that have it."""
    operations = []

    class Strict(logging.Handler):
        def emit(self, record):
            operations.append((record.operation, record.user_id))

    handler = audit_over(Strict())
    for user in ("ann", None, None, "bob", "cy", "dan", "eve", "flo", "gus", "hal"):
        log_to(handler, "STORE", **({"user_id": user} if user else {}))
    assert [user for _, user in operations] == ["ann", "bob", "cy", "dan", "eve", "flo", "gus", "hal"]
    assert counters(handler) == {"recorded": 8, "pending": 0, "raised": 0, "lost": 2}
