"""The verdict of completeness of trails: what their lines show, and what they do not show."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import logging
from collections import Counter
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trail_files import append, at, id_of, line_of, roll_over, rolled_name, write_trail

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, AuditTypeError, AuditValueError, open_trail
from structlog_audit.query.completeness import Cause, Reason, Verdict
from structlog_audit.trail.reading import evidence as evidence_module
from structlog_audit.trail.reading.discovery import Trail
from structlog_audit.trail.reading.evidence import read_evidence
from structlog_audit.trail.reading.judgement import judge_trails, steady_evidence

WRITERS = [f"001{0x80000001 + number:08x}" for number in range(4)]
NOW = at(10_000)


def line(number, second=None, *, writer=0, operation="STORE", **members):
    """Return a line of one of `WRITERS`."""
    made = line_of(number, second, **members).replace(WRITERS[0].encode(), WRITERS[writer].encode())
    return made.replace(b'"operation":"STORE"', b'"operation":"%b"' % operation.encode())


def opened(number, second=None, *, writer=0, **metadata):
    """Return the line of an "opened" event."""
    metadata = {"pid": 1, "host": "web1", **metadata}
    return line(number, second, writer=writer, operation="opened", kind="trail", metadata=metadata)


def closed(number, second=None, *, writer=0, **metadata):
    """Return the line of a "closed" event."""
    return line(number, second, writer=writer, operation="closed", kind="trail", metadata={"pid": 1, **metadata})


def retention(number, *seconds, kept=None):
    """Return the line of a retention event about the segments that were rolled over at these seconds."""
    metadata = {"segments": [rolled_name("audit.jsonl", second) for second in seconds]}
    if kept is not None:
        metadata["kept"] = kept if isinstance(kept, str) else rolled_name("audit.jsonl", kept)
    return line(number, operation="retention", kind="trail", metadata=metadata)


def life(first, last, *, writer=0, begin=0):
    """Return the lines of a writer from *first* to *last*; the last one is "closed"."""
    numbers = range(first, last)
    lines = [opened(number, writer=writer) if number == begin else line(number, writer=writer) for number in numbers]
    return b"".join([*lines, closed(last, writer=writer)])


def judge(path, start=None, end=None, now=NOW):
    """Return the verdict on the trail at *path*."""
    trail = open_trail(path)
    return judge_trails(trail._trails, "TrailReader", start, end, now)


def reasons(verdict):
    """Return the reasons of the doubts of a verdict."""
    return [doubt.reason for doubt in verdict.doubts]


@pytest.fixture
def three_segments(tmp_path):
    """Return the path of a trail of one writer: numbers 0 to 9, 10 to 19, and 20 to 30 in the active segment."""
    lines = [opened(0), *(line(number) for number in range(1, 30)), closed(30)]
    parts = [b"".join(lines[:10]), b"".join(lines[10:20]), b"".join(lines[20:])]
    return write_trail(tmp_path, (9.5, parts[0]), (19.5, parts[1]), active=parts[2])


# --- what is complete ----------------------------------------------------------------------------------------------------


def test_period_between_the_first_and_the_last_line_of_a_whole_trail_is_complete(three_segments):
    """With all numbers and a closed event, a period within the trail is complete, and no sentence is needed."""
    verdict = judge(three_segments, at(0), at(30))
    assert (verdict.verdict, verdict.sentences(), verdict.headline()) == (Verdict.COMPLETE, [], "Complete")
    assert verdict.is_acceptable


def test_open_end_reaches_beyond_the_last_line(three_segments):
    """Without an end the verdict is unknown after the last line, which is acceptable for an open period."""
    verdict = judge(three_segments)
    assert (verdict.verdict, reasons(verdict)) == (Verdict.UNKNOWN, [Reason.AFTER_LAST])
    assert verdict.headline() == "Unknown after 2025-01-15 10:30:30.000 UTC; nothing is missing before"
    assert verdict.is_acceptable


def test_source_names_paths_hosts_segments_and_times(three_segments):
    """The verdict states what was read."""
    source = judge(three_segments).source
    assert source.to_dict() == {
        "type": "TrailReader",
        "paths": [str(three_segments)],
        "hosts": ["web1"],
        "segments": [
            {
                "trail": str(three_segments),
                "number": 3,
                "first": rolled_name("audit.jsonl", 9.5),
                "last": "audit.jsonl",
            }
        ],
        "first_event": "2025-01-15T10:30:00.000000Z",
        "last_event": "2025-01-15T10:30:30.000000Z",
    }


def test_repeated_lines_are_no_doubt_if_they_are_equal(tmp_path):
    """Lines that were written again after a failed fsync, into the next segment too, change nothing."""
    lines = [opened(0), line(1), line(2), line(3), closed(4)]
    path = write_trail(tmp_path, (2.5, b"".join(lines[:3])), active=b"".join(lines[1:]))
    assert judge(path, at(0), at(4)).verdict == Verdict.COMPLETE


def test_blank_lines_and_bom_are_no_doubt(tmp_path):
    """A single LF, which a writer adds to prove that the disk works again, and a byte order mark lose nothing."""
    path = write_trail(tmp_path, active=b"\xef\xbb\xbf" + opened(0) + b"\n" + line(1) + b"\n\n" + closed(2))
    assert judge(path, at(0), at(2)).verdict == Verdict.COMPLETE


# --- what is removed -----------------------------------------------------------------------------------------------------


def first_segment(path):
    path.with_name(rolled_name(path.name, 9.5)).unlink()


def middle_segment(path):
    path.with_name(rolled_name(path.name, 19.5)).unlink()


def active_segment(path):
    path.unlink()


def emptied_active_segment(path):
    path.write_bytes(b"")


def middle_line(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], *lines[5:]]))


def newest_lines(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))


@pytest.mark.parametrize(
    ("remove", "right", "sentence"),
    [
        (
            first_segment,
            Verdict.INCOMPLETE,
            "10 events of writer 00180000001 missing before 2025-01-15 10:30:10.000 UTC, before the lines in "
            "audit.jsonl.20250115T103019.500000Z.",
        ),
        (
            middle_segment,
            Verdict.INCOMPLETE,
            "10 events of writer 00180000001 (host web1) missing between 2025-01-15 10:30:09.000 UTC and "
            "2025-01-15 10:30:20.000 UTC, between audit.jsonl.20250115T103009.500000Z and audit.jsonl.",
        ),
        (
            active_segment,
            Verdict.UNKNOWN,
            "The active segment does not exist, so the newest lines may be missing.",
        ),
        (
            emptied_active_segment,
            Verdict.UNKNOWN,
            "1 writer without a closed event (00180000001): running, killed, or the newest lines were removed. "
            "Nothing shows what followed, from 2025-01-15 10:30:19.000 UTC.",
        ),
        (
            middle_line,
            Verdict.INCOMPLETE,
            "1 event of writer 00180000001 (host web1) missing between 2025-01-15 10:30:23.000 UTC and "
            "2025-01-15 10:30:25.000 UTC, within audit.jsonl.",
        ),
        (
            newest_lines,
            Verdict.UNKNOWN,
            "1 writer without a closed event (00180000001): running, killed, or the newest lines were removed. "
            "Nothing shows what followed, from 2025-01-15 10:30:23.000 UTC.",
        ),
    ],
)  # fmt: skip
def test_removed_lines_are_never_complete(three_segments, remove, right, sentence):
    """Whatever is removed, the verdict for the whole period is not complete, and a sentence says what is missing."""
    remove(three_segments)
    for end in (None, at(30)):
        verdict = judge(three_segments, None, end)
        assert verdict.verdict == right
        assert sentence in verdict.sentences()
        assert sentence in str(verdict)


def test_hole_concerns_the_periods_that_it_overlaps(three_segments):
    """Missing lines make periods incomplete that overlap the time between their neighbours, and no other period."""
    middle_segment(three_segments)
    assert judge(three_segments, at(0), at(9)).verdict == Verdict.COMPLETE
    assert judge(three_segments, at(21), at(30)).verdict == Verdict.COMPLETE
    assert judge(three_segments, at(12), at(13)).verdict == Verdict.INCOMPLETE


def test_hole_is_described_in_json(three_segments):
    """The JSON form has writer, host, count, times and segments."""
    middle_segment(three_segments)
    (missing,) = judge(three_segments).to_dict()["missing"]
    assert missing == {
        "cause": "numbers",
        "count": 10,
        "at_least": False,
        "trail": str(three_segments),
        "writer": WRITERS[0],
        "host": "web1",
        "after": "2025-01-15T10:30:09.000000Z",
        "before": "2025-01-15T10:30:20.000000Z",
        "segment_before": rolled_name("audit.jsonl", 9.5),
        "segment_after": "audit.jsonl",
    }


histories = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=60)
"""Lines of four writers: the writer, whether the line is removed, and whether the segment is rolled over before it."""


@given(histories)
def test_missing_numbers_equal_the_removed_lines_before_kept_ones(tmp_path_factory, history):
    """For all removals, each writer lacks as many events as lines of it were removed before its last kept line."""
    numbers = [itertools.count() for _ in WRITERS]
    segments, expected, pending = [b""], Counter(), Counter()
    for second, (writer, is_removed, rolls) in enumerate(history):
        segments += [b""] if rolls else []
        made = line(next(numbers[writer]), second, writer=writer)
        if is_removed:
            pending[writer] += 1
        else:
            segments[-1] += made
            expected[writer] += pending.pop(writer, 0)

    rolled = [(10_000 + number, data) for number, data in enumerate(segments[:-1])]
    path = write_trail(tmp_path_factory.mktemp("history"), *rolled, active=segments[-1])

    verdict = judge(path)
    found = Counter()
    for item in verdict.missing:
        found[WRITERS.index(item.writer)] += item.count
    assert found == +expected
    assert verdict.verdict != Verdict.COMPLETE


def test_holes_beyond_the_kept_ones_are_counted(tmp_path, monkeypatch):
    """Of many holes some are kept one by one, and the events of all are counted."""
    monkeypatch.setattr(evidence_module, "MOST_KEPT", 3)
    path = write_trail(tmp_path, active=b"".join(line(number) for number in range(0, 40, 2)))
    verdict = judge(path)
    assert len(verdict.missing) == 4
    assert sum(item.count for item in verdict.missing) == 19
    assert verdict.headline() == "Incomplete: 19 events missing"


def test_many_holes_take_one_further_sentence(tmp_path):
    """The first ten losses have a sentence each, the others one together."""
    path = write_trail(tmp_path, active=b"".join(line(number) for number in range(0, 40, 2)))
    assert judge(path).sentences()[10] == "9 events missing in 9 further places."


def test_segment_with_whole_lives_is_missed_by_the_next_opened_event(tmp_path):
    """If a segment held all lines of a writer, the predecessor that a later "opened" event names shows its removal."""
    lost = life(0, 5, writer=1)
    last_id = id_of(lost.splitlines()[-1])
    later = opened(0, 6, previous=last_id) + closed(1, 7)
    path = write_trail(tmp_path, (5.5, lost), active=later)
    assert judge(path, at(0), at(7)).verdict == Verdict.COMPLETE

    path.with_name(rolled_name(path.name, 5.5)).unlink()
    verdict = judge(path, None, at(7))
    (missing,) = verdict.missing
    assert (missing.cause, missing.writer, missing.count, missing.is_least) == (Cause.PREDECESSOR, WRITERS[1], 6, True)
    assert verdict.headline() == "Incomplete: at least 6 events missing"
    assert verdict.sentences()[0] == (
        f"At least 6 events of writer {WRITERS[1]}, whose last one a later opened event names, missing before "
        "2025-01-15 10:30:06.000 UTC, before the lines in audit.jsonl."
    )


def test_opened_event_names_the_last_event_of_the_trail(tmp_path):
    """A handler that opens a trail names the last event before, of whatever process and segment."""
    path = tmp_path / "audit.jsonl"
    previous, last_ids = [], [None]
    for second in range(3):
        with AuditLogger(filename=path) as audit:
            audit.record("STORE")
            (event,) = audit.query_events(kind="trail", operation="opened")
            previous.append(event.metadata.get("previous"))
        last_ids.append(id_of(path.read_bytes().splitlines()[-1]))
        if second == 1:
            roll_over(path, second)
    assert previous == last_ids[:-1]


# --- writers that are not closed, and the ends of the trail ---------------------------------------------------------------


def test_writer_without_closed_event_leaves_the_time_after_its_last_line_unknown(tmp_path):
    """A period that ends before the last line of such a writer is complete; one that reaches beyond it is unknown."""
    path = write_trail(tmp_path, active=opened(0) + line(5 - 4, 5) + life(0, 20, writer=1))
    assert judge(path, at(0), at(5)).verdict == Verdict.COMPLETE
    verdict = judge(path, at(0), at(6))
    assert (verdict.verdict, reasons(verdict)) == (Verdict.UNKNOWN, [Reason.NOT_CLOSED])
    assert verdict.doubts[0].names == (WRITERS[0],)


def test_line_after_closed_opens_the_writer_again(tmp_path):
    """A handler that is used after it was closed is closed only by its last line."""
    path = write_trail(tmp_path, active=life(0, 5) + line(6))
    assert Reason.NOT_CLOSED in reasons(judge(path))


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (at(-100), at(10), Reason.BEFORE_FIRST),
        (at(-100), at(-50), Reason.BEFORE_FIRST),
        (None, at(-50), Reason.BEFORE_FIRST),
        (at(0), at(31), Reason.AFTER_LAST),
        (at(100), at(200), Reason.AFTER_LAST),
        (at(0), NOW + dt.timedelta(seconds=1), Reason.NOT_OVER),
        (NOW + dt.timedelta(days=30), NOW + dt.timedelta(days=60), Reason.NOT_OVER),
    ],
)
def test_period_beyond_the_trail_is_unknown(three_segments, start, end, reason):
    """A period that begins before the first event, reaches beyond the last one, or is not over, is never complete."""
    verdict = judge(three_segments, start, end)
    assert verdict.verdict == Verdict.UNKNOWN
    assert reason in reasons(verdict)
    assert not verdict.is_acceptable
    assert verdict.sentences()


# --- retention -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pruned_trail(tmp_path):
    """Return the path of a trail whose first two segments were deleted by retention, which kept the third."""
    third = b"".join(line(number) for number in range(20, 30))
    active = b"".join([line(30), retention(31, 9.5, 19.5, kept=29.5), closed(32)])
    return write_trail(tmp_path, (29.5, third), active=active)


def test_retention_makes_the_answer_complete_since_the_last_deleted_segment(pruned_trail):
    """Numbers that lay in deleted segments are not missing: the time since is complete, the time before unknown."""
    assert judge(pruned_trail, at(19.5), at(32)).verdict == Verdict.COMPLETE
    verdict = judge(pruned_trail, at(19.4), at(32))
    assert (verdict.verdict, verdict.missing) == (Verdict.UNKNOWN, ())
    assert "Retention deleted the segments before 2025-01-15 10:30:19.500 UTC." in verdict.sentences()


def test_segment_that_retention_kept_is_missed(pruned_trail):
    """If the oldest segment that retention kept was removed, the trail is incomplete."""
    pruned_trail.with_name(rolled_name(pruned_trail.name, 29.5)).unlink()
    verdict = judge(pruned_trail)
    (missing,) = verdict.missing
    assert (missing.cause, missing.segment_after) == (Cause.SEGMENT, rolled_name("audit.jsonl", 29.5))
    assert verdict.headline() == "Incomplete: events are missing"
    assert verdict.sentences()[0].startswith("An unknown number of events of the segment audit.jsonl.20250115T103029")


def test_missing_segment_after_the_deleted_ones_is_incomplete(tmp_path):
    """Retention explains no hole that lies after the segments it deleted."""
    third = b"".join(line(number) for number in range(20, 30))
    active = b"".join([line(40), retention(41, 9.5, 19.5, kept=29.5), closed(42)])
    path = write_trail(tmp_path, (29.5, third), active=active)
    (missing,) = judge(path).missing
    assert (missing.cause, missing.count) == (Cause.NUMBERS, 10)


def test_retention_event_without_the_kept_segment_shows_nothing_before_the_first_line(tmp_path):
    """In trails of older versions the next segment is unknown: completeness begins with the first line."""
    active = b"".join([line(30), retention(31, 9.5), closed(32)])
    path = write_trail(tmp_path, active=active)
    assert judge(path, at(30), at(32)).verdict == Verdict.COMPLETE
    assert judge(path, at(10), at(32)).verdict == Verdict.UNKNOWN


def test_retention_that_kept_the_active_segment_only_is_complete_since_then(tmp_path):
    """If the retention event lies in the oldest segment, and names the active one as kept, none is missing between."""
    active = b"".join([line(30), retention(31, 9.5, kept="audit.jsonl"), closed(32)])
    path = write_trail(tmp_path, active=active)
    assert judge(path, at(9.5), at(32)).verdict == Verdict.COMPLETE


def test_segment_that_is_announced_and_still_there_is_not_deleted(three_segments):
    """A retention event about existing segments explains no missing line."""
    append(three_segments, retention(31, 9.5, 19.5), closed(32))
    assert Reason.PRUNED not in reasons(judge(three_segments))
    middle_line(three_segments)
    assert judge(three_segments).verdict == Verdict.INCOMPLETE


@pytest.mark.parametrize("operation", ["retention", "closed", "opened"])
def test_application_event_named_as_a_trail_event_forges_nothing(tmp_path, operation):
    """Only lines of kind "trail" explain missing numbers or close a writer."""
    metadata = {"segments": [rolled_name("audit.jsonl", 9.5)], "kept": "audit.jsonl", "previous": "evt_" + "0" * 32}
    forged = line(31, operation=operation, metadata=metadata)
    path = write_trail(tmp_path, active=line(30) + forged)
    verdict = judge(path)
    assert [item.count for item in verdict.missing] == [30]
    assert Reason.NOT_CLOSED in reasons(verdict)


def test_segments_that_a_handler_deleted_are_explained(tmp_path):
    """After real retention no event is missing since the last deleted segment."""
    path, later, seconds = tmp_path / "audit.jsonl", [], itertools.count()
    target = AuditFileHandler(path, maxBytes=2_000, backupCount=2, clock=lambda: at(next(seconds)))
    handler = AuditHandler(
        target=target,
        clock=lambda: int(at(next(seconds)).timestamp() * 1e9),
        call_later=lambda seconds, function: later.append(function),
    )
    for number in range(60):
        if number == 50:
            target._active.check_at = target._pruning.check_at = 0.0
        handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, f"op{number}", (), None))
    while later:
        later.pop(0)()
    handler.close()

    reader = open_trail(path)
    last = judge(path).source.last_event
    verdict = judge(path, reader.complete_since, last)
    assert verdict.verdict == Verdict.COMPLETE, str(verdict)
    assert reasons(judge(path, None, last)) == [Reason.PRUNED]


# --- what the trail states -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "count", "sentence"),
    [
        (7, 7, "7 events lost, as a gap event states at 2025-01-15 10:30:01.000 UTC."),
        ("many", None, "An unknown number of events lost, as a gap event states at 2025-01-15 10:30:01.000 UTC."),
        (-3, None, "An unknown number of events lost, as a gap event states at 2025-01-15 10:30:01.000 UTC."),
    ],
)
def test_gap_event_makes_its_time_incomplete(tmp_path, lost, count, sentence):
    """A gap event states lost events, at its time."""
    gap = line(1, operation="gap", kind="gap", metadata={"lost": lost})
    path = write_trail(tmp_path, active=opened(0) + gap + line(2) + closed(3))
    verdict = judge(path)
    assert [(item.cause, item.count) for item in verdict.missing] == [(Cause.GAP, count)]
    assert verdict.sentences()[0] == sentence
    assert judge(path, at(2), at(3)).verdict == Verdict.COMPLETE


def test_events_that_were_raised_are_missing(tmp_path):
    """A "closed" event that counts events whose callers got an error makes its time incomplete."""
    path = write_trail(tmp_path, active=opened(0) + closed(1, raised=2))
    assert [(item.cause, item.count) for item in judge(path).missing] == [(Cause.RAISED, 2)]


def test_refused_event_that_a_gap_names_counts_once(tmp_path):
    """The number of an event that the target refused is missing from the lines, and stated by the gap alone."""
    refused = id_of(line(1, writer=1))
    gap = line(0, 1, operation="gap", kind="gap", metadata={"lost": 1, "event_id": refused})
    path = write_trail(tmp_path, active=opened(0, writer=1) + gap + line(2, writer=1) + closed(3, writer=1))
    assert [(item.cause, item.count) for item in judge(path).missing] == [(Cause.GAP, 1)]


def test_raised_events_of_one_process_count_once(tmp_path):
    """A handler that is closed several times counts the events of its lifetime in each "closed" event."""
    active = [opened(0), closed(1, raised=2), opened(2), closed(3, raised=2), opened(4), closed(5, raised=3)]
    path = write_trail(tmp_path, active=b"".join(active))
    assert [item.count for item in judge(path).missing] == [2, 1]


@pytest.mark.parametrize("operation", ["truncated", "replaced"])
def test_damage_that_the_trail_reports_leaves_its_time_unknown(tmp_path, operation):
    """A trail event about a truncated or replaced file leaves its time in doubt."""
    event = line(1, operation=operation, kind="trail", metadata={})
    path = write_trail(tmp_path, active=opened(0) + event + line(2) + closed(3))
    assert reasons(judge(path, at(0), at(3))) == [Reason.DAMAGE]
    assert judge(path, at(2), at(3)).verdict == Verdict.COMPLETE


@pytest.mark.parametrize("metadata", [None, [], "text", {"host": 5, "previous": "x"}, {"previous": 7}])
def test_trail_event_with_other_members_states_nothing(tmp_path, metadata):
    """Metadata of another form is no statement, and no error."""
    active = line(0, operation="opened", kind="trail", metadata=metadata) + closed(1)
    path = write_trail(tmp_path, active=active)
    verdict = judge(path)
    assert (verdict.missing, verdict.source.hosts) == ((), ())


# --- lines that are no evidence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "reason", "names"),
    [
        (b"not an event\n", Reason.PROBLEM, ("foreign",)),
        (b'{"event":"from another library"}\n', Reason.PROBLEM, ("foreign",)),
        (b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e000000\n', Reason.PROBLEM, ("torn",)),
        (line(1)[:-20] + b"\n", Reason.PROBLEM, ("torn",)),
        (line(1).replace(id_of(line(1)).encode(), b"evt_1"), Reason.NO_NUMBER, ()),
        (line(1).replace(WRITERS[0].encode() + b"00000001", b"3ab812345678ab123456"), Reason.NO_NUMBER, ()),
    ],
)
def test_line_without_evidence_leaves_the_time_around_it_unknown(tmp_path, extra, reason, names):
    """Torn lines, and lines of others, leave the time between their neighbours in doubt, and no other time."""
    whole = [opened(0), *(line(number, 10 + number) for number in range(1, 6)), closed(6, 20)]
    path = write_trail(tmp_path, active=b"".join([*whole[:3], extra, *whole[3:]]))
    verdict = judge(path, at(0), at(20))
    assert (verdict.verdict, reasons(verdict), verdict.doubts[0].count) == (Verdict.UNKNOWN, [reason], 1)
    assert verdict.doubts[0].names == names
    if reason == Reason.PROBLEM:
        assert judge(path, at(14), at(20)).verdict == Verdict.COMPLETE


def test_foreign_file_is_unknown(tmp_path):
    """A file in which no line is an event is unknown for every period."""
    path = write_trail(tmp_path, active=b"one\ntwo\n{}\n")
    for start, end in ((None, None), (at(0), at(10))):
        verdict = judge(path, start, end)
        assert (verdict.verdict, verdict.doubts[0].count) == (Verdict.UNKNOWN, 3)
        assert verdict.sentences() == ["Reading the source met a problem (foreign, 3 times)."]


def test_empty_file_is_unknown(tmp_path):
    """A trail without any line is no evidence."""
    verdict = judge(write_trail(tmp_path, active=b""), at(0), at(10))
    assert (verdict.verdict, verdict.headline()) == (Verdict.UNKNOWN, "Unknown")
    assert verdict.sentences() == ["The source has no events, so nothing shows whether any are missing."]


def uuid7_line(second, random):
    """Return a line with an id of an older version: random bits in place of writer and number."""
    return line(0, second).replace(WRITERS[0].encode() + b"00000000", f"abc{0x8000000000000000 | random:016x}".encode())


randoms = st.tuples(st.integers(0, 2**30 - 1), st.integers(2**20, 2**32 - 1))


@given(st.lists(randoms, min_size=1, max_size=60, unique_by=lambda pair: pair[0]))
def test_ids_of_older_versions_are_counted_and_accuse_nothing(tmp_path_factory, pairs):
    """For all random ids, as older versions made them, the verdict is unknown and every line is counted."""
    lines = [uuid7_line(second, high << 32 | low) for second, (high, low) in enumerate(pairs)]
    path = write_trail(tmp_path_factory.mktemp("older"), active=b"".join(lines))
    verdict = judge(path)
    assert verdict.verdict == Verdict.UNKNOWN
    assert [doubt.count for doubt in verdict.doubts if doubt.reason == Reason.NO_NUMBER] == [len(pairs)]


def test_low_random_number_among_others_counts_as_one_of_them(tmp_path):
    """Among random ids, one with a low number is no removed beginning."""
    lines = [
        uuid7_line(0, 7),
        *(uuid7_line(second, 0xF000_0000_0000 + (second << 33) + 0x8000_0000) for second in range(1, 9)),
    ]
    path = write_trail(tmp_path, active=b"".join(lines))
    assert judge(path).missing == ()


def test_opened_event_after_ids_of_older_versions_misses_nothing(tmp_path):
    """A new version that continues an old trail names an id of the old form, which states no number."""
    old = [uuid7_line(second, (second << 33) + 0x8000_0000) for second in range(3)]
    path = write_trail(tmp_path, active=b"".join([*old, opened(0, 5, previous=id_of(old[-1])), closed(1, 6)]))
    assert judge(path).missing == ()
    assert judge(path, at(5), at(6)).verdict == Verdict.COMPLETE


def test_older_ids_take_bounded_memory(tmp_path, monkeypatch):
    """Writers that may have ids of another form are forgotten when others follow."""
    monkeypatch.setattr(evidence_module, "_MOST_CANDIDATES", 5)
    lines = [uuid7_line(second, (second << 33) + 0x8000_0000) for second in range(50)]
    path = write_trail(tmp_path, active=b"".join(lines))
    collected = read_evidence(Trail(str(path.parent), path.name))
    assert (collected.writers, collected.unnumbered.count) == ({}, 50)


def test_repeated_number_with_another_content_is_unknown(tmp_path):
    """A second line with the same number but another content was altered, or renumbered."""
    altered = line(1, user_id="mallory")
    path = write_trail(tmp_path, active=opened(0) + line(1) + line(2) + altered + closed(3))
    assert reasons(judge(path, at(0), at(3))) == [Reason.REPEATED_NUMBER]


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (1, 0, 2, 3), (3, 0, 1, 2)])
def test_moved_lines_are_unknown_and_not_missing(tmp_path, order):
    """Lines in another order than that of their numbers lack nothing, but somebody moved them."""
    lines = [opened(0), line(1), line(2), closed(3)]
    path = write_trail(tmp_path, active=b"".join(lines[number] for number in order))
    verdict = judge(path)
    assert verdict.missing == ()
    assert Reason.MOVED in reasons(verdict)


# --- sources of other kinds ------------------------------------------------------------------------------------------------


def test_selected_segments_are_a_part(three_segments):
    """Of single segments, lines that may lie in others are not missing; those within one are."""
    segment = three_segments.with_name(rolled_name(three_segments.name, 19.5))
    assert (judge(segment).missing, reasons(judge(segment))[0]) == ((), Reason.PARTIAL_SOURCE)
    segment.chmod(0o600)
    middle_line(segment)
    assert [item.count for item in judge(segment).missing] == [1]


def test_export_document_is_a_part(three_segments, tmp_path):
    """An export holds a selection: it is unknown, whatever numbers it lacks."""
    path = tmp_path / "export.json"
    open_trail(three_segments).export_to_file(path, end_time=at(5))
    verdict = judge(path)
    assert (verdict.verdict, reasons(verdict)[0]) == (Verdict.UNKNOWN, Reason.PARTIAL_SOURCE)


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def readable(self):
        return True


def test_stream_that_cannot_seek_is_not_read_for_the_verdict():
    """The lines of a pipe are left to the query; the verdict says that they were not checked."""
    verdict = open_trail(Pipe()).completeness()
    assert (verdict.verdict, reasons(verdict)) == (Verdict.UNKNOWN, [Reason.READ_ONCE])


def test_stream_that_can_seek_is_a_part():
    """An open file is judged, but may be a part of a trail."""
    reader = open_trail(io.BytesIO(opened(0) + line(2) + closed(3)))
    verdict = reader.completeness()
    assert [item.count for item in verdict.missing] == [1]
    assert Reason.PARTIAL_SOURCE in reasons(verdict)
    assert reader.count_events() == 1


def test_several_trails_are_judged_together_and_named(tmp_path):
    """Each loss and doubt names its trail, and the source lists all."""
    first = write_trail(tmp_path / "a", active=life(0, 20))
    second = write_trail(tmp_path / "b", active=opened(0, writer=1) + line(3, writer=1) + closed(20, writer=1))
    verdict = open_trail(first, second).completeness(at(0), at(3))
    assert verdict.verdict == Verdict.INCOMPLETE
    assert {item.trail for item in verdict.missing} == {str(second)}
    assert all(sentence.startswith(f"{second}: ") for sentence in verdict.sentences())
    assert [segments.trail for segments in verdict.source.segments] == [str(first), str(second)]


def test_problem_that_only_whole_events_show_is_a_doubt_after_a_query(tmp_path):
    """A line with the same key twice has its number, but is left out of the answers."""
    path = write_trail(tmp_path, active=opened(0) + line(1).replace(b"{", b'{"status":"FAILURE",', 1) + closed(2))
    reader = open_trail(path)
    reader.count_events()
    assert ("duplicate_key",) in [doubt.names for doubt in reader.completeness(at(0), at(2)).doubts]


@pytest.mark.parametrize(
    ("start", "end", "error"),
    [("2025", None, AuditTypeError), (None, 5, AuditTypeError), (at(2), at(1), AuditValueError)],
)
def test_invalid_period_is_refused(three_segments, start, end, error):
    """A bound that is no time, and a reversed period, raise an error."""
    with pytest.raises(error):
        open_trail(three_segments).completeness(start, end)


# --- reading while files change ----------------------------------------------------------------------------------------


class ChangingTrail(Trail):
    """A trail that shows only some of its segments, one more each time its set is taken."""

    shown = 0

    @contextmanager
    def segments(self):
        with super().segments() as segments:
            self.shown += 1
            yield segments[: self.shown - 1] + segments[-1:] if self.shown < len(segments) else segments


def test_loss_that_another_reading_does_not_show_is_not_reported(three_segments):
    """If files change while they are read, the trail is read again, and only what stays missing is reported."""
    trail = ChangingTrail(str(three_segments.parent), three_segments.name)
    evidence = steady_evidence(trail)
    assert (evidence.holes, evidence.writers[WRITERS[0]].first.number) == ([], 0)


def test_trail_that_does_not_change_is_read_once(three_segments):
    """A loss in files that did not change is reported after one reading."""
    middle_segment(three_segments)
    trail = CountingTrail(str(three_segments.parent), three_segments.name)
    assert steady_evidence(trail).holes
    # The files, the lines, and the files again.
    assert trail.taken == 3


class CountingTrail(Trail):
    """A trail that counts how often its set of segments is taken."""

    taken = 0

    @contextmanager
    def segments(self):
        self.taken += 1
        with super().segments() as segments:
            yield segments
