"""The statements and types of SQLAlchemy, each with the changes that it makes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sqlite3
import uuid
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    JSON,
    Column,
    Computed,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    Update,
    bindparam,
    column,
    create_engine,
    event,
    func,
    insert,
    join,
    lambda_stmt,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.mysql import pymysql
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import DBAPIError, IntegrityError, ObjectNotExecutableError
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    composite,
    mapped_column,
    relationship,
)
from sqlalchemy.orm.exc import StaleDataError
from transaction_texts import all_texts, run_all

from structlog_audit import AuditValueError
from structlog_audit.contrib import sqlalchemy as tracking
from structlog_audit.contrib.sqlalchemy import track


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Reversed(TypeDecorator):
    """Text that the database stores in reverse."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value[::-1]

    process_result_value = process_bind_param


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {dict[str, Any]: MutableDict.as_mutable(JSON)}


class Item(Base):
    __tablename__ = "item"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any] | None]
    colour: Mapped[Colour | None]
    label: Mapped[str | None] = mapped_column(Reversed)
    x: Mapped[int | None]
    y: Mapped[int | None]
    point: Mapped[Point] = composite("x", "y")
    area: Mapped[int | None] = mapped_column(Computed("x * y"))
    stock: Mapped[int] = mapped_column(server_default="7")
    version: Mapped[int] = mapped_column()
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan", order_by="Part.id")
    names = association_proxy("parts", "name", creator=lambda name: Part(name=name))
    __mapper_args__: ClassVar = {"version_id_col": version}

    @hybrid_property
    def double(self):
        return self.x * 2

    @double.inplace.update_expression
    @classmethod
    def _update_double(cls, value):
        return [(cls.x, value / 2)]


class Part(Base):
    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    item_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("item.id"))


Item.count = column_property(select(func.count(Part.id)).where(Part.item_id == Item.id).scalar_subquery())


class Code(Base):
    """A key of several columns, none of which is a number or text."""

    __tablename__ = "code"
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    colour: Mapped[Colour] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


class Shelf(Base):
    """A unique key, parts of which have defaults."""

    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(default="wood")
    floor: Mapped[int] = mapped_column(server_default=text("2"))
    room: Mapped[str] = mapped_column(server_default="it's")
    books: Mapped[int] = mapped_column(default=0)
    __table_args__ = (UniqueConstraint("name", "kind", "floor", "room"),)


class Page(Base):
    """Unique columns that the database computes, of given values and of defaults."""

    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    note: Mapped[str | None]
    volume: Mapped[int] = mapped_column("vol", default=2)
    slug: Mapped[str] = mapped_column(Computed("lower(title) || vol || coalesce(note, '')"), unique=True)
    views: Mapped[int] = mapped_column(default=0)


class Stamp(Base):
    """Columns that every UPDATE writes, and one that is called as SQLAlchemy calls a parameter for another one."""

    __tablename__ = "stamp"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[str]
    place_1: Mapped[str | None]
    python: Mapped[int | None] = mapped_column(onupdate=lambda: 5)
    constant: Mapped[int | None] = mapped_column(onupdate=7)
    database: Mapped[str | None] = mapped_column(onupdate=func.upper("z"))


class Turn(Base):
    """A key that every UPDATE writes."""

    __tablename__ = "turn"
    id: Mapped[int] = mapped_column(primary_key=True, onupdate=lambda: 77)
    count: Mapped[int]


class Legacy(Base):
    """A table without a primary key, whose model has one that the database computes."""

    __table__ = Table(
        "legacy",
        Base.metadata,
        Column("number", Integer),
        Column("key", Integer, Computed("number + 10")),
        Column("pin", String),
    )
    __mapper_args__: ClassVar = {"primary_key": [__table__.c.key]}


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Manager(Person):
    """Has an attribute of its own in the table of its parent."""

    wage: Mapped[str | None] = mapped_column("wage_text")
    __mapper_args__: ClassVar = {"polymorphic_identity": "manager"}


class Pilot(Person):
    """A row of this table, and one of its parent's."""

    __tablename__ = "pilot"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    licence: Mapped[str | None]
    __mapper_args__: ClassVar = {"polymorphic_identity": "pilot"}


class Shape(AbstractConcreteBase, Base):
    """Is mapped when its children are, to the union of their tables."""

    id: Mapped[int] = mapped_column(primary_key=True)


