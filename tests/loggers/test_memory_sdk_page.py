"""The code blocks of the audit page of the axon memory SDK, with the imports renamed, and the statements of that page.

The page's ``MemorySystem`` is the small one among the examples. It is audited by ``audit_logger=`` as on the page, and by
``instrument`` from outside.
"""

import asyncio
import importlib.util
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import schedule

from structlog_audit import AuditHandler, AuditLogger, EventStatus, OperationType, instrument

_spec = importlib.util.spec_from_file_location(
    "memory_system", Path(__file__).parents[2] / "examples" / "memory_system.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
MemorySystem = _module.MemorySystem

logger = logging.getLogger("test_seed")

OPERATIONS = {
    "store": OperationType.STORE,
    "recall": OperationType.RECALL,
    "forget": OperationType.FORGET,
    "compact": OperationType.COMPACT,
    "export": OperationType.EXPORT,
    "import_data": OperationType.IMPORT,
    "get": "GET",
}


class Clock:
    """A clock that shows the time it is set to, in UTC."""

    def __init__(self, *when: int) -> None:
        self.now = datetime(*when, tzinfo=UTC)

    def __call__(self) -> int:
        return (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


@pytest.fixture
def audit_logger():
    with AuditLogger(max_events=10000) as audit_logger:
        yield audit_logger


@pytest.fixture(params=["audit_logger", "instrument"])
def memory(request, audit_logger):
    """Make a memory system that is audited to *audit_logger* in one of two ways."""
    if request.param == "audit_logger":
        yield MemorySystem({}, audit_logger=audit_logger)
        return
    audit_log = logging.getLogger("test_seed.audit")
    audit_log.addHandler(audit_logger.handler)
    audit_log.setLevel(logging.INFO)
    audit_log.propagate = False
    memory = MemorySystem({})
    undo = instrument(memory, OPERATIONS, logger=audit_log.name)
    yield memory
    undo()
    audit_log.removeHandler(audit_logger.handler)


async def log_manually(audit_logger):
    """Run the page's block "Manual Logging"; return its two events."""
    # Log successful operation
    stored = await audit_logger.log_event(
        operation=OperationType.STORE,
        user_id="user_123",
        session_id="session_abc",
        entry_ids=["entry_1", "entry_2"],
        metadata={"source": "api", "batch_size": 2},
        status=EventStatus.SUCCESS,
        duration_ms=45.2,
    )

    # Log failed operation
    failed = await audit_logger.log_event(
        operation=OperationType.RECALL,
        user_id="user_456",
        status=EventStatus.FAILURE,
        error_message="Database connection timeout",
        duration_ms=5000.0,
    )
    return stored, failed


def test_basic_usage_records_operations_automatically(memory, audit_logger, capsys):
    """Basic usage: operations are logged automatically, and a query counts the stores of the last hour."""

    async def main():
        # Operations are automatically logged
        await memory.store("Important data", user_id="user_123")
        await memory.recall("query", user_id="user_123")
        await memory.forget("entry_id", user_id="user_123")

        # Query audit trail
        events = audit_logger.query_events(
            user_id="user_123", operation="STORE", start_time=datetime.now() - timedelta(hours=1)
        )

        print(f"User stored {len(events)} entries in the last hour")

    asyncio.run(main())
    assert capsys.readouterr().out == "User stored 1 entries in the last hour\n"
    assert [event.operation for event in audit_logger.iter_events()] == ["STORE", "RECALL", "FORGET"]
    assert {event.user_id for event in audit_logger.iter_events()} == {"user_123"}
    assert all(event.duration_ms >= 0 and event.status == "SUCCESS" for event in audit_logger.iter_events())
    assert audit_logger.query_events(operation="FORGET")[0].entry_ids == ["entry_id"]


def test_failing_operation_is_recorded_and_raised(memory, audit_logger):
    """An operation that raises is a FAILURE with its error, and the exception reaches the caller."""
    with pytest.raises(ValueError, match="content cannot be empty"):
        asyncio.run(memory.store("", user_id="user_123"))
    with pytest.raises(KeyError):
        asyncio.run(memory.get("entry_9", user_id="user_123"))
    get, store = audit_logger.query_events(status=EventStatus.FAILURE)
    assert (store.operation, store.error_message) == ("STORE", "ValueError: content cannot be empty")
    assert (get.operation, get.operation.value, get.entry_ids) == ("GET", "GET", ["entry_9"])


def test_both_configurations_of_the_page_record(tmp_path, monkeypatch):
    """Configuration: both forms of the page construct an audit logger that records."""
    monkeypatch.chdir(tmp_path)
    # Basic configuration
    audit_logger = AuditLogger(
        max_events=10000,  # Keep 10K events in memory
        auto_export_path=None,  # No auto-export
        enable_rotation=True,  # Rotate when max reached
    )
    asyncio.run(log_manually(audit_logger))
    audit_logger.close()
    assert audit_logger.count_events() == 2
    assert list(tmp_path.iterdir()) == []

    # With auto-export
    audit_logger = AuditLogger(max_events=10000, auto_export_path=Path("./audit_logs"), enable_rotation=True)
    asyncio.run(log_manually(audit_logger))
    audit_logger.close()
    (document,) = (tmp_path / "audit_logs").iterdir()
    assert json.loads(document.read_text())["total_events"] == 2


def test_operation_types_are_the_six_of_the_page():
    """Event types: the six operations of the page, each equal to its string."""
    names = ["STORE", "RECALL", "FORGET", "COMPACT", "EXPORT", "IMPORT"]
    operations = [
        OperationType.STORE,  # Storing new entries
        OperationType.RECALL,  # Querying/searching
        OperationType.FORGET,  # Deleting entries
        OperationType.COMPACT,  # Compaction operations
        OperationType.EXPORT,  # Data exports
        OperationType.IMPORT,  # Data imports
    ]
    assert operations == list(OperationType) == names


def test_event_statuses_are_the_three_of_the_page():
    """Event status: the three outcomes of the page, each equal to its string."""
    outcomes = [
        EventStatus.SUCCESS,  # Operation succeeded
        EventStatus.FAILURE,  # Operation failed
        EventStatus.PARTIAL,  # Partially succeeded (e.g., some entries)
    ]
    assert outcomes == list(EventStatus) == ["SUCCESS", "FAILURE", "PARTIAL"]


def test_manual_logging_returns_the_recorded_event(audit_logger):
    """Manual logging: the arguments are recorded, and the recorded event is returned."""
    stored, failed = asyncio.run(log_manually(audit_logger))
    assert audit_logger.query_events(newest_first=False) == [stored, failed]
    assert stored.to_dict() == {
        "event_id": stored.event_id,
        "timestamp": stored.to_dict()["timestamp"],
        "operation": "STORE",
        "user_id": "user_123",
        "session_id": "session_abc",
        "entry_ids": ["entry_1", "entry_2"],
        "metadata": {"source": "api", "batch_size": 2},
        "status": "SUCCESS",
        "error_message": None,
        "duration_ms": 45.2,
    }
    assert (failed.status, failed.error_message) == (EventStatus.FAILURE, "Database connection timeout")
    assert (failed.entry_ids, failed.metadata, failed.session_id, failed.duration_ms) == ([], {}, None, 5000.0)


def test_query_by_user_and_operation(audit_logger):
    """Querying by user: all events of one user, and those of one operation."""
    stored, _ = asyncio.run(log_manually(audit_logger))
    # All events for a user
    events = audit_logger.query_events(user_id="user_123")
    assert events == [stored]

    # Specific operation
    events = audit_logger.query_events(user_id="user_123", operation=OperationType.STORE)
    assert events == [stored]
    assert audit_logger.query_events(user_id="user_123", operation=OperationType.RECALL) == []


def test_query_by_time_range_is_half_open_in_local_time():
    """Querying by time: naive times are local; the page's range of January lacks its last day."""
    clock = Clock(2025, 1, 15, 12)
    audit_logger = AuditLogger(clock=clock)
    of_january = audit_logger.record("STORE")
    clock.now = datetime(2025, 1, 31).astimezone(UTC)
    of_last_day = audit_logger.record("STORE")
    clock.now = datetime.now(UTC)
    of_now = audit_logger.record("STORE")

    # Last hour
    events = audit_logger.query_events(start_time=datetime.now() - timedelta(hours=1))
    assert events == [of_now]

    # Specific date range
    events = audit_logger.query_events(start_time=datetime(2025, 1, 1), end_time=datetime(2025, 1, 31))
    assert events == [of_january]
    whole = audit_logger.query_events(start_time=datetime(2025, 1, 1), end_time=datetime(2025, 2, 1))
    assert whole == [of_last_day, of_january]


def test_query_by_status_and_operation(audit_logger):
    """Querying by status: failures, and successful stores."""
    stored, failed = asyncio.run(log_manually(audit_logger))
    # Failed operations only
    failures = audit_logger.query_events(status=EventStatus.FAILURE)
    assert failures == [failed]

    # Successful stores
    successful_stores = audit_logger.query_events(operation=OperationType.STORE, status=EventStatus.SUCCESS)
    assert successful_stores == [stored]


def test_filters_of_a_query_combine_with_and(audit_logger):
    """Complex queries: filters combine with AND, entry ids match any of the given ones."""
    stored, _ = asyncio.run(log_manually(audit_logger))
    of_user = audit_logger.record(OperationType.RECALL, "user_123", status=EventStatus.FAILURE)
    other = audit_logger.record(OperationType.FORGET, "user_456", entry_ids=["entry_2", "entry_3"])
    # Failed recalls for specific user in last 24 hours
    events = audit_logger.query_events(
        user_id="user_123",
        operation=OperationType.RECALL,
        status=EventStatus.FAILURE,
        start_time=datetime.now() - timedelta(days=1),
    )
    assert events == [of_user]

    # All operations on specific entries
    events = audit_logger.query_events(entry_ids=["entry_1", "entry_2"])
    assert events == [other, stored]


def test_manual_export_writes_all_or_selected_events(audit_logger, tmp_path, monkeypatch):
    """Manual export: the whole trail, the oldest first, and the events of one user in another file."""
    monkeypatch.chdir(tmp_path)
    stored, failed = asyncio.run(log_manually(audit_logger))
    # Export to JSON file
    audit_logger.export_to_file(Path("./audit_trail.json"))

    # Export filtered events
    events = audit_logger.query_events(user_id="user_123")
    audit_logger.export_events(events, Path("./user_123_audit.json"))

    def ids(name):
        return [event["event_id"] for event in json.loads(Path(name).read_text())["events"]]

    assert ids("audit_trail.json") == [stored.event_id, failed.event_id]
    assert ids("user_123_audit.json") == [stored.event_id]


def test_auto_export_names_documents_after_the_second(tmp_path):
    """Auto-export: documents are named after the second, and further ones in it after the next seconds."""
    clock = Clock(2025, 1, 15, 10, 30, 45, 123456)
    # Automatically export when max_events reached
    audit_logger = AuditLogger(
        max_events=3, auto_export_path=tmp_path / "audit_logs", enable_rotation=True, clock=clock
    )
    for number in range(7):
        asyncio.run(audit_logger.log_event(OperationType.STORE, entry_ids=[f"entry_{number}"]))
    audit_logger.close()
    documents = sorted((tmp_path / "audit_logs").iterdir())
    assert [document.name for document in documents] == [
        "audit_2025_01_15_103045.json",
        "audit_2025_01_15_103046.json",
        "audit_2025_01_15_103047.json",
    ]
    assert [json.loads(document.read_text())["total_events"] for document in documents] == [3, 3, 1]
    assert audit_logger.count_events() == 3


def test_export_document_is_that_of_the_page(tmp_path):
    """Export format: members, their order, times and numbers are those of the page; only the id differs."""
    clock = Clock(2025, 1, 15, 10, 30, 45, 123456)
    audit_logger = AuditLogger(clock=clock)
    event = audit_logger.record(
        "STORE",
        "user_123",
        "session_abc",
        ["entry_1"],
        {"importance": 0.8, "tags": ["verified"]},
        duration_ms=45.2,
    )
    clock.now = datetime(2025, 1, 15, 11, tzinfo=UTC)
    audit_logger.export_to_file(tmp_path / "audit_trail.json")
    page = """{
  "events": [
    {
      "event_id": "evt_abc123",
      "timestamp": "2025-01-15T10:30:45.123456Z",
      "operation": "STORE",
      "user_id": "user_123",
      "session_id": "session_abc",
      "entry_ids": ["entry_1"],
      "metadata": {
        "importance": 0.8,
        "tags": ["verified"]
      },
      "status": "SUCCESS",
      "duration_ms": 45.2
    }
  ],
  "total_events": 1,
  "exported_at": "2025-01-15T11:00:00.000000Z"
}"""
    written = (tmp_path / "audit_trail.json").read_text()
    expected = json.loads(page.replace("evt_abc123", event.event_id))
    assert json.dumps(json.loads(written)) == json.dumps(expected)  # the order of members included
    assert re.fullmatch("evt_[0-9a-f]{32}", event.event_id)


@pytest.mark.parametrize("microsecond", [0, 1, 120000, 999999])
def test_exported_times_always_have_27_characters(tmp_path, microsecond):
    """Export format: times always have 27 characters and end in Z, for any microsecond."""
    audit_logger = AuditLogger(clock=Clock(2025, 1, 15, 10, 30, 45, microsecond))
    audit_logger.record("STORE")
    audit_logger.export_to_file(tmp_path / "audit_trail.json")
    document = json.loads((tmp_path / "audit_trail.json").read_text())
    expected = f"2025-01-15T10:30:45.{microsecond:06}Z"
    assert len(expected) == 27
    assert [document["events"][0]["timestamp"], document["exported_at"]] == [expected, expected]


def test_event_statistics_have_the_keys_of_the_page(audit_logger):
    """Event statistics: the page's keys, formatted as on the page."""
    asyncio.run(log_manually(audit_logger))
    # Get statistics
    stats = audit_logger.get_statistics()
    lines = [
        f"Total events: {stats['total_events']}",
        f"Success rate: {stats['success_rate']:.2%}",
        f"Average latency: {stats['avg_duration_ms']:.2f}ms",
        # By operation
        f"Stores: {stats['by_operation']['STORE']}",
        f"Recalls: {stats['by_operation']['RECALL']}",
    ]
    assert lines == [
        "Total events: 2",
        "Success rate: 50.00%",
        "Average latency: 2522.60ms",
        "Stores: 1",
        "Recalls: 1",
    ]


def test_event_statistics_without_events_have_the_same_keys(audit_logger):
    """Event statistics: the page's lines work without any event, too."""
    stats = audit_logger.get_statistics()
    assert f"{stats['success_rate']:.2%} {stats['avg_duration_ms']:.2f}ms" == "100.00% 0.00ms"
    assert stats["by_operation"] == dict.fromkeys(OperationType, 0)


def test_user_activity_has_the_keys_of_the_page(audit_logger):
    """User activity: the page's keys; an unknown user has no activity."""
    stored, _ = asyncio.run(log_manually(audit_logger))
    # Activity by user
    user_stats = audit_logger.get_user_statistics("user_123")
    lines = [
        f"Total operations: {user_stats['total_operations']}",
        f"Last activity: {user_stats['last_activity']}",
        f"Most common operation: {user_stats['most_common_operation']}",
    ]
    assert lines == ["Total operations: 1", f"Last activity: {stored.timestamp}", "Most common operation: STORE"]
    unknown = audit_logger.get_user_statistics("unknown")
    members = ("total_operations", "last_activity", "most_common_operation")
    assert [unknown[name] for name in members] == [0, None, None]


async def generate_compliance_report(audit_logger, month: int, year: int, end_time: datetime | None = None):
    """Run the page's block "Compliance Reporting"; *end_time* corrects its end of the month."""
    start_time = datetime(year, month, 1)
    end_time = end_time or datetime(year, month + 1, 1)

    # All events in month
    events = audit_logger.query_events(start_time=start_time, end_time=end_time)

    # Group by user
    users = {}
    for event in events:
        user_id = event.user_id or "anonymous"
        if user_id not in users:
            users[user_id] = []
        users[user_id].append(event)

    # Generate report
    report = {
        "period": f"{year}-{month:02d}",
        "total_events": len(events),
        "users": len(users),
        "operations": {},
        "user_activity": {},
    }

    # Count operations
    for event in events:
        op = event.operation.value
        report["operations"][op] = report["operations"].get(op, 0) + 1

    # User activity
    for user_id, user_events in users.items():
        report["user_activity"][user_id] = {
            "total": len(user_events),
            "stores": sum(1 for e in user_events if e.operation == OperationType.STORE),
            "recalls": sum(1 for e in user_events if e.operation == OperationType.RECALL),
            "deletions": sum(1 for e in user_events if e.operation == OperationType.FORGET),
        }

    return report


@pytest.fixture
def two_months():
    """Record events of November and December 2024, in local time, some without a user, one of another operation."""
    clock = Clock(2024, 11, 1)
    audit_logger = AuditLogger(clock=clock)
    for when, operation, user_id in [
        (datetime(2024, 11, 1), OperationType.STORE, "user_123"),
        (datetime(2024, 11, 30, 23, 59, 59, 999999), OperationType.FORGET, None),
        (datetime(2024, 12, 1), OperationType.RECALL, "user_123"),
        (datetime(2024, 12, 31, 23, 59, 59, 999999), "GET", None),
        (datetime(2025, 1, 1), OperationType.STORE, "user_123"),
    ]:
        clock.now = when.astimezone(UTC)
        audit_logger.record(operation, user_id)
    return audit_logger


def test_compliance_report_covers_exactly_one_month(two_months):
    """Compliance report: a month to its last microsecond; events without a user are "anonymous"."""
    assert asyncio.run(generate_compliance_report(two_months, 11, 2024)) == {
        "period": "2024-11",
        "total_events": 2,
        "users": 2,
        "operations": {"FORGET": 1, "STORE": 1},
        "user_activity": {
            "anonymous": {"total": 1, "stores": 0, "recalls": 0, "deletions": 1},
            "user_123": {"total": 1, "stores": 1, "recalls": 0, "deletions": 0},
        },
    }


def test_compliance_report_of_december_needs_the_right_end(two_months):
    """Compliance report: the page's code fails for December; with January as the end it works."""
    with pytest.raises(ValueError, match="month must be in"):
        asyncio.run(generate_compliance_report(two_months, 12, 2024))
    report = asyncio.run(generate_compliance_report(two_months, 12, 2024, end_time=datetime(2025, 1, 1)))
    assert report["total_events"] == 2
    assert report["operations"] == {"GET": 1, "RECALL": 1}
    assert report["user_activity"]["anonymous"] == {"total": 1, "stores": 0, "recalls": 0, "deletions": 0}


async def monitor_security(audit_logger):
    """Check for unusual patterns: the page's block "Security Monitoring"."""
    # Excessive deletions
    recent_deletes = audit_logger.query_events(
        operation=OperationType.FORGET, start_time=datetime.now() - timedelta(hours=1)
    )

    if len(recent_deletes) > 100:
        logger.warning(f"Excessive deletions: {len(recent_deletes)} in last hour")

    # Failed access attempts
    failures = audit_logger.query_events(status=EventStatus.FAILURE, start_time=datetime.now() - timedelta(minutes=15))

    if len(failures) > 10:
        logger.warning(f"Multiple failures: {len(failures)} in 15 minutes")

    # Unusual export activity
    exports = audit_logger.query_events(operation=OperationType.EXPORT, start_time=datetime.now() - timedelta(hours=24))

    if len(exports) > 5:
        logger.warning(f"Unusual export activity: {len(exports)} in 24 hours")


@pytest.mark.parametrize("more", [0, 1])
def test_security_monitoring_warns_beyond_its_bounds_only(memory, audit_logger, caplog, more):
    """Security monitoring: silent at the page's bounds, with three warnings beyond them."""

    async def main():
        for number in range(100 + more):
            await memory.forget(f"entry_{number}", user_id="user_123")
        for number in range(10 + more):
            with pytest.raises(KeyError):
                await memory.get(f"entry_{number}", user_id="user_456")
        for _ in range(5 + more):
            await memory.export()
        await monitor_security(audit_logger)

    asyncio.run(main())
    expected = [
        "Excessive deletions: 101 in last hour",
        "Multiple failures: 11 in 15 minutes",
        "Unusual export activity: 6 in 24 hours",
    ]
    assert [record.getMessage() for record in caplog.records if record.name == logger.name] == (
        expected if more else []
    )


def test_batch_import_is_one_event(memory, audit_logger):
    """Optimization: importing a batch is one event; storing its entries one by one is one event each."""
    entries = ["one", "two", "three"]

    async def main():
        # 1. Batch operations reduce log entries
        await memory.import_data(entries)  # 1 log entry
        # vs
        for entry in entries:
            await memory.store(entry)  # N log entries
        await memory.compact()

    asyncio.run(main())
    done = audit_logger.get_statistics()["by_operation"]
    assert {name: done[name] for name in ("IMPORT", "STORE", "COMPACT")} == {"IMPORT": 1, "STORE": 3, "COMPACT": 1}


def test_buffer_holds_the_newest_max_events():
    """Optimization: the buffer holds the newest ``max_events`` and knows since when it is complete."""
    # 2. Limit max_events for bounded memory
    audit_logger = AuditLogger(max_events=10)
    events = [audit_logger.record("STORE") for _ in range(25)]
    assert audit_logger.query_events(newest_first=False) == events[-10:]
    assert events[14].timestamp < audit_logger.complete_since <= events[15].timestamp + timedelta(microseconds=1)


def test_event_without_user_context_is_found_as_such(memory, audit_logger):
    """Best practice: an event with user and session is trackable; one without is found by ``user_id=None``."""

    async def main():
        # ✓ Good: Trackable
        await memory.store("data", user_id="user_123", session_id="session_abc")

        # ✗ Bad: Anonymous
        await memory.store("data")

    asyncio.run(main())
    (good,) = audit_logger.query_events(user_id="user_123", session_id="session_abc")
    (bad,) = audit_logger.query_events(user_id=None)
    assert (bad.user_id, bad.session_id) == (None, None)
    assert audit_logger.query_events() == [bad, good]


def test_daily_export_writes_a_file_named_after_the_day(audit_logger, tmp_path, monkeypatch):
    """Best practice: the daily export of the page writes the trail to a file named after the day."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(log_manually(audit_logger))

    # Export daily for compliance
    def export_daily():
        timestamp = datetime.now().strftime("%Y%m%d")
        audit_logger.export_to_file(Path(f"./audit_{timestamp}.json"))

    try:
        job = schedule.every().day.at("00:00").do(export_daily)
        job.run()
    finally:
        schedule.clear()
    (document,) = tmp_path.iterdir()
    assert re.fullmatch(r"audit_\d{8}\.json", document.name)
    assert json.loads(document.read_text())["total_events"] == 2


def test_health_check_warns_of_failures_and_latency(audit_logger, caplog):
    """Best practice: the page's health check warns of a low success rate and a high latency."""

    def check():
        # Check health periodically
        stats = audit_logger.get_statistics()

        if stats["success_rate"] < 0.95:
            logger.warning("Low success rate: investigate failures")

        if stats["avg_duration_ms"] > 1000:
            logger.warning("High latency: performance issue")

    check()
    assert caplog.messages == []
    asyncio.run(log_manually(audit_logger))
    check()
    assert caplog.messages == ["Low success rate: investigate failures", "High latency: performance issue"]


def test_instrument_returns_a_function_that_undoes_it(audit_logger):
    """The returned function restores the object, and no more events are recorded."""
    handler = AuditHandler()
    audit_log = logging.getLogger("test_seed.undone")
    audit_log.addHandler(handler)
    audit_log.setLevel(logging.INFO)
    memory = MemorySystem()
    before = dict(vars(memory))
    undo = instrument(memory, OPERATIONS, logger=audit_log.name)
    asyncio.run(memory.store("data"))
    undo()
    assert vars(memory).keys() == before.keys()
    asyncio.run(memory.store("data"))
    audit_log.removeHandler(handler)
    assert handler.count_events() == 1
