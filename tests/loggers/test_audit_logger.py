"""`AuditLogger`: its parameters, its documents, and its queries."""

import asyncio
import gc
import json
import logging
import logging.config
import os
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from conftest import lines_in

from structlog_audit import (
    AuditHandler,
    AuditLogger,
    AuditTypeError,
    AuditValueError,
    AuditWriteError,
    EventStatus,
    OperationType,
    unheard_events,
)
from structlog_audit.testing import FailingTarget

START = datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock:
    """A clock that moves by a microsecond at each reading."""

    def __init__(self, start: datetime = START, step: int = 1) -> None:
        self.microseconds = (start - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
        self.step = step

    def __call__(self) -> int:
        self.microseconds += self.step
        return self.microseconds * 1_000


def failing_target() -> FailingTarget:
    """Return a target that fails, as on a full disk, until it recovers."""
    target = FailingTarget()
    target.fail()
    return target


def documents(folder: Path) -> dict[str, list[str]]:
    """Return the ids of the events in each document in *folder*, by the name of the document."""
    found = {}
    for place in sorted(folder.iterdir()):
        document = json.loads(place.read_text())
        assert document["total_events"] == len(document["events"])
        found[place.name] = [event["event_id"] for event in document["events"]]
    return found


def exported(folder: Path) -> list[str]:
    """Return the ids of all events in the documents in *folder*."""
    return [event_id for ids in documents(folder).values() for event_id in ids]


def record_some(audit_logger: AuditLogger, count: int) -> list[str]:
    """Record *count* events; return their ids."""
    return [audit_logger.record("STORE", entry_ids=[f"entry_{number}"]).event_id for number in range(count)]


# Parameters


@pytest.mark.parametrize("extra", [{}, {"handler": AuditHandler()}])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("10", AuditTypeError),
        (1.5, AuditTypeError),
        (True, AuditTypeError),
        (None, AuditTypeError),
        (0, AuditValueError),
        (-1, AuditValueError),
    ],
)
def test_max_events_must_be_a_positive_integer(value, error, extra):
    """``max_events`` is an integer of at least 1, beside a handler, too; the message has name and value."""
    with pytest.raises(error, match=rf"max_events={value!r}: .*at least 1"):
        AuditLogger(value, **extra)


@pytest.mark.parametrize("value", [5, b"x".hex, ["folder"]])
def test_auto_export_path_that_is_not_a_path_is_an_error(value):
    """Anything but the path of a folder is an AuditTypeError that names the parameter."""
    with pytest.raises(AuditTypeError, match=r"auto_export_path=.*expected the path of a folder"):
        AuditLogger(auto_export_path=value)


def test_auto_export_path_that_is_a_url_is_an_error():
    """A URL would be a folder such as ``s3:`` on this machine."""
    with pytest.raises(
        AuditValueError, match=r"auto_export_path='s3://bucket': expected a path on this machine, got a URL"
    ):
        AuditLogger(auto_export_path="s3://bucket")


def test_auto_export_path_of_a_file_is_an_error(tmp_path):
    """An ``auto_export_path`` that is a file is refused at once."""
    (tmp_path / "file").touch()
    with pytest.raises(AuditValueError, match=r"auto_export_path=.*expected a folder"):
        AuditLogger(auto_export_path=tmp_path / "file")


@pytest.mark.parametrize("value", [5, logging.NullHandler(), AuditHandler])
def test_handler_of_another_type_is_an_error(value):
    """``handler`` is an AuditHandler or the name of one; anything else is an AuditTypeError."""
    with pytest.raises(AuditTypeError, match="expected an AuditHandler or the name of one"):
        AuditLogger(handler=value)


@pytest.mark.parametrize("options", [{"filename": "audit.jsonl"}, {"on_error": "raise"}])
def test_options_beside_a_handler_are_an_error(options):
    """A handler has a file and options already: passing them as well is an error that names them."""
    (name,) = options
    with pytest.raises(AuditValueError, match=f"expected no {name} beside it"):
        AuditLogger(handler=AuditHandler(), **options)


def test_unknown_parameter_is_an_error():
    """An unknown parameter is a TypeError that names it."""
    with pytest.raises(TypeError, match="max_event"):
        AuditLogger(max_event=10)


