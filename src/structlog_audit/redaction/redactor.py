"""`Redactor`: what must not be written is taken out of an event before memory and disk.

Rules:

* It works on the event as it would be written, after conversion and before commit: every value is plain, and neither the
  buffer, nor what is pending, nor a target, nor an export ever holds a clear value.
* A key or a path takes the whole value below it. A key counts in any case, with ``-`` for ``_``, and also where conversion
  renamed it because its name was taken (``password_``, ``password_1``); never as a part of another name.
* A path to a member of the event counts for what could not be that member, too, and lies in the metadata under its name.
* A pattern takes what it matches in texts and in names of keys; if it has a group called ``secret``, only that.
* The path counts before the key, and the key before patterns. A value that is None says nothing and stays.
* What was redacted is marked under ``metadata._audit``, and no mark names what was taken out.
* The defaults touch only what is surely secret (`structlog_audit.redaction.rules`), and never the user, the session or the entries.
* No pattern touches an event's id as ``metadata.intent_id``: the intent would stay open.
* A pseudonym is the same for the same text wherever it stands, so events can be joined. What has the form of one is left
  as it is: redacting twice is redacting once.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from structlog_audit._validation import require_choice
from structlog_audit.events.codec import MARKS
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.log_record import STRUCTLOG_INTERNAL_KEYS, Recorded
from structlog_audit.events.payload import Payload
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions
from structlog_audit.redaction.prefilter import Prefilter
from structlog_audit.redaction.rules import KEYS, MEMBERS, TEXTS, Mode, Rules, normal
from structlog_audit.redaction.scrubber import MASK, Scrubber, pseudonym_of

Chosen = Collection[str] | Mapping[str, Mode]
"""What to redact; or that, each with a mode of its own."""

_LEFT_ALONE = frozenset((*STRUCTLOG_INTERNAL_KEYS, "exc_info"))
"""Keys of an event dict that are structlog's machinery."""

_LEAST_SECRET = 16
"""Bytes. Shorter ones can be found by trying, and then so can every name behind a pseudonym."""


