"""The parts of ``explore`` that need no Datasette: the guard, the front page's figures, and errors of usage."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from contextlib import closing
from itertools import pairwise

import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from trail_files import line_of, write_trail

from structlog_audit import AuditEvent
from structlog_audit.cli.commands import explore
from structlog_audit.cli.explore.access import POLICY, Guard
from structlog_audit.cli.explore.overview import add_operation_class, overview_of
from structlog_audit.events.event import EventStatus, Operation
from structlog_audit.events.operation_classes import registered_operations
from structlog_audit.export import export

HOST = "127.0.0.1:8000"


async def application(scope, receive, send):
    """Answer with the path, and with headers that the guard replaces."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"max-age=9")]})
    await send({"type": "http.response.body", "body": scope["raw_path"] + scope["path"].encode()})


def answer(path, *, method="GET", hosts=(HOST,), kind="http"):
    """Return status, headers and body of the answer to a request, or None without one."""
    guard = Guard(application, "secret")
    guard.host = HOST
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind, "method": method, "path": path, "raw_path": path.encode(),
        "headers": [(b"host", host.encode()) for host in hosts],
    }  # fmt: skip
    asyncio.run(guard(scope, None, send))
    return (sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]) if sent else None


@pytest.mark.parametrize("path", ["/secret/", "/secret/audit/events"])
def test_request_with_the_token_reaches_the_site_without_it(path):
    """The site gets the path after the token, and its pages get the headers of the guard only."""
    status, headers, body = answer(path)
    assert (status, body) == (200, path.removeprefix("/secret").encode() * 2)
    assert headers[b"content-security-policy"] == POLICY.encode()
    assert headers[b"cache-control"] == b"no-store"
    assert b"Cache-Control" not in headers


@pytest.mark.parametrize(
    "path", ["/", "", "/secret", "/secre/", "/secretx/", "/audit/events", "//secret/", "/x/secret/"]
)
def test_request_without_the_token_is_forbidden(path):
    """Any other address is 403, and its body says nothing about the site."""
    status, headers, body = answer(path)
    assert status == 403
    assert body == b"403: open the address that structlog-audit explore printed\n"
    assert headers[b"content-security-policy"] == POLICY.encode()


@pytest.mark.parametrize("hosts", [("evil.example",), ("127.0.0.1",), ("localhost:8000",), (), (HOST, HOST)])
def test_request_for_another_host_is_forbidden(hosts):
    """A name that resolves to this machine does not open the site: only the printed address does."""
    assert answer("/secret/", hosts=hosts)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_method_that_may_write_is_refused(method):
    """Only GET and HEAD are passed on."""
    assert answer("/secret/", method=method)[0] == 405
    assert answer("/", method=method)[0] == 403


def test_websocket_gets_no_answer():
    """A connection that is not a request is left alone."""
    assert answer("/secret/", kind="websocket") is None


# --- the front page ----------------------------------------------------------------------------------------------------------


def overview(tmp_path, *events):
    """Return the front page of a database of events, each given by its time, or by time and status."""
    made = [
        AuditEvent(
            event_id=f"evt_{number}", timestamp=dt.datetime.fromisoformat(f"{time}+00:00"), operation=Operation("x"),
            user_id=f"u{number % 2}", status=EventStatus(status),
        )
        for number, (time, status) in enumerate(events)
    ]  # fmt: skip
    path = tmp_path / "audit.db"
    report = {"source": "s", "completeness": "unknown", "completeness_report": {"sentences": ["Why."]}}
    export(made, path, inform=lambda: report, now=dt.datetime.now(dt.UTC))
    return overview_of(str(path), ())


def test_overview_has_the_figures_of_the_events(tmp_path):
    """Events, failures, users, operations, first and last event are those of the database."""
    found = overview(
        tmp_path, ("2025-01-01T10:00", "SUCCESS"), ("2025-01-01T12:30", "FAILURE"), ("2025-01-01T10:59", "FAILURE")
    )
    assert found.figures == {
        "events": 3, "users": 2, "operations": 1, "failures": 2, "first": "2025-01-01T10:00:00.000000Z",
        "last": "2025-01-01T12:30:00.000000Z",
    }  # fmt: skip
    assert found.sentences == ("Why.",)
    assert [(bar.start, bar.stop, bar.events, bar.failures, bar.height, bar.failure_height) for bar in found.bars] == [
        ("2025-01-01T10", "2025-01-01T11", 2, 1, 1.0, 0.5),
        ("2025-01-01T11", "2025-01-01T12", 0, 0, 0.0, 0.0),
        ("2025-01-01T12", "2025-01-01T13", 1, 1, 0.5, 0.5),
    ]


def test_overview_without_events_has_no_bars(tmp_path):
    """An empty database has a front page."""
    found = overview(tmp_path)
    assert (found.bars, found.figures["events"], found.figures["first"]) == ((), 0, None)


@given(st.lists(st.datetimes(), min_size=1, max_size=5))
def test_bars_cover_all_events_once_without_gaps(tmp_path_factory, times):
    """For all times, the bars follow each other, contain every event, and are not too many to see."""
    events = [(time.isoformat(), "SUCCESS") for time in times]
    bars = overview(tmp_path_factory.mktemp("x"), *events).bars
    assert all(one.stop == following.start for one, following in pairwise(bars))
    assert sum(bar.events for bar in bars) == len(times)
    for time in times:
        text = f"{time.isoformat(timespec='microseconds')}Z"
        (bar,) = (bar for bar in bars if bar.start <= text < bar.stop)
        assert bar.events > 0
    years = max(times).year - min(times).year
    assert len(bars) <= max(121, years + 1)


def test_classes_of_operations_are_a_column(tmp_path):
    """Each event has the class of its operation, or states that it has none."""
    events = [
        AuditEvent(event_id=name, timestamp=dt.datetime.now(dt.UTC), operation=Operation(name))
        for name in ("document.delete", "FORGET", "frobnicate", "export.csv")
    ]
    path = str(tmp_path / "audit.db")
    export(events, path, now=dt.datetime.now(dt.UTC))
    add_operation_class(path, registered_operations())
    with closing(sqlite3.connect(path)) as connection:
        found = dict(connection.execute("SELECT operation, operation_class FROM events"))
    assert found == {
        "document.delete": "delete", "FORGET": "delete", "frobnicate": "unclassified", "export.csv": "export"
    }  # fmt: skip


# --- usage -------------------------------------------------------------------------------------------------------------------


def test_explore_without_its_extra_names_it(tmp_path, monkeypatch):
    """Without Datasette the error says what to install."""
    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    done = run("explore", write_trail(tmp_path, active=line_of(1)))
    assert (done.code, done.error_line) == (2, "explore needs datasette: pip install 'structlog-audit[explore]'")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--key", "nonsense"], "--key"), (["--anchor", "x.log"], "--anchor: expected --key as well")],
)
def test_explore_with_a_key_that_cannot_be_used_is_refused(tmp_path, monkeypatch, words, message):
    """A key that cannot be used, and an anchor without a key, are usage errors."""
    monkeypatch.setattr(explore, "find_spec", lambda name: True)
    done = run("explore", write_trail(tmp_path, active=line_of(1)), *words)
    assert done.code == 2
    assert message in done.error_line