class Circle(Shape):
    """A table with all of its columns."""

    __tablename__ = "circle"
    id: Mapped[int] = mapped_column(primary_key=True)
    radius: Mapped[int | None]
    __mapper_args__: ClassVar = {"polymorphic_identity": "circle", "concrete": True}


left = Table("left_half", Base.metadata, Column("id", primary_key=True, type_=Integer), Column("a", String))
right = Table("right_half", Base.metadata, Column("id", ForeignKey(left.c.id), primary_key=True), Column("b", String))


class Whole(Base):
    """Is mapped to two tables."""

    __table__ = join(left, right)
    id = column_property(left.c.id, right.c.id)


class Branch(Base):
    """Is deleted with its parent."""

    __tablename__ = "branch"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("branch.id"))
    branches: Mapped[list[Branch]] = relationship(cascade="all, delete-orphan")


pairs = Table(
    "pairs",
    Base.metadata,
    Column("item_id", ForeignKey("item.id")),
    Column("part_id", ForeignKey("part.id")),
    Column("data", JSON(none_as_null=True)),
)
Item.others = relationship(Part, secondary=pairs)

track(Base)
track(Legacy, mask=["pin"])

KEY = uuid.UUID(int=1)
ITEM = f"item:{KEY}"
TODAY = dt.date(2025, 1, 15)


