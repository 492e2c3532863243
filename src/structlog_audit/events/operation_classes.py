"""The class of an operation, by the words of its name: one table for reports, formats and the command line.

**Guarantees**

* Words decide, never parts of words, in any case and style: ``user.delete``, ``DeleteUser``, ``USER_DELETED``. ``readme`` and
  ``undelete`` are other words than ``read`` and ``delete``.
* Of a name with separators (``. : ; / # @ |``, backslash), the last part with a verb decides: ``export.delete`` deletes. Verbs
  of the class ``other`` count only in a name without any of another class: ``user.delete.notify`` deletes.
* `_RANKS` states which verb of a part counts. If two have the best rank and different classes, the name is unclassified.
* Of an HTTP request, the method decides; of a POST, the path. Neither host nor query string count.
* A name without a known verb is unclassified: its class is None. Nothing is guessed.
* An entry of an application wins over the table: a verb if it is one word, otherwise the end of a name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from structlog_audit.events.status_words import FAILURE_WORDS, PARTIAL_WORDS, SUCCESS_WORDS
from structlog_audit.exceptions import AuditTypeError, AuditValueError


class OperationClass(StrEnum):
    """The effect of an operation, in the terms of audits."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    EXPORT = "export"
    """Data leaves the system: exports, downloads, prints."""

    LOGIN = "login"
    """Logins and logouts, also failed ones."""

    PERMISSION = "permission"
    """Changes of rights: grants, revocations, roles."""

    CONFIGURATION = "configuration"
    """Changes of settings and policies."""

    OTHER = "other"
    """Known to be none of these, such as starting a job."""


UNCLASSIFIED: Final = "unclassified"
"""The name of the group of operations without a class, in figures."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VERBS: Final[Mapping[OperationClass, frozenset[str]]] = {
    OperationClass.CREATE: _words(
        """
        create add insert store register import upload ingest provision enroll enrol duplicate signup install hire
        prescribe
        """
    ),
    OperationClass.READ: _words(
        "read recall get list view query search find fetch retrieve describe show preview browse watch peek"
    ),
    OperationClass.UPDATE: _words(
        """
        update edit modify change alter put patch write save set rename move replace merge reset compact
        restore recover undelete untrash undo cancel archive unarchive publish unpublish lock unlock
        enable disable activate deactivate reactivate suspend unsuspend attach detach associate disassociate
        assign reassign unassign tag untag subscribe unsubscribe transfer renew rotate extend reschedule postpone reserve
        pay repay prepay charge refund reimburse deposit withdraw redeem waive void fulfil fulfill restock
        amend rectify annotate adjust append increment decrement upsert convert migrate upgrade downgrade finalize finalise
        hide unhide mute unmute ban unban redact anonymize anonymise pseudonymize pseudonymise
        """
    ),
    OperationClass.DELETE: _words(
        """
        delete remove destroy erase purge forget drop trash wipe terminate truncate unregister deregister expunge shred
        prune uninstall deletecollection
        """
    ),
    OperationClass.EXPORT: _words("export download print dump"),
    OperationClass.LOGIN: _words("login logon signin logout logoff signout authenticate reauthenticate"),
    OperationClass.PERMISSION: _words(
        "grant revoke authorize authorise promote demote elevate escalate impersonate assume delegate share unshare"
    ),
    OperationClass.CONFIGURATION: _words("configure reconfigure"),
    OperationClass.OTHER: _words(
        """
        run execute invoke start stop restart reboot pause resume send notify remind invite submit resubmit accept decline
        approve reject confirm acknowledge verify validate ping trigger
        """
    ),
}
"""Verbs in their base form, by what the operation does to the data that it names.

