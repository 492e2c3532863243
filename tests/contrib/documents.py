"""Tracked SQLAlchemy models, random operations on them, and the changes that triggers of the database saw."""

from __future__ import annotations

import random
import string
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    String,
    Table,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship
from triggers import create_triggers, json_text, seen_change

from structlog_audit.contrib.sqlalchemy import track


class Base(DeclarativeBase):
    # MariaDB has no text without a length that can be a key.
    type_annotation_map: ClassVar = {str: String(40)}


document_tag = Table(
    "document_tag",
    Base.metadata,
    Column("document_id", ForeignKey("document.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)

related = Table(
    "related",
    Base.metadata,
    Column("document_id", ForeignKey("document.id")),
    Column("other_id", ForeignKey("document.id")),
)
"""An association table without a key."""


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    score: Mapped[int] = mapped_column(default=0)
    documents: Mapped[list[Document]] = relationship(back_populates="author")


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    documents: Mapped[list[Document]] = relationship(secondary=document_tag, back_populates="tags")


class Document(Base):
    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="document")
    body: Mapped[str | None] = mapped_column("text")
    copies: Mapped[int] = mapped_column(default=0)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="documents")
    notes: Mapped[list[Note]] = relationship(back_populates="document", cascade="all, delete-orphan")
    tags: Mapped[list[Tag]] = relationship(secondary=document_tag, back_populates="documents")
    related: Mapped[list[Document]] = relationship(
        secondary=related,
        primaryjoin="Document.id == related.c.document_id",
        secondaryjoin="Document.id == related.c.other_id",
        backref="relating",
    )
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "document"}


class Memo(Document):
    """A model in the table of its parent."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "memo"}


class Contract(Document):
    """A row of this table, and one of its parent's."""

    __tablename__ = "contract"
    id: Mapped[int] = mapped_column(ForeignKey("document.id"), primary_key=True)
    party: Mapped[str | None]
    __mapper_args__: ClassVar = {"polymorphic_identity": "contract"}


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    document_id: Mapped[int] = mapped_column(ForeignKey("document.id"))
    document: Mapped[Document] = relationship(back_populates="notes")


class Folder(Base):
    """Is deleted with its parent."""

    __tablename__ = "folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"))
    folders: Mapped[list[Folder]] = relationship(cascade="all, delete-orphan")


class Counter(Base):
    """A key that can be changed."""

    __tablename__ = "counter"
    code: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


class Item(Base):
    """A value of JSON, and values that the database gives."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON))
    stock: Mapped[int] = mapped_column(server_default="7")
    room: Mapped[str] = mapped_column(server_default=text("'it''s'"))
    double: Mapped[int] = mapped_column(Computed("stock * 2", persisted=True))
    seen: Mapped[int] = mapped_column(default=0, onupdate=lambda: 5)


class Page(Base):
    """A unique column that the database computes."""

    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    slug: Mapped[str] = mapped_column(Computed(func.lower(Column("title", String)), persisted=True), unique=True)
    views: Mapped[int] = mapped_column(default=0)


class Shelf(Base):
    """A key of two columns, to which another one refers."""

    __tablename__ = "shelf"
    room: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(server_default="3")
    books: Mapped[list[Book]] = relationship(cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    room: Mapped[str] = mapped_column(primary_key=True)
    shelf: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    __table_args__ = (ForeignKeyConstraint(["room", "shelf"], ["shelf.room", "shelf.number"]),)


track(Base)

TABLES = list(Base.metadata.sorted_tables)

IN_ANOTHER_DATABASE = (Page, Shelf, Book)
"""The models that an application can have in a second database."""


def use_savepoints(engine):
    """Let sqlite3 begin transactions where SQLAlchemy does, as its documentation advises for savepoints."""

    @event.listens_for(engine, "connect")
    def connect(connection, _):
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")


def prepare(engine):
    """Create the tables and the triggers."""
    Base.metadata.create_all(engine)
    tables = {table.name: [column.name for column in table.columns] for table in TABLES}
    with engine.begin() as connection:
        create_triggers(lambda sql: connection.exec_driver_sql(sql), engine.dialect.name, tables)


def seen_changes(engine):
    """Return what the triggers saw of committed transactions."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT place, verb, old_row, new_row FROM seen ORDER BY number"))
        return [seen_change(*row) for row in rows]


