"""`Redactor`: removes secrets from events before these reach memory and disk.

**Guarantees**

* A redactor acts after conversion and before the commit, so neither the buffer nor pending events, targets and exports ever
  contain a clear value. A change is marked under ``metadata._audit``, and a mark never names the removed value.
* A key or a path selects the whole value below it. A key matches in any case, with ``-`` for ``_``, and where conversion
  renamed it (``password_``, ``password_1``), never as a part of a name. A path to a member also matches a value in the
  metadata that could not be that member.
* A pattern selects its matches in texts and in names of keys, or only its group ``secret``. Paths win over keys, keys over
  patterns. None stays.
* A pseudonym is the same for equal texts everywhere, and redacting twice equals redacting once.
* The modes ``subject`` and ``erasable`` use a `structlog_audit.redaction.vault.SubjectVault`. If it fails, the value is masked,
  marked and counted, and the event is recorded.
* The defaults redact credentials only (`structlog_audit.redaction.rules`).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from structlog_audit._references import resolve_references
from structlog_audit.events.codec import MARKS
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.log_record import STRUCTLOG_INTERNAL_KEYS
from structlog_audit.events.payload import Payload
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions
from structlog_audit.redaction.key_scrubber import KeyScrubber
from structlog_audit.redaction.parameters import RedactionParameters, RuleSelection
from structlog_audit.redaction.prefilter import Prefilter
from structlog_audit.redaction.rules import TEXT_MEMBERS, Mode
from structlog_audit.redaction.scrubber import Scrubber, pseudonym_of
from structlog_audit.redaction.subjects import MASK, value_at
from structlog_audit.redaction.vault import SubjectVault

_UNTOUCHED_KEYS = frozenset((*STRUCTLOG_INTERNAL_KEYS, "exc_info"))
"""Keys of an event dict that structlog itself needs."""


class Redactor:
    """Masks, drops, pseudonymizes or encrypts parts of events.

    Immutable, and safe for use by any number of threads.

    With ``AuditHandler(redactor=…)`` it acts on the trail. As a processor of a structlog chain it acts on all later
    processors and leaves no marks. Place it after ``format_exc_info``: it cannot change an exception that is not text yet.

    Args:
        keys: Names of keys at any depth, including members of the event: ``["email"]``, or
            ``{"email": "pseudonym", "iban": "drop"}``.
        paths: Dotted paths: ``user_id``, ``metadata.user.email``. A list on a path stands for its items.
        patterns: Regular expressions for texts and for names of keys.
        mode: ``"mask"`` writes ``[redacted]``, ``"drop"`` omits the value, ``"pseudonym"`` writes a keyed digest,
            ``"subject"`` writes the token of the person whom the value identifies, and ``"erasable"`` encrypts the value with
            the key of a person: by default of ``user_id``; ``"erasable:metadata.target|user_id"`` names the first of these
            paths that the event has, and ``"erasable:.id"`` a member of the same object. This is the mode of all rules
            without a mode. Default rules always mask or drop: equal passwords would have equal pseudonyms.
        secret: The key of pseudonyms, at least 16 bytes, the same in every process that writes or queries.
        key_version: The name of that key, which is a part of each pseudonym.
        vault: The path of the file with the keys of persons, or a `SubjectVault`. A missing file is created.
        defaults: Whether to redact credentials, in addition to the rules.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
        AuditVaultError: The vault cannot be used.
    """

    __slots__ = ("_parameters", "_query_rules", "_rules", "redact_keys", "vault")

    def __init__(
        self,
        *,
        keys: RuleSelection = (),
        paths: RuleSelection = (),
        patterns: Collection[str | re.Pattern[str]] | Mapping[str | re.Pattern[str], Mode] = (),
        mode: Mode = "mask",
        secret: str | bytes | None = None,
        key_version: str | int = "1",
        vault: str | os.PathLike[str] | SubjectVault | None = None,
        defaults: bool = True,
    ) -> None:
        self._parameters = parameters = RedactionParameters.parse(
            keys=keys,
            paths=paths,
            patterns=patterns,
            mode=mode,
            secret=secret,
            key_version=key_version,
            vault=vault,
            defaults=defaults,
        )
        self.vault = _open_vault(vault)
        self._rules = parameters.rules(self.vault)
        self._query_rules = self._rules.with_modes("pseudonym", "subject")

        # A bound method as an attribute: the codec calls it for each event.
        self.redact_keys = Prefilter(
            dict(parameters.keys),
            dict(parameters.paths),
            always=bool(parameters.patterns),
            defaults=defaults,
            key_scrubber=KeyScrubber.of(self._rules),
        ).redact_keys

    def redact(self, payload: Payload) -> Payload:
        """Return the redacted *payload*; *payload* itself if it has nothing to redact."""
        scrubber = Scrubber(self._rules, functools.partial(_find_in_payload, payload))

        members = {}
        for name in TEXT_MEMBERS:
            members[name] = scrubber.scrub_member(name, getattr(payload, name))
        entry_ids = scrubber.scrub_member("entry_ids", payload.entry_ids or None)

        # Every event has an operation, even if patterns remove all of its text.
        members["operation"] = members["operation"] or MASK

        metadata = dict(payload.metadata)
        existing_marks = metadata.pop(MARKS, {})
        metadata = scrubber.scrub_mapping(metadata, "metadata", "", "")

        if not scrubber.marks and not existing_marks:
            return payload

        metadata[MARKS] = scrubber.merge_marks(existing_marks)
        return msgspec.structs.replace(payload, **members, entry_ids=entry_ids or [], metadata=metadata)

    def redact_conditions(self, conditions: Conditions) -> Conditions:
        """Return *conditions* that also match the pseudonyms and tokens of their clear values.

        Raises:
            AuditVaultError: The vault cannot be read.
        """
        if not self._query_rules:
            return conditions

        scrubber = Scrubber(self._query_rules, creates=False)

        # A clear value still matches itself: events from before the redactor contain it.
        def with_pseudonyms(name: str, values: frozenset[Any]) -> frozenset[Any]:
            return values | {scrubber.scrub_member(name, value) for value in values}

        names = []
        for name, values in conditions.names:
            names.append((name, with_pseudonyms(name, values) if name in TEXT_MEMBERS else values))

        entry_ids = conditions.entry_ids
        if entry_ids is not None:
            entry_ids = with_pseudonyms("entry_ids", entry_ids)

        metadata = conditions.metadata
        if metadata is not None:
            metadata = scrubber.scrub_mapping(metadata, "metadata", "", "")

        return msgspec.structs.replace(conditions, names=tuple(names), entry_ids=entry_ids, metadata=metadata)

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact *event_dict* as a structlog processor.

        Redacted values become plain, all others stay as they are.
        """
        scrubber = Scrubber(self._rules, functools.partial(_find_in_fields, dict(event_dict)))
        for name, value in list(event_dict.items()):
            if name in _UNTOUCHED_KEYS:
                continue

            before = {name: JsonSanitizer().sanitize(value, "")}
            after = scrubber.scrub_fields(before)
            if after == before:
                continue

            del event_dict[name]
            event_dict.update(after)

        return event_dict

    def pseudonym(self, value: Any) -> Any:
        """Return the pseudonym of *value*; of a list, those of its items.

        With it, other programs can search for the value.

        Raises:
            AuditValueError: There is no ``secret``.
        """
        if self._parameters.key is None:
            raise AuditValueError("secret=None: expected a secret: pseudonyms need one")

        plain = JsonSanitizer().sanitize(value, "")
        return pseudonym_of(plain, self._rules.pseudonym)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redactor) and self._parameters == other._parameters

    def __hash__(self) -> int:
        return hash(self._parameters)

    def __repr__(self) -> str:
        return f"Redactor({self._parameters!r})"


