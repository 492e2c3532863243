"""Flask (pip install flask): bind the user at the start of a request, and clear the context at its end, even if it fails."""

import logging
import sys
import tempfile
from pathlib import Path

from flask import Flask, request
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from structlog_audit import AuditHandler, get_audit_logger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

handler = AuditHandler(filename=folder / "audit.jsonl")
audit = logging.getLogger("audit")
audit.setLevel(logging.INFO)
audit.addHandler(handler)
log = get_audit_logger("audit")

app = Flask(__name__)
app.register_error_handler(PermissionError, lambda error: (str(error), 403))


@app.before_request
def begin():
    # Simplified: a real application gets the user from its authentication, such as Flask-Login.
    bind_contextvars(user_id=request.headers.get("X-User"), client_address=request.remote_addr)


@app.teardown_request
def end(error):
    clear_contextvars()  # also what views have bound: the thread goes on to the next request


@app.post("/documents/<name>")
def create(name):
    with log.operation("document.create", entry_ids=[name]):
        if name == "doc_9":
            raise PermissionError("doc_9 is locked")
    return "created"


@app.get("/documents")
def export():
    # The stream outlives the request, so bind the context of the request to the logger.
    stream_log = log.bind(**get_contextvars())
    return (stream_log.info("document.export", entry_ids=[name]) or f"{name} " for name in ("doc_1", "doc_2"))


client = app.test_client()
print("ada:", client.post("/documents/doc_1", headers={"X-User": "ada"}).text)
print("bob:", client.post("/documents/doc_9", headers={"X-User": "bob"}).text)
print("ada:", client.get("/documents", headers={"X-User": "ada"}).text)
# Outside of a request no user is bound.
log.info("index.rebuild")
for event in handler.iter_events():
    print(event.operation, event.status, event.user_id, event.entry_ids, event.metadata)
handler.close()