@pytest.fixture
def engine(tmp_path, handler):
    """A database with one item, part, code and shelf, whose events are removed."""
    made = create_engine(f"sqlite:///{tmp_path}/items.sqlite3")

    @event.listens_for(made, "connect")
    def connect(connection, _):
        connection.isolation_level = None

    @event.listens_for(made, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add(Item(id=KEY, data={"a": 1}, colour=Colour.RED, label="abc", point=Point(2, 3)))
        session.add_all([Part(id=1, name="p"), Code(day=TODAY, colour=Colour.RED), Shelf(id=1, name="s")])
        session.add_all([Page(id=1, title="T"), Page(id=2, title="t", note="x")])
        session.add_all([Stamp(id=1, place="a"), Turn(id=1, count=1)])
        session.execute(insert(Legacy.__table__).values(number=1, pin="1234"))
        session.commit()
    handler.clear()
    yield made
    made.dispose()


@pytest.fixture
def changes_of(engine, handler):
    """A function that runs another one in a transaction, and returns the events of its commit."""

    def run(function):
        handler.clear()
        with Session(engine) as session:
            function(session)
            session.commit()
        return [
            (recorded.operation, recorded.entry_ids, recorded.metadata["changes"]) for recorded in handler.iter_events()
        ]

    return run


def updated(entry_id, *others, **values):
    """Return the event of an update; *values* has a pair for each changed column."""
    changes = {name: {"before": before, "after": after} for name, (before, after) in values.items()}
    return f"{entry_id.split(':')[0]}.update", [entry_id, *others], changes


def rename(model, **options):
    return update(model).values(name="z").execution_options(**options)


def change_item(**values):
    """Return a function that sets attributes of the item."""

    def change(session):
        item = session.get(Item, KEY)
        for name, value in values.items():
            setattr(item, name, value)

    return change


def change_in_place(session):
    item = session.get(Item, KEY)
    item.data["a"] = 2


def upsert(**values):
    statement = sqlite.insert(Shelf).values(name="s")
    return statement.on_conflict_do_update(index_elements=["name", "kind", "floor", "room"], set_=values)


def upsert_page(query=None):
    """Return an upsert of pages, or of the titles, volumes and views in *query*."""
    statement = sqlite.insert(Page)
    if query is not None:
        statement = statement.from_select(["title", "vol", "views"], query)
    return statement.on_conflict_do_update(index_elements=["slug"], set_={"views": statement.excluded.views})


def deleted(**values):
    return {name: {"before": value, "after": None} for name, value in values.items()}


def created_values(**values):
    return {name: {"before": None, "after": value} for name, value in values.items()}


def move_beside_another(session):
    """Change both parts of a key; before, another row has the new value of one, and the old value of the other."""
    session.execute(insert(Code).values(day=TODAY, colour=Colour.BLUE, value=9))
    next_day = func.date(Code.day, "+1 day")
    move = update(Code).where(Code.value == 0).values(day=next_day, colour=Colour.BLUE)
    session.execute(move, execution_options={"synchronize_session": False})


COMPUTED = "[result of an expression]"
RENAMED = [updated("part:1", name=("p", "z"))]
CODE, NEXT = "code:2025-01-15,r", "code:2025-01-16,b"

CHANGES = {
    "mutable value changed in place": (
        change_in_place,
        [updated(ITEM, data=({"a": 1}, {"a": 2}), version=(1, 2))],
    ),
    "composite and computed column": (
        change_item(point=Point(5, 6)),
        [updated(ITEM, x=(2, 5), y=(3, 6), area=(6, 30), version=(1, 2))],
    ),
    "own type and Enum": (
        change_item(label="xyz", colour=Colour.BLUE),
        [updated(ITEM, colour=("r", "b"), label=("abc", "xyz"), version=(1, 2))],
    ),
    "hybrid": (
        lambda session: session.execute(update(Item).values({Item.double: 20})),
        [updated(ITEM, x=(2, 10), area=(6, 30))],
    ),
    "merge": (
        lambda session: session.merge(Item(id=KEY, stock=9)),
        [updated(ITEM, stock=(7, 9), version=(1, 2))],
    ),
    "merge without a change": (lambda session: session.merge(Item(id=KEY, stock=7)), []),
    "update without synchronization": (
        lambda session: session.execute(rename(Part, synchronize_session=False)),
        RENAMED,
    ),
    "update of a query": (lambda session: session.query(Part).update({"name": "z"}), RENAMED),
    "update in a fixed order": (
        lambda session: session.execute(update(Part).ordered_values((Part.name, "z"))),
        RENAMED,
    ),
    "update by keys": (lambda session: session.execute(update(Part), [{"id": 1, "name": "z"}]), RENAMED),
    "update with another alias of the table": (
        lambda session: session.execute(
            update(Part).where(Part.id.in_(select(aliased(Part).id))).values(name="z"),
            execution_options={"synchronize_session": "fetch"},
        ),
        RENAMED,
    ),
    "update whose rows are loaded": (
        lambda session: session.scalars(select(Part).from_statement(rename(Part).returning(Part))).all(),
        RENAMED,
    ),
    "update of a Core table": (lambda session: session.connection().execute(rename(Part.__table__)), RENAMED),
    "update of an alias": (
        lambda session: session.execute(
            update(aliased(Part)).values(name="z").execution_options(synchronize_session=False)
        ),
        RENAMED,
    ),
    "update of an alias of a Core table": (
        lambda session: session.connection().execute(rename(Part.__table__.alias())),
        RENAMED,
    ),
    "update with parameters of other names": (
        lambda session: session.connection().execute(
            update(Part.__table__).where(Part.id == bindparam("key")).values(name=bindparam("new")),
            [{"key": 1, "new": "z"}, {"key": 2, "new": "y"}],
        ),
        RENAMED,
    ),
    "key set to a parameter of another name": (
        lambda session: session.connection().execute(
            update(Code.__table__).values(colour=bindparam("new")), [{"new": Colour.BLUE}]
        ),
        [updated(CODE, "code:2025-01-15,b", colour=("r", "b"))],
    ),
    "part of a key": (
        lambda session: session.execute(update(Code).values(colour=Colour.BLUE)),
        [updated(CODE, "code:2025-01-15,b", colour=("r", "b"))],
    ),
    "key and value": (
        lambda session: session.execute(
            update(Code).values(day=dt.date(2025, 1, 16), colour=Colour.BLUE, value=Code.value + 1)
        ),
        [updated(CODE, NEXT, day=("2025-01-15", "2025-01-16"), colour=("r", "b"), value=(0, 1))],
    ),
    "upsert on a key with defaults": (
        lambda session: session.execute(upsert(books=3)),
        [updated("shelf:1", books=(0, 3))],
    ),
    "upsert with parameters of other names": (
        lambda session: session.connection().execute(
            upsert(books=3).values(name=bindparam("given"), kind=bindparam("sort")), [{"given": "s", "sort": "wood"}]
        ),
        [updated("shelf:1", books=(0, 3))],
    ),
    "upsert of the rows of a query": (
        lambda session: session.execute(
            sqlite.insert(Shelf)
            .from_select(["name"], select(literal("s")).where(Part.id == 1))
            .on_conflict_do_update(index_elements=["name", "kind", "floor", "room"], set_={"books": 3})
        ),
        [updated("shelf:1", books=(0, 3))],
    ),
    "upsert of several rows": (
        lambda session: session.execute(
            sqlite.insert(Shelf)
            .values([{"name": "s", "books": 9}])
            .on_conflict_do_update(index_elements=["name", "kind", "floor", "room"], set_={"books": 3})
        ),
        [updated("shelf:1", books=(0, 3))],
    ),
    "upsert of tuples": (
        lambda session: session.execute(
            sqlite.insert(Shelf)
            .values([(7, "s", "wood", 2, "it's", 9)])
            .on_conflict_do_update(index_elements=["name", "kind", "floor", "room"], set_={"books": 3})
        ),
        [updated("shelf:1", books=(0, 3))],
    ),
    "upsert on a key that the database computes": (
        lambda session: session.execute(
            upsert_page(), [{"title": "T", "views": 3}, {"title": "t", "note": "x", "views": 4}]
        ),
        [updated("page:1", views=(0, 3)), updated("page:2", views=(0, 4))],
    ),
    "upsert of an expression on a key that the database computes": (
        lambda session: session.execute(upsert_page().values(title=func.upper("t"), views=3)),
        [updated("page:1", views=(0, 3))],
    ),
    "upsert of the rows of a query on a key that the database computes": (
        lambda session: session.execute(upsert_page(select(Page.title, literal(2), literal(5)).where(Page.id == 1))),
        [updated("page:1", views=(0, 5))],
    ),
    "value that is written with a computed key": (
        lambda session: session.execute(
            update(Code).values(day=func.date(Code.day, "+1 day"), value=Code.value + 1, colour=Colour.BLUE),
            execution_options={"synchronize_session": False},
        ),
        [updated(CODE, day=("2025-01-15", COMPUTED), colour=("r", "b"), value=(0, COMPUTED))],
    ),
    "columns that every update writes, with a computed key": (
        lambda session: session.connection().execute(
            update(Stamp.__table__).where(Stamp.place == "a").values(id=Stamp.id + 1)
        ),
        [
            updated(
                "stamp:1",
                id=(1, COMPUTED),
                python=(None, COMPUTED),
                constant=(None, COMPUTED),
                database=(None, COMPUTED),
            )
        ],
    ),
    "key that every update writes": (
        lambda session: session.connection().execute(update(Turn.__table__).values(count=5)),
        [updated("turn:1", id=(1, COMPUTED), count=(1, 5))],
    ),
    "attribute of another name than its column, with a computed key": (
        lambda session: session.execute(
            update(Page).where(Page.id == 1).values(id=Page.id + 10, volume=4),
            execution_options={"synchronize_session": False},
        ),
        [updated("page:1", id=(1, COMPUTED), volume=(2, 4), slug=("t2", COMPUTED))],
    ),
    "key of another row, but for the part that is computed": (
        move_beside_another,
        [
            ("code.create", ["code:2025-01-15,b"], created_values(day="2025-01-15", colour="b", value=9)),
            updated(CODE, day=("2025-01-15", COMPUTED), colour=("r", "b")),
        ],
    ),
    "column that a computed key depends on": (
        lambda session: session.execute(update(Legacy.__table__).values(number=2, pin="5678")),
        [updated("legacy:11", number=(1, 2), key=(11, COMPUTED), pin=("[redacted]", "[redacted]"))],
    ),
    "key of a model whose table has none": (
        lambda session: session.delete(session.get(Legacy, 11)),
        [("legacy.delete", ["legacy:11"], deleted(number=1, key=11, pin="[redacted]"))],
    ),
    "upsert that changes nothing": (lambda session: session.execute(upsert(books=0)), []),
    "insert that is ignored": (
        lambda session: session.execute(insert(Shelf).prefix_with("OR IGNORE"), [{"name": "s"}, {"name": "s"}]),
        [],
    ),
}


def change_all(session, *objects, **values):
    """Create objects, change them, and delete them, each in a flush."""
    session.add_all(objects)
    session.flush()
    for found in objects:
        for name, value in values.items():
            setattr(found, name, value)
    session.flush()
    for found in objects:
        session.delete(found)


def write_pilots(session):
    """Insert two pilots by one statement, and change the attributes of both tables by another one."""
    session.execute(insert(Pilot), [{"name": "a", "licence": "1"}, {"name": "b", "licence": "2"}])
    session.execute(update(Pilot), [{"id": 1, "name": "c", "licence": "3"}, {"id": 2, "licence": "4"}])


TABLES = {
    "attribute of a child in the table of its parent": (
        lambda session: change_all(session, Manager(wage="1"), wage="2"),
        [("person.create", "wage"), ("person.update", "wage"), ("person.delete", "wage")],
    ),
    "table with all columns of a child": (
        lambda session: change_all(session, Circle(radius=1), radius=2),
        [("circle.create", "radius"), ("circle.update", "radius"), ("circle.delete", "radius")],
    ),
    "two tables of a model": (
        lambda session: change_all(session, Whole(a="1", b="2"), a="3", b="4"),
        [(f"{side}_half.{verb}", "id") for verb in ("create", "delete") for side in ("left", "right")]
        + [("left_half.update", "a"), ("right_half.update", "b")],
    ),
    "statements on a joined child": (
        write_pilots,
        [
            *[("person.create", "kind"), ("pilot.create", "licence")] * 2,
            ("person.update", "name"),
            *[("pilot.update", "licence")] * 2,
        ],
    ),
    "rows of a joined child that load objects": (
        lambda session: session.scalars(insert(Pilot).returning(Pilot), [{"name": "a", "licence": "1"}]).one(),
        [("person.create", "kind"), ("pilot.create", "licence")],
    ),
    "bulk objects of a joined child": (
        lambda session: session.bulk_save_objects([Pilot(name="a", licence="1")], return_defaults=True),
        [("person.create", "kind"), ("pilot.create", "licence")],
    ),
    "cascade within a table": (
        lambda session: change_all(session, Branch(branches=[Branch(branches=[Branch()])])),
        [("branch.create", "id")] * 3 + [("branch.delete", "id")] * 3,
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_each_row_of_a_model_is_recorded_in_its_table(changes_of, case):
    """However a model is spread over tables, each of its rows has an event with the attributes in that row."""
    function, expected = TABLES[case]
    found = [(operation, changes.keys()) for operation, _, changes in changes_of(function)]
    assert sorted(operation for operation, _ in found) == sorted(operation for operation, _ in expected)
    for operation, name in expected:
        assert all(name in names for found_operation, names in found if found_operation == operation)


def test_rows_that_take_the_places_of_others_are_recorded_with_their_new_keys(changes_of):
    """A flush, and a statement with several sets of parameters, can shift keys."""
    days = [dt.date(2025, 2, day) for day in (2, 3, 4)]

    def shift(session):
        codes = [Code(day=day, colour=Colour.RED, value=day.day) for day in days]
        session.add_all(codes)
        session.flush()
        for code in codes:
            code.day -= dt.timedelta(1)

    moves = [entry_ids for operation, entry_ids, _ in changes_of(shift) if operation == "code.update"]
    assert moves == [[f"code:2025-02-0{day},r", f"code:2025-02-0{day - 1},r"] for day in (2, 3, 4)]


@pytest.mark.parametrize("case", CHANGES)
def test_statement_is_recorded_with_its_changes(changes_of, case):
    """Each kind of statement and of column has the values before and after."""
    function, expected = CHANGES[case]
    assert changes_of(function) == expected


def test_update_of_keys_is_compiled_once_for_all_of_its_rows(changes_of, monkeypatch):
    """What a statement states for each row whose key is gone is found once."""
    compiled = []
    compile_update = Update.compile

    def count(element, *arguments, **options):
        compiled.append(element)
        return compile_update(element, *arguments, **options)

    monkeypatch.setattr(Update, "compile", count)
    move = update(Page.__table__).values(id=Page.id + 10)
    found = changes_of(lambda session: session.connection().execute(move))
    assert [entry_ids for _, entry_ids, _ in found] == [["page:1"], ["page:2"]]
    assert len(compiled) == 1


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [(psycopg.dialect(), "n %% 10"), (pymysql.dialect(), "n %% 10"), (sqlite.dialect(), "n % 10")],
)
@pytest.mark.parametrize("computed", [Computed("n % 10"), Computed(column("n") % 10)])
def test_percent_sign_of_a_computed_column_is_doubled_once_for_the_driver(dialect, expected, computed):
    """The text of the expression is that in the table, so that the query with it has the same one."""
    sql = tracking._sql_of(computed, dialect)
    assert str(literal_column(sql).compile(dialect=dialect)) == expected


def created(changes_of, function):
    """Return the names after the creations that *function* makes, by their entry ids."""
    found = changes_of(function)
    assert {operation for operation, _, _ in found} == {"part.create"}
    return {entry_id: changes["name"]["after"] for _, (entry_id,), changes in found}


TWO = [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize(
    "insertion",
    [
        lambda session: session.execute(insert(Part), TWO),
        lambda session: session.execute(insert(Part).values(TWO)),
        lambda session: session.scalars(insert(Part).returning(Part), TWO).all(),
        lambda session: session.scalars(insert(Part).returning(Part.id, sort_by_parameter_order=True), TWO).all(),
        lambda session: session.scalars(select(Part).from_statement(insert(Part).values(TWO).returning(Part))).all(),
        lambda session: session.bulk_save_objects([Part(**values) for values in TWO]),
        lambda session: session.bulk_save_objects([Part(**values) for values in TWO], return_defaults=True),
        lambda session: session.bulk_insert_mappings(Part, TWO),
        lambda session: [session.merge(Part(**values)) for values in TWO],
        lambda session: [session.connection().execute(Part.__table__.insert().inline().values(v)) for v in TWO],
        lambda session: [session.connection().execute(Part.__table__.insert().return_defaults(), v) for v in TWO],
    ],
)
def test_insert_of_any_kind_is_recorded(changes_of, insertion):
    """Each way to insert two rows is recorded as their creations."""
    assert created(changes_of, insertion) == {"part:2": "a", "part:3": "b"}


def test_insert_of_more_rows_than_a_page_is_recorded_completely(engine, handler):
    """SQLAlchemy inserts many rows by several statements, whose results are one."""
    with engine.begin() as connection:
        connection.execute(insert(Part), [{"name": str(number)} for number in range(2_500)])
    assert handler.count_events(operation="part.create") == 2_500


def test_rows_of_an_association_proxy_are_recorded(changes_of):
    """What a proxy adds and removes are rows of the other table."""
    assert created(changes_of, change_item(names=["p", "q"])) == {"part:2": "p", "part:3": "q"}

    found = changes_of(change_item(names=["r"]))
    assert [(operation, entry_ids) for operation, entry_ids, _ in found] == [
        ("part.create", ["part:4"]),
        ("part.delete", ["part:2"]),
        ("part.delete", ["part:3"]),
    ]


def test_row_that_is_replaced_is_recorded_as_deleted_and_created(changes_of):
    """A row that REPLACE removes, and an upsert that sets another key, leave the row with the old key recorded as deleted."""
    replacement = insert(Shelf).prefix_with("OR REPLACE").values(id=5, name="s")
    for key, statement in ((5, replacement), (9, upsert(id=9))):
        found = changes_of(lambda session, statement=statement: session.execute(statement))
        assert [operation for operation, _, _ in found] == ["shelf.delete", "shelf.create"]
        assert found[1][1] == [f"shelf:{key}"]


def test_deletion_of_an_object_is_recorded_with_all_of_its_columns(changes_of):
    """A computed column and a default of the database are in the event as well."""
    ((operation, entry_ids, changes),) = changes_of(lambda session: session.delete(session.get(Item, KEY)))
    assert (operation, entry_ids) == ("item.delete", [ITEM])
    assert {name: values["before"] for name, values in changes.items()} == {
        "id": str(KEY),
        "data": {"a": 1},
        "colour": "r",
        "label": "abc",
        "x": 2,
        "y": 3,
        "area": 6,
        "stock": 7,
        "version": 1,
    }


def test_object_that_is_stale_leaves_no_event(engine, handler):
    """The flush of a versioned object that another session changed fails, and nothing is recorded for it."""
    with Session(engine) as session:
        item = session.get(Item, KEY)
        item.stock = 1
        session.rollback()
        item = session.get(Item, KEY)
        session.connection().exec_driver_sql("UPDATE item SET version = 5")
        handler.clear()
        item.stock = 2
        with pytest.raises(StaleDataError):
            session.commit()
    assert handler.count_events() == 0


def test_conflict_that_rolls_the_transaction_back_takes_its_changes_with_it(engine, handler):
    """With OR ROLLBACK, SQLite ends the transaction by itself; what follows is another one."""
    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="lost"))
        with pytest.raises(IntegrityError):
            connection.execute(insert(Shelf).prefix_with("OR ROLLBACK").values(name="s"))
        connection.commit()
    assert handler.count_events() == 0
    with Session(engine) as session:
        assert session.scalars(select(Part.name)).all() == ["p"]


def test_statement_of_a_connection_in_autocommit_mode_of_the_driver_is_recorded_at_once(tmp_path, handler):
    """Where the driver begins no transactions, a rollback undoes nothing."""
    engine = create_engine(f"sqlite:///{tmp_path}/items.sqlite3", connect_args={"isolation_level": None})
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="kept"))
        connection.rollback()
        assert connection.scalar(select(func.count()).select_from(Part)) == 1
    engine.dispose()
    assert handler.count_events(operation="part.create") == 1


