"""`check_target`: its findings about correct and faulty targets."""

from __future__ import annotations

import atexit
import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import signal
import sqlite3
import weakref

import pytest

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter, AuditTypeError
from structlog_audit.testing import FailingTarget, Promise, check_target, forked_child
from structlog_audit.testing.forked_child import ChildFailed, run_in_forked_child

ALL = {
    "recorded",
    "whole",
    "order",
    "threads",
    "reopened",
    "survives",
    "failure",
    "recovery",
    "fork",
    "processes",
    "once",
}


def formatted(handler):
    handler.setFormatter(AuditJsonFormatter())
    return handler


def codes(report):
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize("options", [{}, {"maxBytes": 20_000}, {"durability": "fsync"}])
def test_audit_file_handler_passes_every_check(path, options):
    """The library's target passes every check, with and without rollovers, and when it waits for the disk."""
    report = check_target(lambda: AuditFileHandler(path, **options))
    assert str(report).startswith(f"<AuditFileHandler {path} (NOTSET)>: exactly once, several processes\n")
    assert set(report.passed) == ALL
    assert report.promise == Promise.EXACTLY_ONCE


def test_rotating_file_handler_promises_at_least_once(path):
    """The standard library's handler keeps a line that it failed to write, and writes it later."""
    path.parent.mkdir()
    report = check_target(lambda: formatted(logging.handlers.RotatingFileHandler(path)))
    assert codes(report) == {"once"}
    assert report.promise == Promise.AT_LEAST_ONCE
    (finding,) = report.findings
    assert "1 events were written twice" in finding.message
    assert "FAILED       once: 1 events were written twice; after a failure" in str(report)


def test_rolled_over_files_are_read_in_order(path):
    """The files that a RotatingFileHandler rolled over are read as well, the oldest first."""
    path.parent.mkdir()
    make = lambda: formatted(logging.handlers.RotatingFileHandler(path, maxBytes=10_000, backupCount=1_000))  # noqa: E731
    report = check_target(make)
    # Whether processes lose events here is a matter of chance, and so are the numbers that they leave out.
    assert codes(report) <= {"once", "fork", "processes"}
    numbers = [int(segment.suffix[1:]) for segment in path.parent.glob("audit.jsonl.*")]
    assert max(numbers) > 9
    assert "order" in report.passed


class Swallowing(logging.FileHandler):
    """Fails without an error."""

    def emit(self, record):
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with contextlib.suppress(OSError):
            os.write(fd, self.format(record).encode() + b"\n")
        os.close(fd)


class Buffering(logging.FileHandler):
    """Writes ten events at once, and the rest when it is closed."""

    held = ()

    def emit(self, record):
        self.held = (*self.held, self.format(record))
        if len(self.held) >= 10:
            self.flush()

    def flush(self):
        with open(self.baseFilename, "a") as file:
            file.writelines(line + "\n" for line in self.held)
        self.held = ()


class OneLine(logging.FileHandler):
    """Writes the first line only, and cuts it."""

    def format(self, record):
        return super().format(record).splitlines()[0][:10_000]


class FailsForever(logging.FileHandler):
    """Fails forever after it has failed or was closed."""

    broken = False

    def emit(self, record):
        if self.broken:
            raise OSError("not open")
        try:
            with open(self.baseFilename, "a") as file:
                file.write(self.format(record) + "\n")
        except OSError:
            self.broken = True
            raise

    def close(self):
        self.broken = True
        super().close()


class Backwards(logging.FileHandler):
    """Writes the newest event first."""

    def emit(self, record):
        with open(self.baseFilename, "r+") as file:
            before = file.read()
            file.seek(0)
            file.write(self.format(record) + "\n" + before)


class Twice(logging.FileHandler):
    """Writes everything twice."""

    def emit(self, record):
        super().emit(record)
        super().emit(record)


class Closing(logging.FileHandler):
    """Raises when it is closed."""

    def close(self):
        super().close()
        raise ValueError("not like this")


class Altering(logging.FileHandler):
    """Changes the text of each line."""

    def format(self, record):
        return super().format(record).replace("CHECK", "OTHER")


@pytest.mark.parametrize(
    ("kind", "found", "message"),
    [
        (Swallowing, {"failure"}, "3 events were acknowledged in an outage and not written"),
        (Buffering, {"survives", "failure", "fork"}, "3 of 23 events that were acknowledged can't be read"),
        (OneLine, {"whole"}, "that were acknowledged can't be read; 2 lines are not events"),
        (FailsForever, {"reopened", "recovery"}, "it accepts no event after it was closed"),
        (Backwards, {"order", "recovery"}, "in another order than they were committed in"),
        (Twice, {"once"}, "events were written twice"),
        (Closing, {"recorded"}, "it raised ValueError('not like this')"),
        (Altering, {"recorded"}, "was written as another"),
    ],
)
def test_faulty_target_fails_the_check_of_its_fault(path, kind, found, message):
    """Each fault of a target is found under the name of its check, and reduces the promise."""
    path.parent.mkdir()
    report = check_target(lambda: formatted(kind(path)))
    assert found <= codes(report), str(report)
    assert any(message in finding.message for finding in report.findings), str(report)
    assert report.promise == (Promise.AT_LEAST_ONCE if kind is Twice else Promise.NONE)


def test_handler_without_formatter_gets_a_finding_that_names_one(path):
    """The finding shows the content that was written instead of events, and the formatter to use."""
    path.parent.mkdir()
    report = check_target(lambda: logging.FileHandler(path))
    (finding,) = [finding for finding in report.findings if finding.code == "recorded"]
    assert "10 lines are not events, such as b'CHECK\\n'" in finding.message
    assert "AuditJsonFormatter" in finding.fix
    assert not report.several_processes


