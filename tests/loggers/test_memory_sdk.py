"""The unpatched memory system of axon-sdk, with `AuditLogger` in place of its audit logger."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from conftest import lines_in

from structlog_audit import AuditLogger, EventStatus, OperationType

pytest.importorskip("axon", reason="axon-sdk is not installed; it may not support this Python")

from axon.core.config import MemoryConfig
from axon.core.memory_system import MemorySystem
from axon.core.policies.persistent import PersistentPolicy
from axon.models.audit import EventStatus as AxonStatus
from axon.models.audit import OperationType as AxonOperation
from axon.models.filter import Filter

pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")  # raised by axon since Python 3.12


def make_memory(audit_logger):
    config = MemoryConfig(persistent=PersistentPolicy(adapter_type="memory"), default_tier="persistent")
    return MemorySystem(config, audit_logger=audit_logger)


@pytest.fixture
def trail(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit_logger(trail):
    with AuditLogger(filename=trail) as audit_logger:
        yield audit_logger


@pytest.fixture
def memory(audit_logger):
    return make_memory(audit_logger)


def test_store_is_one_event_in_memory_and_in_the_file(memory, audit_logger, trail):
    """A store is one event, with user, session, entry and axon's metadata, in memory and in the file."""
    metadata = {"user_id": "alice", "session_id": "s1"}
    entry_id = asyncio.run(memory.store("Alice likes hiking", metadata=metadata, importance=0.8, tags=["hobby"]))
    (event,) = audit_logger.query_events()
    assert event.operation is OperationType.STORE
    assert event.status is EventStatus.SUCCESS
    assert (event.user_id, event.session_id, event.entry_ids) == ("alice", "s1", [entry_id])
    assert event.duration_ms >= 0
    assert event.metadata == {
        "importance": 0.8,
        "tags": ["hobby"],
        "tier": None,
        "has_embedding": False,
        "privacy_level": "public",
    }
    (line,) = lines_in(trail)
    assert line["event_id"] == event.event_id
    assert line["operation"] == "STORE"


def test_recall_is_one_event_with_the_found_entries(memory, audit_logger):
    """A recall is one event, with the user of its filter and the entries that it found."""

    async def main():
        entry_id = await memory.store("Alice likes hiking", metadata={"user_id": "alice"})
        await memory.store("Bob likes chess", metadata={"user_id": "bob"})
        found = await memory.recall("hiking", filter=Filter(user_id="alice"))
        assert [entry.id for entry in found] == [entry_id]
        return entry_id

    entry_id = asyncio.run(main())
    (event,) = audit_logger.query_events(operation=OperationType.RECALL)
    assert (event.user_id, event.entry_ids, event.status) == ("alice", [entry_id], "SUCCESS")
    assert event.metadata["query"] == "hiking"
    assert event.metadata["result_count"] == 1


def test_export_is_one_event_that_names_every_entry(memory, audit_logger):
    """An export is one event that names every exported entry."""

    async def main():
        ids = [await memory.store(f"note {number}") for number in range(3)]
        await memory.export()
        return ids

    ids = asyncio.run(main())
    (export,) = audit_logger.query_events(operation="EXPORT")
    assert sorted(export.entry_ids) == sorted(ids)
    assert export.metadata["total_entries"] == 3
    assert [event.operation for event in audit_logger.iter_events()] == ["STORE"] * 3 + ["EXPORT"]


def test_deletion_outside_of_axon_is_recorded_by_hand(memory, audit_logger):
    """This axon has no ``forget``: a deletion from its tier is recorded through the same audit logger."""
    assert not hasattr(memory, "forget")

    async def main():
        entry_id = await memory.store("to be forgotten", metadata={"user_id": "alice"})
        adapter = await memory.registry.get_adapter("persistent")
        assert await adapter.delete(entry_id)
        await audit_logger.log_event(AxonOperation.FORGET, user_id="alice", entry_ids=[entry_id])
        return entry_id

    entry_id = asyncio.run(main())
    (event,) = audit_logger.query_events(operation=OperationType.FORGET)
    assert (event.operation, event.user_id, event.entry_ids) == (OperationType.FORGET, "alice", [entry_id])


