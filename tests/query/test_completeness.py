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
    begins_before,
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


def test_codes_of_the_json_form_are_stable():
    """Programs read these codes: a change is one of the format."""
    assert [*Verdict] == ["complete", "incomplete", "unknown"]
    assert [*Cause] == ["numbers", "predecessor", "segment", "gap", "lost", "raised", "pending", "seal"]
    assert [*Reason] == [
        *(
            "no events",
            "before the first event",
            "pruned",
            "pruned from the archive",
            "after the last event",
            "not closed",
            "not over",
        ),
        *("not archived", "no active segment", "partial source", "read once", "no number", "repeated number", "moved"),
        *("damage", "problem", "buffer", "no such user", "seal"),
    ]


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


LATER = NOON + 5 * SECOND
NOON_TEXT, LATER_TEXT = "2025-01-15 12:00:00.000 UTC", "2025-01-15 12:00:05.000 UTC"


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"cause": Cause.NUMBERS, "count": 1, "writer": "w1"}, "1 event of writer w1 missing."),
        (
            {"cause": Cause.NUMBERS, "count": 2, "writer": "w1", "host": "web1"},
            "2 events of writer w1 (host web1) missing.",
        ),
        ({"cause": Cause.NUMBERS, "count": None, "writer": "w1"}, "An unknown number of events of writer w1 missing."),
        (
            {"cause": Cause.NUMBERS, "count": None, "is_least": True, "writer": "w1"},
            "An unknown number of events of writer w1 missing.",
        ),
        (
            {"cause": Cause.PREDECESSOR, "count": 1_234, "is_least": True, "writer": "w1", "host": "web1"},
            "At least 1,234 events of writer w1 (host web1), whose last one a later opened event names, missing.",
        ),
        (
            {"cause": Cause.SEGMENT, "count": None, "segment_after": "a.1", "segment_before": "a.2", "before": NOON},
            f"An unknown number of events of the segment a.1, which retention kept, missing before {NOON_TEXT}.",
        ),
        (
            {"cause": Cause.GAP, "count": 2, "after": NOON, "before": NOON},
            f"2 events lost, as a gap event states at {NOON_TEXT}.",
        ),
        (
            {"cause": Cause.LOST, "count": 2},
            "2 events lost because the target failed and too many were pending, or because it refused them.",
        ),
        (
            {"cause": Cause.RAISED, "count": 2},
            "2 events not recorded because the target failed; the callers received an error.",
        ),
        ({"cause": Cause.PENDING, "count": 2}, "2 events pending in memory, not yet in the trail."),
    ],
)
def test_loss_has_a_sentence_with_its_number_writer_and_host(members, sentence):
    """The sentence says what is known: the number, whether there may be more, who wrote them, and how it is known."""
    assert Missing(**members).sentence() == sentence


@pytest.mark.parametrize(
    ("after", "before", "times"),
    [
        (None, None, ""),
        (NOON, None, f" after {NOON_TEXT}"),
        (None, NOON, f" before {NOON_TEXT}"),
        (NOON, NOON, f" at {NOON_TEXT}"),
        (NOON, LATER, f" between {NOON_TEXT} and {LATER_TEXT}"),
    ],
)
def test_loss_is_placed_between_the_times_of_its_neighbours(after, before, times):
    """The sentence has the times of the lines before and after, as far as there are any."""
    missing = Missing(cause=Cause.GAP, count=2, after=after, before=before)
    assert missing.sentence() == f"2 events lost, as a gap event states{times}."


@pytest.mark.parametrize(
    ("before", "after", "segments"),
    [
        (None, None, ""),
        ("a.1", None, ""),
        (None, "a", ", before the lines in a"),
        ("a", "a", ", within a"),
        ("a.1", "a", ", between a.1 and a"),
    ],
)
def test_loss_is_placed_between_segments(before, after, segments):
    """The sentence has the segments of the lines before and after, if the later one is known."""
    missing = Missing(cause=Cause.GAP, count=2, segment_before=before, segment_after=after)
    assert missing.sentence() == f"2 events lost, as a gap event states{segments}."


