"""A group commit in front of a target that fails on demand, shared by the tests of the commit and of its outage policy."""

from __future__ import annotations

import errno
import itertools
import json
import os
import threading

from structlog_audit._failures import DeliveryError
from structlog_audit.events.codec import decode, encode_payload
from structlog_audit.events.event_id import Stamp, parse_event_id
from structlog_audit.events.payload import Payload
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording.group_commit import GroupCommit
from structlog_audit.recording.queue_entry import RAISED, InternalEntry, QueueEntry


class Target:
    """A target that accepts every entry, or only the next `room` entries while that is a number.

    It refuses the entries whose operation starts with "bad", whatever its room.
    """

    def __init__(self):
        self.lines = []
        self.writes = []
        self.room = None
        self.may_be_refusal = False

        # Called once, in the middle of the next write.
        self.during = None

    def deliver(self, entries):
        during, self.during = self.during, None
        if during is not None:
            during()
        done = len(entries) if self.room is None else min(len(entries), self.room)
        for place, entry in enumerate(entries[:done]):
            if b'Z","operation":"bad' in entry.line:
                done = place
                break
        self.lines += [entry.line for entry in entries[:done]]
        self.writes.append(done)
        if self.room is not None:
            self.room -= done
        if done < len(entries):
            raise DeliveryError(done, may_be_refusal=self.may_be_refusal) from os_error(errno.ENOSPC)


class Rig:
    """A commit in front of a `Target`, with a clock and a timer that the test drives."""

    def __init__(self, on_error="retry", max_pending=10_000):
        self.target = Target()
        self.accepted_lines = []
        self.reported = []
        self.timers = []
        self.now = 1_700_000_000_000_000_000
        self.writers = itertools.count(1)
        self.commit = GroupCommit(
            lambda entries: self.target.deliver(entries),
            lambda line, timestamp_us: self.accepted_lines.append(line),
            self.reported.append,
            stamp=Stamp(self.clock, lambda bits: next(self.writers)),
            on_error=on_error,
            max_pending=max_pending,
            call_later=lambda seconds, function: self.timers.append(function),
        )
        self.submitted = []
        self.commit.submit = self.count

    def count(self, entry):
        self.submitted.append(entry)
        GroupCommit.submit(self.commit, entry)

    def clock(self):
        self.now += 1_000
        return self.now

    def submit(self, name="STORE"):
        entry = new_entry(name)
        try:
            self.commit.submit(entry)
        except AuditWriteError:
            assert entry.state == RAISED
        return entry

    def fire(self):
        """Run the timers that are due."""
        timers, self.timers[:] = list(self.timers), []
        for timer in timers:
            timer()

    def counter(self, name):
        return self.commit.counters()[name]

    def trail(self):
        """Return the operations in the trail, and for a gap the number of lost events."""
        events = [decode(line) for line in self.target.lines]
        return [event.metadata["lost"] if event.kind == "gap" else event.operation for event in events]

    def is_balanced(self):
        """Return whether every submitted event is counted once."""
        return self.counter("accepted") == sum(entry.counts for entry in self.submitted)


def assert_no_gaps(lines):
    """Assert that the sequence numbers of each writer in *lines* are 0, 1, 2 …; a line may be there twice."""
    numbers = {}
    for line in lines:
        event_id = parse_event_id(decode(line).event_id)
        numbers.setdefault(event_id.writer, set()).add(event_id.number)
    for writer, found in numbers.items():
        assert found == set(range(len(found))), writer


def new_entry(name="STORE"):
    return QueueEntry(encode_payload(Payload(name), 32_000), 20, "audit")


def internal_entry():
    return InternalEntry(encode_payload(Payload("act"), 32_000), 50, "trail")


def retrying_commit(deliver, accept):
    """Return a commit with these functions as its target and its buffer."""
    return GroupCommit(
        deliver,
        accept,
        report_outage=lambda error: None,
        stamp=Stamp(),
        on_error="retry",
        max_pending=10,
        call_later=lambda seconds, function: None,
    )


def os_error(number):
    return OSError(number, os.strerror(number))


def raising(error):
    """Return a signal handler that raises *error*."""

    def on_signal():
        raise error

    return on_signal


def in_another_thread(function, *arguments):
    """Return the result of *function* in another thread; None if it still waits after ten seconds."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)), daemon=True)
    thread.start()
    thread.join(10)
    return results[0] if results else None


def threads_of(rig, entries, **options):
    """Return one thread for each of *entries* that submits it; they are not started."""
    return [threading.Thread(target=rig.commit.submit, args=(entry,), **options) for entry in entries]


def follow_during_write(rig, threads, entries):
    """In the middle of the next write, start *threads* and wait until each of them follows with its entry."""

    def start_followers():
        for thread in threads:
            thread.start()
        while not all(entry.wake for entry in entries):
            os.sched_yield()

    rig.target.during = start_followers


def ids(lines):
    return [json.loads(line)["event_id"] for line in lines]