def test_options_are_passed_to_the_new_handler(tmp_path):
    """Options are those of the new AuditHandler."""
    audit_logger = AuditLogger(20, on_error="raise", max_pending=3, clock=Clock())
    assert audit_logger.handler.on_error == "raise"
    assert audit_logger.record("STORE").timestamp == START + MICROSECOND
    with pytest.raises(AuditValueError, match="on_error='ignore'"):
        AuditLogger(on_error="ignore")


def test_default_audit_logger_writes_no_file(tmp_path, monkeypatch):
    """Without parameters events are kept in memory only."""
    monkeypatch.chdir(tmp_path)
    with AuditLogger() as audit_logger:
        event = audit_logger.record("STORE", "user_123")
    assert audit_logger.query_events() == [event]
    assert list(tmp_path.iterdir()) == []


# Recording


def test_log_event_and_record_take_the_same_arguments():
    """Both take the same arguments by position and by name, and return the recorded event."""
    audit_logger = AuditLogger()
    names = ("operation", "user_id", "session_id", "entry_ids", "metadata", "status", "error_message", "duration_ms")
    values = (OperationType.EXPORT, "u", "s", ["e"], {"k": [1]}, EventStatus.PARTIAL, "half", 1.5)
    events = [
        audit_logger.record(*values),
        audit_logger.record(**dict(zip(names, values, strict=True))),
        asyncio.run(audit_logger.log_event(*values)),
        asyncio.run(audit_logger.log_event(**dict(zip(names, values, strict=True)))),
    ]
    assert audit_logger.query_events(newest_first=False) == events
    assert all(audit_logger.get_event(event.event_id) == event for event in events)
    assert {tuple(str(getattr(event, name)) for name in names) for event in events} == {
        ("EXPORT", "u", "s", "['e']", "{'k': [1]}", "PARTIAL", "half", "1.5")
    }


@pytest.mark.parametrize(("error_message", "status"), [(None, EventStatus.SUCCESS), ("timeout", EventStatus.FAILURE)])
def test_default_status_depends_on_the_error_message(error_message, status):
    """Without a status an event is a SUCCESS, or a FAILURE if there is an error message."""
    assert AuditLogger().record("STORE", error_message=error_message).status is status


def test_later_changes_of_arguments_do_not_reach_the_event():
    """Changes that a caller makes to its lists and dictionaries afterwards do not reach the trail."""
    audit_logger = AuditLogger()
    entry_ids, metadata = ["e1"], {"tags": ["a"]}
    audit_logger.record("STORE", entry_ids=entry_ids, metadata=metadata)
    entry_ids.append("e2")
    metadata["tags"].append("b")
    (event,) = audit_logger.query_events()
    assert (event.entry_ids, event.metadata) == (["e1"], {"tags": ["a"]})


def test_arguments_override_contextvars():
    """structlog's contextvars are merged; the arguments of a call override them."""
    audit_logger = AuditLogger()
    with structlog.contextvars.bound_contextvars(user_id="bound", request="r1"):
        assert audit_logger.record("STORE").user_id == "bound"
        event = audit_logger.record("STORE", "given")
    assert (event.user_id, event.metadata) == ("given", {"request": "r1"})


def test_event_is_in_the_file_when_the_call_returns(path):
    """With ``filename`` each event is a line of the trail when the call returns."""
    with AuditLogger(filename=path) as audit_logger:
        for number in range(5):
            event = audit_logger.record("STORE", f"user_{number}")
            assert json.loads(path.read_text().splitlines()[-1])["event_id"] == event.event_id
    assert len(lines_in(path)) == 5


def test_concurrent_tasks_and_threads_record_each_event_once(path):
    """Events of many tasks and threads are recorded once each, in the order of their ids."""

    async def main():
        def from_thread(number):
            return audit_logger.record("RECALL", f"thread_{number}")

        events = [audit_logger.log_event("STORE", f"task_{number}") for number in range(500)]
        calls = [asyncio.to_thread(from_thread, number) for number in range(100)]
        return await asyncio.gather(*events, *calls)

    with AuditLogger(filename=path) as audit_logger:
        events = asyncio.run(main())
    in_file = lines_in(path)
    ids = [event["event_id"] for event in in_file]
    assert sorted(event.event_id for event in events) == ids
    assert [event.event_id for event in audit_logger.iter_events()] == ids
    assert Counter(event["user_id"] for event in in_file) == Counter(event.user_id for event in events)
    assert len({event["user_id"] for event in in_file}) == 600


