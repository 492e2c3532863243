"""What takes a person's patience: `pytest -m long`."""

from __future__ import annotations

import json
import logging

import pytest
import strategies
from hypothesis import given, settings

from structlog_audit import AuditHandler
from structlog_audit.events.codec import encode_payload
from structlog_audit.events.conversion import convert

pytestmark = pytest.mark.long


@given(strategies.any_fields)
@settings(max_examples=100_000, deadline=None)
def test_a_hundred_thousand_hostile_events_are_valid_lines(fields):
    """For all fields, hostile ones too: no exception, valid JSON, bounded size."""
    for body in encode_payload(convert(strategies.made(fields)), 32_000).split(b"\n"):
        line = b"{" + body
        assert len(line) <= 32_000
        json.loads(line)


def test_ten_million_events_leave_memory_as_it_was():
    """A full buffer does not grow, however many events pass through it."""

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    handler = AuditHandler(10_000)
    record = logging.makeLogRecord({"msg": "STORE", "levelno": 20, "user_id": "u1", "entry_ids": ["e1"]})
    for _ in range(100_000):
        handler.handle(record)
    before = resident()
    for _ in range(9_900_000):
        handler.handle(record)
    assert resident() - before < 10_000_000