def test_pair_with_null_is_deleted_and_recorded(engine, handler, monkeypatch):
    """A row of an association table without a key can have nulls, by which a statement that is limited to rows finds it."""
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    with engine.begin() as connection:
        connection.execute(pairs.insert(), [{"item_id": KEY, "part_id": None}, {"item_id": KEY, "part_id": 1}])
    handler.clear()
    with engine.begin() as connection:
        assert connection.execute(pairs.delete()).rowcount == 2
    assert [recorded.entry_ids for recorded in handler.iter_events()] == [[ITEM, "part:None"], [ITEM, "part:1"]]


def test_pair_with_a_value_that_is_not_hashable_is_recorded(changes_of):
    """An association table without a key can have a column of JSON, by which no row can be found."""

    def write(session):
        connection = session.connection()
        connection.execute(pairs.insert().values(item_id=KEY, part_id=1, data={"a": 1}))
        connection.execute(pairs.update().values(data=[2]))
        connection.execute(pairs.delete())

    created, (changed, entry_ids, changes), removed = changes_of(write)
    assert (changed, entry_ids, changes) == (
        "pairs.update",
        [ITEM, "part:1"],
        {"data": {"before": {"a": 1}, "after": [2]}},
    )
    assert created[2]["data"]["after"] == {"a": 1}
    assert removed[2]["data"]["before"] == [2]


