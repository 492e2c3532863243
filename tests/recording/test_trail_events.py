"""The library's own acts on a trail: events of kind "trail"."""

from __future__ import annotations

import hashlib
import json
import logging
import os

import pytest

from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger


def acts_in(path):
    """The acts in the file at *path*: operation and metadata."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.startswith(b'{"event_id"')]
    return [(line["operation"], line["metadata"]) for line in lines if line.get("kind") == "trail"]


def look_again(handler):
    """Have the next event look whether the path still is our file."""
    handler.target._active.check_at = 0.0


def test_opening_and_closing_are_in_the_trail(handler, log, path):
    """The first event is preceded by "opened", closing leaves "closed" with the counters; going on opens again."""
    log.info("STORE")
    log.info("RECALL")
    handler.close()
    log.info("FORGET")
    assert [act for act, _ in acts_in(path)] == ["opened", "closed", "opened"]
    opened, closed = acts_in(path)[0][1], acts_in(path)[1][1]
    assert opened == {"pid": os.getpid(), "host": os.uname().nodename}
    assert (closed["recorded"], closed["lost"]) == (2, 0)
    assert [event.operation for event in handler.query_events(kind="trail")] == ["opened", "closed", "opened"]


def test_who_records_nothing_leaves_nothing(handler, path):
    """A handler that was never used writes no line."""
    handler.close()
    assert path.read_bytes() == b""


def test_own_acts_are_in_no_statistics(handler, log):
    """TrailEvents are neither counted nor found unless asked for."""
    log.info("STORE")
    handler.close()
    statistics = handler.get_statistics()
    assert (statistics["total_events"], statistics["recorded"], statistics["accepted"]) == (1, 1, 1)


def test_a_torn_line_is_quarantined_with_its_digest(path):
    """A torn line stays where it is, is glued to nothing, and is recorded with place, size and SHA-256."""
    path.parent.mkdir()
    path.write_bytes(b'{"whole":1}\n{"half":')
    logger = logging.Logger("torn")
    logger.addHandler(AuditHandler(filename=path))
    logger.info("STORE")
    assert path.read_bytes().startswith(b'{"whole":1}\n{"half":\n{"event_id"')
    (quarantine,) = [said for act, said in acts_in(path) if act == "quarantine"]
    assert quarantine == {
        "segment": "audit.jsonl", "offset": 12, "bytes": 8, "sha256": hashlib.sha256(b'{"half":').hexdigest(),
    }  # fmt: skip


def test_a_truncated_trail_is_noticed(handler, log, path):
    """A file that became shorter while open is recorded, with both sizes."""
    log.info("STORE")
    size = path.stat().st_size
    os.truncate(path, 0)
    look_again(handler)
    log.info("RECALL")
    (truncated,) = [said for act, said in acts_in(path) if act == "truncated"]
    assert truncated == {"segment": "audit.jsonl", "bytes_before": size, "bytes_now": 0}


@pytest.mark.parametrize(("how", "unlinked"), [("unlink", True), ("rename", False)])
def test_a_trail_that_was_taken_away_is_noticed(handler, log, path, how, unlinked):
    """A file that was unlinked or renamed while open is recorded in the new one."""
    log.info("STORE")
    if how == "unlink":
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere"))
    look_again(handler)
    log.info("RECALL")
    (replaced,) = [said for act, said in acts_in(path) if act == "replaced"]
    assert (replaced["unlinked"], replaced["bytes_before"] > 0) == (unlinked, True)


def test_a_rollover_by_another_writer_is_nothing_to_notice(path):
    """When another writer rolled the segment over, going on in the new one is no act."""
    one, two = (AuditHandler(target=AuditFileHandler(path, maxBytes=1_000)) for _ in range(2))
    for number in range(20):
        (one, two)[number % 2].handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20}))
        look_again(one)
        look_again(two)
    acts = [act for segment in one.target.segments() for act, _ in acts_in(segment)]
    assert acts == ["opened", "opened"]


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_an_outage_is_in_the_trail(path, on_error, capsys):
    """A failing target leaves "fault", if events may be pending, and "recovery" when it is over."""
    handler = AuditHandler(filename=path, on_error=on_error, call_later=lambda seconds, retry: None)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    log = get_audit_logger()
    log.info("STORE")
    real, handler.target._active.fd = handler.target._active.fd, os.open("/dev/full", os.O_WRONLY)
    handler.target._active.check_at = float("inf")
    if on_error == "raise":
        with pytest.raises(Exception, match="not recorded"):
            log.info("RECALL")
    else:
        log.info("RECALL")
    os.close(handler.target._active.fd)
    handler.target._active.fd = real
    log.info("FORGET")
    acts = [act for act, _ in acts_in(path)]
    assert acts == (["opened", "fault", "recovery"] if on_error == "retry" else ["opened", "recovery"])
    assert "RECALL" not in capsys.readouterr().err


def test_a_forked_child_opens_the_trail_itself(handler, log, path):
    """A child that records says that it opened the trail."""
    log.info("STORE")
    pid = os.fork()
    if not pid:
        log.info("RECALL")
        os._exit(0)
    os.waitpid(pid, 0)
    assert [said["pid"] for act, said in acts_in(path) if act == "opened"] == [os.getpid(), pid]


def test_opened_is_not_lost_with_the_first_event(path):
    """If the very first write fails, the trail is opened by the next event."""
    handler = AuditHandler(filename=path, on_error="raise")
    handler.target._active.release()
    handler.target._active.fd, handler.target._active.check_at = os.open("/dev/full", os.O_WRONLY), float("inf")
    record = logging.makeLogRecord({"msg": "STORE", "levelno": 20})
    with pytest.raises(Exception, match="not recorded"):
        handler.handle(record)
    handler.target._active.release()
    handler.handle(record)
    assert "opened" in [act for act, _ in acts_in(path)] or not handler._trail_events.is_open
    handler.handle(record)
    assert "opened" in [act for act, _ in acts_in(path)]
