"""`Completeness`: the verdict on whether a source has every event of a period, with the evidence it rests on.

**Guarantees**

* ``complete`` is said only if evidence covers the whole period; ``incomplete`` if it shows that events are missing; otherwise
  the verdict is ``unknown``. Each loss and each doubt has a sentence.
* The evidence is that of the lines: sequence numbers, and the events about losses and about the trail itself. It shows losses
  and clumsy removal. A user who may write to the files can renumber lines; only a verified seal, as further evidence, shows
  that (`Completeness.with_seals`).
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from structlog_audit.events.event import rfc3339
from structlog_audit.query.plurals import counted
from structlog_audit.query.seal_verdict import SealVerdict

MOST_LISTED = 10
"""The number of losses and of names that sentences list one by one. The JSON form lists all that were kept."""


class Verdict(StrEnum):
    """The three verdicts."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """How it is known that events are missing."""

    NUMBERS = "numbers"
    PREDECESSOR = "predecessor"
    SEGMENT = "segment"
    GAP = "gap"
    LOST = "lost"
    RAISED = "raised"
    PENDING = "pending"
    SEAL = "seal"


class Reason(StrEnum):
    """Why completeness is unknown."""

    NO_EVENTS = "no events"
    BEFORE_FIRST = "before the first event"
    PRUNED = "pruned"
    ARCHIVE_PRUNED = "pruned from the archive"
    AFTER_LAST = "after the last event"
    NOT_CLOSED = "not closed"
    NOT_OVER = "not over"
    NOT_ARCHIVED = "not archived"
    NO_ACTIVE_SEGMENT = "no active segment"
    PARTIAL_SOURCE = "partial source"
    READ_ONCE = "read once"
    NO_NUMBER = "no number"
    REPEATED_NUMBER = "repeated number"
    MOVED = "moved"
    DAMAGE = "damage"
    PROBLEM = "problem"
    BUFFER = "buffer"
    NO_SUCH_USER = "no such user"
    SEAL = "seal"


_OPEN_END = frozenset((Reason.AFTER_LAST, Reason.NOT_CLOSED, Reason.NOT_ARCHIVED))
"""The reasons that concern only the time after the last lines."""

_CAUSES = {
    Cause.NUMBERS: "of writer {writer}{host} missing",
    Cause.PREDECESSOR: "of writer {writer}{host}, whose last one a later opened event names, missing",
    Cause.SEGMENT: "of the segment {segment_after}, which retention kept, missing",
    Cause.GAP: "lost, as a gap event states",
    Cause.LOST: "lost because the target failed and too many were pending, or because it refused them",
    Cause.RAISED: "not recorded because the target failed; the callers received an error",
    Cause.PENDING: "pending in memory, not yet in the trail",
    Cause.SEAL: "missing, as the seal shows",
}

_REASONS = {
    Reason.NO_EVENTS: "The source has no events, so nothing shows whether any are missing.",
    Reason.BEFORE_FIRST: "Nothing shows what came before the first event, {until}.",
    Reason.PRUNED: "Retention deleted the segments before {until}.",
    Reason.ARCHIVE_PRUNED: "The days before {until} were pruned from the archive.",
    Reason.AFTER_LAST: "Nothing shows whether events followed the last one, {since}.",
    Reason.NOT_CLOSED: "{count} without a closed event ({names}): running, killed, or the newest lines were removed. Nothing "
    "shows what followed, from {since}.",
    Reason.NOT_OVER: "The period is not over: it is {since}.",
    Reason.NO_ACTIVE_SEGMENT: "The active segment does not exist, so the newest lines may be missing.",
    Reason.NOT_ARCHIVED: "The live files of this trail were not read: nothing shows what followed its last archived event, "
    "{since}.",
    Reason.PARTIAL_SOURCE: "Only a part of the trail was given ({names}).",
    Reason.READ_ONCE: "The stream can be read only once, so its lines were not checked: save it to a file.",
    Reason.NO_NUMBER: "{count} with an id without a sequence number, of another library or an older version.",
    Reason.REPEATED_NUMBER: "{count} with the sequence number of another line, but not its content.",
    Reason.MOVED: "{count} after lines with higher sequence numbers.",
    Reason.DAMAGE: "A trail event reports damage to the file ({names}, {count}).",
    Reason.PROBLEM: "Reading the source met a problem ({names}, {count}).",
    Reason.BUFFER: "The buffer has no complete record of events before {until}.",
    Reason.NO_SUCH_USER: "No event of the source has the user {names}: the name may be another one.",
    Reason.SEAL: "The trail does not verify against its seal ({names}).",
}

_NOUNS = {Reason.NOT_CLOSED: "writer", Reason.DAMAGE: "time", Reason.PROBLEM: "time"}
"""The unit of the count of a reason, if not lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Events that are missing."""

    cause: Cause
    count: int | None
    """Their number; None if unknown."""
    is_least: bool = False
    """Whether there may be more."""
    trail: str | None = None
    """The active segment of the trail."""
    writer: str | None = None
    """The 11 hex digits of the writer (`structlog_audit.events.event_id.EventId`)."""
    host: str | None = None
    """The host of the writer, if its ``opened`` event was read."""
    after: dt.datetime | None = None
    """The time of the last line before them; None is the beginning."""
    before: dt.datetime | None = None
    """The time of the first line after them; None is open."""
    segment_before: str | None = None
    """The name of the segment with the last line before them."""
    segment_after: str | None = None
    """The name of the segment with the first line after them."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON values."""
        return {
            "cause": self.cause.value,
            "count": self.count,
            "at_least": self.is_least,
            "trail": self.trail,
            "writer": self.writer,
            "host": self.host,
            "after": _rfc3339(self.after),
            "before": _rfc3339(self.before),
            "segment_before": self.segment_before,
            "segment_after": self.segment_after,
        }

    def sentence(self, zone: dt.tzinfo | None = dt.UTC) -> str:
        """Return a sentence with everything that is known, with times of *zone*; None is local time."""
        count = "An unknown number of events" if self.count is None else counted(self.count, "event")
        if self.is_least and self.count is not None:
            count = f"At least {count}"

        host = f" (host {self.host})" if self.host else ""
        cause = _CAUSES[self.cause].format(writer=self.writer, host=host, segment_after=self.segment_after)

        return f"{count} {cause}{self._times(zone)}{self._segments()}."

    def _times(self, zone: dt.tzinfo | None) -> str:
        after, before = _text(self.after, zone), _text(self.before, zone)
        if self.after is not None and self.after == self.before:
            return f" at {after}"

        if after and before:
            return f" between {after} and {before}"

        if after:
            return f" after {after}"

        return f" before {before}" if before else ""

    def _segments(self) -> str:
        before, after = self.segment_before, self.segment_after
        if self.cause == Cause.SEGMENT or after is None:
            return ""

        if before is None:
            return f", before the lines in {after}"

        return f", within {after}" if before == after else f", between {before} and {after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A reason why completeness is unknown, for a part of the time."""

    reason: Reason
    count: int = 0
    """How many lines, writers or times; 0 if the reason has no number."""
    names: tuple[str, ...] = ()
    """Names that belong to the reason: writers, codes, segments."""
    trail: str | None = None
    since: dt.datetime | None = None
    """The beginning of the time that is in doubt; None is open."""
    until: dt.datetime | None = None
    """The end of the time that is in doubt; None is open."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON values."""
        return {
            "reason": self.reason.value,
            "count": self.count,
            "names": list(self.names),
            "trail": self.trail,
            "since": _rfc3339(self.since),
            "until": _rfc3339(self.until),
        }

    def sentence(self, zone: dt.tzinfo | None = dt.UTC) -> str:
        """Return the reason as a sentence, with times of *zone*; None is local time."""
        names = ", ".join(self.names[:MOST_LISTED])
        if len(self.names) > MOST_LISTED:
            names += ", …"

        count = counted(self.count, _NOUNS.get(self.reason, "line"))
        since, until = _text(self.since, zone), _text(self.until, zone)

        return _REASONS[self.reason].format(count=count, names=names, since=since, until=until)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRange:
    """The segments of a trail that were read."""

    trail: str
    number: int
    first: str | None
    last: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON values."""
        return {"trail": self.trail, "number": self.number, "first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data that a verdict is about: the files, hosts and times of the events that were read."""

    type: str
    """The name of the class."""
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    segments: tuple[SegmentRange, ...] = ()
    first_event: dt.datetime | None = None
    """The time of the earliest event of any kind."""
    last_event: dt.datetime | None = None
    """The time of the latest event of any kind."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON values."""
        return {
            "type": self.type,
            "paths": list(self.paths),
            "hosts": list(self.hosts),
            "segments": [segments.to_dict() for segments in self.segments],
            "first_event": _rfc3339(self.first_event),
            "last_event": _rfc3339(self.last_event),
        }

    def sentence(self) -> str:
        """Return the source in one sentence."""
        hosts = f" of {', '.join(self.hosts[:MOST_LISTED])}" if self.hosts else ""
        if not self.segments:
            return f"{self.type}{hosts}."

        parts = []

        for segments in self.segments[:MOST_LISTED]:
            number = counted(segments.number, "segment")
            names = f", {segments.first} to {segments.last}" if segments.number > 1 else ""
            parts.append(f"{segments.trail} ({number}{names})")

        if len(self.segments) > MOST_LISTED:
            parts.append(f"{len(self.segments) - MOST_LISTED} more trails")

        return f"{'; '.join(parts)}{hosts}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """The verdict for one period of one source."""

    source: Source
    start: dt.datetime | None = None
    """The start of the period; None is the beginning of the source."""
    end: dt.datetime | None = None
    """The end of the period, which is excluded; None is open."""
    missing: tuple[Missing, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    seals: tuple[SealVerdict, ...] = ()
    """The verdicts on the seals of the trails, as far as `with_seals` got them."""

    @classmethod
    def of(
        cls,
        source: Source,
        start: dt.datetime | None,
        end: dt.datetime | None,
        missing: Iterable[Missing],
        doubts: Iterable[Doubt],
    ) -> Completeness:
        """Return the verdict for the period from *start* to *end*, with those losses and doubts that concern it."""
        of_period = [item for item in missing if _overlaps(item.after, item.before, start, end)]
        in_doubt = [item for item in doubts if _overlaps(item.since, item.until, start, end)]

        return cls(source=source, start=start, end=end, missing=tuple(of_period), doubts=tuple(in_doubt))

    @property
    def verdict(self) -> Verdict:
        """Whether the period is complete, incomplete, or neither is shown."""
        if self.missing:
            return Verdict.INCOMPLETE
        return Verdict.UNKNOWN if self.doubts else Verdict.COMPLETE

    @property
    def is_acceptable(self) -> bool:
        """Whether nothing is known to be missing, and nothing is in doubt before the last lines of an open period.

        A period without an end reaches beyond the last line of every trail, and is therefore never shown to be complete.
        """
        if self.end is not None:
            return self.verdict == Verdict.COMPLETE
        return not self.missing and all(doubt.reason in _OPEN_END for doubt in self.doubts)

    def with_doubt(self, doubt: Doubt) -> Completeness:
        """Return the verdict with one more *doubt*."""
        return replace(self, doubts=(*self.doubts, doubt))

    def with_seals(self, seals: Iterable[SealVerdict]) -> Completeness:
        """Return the verdict with the *seals* of its trails as further evidence.

        A seal that verifies shows that nothing is missing from the first line up to the newest that is sealed: a writer that
        recorded no end, and the end of the trail, are in doubt from there on only. A seal that does not verify is a loss or
        a doubt.
        """
        verdict = replace(self, seals=(*self.seals, *seals))

        for seal in verdict.seals[len(self.seals) :]:
            verdict = verdict._with_seal(seal)

        return verdict

    def _with_seal(self, seal: SealVerdict) -> Completeness:
        if seal.is_proof:
            proved = (self._proved(doubt, seal) for doubt in self.doubts)
            left = tuple(doubt for doubt in proved if doubt is not None)
            return replace(self, doubts=left)

        if seal.has_losses:
            lost = Missing(cause=Cause.SEAL, count=None, trail=seal.trail)
            return replace(self, missing=(*self.missing, lost))

        if seal.counts:
            return self.with_doubt(Doubt(reason=Reason.SEAL, names=tuple(seal.counts), trail=seal.trail))

        return self

    def _proved(self, doubt: Doubt, seal: SealVerdict) -> Doubt | None:
        """Return the rest of *doubt* if the lines that *seal* covers are proved."""
        if doubt.trail is None or os.path.abspath(doubt.trail) != os.path.abspath(seal.trail):
            return doubt

        if doubt.reason == Reason.BEFORE_FIRST and not seal.pruned:
            return None

        if doubt.reason not in _OPEN_END or doubt.since is None or seal.sealed_until is None:
            return doubt

        left = replace(doubt, since=max(doubt.since, seal.sealed_until))
        is_in_period = _overlaps(left.since, left.until, self.start, self.end)

        return left if is_in_period else None

    def with_users(self, unknown: tuple[str, ...]) -> Completeness:
        """Return the verdict for a query of users of whom the *unknown* ones have no event in the source."""
        return self.with_doubt(Doubt(reason=Reason.NO_SUCH_USER, names=unknown)) if unknown else self

    def sentences(self, zone: dt.tzinfo | None = dt.UTC) -> list[str]:
        """Return a sentence for each loss and each doubt, losses first; for several trails, each names its trail.

        Times are those of *zone*; None is local time.
        """
        items: Sequence[Missing | Doubt] = (*self.missing[:MOST_LISTED], *self.doubts)
        found = []

        for item in items:
            is_ambiguous = len(self.source.segments) > 1 and item.trail is not None
            sentence = item.sentence(zone)
            found.append(f"{item.trail}: {sentence}" if is_ambiguous else sentence)

        more = self.missing[MOST_LISTED:]
        if more:
            count = sum(item.count or 0 for item in more)
            found.insert(MOST_LISTED, f"{counted(count, 'event')} missing in {counted(len(more), 'further place')}.")

        return found

    def headline(self, zone: dt.tzinfo | None = dt.UTC) -> str:
        """Return the verdict in a few words, without the reasons, with times of *zone*; None is local time."""
        if self.verdict == Verdict.INCOMPLETE:
            counts = [item.count for item in self.missing]
            known = sum(count for count in counts if count is not None)
            is_least = None in counts or any(item.is_least for item in self.missing)
            prefix = "at least " if is_least else ""
            return (
                f"Incomplete: {prefix}{counted(known, 'event')} missing" if known else "Incomplete: events are missing"
            )

        if self.verdict == Verdict.COMPLETE:
            return "Complete"

        return self._bounds_of_doubt(zone)

    def _bounds_of_doubt(self, zone: dt.tzinfo | None) -> str:
        """Return "unknown", with the times between which nothing is in doubt, if there are any."""
        since = [doubt.until for doubt in self.doubts if doubt.since is None and doubt.until is not None]
        until = [doubt.since for doubt in self.doubts if doubt.until is None and doubt.since is not None]
        if len(since) + len(until) < len(self.doubts):
            return "Unknown"

        first = _text(max(since, default=None), zone)
        last = _text(min(until, default=None), zone)
        if not first:
            return f"Unknown after {last}; nothing is missing before"

        if not last:
            return f"Unknown before {first}; nothing is missing after"

        return f"Unknown before {first} and after {last}; nothing is missing between"

    def to_dict(self, zone: dt.tzinfo = dt.UTC) -> dict[str, Any]:
        """Return the verdict as JSON values, with all losses and doubts, and their sentences with times of *zone*."""
        return {
            "verdict": self.verdict.value,
            "start": _rfc3339(self.start),
            "end": _rfc3339(self.end),
            "sentences": self.sentences(zone),
            "missing": [item.to_dict() for item in self.missing],
            "unknown": [item.to_dict() for item in self.doubts],
            "source": self.source.to_dict(),
            "seals": [seal.to_dict(zone) for seal in self.seals],
        }

    def __str__(self) -> str:
        return " ".join([f"{self.headline()}.", *self.sentences()])


def begins_before(start: dt.datetime | None, end: dt.datetime | None, first: dt.datetime) -> bool:
    """Return whether a period reaches to before the *first* event. An open start is the beginning of the source."""
    if start is not None:
        return start < first
    return end is not None and end <= first


def _overlaps(
    since: dt.datetime | None, until: dt.datetime | None, start: dt.datetime | None, end: dt.datetime | None
) -> bool:
    """Return whether the time from *since* to *until* has an instant of the period [*start*, *end*).

    *until* is included, except after an open *since*: then it is the time from which everything is known.
    """
    # The clock of a writer may have stepped back in between.
    if since is not None and until is not None and until < since:
        since, until = until, since

    begins_after = since is not None and end is not None and since >= end
    if until is None or start is None:
        return not begins_after

    ends_before = until <= start if since is None else until < start

    return not (begins_after or ends_before)


def _rfc3339(time: dt.datetime | None) -> str | None:
    return None if time is None else rfc3339(time)


def _text(time: dt.datetime | None, zone: dt.tzinfo | None) -> str:
    """Return *time* as people read it, to the millisecond, with UTC or the offset of *zone*; an empty text for None."""
    if time is None:
        return ""

    text = time.astimezone(zone).isoformat(" ", timespec="milliseconds")

    return f"{text[:23]} {'UTC' if zone is dt.UTC else text[23:]}"
