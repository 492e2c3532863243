"""Rows of django-auditlog, as ``manage.py dumpdata`` writes them, as the fields of events.

**Guarantees.** Every member of a row is in its event: those with an equivalent under its name, the others in the metadata under
their own. The event's own time is that of the import; the time of the row is ``metadata.happened_at``. A row that is not
understood is an error that names it. Nothing is left out in silence.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from structlog_audit.exceptions import AuditDecodeError, AuditValueError

SOURCE = "django-auditlog"
"""The value of ``metadata.imported_from``."""

_CONTENT_TYPES = "contenttypes.contenttype"
_MEMBERS = {"content_type", "object_pk", "action", "timestamp"}
"""The members that tell a log entry from rows of other models; its model can be one of the project."""

_VERBS = {0: "create", 1: "update", 2: "delete", 3: "read"}
"""The last part of an operation by the number of auditlog's action."""

_SIDES = {"add": "added", "delete": "removed"}
_RENAMED = {"cid": "request_id", "remote_addr": "client_address", "object_repr": "object"}
_OWN = {"content_type", "object_pk", "object_id", "action", "actor", "changes", "timestamp"}
"""The members that `event_fields` converts itself. ``object_id`` is ``object_pk`` as a number."""


def rows_in(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that ``dumpdata`` wrote, as ``json`` or ``jsonl``.

    Raises:
        AuditDecodeError: The file, or a row, has another form.
        OSError: The file cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            yield from _rows_from(file, path)
    except UnicodeDecodeError as error:
        raise AuditDecodeError(f"{path}: expected text in UTF-8, got {error}; unpack a compressed file first") from None


def _rows_from(file: TextIO, path: str) -> Iterator[dict[str, Any]]:
    first = file.read(1)
    file.seek(0)

    # A list is one text, of jsonl each line is one.
    if first != "{":
        yield from _rows_of(file.read(), f"{path}:1")
        return

    for number, text in enumerate(file, 1):
        if text.strip():
            yield from _rows_of(text, f"{path}:{number}")


def _rows_of(text: str, where: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AuditDecodeError(f"{where}: expected JSON of dumpdata, got {error}") from None

    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if not (isinstance(row, dict) and isinstance(row.get("model"), str) and isinstance(row.get("fields"), dict)):
            raise AuditDecodeError(f"{where}: expected rows of dumpdata with model, pk and fields")
    return rows


def is_log_entry(row: Mapping[str, Any]) -> bool:
    """Return whether *row* is a log entry."""
    return set(row["fields"]) >= _MEMBERS


def content_types(rows: Iterator[dict[str, Any]]) -> dict[Any, str]:
    """Return the labels of models by the keys of their content types."""
    found = {}
    for row in rows:
        key = row.get("pk")

        # Of --natural-primary, they have no keys, and nothing refers to one.
        if row["model"] == _CONTENT_TYPES and _is_plain_key(key):
            names = [str(row["fields"].get(name)) for name in ("app_label", "model")]
            found[key] = ".".join(names)
    return found


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, int | str)


def event_fields(row: Mapping[str, Any], models: Mapping[Any, str]) -> tuple[str, dict[str, Any]]:
    """Return the operation and the fields of the event of a log entry.

    Raises:
        AuditValueError: The model or the action of the row is unknown, its time is not one, or it has no key.
    """
    key = row.get("pk")
    where = f"{row['model']} {key}"
    members = row["fields"]
    if key is None:
        advice = "by which a row is imported once: dump the log entries with their primary keys"
        raise AuditValueError(f"{where}: expected a pk, {advice}")

    label = _label_of(members["content_type"], models, where)
    action = members["action"]
    verb = _VERBS.get(action) if isinstance(action, int) else None
    if verb is None:
        raise AuditValueError(f"{where}: action={action!r}: expected 0, 1, 2 or 3")

    metadata = {
        "happened_at": _time(members["timestamp"], where),
        "imported_from": SOURCE,
        "log_entry": key,
        **_changes(members.get("changes")),
    }
    for name, value in members.items():
        is_empty = value is None or value == ""
        if name not in _OWN and not is_empty:
            metadata[_RENAMED.get(name, name)] = value

    entry_id = f"{label}:{members['object_pk']}"
    fields: dict[str, Any] = {"entry_ids": [entry_id], "metadata": metadata}

    actor = members.get("actor")
    if actor is not None:
        fields["user_id"] = _key_text(actor)
    return f"{label}.{verb}", fields


def _label_of(content_type: Any, models: Mapping[Any, str], where: str) -> str:
    # With --natural-foreign it is the label itself.
    if isinstance(content_type, list):
        return _key_text(content_type, ".")
    if not _is_plain_key(content_type) or content_type not in models:
        raise AuditValueError(
            f"{where}: content_type={content_type!r}: expected a content type of the file:"
            " use dumpdata contenttypes auditlog.LogEntry"
        )
    return models[content_type]


def _key_text(key: Any, separator: str = ",") -> str:
    """Return a foreign key as text; a natural key is a list."""
    if isinstance(key, list):
        return separator.join(map(str, key))
    return str(key)


def _time(value: Any, where: str) -> str:
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise AuditValueError(f"{where}: timestamp={value!r}: expected a time of ISO 8601") from None
    time: str = value
    return time


def _changes(changes: Any) -> dict[str, Any]:
    """Return the metadata of auditlog's changes: as `track` records them, if they have its form."""
    # Before version 3 they were JSON in a text.
    if isinstance(changes, str):
        try:
            changes = json.loads(changes)
        except (ValueError, RecursionError):
            return {"changes": changes}
    if changes is None:
        return {}
    if not isinstance(changes, dict):
        return {"changes": changes}
    return {"changes": {name: _change(change) for name, change in changes.items()}}


def _change(change: Any) -> Any:
    if isinstance(change, list) and len(change) == 2:
        old, new = change
        return {"before": old, "after": new}

    # Of a many-to-many field.
    if isinstance(change, dict) and change.keys() == {"type", "operation", "objects"}:
        operation = change["operation"]
        side = _SIDES.get(operation) if isinstance(operation, str) else None
        if side is not None:
            return {side: change["objects"]}

    return change