@pytest.mark.parametrize(
    ("doubt", "sentence"),
    [
        (
            {"reason": Reason.NO_EVENTS},
            "The source has no events, so nothing shows whether any are missing.",
        ),
        (
            {"reason": Reason.BEFORE_FIRST, "until": NOON},
            f"Nothing shows what came before the first event, {NOON_TEXT}.",
        ),
        ({"reason": Reason.PRUNED, "until": NOON}, f"Retention deleted the segments before {NOON_TEXT}."),
        (
            {"reason": Reason.ARCHIVE_PRUNED, "until": NOON},
            f"The days before {NOON_TEXT} were pruned from the archive.",
        ),
        (
            {"reason": Reason.AFTER_LAST, "since": NOON},
            f"Nothing shows whether events followed the last one, {NOON_TEXT}.",
        ),
        (
            {"reason": Reason.NOT_CLOSED, "count": 2, "names": ("w1", "w2"), "since": NOON},
            "2 writers without a closed event (w1, w2): running, killed, or the newest lines were removed. Nothing shows what "
            f"followed, from {NOON_TEXT}.",
        ),
        ({"reason": Reason.NOT_OVER, "since": NOON}, f"The period is not over: it is {NOON_TEXT}."),
        (
            {"reason": Reason.NO_ACTIVE_SEGMENT},
            "The active segment does not exist, so the newest lines may be missing.",
        ),
        ({"reason": Reason.PARTIAL_SOURCE, "names": ("a.1",)}, "Only a part of the trail was given (a.1)."),
        (
            {"reason": Reason.READ_ONCE},
            "The stream can be read only once, so its lines were not checked: save it to a file.",
        ),
        (
            {"reason": Reason.NO_NUMBER, "count": 1},
            "1 line with an id without a sequence number, of another library or an older version.",
        ),
        (
            {"reason": Reason.REPEATED_NUMBER, "count": 2},
            "2 lines with the sequence number of another line, but not its content.",
        ),
        ({"reason": Reason.MOVED, "count": 2}, "2 lines after lines with higher sequence numbers."),
        (
            {"reason": Reason.DAMAGE, "count": 1, "names": ("truncated",)},
            "A trail event reports damage to the file (truncated, 1 time).",
        ),
        (
            {"reason": Reason.PROBLEM, "count": 2, "names": ("torn",)},
            "Reading the source met a problem (torn, 2 times).",
        ),
        ({"reason": Reason.BUFFER, "until": NOON}, f"The buffer has no complete record of events before {NOON_TEXT}."),
        (
            {"reason": Reason.NO_SUCH_USER, "names": ("ann",)},
            "No event of the source has the user ann: the name may be another one.",
        ),
    ],
)
def test_doubt_has_a_sentence_with_what_it_counts(doubt, sentence):
    """The sentence says what is in doubt, and from or until which time."""
    assert Doubt(**doubt).sentence() == sentence


@pytest.mark.parametrize(("count", "ends"), [(10, "n9 "), (11, "n9, … ")])
def test_ten_names_are_listed_before_the_list_is_cut(count, ends):
    """Only the eleventh name is replaced by an ellipsis."""
    doubt = Doubt(reason=Reason.NO_SUCH_USER, names=tuple(f"n{number}" for number in range(count)))
    assert ends.rstrip() + ":" in doubt.sentence()


@given(times, times, times, times)
def test_doubt_counts_if_it_may_lie_in_the_period(since, until, start, end):
    """A doubt concerns the same periods as a loss between the same times."""
    found = verdict_of(start=start, end=end, doubts=[Doubt(reason=Reason.MOVED, since=since, until=until)])
    loss = verdict_of(start=start, end=end, missing=[Missing(cause=Cause.GAP, count=1, after=since, before=until)])
    assert (found.verdict == Verdict.UNKNOWN) is (loss.verdict == Verdict.INCOMPLETE)


def test_period_excludes_its_end_and_a_doubt_with_an_open_start_its_end():
    """What follows the end of the period does not concern it, nor what is in doubt until its start."""
    before = Doubt(reason=Reason.BUFFER, until=NOON)
    after = Doubt(reason=Reason.AFTER_LAST, since=LATER)
    assert verdict_of(start=NOON, end=LATER, doubts=[before, after]).verdict == Verdict.COMPLETE
    assert verdict_of(start=NOON - SECOND, end=LATER, doubts=[before, after]).doubts == (before,)
    assert verdict_of(start=NOON, end=LATER + SECOND, doubts=[before, after]).doubts == (after,)
    assert verdict_of(doubts=[before, after]).doubts == (before, after)

    # A doubt between two times includes the second.
    between = Doubt(reason=Reason.MOVED, since=NOON - SECOND, until=NOON)
    assert verdict_of(start=NOON, doubts=[between]).doubts == (between,)


GAP = Missing(cause=Cause.GAP, count=2, trail="a.jsonl")
OPEN_END = Doubt(reason=Reason.AFTER_LAST, since=NOON)
OTHER = Doubt(reason=Reason.MOVED, count=1, trail="b.jsonl")


@pytest.mark.parametrize(
    ("end", "missing", "doubts", "is_acceptable"),
    [
        (LATER, [], [], True),
        (LATER, [], [OPEN_END], False),
        (LATER, [GAP], [], False),
        (None, [], [], True),
        (None, [], [OPEN_END, Doubt(reason=Reason.NOT_CLOSED, since=NOON)], True),
        (None, [], [OPEN_END, OTHER], False),
        (None, [GAP], [OPEN_END], False),
    ],
)
def test_open_period_is_acceptable_if_only_its_end_is_in_doubt(end, missing, doubts, is_acceptable):
    """A period with an end must be complete; one without may be in doubt after the last lines."""
    assert verdict_of(end=end, missing=missing, doubts=doubts).is_acceptable is is_acceptable


