"""`track` of SQLAlchemy: every change that the database made is recorded once, and nothing else."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
from collections import Counter as Multiset
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, ClassVar

import documents
import pytest
from conftest import fill_disk
from documents import Author, Base, Counter, Document, Note, Tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    JSON,
    ForeignKey,
    Integer,
    String,
    TypeDecorator,
    bindparam,
    create_engine,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.event import listen
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from strategies import examples

from structlog_audit import AuditHandler, AuditTypeError, AuditValueError, AuditWriteError
from structlog_audit.contrib import sqlalchemy as tracking
from structlog_audit.contrib.actor import bind_actor
from structlog_audit.contrib.sqlalchemy import track


def database(path):
    """Yield the engine of an SQLite database with the tables, and triggers that see their changes."""
    made = create_engine(f"sqlite:///{path}")
    documents.use_savepoints(made)
    documents.prepare(made)
    yield made
    made.dispose()


@pytest.fixture
def engine(tmp_path):
    """The engine of a database."""
    yield from database(tmp_path / "documents.sqlite3")


@pytest.fixture
def other_engine(tmp_path):
    """The engine of a second database like the first one."""
    yield from database(tmp_path / "others.sqlite3")


def run_at_random(seed, handler, *engines):
    """Run random operations in two databases, and return the changes in the events and those that triggers saw."""
    handler.clear()
    for engine in engines:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM seen"))

    documents.Operations(engines[0], seed, other=engines[1]).run(60)

    recorded = Multiset(documents.recorded_changes(handler.iter_events()))
    return recorded, Multiset(change for engine in engines for change in documents.seen_changes(engine))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(2), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_operations_are_recorded_as_the_triggers_saw_them(engine, other_engine, handler, seed):
    """Of random operations in transactions of two databases, the events are exactly the changes that triggers saw."""
    recorded, seen = run_at_random(seed, handler, engine, other_engine)
    assert recorded == seen


@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(1), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_operations_of_async_engines_are_recorded_as_the_triggers_saw_them(tmp_path, handler, seed):
    """What awaits the driver between statements changes nothing of this."""

    async def run():
        folder = mkdtemp(dir=tmp_path)
        made = [create_async_engine(f"sqlite+aiosqlite:///{folder}/{name}.sqlite3") for name in ("first", "other")]
        async with made[0].connect() as connection:
            found = await connection.run_sync(write, *[engine.sync_engine for engine in made])
        for engine in made:
            await engine.dispose()
        return found

    def write(_, *engines):
        for engine in engines:
            documents.use_savepoints(engine)
            documents.prepare(engine)
        return run_at_random(seed, handler, *engines)

    recorded, seen = asyncio.run(run())
    assert recorded == seen


# --- Transactions and the actor ---------------------------------------------------------------------------------------


@pytest.fixture
def session(engine, handler):
    """A session on the database."""
    with Session(engine) as made:
        yield made


@pytest.fixture
def events(handler):
    """A function that returns the events since its last call, as operations, entry ids and changes."""

    def take():
        found = [(event.operation, event.entry_ids, event.metadata["changes"]) for event in handler.iter_events()]
        handler.clear()
        return found

    return take


def names_after(found):
    return [changes["name"]["after"] for _, _, changes in found]


def test_change_is_recorded_after_the_commit_only(session, events):
    """A flush records nothing; the commit records its changes, in their order."""
    session.add(tag := Tag(name="a"))
    session.flush()
    tag.name = "b"
    session.flush()
    assert events() == []

    session.commit()
    assert [operation for operation, _, _ in events()] == ["tag.create", "tag.update"]


def test_transaction_that_is_rolled_back_is_not_recorded(session, events):
    """A rollback takes its changes with it, also those of a connection that is used again."""
    session.add(Tag(name="a"))
    session.flush()
    session.rollback()
    session.add(Tag(name="b"))
    session.commit()
    assert names_after(events()) == ["b"]


def test_transaction_that_only_the_pool_rolls_back_is_not_recorded(engine, events):
    """What a connection left behind without a commit is not recorded with the next transaction of the pool."""
    connection = engine.connect()
    connection.execute(insert(Tag).values(name="lost"))
    del connection
    gc.collect()

    with engine.begin() as connection:
        connection.execute(insert(Tag).values(name="kept"))
    assert names_after(events()) == ["kept"]


def test_savepoint_that_is_rolled_back_takes_its_changes_with_it(session, events):
    """A change in a savepoint that is rolled back is not recorded, nor are those of savepoints in it."""
    session.add(Tag(name="before"))
    session.flush()
    outer = session.begin_nested()
    session.add(Tag(name="outer"))
    with session.begin_nested():
        session.add(Tag(name="inner"))
    outer.rollback()
    session.add(Tag(name="after"))
    session.commit()
    assert names_after(events()) == ["before", "after"]


def test_session_in_an_outer_transaction_is_recorded_with_that(engine, events):
    """The commit of a session within the transaction of a connection commits nothing yet."""
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, join_transaction_mode="create_savepoint") as inner:
            inner.add(Tag(name="a"))
            inner.commit()
        transaction.rollback()
    assert events() == []


def test_commit_that_fails_is_not_recorded(engine, events):
    """A constraint that is checked at the commit fails there; then nothing has happened."""
    with engine.connect() as connection:
        sqlite_connection = connection.connection.dbapi_connection
        sqlite_connection.execute("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.execute(insert(Note).values(body="a", document_id=99))
        with pytest.raises(IntegrityError):
            connection.commit()
        connection.rollback()
        sqlite_connection.execute("PRAGMA foreign_keys = OFF")
    assert events() == []


def test_statement_that_begins_a_transaction_is_recorded(engine, events):
    """The statements of a connection begin its transactions, whatever kind they are."""
    with engine.connect() as connection:
        for statement in (insert(Tag).values(name="a"), update(Tag).values(name="b"), delete(Tag)):
            connection.execute(statement)
            connection.commit()
    assert [operation for operation, _, _ in events()] == ["tag.create", "tag.update", "tag.delete"]


def test_statement_in_autocommit_mode_is_recorded_at_once(engine, events):
    """Without transactions, each statement is committed."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(insert(Tag).values(name="a"))
        assert names_after(events()) == ["a"]


