"""`compliance_report`: the report of a month, of any other period, or of one user, as data and as documents.

**Guarantees**

* A report states its limits: the verdict on its completeness with the evidence, lost events, and facts that no report can show.

**Performance**

* One pass over the events, in the order of commit; a source that counts its events, such as an archive, makes none
  (`structlog_audit.reports.counted`). `structlog_audit.reports.aggregation` describes the bounds on memory.
* A report of one user makes a second pass, over gaps and trail events; without an event of the user, a third one for the names
  near that user's.
* A period with a start makes one pass over the period before, and one for the verdict on it.
* Open intents cause one more pass, from the first of them on: their outcomes may lie after the period or belong to another
  user.
"""

from __future__ import annotations

import copy
import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypedDict, Unpack, overload

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import Identifier, Kind
from structlog_audit.events.json_safe import identifier_text
from structlog_audit.events.operation_classes import OperationClasses, registered_operations
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.completeness import Completeness
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.field_tests import FieldConditions
from structlog_audit.query.filters import conditions
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.query.statistics import statistics
from structlog_audit.query.times import Time
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.reports.aggregation import ReportAggregates
from structlog_audit.reports.completeness import assess_completeness
from structlog_audit.reports.counted import HAS_INTENT, add_counted
from structlog_audit.reports.document import Document
from structlog_audit.reports.document_builder import build_document
from structlog_audit.reports.period import Period, period_of
from structlog_audit.reports.person import PersonReport, person_report
from structlog_audit.reports.previous_period import compare_with_period_before
from structlog_audit.reports.report_data import build_data
from structlog_audit.reports.report_forms import ReportForms

_LIBRARY_KINDS = (Kind.GAP, Kind.TRAIL)


@dataclass(frozen=True, slots=True, repr=False)
class Report(ReportForms):
    """An immutable compliance report, made by `compliance_report`."""

    completeness: Completeness
    """The verdict on the completeness of the period, with the evidence it rests on."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values.

        Times are RFC 3339 in UTC, also those at which days and months of the zone begin; durations are milliseconds.

        ==================  ===========================================================================================
        member              content
        ==================  ===========================================================================================
        ``period``          ``start`` and ``end``, None is an open bound; ``month``, if it is one; ``time_zone``, by name
        ``user_id``         the user that the report is limited to, or None
        ``generated_at``    the time of creation; ``software`` is the version
        ``source``          the data: ``type paths hosts segments first_event last_event``
        ``summary``         as `EventSource.get_statistics`, with the number of ``users`` in place of their counts
        ``completeness``    the ``verdict`` (``complete incomplete unknown``), its ``headline`` and ``sentences``, and what
                            is ``missing`` and ``unknown`` (`structlog_audit.query.completeness`); ``complete_since``;
                            ``gaps``, and the number of events ``lost`` in them; the handler's lifetime ``counters``;
                            ``problems`` of the files by code
        ``integrity``       the verdict on the seal of each trail, with its ``findings`` and the ``evidence`` it rests on: keys,
                            checkpoint, anchors; empty if nothing was verified
        ``months``          the memory SDK's report of each month: ``period total_events users operations user_activity``, the
                            latter with ``total`` and ``by_class`` of every user; and the number of events
                            ``without_user``, which are in no one's activity
        ``over_time``       the ``unit`` (hour to century), and ``steps`` with their ``start``, ``total`` and statuses
        ``comparison``      with the period before, as `structlog_audit.reports.ComparisonReport`, if the source is known to
                            have that period whole; else the ``reasons`` why not
        ``operations``      of each operation ``class total_events by_status success_rate timed_events`` and durations
        ``classes``         ``classified`` events and their counts ``by_class``; ``unclassified`` events and their operations
        ``users``           ``total``; the 50 ``most_active``; the 10 with ``most_failures``
        ``unknown_status``  the number of events whose status states neither success nor failure
        ``failures``        ``total``, how many ``failed``, the number of their ``entries``, and the 50 ``newest``;
                            likewise those of the classes delete and export, ``deletions`` and ``exports``, and, with the
                            200 newest, the ``activity`` of the user, with ``hints`` if there is none
        ``open_intents``    ``total``, ``entries``, and the 50 ``oldest`` without a known outcome
        ``trail_events``    ``total``, counts ``by_operation``, and the 50 ``newest``
        ``clauses``         the compliance clauses, each with the sections that contain evidence for it
        ``not_shown``       the limits of the report
        ==================  ===========================================================================================
        """
        return copy.deepcopy(self._members)

    def _document(self, members: dict[str, Any]) -> Document:
        return build_document(members)

    def __repr__(self) -> str:
        period = self._members["period"]
        bounds = (period["start"], period["end"])
        return f"<Report of {period['month'] or bounds}>"


class ReportParameters(TypedDict, total=False):
    """The parameters of every `compliance_report`."""

    month: str | None
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    since: Time | None
    until: Time | None
    tz: dt.tzinfo | str | None
    operations: Mapping[str, str] | OperationClasses | None
    seals: Iterable[SealVerdict]


class PersonParameters(ReportParameters, total=False):
    """The parameters of a report on one person (`structlog_audit.reports.person_report`)."""

    members: Iterable[str]
    redactors: Iterable[Redactor]
    vault: SubjectVault | str | os.PathLike[str] | None
    newest: int


@overload
def compliance_report(
    source: EventSource,
    *,
    user_id: Identifier | None = None,
    person: None = None,
    **parameters: Unpack[ReportParameters],
) -> Report: ...


