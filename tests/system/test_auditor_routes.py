"""The routes for auditors of the example and the guide, under real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from guide_blocks import block_of
from servers import free_port, get, stop, trail, wait_until

from structlog_audit import open_trail

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "examples"

EVENTS = 25

FASTAPI = f"""
import importlib, sys
sys.path.insert(0, {str(EXAMPLES)!r})
sys.argv[1:] = ["."]
example = importlib.import_module("09_fastapi")
app, log = example.app, example.log
"""

OTHERS = """
import logging
from structlog_audit import AuditHandler, get_audit_logger
TRAIL = "audit.jsonl"
logging.getLogger("audit").setLevel("INFO")
logging.getLogger("audit").addHandler(AuditHandler(filename=TRAIL))
log = get_audit_logger()
"""

RECORD = f"""
for number in range({EVENTS}):
    log.info("document.create", user_id=f"u{{number % 3}}", entry_ids=[f"d{{number}}"], number=number)
log.info("document.delete", user_id="u1", status="FAILURE")
"""

UVICORN = ["uvicorn", "auditors:app", "--port", "{port}", "--log-level", "warning"]

ROUTES = {
    "fastapi": (lambda: FASTAPI, UVICORN),
    "flask": (
        lambda: OTHERS + block_of("frameworks.md", "Flask"),
        ["gunicorn", "auditors:app", "--bind", "127.0.0.1:{port}", "--threads", "2"],
    ),
    "litestar": (lambda: OTHERS + block_of("frameworks.md", "Litestar"), UVICORN),
}
"""The code of each application, and the server that runs it."""


@pytest.fixture(scope="module", params=ROUTES)
def served(request, tmp_path_factory):
    """Return the folder of the trail and the port of a server with the route."""
    code, command = ROUTES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "auditors.py").write_text(code() + RECORD)
    port = free_port()

    words = [sys.executable, "-m", *(word.format(port=port) for word in command)]
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)
    try:
        wait_until(lambda: get(port, "/audit/events?limit=1", **{"X-User": "ada"}), process, "the first answer")
        yield folder, port
    finally:
        stop(process)


def answer(port, user, /, **query):
    """Return the status and the decoded body of a request by *user*."""
    address = f"http://127.0.0.1:{port}/audit/events?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(address, headers={"X-User": user})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def test_pages_have_each_event_once_while_reading_is_recorded(served):
    """Following the cursors gives each matching event once, newest first, although each request records an event."""
    _, port = served
    numbers, cursor = [], None
    while True:
        given = {"operation": "document.create", "limit": 10} | ({"cursor": cursor} if cursor else {})
        status, page = answer(port, "ada", **given)
        assert status == 200
        numbers += [event["metadata"]["number"] for event in page["events"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert numbers == list(reversed(range(EVENTS)))


def test_filters_select_as_in_query(served):
    """The filters of a request select the same events as the same filters of a query, with the same values."""
    folder, port = served
    query = {"user_id": "u1", "operation_class": "delete", "status": "FAILURE", "since": "1h"}
    status, page = answer(port, "ada", **query)
    expected = [event.to_dict() for event in open_trail(folder / "audit.jsonl").iter_events(**query)]
    assert status == 200
    assert [event["operation"] for event in page["events"]] == ["document.delete"]
    assert [{name: event[name] for name in expected[0]} for event in page["events"]] == expected


@pytest.mark.parametrize(
    "query",
    [
        {"user": "u1"},
        {"limit": 0},
        {"limit": 1_001},
        {"limit": "x"},
        {"cursor": "x"},
        {"since": "soon"},
        {"status": "?"},
        {"operation_class": "?"},
    ],
    ids=str,
)
def test_invalid_query_is_refused(served, query):
    """An unknown filter, and a limit, cursor, time or status that is none, are refused: nothing is selected instead."""
    _, port = served
    status, page = answer(port, "ada", **query)
    assert status in (400, 422)
    assert page is None


def test_user_without_permission_is_refused_and_recorded(served):
    """A user who is not an auditor gets 403, and the trail has the failure with the user's name."""
    folder, port = served
    assert answer(port, "eve", limit=1) == (403, None)
    [refused] = [line for line in trail(folder) if line.get("user_id") == "eve"]
    assert (refused["operation"], refused["status"]) == ("audit_events.list", "FAILURE")