def test_statement_that_fails_is_not_recorded(session, events):
    """A statement that the database refuses leaves no event."""
    session.execute(insert(Author).values(name="a"))
    with pytest.raises(IntegrityError), session.begin_nested():
        session.execute(insert(Author).values(name="a"))
    session.commit()
    assert len(events()) == 1


def test_event_has_the_actor_of_its_statement(session, handler):
    """The context of the flush counts, not that of the commit."""
    for user in ("ada", "bob"):
        with bind_actor({"user_id": user}):
            session.add(Tag(name=user))
            session.flush()
    session.commit()
    assert [event.user_id for event in handler.iter_events()] == ["ada", "bob"]


def test_event_that_cannot_be_recorded_is_reported_after_the_commit(session, handler, tmp_path, monkeypatch):
    """With ``on_error="raise"`` the caller of the commit gets the AuditWriteError; the row is committed."""
    logger = logging.getLogger("audit")
    logger.removeHandler(handler)
    logger.addHandler(AuditHandler(filename=tmp_path / "audit.jsonl", on_error="raise"))
    session.add(Tag(name="a"))
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(AuditWriteError):
            session.commit()

    session.rollback()
    assert session.scalar(select(Tag.name)) == "a"


def test_async_session_is_recorded_with_its_actor(tmp_path, events, handler):
    """An async session writes by the same statements."""

    async def write():
        made = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.sqlite3")
        async with made.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        with bind_actor({"user_id": "ada"}):
            async with AsyncSession(made) as session:
                session.add(Tag(name="a"))
                await session.commit()
        await made.dispose()

    asyncio.run(write())
    assert [(event.operation, event.user_id) for event in handler.iter_events()] == [("tag.create", "ada")]


# --- What is recorded ---------------------------------------------------------------------------------------------------


def test_attributes_are_named_as_in_the_model(session, events):
    """A column with another name than its attribute is recorded by the attribute."""
    session.add(Document(body="a"))
    session.commit()

    assert events() == [
        (
            "document.create",
            ["document:1"],
            {
                "id": {"before": None, "after": 1},
                "kind": {"before": None, "after": "document"},
                "body": {"before": None, "after": "a"},
                "copies": {"before": None, "after": 0},
            },
        )
    ]