@pytest.mark.parametrize(
    ("method", "argument", "operation", "message"),
    [
        ("store", "", "STORE", "content cannot be empty"),
        ("recall", None, "RECALL", "query cannot be None"),
    ],
)
def test_failure_is_recorded_and_raised(memory, audit_logger, method, argument, operation, message):
    """A failure is recorded with axon's message, and axon's exception reaches the caller."""
    with pytest.raises(ValueError, match=message):
        asyncio.run(getattr(memory, method)(argument))
    (event,) = audit_logger.query_events(status=EventStatus.FAILURE)
    assert (event.operation, event.error_message) == (operation, message)
    assert event.metadata["error_type"] == "ValueError"


def test_detected_personal_data_is_in_the_metadata(memory, audit_logger):
    """The kinds of personal data that axon detects can be queried; the text itself is not recorded."""
    asyncio.run(memory.store("Mail bob@example.com or call 555-123-4567"))
    asyncio.run(memory.store("Nothing personal"))
    (event,) = audit_logger.query_events(metadata={"pii_detected": True, "pii_types": ["email"]})
    assert sorted(event.metadata["pii_types"]) == ["email", "phone"]
    assert "bob@example.com" not in str(event.to_dict())


def test_export_audit_log_filters_by_operation_user_and_session(memory):
    """axon's ``export_audit_log`` returns dictionaries, the newest first, by operation, user and session."""

    async def main():
        await memory.store("a", metadata={"user_id": "alice", "session_id": "s1"})
        await memory.store("b", metadata={"user_id": "bob", "session_id": "s2"})
        await memory.recall("a", filter=Filter(user_id="alice", session_id="s1"))
        filters = [{}, {"operation": AxonOperation.STORE}, {"user_id": "alice"}, {"session_id": "s2"}]
        filters.append({"operation": AxonOperation.RECALL, "user_id": "bob"})
        return [await memory.export_audit_log(**each) for each in filters]

    everything, stores, of_alice, of_s2, nothing = asyncio.run(main())
    assert [event["operation"] for event in everything] == ["RECALL", "STORE", "STORE"]
    assert [event["user_id"] for event in stores] == ["bob", "alice"]
    assert [event["operation"] for event in of_alice] == ["RECALL", "STORE"]
    assert [event["user_id"] for event in of_s2] == ["bob"]
    assert nothing == []
    assert list(everything[0])[:4] == ["event_id", "timestamp", "operation", "user_id"]


def test_export_audit_log_includes_the_end_of_its_range():
    """The end of axon's time range is included, as is its start; that of a query is not."""
    timestamp = datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=UTC)
    audit_logger = AuditLogger(clock=lambda: int(timestamp.timestamp()) * 10**9 + 123_456_000)
    memory = make_memory(audit_logger)
    microsecond = timedelta(microseconds=1)

    async def count(start_time, end_time):
        return len(await memory.export_audit_log(start_time=start_time, end_time=end_time))

    asyncio.run(memory.store("at that moment"))
    assert asyncio.run(count(timestamp, timestamp)) == 1
    assert asyncio.run(count(None, timestamp - microsecond)) == 0
    assert asyncio.run(count(timestamp + microsecond, None)) == 0
    assert asyncio.run(count(datetime.min, datetime.max)) == 1
    assert audit_logger.count_events(end_time=timestamp) == 0


def test_export_audit_log_without_an_audit_logger_raises():
    """Without an audit logger axon raises, and no event is recorded."""
    with pytest.raises(RuntimeError, match="No audit logger"):
        asyncio.run(make_memory(None).export_audit_log())


def test_empty_audit_logger_is_not_mistaken_for_none(memory):
    """axon accepts an audit logger without events."""
    assert asyncio.run(memory.export_audit_log()) == []


def test_enums_of_axon_become_the_members_of_the_event():
    """axon's lower-case operations and statuses become members; its other operations keep their names."""
    audit_logger = AuditLogger()
    for operation in AxonOperation:
        audit_logger.record(operation, status=AxonStatus.PARTIAL)
    assert {event.operation.value for event in audit_logger.query_events(status="PARTIAL")} == {
        *("STORE", "RECALL", "FORGET", "COMPACT", "EXPORT"),
        *("bulk_store", "reindex"),
    }