def recorded_changes(events):
    """Return the changes in *events* as the triggers see them: table, verb, and the columns before and after."""
    found = []
    for recorded in events:
        table, verb = recorded.operation.rsplit(".", 1)
        changes = recorded.metadata["changes"]
        columns = {
            "text" if (table, name) == ("document", "body") else name: values for name, values in changes.items()
        }
        named = sorted(
            (name, json_text(values["before"]), json_text(values["after"])) for name, values in columns.items()
        )
        found.append((table, verb, tuple(named)))
    return found


class RolledBackError(Exception):
    """Ends a block of operations as an error of the application would."""


class Operations:
    """Random operations; those that the state of the database does not allow do nothing or raise an IntegrityError."""

    def __init__(self, engine, seed, refusals=(), other=None):
        # The engine of each model.
        self.binds = dict.fromkeys(IN_ANOTHER_DATABASE, other or engine)

        # Errors that end a block, besides those of the block and of constraints.
        self.refusals = (RolledBackError, IntegrityError, *refusals)
        self.engine = engine
        self.random = random.Random(seed)
        self.names = [name for name in dir(type(self)) if name.startswith("do_")]
        if engine.dialect.name == "mysql":
            self.names.remove("do_update_returning")
        self.session = None

    def run(self, count):
        """Run *count* operations, some of them in savepoints and transactions that are rolled back."""
        while count > 0:
            number = self.random.randint(1, 6)
            count -= number
            try:
                with Session(self.engine, binds=self.binds) as self.session:
                    self._block(number, depth=0)
                    self.session.commit()
            except self.refusals:
                pass

    def _block(self, number, depth):
        for _ in range(number):
            if depth < 3 and self.random.random() < 0.3:
                try:
                    with self.session.begin_nested():
                        self._block(self.random.randint(1, 3), depth + 1)
                except RolledBackError:
                    pass
            else:
                getattr(self, self.random.choice(self.names))()
                if depth == 0 and self.random.random() < 0.3:
                    self.session.commit()
        if self.random.random() < 0.25:
            self.session.flush()
            raise RolledBackError

    def word(self):
        return "".join(self.random.choices(string.ascii_letters + "é'\"\\", k=4))

    def name(self):
        return self.random.choice("abcdefghij")

    def some(self, model, most=3):
        """Return some of the objects."""
        found = list(self.session.scalars(select(model).order_by(model.id)))
        return self.random.sample(found, min(len(found), self.random.randint(0, most)))

    def one(self, model):
        found = self.some(model)
        return found[0] if found else None

    # Each method below is an operation.

    def do_add(self):
        author = self.one(Author)
        notes = [Note(body=self.word()) for _ in range(self.random.randint(0, 2))]
        self.session.add(Document(body=self.word(), author=author, notes=notes))

    def do_add_author(self):
        with self.session.begin_nested():
            self.session.add(Author(name=self.name()))

    def do_add_tags(self):
        self.session.add_all([Tag(name=self.word()) for _ in range(2)])

    def do_add_children(self):
        self.session.add_all([Memo(body=self.word()), Contract(body=self.word(), party=self.word())])

    def do_change(self):
        for document in self.some(Document):
            document.body = self.random.choice([None, document.body, self.word()])
            document.author = self.one(Author)

    def do_change_unloaded(self):
        for document in self.some(Document):
            self.session.expire(document)
            document.copies = self.random.randint(0, 3)

    def do_change_by_expression(self):
        for document in self.some(Document):
            document.copies = Document.copies + 1

    def do_change_child(self):
        for contract in self.some(Contract):
            contract.party, contract.copies = self.word(), contract.copies + 1

    def do_change_twice(self):
        if author := self.one(Author):
            author.score += 1
            self.session.flush()
            author.score -= 1

    def do_tag(self):
        if document := self.one(Document):
            document.tags = self.some(Tag)

    def do_tag_from_the_other_side(self):
        if tag := self.one(Tag):
            tag.documents = self.some(Document)

    def do_relate(self):
        if document := self.one(Document):
            document.related = self.some(Document)

    def do_orphan(self):
        if document := self.one(Document):
            document.notes = document.notes[1:]

    def do_update(self):
        self.session.execute(
            update(Document).where(Document.copies < self.random.randint(0, 4)).values(body=self.word())
        )

    def do_update_expression(self):
        query = update(Author).where(Author.name > self.name()).values(score=Author.score * 2 + 1)
        self.session.execute(query, execution_options={"synchronize_session": "fetch"})

    def do_update_child(self):
        self.session.execute(update(Memo).values(copies=Memo.copies + 1))

    def do_update_from_another_table(self):
        query = update(Note).where(Note.document_id == Document.id, Document.copies < 2).values(body=self.word())
        self.session.execute(query, execution_options={"synchronize_session": False})

    def do_update_by_keys(self):
        rows = [{"id": author.id, "score": self.random.randint(0, 3)} for author in self.some(Author)]
        if rows:
            self.session.execute(update(Author), rows)

    def do_update_returning(self):
        list(self.session.scalars(update(Tag).where(Tag.name > self.word()).values(name=self.word()).returning(Tag)))

    def do_insert(self):
        self.session.execute(insert(Tag), [{"name": self.word()} for _ in range(3)])

    def do_insert_one(self):
        self.session.execute(insert(Tag).values(name=self.word()))

    def do_insert_values(self):
        self.session.execute(insert(Tag).values([{"name": self.word()} for _ in range(3)]))

    def do_insert_returning(self):
        names = [self.word() for _ in range(3)]
        tags = self.session.scalars(insert(Tag).returning(Tag), [{"name": name} for name in names])
        assert sorted(tag.name for tag in tags) == sorted(names)

    def do_insert_from_select(self):
        self.session.execute(insert(Tag).from_select(["name"], select(Author.name).where(Author.score > 3)))

    def do_insert_core(self):
        self.session.connection().execute(Tag.__table__.insert(), [{"name": self.word()}, {"name": self.word()}])

    def do_upsert(self):
        values = [{"name": name, "score": self.random.randint(0, 5)} for name in sorted({self.name(), self.name()})]
        self.session.execute(self._upsert(self._insert().values(values)))

    def do_upsert_many(self):
        values = [{"name": name, "score": self.random.randint(0, 5)} for name in sorted({self.name(), self.name()})]
        self.session.execute(self._upsert(self._insert()), values)

    def do_upsert_by_parameters(self):
        statement = self._insert().values(name=bindparam("given"), score=bindparam("points"))
        self.session.execute(self._upsert(statement), {"given": self.name(), "points": self.random.randint(0, 5)})

    def do_insert_ignoring_conflicts(self):
        values = [{"name": self.name(), "score": 1} for _ in range(2)]
        self.session.execute(self._ignore(self._insert()), values)

    def do_insert_one_ignoring_conflicts(self):
        self.session.execute(self._ignore(self._insert().values(name=self.name(), score=1)))

    @property
    def dialect(self):
        """The dialect of the database, with its own kind of INSERT."""
        dialects = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}
        return dialects[self.engine.dialect.name]

    def _insert(self):
        return self.dialect.insert(Author)

    def _upsert(self, statement):
        if self.engine.dialect.name == "mysql":
            return statement.on_duplicate_key_update(score=statement.inserted.score)
        return statement.on_conflict_do_update(index_elements=["name"], set_={"score": statement.excluded.score})

    def _ignore(self, statement):
        if self.engine.dialect.name == "mysql":
            return statement.prefix_with("IGNORE")
        return statement.on_conflict_do_nothing()

    def do_bulk_save(self):
        self.session.bulk_save_objects([Tag(name=self.word()), Counter(code=self.word(), place=1)])

    def do_bulk_update(self):
        mappings = [{"id": tag.id, "name": self.word()} for tag in self.some(Tag)]
        self.session.bulk_update_mappings(Tag, mappings)

    def do_change_key(self):
        counter = self.session.scalars(select(Counter).limit(1)).first()
        if counter is not None:
            counter.code = self.word()

    def do_update_key(self):
        code = self.session.scalars(select(Counter.code).limit(1)).first()
        query = update(Counter).where(Counter.code == code).values(code=self.word(), value=Counter.value + 1)
        self.session.execute(query, execution_options={"synchronize_session": False})
        self.session.expire_all()

    def do_shift_keys(self):
        code = self.name()
        counters = list(self.session.scalars(select(Counter).where(Counter.code == code).order_by(Counter.place)))
        last = counters[-1].place if counters else 1
        self.session.add(Counter(code=code, place=last + 1))
        for counter in counters:
            counter.place -= 1

    def do_update_by_parameters(self):
        rows = [{"old": name, "new": self.random.randint(0, 3)} for name in sorted({self.name(), self.name()})]
        query = update(Author.__table__).where(Author.name == bindparam("old")).values(score=bindparam("new"))
        self.session.connection().execute(query, rows)
        self.session.expire_all()

    def do_update_alias(self):
        tag = aliased(Tag)
        query = update(tag).where(tag.name > self.word()).values(name=self.word())
        self.session.execute(query, execution_options={"synchronize_session": False})
        self.session.expire_all()

    def do_insert_children(self):
        rows = [{"body": self.word(), "party": self.word()} for _ in range(2)]
        self.session.execute(insert(Contract), rows)

    def do_insert_children_returning(self):
        query = insert(Contract).returning(Contract)
        (contract,) = self.session.scalars(query, [{"body": self.word(), "party": "b"}])
        assert contract.party == "b"

    def do_update_children_by_keys(self):
        rows = [{"id": found.id, "party": self.word(), "copies": found.copies + 1} for found in self.some(Contract)]
        if rows:
            self.session.execute(update(Contract), rows)

    def do_bulk_save_children(self):
        self.session.bulk_save_objects([Contract(body=self.word(), party=self.word())], return_defaults=True)
        self.session.bulk_insert_mappings(Contract, [{"body": self.word()}])

    def do_merge(self):
        # Keys that the database does not number.
        key = 1_000_000 + self.random.randint(1, 20)
        self.session.merge(Tag(id=key, name=self.word()))

    def do_add_folders(self):
        self.session.add(Folder(folders=[Folder(folders=[Folder()]), Folder()]))

    def do_delete_folders(self):
        for folder in self.some(Folder, most=1):
            self.session.delete(folder)

    def do_roll_back_text(self):
        self.session.execute(text("SAVEPOINT mine"))
        self.session.execute(insert(Counter.__table__).values(code=self.word(), place=7))
        self.session.execute(text(self.random.choice(["ROLLBACK TO SAVEPOINT mine", "RELEASE SAVEPOINT mine"])))

    def do_delete(self):
        for document in self.some(Document, most=1):
            document.related, document.relating = [], []
            self.session.delete(document)

    def do_delete_author(self):
        for author in self.some(Author, most=1):
            self.session.delete(author)

    def do_delete_tags(self):
        for tag in self.some(Tag, most=20):
            self.session.delete(tag)

    def do_delete_query(self):
        self.session.execute(delete(Note).where(Note.body > self.word()))

    def do_delete_from_another_table(self):
        query = delete(Note).where(Note.document_id.in_(select(Document.id).where(Document.copies > 1)))
        self.session.execute(query, execution_options={"synchronize_session": "fetch"})

    def do_delete_pairs(self):
        self.session.flush()
        self.session.execute(document_tag.delete().where(document_tag.c.tag_id > self.random.randint(1, 20)))
        self.session.expire_all()

    # Values of JSON, and values that the database gives.

    def data(self):
        parts = [None, True, 1, 1.5, "", self.name(), {"a": [self.name()]}, []]
        return {self.name(): self.random.choice(parts) for _ in range(2)}

    def do_add_item(self):
        self.session.add(Item(data=self.data(), **self.random.choice([{}, {"stock": 2}, {"room": self.word()}])))

    def do_insert_items(self):
        self.session.execute(insert(Item), [{"data": self.data()} for _ in range(2)])
        self.session.execute(insert(Item).values(data=self.data(), stock=func.abs(-4)))

    def do_change_data_in_place(self):
        for item in self.some(Item):
            item.data[self.name()] = self.data()

    def do_change_data_to_equal(self):
        for item in self.some(Item):
            item.data = dict(reversed(item.data.items()))

    def do_update_data(self):
        self.session.execute(update(Item).where(Item.double > 6).values(data=self.data(), stock=Item.stock - 1))

    def do_update_data_by_keys(self):
        rows = [{"id": item.id, "data": self.data()} for item in self.some(Item)]
        if rows:
            self.session.execute(update(Item), rows)

    def do_delete_items(self):
        self.session.execute(delete(Item).where(Item.stock < self.random.randint(1, 5)))

    def do_upsert_page(self):
        title = self.name()
        rows = [{"title": self.random.choice([title, title.upper()]), "views": self.random.randint(0, 3)}]
        statement = self.dialect.insert(Page)
        if self.engine.dialect.name == "mysql":
            upsert = statement.on_duplicate_key_update(views=statement.inserted.views)
        else:
            upsert = statement.on_conflict_do_update(index_elements=["slug"], set_={"views": statement.excluded.views})
        self.session.execute(upsert, rows)
        self.session.expire_all()

    def do_change_page(self):
        for page in self.some(Page):
            page.views += 1

    # Keys of several columns.

    def shelf(self):
        shelves = list(self.session.scalars(select(Shelf).order_by(Shelf.room, Shelf.number)))
        return self.random.choice(shelves or [None])

    def do_add_shelf(self):
        with self.session.begin_nested():
            self.session.add(Shelf(room=self.name(), number=self.random.randint(1, 2)))

    def do_merge_shelf(self):
        key = {"room": self.name(), "number": self.random.randint(1, 2)}
        self.session.merge(Shelf(**key, size=self.random.randint(1, 3)))

    def do_add_book(self):
        if shelf := self.shelf():
            place = max([book.place for book in shelf.books] or [0]) + 1
            self.session.add(Book(room=shelf.room, shelf=shelf.number, place=place, title=self.word()))
            self.session.flush()
            self.session.expire(shelf)

    def do_update_books(self):
        shelves = select(Shelf.room, Shelf.number).where(Shelf.size > 1)
        query = update(Book).where(tuple_(Book.room, Book.shelf).in_(shelves)).values(title=self.word())
        self.session.execute(query, execution_options={"synchronize_session": False})
        self.session.expire_all()

    def do_update_shelves_by_keys(self):
        if shelf := self.shelf():
            row = {"room": shelf.room, "number": shelf.number, "size": self.random.randint(1, 3)}
            self.session.execute(update(Shelf), [row])

    def do_move_book(self):
        if shelf := self.shelf():
            query = update(Book).where(Book.room == shelf.room, Book.shelf == shelf.number)
            self.session.execute(query.values(place=bindparam("new")), {"new": self.random.randint(50, 99)})
            self.session.expire_all()

    def do_upsert_shelf(self):
        rows = [{"room": self.name(), "number": number, "size": self.random.randint(1, 3)} for number in (1, 2)]
        statement = self.dialect.insert(Shelf).values(rows)
        if self.engine.dialect.name == "mysql":
            upsert = statement.on_duplicate_key_update(size=statement.inserted.size)
        else:
            upsert = statement.on_conflict_do_update(
                index_elements=["room", "number"], set_={"size": statement.excluded.size}
            )
        self.session.execute(upsert)
        self.session.expire_all()

    def do_delete_shelf(self):
        if shelf := self.shelf():
            self.session.delete(shelf)