def test_value_that_was_not_loaded_is_recorded(session, events):
    """The value before comes from the database, not from the session."""
    session.add(tag := Tag(name="a"))
    session.commit()
    events()

    tag.name = "b"
    session.commit()

    assert events() == [("tag.update", ["tag:1"], {"name": {"before": "a", "after": "b"}})]


def test_pair_of_an_association_table_is_named_by_its_objects(session, events):
    """A row without a model has the entry ids of the rows that it refers to, with and without a key of its own."""
    session.add(document := Document(tags=[Tag(name="a")]))
    document.related = [document]
    session.commit()

    pairs = [
        (operation, entry_ids)
        for operation, entry_ids, _ in events()
        if operation in ("document_tag.create", "related.create")
    ]
    assert sorted(pairs) == [
        ("document_tag.create", ["document:1", "tag:1"]),
        ("related.create", ["document:1", "document:1"]),
    ]


def test_new_key_of_a_row_is_recorded_with_both_entry_ids(session, events):
    """An update of a part of the key is one event; a computed key is marked."""
    session.execute(insert(Counter).values(code="a", place=1, value=0))
    session.commit()
    events()

    session.execute(update(Counter).values(code="b"))
    session.commit()
    assert events() == [
        ("counter.update", ["counter:a,1", "counter:b,1"], {"code": {"before": "a", "after": "b"}}),
    ]

    session.execute(update(Counter).values(code=Counter.code + "c"), execution_options={"synchronize_session": False})
    session.commit()
    ((operation, entry_ids, changes),) = events()
    assert (operation, entry_ids) == ("counter.update", ["counter:b,1"])
    assert changes["code"] == {"before": "b", "after": "[result of an expression]"}


def test_upsert_is_recorded_as_create_or_update(session, events):
    """Each row of an upsert is recorded for what happened to it."""
    session.execute(insert(Author).values(name="a", score=1))
    session.commit()
    events()

    statement = sqlite.insert(Author)
    upsert = statement.on_conflict_do_update(index_elements=["name"], set_={"score": statement.excluded.score})
    session.execute(upsert, [{"name": "a", "score": 2}, {"name": "b", "score": 3}])
    session.commit()

    updated, created = events()
    assert (updated[0], updated[2]) == ("author.update", {"score": {"before": 1, "after": 2}})
    assert (created[0], created[2]["name"]) == ("author.create", {"before": None, "after": "b"})


def test_insert_that_returns_other_columns_than_the_key_is_refused(session):
    """The rows could not be named; the error says what to return."""
    with pytest.raises(AuditValueError, match=r"tracked tag: expected returning\(\) with its primary key"):
        session.execute(insert(Tag).values(name="a").returning(Tag.name))


def test_insert_that_returns_its_key_returns_it_to_the_caller(session, events):
    """Reading the returned rows leaves them for the caller."""
    rows = session.execute(insert(Tag).returning(Tag.name, Tag.id), [{"name": "a"}, {"name": "b"}])
    assert sorted(rows.all()) == [("a", 1), ("b", 2)]
    session.commit()
    assert names_after(events()) == ["a", "b"]


def test_statement_gets_the_rows_that_were_read_where_the_database_locks_them(session, engine, monkeypatch):
    """A row that appears after the query is left as it is: it has not been read."""
    session.execute(insert(Tag).values(name="a"))
    session.commit()
    statements = []
    listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    monkeypatch.setattr(engine.dialect, "name", "postgresql")

    session.execute(update(Tag).values(name="b"), execution_options={"synchronize_session": False})

    assert [statement for statement in statements if statement.startswith("UPDATE") and "tag.id IN" in statement]


