"""The verdict of completeness as a value: its headline, sentences, periods and JSON form."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import NOON, Events, stored

from structlog_audit import AuditHandler, AuditLogger
from structlog_audit.query.completeness import (
    Cause,
    Completeness,
    Doubt,
    Missing,
    Reason,
    SegmentRange,
    Source,
    Verdict,
)

SOURCE = Source(type="TrailReader")
SECOND = dt.timedelta(seconds=1)

times = st.none() | st.integers(-5, 5).map(lambda seconds: NOON + seconds * SECOND)


def verdict_of(*, start=None, end=None, missing=(), doubts=()):
    """Return a verdict with these losses and doubts."""
    return Completeness.of(SOURCE, start, end, missing, doubts)


@pytest.mark.parametrize(
    ("doubts", "headline"),
    [
        ([(None, 0)], "Unknown before 2025-01-15 12:00:00.000 UTC; nothing is missing after"),
        ([(5, None)], "Unknown after 2025-01-15 12:00:05.000 UTC; nothing is missing before"),
        (
            [(None, 0), (None, 1), (5, None), (6, None)],
            "Unknown before 2025-01-15 12:00:01.000 UTC and after 2025-01-15 12:00:05.000 UTC; nothing is missing between",
        ),
        ([(None, 0), (1, 2)], "Unknown"),
        ([(None, None)], "Unknown"),
    ],
)
def test_headline_states_what_is_not_in_doubt(doubts, headline):
    """If only the ends of the time are in doubt, the headline says between which times nothing is."""

    def time(seconds):
        return None if seconds is None else NOON + seconds * SECOND

    made = [Doubt(reason=Reason.BUFFER, since=time(since), until=time(until)) for since, until in doubts]
    assert verdict_of(doubts=made).headline() == headline


@given(times, times, times, times)
def test_loss_counts_if_it_may_lie_in_the_period(after, before, start, end):
    """For all times, a loss between two events concerns the periods that it overlaps."""
    if start is not None and end is not None and start > end:
        start, end = end, start
    found = verdict_of(start=start, end=end, missing=[Missing(cause=Cause.GAP, count=1, after=after, before=before)])

    low, high = after, before
    if low is not None and high is not None and low > high:
        low, high = high, low
    is_later = low is not None and end is not None and low >= end
    is_earlier = high is not None and start is not None and (high <= start if low is None else high < start)
    assert (found.verdict == Verdict.INCOMPLETE) is not (is_later or is_earlier)


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_a_sentence(cause):
    """Each loss is a sentence with its number, and encodes as JSON."""
    missing = Missing(cause=cause, count=3, writer="w1", segment_after="audit.jsonl", after=NOON)
    assert missing.sentence().startswith("3 events ")
    assert "{" not in missing.sentence()
    assert json.loads(json.dumps(missing.to_dict()))["cause"] == cause.value


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence(reason):
    """Each doubt is a sentence, and encodes as JSON."""
    doubt = Doubt(reason=reason, count=1, names=("n1",), since=NOON, until=NOON)
    assert doubt.sentence().endswith(".")
    assert "{" not in doubt.sentence()
    assert json.loads(json.dumps(doubt.to_dict()))["reason"] == reason.value


def test_long_lists_of_names_are_cut():
    """A sentence lists the first names; the JSON form has all."""
    doubt = Doubt(reason=Reason.NOT_CLOSED, count=30, names=tuple(f"w{number}" for number in range(30)), since=NOON)
    assert "w9, …)" in doubt.sentence()
    assert len(doubt.to_dict()["names"]) == 30


def test_many_trails_are_counted_in_the_sentence_of_the_source():
    """A source of many trails names the first ones."""
    ranges = tuple(SegmentRange(trail=f"t{number}", number=1, first="a", last="a") for number in range(12))
    sentence = Source(type="TrailReader", segments=ranges, hosts=("web1",)).sentence()
    assert sentence.startswith("t0 (1 segment); ")
    assert sentence.endswith("; 2 more trails of web1.")


def test_verdict_is_immutable():
    """No part of a verdict can be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict_of().missing = ()


def test_handler_judges_its_own_events():
    """A handler without losses is complete for an open period, and names its host."""
    handler = AuditHandler()
    AuditLogger(handler=handler).record("STORE")
    verdict = handler.completeness()
    assert (verdict.verdict, verdict.sentences()) == (Verdict.COMPLETE, [])
    assert verdict.source.hosts
    assert handler.completeness(end_time=dt.datetime(2999, 1, 1, tzinfo=dt.UTC)).verdict == Verdict.UNKNOWN


def test_lost_events_are_counted_once():
    """Losses that a gap event states are not counted again by the counter of the handler."""
    gap = stored(kind="gap", metadata={"lost": 4})
    verdict = Events([gap], counters={"lost": 6}).completeness()
    assert [(item.cause, item.count) for item in verdict.missing] == [(Cause.GAP, 4), (Cause.LOST, 2)]
    assert verdict.headline() == "Incomplete: 6 events missing"


def test_users_without_events_are_named():
    """Only users who never occur, in any period and kind, leave the verdict in doubt."""
    source = Events([stored(user_id="ann"), stored(1, user_id="bob", kind="intent")])
    assert source.users_without_events(["ann", "bob", "carol"]) == ("carol",)