def _open_vault(vault: str | os.PathLike[str] | SubjectVault | None) -> SubjectVault | None:
    """Return the vault for the parameter ``vault``."""
    if vault is None or isinstance(vault, SubjectVault):
        return vault
    return SubjectVault(vault, create=True)


def _find_in_payload(payload: Payload, path: str) -> Any:
    """Return the value at *path* of *payload*, or None."""
    member, _, rest = path.partition(".")
    return value_at(payload.metadata, rest) if rest else getattr(payload, member)


def _find_in_fields(fields: Mapping[str, Any], path: str) -> Any:
    """Return the value at *path* of an event dict, or None. Its fields are future metadata."""
    found = value_at(fields, path)
    return value_at(fields, path.removeprefix("metadata.")) if found is None else found


def make_redactor(redactor: Any) -> Redactor | None:
    """Return the redactor for the parameter ``redactor``.

    Valid values are a `Redactor`, a mapping of its arguments, and None.

    Raises:
        AuditTypeError: Any other type, or an unknown argument.
        AuditValueError: An argument has an invalid value.
    """
    if redactor is None or isinstance(redactor, Redactor):
        return redactor

    if not isinstance(redactor, Mapping):
        raise AuditTypeError(f"redactor={redactor!r}: expected a Redactor, a mapping of its arguments, or None")

    arguments = resolve_references("redactor", redactor)
    known = Redactor.__init__.__kwdefaults__ or {}
    for name in arguments:
        if name not in known:
            raise AuditTypeError(f"redactor: unknown argument {name!r}: expected one of {', '.join(known)}")

    return Redactor(**arguments)


DEFAULT_REDACTOR: Final = Redactor()
"""Redacts credentials, and nothing else."""