def test_rows_that_load_objects_reach_the_caller(engine):
    """What was read to name the rows is given back as objects."""
    with Session(engine) as session:
        statement = select(Part).from_statement(insert(Part).values(TWO).returning(Part))
        assert [part.name for part in session.scalars(statement)] == ["a", "b"]


def test_listener_that_changes_the_statement_further_does_not_hide_it(engine, changes_of):
    """Another listener of the engine may return a statement of its own, and may write by itself."""

    def change(connection, element, multiple, single, options):
        if isinstance(element, type(update(Part))) and element.table.name == "part":
            connection.execute(update(Code).values(value=5))
            element = element.where(Part.id < 100)
        return element, multiple, single

    event.listen(engine, "before_execute", change, retval=True)
    found = changes_of(lambda session: session.execute(rename(Part)))
    assert found == [updated(CODE, value=(0, 5)), *RENAMED]


def test_lambda_statement_is_refused(engine):
    """Its values are not in the statement that a listener gets, so the error says what to execute in its place."""
    name = "a"
    with engine.connect() as connection, pytest.raises(AuditValueError, match=r"execute the insert\(\) itself$"):
        connection.execute(lambda_stmt(lambda: insert(Part.__table__).values(name=name)))


def test_compiled_statement_is_not_written_unseen(engine):
    """SQLAlchemy 2.0 executes a statement that the application compiled; later versions refuse it themselves."""
    compiled = insert(Part.__table__).compile(engine, column_keys=["name"])
    with engine.begin() as connection, suppress(AuditValueError, ObjectNotExecutableError):
        connection.execute(compiled, {"name": "a"})
    with Session(engine) as session:
        assert session.scalars(select(Part.name)).all() == ["p"]


