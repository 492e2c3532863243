"""SQLAlchemy: rows before and after, recorded once committed. Not seen: plain SQL, ``execute(update(…))``, savepoints."""

import sys
import tempfile
from pathlib import Path

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from structlog.contextvars import bound_contextvars

from structlog_audit import AuditLogger

audit = AuditLogger(filename=Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "audit.jsonl")


class Base(DeclarativeBase): ...


class Entry(Base):
    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(active_history=True)  # without this, what a commit has expired has no "before"


@event.listens_for(Session, "after_flush")  # values are still known as they were, and new rows have their keys
def note(session, _):
    for operation, rows in (("INSERT", session.new), ("UPDATE", session.dirty), ("DELETE", session.deleted)):
        for row in rows:
            before, after = {}, {}
            for column in inspect(row).mapper.column_attrs:
                added, unchanged, deleted = inspect(row).attrs[column.key].history
                if old := deleted or (operation == "DELETE" and unchanged):
                    before[column.key] = old[0]
                if added:
                    after[column.key] = added[0]
            if before or after:  # or nothing has changed
                told = {"entry_ids": [f"entry:{row.id}"], "metadata": {"before": before, "after": after}}
                session.info.setdefault("audit", []).append((operation, told))


event.listen(Session, "before_flush", lambda session, *_: [row.text for row in session.deleted])  # loads what expired
event.listen(Session, "after_commit", lambda session: [audit.record(o, **f) for o, f in session.info.pop("audit", [])])
event.listen(Session, "after_rollback", lambda session: session.info.pop("audit", None))  # it did not happen

Base.metadata.create_all(engine := create_engine("sqlite://"))
with bound_contextvars(user_id="ada"), Session(engine) as session:
    session.add(entry := Entry(text="draft"))
    session.commit()
    entry.text = "final"
    session.commit()
    entry.text = "not that"
    session.flush()
    session.rollback()
    session.delete(entry)
    session.commit()
for e in audit.iter_events():
    print(e.operation, e.user_id, e.entry_ids, e.metadata)
audit.close()