It changes what remains afterwards, in content, state, place or owner (``update``), or it hands over, decides or runs something
(``other``). A word that often means something else (access, open, post, scan, sync, close, ship) is not among them.
"""

_NOUNS: Final[Mapping[str, OperationClass]] = {
    **dict.fromkeys(_words("creation addition insertion registration enrollment provisioning"), OperationClass.CREATE),
    **dict.fromkeys(_words("retrieval"), OperationClass.READ),
    **dict.fromkeys(_words("modification restoration activation deactivation suspension"), OperationClass.UPDATE),
    **dict.fromkeys(_words("deletion removal erasure destruction termination"), OperationClass.DELETE),
    **dict.fromkeys(_words("exportation"), OperationClass.EXPORT),
    **dict.fromkeys(_words("login logon signin logout logoff signout authentication"), OperationClass.LOGIN),
    **dict.fromkeys(_words("impersonation revocation"), OperationClass.PERMISSION),
}
"""Nouns that name an operation. They are also things, as in ``deletion_protection``, so verbs win over them."""

_NOUN_LIKE: Final = _words(
    """
    import upload list view query search set change patch export download print dump share grant watch archive tag store
    transfer reset lock drop show truncate
    """
)
"""Verbs that are things as well: a change set, an export job."""

_MOSTLY_NOUNS: Final = _words(
    "pay charge refund deposit reserve ban upgrade downgrade hire install void increment decrement"
)
"""Verbs that are things more often, which other verbs of a part act on: ``charge_list``, ``refund_export``."""

_ATTRIBUTIVE: Final = _words(
    """
    install hire prescribe
    reassign subscribe unsubscribe extend reschedule postpone reserve
    pay repay prepay charge refund reimburse deposit withdraw redeem waive void fulfil fulfill restock
    amend rectify annotate adjust append increment decrement upsert convert migrate upgrade downgrade finalize finalise
    hide unhide mute unmute ban unban redact anonymize anonymise pseudonymize pseudonymise
    """
)
"""Verbs whose past form says which things another verb of a part acts on: ``delete_paid``, ``export_redacted``."""

_ONLY_PAST: Final[Mapping[str, OperationClass]] = {"accessed": OperationClass.READ}
"""Past forms of verbs with a base form that is a thing far more often: ``access``."""

_IRREGULAR: Final[Mapping[str, str]] = {
    "read": "read",
    "get": "got gotten",
    "find": "found",
    "show": "shown",
    "put": "put",
    "write": "written wrote",
    "set": "set",
    "reset": "reset",
    "forget": "forgot forgotten",
    "send": "sent",
    "run": "ran",
    "undo": "undone",
    "login": "loggedin",
    "logon": "loggedon",
    "logout": "loggedout",
    "logoff": "loggedoff",
    "signin": "signedin",
    "signout": "signedout",
    "signup": "signedup",
    "cancel": "cancelled canceled",
    "pay": "paid",
    "repay": "repaid",
    "prepay": "prepaid",
    "withdraw": "withdrawn withdrew",
    "hide": "hidden hid",
    "unhide": "unhidden unhid",
}
"""The past forms that do not follow the rule."""

_PARTICLES: Final = _words("in on out off up")
"""The second word of a verb: ``log in`` is ``login``."""

_NEGATIONS: Final = _words("no not never without prevent skip block")
"""Words that turn a verb around: the effect of ``prevent_delete`` is not known."""

_ENDINGS: Final = _words(
    """
    started begun completed complete finished done ended requested request scheduled queued pending attempt attempted
    initiated approved rejected accepted declined challenge event action operation verification api
    """
)
"""Words after a verb that state its phase."""

_RIGHTS: Final = _words(
    "permission permissions privilege privileges role roles acl acls iam rbac entitlement entitlements"
)
_SETTINGS: Final = _words(
    "config configs configuration configurations setting settings preference preferences policy policies"
)
"""Things whose creation or update is a change of rights, or of the configuration."""

_CHANGES: Final = (OperationClass.CREATE, OperationClass.UPDATE)

_BASE, _PAST, _BOTH, _NOUN, _THING, _ATTRIBUTE = "base", "past", "both", "noun", "thing", "attribute"

_RANKS: Final[Mapping[str, tuple[int, int, int]]] = {
    _BASE: (0, 1, 2),
    _PAST: (5, 0, 5),
    _BOTH: (3, 3, 5),
    _NOUN: (5, 3, 5),
    _THING: (7, 7, 8),
    _ATTRIBUTE: (8, 6, 8),
}
"""The rank of a word by its form, as the first word of a part, as the last, and between; 0 is the best.

