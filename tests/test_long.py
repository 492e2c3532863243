"""Tests that take minutes, for a release: `pytest -m long`."""

from __future__ import annotations

import json
import logging
import os

import pytest
import strategies
from hypothesis import given, settings

from structlog_audit import AuditHandler
from structlog_audit.events.codec import encode_payload
from structlog_audit.events.conversion import convert

pytestmark = pytest.mark.long


@given(strategies.any_fields)
@settings(max_examples=100_000, deadline=None)
def test_hostile_fields_become_valid_lines_of_bounded_size(fields):
    """Any fields become lines of valid JSON of at most `max_event_bytes`, without an exception."""
    for body in encode_payload(convert(strategies.made(fields)), 32_000).split(b"\n"):
        line = b"{" + body
        assert len(line) <= 32_000
        json.loads(line)


def test_ten_million_events_do_not_increase_memory():
    """The memory of a full buffer is constant, for any number of events that pass through it."""

    def resident_bytes():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    handler = AuditHandler(10_000)
    record = logging.makeLogRecord({"msg": "STORE", "levelno": 20, "user_id": "u1", "entry_ids": ["e1"]})
    for _ in range(100_000):
        handler.handle(record)
    before = resident_bytes()
    for _ in range(9_900_000):
        handler.handle(record)
    assert resident_bytes() - before < 10_000_000