def test_target_with_other_content_passes(path):
    """A target need not be empty."""
    path.parent.mkdir()
    path.write_bytes(b'torn {"event_id":"evt_\n\nno event\n')
    assert check_target(lambda: AuditFileHandler(path)).promise == Promise.EXACTLY_ONCE


class Database(logging.Handler):
    """Keeps ids in SQLite: a target that does not write files."""

    fails = False

    def __init__(self, path):
        super().__init__()
        self.path = path

    def connected(self):
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None))

    def emit(self, record):
        if self.fails:
            raise ConnectionError
        with self.connected() as database:
            database.execute("PRAGMA synchronous=OFF")
            database.execute("CREATE TABLE IF NOT EXISTS events (id TEXT)")
            database.execute("INSERT INTO events VALUES (?)", (record.event_id,))


@pytest.fixture
def make_database(tmp_path):
    """Return a function that makes a target on one database."""
    return lambda: Database(tmp_path / "audit.db")


@pytest.fixture
def read_ids(make_database):
    """Return a function that reads the ids in the database."""

    def read():
        with make_database().connected() as database:
            return [row[0] for row in database.execute("SELECT id FROM events ORDER BY rowid")]

    return read


def test_any_target_passes_with_read_and_outage(make_database, read_ids, monkeypatch):
    """With a function that reads ids and one that causes an outage, every check of any target is made."""

    @contextlib.contextmanager
    def outage():
        monkeypatch.setattr(Database, "fails", True)
        yield
        monkeypatch.setattr(Database, "fails", False)

    report = check_target(make_database, read=read_ids, outage=outage)
    assert report.promise == Promise.EXACTLY_ONCE, str(report)
    assert set(report.passed) == ALL


def test_target_without_outage_has_an_unknown_promise(make_database, read_ids):
    """Without an outage the checks of failures are not made."""
    report = check_target(make_database, read=read_ids)
    assert report.promise == Promise.UNKNOWN
    assert set(report.not_checked) == {"failure", "recovery"}


def test_unreadable_target_passes_no_check(make_database):
    """Without a function that reads, no check can be made, and the report names the missing parameter."""
    report = check_target(make_database)
    assert (report.promise, report.passed, report.several_processes) == (Promise.UNKNOWN, (), False)
    assert "read=" in report.not_checked["once"]


def test_outage_without_effect_leaves_failures_unchecked():
    """If the target goes on writing during the outage, its failures are not checked."""
    target = FailingTarget()
    report = check_target(target, read=lambda: target.lines, outage=contextlib.nullcontext)
    assert "in spite of the outage" in report.not_checked["failure"]
    assert "nothing was pending" in report.not_checked["recovery"]


def test_single_handler_skips_the_check_of_several():
    """The check that needs several handlers is not made for a single one."""
    target = FailingTarget()
    report = check_target(target, read=lambda: target.lines)
    assert "pass a function" in report.not_checked["processes"]
    # Its events are in memory, which no other process sees.
    assert {"survives", "fork"} <= codes(report)


def test_single_handler_is_left_as_it_was():
    """After the checks the handler has its former handleError, or none."""
    target = FailingTarget()
    check_target(target, read=lambda: target.lines)
    assert "handleError" not in vars(target)
    target.handleError = print
    check_target(target, read=lambda: target.lines)
    assert target.handleError is print


@pytest.mark.parametrize("target", [5, lambda: 5, "file.jsonl", lambda: AuditHandler()])
def test_invalid_target_is_an_error_that_names_the_parameter(target):
    """A target that neither is nor makes a handler that can be chained to is an error."""
    with pytest.raises(AuditTypeError, match="target="):
        check_target(target)


# Forked children


def test_forked_child_sends_a_large_result_while_the_parent_works():
    """The parent gets the whole result of the child, and runs ``in_parent`` at the same time."""
    done = []
    result = run_in_forked_child(lambda send: send(["x" * 200_000]), in_parent=lambda: done.append(1))
    assert result == ["x" * 200_000]
    assert done == [1]


def _raise(send):
    raise KeyError("x")


def _die(send):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        pytest.param(_raise, r"in another process: KeyError\('x'\)", id="raises"),
        pytest.param(_die, "died before", id="dies"),
        pytest.param(lambda send: None, "died before", id="sends nothing"),
    ],
)
def test_forked_child_that_fails_raises_child_failed(work, message):
    """A child that raises, dies or ends without a result is a ChildFailed that states which."""
    with pytest.raises(ChildFailed, match=message):
        run_in_forked_child(work)


def test_forked_child_that_hangs_raises_child_failed(monkeypatch):
    """A child that sends nothing in time is a ChildFailed."""
    monkeypatch.setattr(forked_child, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(ChildFailed, match="it hangs"):
        run_in_forked_child(lambda send: signal.pause())


def test_forked_child_ends_when_the_part_of_the_parent_raises():
    """An error of ``in_parent`` reaches the caller, and the child process is ended and waited for."""
    before = multiprocessing.active_children()
    children = []

    def fail():
        children.extend(child.pid for child in multiprocessing.active_children() if child not in before)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_forked_child(lambda send: signal.pause(), in_parent=fail)

    # Other tests may have children of their own, such as the resource tracker of `multiprocessing`.
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_forked_child_runs_no_exit_function_of_the_parent(tmp_path):
    """Functions that the parent registered with atexit or as a finalizer run in the parent only."""
    trace, owner = tmp_path / "trace", logging.NullHandler()

    def leave_trace():
        trace.touch()

    atexit.register(leave_trace)
    finalizer = weakref.finalize(owner, leave_trace)
    try:
        run_in_forked_child(lambda send: send(None))
        assert not trace.exists()
    finally:
        atexit.unregister(leave_trace)
        finalizer.detach()
