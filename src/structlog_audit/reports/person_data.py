"""What a trail has about one person, computed in two passes over its events.

**Guarantees.** An event of another user is about the person for a stated reason: a place in which one of their names stands, a
session that is theirs, or a value encrypted with their key.

**Performance.** Memory grows with the number of distinct operations and users, not with the number of events. Lists keep the
newest events; at most `MOST_FOLLOWED` sessions and entries of the person are followed, and the others are counted.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structlog_audit.events.codec import MARKS, StoredEvent, to_json
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.events.operation_classes import OperationClass, OperationClasses
from structlog_audit.formats.field_mapping import address
from structlog_audit.query.absent_values import PSEUDONYM
from structlog_audit.query.field_tests import (
    METADATA,
    EqualTo,
    FieldTest,
    Includes,
    OneOf,
    StartsWith,
    text_of,
    values_at,
)
from structlog_audit.redaction.erasable import TOKEN, parts_of
from structlog_audit.redaction.subjects import MASK
from structlog_audit.reports.aggregation import class_name, event_row, truncated
from structlog_audit.reports.period import rfc3339_or_none

MOST_FOLLOWED = 100_000
"""Maximum sessions, addresses and entries of the person that are followed, of each."""

MOST_ROWS = 50
"""Maximum rows of a list of sessions, addresses, users or members of the metadata."""

_MOST_KEYS = 1_000
"""Maximum names of members, and key versions, that are counted."""

IDENTITY, TOKEN_OF_VAULT, PSEUDONYM_OF_KEY = "identity", "token of the vault", "pseudonym of key"
"""The sources of names of the person. A key version follows the last one."""

THEIR_SESSION, THEIR_KEY = "their session", "value encrypted with their key"
"""Reasons for which an event is about the person, beside the places of a name."""


@dataclass(frozen=True, slots=True)
class Person:
    """The person, as the trail may name them.

    Attributes:
        names: The identity, the token and the pseudonyms, each with its source.
        members: The paths of the metadata that may hold a name.
        has_vault: Whether tokens of the vault were looked up.
        has_key: Whether the vault has a key of the person; None without a vault.
    """

    names: Mapping[str, str]
    members: Sequence[str]
    has_vault: bool
    has_key: bool | None

    def places(self, event: StoredEvent) -> Iterator[tuple[str, str]]:
        """Yield each place of *event* in which a name stands, with the name."""
        for place, value in self._identities(event):
            if value in self.names:
                yield place, value

    def unknown(self, event: StoredEvent) -> Iterator[str]:
        """Yield the source of each pseudonym or token in *event* that may be the person's, because its key is not given."""
        for _, value in self._identities(event):
            if PSEUDONYM.fullmatch(value) is None or value in self.names:
                continue

            version = value.split(":")[1] if value.startswith("hmac:") else None
            source = TOKEN_OF_VAULT if version is None else f"{PSEUDONYM_OF_KEY} {version}"
            is_searched = self.has_vault if version is None else source in self.names.values()
            if not is_searched:
                yield source

    def has_encrypted(self, event: StoredEvent) -> int:
        """Return the number of values in *event* that are encrypted with a key of the person."""
        owners = _owners([event.error_message, event.metadata], event.user_id)
        return sum(owner in self.names for owner in owners)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names that are tokens, so that values may be encrypted with their keys."""
        return tuple(filter(TOKEN.fullmatch, self.names))

    @property
    def unknown_beginnings(self) -> StartsWith:
        """The beginnings of pseudonyms and tokens that are `unknown`."""
        versions = [source.removeprefix(f"{PSEUDONYM_OF_KEY} ") for source in self.names.values()]
        searched = tuple(f"hmac:{version}:" for version in versions)

        return StartsWith(("hmac:",) if self.has_vault else ("hmac:", "s_"), searched)

    def _identities(self, event: StoredEvent) -> Iterator[tuple[str, str]]:
        for place in ("user_id", "session_id"):
            value = getattr(event, place)
            if value is not None:
                yield place, value

        for entry_id in event.entry_ids:
            yield "entry_ids", entry_id

        for member in self.members:
            for value in values_at(event.metadata, member):
                yield f"metadata.{member}", text_of(value)


def _owners(value: Any, user_id: str | None) -> Iterator[str | None]:
    """Yield the token of the owner of each erasable value in *value*, in an event of *user_id*."""
    parts = parts_of(value)
    if parts is not None:
        yield parts[1] or user_id
    elif isinstance(value, dict):
        for item in value.values():
            yield from _owners(item, user_id)
    elif isinstance(value, list):
        for item in value:
            yield from _owners(item, user_id)


class Times:
    """How often something occurred, how often with failure, and when first and last."""

    __slots__ = ("failures", "first", "last", "total")

    def __init__(self) -> None:
        self.total = 0
        self.failures = 0
        self.first: dt.datetime | None = None
        self.last: dt.datetime | None = None

    def add(self, event: StoredEvent) -> None:
        """Count *event*."""
        time = event.timestamp
        self.total += 1
        self.failures += event.status is EventStatus.FAILURE
        self.first = time if self.first is None else min(self.first, time)
        self.last = time if self.last is None else max(self.last, time)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and times."""
        return {
            "total": self.total,
            "failures": self.failures,
            "first": rfc3339_or_none(self.first),
            "last": rfc3339_or_none(self.last),
        }


