"""`person_report`: everything that a trail has by and about one person, for an access request and for an erasure.

GDPR article 15 asks for the data, article 17 for its erasure: the report has the first, and the scope of the second.

**Guarantees**

* A report states what it cannot know: pseudonyms whose key is not given, text, other trails, and what its source lacks.
* Nothing is decrypted.

**Performance.** Two passes: over the person's events, which a query finds, and over all events of the period, since any of them
may name the person; an archive reads only those that do. A person without an event takes one more.
`structlog_audit.reports.person_data` bounds the memory.
"""

from __future__ import annotations

import copy
import datetime as dt
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structlog_audit._validation import require_integer
from structlog_audit._version import __version__
from structlog_audit.events.event import Identifier, Kind, rfc3339
from structlog_audit.events.json_safe import identifier_text
from structlog_audit.events.operation_classes import OperationClasses, registered_operations
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.completeness import Completeness
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.field_tests import METADATA, FieldTest, OneOf
from structlog_audit.query.filters import Conditions, conditions
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.query.times import Time
from structlog_audit.redaction.erasable import TOKEN
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.reports.aggregation import NEWEST_OF_USER, ReportAggregates
from structlog_audit.reports.completeness import completeness_members
from structlog_audit.reports.counted import HAS_INTENT
from structlog_audit.reports.document import Document
from structlog_audit.reports.period import Period, period_of
from structlog_audit.reports.person_data import IDENTITY, PSEUDONYM_OF_KEY, TOKEN_OF_VAULT, Person, PersonAggregates
from structlog_audit.reports.person_document import build_person_document
from structlog_audit.reports.report_data import open_intents
from structlog_audit.reports.report_forms import ReportForms


@dataclass(frozen=True, slots=True, repr=False)
class PersonReport(ReportForms):
    """An immutable report on one person, made by `person_report`."""

    completeness: Completeness
    """The verdict on the completeness of the period, with the evidence it rests on."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values. Times are RFC 3339 in UTC.

        ================  =============================================================================================
        member            content
        ================  =============================================================================================
        ``person``        the identity; ``names`` has each name that was searched and its source, ``members`` the members
                          of the metadata that were searched
        ``period``        as in `structlog_audit.reports.Report`
        ``by_person``     the person's events: ``total failures first last by_operation`` and the ``newest``
        ``sessions``      of the person: ``total``, and those with the ``most`` events; likewise ``addresses``, and
                          ``created``, the entries that they created. ``not_followed`` counts events beyond the bound
        ``open_intents``  of the person, without an outcome in the period
        ``about``         events of others about the person, as above, ``by_user`` and ``by_reason``
        ``on_created``    events of others with entries that the person created, as above
        ``library``       trail events that name the person: erasures, and recorded readings
        ``erasure``       ``encrypted_values`` that an erasure removes; ``names``, ``readable_members`` and
                          ``readable_messages`` that it does not remove, each with the number of ``events``
        ``unsearched``    the number of events with pseudonyms and tokens whose key was not given, by source
        ``unclassified``  the number of the person's events with entries and an operation without a class
        ``hints``         why there may be no events by the person
        ``completeness``  as in `structlog_audit.reports.Report`; likewise ``integrity source generated_at software``
        ================  =============================================================================================
        """
        return copy.deepcopy(self._members)

    def _document(self, members: dict[str, Any]) -> Document:
        return build_person_document(members)

    def __repr__(self) -> str:
        return f"<PersonReport of {self._members['by_person']['total']} events>"


def person_report(
    source: EventSource,
    person: Identifier,
    *,
    month: str | None = None,
    start_time: dt.datetime | None = None,
    end_time: dt.datetime | None = None,
    since: Time | None = None,
    until: Time | None = None,
    tz: dt.tzinfo | str | None = None,
    members: Iterable[str] = (),
    redactors: Iterable[Redactor] = (),
    vault: SubjectVault | str | os.PathLike[str] | None = None,
    newest: int = NEWEST_OF_USER,
    operations: Mapping[str, str] | OperationClasses | None = None,
    seals: Iterable[SealVerdict] = (),
) -> PersonReport:
    """Return everything that *source* has by and about one person. O(number of events).

    Args:
        source: An `AuditHandler`, an `AuditLogger`, or the reader of a trail or an archive.
        person: The identity of the person, as in ``user_id``, or their token.
        month, start_time, end_time, since, until, tz: As for `structlog_audit.reports.compliance_report`.
        members: Members of the metadata that may hold the identity: ``["customer_id", "target.id"]``.
        redactors: A `Redactor` with the secret of each key version under which the trail has pseudonyms.
        vault: The vault with the tokens of persons, or its path.
        newest: The number of events in each list.
        operations: Classes of operations beyond the registered ones, by name: ``{"settle": "update"}``.
        seals: The verdicts on the seals of the trails.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
        AuditVaultError: The vault cannot be used.
    """
    if not isinstance(source, EventSource):
        expected = "an AuditHandler, an AuditLogger or the reader of a trail"
        raise AuditTypeError(f"source={source!r}: expected {expected}, got {type(source).__name__}")

    period = period_of(month, start_time, end_time, source._now(), tz, since=since, until=until)
    limit = require_integer("newest", newest, least=0)
    known = _person(person, members, redactors, vault)
    aggregates = PersonAggregates(known, registered_operations().extended(operations), limit)
    library = _aggregate(source, period, aggregates)

    hints = [] if aggregates.by_person.times.total else _absence(source, period, known)
    verdict = source.completeness(period.start, period.end).with_seals(seals)
    found = _members(source, period, aggregates, library, hints, verdict)
    return PersonReport(found, period.zone, verdict)


