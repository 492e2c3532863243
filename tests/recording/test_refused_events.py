"""Events that a target refuses while it takes others: set aside, counted and named, and never in the way of the others."""

from __future__ import annotations

import pytest
from commit_rig import Rig, assert_no_gaps, follow_during_write, ids, internal_entry, new_entry, raising, threads_of
from conftest import Interruption
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.events.codec import decode
from structlog_audit.recording import group_commit, outage_policy
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, RECORDED, WAITING


def refusing_rig(on_error="retry", **options):
    """Return a rig whose target may refuse single entries."""
    rig = Rig(on_error, **options)
    rig.target.may_be_refusal = True
    return rig


def gaps_of(rig):
    return [decode(line).metadata for line in rig.target.lines if decode(line).kind == "gap"]


def operations_of(rig):
    return [name for name in rig.trail() if isinstance(name, str)]


def test_refused_event_is_set_aside_after_the_next_was_taken():
    """An event that is refused twice, while the next one is taken, is lost; the others are recorded in order."""
    rig = refusing_rig()
    bad = rig.submit("bad")
    assert (bad.state, rig.counter("pending")) == (PENDING, 1)
    others = [rig.submit(f"op{number}") for number in range(3)]
    assert bad.state == LOST
    assert [entry.state for entry in others] == [RECORDED] * 3
    assert operations_of(rig) == ["op0", "op1", "op2"]
    assert rig.commit.counters() == {"accepted": 4, "recorded": 3, "pending": 0, "raised": 0, "lost": 1}
    assert not rig.commit._outage.is_active


def test_two_refused_events_in_a_row_are_an_outage_for_callers_that_get_errors():
    """With "raise", only the next event shows that the target works: no event overtakes two others."""
    rig = refusing_rig("raise")
    rig.commit.enqueue(new_entry("bad0"))
    rig.commit.enqueue(new_entry("bad1"))
    assert rig.submit("op").state == RAISED
    assert rig.trail() == []


def test_gap_names_the_refused_event():
    """The gap has the id and the operation of the refused event, the error and the reason."""
    rig = refusing_rig()
    bad = rig.submit("bad löschen")
    rig.submit("op")
    assert gaps_of(rig) == [
        {
            "lost": 1,
            "reason": "the target refused the event and took others",
            "error": "OSError: [Errno 28] No space left on device",
            "event_id": decode(bad.line).event_id,
            "operation": "bad l\\xf6schen",
        }
    ]


def test_target_that_takes_nothing_drops_nothing():
    """In an outage every event is pending, however often it is tried, and is recorded in order afterwards."""
    rig = refusing_rig()
    rig.target.room = 0
    entries = [rig.submit(f"op{number}") for number in range(10)]
    for _ in range(30):
        rig.fire()
    assert {entry.state for entry in entries} == {PENDING}
    rig.target.room = None
    rig.fire()
    assert rig.trail() == [f"op{number}" for number in range(10)]


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_target_that_recovers_between_two_attempts_drops_nothing(attempts):
    """If the head was refused because of an outage that ends before the next try, it is recorded, too."""
    rig = refusing_rig()
    rig.target.room = 0
    for _ in range(attempts):
        rig.submit(f"op{_}")
    deliver = rig.target.deliver

    def recover_after_this(entries):
        rig.target.deliver = deliver
        try:
            deliver(entries)
        finally:
            rig.target.room = None

    rig.target.deliver = recover_after_this
    rig.submit("last")
    assert sorted(operations_of(rig)) == sorted(decode(entry.line).operation for entry in rig.submitted)
    assert {entry.state for entry in rig.submitted} == {RECORDED}
    assert rig.is_balanced()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_refused_event_without_another_behind_it_is_set_aside_by_the_timer(count):
    """The gap itself shows that the target takes others, so no later event is needed."""
    rig = refusing_rig()
    bad = [rig.submit(f"bad{number}") for number in range(count)]
    for _ in range(3 * count):
        rig.fire()
    assert {entry.state for entry in bad} == {LOST}
    assert [gap["operation"] for gap in gaps_of(rig)] == [f"bad{number}" for number in range(count)]
    assert not rig.counter("pending")


def test_place_without_room_refuses_no_event():
    """If the error says that the place is full, the event stays pending although a smaller one might fit."""
    rig = Rig()
    bad = rig.submit("bad")
    rig.submit("op")
    rig.fire()
    assert (bad.state, rig.target.lines) == (PENDING, [])


def test_several_refused_events_in_a_row_are_all_set_aside():
    """Refused events one behind the other do not hide each other: those behind them are recorded."""
    rig = refusing_rig()
    bad = [rig.submit(f"bad{number}") for number in range(5)]
    for number in range(10):
        rig.submit(f"op{number}")
    assert {entry.state for entry in bad} == {LOST}
    assert operations_of(rig) == [f"op{number}" for number in range(10)]
    assert [gap["operation"] for gap in gaps_of(rig)] == [f"bad{number}" for number in range(5)]


