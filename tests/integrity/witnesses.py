"""A witness after C2SP tlog-witness, and HTTP servers on the loopback interface whose answers are bytes."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

from seals import SIGNER, SeedSigner

from structlog_audit.integrity.merkle import verify_consistency
from structlog_audit.integrity.notes import COSIGNATURE, Checkpoint, Note, cosign
from structlog_audit.integrity.submission import SubmissionError


def witness_signer(number=1):
    return SeedSigner(bytes([number]) * 32, f"witness.example/w{number}", COSIGNATURE)


class ReferenceWitness:
    """Answers requests as the specification says, and keeps them.

    Args:
        signer: Its key.
        log: The key of the trail that it knows.

    Attributes:
        faults: Answers to give instead, one for each request; an exception is raised.
    """

    def __init__(self, signer=None, log=SIGNER.key, time=1_700_000_000):
        self.signer = signer or witness_signer()
        self.log = log
        self.time = time
        self.latest = Checkpoint(log.name, 0, b"")
        self.requests = []
        self.faults = []

    @property
    def config(self):
        return {"name": self.signer.key.name, "key": str(self.signer.key), "url": "http://witness.example/prefix/"}

    def post(self, url, content_type, body, seconds):
        assert url == "http://witness.example/prefix/add-checkpoint"
        self.requests.append(body)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        return self.answer(body)

    def answer(self, body):
        head, _, data = body.partition(b"\n\n")
        first, *lines = head.decode().split("\n")
        old = int(first.removeprefix("old "))
        note = Note.parse(data)
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin != self.log.name:
            return 404, b""
        if not note.signers([self.log]):
            return 403, b""
        if old > checkpoint.size:
            return 400, b""
        if old != self.latest.size:
            return 409, b"%d\n" % self.latest.size
        if not self._is_consistent(old, checkpoint, [base64.b64decode(line) for line in lines]):
            return 422, b""

        self.latest = checkpoint
        signature = cosign(note, self.signer, self.time).signatures[-1]
        encoded = base64.b64encode(signature.key_id + signature.data).decode()
        return 200, f"— {signature.name} {encoded}\n".encode()

    def _is_consistent(self, old, checkpoint, proof):
        if old == 0:
            return not proof
        return verify_consistency(old, checkpoint.size, proof, self.latest.root, checkpoint.root)


NO_ANSWER = SubmissionError("no answer: ConnectionRefusedError: [Errno 111] Connection refused")


@contextlib.contextmanager
def serving(respond):
    """Serve HTTP: *respond* gets the connected socket and the request. Yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, respond), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(server, respond):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            respond(connection, _read_request(connection))


def _read_request(connection):
    data = b""
    # A client that begins with TLS sends no request.
    while b"\r\n\r\n" not in data and not data.startswith(b"\x16"):
        data += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65_536)
    return head, body


def answer_of(status, body, *headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