class Followed:
    """Values of the person's events, such as sessions: at most `MOST_FOLLOWED`."""

    def __init__(self) -> None:
        self.times: dict[str, Times] = {}
        self.omitted = 0

    def add(self, value: str, event: StoredEvent, *, is_counted: bool) -> None:
        """Follow *value*; count *event* as well if it is in the period."""
        times = self.times.get(value)
        if times is None:
            if len(self.times) >= MOST_FOLLOWED:
                self.omitted += 1
                return
            times = self.times[value] = Times()
        if is_counted:
            times.add(event)

    def __contains__(self, value: object) -> bool:
        return value in self.times

    def to_dict(self) -> dict[str, Any]:
        """Return the number of values in the period, and those with the most events."""
        counted = [(value, times) for value, times in self.times.items() if times.total]
        counted.sort(key=lambda item: (-item[1].total, item[0]))
        most = [{"value": truncated(value), **times.to_dict()} for value, times in counted[:MOST_ROWS]]
        return {"total": len(counted), "not_followed": self.omitted, "most": most}


class EventGroup:
    """Events by or about the person: counts, and the newest of them."""

    def __init__(self, limit: int) -> None:
        self.times = Times()
        self.operations: defaultdict[str, Times] = defaultdict(Times)
        self.users: Counter[str | None] = Counter()
        self.reasons: Counter[str] = Counter()
        self._newest: deque[tuple[StoredEvent, tuple[str, ...]]] = deque(maxlen=limit)

    def add(self, event: StoredEvent, reasons: Iterable[str] = ()) -> None:
        """Count *event*, which belongs here for these *reasons*."""
        named = tuple(dict.fromkeys(reasons))
        self.times.add(event)
        self.operations[operation_of(event.operation).value].add(event)
        self.users[event.user_id] += 1
        self.reasons.update(named)
        self._newest.append((event, named))

    def to_dict(self, classes: OperationClasses) -> dict[str, Any]:
        """Return the counts, and the newest events first."""
        operations = []
        for name, times in sorted(self.operations.items(), key=lambda item: (-item[1].total, item[0])):
            operations.append({"operation": name, "class": class_name(name, classes), **times.to_dict()})

        newest = []
        for event, reasons in reversed(self._newest):
            metadata = truncated(to_json(event.metadata)) if event.metadata else None
            newest.append({**event_row(event), "metadata": metadata, "reasons": list(reasons)})

        users = [{"user_id": user, "total": total} for user, total in self.users.most_common(MOST_ROWS)]
        return {
            **self.times.to_dict(),
            "by_operation": operations,
            "users": len(self.users),
            "by_user": users,
            "by_reason": dict(self.reasons.most_common()),
            "newest": newest,
        }


