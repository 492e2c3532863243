"""Triggers that let a database write down the changes of its tables."""

from __future__ import annotations

import json
from typing import NamedTuple

_WRITE = "INSERT INTO seen (place, verb, old_row, new_row) VALUES ('{table}', '{verb}', {old}, {new});"

_SQLITE = f"""
CREATE TRIGGER "seen_{{table}}_{{verb}}" AFTER {{event}} ON "{{table}}" WHEN {{condition}} BEGIN {_WRITE} END
"""

_POSTGRESQL = f"""
CREATE FUNCTION "seen_{{table}}_{{verb}}"() RETURNS trigger AS $$ BEGIN {_WRITE} RETURN NULL; END $$ LANGUAGE plpgsql;
CREATE TRIGGER "seen_{{table}}_{{verb}}" AFTER {{event}} ON "{{table}}" FOR EACH ROW WHEN ({{condition}})
    EXECUTE FUNCTION "seen_{{table}}_{{verb}}"();
"""

_MARIADB = f"""
CREATE TRIGGER `seen_{{table}}_{{verb}}` AFTER {{event}} ON `{{table}}` FOR EACH ROW IF {{condition}} THEN {_WRITE} END IF
"""


class _Dialect(NamedTuple):
    """How a database writes a trigger."""

    trigger: str
    number: str
    """The type of a key that the database numbers."""

    quote: str
    differs: str
    """The condition that a column was changed; MariaDB compares text without case, and PostgreSQL no JSON."""

    object: str
    """The function that makes a JSON object of names and values."""


_DIALECTS = {
    "sqlite": _Dialect(_SQLITE, "INTEGER PRIMARY KEY", '"', "{old} IS NOT {new}", "json_object"),
    "postgresql": _Dialect(
        _POSTGRESQL, "SERIAL PRIMARY KEY", '"', "{old}::text IS DISTINCT FROM {new}::text", "json_build_object"
    ),
    "mysql": _Dialect(
        _MARIADB, "INTEGER PRIMARY KEY AUTO_INCREMENT", "`", "NOT (BINARY {old} <=> BINARY {new})", "json_object"
    ),
}


def create_triggers(execute, vendor, tables):
    """Let the database write each change of a row of *tables*, a mapping of their columns, into the table ``seen``."""
    dialect = _DIALECTS[vendor]
    execute(f"CREATE TABLE seen (number {dialect.number}, place TEXT, verb TEXT, old_row TEXT, new_row TEXT)")

    for table, columns in tables.items():
        pairs = {
            name: tuple(f"{side}.{dialect.quote}{name}{dialect.quote}" for side in ("OLD", "NEW")) for name in columns
        }
        changed = " OR ".join(dialect.differs.format(old=old, new=new) for old, new in pairs.values())
        old_row, new_row = (
            f"{dialect.object}(" + ", ".join(f"'{name}', {pair[side]}" for name, pair in pairs.items()) + ")"
            for side in (0, 1)
        )
        for verb, event, condition, old, new in (
            ("create", "INSERT", "1 = 1", "NULL", new_row),
            ("update", "UPDATE", changed, old_row, new_row),
            ("delete", "DELETE", "1 = 1", old_row, "NULL"),
        ):
            execute(dialect.trigger.format(table=table, verb=verb, event=event, condition=condition, old=old, new=new))


def differences(before, after):
    """Return the columns that differ, with both values."""
    names = sorted(before | after)
    return tuple((name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name))


def seen_change(table, verb, before, after):
    """Return a row of the table ``seen`` in the form of `recorded_changes`."""
    return table, verb, differences(_row(before), _row(after))


def _row(text):
    """Return the row that a trigger wrote down, or none."""
    return {name: json_text(value) for name, value in json.loads(text or "{}").items()}


def json_text(value):
    """Return the text of a value of JSON, which only some databases have in the row that a trigger writes down."""
    return json.dumps(value) if isinstance(value, dict | list) else value