def test_update_of_a_join_is_refused(engine):
    """MariaDB can change the tables of a join, of which the rows of both would have to be read."""
    both = join(Part.__table__, Item.__table__)
    for joined in (both, join(Table("other", MetaData(), Column("id", Integer)), both, Part.id == 1)):
        with (
            engine.connect() as connection,
            pytest.raises(AuditValueError, match="expected one tracked table, got a join"),
        ):
            connection.execute(update(joined).values({Part.name: "a"}))


@pytest.mark.parametrize("returned", [Part.name, text("id"), Part.id.label("key")])
def test_insert_that_does_not_return_its_key_is_refused_before_the_write(engine, returned):
    """The error comes before the row, so a caller that catches it has written nothing."""
    with Session(engine) as session:
        with pytest.raises(AuditValueError, match=r"tracked part: expected returning\(\) with its primary key"):
            session.execute(insert(Part).values(name="a").returning(returned))
        assert session.scalars(select(Part.name)).all() == ["p"]


def test_update_of_several_tables_is_refused(engine):
    """MariaDB can change two tables by one statement, of which the second would not be recorded."""
    statement = update(Part).where(Part.item_id == Item.id).values({Part.name: "a", Item.x: 1})
    with engine.connect() as connection, pytest.raises(AuditValueError, match="expected values for its columns"):
        connection.execute(statement)