@given(st.lists(st.sampled_from(["good", "good", "bad", "outage", "recovery", "fire"]), max_size=25))
def test_order_of_the_others_is_kept_in_any_course_of_events(course):
    """For all courses: each good event is recorded once and in order, and each bad one is lost once and named in a gap."""
    rig = refusing_rig()
    steps = {
        "outage": lambda: setattr(rig.target, "room", 0),
        "recovery": lambda: setattr(rig.target, "room", None),
        "fire": rig.fire,
    }
    for number, step in enumerate(course):
        steps.get(step, lambda: rig.submit(f"{step}{number}"))()  # noqa: B023 (called at once)

    rig.target.room = None
    for number in range(2 * len(course) + 2):
        rig.submit(f"good{1_000 + number}")

    names = [decode(entry.line).operation for entry in rig.submitted]
    assert operations_of(rig) == [name for name in names if name.startswith("good")]
    assert [gap["operation"] for gap in gaps_of(rig)] == [name for name in names if name.startswith("bad")]
    assert len(set(ids(rig.target.lines))) == len(rig.target.lines)
    assert rig.commit.counters()["lost"] == sum(name.startswith("bad") for name in names)
    assert rig.is_balanced()


def test_refused_gap_is_given_up():
    """A gap that the target refuses, too, does not stop the events behind it."""
    rig = refusing_rig()
    deliver = rig.target.deliver

    def refuse_gaps(entries):
        for entry in entries:
            if b'"kind":"gap"' in entry.line:
                entry.line = entry.line.replace(b'"operation":"gap"', b'"operation":"bad"')
        deliver(entries)

    rig.target.deliver = refuse_gaps
    rig.submit("bad")
    for number in range(5):
        rig.submit(f"op{number}")
    assert rig.trail() == [f"op{number}" for number in range(5)]
    assert rig.commit.counters() == {"accepted": 6, "recorded": 5, "pending": 0, "raised": 0, "lost": 1}


def test_refused_internal_event_leaves_no_gap():
    """An event of the library itself that is refused leaves no gap: a gap counts application events."""
    rig = refusing_rig()
    entry = internal_entry()
    entry.body = entry.body.replace(b"act", b"bad")
    rig.commit.submit(entry)
    rig.submit("op")
    assert rig.trail() == ["op"]
    assert rig.commit.counters() == {"accepted": 1, "recorded": 1, "pending": 0, "raised": 0, "lost": 0}


def test_raise_reaches_only_the_caller_of_the_refused_event():
    """With "raise", of the callers that share a write, only that of a refused event gets the error."""
    rig = refusing_rig("raise")
    entries = [new_entry(name) for name in ("op1", "bad", "op2", "op3")]
    errors = []

    def submit(entry):
        try:
            rig.commit.submit(entry)
        except Exception as error:
            errors.append((entry, error.__cause__))

    threads = threads_of(rig, entries)
    for thread, entry in zip(threads, entries, strict=True):
        thread._target, thread._args = submit, (entry,)
    follow_during_write(rig, threads, entries)
    rig.submit("first")
    for thread in threads:
        thread.join()
    assert [(entry, type(cause)) for entry, cause in errors] == [(entries[1], OSError)]
    assert entries[1].state == RAISED
    assert sorted(rig.trail()) == ["first", "op1", "op2", "op3"]
    assert_no_gaps(rig.target.lines)
    assert rig.accepted_lines == rig.target.lines
    assert rig.is_balanced()


class RefusalInterruption(Interruption):
    """An interruption in the functions that find and set aside a refused event."""

    def _trace(self, frame, event, argument):
        names = {"_handle_failure", "_set_refused_aside", "_try", "_mark_recorded", "_next_batch", "_make_line"}
        in_policy = frame.f_globals["__name__"] == outage_policy.__name__
        return super()._trace(frame, event, argument) if in_policy or frame.f_code.co_name in names else None


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_interrupt_at_any_line_of_a_refusal_loses_no_other_event(on_error):
    """Before whichever line an exception comes, all other events are recorded, and the refused one is not."""
    interruption, due = None, 0
    while interruption is None or interruption.lines >= due:
        due += 1
        rig = refusing_rig(on_error)
        interruption = RefusalInterruption(due, raising(KeyboardInterrupt()), outage_policy, group_commit)
        try:
            with interruption:
                for name in ("one", "bad", "two", "three"):
                    rig.submit(name)
        except KeyboardInterrupt:
            pass

        for _ in range(3):
            rig.submit("last")
        recorded = [decode(entry.line).operation for entry in rig.submitted if entry.state == RECORDED]
        assert set(operations_of(rig)) == set(recorded) >= {"last"}
        assert "bad" not in recorded
        assert 0 not in rig.trail()

        # An entry without a line was interrupted before the commit had it.
        waiting = [entry for entry in rig.submitted if entry.line and entry.state in (WAITING, PENDING)]
        assert {decode(entry.line).operation for entry in waiting} <= {"bad"}
