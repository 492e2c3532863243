"""Flask: who acts is bound for each request, and unbound after it whatever happens."""

import logging
import sys
import tempfile
from pathlib import Path

from flask import Flask, g, request
from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

from structlog_audit import AuditHandler, get_audit_logger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

handler = AuditHandler(filename=folder / "audit.jsonl")
audit = logging.getLogger("audit")
audit.setLevel(logging.INFO)
audit.propagate = False
audit.addHandler(handler)
log = get_audit_logger("audit")

app = Flask(__name__)
app.register_error_handler(PermissionError, lambda error: (str(error), 403))


@app.before_request
def begin():
    user = request.headers.get("X-User")  # for brevity; an application asks its authentication (Flask-Login, say)
    g.audit = bind_contextvars(user_id=user, client_address=request.remote_addr)


@app.teardown_request
def end(error):
    reset_contextvars(**g.pop("audit", {}))


@app.post("/entries/<name>")
def store(name):
    with log.operation("STORE", entry_ids=[name]):
        if name == "entry_9":
            raise PermissionError("entry_9 is locked")
    return "stored"


@app.get("/entries")
def export():
    own = log.bind(**get_contextvars())  # the stream outlives the request, so its logger remembers who asked
    return (own.info("EXPORT", entry_ids=[name]) or f"{name} " for name in ("entry_1", "entry_2"))


client = app.test_client()
print("ada:", client.post("/entries/entry_1", headers={"X-User": "ada"}).text)
print("bob:", client.post("/entries/entry_9", headers={"X-User": "bob"}).text)
print("ada:", client.get("/entries", headers={"X-User": "ada"}).text)
log.info("COMPACT")  # by nobody: nothing is left of the requests
for event in handler.iter_events():
    print(event.operation, event.status, event.user_id, event.entry_ids, event.metadata)
handler.close()