def test_database_that_returns_no_rows_is_refused_where_the_keys_are_unknown(engine, handler, monkeypatch):
    """MySQL has no RETURNING: one row with a key is recorded, and the error for others says what is needed."""
    monkeypatch.setattr(engine.dialect, "insert_returning", False)
    with engine.begin() as connection:
        connection.execute(insert(Part).values(name="a"))
        connection.execute(insert(Part), [{"id": 8, "name": "b"}, {"id": 9, "name": "c"}])
        with pytest.raises(AuditValueError, match=r"tracked part: expected a database that returns .* got sqlite"):
            connection.execute(insert(Part), TWO)
    assert [recorded.entry_ids for recorded in handler.iter_events()] == [["part:2"], ["part:8"], ["part:9"]]


def test_key_that_the_database_computes_is_refused_where_it_is_unknown(engine, monkeypatch):
    """Without the key its row could not be read, and the change would be missing in silence."""
    monkeypatch.setattr(engine.dialect, "insert_returning", False)
    with engine.connect() as connection, pytest.raises(AuditValueError, match="got one that the database computed"):
        connection.execute(insert(Code).values(day=func.date("2025-01-16"), colour=Colour.BLUE))


def failing(engine, error):
    """Let the statement ``SELECT nothing`` fail with *error* of the driver."""

    @event.listens_for(engine, "do_execute")
    def execute(cursor, statement, parameters, context):
        if statement == "SELECT nothing":
            raise error