def test_each_set_of_parameters_gets_its_rows_where_the_database_locks_them(session, engine, events, monkeypatch):
    """A row that appears between the query and the statement is not changed unseen, however many sets there are."""
    session.execute(insert(Tag), [{"name": "a"}, {"name": "a"}, {"name": "b"}])
    session.commit()
    events()
    appeared = []

    def insert_another(connection, cursor, statement, *_):
        if statement.startswith("UPDATE") and not appeared:
            appeared.append(statement)
            connection.exec_driver_sql("INSERT INTO tag (name) VALUES ('b')")

    listen(engine, "before_cursor_execute", insert_another)
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    rows = [{"old": "a", "new": "x"}, {"old": "b", "new": "y"}, {"old": "c", "new": "z"}]
    query = update(Tag.__table__).where(Tag.name == bindparam("old")).values(name=bindparam("new"))
    session.connection().execute(query, rows)
    session.commit()

    assert appeared
    assert names_after(events()) == ["x", "x", "y"]
    assert session.scalars(select(Tag.name).order_by(Tag.id)).all() == ["x", "x", "y", "b"]


@pytest.mark.parametrize(("most", "is_limited"), [(400, True), (399, False)])
def test_sets_of_parameters_are_limited_to_their_rows_up_to_a_number_of_all_parameters(monkeypatch, most, is_limited):
    """Each set gets as many parameters as the largest one needs: two parts of a key for each of 100 rows, and two sets."""
    monkeypatch.setattr(tracking, "_MOST_LIMITS", most)
    query = update(Counter.__table__).where(Counter.value == bindparam("old")).values(value=bindparam("new"))
    parameters = [{"old": 1, "new": 2}, {"old": 3, "new": 4}]
    before = [{(f"{number}", 1): {} for number in range(100)}, {}]

    table = tracking._table_of(Counter.__table__)
    limited, given = tracking._limit_each(table, query, parameters, before)

    assert (limited is not query) == is_limited
    assert [len(values) for values in given] == ([202, 202] if is_limited else [2, 2])


def test_private_members_of_sqlalchemy_that_are_used_are_listed_and_exist():
    """A version of SQLAlchemy without one of these members fails here, and a further one must be listed."""
    for owner, names in tracking._PRIVATE.items():
        assert {name for name in names if not hasattr(owner, name)} == set()

    # Private to this module, or documented: those of Python, of a named tuple and of a row.
    tree = ast.parse(Path(tracking.__file__).read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | {
        "__eq__",
        "__name__",
        "__subclasses__",
        "_replace",
        "_mapping",
    }
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert used - own == set().union(*tracking._PRIVATE.values())


@pytest.fixture
def models(monkeypatch):
    """A base of its own, and a registry that ends with the test."""

    class Own(DeclarativeBase):
        pass

    class Account(Own):
        __tablename__ = "account"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        pin: Mapped[str | None]
        seen: Mapped[int] = mapped_column(default=0)

    class Special(Account):
        __tablename__ = "special"
        id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)

    class Plain(Account):
        pass

    monkeypatch.setattr(tracking, "_tracked", dict(tracking._tracked))
    yield SimpleNamespace(Own=Own, Account=Account, Special=Special, Plain=Plain)
    tracking._forget_tables()


def test_masked_values_are_not_in_events_and_excluded_attributes_are_not_mentioned(models, handler, events):
    """A masked attribute shows that it changed; an excluded one does not, and its change alone is not an event."""
    assert track(models.Account, exclude=["seen"], mask=["pin"]) is models.Account
    made = create_engine("sqlite://")
    models.Own.metadata.create_all(made)
    with Session(made) as session:
        session.add(account := models.Account(name="a", pin="1234"))
        session.commit()
        account.seen = 1
        session.commit()
        account.pin = "5678"
        session.commit()

    (_, _, created), updated = events()
    assert created == {
        "id": {"before": None, "after": 1},
        "name": {"before": None, "after": "a"},
        "pin": {"before": None, "after": "[redacted]"},
    }
    assert updated == ("account.update", ["account:1"], {"pin": {"before": "[redacted]", "after": "[redacted]"}})
    made.dispose()


def test_choice_of_a_model_takes_precedence_over_that_of_its_base(models, events, handler):
    """A base stands for its other models; tracking both records a change once."""
    track(models.Own)
    track(models.Account, fields=["name"])
    track(models.Account, fields=["name"])
    made = create_engine("sqlite://")
    models.Own.metadata.create_all(made)
    with Session(made) as session:
        session.add(models.Special(name="a"))
        session.commit()

    assert events() == [
        ("account.create", ["account:1"], {"name": {"before": None, "after": "a"}}),
        ("special.create", ["special:1"], {"id": {"before": None, "after": 1}}),
    ]
    made.dispose()