@overload
def compliance_report(
    source: EventSource, *, person: Identifier, **parameters: Unpack[PersonParameters]
) -> PersonReport: ...


def compliance_report(
    source: EventSource,
    *,
    month: str | None = None,
    start_time: dt.datetime | None = None,
    end_time: dt.datetime | None = None,
    since: Time | None = None,
    until: Time | None = None,
    user_id: Identifier | None = None,
    person: Identifier | None = None,
    tz: dt.tzinfo | str | None = None,
    operations: Mapping[str, str] | OperationClasses | None = None,
    seals: Iterable[SealVerdict] = (),
    **search: Any,
) -> Report | PersonReport:
    """Return the report of the events of *source* in a period. O(number of events).

    Args:
        source: An `AuditHandler`, an `AuditLogger`, or the reader of a trail.
        month: A month such as ``"2025-01"``, ``"this"`` or ``"last"``.
        start_time, end_time: A half-open range in place of the month; None is an open bound. A naive time is in *tz*, or
            local without one.
        since, until: The same range as people say it: a date, a timedelta (that long ago), or a text such as ``"7d"`` or
            ``"last week"``.
        user_id: The user that the report is limited to (GDPR art. 15); None includes all users.
        person: The person about whom everything is reported, in place of a summary.
        tz: The time zone of months, days and hours, and of the times in documents, such as ``"Europe/Berlin"``; None is UTC.
        search: With *person*, the further parameters of `structlog_audit.reports.person_report`.
        operations: Classes of operations beyond the registered ones, by name: ``{"settle": "update"}``.
        seals: The verdicts on the seals of the trails (`structlog_audit.integrity.seal_verdicts.verify_seals`). Without any,
            the report states that nothing was verified.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """
    if not isinstance(source, EventSource):
        expected = "an AuditHandler, an AuditLogger or the reader of a trail"
        raise AuditTypeError(f"source={source!r}: expected {expected}, got {type(source).__name__}")

    if person is not None:
        if user_id is not None:
            raise AuditValueError(f"user_id={user_id!r}, person={person!r}: expected one of them")
        exact: Any = {"month": month, "start_time": start_time, "end_time": end_time, "tz": tz}
        bounds: Any = {**exact, "since": since, "until": until}
        return person_report(source, person, **bounds, operations=operations, seals=seals, **search)
    if search:
        raise AuditTypeError(f"{', '.join(search)}: expected only with person, or no such parameter")

    period = period_of(month, start_time, end_time, source._now(), tz, since=since, until=until)
    user = _user(user_id)
    aggregates = ReportAggregates(registered_operations().extended(operations), period.zone)
    statistics_of_period = _aggregate(source, period, user, aggregates)

    if period.end is not None or user is not None:
        _close_intents_elsewhere(source, aggregates)
    hints = _absence(source, period, user) if user is not None and not aggregates.activity.total else []
    verdict = assess_completeness(source, period, user, aggregates, seals)
    comparison = compare_with_period_before(source, period, user, aggregates, verdict, verdict.seals)
    members = build_data(source, period, user, aggregates, statistics_of_period, hints, verdict, comparison)
    return Report(members, period.zone, verdict)


def _aggregate(source: EventSource, period: Period, user: str | None, aggregates: ReportAggregates) -> dict[str, Any]:
    """Add the events of the period to *aggregates*, and return the statistics of the application events."""
    if user is None:
        in_period = conditions(start_time=period.start, end_time=period.end)
        with source._counted_events(in_period, period.zone) as counted:
            if counted is not None:
                return add_counted(counted, period, aggregates)

    return statistics(aggregates.aggregate(_events(source, period, user)))


def _absence(source: EventSource, period: Period, user_id: str) -> list[str]:
    """Return why there may be no events of *user_id*."""
    in_period = conditions(start_time=period.start, end_time=period.end)
    return source._absent_values(in_period, {"user_id": [user_id]})


def _user(user_id: Any) -> str | None:
    """Return the user id as trails have it."""
    if user_id is None:
        return None

    text = identifier_text(user_id)
    if text is None:
        kind = type(user_id).__name__
        raise AuditTypeError(f"user_id={user_id!r}: expected one user id, or None for all users, got {kind}")
    return text


def _events(source: EventSource, period: Period, user_id: str | None) -> Iterator[StoredEvent]:
    """Return the events of the period.

    *user_id* limits application events and intents, but not gaps and trail events.
    """
    bounds: Any = {"start_time": period.start, "end_time": period.end}
    if user_id is None:
        return _select(source, kind=[None, Kind.INTENT, *_LIBRARY_KINDS], **bounds)

    of_user = _select(source, user_id=user_id, kind=[None, Kind.INTENT], **bounds)
    of_library = _select(source, kind=_LIBRARY_KINDS, **bounds)
    return chain(of_user, of_library)


def _select(source: EventSource, **filters: Any) -> Iterator[StoredEvent]:
    """Return the events that match *filters*, oldest first."""
    return source.select(conditions(**filters), newest_first=False)


def _close_intents_elsewhere(source: EventSource, aggregates: ReportAggregates) -> None:
    """Close intents with an outcome after the period or by another user."""
    if not aggregates.open_intents:
        return

    first = min(intent.timestamp for intent in aggregates.open_intents.values())
    outcomes = FieldConditions.of(conditions(start_time=first), HAS_INTENT)
    for event in source.select(outcomes, newest_first=False):
        aggregates.close_intent(event)