def test_unwritten_event_is_an_error_with_on_error_raise(tmp_path):
    """The caller gets an AuditWriteError, and the event is in no buffer and no document."""
    target = failing_target()
    audit_logger = AuditLogger(2, tmp_path / "docs", target=target, on_error="raise")
    with pytest.raises(AuditWriteError, match="No space left"):
        asyncio.run(audit_logger.log_event("STORE"))
    assert audit_logger.count_events() == 0
    target.recover()
    event = audit_logger.record("STORE")
    audit_logger.close()
    assert exported(tmp_path / "docs") == [event.event_id]


def test_unwritten_event_is_pending_until_the_target_recovers(capsys):
    """By default the event is pending and can be queried; ``flush`` writes it when the target recovers."""
    target = failing_target()
    audit_logger = AuditLogger(target=target, call_later=lambda seconds, function: None)
    event = audit_logger.record("STORE")
    assert audit_logger.query_events() == [event]
    assert audit_logger.get_statistics()["pending"] == 1
    target.recover()
    audit_logger.flush()
    stats = audit_logger.get_statistics()
    assert (stats["pending"], stats["recorded"]) == (0, 1)
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["record", "log_event"])
def test_muted_event_warns_once_and_is_in_no_document(tmp_path, method):
    """An event muted by ``logging.disable`` causes one warning, is counted, and is in no document."""
    audit_logger = AuditLogger(2, tmp_path / "docs")

    def call():
        if method == "record":
            return audit_logger.record("STORE", "u1")
        return asyncio.run(audit_logger.log_event("STORE", "u1"))

    before = call()
    logging.disable(logging.CRITICAL)
    with pytest.warns(RuntimeWarning, match=r"was not recorded: logging\.disable") as caught:
        muted = [call(), call()]
    assert len(caught) == 1
    assert unheard_events() == {("structlog_audit.AuditLogger", "logging-disable"): 2}
    assert [(event.operation, event.user_id, event.status) for event in muted] == [("STORE", "u1", "SUCCESS")] * 2
    assert muted[0].event_id != muted[1].event_id
    logging.disable(logging.NOTSET)
    after = call()
    audit_logger.close()
    assert audit_logger.query_events() == [after, before]
    assert exported(tmp_path / "docs") == [before.event_id, after.event_id]


def test_muted_event_is_an_error_with_on_error_raise():
    """A muted event is an AuditWriteError with ``on_error="raise"``."""
    audit_logger = AuditLogger(on_error="raise")
    logging.disable(logging.CRITICAL)
    with pytest.raises(AuditWriteError, match=r"logging\.disable"):
        audit_logger.record("STORE")


def test_dict_config_does_not_disable_an_audit_logger():
    """A ``dictConfig`` that disables every logger it does not mention does not affect an audit logger."""
    audit_logger = AuditLogger()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}})
    event = audit_logger.record("STORE")
    assert audit_logger.query_events() == [event]


def test_audit_logger_is_hidden_from_the_root_logger(caplog):
    """Without ``handler`` an audit logger is private: no handler of the root logger sees its events."""
    caplog.set_level(logging.NOTSET)
    AuditLogger().record("STORE")
    assert caplog.records == []


# The handler


def test_given_handler_is_shared():
    """An audit logger records to the handler it is given, together with other audit loggers."""
    handler = AuditHandler()
    audit_logger = AuditLogger(handler=handler)
    event = audit_logger.record("STORE")
    assert audit_logger.handler is handler
    assert handler.query_events() == [event]
    assert AuditLogger(handler=handler).query_events() == [event]


