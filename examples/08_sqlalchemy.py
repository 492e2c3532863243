"""SQLAlchemy: record the committed changes of models, whether objects, statements or cascades made them.

Needs: pip install '.[sqlalchemy]'
"""

import logging
import sys
import tempfile
from pathlib import Path

from sqlalchemy import ForeignKey, create_engine, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from structlog.contextvars import bound_contextvars

from structlog_audit import AuditHandler
from structlog_audit.contrib.sqlalchemy import track

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

handler = AuditHandler(filename=folder / "audit.jsonl")
audit = logging.getLogger("audit")
audit.setLevel(logging.INFO)
audit.propagate = False
audit.addHandler(handler)


class Base(DeclarativeBase): ...


track(Base)


class Document(Base):
    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    notes: Mapped[list["Note"]] = relationship(cascade="all, delete-orphan")


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("document.id"))


Base.metadata.create_all(engine := create_engine("sqlite://"))
with bound_contextvars(user_id="ada"), Session(engine) as session:
    session.add(document := Document(text="draft", notes=[Note()]))
    session.commit()
    session.execute(update(Document).values(text=Document.text + "!"))
    session.commit()
    document.text = "rolled back"
    session.flush()
    session.rollback()
    session.delete(document)
    session.commit()
for event in handler.iter_events():
    print(event.operation, event.user_id, event.entry_ids, event.metadata["changes"])
handler.close()