def _aggregate(source: EventSource, period: Period, aggregates: PersonAggregates) -> ReportAggregates:
    """Add the events of *source* to *aggregates*, and return those of its gaps and intents."""
    names = list(aggregates.person.names)
    library = ReportAggregates(aggregates.classes, period.zone)
    own = conditions(user_id=names, kind=[None, Kind.INTENT], end_time=period.end)
    for event in source.select(own, newest_first=False):
        is_in_period = period.start is None or event.timestamp >= period.start
        if event.kind is None:
            aggregates.add_own(event, is_in_period=is_in_period)
            library.close_intent(event)
        elif is_in_period:
            library.open_intents[event.event_id] = event

    every = conditions(kind=[None, Kind.GAP, Kind.TRAIL], start_time=period.start, end_time=period.end)
    for event in source.select(_concerning(source, every, aggregates, library), newest_first=False):
        if event.kind == Kind.TRAIL:
            aggregates.add_library(event)
        elif event.kind is not None:
            list(library.aggregate([event]))
        elif event.user_id not in aggregates.person.names:
            aggregates.add_other(event)
            library.close_intent(event)
    return library


def _concerning(
    source: EventSource, every: Conditions, aggregates: PersonAggregates, library: ReportAggregates
) -> Conditions:
    """Return *every*, as far as *source* can leave out events before it reads them: those that do not concern the person."""
    concerns = aggregates.tests()
    if concerns is None:
        return every

    of_library = FieldTest("kind", (OneOf(frozenset((str(Kind.GAP), str(Kind.TRAIL)))),))
    of_intents = [HAS_INTENT] if library.open_intents else []

    return source._narrowed(every, of_library, *concerns, *of_intents)


def _person(
    person: Any,
    members: Iterable[str],
    redactors: Iterable[Redactor],
    vault: SubjectVault | str | os.PathLike[str] | None,
) -> Person:
    """Return the names and places to search."""
    identity = identifier_text(person)
    if not identity:
        raise AuditTypeError(f"person={person!r}: expected an identity, such as a user_id, got {type(person).__name__}")

    names = {identity: TOKEN_OF_VAULT if TOKEN.fullmatch(identity) else IDENTITY}
    for redactor in redactors:
        pseudonym = redactor.pseudonym(identity)
        names[pseudonym] = f"{PSEUDONYM_OF_KEY} {pseudonym.split(':')[1]}"

    has_key = None
    if vault is not None:
        keys = vault if isinstance(vault, SubjectVault) else SubjectVault(vault)
        token = keys.token(identity)
        is_token = bool(TOKEN.fullmatch(identity))
        has_key = token is not None or (is_token and keys.known_subject(identity) is not None)
        if token is not None:
            names[token] = TOKEN_OF_VAULT

    return Person(names, _paths(members), vault is not None, has_key)


def _paths(members: Any) -> Sequence[str]:
    """Return the paths of *members*, which may begin with ``metadata.``."""
    if isinstance(members, str):
        raise AuditTypeError(f"members={members!r}: expected a list of members of the metadata, got str")

    given = list(members)
    for member in given:
        if not isinstance(member, str):
            raise AuditTypeError(f"members={members!r}: expected a list of texts, got {type(member).__name__}")

    paths = [member.removeprefix(METADATA) for member in given]
    if not all(paths):
        raise AuditValueError(f"members={members!r}: expected members of the metadata, such as 'customer_id'")
    return tuple(dict.fromkeys(paths))


def _absence(source: EventSource, period: Period, person: Person) -> list[str]:
    """Return why there may be no events by *person*."""
    in_period = conditions(start_time=period.start, end_time=period.end)
    identity = next(iter(person.names))
    return source._absent_values(in_period, {"user_id": [identity]})


def _members(
    source: EventSource,
    period: Period,
    aggregates: PersonAggregates,
    library: ReportAggregates,
    hints: list[str],
    verdict: Completeness,
) -> dict[str, Any]:
    person, classes = aggregates.person, aggregates.classes
    names = [{"name": _encodable(name), "source": found} for name, found in person.names.items()]
    return {
        "person": {"identity": names[0]["name"], "names": names, "members": list(person.members)},
        "period": period.to_dict(),
        "generated_at": rfc3339(source._now()),
        "software": f"structlog-audit {__version__}",
        "source": verdict.source.to_dict(),
        "by_person": aggregates.by_person.to_dict(classes),
        "sessions": aggregates.sessions.to_dict(),
        "addresses": aggregates.addresses.to_dict(),
        "open_intents": open_intents(library),
        "about": aggregates.about.to_dict(classes),
        "created": aggregates.created.to_dict(),
        "on_created": aggregates.on_created.to_dict(classes),
        "library": aggregates.library.to_dict(classes),
        "erasure": aggregates.scope.to_dict(),
        "unsearched": dict(aggregates.unsearched.most_common()),
        "unclassified": aggregates.unclassified,
        "hints": hints,
        "completeness": completeness_members(source, verdict, library),
        "integrity": [seal.to_dict(library.zone) for seal in verdict.seals],
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
