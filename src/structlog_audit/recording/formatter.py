"""`AuditJsonFormatter`: formats events as lines of a trail, or in the format of another system, for any `logging.Handler`.

**Guarantees.** A record from an `AuditHandler` carries its line under `LINE`; that line is written. Any other record is
converted here, with an id and a timestamp of this formatter. Fields that an application logs are always below ``metadata``,
and never take the place of another member. A static or renamed member can't take the place of one either, although
python-json-logger allows that.

**Other formats.** With ``schema``, an event is formatted for another system (`structlog_audit.formats`), without a limit on
its length. Readers of trails don't accept such lines, so `AuditFileHandler` refuses the formatter. The formats are imported
only when a schema is used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Never

import msgspec
from pythonjsonlogger.core import RESERVED_ATTRS, BaseJsonFormatter

from structlog_audit._references import resolve_references
from structlog_audit._validation import require_choice, require_level
from structlog_audit.events.codec import StoredEvent, decode_event, encode_payload, escape, to_json
from structlog_audit.events.conversion import payload_of
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.truncation import encode
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.fork_safety import register_fork_reset
from structlog_audit.recording.inherited_attributes import FixedAttribute, refuse_overrides, refuse_parameters

LINE = "_audit_line"
"""The attribute of a log record that holds the line of its event, as bytes."""

DEFAULT_MAX_EVENT_BYTES = 32_000
"""The default limit of a line. With its default settings, Fluent Bit drops a file that has a line over 32 KiB."""

_MEMBERS = frozenset(StoredEvent.__struct_fields__)

_HOOKS = ("add_fields", "process_log_record", "jsonify_log_record", "serialize_log_record")
"""The methods of python-json-logger that a subclass may override to change the lines."""

_TIME = "the timestamp of a line is that of the event, in UTC; rename_fields renames it"
_TEXT = "the error_message of an event is text on one line"
_MEMBERS_ONLY = "a line has the members of the event, without the attributes of the record"
_JSON = "values are made plain JSON before; override jsonify_log_record(), or use a JsonFormatter of python-json-logger"

_FIXED: dict[str, tuple[Any, str]] = {
    "datefmt": (None, _TIME),
    "timestamp": (False, _TIME),
    "defaults": ({}, "use static_fields"),
    "reserved_attrs": (set(RESERVED_ATTRS), _MEMBERS_ONLY),
    "rename_fields_keep_missing": (False, "a line omits absent members"),
    "exc_info_as_array": (False, _TEXT),
    "stack_info_as_array": (False, _TEXT),
}
"""The attributes of python-json-logger's class with a single value, each with the reason."""

_PARAMETERS = {
    **{name: advice for name, (_, advice) in _FIXED.items()},
    **dict.fromkeys(("json_default", "json_encoder", "json_serializer", "json_indent", "json_ensure_ascii"), _JSON),
}
"""The parameters of python-json-logger's classes that are not used here, each with its replacement."""

_OVERRIDES = {
    **dict.fromkeys(("formatTime", "converter", "default_time_format", "default_msec_format", "usesTime"), _TIME),
    **dict.fromkeys(("formatException", "formatStack"), _TEXT),
    **dict.fromkeys(("parse", "formatMessage"), f"{_MEMBERS_ONLY}; override add_fields() or process_log_record()"),
}
"""The methods and attributes that a subclass can't override, each with the reason."""