@pytest.mark.parametrize(
    ("counts", "headline"),
    [
        ([1], "Incomplete: 1 event missing"),
        ([2, 1_000], "Incomplete: 1,002 events missing"),
        ([2, None], "Incomplete: at least 2 events missing"),
        ([None], "Incomplete: events are missing"),
    ],
)
def test_headline_has_the_number_of_missing_events(counts, headline):
    """The numbers are added up; without one of them, there may be more."""
    missing = [Missing(cause=Cause.GAP, count=count) for count in counts]
    assert verdict_of(missing=missing).headline() == headline
    least = [*missing, Missing(cause=Cause.GAP, count=0, is_least=True)]
    assert verdict_of(missing=least).headline().startswith("Incomplete: ")
    assert ("at least" in verdict_of(missing=least).headline()) is any(counts)


def test_sentences_name_the_trail_if_there_are_several():
    """Losses come first; with one trail, or without one of its own, a sentence names none."""
    ranges = tuple(SegmentRange(trail=trail, number=1, first=None, last=None) for trail in ("a.jsonl", "b.jsonl"))
    of = [GAP.sentence(), OTHER.sentence(), OPEN_END.sentence()]
    several = Completeness.of(Source(type="x", segments=ranges), None, None, [GAP], [OTHER, OPEN_END])
    assert several.sentences() == [f"a.jsonl: {of[0]}", f"b.jsonl: {of[1]}", of[2]]
    single = Completeness.of(Source(type="x", segments=ranges[:1]), None, None, [GAP], [OTHER, OPEN_END])
    assert single.sentences() == of
    assert str(single) == f"{single.headline()}. {' '.join(of)}"


def test_losses_beyond_ten_are_added_up_before_the_doubts():
    """Ten losses have sentences; the events of the others are counted, those without a number as none."""
    missing = [Missing(cause=Cause.GAP, count=number) for number in range(1, 12)]
    found = verdict_of(missing=missing, doubts=[OTHER]).sentences()
    assert (len(found), found[10], found[11]) == (12, "11 events missing in 1 further place.", OTHER.sentence())
    more = [*missing, Missing(cause=Cause.GAP, count=None)]
    assert verdict_of(missing=more).sentences()[10] == "11 events missing in 2 further places."
    assert len(verdict_of(missing=missing[:10]).sentences()) == 10


def test_verdict_with_users_adds_a_doubt_if_there_are_unknown_ones():
    """The period and the other reasons stay."""
    verdict = verdict_of(start=NOON, doubts=[OTHER])
    assert verdict.with_users(()) is verdict
    assert verdict.with_users(("ann",)).doubts == (OTHER, Doubt(reason=Reason.NO_SUCH_USER, names=("ann",)))
    assert verdict.with_users(("ann",)).start == NOON


def test_json_form_has_everything():
    """The verdict, its period, losses, doubts and source are in the JSON form, with times in RFC 3339."""
    ranges = (SegmentRange(trail="a.jsonl", number=2, first="a.1", last="a"),)
    source = Source(type="TrailReader", paths=("p",), hosts=("h",), segments=ranges, first_event=NOON, last_event=LATER)
    missing = Missing(
        cause=Cause.NUMBERS,
        count=2,
        is_least=True,
        trail="a.jsonl",
        writer="w1",
        host="h",
        after=NOON,
        before=LATER,
        segment_before="a.1",
        segment_after="a",
    )
    doubt = Doubt(reason=Reason.MOVED, count=3, names=("n",), trail="a.jsonl", since=NOON, until=LATER)
    noon, later = "2025-01-15T12:00:00.000000Z", "2025-01-15T12:00:05.000000Z"
    verdict = Completeness.of(source, NOON, LATER, [missing], [doubt])
    assert verdict.to_dict() == {
        "verdict": "incomplete",
        "start": noon,
        "end": later,
        "sentences": verdict.sentences(),
        "missing": [
            {
                "cause": "numbers",
                "count": 2,
                "at_least": True,
                "trail": "a.jsonl",
                "writer": "w1",
                "host": "h",
                "after": noon,
                "before": later,
                "segment_before": "a.1",
                "segment_after": "a",
            }
        ],
        "unknown": [
            {"reason": "moved", "count": 3, "names": ["n"], "trail": "a.jsonl", "since": noon, "until": later},
        ],
        "source": {
            "type": "TrailReader",
            "paths": ["p"],
            "hosts": ["h"],
            "segments": [{"trail": "a.jsonl", "number": 2, "first": "a.1", "last": "a"}],
            "first_event": noon,
            "last_event": later,
        },
        "seals": [],
    }
    assert source.sentence() == "a.jsonl (2 segments, a.1 to a) of h."
    empty = verdict_of().to_dict()
    assert (empty["start"], empty["end"], empty["source"]["first_event"]) == (None, None, None)
    assert Source(type="AuditHandler").sentence() == "AuditHandler."


@pytest.mark.parametrize(
    ("start", "end", "begins"),
    [
        (None, None, False),
        (None, NOON, True),
        (None, LATER, False),
        (NOON - SECOND, None, True),
        (NOON, None, False),
        (NOON - SECOND, LATER, True),
    ],
)
def test_period_begins_before_the_first_event_if_its_start_does(start, end, begins):
    """An open start is that of the source, unless the whole period precedes the first event."""
    assert begins_before(start, end, NOON) is begins


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
