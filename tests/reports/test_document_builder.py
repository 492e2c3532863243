"""Tests of `structlog_audit.reports.document_builder`: the facts at the head of a report."""

import pytest

from structlog_audit.reports.document_builder import headline, source_facts, text_of_bounds

NOON, LATER = "2025-01-15T12:00:00.000000Z", "2025-01-15T12:00:05.000000Z"


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (None, None, "from the beginning to now (UTC)"),
        (NOON, None, "from 2025-01-15 12:00:00 to now (UTC)"),
        (None, LATER, "from the beginning to 2025-01-15 12:00:05 (UTC, end excluded)"),
        (NOON, LATER, "from 2025-01-15 12:00:00 to 2025-01-15 12:00:05 (UTC, end excluded)"),
    ],
)
def test_period_has_its_bounds_and_the_end_is_excluded(start, end, text):
    """An open bound is the beginning of the source, or now."""
    assert text_of_bounds({"start": start, "end": end, "time_zone": "UTC"}) == text


def source(**members):
    return {
        "type": "TrailReader",
        "paths": [],
        "segments": [],
        "hosts": [],
        "first_event": None,
        "last_event": None,
    } | members


def test_source_is_described_by_files_hosts_and_times():
    """The facts name the range of segments of each trail, the hosts, and the first and last event."""
    segments = [
        {"trail": "a.jsonl", "number": 1, "first": "a.jsonl", "last": "a.jsonl"},
        {"trail": "b.jsonl", "number": 3, "first": "b.1", "last": "b.jsonl"},
    ]
    facts = source(segments=segments, paths=["p"], hosts=["web1", "web2"], first_event=NOON, last_event=LATER)
    assert source_facts(facts) == [
        ("Files", "a.jsonl (1 segment); b.jsonl (3 segments: b.1 to b.jsonl)"),
        ("Hosts", "web1 and web2"),
        ("Events of the source", "from 2025-01-15 12:00:00 to 2025-01-15 12:00:05 (UTC)"),
    ]


def test_source_without_segments_is_described_by_its_paths():
    """A stream has a path and no segments; a buffer has neither, and no facts about them."""
    assert source_facts(source(paths=["p\u202e", "q"])) == [("Files", "p\\u202e; q")]
    assert source_facts(source()) == [("Source", "TrailReader")]


def test_headline_refers_to_the_section_with_the_reasons():
    """A verdict that is not complete names the number of its reasons."""
    complete = {"verdict": "complete", "headline": "Complete", "sentences": []}
    assert headline(complete, 1) == "Complete for the period, by the evidence of its source"
    unknown = {"verdict": "unknown", "headline": "Unknown", "sentences": ["a", "b"]}
    assert headline(unknown, 4) == "Unknown (2 reasons in section 4)"
