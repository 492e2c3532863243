"""Triggers that let a database write down the changes of its tables."""

from __future__ import annotations

import json

SQLITE_TRIGGER = """
CREATE TRIGGER "seen_{table}_{verb}" AFTER {event} ON "{table}" {condition} BEGIN
    INSERT INTO seen (place, verb, before, after) VALUES ('{table}', '{verb}', {before}, {after});
END
"""

POSTGRESQL_TRIGGER = """
CREATE FUNCTION "seen_{table}_{verb}"() RETURNS trigger AS $$ BEGIN
    INSERT INTO seen (place, verb, before, after) VALUES ('{table}', '{verb}', {before}, {after});
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER "seen_{table}_{verb}" AFTER {event} ON "{table}" FOR EACH ROW {condition}
    EXECUTE FUNCTION "seen_{table}_{verb}"();
"""


def create_triggers(execute, vendor, tables):
    """Let the database write each change of a row of *tables*, a mapping of their columns, into the table ``seen``."""
    is_sqlite = vendor == "sqlite"
    number = "INTEGER PRIMARY KEY" if is_sqlite else "SERIAL PRIMARY KEY"
    execute(f"CREATE TABLE seen (number {number}, place TEXT, verb TEXT, before TEXT, after TEXT)")

    template = SQLITE_TRIGGER if is_sqlite else POSTGRESQL_TRIGGER
    function = "json_object" if is_sqlite else "json_build_object"
    for table, columns in tables.items():
        changed = " OR ".join(
            f'OLD."{name}" IS NOT NEW."{name}"' if is_sqlite else f'OLD."{name}" IS DISTINCT FROM NEW."{name}"'
            for name in columns
        )
        old, new = (
            f"{function}(" + ", ".join(f"'{name}', {side}.\"{name}\"" for name in columns) + ")"
            for side in ("OLD", "NEW")
        )
        for verb, event, condition, before, after in (
            ("create", "INSERT", "", "NULL", new),
            ("update", "UPDATE", f"WHEN ({changed})", old, new),
            ("delete", "DELETE", "", old, "NULL"),
        ):
            execute(
                template.format(table=table, verb=verb, event=event, condition=condition, before=before, after=after)
            )


def differences(before, after):
    """Return the columns that differ, with both values."""
    names = sorted(before | after)
    return tuple((name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name))


def seen_change(table, verb, before, after):
    """Return a row of the table ``seen`` in the form of `recorded_changes`."""
    return table, verb, differences(json.loads(before or "{}"), json.loads(after or "{}"))
