"""`AuditJsonFormatter`: the lines of a trail, or of another system's format, from any `logging.Handler`.

Rules:

* A record that comes from an `AuditHandler` carries its line under `LINE`, and that is what is written. Any other record
  is converted, and gets an id and a time of this formatter.
* ``static_fields`` and ``rename_fields`` are those of python-json-logger, with what they allow there forbidden here: what an
  application logs lies below ``metadata`` and can take no other member's place, and neither can a static or renamed one.
* With ``schema`` a line is an event in the format of another system (`structlog_audit.formats`), however long. No reader of
  trails takes such lines, so `AuditFileHandler` refuses the formatter. The formats are imported only then.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec
from pythonjsonlogger.core import BaseJsonFormatter

from structlog_audit.events.codec import StoredEvent, decode_event, encode_payload, escape, to_json
from structlog_audit.events.conversion import payload_of
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.truncation import encode
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.fork_safety import register_fork_reset

LINE = "_audit_line"
"""The attribute of a record that holds the line of its event, as bytes."""

DEFAULT_MAX_EVENT_BYTES = 32_000
"""Fluent Bit drops a whole file for the sake of one line over 32 KiB, unless told otherwise."""

_MEMBERS = frozenset(StoredEvent.__struct_fields__)


class AuditJsonFormatter(BaseJsonFormatter):
    """Formats records as the lines of a trail, for handlers of the standard library and of others.

    Args:
        fmt, datefmt, style, validate: What ``dictConfig`` gives every formatter. Lines have one format and times one form,
            so only None is accepted for the first two.
        prefix: Text before each line.
        rename_fields: Other names for members of the event, by the name of the member.
        static_fields: Members that every line has besides.
        schema: The name of a format of another system: ``ecs``, ``ocsf``, ``cadf``, ``cef`` or ``otlp``. It names its members,
            so it goes with no ``rename_fields``; ``static_fields`` go with ``ecs``, the others have no room for them.

    Raises:
        AuditTypeError: A format was given.
        AuditValueError: A name is no member, or two members would have one name; no such schema, or not with these options.
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
        schema: str | None = None,
    ) -> None:
        for name, value in (("fmt", fmt), ("datefmt", datefmt)):
            if value is not None:
                raise AuditTypeError(f"{name}={value!r}: the lines of a trail have one format; leave it out")
        super().__init__(prefix=prefix, rename_fields=rename_fields, static_fields=static_fields)
        self.static_fields = JsonSanitizer().sanitize_members(self.static_fields)
        self.schema = schema
        if schema is None:
            self._check_members()
        else:
            self._check_schema(schema)
        self.after_fork()
        register_fork_reset(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: its ids are none of the parent's."""
        self._stamp: Stamp | None = None
        self._lock = threading.RLock()

    def _check_members(self) -> None:
        unknown = self.rename_fields.keys() - _MEMBERS
        if unknown:
            raise AuditValueError(f"rename_fields: {sorted(unknown)[0]!r} is no member of an event")
        names = [self.rename_fields.get(name, name) for name in sorted(_MEMBERS)] + list(self.static_fields)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AuditValueError(f"rename_fields, static_fields: two members would be called {twice[0]!r}")

    def _check_schema(self, schema: str) -> None:
        from structlog_audit.formats import FORMATS, OPEN

        if schema not in FORMATS:
            raise AuditValueError(f"schema={schema!r}: use one of {', '.join(FORMATS)}")
        if self.rename_fields:
            raise AuditValueError(f"rename_fields: the schema {schema!r} names its members; leave it out")
        if self.static_fields and schema not in OPEN:
            raise AuditValueError(f"static_fields: the schema {schema!r} has no room for other members; leave it out")
        taken = sorted(self.static_fields.keys() & OPEN.get(schema, frozenset()))
        if taken:
            raise AuditValueError(
                f"static_fields: the schema {schema!r} has a member {taken[0]!r}; give it another name"
            )

    @property
    def changes_lines(self) -> bool:
        """Whether the lines are other than those of a trail."""
        return bool(self.prefix or self.rename_fields or self.static_fields or self.schema)

    def format(self, record: logging.LogRecord) -> str:
        """The line of *record*, without the LF; of an event that goes on in parts, its lines."""
        line: bytes | None = record.__dict__.get(LINE)
        if line is None:
            body = encode_payload(payload_of(record), DEFAULT_MAX_EVENT_BYTES)
            with self._lock:
                stamp = self._stamp or Stamp()
                self._stamp = None  # a signal handler that comes in the middle finds none, and makes one
                line = stamp.line(body)
                self._stamp = stamp
        if not self.changes_lines:
            return line.decode().rstrip("\n")
        if self.schema is not None:
            return self._foreign(line, self.schema)
        return "\n".join(self.serialize_log_record(self._members(one)) for one in line.splitlines())

    def _foreign(self, line: bytes, schema: str) -> str:
        from structlog_audit.formats import FORMATS

        record = FORMATS[schema](decode_event(line))
        if isinstance(record, str):
            return f"{self.prefix}{record}"
        return self.serialize_log_record(self.process_log_record({**record, **self.static_fields}))

    def _members(self, line: bytes) -> dict[str, Any]:
        members = msgspec.json.decode(line)
        renamed = {self.rename_fields.get(name, name): value for name, value in members.items()}
        return self.process_log_record({**renamed, **self.static_fields})

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """*log_data* as JSON text."""
        try:
            return escape(encode(log_data)).decode()
        except (TypeError, ValueError, OverflowError, RecursionError):  # a subclass added what is not plain
            return to_json(log_data)