``delete_export``, ``get_list``: an imperative is the first word. ``export_deleted``: a past form is the last word, and an
adjective elsewhere. ``access_key_delete``: otherwise a verb wins over the words that are things as well (`_NOUN_LIKE`).
``export_redacted``, ``refund_list``: `_ATTRIBUTIVE` past forms and `_MOSTLY_NOUNS` count only if nothing else of the part does.
"""

_SESSION_ENDS: Final = (["session", "start"], ["session", "end"])
"""Ends of names of logins and logouts that contain no verb."""

_SEPARATOR: Final = re.compile(r"[./:;#@|\\]+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_REQUEST: Final = re.compile(
    r"""
    (?<![a-z]) (get|head|options|post|put|patch|delete) \s+
    (?=https?://|/) (?:https?://[^/?\#\s]*)?
    ((?: [^?\#\s({]++ | \(\?P< | \{[^{}/?\#\s]+\?\} | [({] )*+)
    """,
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
"""A method and a path: clients are free to write anything into the query string after them.

``(?P<pk>`` and ``{id?}`` are parts of the template of a route. Only a client that chooses the end of the path can write them
before its query string, and that client chooses the words at the end of the path anyway. A bare ``?}`` would not be safe.
The repetition is possessive, because the matcher would keep 200 bytes for each bracket of a hostile path.
"""

_METHODS: Final = {
    **dict.fromkeys(("get", "head", "options"), OperationClass.READ),
    **dict.fromkeys(("put", "patch"), OperationClass.UPDATE),
    "delete": OperationClass.DELETE,
}
"""The methods with a fixed meaning (RFC 9110 §9.3, RFC 5789); what a POST does is up to the resource."""

_LONGEST: Final = 1_000
"""The limit of characters of a name, or of the path of a request, whose words are read: the last ones."""

_CACHED_NAMES: Final = 4_096


class _Verb(NamedTuple):
    """A word that names an operation: its class and its form."""

    operation_class: OperationClass
    form: str


def _forms(verb: str) -> list[str]:
    """Return the past forms of *verb*, one of them with its last letter doubled: ``dropped``."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb].split()
    if verb.endswith("e"):
        return [f"{verb}d"]
    if verb.endswith("y") and verb[-2] not in "aeou":
        return [f"{verb[:-1]}ied"]
    return [f"{verb}ed", f"{verb}{verb[-1]}ed"]


def _with_forms(verb: str, operation_class: OperationClass) -> dict[str, _Verb]:
    """Return the base form and the past forms of *verb*."""
    past_form = _ATTRIBUTE if verb in _ATTRIBUTIVE else _PAST
    forms = {form: _Verb(operation_class, past_form) for form in _forms(verb)}
    return {**forms, verb: _Verb(operation_class, _base_form(verb))}


def _base_form(verb: str) -> str:
    if verb in _MOSTLY_NOUNS:
        return _THING
    return _BOTH if verb in _NOUN_LIKE else _BASE


def _table() -> dict[str, _Verb]:
    table: dict[str, _Verb] = {}
    for operation_class, verbs in _VERBS.items():
        for verb in verbs:
            table |= _with_forms(verb, operation_class)
    for noun, operation_class in _NOUNS.items():
        table[noun] = _Verb(operation_class, _NOUN)
    for form, operation_class in _ONLY_PAST.items():
        table[form] = _Verb(operation_class, _PAST)
    return table


_TABLE: Final = _table()


class OperationClasses:
    """An immutable classification: the table, and the entries of an application.

    Args:
        entries: Classes by name. A name of one word is a verb in its base form, and stands for its past forms as well:
            ``{"settle": "update"}`` also classifies ``invoice.settled``. A name of several words is the end of names, the
            longest entry first: ``{"invoice.close": "delete"}`` also classifies ``shop.InvoiceClose``. Of a request, it is the
            end of the method and the path, without scheme and host: ``post /jobs``.

    Raises:
        AuditTypeError, AuditValueError: An entry is not a name with the name of a class; the message names it.
    """

    def __init__(self, entries: Mapping[str, str] | None = None) -> None:
        self._entries = _checked(entries or {})
        self._verbs = dict(_TABLE)
        self._ends: dict[tuple[str, ...], OperationClass] = {}

        for name, operation_class in self._entries.items():
            words = tuple(_words_of(name))
            if len(words) == 1:
                self._verbs |= _entered_forms(words[0], operation_class)
            self._ends |= dict.fromkeys(_ends(words), operation_class)

        self._longest_end = max(map(len, self._ends), default=0)
        self._cached = functools.lru_cache(_CACHED_NAMES)(self._find)

    def extended(self, entries: Mapping[str, str] | OperationClasses | None) -> OperationClasses:
        """Return this classification with further *entries*, which win over those it has."""
        if not entries:
            return self
        added = entries._entries if isinstance(entries, OperationClasses) else _checked(entries)
        return OperationClasses({**self._entries, **added})

    def class_of(self, name: str) -> OperationClass | None:
        """Return the class of the operation *name*, or None if it is unclassified."""
        return self._cached(str.__str__(name))

    def _find(self, name: str) -> OperationClass | None:
        # The method is looked for in the whole name: a client may send a path of any length.
        request = _REQUEST.search(name)
        read = name if request is None else f"{request[1]} {request[2]}"
        parts = _parts_of(read)

        found = self._entry_for([word for part in parts for word in part])
        if found is not None:
            return found

        if request is not None:
            return self._class_of_request(request[1].lower(), request[2])
        return self._class_of_parts(parts)

    def _entry_for(self, words: Sequence[str]) -> OperationClass | None:
        """Return the class of the longest entry of several words that ends *words*."""
        for size in range(min(len(words), self._longest_end), 0, -1):
            found = self._ends.get(tuple(words[-size:]))
            if found is not None:
                return found
        return None

    def _class_of_request(self, method: str, path: str) -> OperationClass | None:
        of_path = self._class_of_parts(_parts_of(path))
        if method == "post":
            return of_path

        # A GET is safe (RFC 9110 §9.2.1), so the path can only name the resource.
        is_export = method == "get" and of_path is OperationClass.EXPORT
        return OperationClass.EXPORT if is_export else _METHODS[method]

    def _verbs_in(self, words: Sequence[str]) -> list[tuple[int, _Verb]]:
        """Return the known verbs among *words*, each with its rank."""
        last = len(words) - 1
        while last > 0 and _is_ending(words[last], self._verbs):
            last -= 1

        found = []
        for place, word in enumerate(words):
            verb = self._verbs.get(word)
            if verb is None:
                continue

            first_rank, last_rank, rank = _RANKS[verb.form]
            ranks = [first_rank] if place == 0 else []
            ranks += [last_rank] if place >= last else []
            found.append((min(ranks, default=rank), verb))
        return found

    def _class_of_parts(self, parts: Sequence[Sequence[str]]) -> OperationClass | None:
        words = [word for part in parts for word in part]
        if words[-2:] in _SESSION_ENDS:
            return OperationClass.LOGIN

        verbs = [self._verbs_in(part) for part in parts]

        # That something was started or sent matters only if nothing else is known.
        for is_other in (False, True):
            for number in range(len(parts) - 1, -1, -1):
                found = [
                    item for item in verbs[number] if (item[1].operation_class is OperationClass.OTHER) == is_other
                ]
                if found:
                    near = [*parts[number], *(parts[number - 1] if number else ())]
                    return _decide(found, parts[number], near)
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OperationClasses) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"OperationClasses({ {name: str(found) for name, found in self._entries.items()} })"


def _decide(found: Sequence[tuple[int, _Verb]], words: Sequence[str], near: Sequence[str]) -> OperationClass | None:
    """Return the class that the ranked verbs *found* in *words* state.

    Args:
        found: The verbs with their ranks, at least one.
        words: The words of the part that has them.
        near: These words, and those of the part before.
    """
    if not _NEGATIONS.isdisjoint(words):
        return None

    best = min(rank for rank, _ in found)
    classes = {verb.operation_class for rank, verb in found if rank == best}
    if len(classes) > 1:
        return None

    (operation_class,) = classes
    if operation_class in _CHANGES:
        if not _RIGHTS.isdisjoint(near):
            return OperationClass.PERMISSION
        if not _SETTINGS.isdisjoint(near):
            return OperationClass.CONFIGURATION
    return operation_class


def _is_ending(word: str, verbs: Mapping[str, _Verb]) -> bool:
    """Return whether *word* only states how, or how far, the operation before it went."""
    if word in _ENDINGS:
        return True
    return word not in verbs and (word in FAILURE_WORDS or word in SUCCESS_WORDS or word in PARTIAL_WORDS)


def _parts_of(text: str) -> list[list[str]]:
    """Return the words of each part of a name or path."""
    return [_words_of(part) for part in _SEPARATOR.split(text[-_LONGEST:])]


def _words_of(part: str) -> list[str]:
    """Return the words of a part of a name in lower case, with the verbs of two words joined."""
    words: list[str] = []
    for word in _single_words(part):
        joined = f"{words[-1]}{word}" if words and word in _PARTICLES else ""
        if joined in _TABLE:
            words[-1] = joined
        else:
            words.append(word)
    return words


def _single_words(part: str) -> Iterator[str]:
    for letters in _LETTERS.findall(part):
        # Capitals separate words of English; another language's word is one word.
        found = _WORD.findall(letters) if letters.isascii() else [letters]
        yield from map(str.lower, found)


def _ends(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the entry of several *words*, also with its last word in the past."""
    if len(words) > 1:
        yield words
        for form in _forms(words[-1]):
            yield (*words[:-1], form)


def _entered_forms(verb: str, operation_class: OperationClass) -> dict[str, _Verb]:
    """Return the forms of a *verb* that an application entered; a past form or a mere noun of the table stays alone."""
    forms = _with_forms(verb, operation_class)
    known = _TABLE.get(verb)
    if known is None:
        return forms

    entered = {verb: known._replace(operation_class=operation_class)}
    is_verb = any(verb in verbs for verbs in _VERBS.values())
    return {**forms, **entered} if is_verb else entered


def _checked(entries: object) -> dict[str, OperationClass]:
    """Return *entries* with the members of `OperationClass` as values."""
    if not isinstance(entries, Mapping):
        raise AuditTypeError(f"operations={entries!r}: expected a mapping of names to classes")

    checked = {}
    for name, value in entries.items():
        if not isinstance(name, str) or not _words_of(name):
            raise AuditTypeError(f"operations: expected the name of an operation, with letters, got {name!r}")
        if value not in list(OperationClass):
            expected = ", ".join(OperationClass)
            # An unquoted name with dots is a table in TOML.
            hint = "; quote a name with dots" if isinstance(value, Mapping) else ""
            raise AuditValueError(f"operations: {name!r}: expected one of {expected}, got {value!r}{hint}")
        checked[name] = OperationClass(value)
    return checked


_registered = OperationClasses()


def register_operations(entries: Mapping[str, str]) -> None:
    """Add *entries* to the classification of this process: for reports, formats and the command line.

    Call it where the application starts, before events are formatted.

    Args:
        entries: Classes by name, as for `OperationClasses`: ``{"settle": "update", "invoice.close": "delete"}``.

    Raises:
        AuditTypeError, AuditValueError: An entry is invalid; the message names it.
    """
    global _registered
    _registered = _registered.extended(entries)


def registered_operations() -> OperationClasses:
    """Return the classification of this process: the table, and the registered entries."""
    return _registered