def test_model_that_is_declared_later_is_tracked_by_its_base(models, events, handler):
    """A base stands for all of its models."""
    track(models.Own)
    made = create_engine("sqlite://")
    with Session(made) as session:

        class Late(models.Own):
            __tablename__ = "late"
            id: Mapped[int] = mapped_column(primary_key=True)

        models.Own.metadata.create_all(made)
        session.add(Late())
        session.commit()

    assert [operation for operation, _, _ in events()] == ["late.create"]
    made.dispose()


def test_model_whose_relations_are_declared_later_can_be_tracked(models):
    """A decorator runs before the classes below it exist."""

    @track
    class Early(models.Own):
        __tablename__ = "early"
        id: Mapped[int] = mapped_column(primary_key=True)
        others: Mapped[list[Other]] = relationship("Other")

    class Other(models.Own):
        __tablename__ = "other"
        id: Mapped[int] = mapped_column(primary_key=True)
        early_id: Mapped[int] = mapped_column(ForeignKey("early.id"))

    assert Early in tracking._tracked


def test_masked_attribute_of_a_child_in_the_table_of_its_parent_shows_no_value(models, events, handler):
    """The column is named by the attribute that only the child has."""

    class Clerk(models.Account):
        wage: Mapped[str | None] = mapped_column("wage_column")

    track(models.Account, mask=["wage"])
    made = create_engine("sqlite://")
    models.Own.metadata.create_all(made)
    with Session(made) as session:
        session.add(Clerk(name="a", wage="1234"))
        session.commit()

    ((_, _, changes),) = events()
    assert changes["wage"] == {"before": None, "after": "[redacted]"}
    made.dispose()


def test_child_with_a_complete_table_is_tracked_without_its_parent(models, events, handler):
    """With concrete inheritance no attribute is in the table of the parent."""

    class Foreign(models.Account):
        __tablename__ = "foreign_account"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        __mapper_args__: ClassVar = {"concrete": True}

    track(Foreign)
    made = create_engine("sqlite://")
    models.Own.metadata.create_all(made)
    with Session(made) as session:
        session.add_all([Foreign(name="a"), models.Account(name="b")])
        session.commit()

    assert [operation for operation, _, _ in events()] == ["foreign_account.create"]
    made.dispose()


def test_rows_are_read_in_the_schema_that_the_statement_writes_to(engine, events):
    """A connection may translate the names of schemas, as applications with one for each tenant do."""
    with engine.connect() as plain:
        plain.exec_driver_sql("ATTACH ':memory:' AS tenant")
        connection = plain.execution_options(schema_translate_map={None: "tenant"})
        Tag.__table__.create(connection)
        connection.execute(insert(Tag).values(id=1, name="a"))
        connection.execute(update(Tag).values(name="b"))
        connection.commit()
    assert names_after(events()) == ["a", "b"]


def test_table_that_is_found_while_models_are_configured_is_looked_up_again(models, monkeypatch):
    """Another thread may configure further models between the search for a table and its end."""
    table = models.Account.__table__
    assert tracking._table_of(table) is None

    def find(_):
        track(models.Account)
        yield None

    tracking._forget_tables()
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_find_table", find)
        assert tracking._table_of(table) is None
    assert tracking._table_of(table).label == "account"


def test_dialect_is_followed_once(session, engine):
    """Further statements add nothing to its methods."""
    session.execute(insert(Tag).values(name="a"))
    followed = engine.dialect.do_commit
    session.execute(insert(Tag).values(name="b"))
    assert engine.dialect.do_commit is followed


def test_untracked_table_and_sql_as_text_are_not_recorded(models, session, events):
    """Other tables, and statements that are text, leave no events."""
    models.Account.__table__.create(session.connection())
    session.add(models.Account(name="a"))
    session.execute(text("INSERT INTO tag (name) VALUES ('a')"))
    session.commit()
    assert events() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fields": ["nme"]}, AuditValueError, "expected names of id, name, pin, seen, got nme"),
        ({"mask": "pin"}, AuditTypeError, "mask='pin': expected a list of names of fields"),
    ],
)
def test_wrong_choice_of_attributes_is_refused(models, options, error, message):
    """The error names the call, what was expected, and what was given."""
    with pytest.raises(error, match=rf"track\(Account\): .*{message}"):
        track(models.Account, **options)