class AuditJsonFormatter(BaseJsonFormatter):
    """Formats log records as lines of a trail.

    Args:
        fmt, datefmt, style, validate: The arguments that ``dictConfig`` passes to every formatter. Lines and timestamps have
            a fixed form, so the first two must be None, and the others have no effect.
        prefix: Text before each line.
        rename_fields: New names for members of the event, by the name of the member.
        static_fields: Additional members of every line.
        failure_level: The level from which on a record without a status is a FAILURE, as a number or a name. It counts only
            for records that do not come from an `AuditHandler`, which has this parameter too.
        schema: The name of another system's format: ``ecs``, ``ocsf``, ``cadf``, ``cef`` or ``otlp``. It determines the names
            of the members, so it excludes ``rename_fields``; only ``ecs`` allows ``static_fields``.

    Subclasses may override ``add_fields``, ``process_log_record``, ``jsonify_log_record`` and ``serialize_log_record``.

    Raises:
        AuditTypeError: A format was given, or another parameter of python-json-logger.
        AuditValueError: A name is not a member, two members would have the same name, the schema is unknown, or the schema
            does not support another option.
    """

    def __init__(
        self,
        fmt: None = None,
        datefmt: None = None,
        style: str = "%",
        validate: bool = True,
        *,
        prefix: str = "",
        rename_fields: dict[str, str] | None = None,
        static_fields: dict[str, Any] | None = None,
        failure_level: int | str = logging.ERROR,
        schema: str | None = None,
        **inherited: Never,
    ) -> None:
        refuse_parameters(AuditJsonFormatter, inherited, _PARAMETERS)
        require_choice("style", style, ("%", "{", "$"))
        for name, value in (("fmt", fmt), ("datefmt", datefmt)):
            if value is not None:
                raise AuditTypeError(f"{name}={value!r}: expected None, because the lines of a trail have one format")

        rename_fields = resolve_references("rename_fields", rename_fields)
        static_fields = resolve_references("static_fields", static_fields)
        for name, members in (("rename_fields", rename_fields), ("static_fields", static_fields)):
            if members is not None and not isinstance(members, Mapping):
                raise AuditTypeError(f"{name}={members!r}: expected a mapping")

        super().__init__(prefix=prefix, rename_fields=rename_fields, static_fields=static_fields)
        self.static_fields = JsonSanitizer().sanitize_members(self.static_fields)
        self.failure_level = require_level("failure_level", failure_level)
        self.schema = schema
        if schema is None:
            self._check_members()
        else:
            self._check_schema(schema)

        self.after_fork()
        register_fork_reset(self)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_overrides(cls, _OVERRIDES)
        cls._has_hooks = any(getattr(cls, name) is not getattr(AuditJsonFormatter, name) for name in _HOOKS)

    stamp_class: type[Stamp] = Stamp
    """The source of ids, timestamps and links for records that do not come from an `AuditHandler`."""

    _has_hooks = False
    """Whether a subclass overrides a method that changes the lines."""

    datefmt = FixedAttribute(*_FIXED["datefmt"])
    timestamp = FixedAttribute(*_FIXED["timestamp"])
    defaults = FixedAttribute(*_FIXED["defaults"])
    reserved_attrs = FixedAttribute(*_FIXED["reserved_attrs"])
    rename_fields_keep_missing = FixedAttribute(*_FIXED["rename_fields_keep_missing"])
    exc_info_as_array = FixedAttribute(*_FIXED["exc_info_as_array"])
    stack_info_as_array = FixedAttribute(*_FIXED["stack_info_as_array"])

    def after_fork(self) -> None:
        """Reset the formatter in a forked child, so that its ids differ from those of the parent."""
        self._stamp: Stamp | None = None
        self._lock = threading.RLock()

    def _check_members(self) -> None:
        """Raise an `AuditValueError` if ``rename_fields`` or ``static_fields`` has an invalid name."""
        unknown = self.rename_fields.keys() - _MEMBERS
        if unknown:
            raise AuditValueError(f"rename_fields: expected names of members of an event, got {sorted(unknown)[0]!r}")

        names = [self.rename_fields.get(name, name) for name in sorted(_MEMBERS)]
        names += self.static_fields
        duplicates = sorted(name for name in names if names.count(name) > 1)
        if duplicates:
            raise AuditValueError(f"rename_fields, static_fields: two members would have the name {duplicates[0]!r}")

    def _check_schema(self, schema: str) -> None:
        """Raise an `AuditValueError` if *schema* is unknown or does not support another option."""
        from structlog_audit.formats import FORMATS, OPEN

        if schema not in FORMATS:
            raise AuditValueError(f"schema={schema!r}: expected one of {', '.join(FORMATS)}")
        if self._has_hooks and schema not in OPEN:
            hooks = ", ".join(_HOOKS)
            raise AuditTypeError(f"schema={schema!r}: expected a formatter that overrides none of {hooks}")
        if self.rename_fields:
            raise AuditValueError(f"rename_fields: the schema {schema!r} does not support it; leave it out")
        if self.static_fields and schema not in OPEN:
            raise AuditValueError(f"static_fields: the schema {schema!r} does not support it; leave it out")

        reserved = OPEN.get(schema, frozenset())
        taken = sorted(self.static_fields.keys() & reserved)
        if taken:
            message = f"static_fields: the schema {schema!r} has its own member {taken[0]!r}; use another name"
            raise AuditValueError(message)

    @property
    def changes_lines(self) -> bool:
        """Whether the options or a subclass make the lines differ from those of a trail."""
        return bool(self._has_hooks or self.prefix or self.rename_fields or self.static_fields or self.schema)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record* without the LF, or all lines of an event in parts."""
        line: bytes | None = record.__dict__.get(LINE)
        if line is None:
            line = self._make_line(record)

        if not self.changes_lines:
            return line.decode().rstrip("\n")
        if self.schema is not None:
            return self._format_for_schema(line, self.schema, record)

        changed = [self._change_line(part, record) for part in line.splitlines()]
        return "\n".join(changed)

    def _make_line(self, record: logging.LogRecord) -> bytes:
        """Return the line of a record that does not come from an `AuditHandler`."""
        payload = payload_of(record, self.failure_level)
        return self.stamped(encode_payload(payload, DEFAULT_MAX_EVENT_BYTES))

    def stamped(self, body: bytes) -> bytes:
        """Return the encoded event *body* as a line, with an id and the time of this formatter."""
        with self._lock:
            # Take the stamp while it is in use: a signal handler that formats a record meanwhile makes another one.
            stamp = self._stamp or self.stamp_class()
            self._stamp = None
            line = stamp.line(body)
            self._stamp = stamp
        return line

    def renew(self) -> None:
        """Begin a new writer with the next line, because the line of an id was not written."""
        with self._lock:
            self._stamp = None

    def _format_for_schema(self, line: bytes, schema: str, record: logging.LogRecord) -> str:
        """Return the event of *line* in the format of another system."""
        from structlog_audit.formats import FORMATS

        formatted = FORMATS[schema](decode_event(line))
        if isinstance(formatted, str):
            return f"{self.prefix}{formatted}"
        return self._serialize(formatted, record)

    def _change_line(self, line: bytes, record: logging.LogRecord) -> str:
        """Return *line* with the changes of the options and of a subclass."""
        members = msgspec.json.decode(line)
        renamed = {self.rename_fields.get(name, name): value for name, value in members.items()}
        return self._serialize(renamed, record)

    def _serialize(self, members: dict[str, Any], record: logging.LogRecord) -> str:
        """Return the line with *members* as python-json-logger makes it from those of a record."""
        self.add_fields(members, record, {})
        return self.serialize_log_record(self.process_log_record(members))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add ``static_fields`` to *log_data*, the members of one line. A subclass may add others.

        Args:
            log_data: The members of the event, with their new names.
            record: The log record of the event.
            message_dict: Always empty: the members of a message that is a mapping are in *log_data*.
        """
        log_data.update(self.static_fields)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return *log_data*, all members of one line. A subclass may change or replace them."""
        return log_data

    def serialize_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line for *log_data*: the prefix and the JSON text."""
        return self.prefix + self.jsonify_log_record(log_data)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return *log_data* as JSON text."""
        try:
            return escape(encode(log_data)).decode()
        except (TypeError, ValueError, OverflowError, RecursionError):
            # A subclass added a value that is not plain JSON.
            return to_json(log_data)
