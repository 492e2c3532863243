"""SQLAlchemy: record committed changes of rows. Plain SQL, ``execute(update(…))`` and savepoints are not covered."""

import sys
import tempfile
from pathlib import Path

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from structlog.contextvars import bound_contextvars

from structlog_audit import AuditLogger

audit = AuditLogger(filename=Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "audit.jsonl")


class Base(DeclarativeBase): ...


class Document(Base):
    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(active_history=True)  # loads the old value if a commit has expired it


# After a flush the old values are still known, and new rows have their keys.
@event.listens_for(Session, "after_flush")
def collect(session, _):
    for operation, rows in (("create", session.new), ("update", session.dirty), ("delete", session.deleted)):
        for row in rows:
            before, after = {}, {}
            for column in inspect(row).mapper.column_attrs:
                added, unchanged, deleted = inspect(row).attrs[column.key].history
                if old := deleted or (operation == "delete" and unchanged):
                    before[column.key] = old[0]
                if added:
                    after[column.key] = added[0]
            if before or after:
                fields = {"entry_ids": [f"document:{row.id}"], "metadata": {"before": before, "after": after}}
                session.info.setdefault("audit", []).append((f"document.{operation}", fields))


# Reading the attribute loads the values of deleted rows that a commit has expired.
event.listen(Session, "before_flush", lambda session, *_: [row.text for row in session.deleted])
event.listen(Session, "after_commit", lambda session: [audit.record(o, **f) for o, f in session.info.pop("audit", [])])
event.listen(Session, "after_rollback", lambda session: session.info.pop("audit", None))
Base.metadata.create_all(engine := create_engine("sqlite://"))
with bound_contextvars(user_id="ada"), Session(engine) as session:
    session.add(document := Document(text="draft"))
    session.commit()
    document.text = "final"
    session.commit()
    document.text = "rolled back"
    session.flush()
    session.rollback()
    session.delete(document)
    session.commit()
for e in audit.iter_events():
    print(e.operation, e.user_id, e.entry_ids, e.metadata)
audit.close()