def test_only_models_with_a_table_of_their_own_can_be_tracked(models):
    """Neither other classes nor children in the table of their parent can be tracked by themselves."""
    for wrong in (int, "tag", models.Account.__table__):
        with pytest.raises(AuditTypeError, match="expected a mapped class or a declarative base"):
            track(wrong)
    with pytest.raises(AuditTypeError, match=r"expected a model with a table of its own; track its parent Account$"):
        track(models.Plain)


@pytest.mark.parametrize("kind", [ARRAY(Integer), JSON()])
def test_key_of_values_that_are_not_hashable_is_refused(models, kind):
    """Rows are found again by their keys; a model that is declared later is refused with its first statement."""
    track(models.Own)

    class Keyed(models.Own):
        __tablename__ = "keyed"
        key: Mapped[Any] = mapped_column(kind, primary_key=True)

    message = f"tracked table keyed: expected a primary key of hashable .* got key of type {type(kind).__name__}$"
    for refused in (partial(track, Keyed), partial(tracking._table_of, Keyed.__table__)):
        with pytest.raises(AuditValueError, match=message):
            refused()


class Words(TypeDecorator):
    """A tuple that the database has as text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return " ".join(value)

    def process_result_value(self, value, dialect):
        return tuple(value.split())


def test_key_that_is_a_tuple_is_one_value(models, events, handler):
    """The row is found again by it, also when it changes, and when it is written as a list."""

    class Phrase(models.Own):
        __tablename__ = "phrase"
        words: Mapped[Any] = mapped_column(Words, primary_key=True)

    track(Phrase)
    table = Phrase.__table__
    made = create_engine("sqlite://")
    table.create(made)
    with made.begin() as connection:
        connection.execute(insert(table).values(words=("a", "b")))
        connection.execute(update(table).values(words=("c", "d")))
        connection.execute(update(table).values(words=["e", "f"]))
        connection.execute(delete(table))
    made.dispose()

    found = [entry_ids for _, entry_ids, _ in events()]
    moved = [["phrase:a,b", "phrase:c,d"], ["phrase:c,d", "phrase:e,f"]]
    assert found == [["phrase:a,b"], *moved, ["phrase:e,f"]]


class Opaque:
    """Is equal to itself alone."""

    def __init__(self, text):
        self.text = text


class AsOpaque(TypeDecorator):
    """Text that is an object in Python, which this type compares."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value.text

    def process_result_value(self, value, dialect):
        return Opaque(value)

    def compare_values(self, x, y):
        return x.text == y.text


def test_objects_that_python_cannot_compare_are_compared_by_their_type(models, events, handler):
    """A value that is stored as it was is no change; another one is."""

    class Holder(models.Own):
        __tablename__ = "holder"
        id: Mapped[int] = mapped_column(primary_key=True)
        value: Mapped[Any] = mapped_column(AsOpaque)

    track(Holder)
    table = Holder.__table__
    made = create_engine("sqlite://")
    table.create(made)
    with made.begin() as connection:
        connection.execute(insert(table).values(id=1, value=Opaque("a")))
        connection.execute(update(table).values(value=Opaque("a")))
        connection.execute(update(table).values(value=Opaque("b")))
    made.dispose()

    assert [operation for operation, _, _ in events()] == ["holder.create", "holder.update"]


def test_key_that_is_not_recorded_is_not_in_the_changes_if_an_expression_changes_it(models, events, handler):
    """The entry id names the row in any case."""
    track(models.Account, fields=["name"])
    table = models.Account.__table__
    made = create_engine("sqlite://")
    table.create(made)
    with made.begin() as connection:
        connection.execute(insert(table).values(id=1, name="a"))
        connection.execute(update(table).values(id=table.c.id + 100, name="b"))
    made.dispose()

    assert events()[1:] == [("account.update", ["account:1"], {"name": {"before": "a", "after": "b"}})]


def test_child_of_an_untracked_parent_is_refused(models):
    """A part of the child's attributes would be missing."""
    with pytest.raises(AuditValueError, match=r"track\(Special\): its parent Account holds part of its attributes"):
        track(models.Special)