def test_handler_is_found_by_its_configured_name(tmp_path):
    """An audit logger finds a configured handler by its name, and sees the events of other entry points."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "file": {"class": "structlog_audit.AuditFileHandler", "filename": str(tmp_path / "audit.jsonl")},
                "trail": {"class": "structlog_audit.AuditHandler", "target": "file"},
                "other": {"class": "structlog_audit.AuditHandler"},
            },
            "loggers": {
                "app.audit": {"handlers": ["trail"], "level": "INFO", "propagate": False},
                "app.other": {"handlers": ["other"], "level": "INFO", "propagate": False},
            },
        }
    )
    audit_logger = AuditLogger(handler="trail")
    logging.getLogger("app.audit").info("RECALL", extra={"user_id": "u1"})
    logging.getLogger("app.other").info("FORGET")
    audit_logger.record("STORE")
    assert [event.operation for event in audit_logger.iter_events()] == ["RECALL", "STORE"]
    assert len(lines_in(tmp_path / "audit.jsonl")) == 2
    audit_logger.close()


def test_handler_name_without_any_handler_is_an_error():
    """A name is an AuditValueError if no handler is attached to a logger."""
    with pytest.raises(AuditValueError, match="name='nowhere': no AuditHandler is attached to a logger; configure"):
        AuditLogger(handler="nowhere")


def test_unknown_handler_name_is_an_error_with_the_known_names(handler):
    """A name without a handler is an AuditValueError that lists the existing names."""
    handler.name = "trail"
    with pytest.raises(AuditValueError, match="name='nowhere': expected the name of an attached AuditHandler: 'trail'"):
        AuditLogger(handler="nowhere")


def test_handler_name_where_no_handler_has_one_is_an_error_that_says_so(handler):
    """A name is an AuditValueError that states that the attached handlers have none."""
    assert handler.name is None
    with pytest.raises(AuditValueError, match="name of an attached AuditHandler: none has a name; set it in"):
        AuditLogger(handler="nowhere")


def test_two_audit_loggers_are_independent():
    """Two audit loggers share no events."""
    one, other = AuditLogger(), AuditLogger()
    event = one.record("STORE")
    assert (one.query_events(), other.query_events()) == ([event], [])


# Auto-export


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35])
def test_documents_hold_each_event_once(tmp_path, count):
    """Documents hold ``max_events`` events each, in order, and the last one the rest."""
    audit_logger = AuditLogger(10, tmp_path, clock=Clock())
    ids = record_some(audit_logger, count)
    audit_logger.close()
    assert exported(tmp_path) == ids
    full, rest = divmod(count, 10)
    assert [len(found) for found in documents(tmp_path).values()] == [10] * full + [rest] * bool(rest)


def test_second_close_writes_no_document(tmp_path):
    """A second close writes no document; events after a close go into another one."""
    audit_logger = AuditLogger(10, tmp_path)
    before = record_some(audit_logger, 3)
    audit_logger.close()
    audit_logger.close()
    assert list(documents(tmp_path).values()) == [before]
    after = record_some(audit_logger, 2)
    audit_logger.close()
    assert list(documents(tmp_path).values()) == [before, after]


def test_document_never_replaces_an_existing_name(tmp_path):
    """An existing name of any kind is left alone: the next free second becomes the name."""
    taken = tmp_path / "audit_2025_01_15_103045.json"
    taken.write_text("of another program")
    (tmp_path / "audit_2025_01_15_103046.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "audit_2025_01_15_103048.json").mkdir()
    with AuditLogger(1, tmp_path, clock=Clock()) as audit_logger:
        ids = record_some(audit_logger, 2)
    assert taken.read_text() == "of another program"
    written = {
        name: json.loads((tmp_path / f"audit_2025_01_15_{name}.json").read_text()) for name in ("103047", "103049")
    }
    assert [document["events"][0]["event_id"] for document in written.values()] == ids
    assert not (tmp_path / "nowhere").exists()
    assert len(list(tmp_path.iterdir())) == 5


def test_two_audit_loggers_can_export_to_one_folder(tmp_path):
    """Two audit loggers that export to one folder at the same time do not overwrite each other's documents."""
    loggers = [AuditLogger(2, tmp_path, clock=Clock()) for _ in range(2)]
    ids = [event_id for _ in range(4) for audit_logger in loggers for event_id in record_some(audit_logger, 1)]
    for audit_logger in loggers:
        audit_logger.close()
    assert sorted(exported(tmp_path)) == sorted(ids)


def test_concurrent_threads_export_each_event_once(tmp_path):
    """Each event of concurrent threads is in exactly one document."""
    audit_logger = AuditLogger(50, tmp_path)
    ids: list[str] = []

    def work():
        ids.extend(record_some(audit_logger, 125))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit_logger.close()
    assert len(set(ids)) == 1_000
    assert sorted(exported(tmp_path)) == sorted(ids)
    assert [len(found) for found in documents(tmp_path).values()] == [50] * 20


