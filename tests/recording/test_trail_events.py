"""Trail events: the library's records about a trail, of kind "trail"."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading

import pytest
from conftest import fill_disk
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, get_audit_logger


def trail_events_in(path):
    """Return the operation and the metadata of each trail event in the file at *path*."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.startswith(b'{"event_id"')]
    return [(line["operation"], line["metadata"]) for line in lines if line.get("kind") == "trail"]


def operations_in(path):
    """Return the operations of the trail events in the file at *path*."""
    return [operation for operation, _ in trail_events_in(path)]


def details_of(operation, path):
    """Return the metadata of each trail event of this *operation* in the file at *path*."""
    return [metadata for found, metadata in trail_events_in(path) if found == operation]


def check_path_next(handler):
    """Let the next write check whether the path still refers to the open file."""
    handler.target._active.check_at = 0.0


def test_opening_and_closing_are_recorded(handler, log, path):
    """The first event follows "opened", closing records "closed", and the next event opens the trail again."""
    log.info("STORE")
    log.info("RECALL")
    handler.close()
    log.info("FORGET")
    assert operations_in(path) == ["opened", "closed", "opened"]
    assert [event.operation for event in handler.query_events(kind="trail")] == ["opened", "closed", "opened"]


def test_opened_names_the_process_and_closed_has_the_counters(handler, log, path):
    """The metadata of "opened" is the process and the host; that of "closed" includes the counters."""
    log.info("STORE")
    log.info("RECALL")
    handler.close()
    (opened,), (closed,) = details_of("opened", path), details_of("closed", path)
    assert opened == {"pid": os.getpid(), "host": os.uname().nodename}
    assert (closed["recorded"], closed["lost"]) == (2, 0)


def test_a_handler_that_records_nothing_leaves_the_file_empty(handler, path):
    """A handler that was never used writes no line when it is closed."""
    handler.close()
    assert path.read_bytes() == b""


def test_statistics_leave_out_trail_events(handler, log):
    """Trail events are neither counted nor found without a filter on the kind."""
    log.info("STORE")
    handler.close()
    statistics = handler.get_statistics()
    assert (statistics["total_events"], statistics["recorded"], statistics["accepted"]) == (1, 1, 1)


def test_a_torn_line_is_recorded_with_its_position_size_and_digest(path):
    """A torn line stays in place and is not continued; "quarantine" names its offset, size and SHA-256."""
    path.parent.mkdir()
    path.write_bytes(b'{"whole":1}\n{"half":')
    logger = logging.Logger("torn")
    logger.addHandler(AuditHandler(filename=path))
    logger.info("STORE")
    assert path.read_bytes().startswith(b'{"whole":1}\n{"half":\n{"event_id"')
    (quarantine,) = details_of("quarantine", path)
    assert quarantine == {
        "segment": "audit.jsonl", "offset": 12, "bytes": 8, "sha256": hashlib.sha256(b'{"half":').hexdigest(),
    }  # fmt: skip


def test_a_truncated_file_is_recorded_with_both_sizes(handler, log, path):
    """A file that became shorter while open is recorded as "truncated"."""
    log.info("STORE")
    size = path.stat().st_size
    os.truncate(path, 0)
    check_path_next(handler)
    log.info("RECALL")
    (truncated,) = details_of("truncated", path)
    assert truncated == {"segment": "audit.jsonl", "bytes_before": size, "bytes_now": 0}


@pytest.mark.parametrize(("how", "unlinked"), [("unlink", True), ("rename", False)])
def test_a_file_that_was_unlinked_or_renamed_is_recorded(handler, log, path, how, unlinked):
    """A file that was unlinked or renamed while open is recorded as "replaced" in the new one."""
    log.info("STORE")
    if how == "unlink":
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere"))
    check_path_next(handler)
    log.info("RECALL")
    (replaced,) = details_of("replaced", path)
    assert (replaced["unlinked"], replaced["bytes_before"] > 0) == (unlinked, True)


def test_a_rollover_by_another_writer_is_not_recorded(path):
    """A writer that continues in a segment opened by another writer records no trail event."""
    one, two = (AuditHandler(target=AuditFileHandler(path, maxBytes=1_000)) for _ in range(2))
    for number in range(20):
        (one, two)[number % 2].handle(record_of())
        check_path_next(one)
        check_path_next(two)
    operations = [operation for segment in one.target.segments() for operation in operations_in(segment)]
    assert operations == ["opened", "opened"]


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_an_outage_and_its_end_are_recorded(path, on_error, capsys, monkeypatch):
    """A failing target leaves "fault", if events may be pending, and "recovery" when it works again."""
    handler = AuditHandler(filename=path, on_error=on_error, call_later=lambda seconds, retry: None)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    log = get_audit_logger()
    log.info("STORE")
    fill_disk(monkeypatch)
    if on_error == "raise":
        with pytest.raises(Exception, match="not recorded"):
            log.info("RECALL")
    else:
        log.info("RECALL")
    monkeypatch.undo()
    log.info("FORGET")
    operations = operations_in(path)
    assert operations == (["opened", "fault", "recovery"] if on_error == "retry" else ["opened", "recovery"])
    assert "RECALL" not in capsys.readouterr().err


def test_a_forked_child_records_its_own_opened_event(handler, log, path):
    """A child that records an event first records "opened" with its process id."""
    log.info("STORE")
    pid = os.fork()
    if not pid:
        log.info("RECALL")
        os._exit(0)
    os.waitpid(pid, 0)
    assert [opened["pid"] for opened in details_of("opened", path)] == [os.getpid(), pid]


def test_opened_is_recorded_after_a_failed_first_write(path, monkeypatch):
    """If the very first write fails, "opened" is recorded with a later event."""
    handler = AuditHandler(filename=path, on_error="raise")
    record = record_of()
    fill_disk(monkeypatch)
    with pytest.raises(Exception, match="not recorded"):
        handler.handle(record)
    monkeypatch.undo()
    handler.handle(record)
    assert "opened" in operations_in(path) or not handler._trail_events.is_open
    handler.handle(record)
    assert "opened" in operations_in(path)


def test_opened_names_the_last_event_before_it(handler, log, path):
    """An "opened" event names the event before it, of whatever process, and none in an empty trail."""
    log.info("STORE")
    handler.close()
    last = json.loads(path.read_bytes().splitlines()[-1])["event_id"]
    log.info("RECALL")
    first, second = details_of("opened", path)
    assert "previous" not in first
    assert second["previous"] == last


@pytest.mark.parametrize("rest", [b"", b"x" * 200_000 + b"\n", b'{"event_id":7}\n{"event_id":"evt_torn'])
def test_opened_of_a_trail_without_a_readable_end_names_no_event(tmp_path, rest):
    """Without a whole event near the end of the trail, "opened" has no "previous"."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(rest)
    with AuditLogger(filename=path) as audit:
        audit.record("STORE")
        (opened,) = audit.query_events(kind="trail", operation="opened")
    assert "previous" not in opened.metadata


@pytest.mark.parametrize("by", ["thread", "signal handler"])
def test_opened_is_queued_once_by_simultaneous_first_events(handler, by):
    """If two first events meet, in two threads or by a signal handler, one ``opened`` precedes both."""
    trail_events, queued, threads = handler._trail_events, [], []

    def enqueue(entry):
        queued.append(entry)
        if by == "thread":
            threads.append(threading.Thread(target=trail_events.open))
            threads[0].start()
        else:
            trail_events.open()

    trail_events._commit.enqueue = enqueue
    trail_events.open()
    for thread in threads:
        thread.join()
    assert len(queued) == 1
    assert trail_events.is_open