class ErasureScope:
    """What an erasure of the person's key makes unreadable in their events, and what it does not."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self.events = 0
        self.encrypted_values = 0
        self.encrypted_events = 0
        self.readable_messages = 0
        self.places: Counter[tuple[str, str]] = Counter()
        self.readable_members: Counter[str] = Counter()

    def add(self, event: StoredEvent) -> None:
        """Count *event*, which is by or about the person."""
        self.events += 1
        person = self._person
        encrypted = person.has_encrypted(event)
        self.encrypted_values += encrypted
        self.encrypted_events += encrypted > 0

        # A name that stands twice in a place counts once.
        places = {(place, person.names[name]) for place, name in person.places(event)}
        self.places.update(places)

        message = event.error_message
        self.readable_messages += message not in (None, MASK) and parts_of(message) is None
        for key, value in event.metadata.items():
            is_hidden = key == MARKS or value == MASK or parts_of(value) is not None
            if not is_hidden:
                count_bounded(self.readable_members, key)

    def to_dict(self) -> dict[str, Any]:
        """Return the scope as JSON values."""
        places = [{"place": place, "name": name, "events": count} for (place, name), count in self.places.most_common()]
        members = [{"member": truncated(key), "events": n} for key, n in self.readable_members.most_common(MOST_ROWS)]
        return {
            "events": self.events,
            "has_key": self._person.has_key,
            "encrypted_values": self.encrypted_values,
            "encrypted_events": self.encrypted_events,
            "names": places,
            "readable_members": members,
            "readable_messages": self.readable_messages,
        }


def count_bounded(counts: Counter[str], key: str) -> None:
    """Count *key*, or the name ``…`` if there are too many keys already."""
    counts[key if key in counts or len(counts) < _MOST_KEYS else "…"] += 1


class PersonAggregates:
    """The events by the person, about them, and with the entries that they created.

    `add_own` takes the person's events first, then `add_other` those of others.
    """

    def __init__(self, person: Person, classes: OperationClasses, limit: int) -> None:
        self.person = person
        self.classes = classes
        self.by_person = EventGroup(limit)
        self.about = EventGroup(limit)
        self.on_created = EventGroup(limit)
        self.library = EventGroup(limit)
        self.sessions, self.addresses, self.created = Followed(), Followed(), Followed()
        self.scope = ErasureScope(person)
        self.unsearched: Counter[str] = Counter()
        self.unclassified = 0
        self._has_token = bool(person.tokens)

    def add_own(self, event: StoredEvent, *, is_in_period: bool) -> None:
        """Add an event by the person. One before the period only tells which sessions and entries are theirs."""
        if event.session_id:
            self.sessions.add(event.session_id, event, is_counted=is_in_period)

        operation = operation_of(event.operation).value
        operation_class = self.classes.class_of(operation)
        if operation_class is OperationClass.CREATE and event.status is not EventStatus.FAILURE:
            for entry_id in event.entry_ids:
                self.created.add(entry_id, event, is_counted=is_in_period)
        if not is_in_period:
            return

        self.unclassified += operation_class is None and bool(event.entry_ids)

        found = address(event)
        if found is not None:
            self.addresses.add(found, event, is_counted=True)
        self.by_person.add(event)
        self.scope.add(event)

    def add_other(self, event: StoredEvent) -> None:
        """Add an application event that is not by the person, if it concerns them."""
        for source in set(self.person.unknown(event)):
            count_bounded(self.unsearched, source)

        reasons = [place for place, _ in self.person.places(event)]
        if event.session_id in self.sessions:
            reasons.append(THEIR_SESSION)
        if self._has_token and self.person.has_encrypted(event):
            reasons.append(THEIR_KEY)
        if reasons:
            self.about.add(event, reasons)
            self.scope.add(event)

        if any(entry_id in self.created for entry_id in event.entry_ids):
            self.on_created.add(event)

    def tests(self) -> tuple[FieldTest, ...] | None:
        """Return tests of which one passes for each event that `add_other` counts, after all events by the person.

        None means that each event must be read.
        """
        names = self.person.names
        # As JSON, they are also texts of values that are neither text, numbers nor booleans.
        if self.person.members and any(name == "null" or name.startswith(("{", "[")) for name in names):
            return None

        unknown = self.person.unknown_beginnings
        sessions = OneOf(frozenset((*names, *self.sessions.times)))
        entries = OneOf(frozenset((*names, *self.created.times)))
        identities = tuple(EqualTo(name) for name in names)
        encrypted = tuple(Includes(token) for token in self.person.tokens)

        return (
            FieldTest("user_id", (unknown,)),
            FieldTest("session_id", (unknown, sessions)),
            FieldTest("entry_ids", (unknown, entries)),
            *(FieldTest(f"{METADATA}{member}", (unknown, *identities)) for member in self.person.members),
            *(FieldTest(name, encrypted) for name in ("metadata", "error_message") if encrypted),
        )

    def add_library(self, event: StoredEvent) -> None:
        """Add a trail event about the person: their erasure, or a recorded reading that asked for them."""
        names = self.person.names
        values = [event.metadata.get("subject")]
        asked = event.metadata.get("conditions")
        if isinstance(asked, list):
            values += [text.partition("=")[2] for text in asked if isinstance(text, str)]

        if any(isinstance(value, str) and value in names for value in values):
            self.library.add(event)