def names(handler):
    return [recorded.metadata["changes"]["name"]["after"] for recorded in handler.iter_events()]


@pytest.mark.parametrize(("name", "expected"), [("postgresql", []), ("mysql", ["a"]), ("sqlite", ["a"])])
def test_commit_after_a_failed_statement_records_what_the_database_kept(engine, handler, monkeypatch, name, expected):
    """PostgreSQL answers that commit by a rollback; others keep what was written before."""
    error = sqlite3.IntegrityError("failed")
    error.sqlstate = "23505"
    failing(engine, error)
    monkeypatch.setattr(engine.dialect, "name", name)

    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="a"))
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT nothing")
        connection.commit()
    assert names(handler) == expected


def test_rollback_to_a_savepoint_ends_the_failure_of_a_transaction(engine, handler, monkeypatch):
    """What was written before the savepoint, and after it was rolled back, is kept; the next transaction is whole."""
    error = sqlite3.IntegrityError("failed")
    error.sqlstate = "23505"
    failing(engine, error)
    monkeypatch.setattr(engine.dialect, "name", "postgresql")

    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="a"))
        savepoint = connection.begin_nested()
        connection.execute(insert(Part).values(name="b"))
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT nothing")
        savepoint.rollback()
        connection.execute(insert(Part).values(name="c"))
        connection.commit()

        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT nothing")
        connection.rollback()
        connection.execute(insert(Part).values(name="d"))
        connection.commit()
    assert names(handler) == ["a", "c", "d"]


@all_texts
def test_text_that_ends_a_transaction_or_a_part_of_it_is_followed(engine, handler, statements, expected):
    """What the application executes by itself keeps or undoes changes as the methods of a connection do."""
    with engine.connect() as connection:
        run_all(
            statements,
            lambda statement: connection.execute(text(statement)),
            lambda name: connection.execute(insert(Part).values(name=name)),
        )
        connection.commit()
    assert names(handler) == expected


def test_deadlock_takes_all_changes_of_the_transaction_with_it(engine, handler, monkeypatch):
    """MariaDB and MySQL roll back the whole transaction; what follows is another one."""
    failing(engine, sqlite3.OperationalError(1213, "Deadlock found"))
    monkeypatch.setattr(engine.dialect, "name", "mysql")

    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="a"))
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT nothing")
        connection.execute(insert(Part).values(name="b"))
        connection.commit()
    assert names(handler) == ["b"]


def test_definition_of_a_table_records_at_once_where_it_commits(handler):
    """MariaDB and MySQL commit before a definition; the changes are recorded once, whatever follows."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    engine.dialect.name = "mysql"
    with engine.connect() as connection:
        connection.execute(insert(Part).values(name="a"))
        connection.exec_driver_sql("CREATE TABLE passing (id INTEGER)")
        assert names(handler) == ["a"]
        connection.execute(insert(Part).values(name="b"))
        connection.rollback()
    engine.dispose()
    assert names(handler) == ["a"]


def test_error_without_a_connection_is_passed_on(handler):
    """A connection that cannot be made has no transaction."""
    engine = create_engine("sqlite:////nowhere/at/all.sqlite3")
    with pytest.raises(DBAPIError):
        engine.connect()