def test_events_of_a_failed_document_go_into_the_next_one(tmp_path, capsys):
    """A failed document is reported on stderr without content; its events are in the next document."""
    folder = tmp_path / "docs"
    audit_logger = AuditLogger(2, folder, clock=Clock())
    folder.write_text("a file in the place of the folder")
    ids = record_some(audit_logger, 4)
    audit_logger.close()
    reports = capsys.readouterr().err.splitlines()
    # One for each attempt at a document; the second attempt may come before or after the close.
    assert len(reports) in (2, 3)
    assert all("auto-export to" in line and "the next document has its events" in line for line in reports)
    assert "entry_" not in "".join(reports)
    folder.unlink()
    ids += record_some(audit_logger, 1)
    audit_logger.close()
    assert list(documents(folder).values()) == [ids]


def test_failed_export_is_retried_with_the_next_document(tmp_path, capsys):
    """After a failure the next attempt comes with the next ``max_events`` events, not with each event."""
    folder = tmp_path / "docs"
    audit_logger = AuditLogger(10, folder)
    folder.write_text("a file in the place of the folder")
    ids = record_some(audit_logger, 39)
    audit_logger.close()
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 4
    folder.unlink()
    audit_logger.close()
    assert exported(folder) == ids


def test_enable_rotation_false_exports_no_document(tmp_path):
    """``enable_rotation=False`` exports no document; the buffer is bounded in any case."""
    with AuditLogger(3, tmp_path / "docs", enable_rotation=False) as audit_logger:
        ids = record_some(audit_logger, 10)
    assert not (tmp_path / "docs").exists()
    assert [event.event_id for event in audit_logger.iter_events()] == ids[-3:]


def test_export_leaves_the_buffer_unchanged(tmp_path):
    """An export removes no event from the buffer: it holds the newest ``max_events`` events."""
    with AuditLogger(4, tmp_path) as audit_logger:
        ids = record_some(audit_logger, 6)
        assert [event.event_id for event in audit_logger.iter_events()] == ids[-4:]
        audit_logger.clear()
        assert audit_logger.count_events() == 0
    assert exported(tmp_path) == ids


def test_collected_audit_logger_exports_the_rest(tmp_path):
    """An audit logger that is not closed exports the rest when it is collected."""
    audit_logger = AuditLogger(10, tmp_path)
    ids = record_some(audit_logger, 3)
    del audit_logger
    gc.collect()
    assert exported(tmp_path) == ids


def test_end_of_the_interpreter_exports_the_rest(tmp_path):
    """Events recorded until the very end of a process, in ``atexit`` functions too, are in its documents."""
    script = """if True:
        import atexit, sys
        from structlog_audit import AuditLogger

        audit_logger = AuditLogger(2, sys.argv[1])

        def record(count):
            for _ in range(count):
                print(audit_logger.record("STORE").event_id)

        atexit.register(record, 4)
        record(3)
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert len(done.stdout.split()) == 7
    assert sorted(exported(tmp_path)) == sorted(done.stdout.split())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_exports_only_its_events(tmp_path):
    """A forked child exports its events; those before the fork are exported by the parent alone."""
    script = """if True:
        import os, sys
        from structlog_audit import AuditLogger

        audit_logger = AuditLogger(10, sys.argv[1])
        before = audit_logger.record("STORE", "before").event_id
        if os.fork():
            os.wait()
            print(before, audit_logger.record("STORE", "parent").event_id, flush=True)
        else:
            print(audit_logger.record("STORE", "child").event_id, flush=True)
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    users = [
        [event["user_id"] for event in json.loads(place.read_text())["events"]] for place in sorted(tmp_path.iterdir())
    ]
    assert users == [["child"], ["before", "parent"]]
    assert sorted(exported(tmp_path)) == sorted(done.stdout.split())


# Closing


def test_context_manager_closes_the_audit_logger(tmp_path, path):
    """``with`` returns the audit logger and closes it: the rest is exported, errors propagate."""
    audit_logger, events = AuditLogger(10, tmp_path / "docs", filename=path), []

    def fail_within():
        with audit_logger as entered:
            events.append(entered.record("STORE"))
            raise KeyError("the application's own")

    with pytest.raises(KeyError, match="the application's own"):
        fail_within()
    assert exported(tmp_path / "docs") == [events[0].event_id]
    assert audit_logger.query_events() == events