class Redactor:
    """Masks, drops or pseudonymises parts of events. A value: it never changes, and any number of threads can use it.

    As ``AuditHandler(redactor=…)`` it acts on the trail. As a processor in a structlog chain it acts on what comes behind it
    there, and leaves no marks; put it behind ``format_exc_info``, since it can't change an exception that is no text yet.

    Args:
        keys: Names of keys, at any depth, with those of members of the event among them: ``["email"]``, or
            ``{"email": "pseudonym", "iban": "drop"}``.
        paths: Dotted paths: ``user_id``, ``metadata.user.email``. Lists on the way count as their items.
        patterns: Regular expressions, for texts and for names of keys.
        mode: ``"mask"`` writes ``[redacted]``, ``"drop"`` leaves the value out, ``"pseudonym"`` writes a keyed digest. This is
            the mode of the rules that say none of their own. The defaults take it, but never pseudonymise: equal
            passwords would show as equal.
        secret: The key of the pseudonyms, at least 16 bytes; the same in every process that writes or asks.
        key_version: The name of that key; it stands in every pseudonym.
        defaults: Whether to redact what is surely secret, beside what the rules say.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """

    __slots__ = ("_asking", "_has_key", "_rules", "_told", "may_contain_secrets")

    def __init__(
        self,
        *,
        keys: Chosen = (),
        paths: Chosen = (),
        patterns: Collection[str | re.Pattern[str]] | Mapping[str | re.Pattern[str], Mode] = (),
        mode: Mode = "mask",
        secret: str | bytes | None = None,
        key_version: str | int = "1",
        defaults: bool = True,
    ) -> None:
        require_choice("mode", mode, ("mask", "drop", "pseudonym"))
        if not isinstance(defaults, bool):
            raise AuditTypeError(f"defaults={defaults!r}: give True or False")
        by_key = {normal(_name("keys", key)): how for key, how in _modes("keys", keys, mode)}
        by_path = {normal(_path(path)): how for path, how in _modes("paths", paths, mode)}
        texts = tuple((_pattern(pattern), how) for pattern, how in _modes("patterns", patterns, mode))
        for parameter, chosen in (("keys", by_key), ("paths", by_path)):
            if chosen.get("operation") == "drop":
                raise AuditValueError(f"{parameter}: every event has an operation, which can't be dropped: mask it")
        key = _key(
            secret, any(how == "pseudonym" for how in (*by_key.values(), *by_path.values(), *dict(texts).values()))
        )
        version = _version(key_version)
        form = re.compile(f"hmac:{re.escape(version)}:[A-Za-z0-9_-]{{22}}")
        make = _pseudonyms(key, version, form)
        surely: Mode | None = None if not defaults else "drop" if mode == "drop" else "mask"
        every = by_key if surely is None else {**dict.fromkeys(KEYS, surely), **by_key}
        self._rules = Rules.made(every, by_path, texts, surely, make)
        self._has_key = key is not None
        self._asking = self._rules.only("pseudonym")
        self.may_contain_secrets = Prefilter(by_key, by_path, always=bool(texts), defaults=defaults).may_contain_secrets
        self._told = (tuple(by_key.items()), tuple(by_path.items()), texts, mode, key, version, defaults)

    def redact(self, body: Payload) -> Payload:
        """The redacted *body*; *body* itself if there is nothing to redact."""
        look = Scrubber(self._rules)
        members = {name: look.member(name, getattr(body, name)) for name in TEXTS}
        members["operation"] = members["operation"] or MASK
        ids = look.member("entry_ids", body.entry_ids or None) or []
        existing = body.metadata.get(MARKS, {})
        metadata = {name: value for name, value in body.metadata.items() if name != MARKS}
        metadata = look.members(metadata, "metadata", "", "")
        if not look.marks and not existing:
            return body
        metadata[MARKS] = look.all_marks(existing)
        return msgspec.structs.replace(body, **members, entry_ids=ids, metadata=metadata)

    def redact_conditions(self, asked: Conditions) -> Conditions:
        """*asked*, so that a clear value finds its pseudonym. It still finds itself, where it was written before."""
        if not self._asking:
            return asked
        look = Scrubber(self._asking)

        def both(name: str, wanted: frozenset[Any]) -> frozenset[Any]:
            return wanted | {look.member(name, value) for value in wanted}

        return msgspec.structs.replace(
            asked,
            names=tuple((name, both(name, wanted) if name in TEXTS else wanted) for name, wanted in asked.names),
            entry_ids=None if asked.entry_ids is None else both("entry_ids", asked.entry_ids),
            metadata=None if asked.metadata is None else look.members(asked.metadata, "metadata", "", ""),
        )

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact *event_dict*, as a structlog processor; *event_dict*. What is redacted has become plain."""
        look = Scrubber(self._rules)
        for name, value in list(event_dict.items()):
            if name in _LEFT_ALONE:
                continue
            before = {name: JsonSanitizer().sanitize(value, "")}
            after = look.fields(before)
            if after != before:
                del event_dict[name]
                event_dict.update(after)
                if type(value) is Recorded:  # it was recorded on its way here, and still was
                    event_dict[name] = recorded = Recorded(after.get(name, ""))
                    recorded.handler = value.handler
        return event_dict

    def pseudonym(self, value: Any) -> Any:
        """The pseudonym of *value*, to look for it by other means; of a list, those of its items.

        Raises:
            AuditValueError: There is no ``secret``.
        """
        if not self._has_key:
            raise AuditValueError("secret=None: pseudonyms need a key; give a secret")
        return pseudonym_of(JsonSanitizer().sanitize(value, ""), self._rules.pseudonym)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redactor) and self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told)

    def __repr__(self) -> str:
        keys, paths, texts, mode, _, version, defaults = self._told
        patterns = {pattern.pattern: how for pattern, how in texts}
        return (
            f"Redactor(keys={dict(keys)}, paths={dict(paths)}, patterns={patterns}, mode={mode!r},"
            f" key_version={version!r}, defaults={defaults})"
        )


def make_redactor(redactor: Any) -> Redactor | None:
    """The redactor that the parameter ``redactor`` means: one, a mapping of the arguments of one, or None for none.

    Raises:
        AuditTypeError: It means none of these, or the mapping has an argument that nobody knows.
        AuditValueError: An argument can't be meant.
    """
    if redactor is None or isinstance(redactor, Redactor):
        return redactor
    if not isinstance(redactor, Mapping):
        raise AuditTypeError(f"redactor={redactor!r}: give a Redactor, a mapping of its arguments, or None for none")
    known = Redactor.__init__.__kwdefaults__ or {}
    unknown = [name for name in redactor if name not in known]
    if unknown:
        raise AuditTypeError(f"redactor: unknown argument {unknown[0]!r}: use one of {', '.join(known)}")
    return Redactor(**redactor)


def _modes(parameter: str, chosen: Any, mode: Mode) -> Iterator[tuple[Any, Mode]]:
    """Each rule of *chosen* with its mode."""
    if isinstance(chosen, Mapping):
        for rule, how in chosen.items():
            yield rule, require_choice(f"{parameter}[{rule!r}]", how, ("mask", "drop", "pseudonym"))
    elif isinstance(chosen, (list, tuple, set, frozenset)):
        yield from ((rule, mode) for rule in chosen)
    else:
        raise AuditTypeError(f"{parameter}={chosen!r}: give a list, or a mapping of each to its mode")


def _name(parameter: str, name: Any) -> str:
    if not isinstance(name, str):
        raise AuditTypeError(f"{parameter}: {name!r} is no text; give names of keys")
    if not name:
        raise AuditValueError(f"{parameter}: '' names nothing; leave it out")
    return name


def _path(path: Any) -> str:
    first, _, rest = _name("paths", path).partition(".")
    if (normal(first) == "metadata" and rest) or (normal(first) in MEMBERS and not rest):
        return str(path)
    known = ", ".join(MEMBERS)
    raise AuditValueError(f"paths: {path!r} leads to nothing that can be redacted: use one of {known}, or metadata.…")


def _pattern(pattern: Any) -> re.Pattern[str]:
    try:
        made = re.compile(pattern)
    except re.error as error:
        raise AuditValueError(f"patterns: {pattern!r} is no regular expression: {error}") from error
    except TypeError:
        raise AuditTypeError(f"patterns: {pattern!r} is no text; give regular expressions") from None
    if not isinstance(made.pattern, str):
        raise AuditTypeError(f"patterns: {pattern!r} is for bytes; give one for texts")
    if made.search("") is not None:
        raise AuditValueError(f"patterns: {pattern!r} matches the empty text; let it match something")
    return made


def _key(secret: Any, needed: bool) -> bytes | None:
    """The key of pseudonyms. No message shows it."""
    if secret is None:
        if needed:
            raise AuditValueError("secret=None: pseudonyms need a key; give a secret of at least 16 bytes")
        return None
    if not isinstance(secret, (str, bytes)):
        raise AuditTypeError(f"secret: a {type(secret).__name__} is no key; give a text or bytes")
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < _LEAST_SECRET:
        raise AuditValueError(f"secret: {len(key)} bytes can be found by trying; give at least {_LEAST_SECRET}")
    return key


def _version(version: Any) -> str:
    if isinstance(version, bool) or not isinstance(version, (str, int)):
        raise AuditTypeError(f"key_version={version!r}: give a text or a number")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", str(version)):
        raise AuditValueError(f"key_version={version!r}: use up to 32 letters, digits, dots, underscores, hyphens")
    return str(version)


def _pseudonyms(key: bytes | None, version: str, form: re.Pattern[str]) -> Callable[[str], str]:
    """A function that makes a pseudonym of a text."""

    def make(text: str) -> str:
        if key is None or form.fullmatch(text):
            return text
        digest = hmac.digest(key, text.encode("utf-8", "backslashreplace"), "sha256")[:16]
        return f"hmac:{version}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    return make


DEFAULT_REDACTOR: Final = Redactor()
"""Redacts what is surely secret, and nothing else."""