def test_closed_audit_logger_reopens_its_file(path):
    """A closed audit logger opens its file again for the next event."""
    with AuditLogger(filename=path) as audit_logger:
        audit_logger.record("STORE")
    with audit_logger:
        audit_logger.record("RECALL")
    assert [line["operation"] for line in lines_in(path)] == ["STORE", "RECALL"]


# Queries


@pytest.fixture
def three():
    """Make an audit logger with three events, a microsecond apart."""
    audit_logger = AuditLogger(clock=Clock())
    audit_logger.record("STORE", "alice", "s1")
    audit_logger.record("RECALL", "alice", "s2", status="FAILURE")
    audit_logger.record("STORE", "bob", "s1")
    return audit_logger


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), "cba"),
        ((None,) * 7, "cba"),
        (("STORE",), "ca"),
        ((OperationType.RECALL,), "b"),
        ((None, "alice"), "ba"),
        ((None, None, "s1"), "ca"),
        ((None, None, None, "FAILURE"), "b"),
        ((None, None, None, None, START + 2 * MICROSECOND), "cb"),
        ((None, None, None, None, None, START + 2 * MICROSECOND), "ba"),
        ((None, None, None, None, START + 2 * MICROSECOND, START + 2 * MICROSECOND), "b"),
        ((None, None, None, None, datetime.min, datetime.max), "cba"),
        ((None, None, None, None, None, datetime.max.replace(tzinfo=UTC)), "cba"),
        ((None, None, None, None, None, None, 2), "cb"),
        (("STORE", "alice", "s1", "SUCCESS", START, None, 1), "a"),
        (("GET",), ""),
    ],
)
def test_get_events_takes_the_filters_of_axon(three, filters, expected):
    """``get_events`` takes axon's filters by position; None matches any value, the end is included."""
    names = dict(zip(three.iter_events(), "abc", strict=True))
    assert "".join(names[event] for event in asyncio.run(three.get_events(*filters))) == expected


def test_queries_are_those_of_the_handler(three, tmp_path):
    """Queries, counts, statistics and exports are those of the handler it records to."""
    handler = three.handler
    assert three.query_events(user_id="alice") == handler.query_events(user_id="alice")
    assert three.count_events(session_id="s1") == 2
    assert three.get_statistics() == handler.get_statistics()
    assert three.get_statistics()["recorded"] == 3
    assert three.get_user_statistics("alice")["total_operations"] == 2
    assert three.complete_since is handler.complete_since is None
    assert three.export_to_file(tmp_path / "stores.jsonl", operation="STORE") == 2
    with pytest.raises(AuditTypeError, match="unknown filter 'user'"):
        three.query_events(user="alice")


def test_export_is_dated_by_the_clock_of_the_handler(three, tmp_path):
    """An export is dated by the clock that dates the events."""
    three.export_to_file(tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text())["exported_at"] == "2025-01-15T10:30:45.123460Z"


def test_events_waiting_for_a_failing_folder_are_bounded(tmp_path, capsys):
    """Too many waiting events are left out, counted and reported; the newest ones are kept."""
    folder = tmp_path / "docs"
    audit_logger = AuditLogger(2, folder)
    folder.write_text("in the way")
    for number in range(30):
        audit_logger.record(f"OP{number}")
    audit_logger.close()
    assert "older events are in no document" in capsys.readouterr().err
    assert audit_logger._auto_export.left_out == 10
    folder.unlink()
    audit_logger.record("LAST")
    audit_logger.close()
    (document,) = folder.iterdir()
    events = json.loads(document.read_text())["events"]
    assert [event["operation"] for event in events] == [f"OP{number}" for number in range(10, 30)] + ["LAST"]


def test_lost_event_is_in_no_document(tmp_path):
    """An event that was lost because too many were pending is not exported as recorded."""
    audit_logger = AuditLogger(
        10, tmp_path / "docs", target=failing_target(), max_pending=1, call_later=lambda seconds, retry: None
    )
    audit_logger.record("KEPT")
    audit_logger.record("LOST")
    audit_logger.close()
    (document,) = (tmp_path / "docs").iterdir()
    assert [event["operation"] for event in json.loads(document.read_text())["events"]] == ["KEPT"]
