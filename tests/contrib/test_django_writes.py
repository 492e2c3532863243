"""The writes and fields of Django, each with the changes that it makes."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress

import django
import pytest
from conftest import fill_disk
from django.core.files.base import ContentFile
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.models import Case, F, OuterRef, Subquery, Value, When
from django.db.models.functions import Upper
from django.test import TestCase
from django.test.utils import override_settings
from transaction_texts import all_texts, run_all

from structlog_audit import AuditHandler, AuditWriteError

pytestmark = pytest.mark.usefixtures("project")

KEY = uuid.UUID(int=1)

# Django 6.1 renamed it.
begin_savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint


@pytest.fixture
def shop(project, handler):
    """The models of the shop, with empty tables."""
    from shop import models as tracked

    yield tracked
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            if table.startswith("shop_"):
                cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture
def events(handler):
    """A function that returns the events since its last call, as operations and changes."""

    def take():
        found = [(event.operation, event.metadata["changes"]) for event in handler.iter_events()]
        handler.clear()
        return found

    return take


def updates(events):
    """Return the values before and after in the updates since the last call, by their fields."""
    found = events()
    assert all(operation.endswith(".update") for operation, _ in found)
    return [{name: (values["before"], values["after"]) for name, values in changes.items()} for _, changes in found]


def operations(events):
    return [operation.removeprefix("shop.") for operation, _ in events()]


# --- Fields ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def item(shop, events):
    """An object with values of several kinds."""
    made = shop.Item.objects.create(id=KEY, data={"a": 1}, file="old.txt", blob=b"\x00\x01")
    events()
    return made


def test_json_value_that_is_changed_in_place_is_recorded(item, events):
    """The value before comes from the database, not from the object that was changed."""
    item.data["a"] = 2
    item.save()
    assert updates(events) == [{"data": ({"a": 1}, {"a": 2})}]


def test_file_is_recorded_by_its_name(item, events):
    """A file that is stored or deleted changes the name in the row."""
    item.file.save("new.txt", ContentFile(b"content"))
    item.file.delete()
    assert updates(events) == [{"file": ("old.txt", "new.txt")}, {"file": ("new.txt", "")}]


@pytest.mark.parametrize("partly", [lambda items: items.only("number"), lambda items: items.defer("data", "file")])
def test_object_that_is_loaded_in_part_is_recorded_by_what_it_writes(shop, item, events, partly):
    """Deferred fields are not written, so they are not in the event."""
    loaded = partly(shop.Item.objects).get()
    loaded.number = 5
    loaded.save()
    assert updates(events) == [{"number": (1, 5)}]


def test_deferred_field_that_is_set_is_recorded_with_its_value_before(shop, item, events):
    """The object never had the value before; the database has."""
    loaded = shop.Item.objects.only("id").get()
    loaded.number = 5
    loaded.save()
    assert updates(events) == [{"number": (1, 5)}]


def test_bytes_are_recorded(item, events):
    """The value of a binary field is text in the event."""
    item.blob = b"\x02"
    item.save()
    assert updates(events) == [{"blob": ("AAE=", "Ag==")}]


@pytest.mark.skipif(django.VERSION < (5, 0), reason="defaults of the database are from Django 5.0")
def test_default_of_the_database_is_recorded(shop, events):
    """A value that the database chose is in the event; a generated column, which nothing writes, is not."""
    shop.Shelf.objects.create(name="a")
    shop.Shelf.objects.bulk_create([shop.Shelf(name="b")])
    for _, changes in events():
        after = {name: values["after"] for name, values in changes.items()}
        assert (after["code"], after["books"], "double" in after) == ("wood", 7, False)


@pytest.mark.skipif(django.VERSION < (5, 0), reason="defaults of the database are from Django 5.0")
def test_upsert_on_a_key_with_a_default_of_the_database_is_an_update(shop, events):
    """The conflict is found by the value that the database will use."""
    shop.Shelf.objects.create(name="a")
    events()

    shelves = [shop.Shelf(name="a", books=9)]
    options = {"unique_fields": ["code", "name"], "update_fields": ["books"]}
    shop.Shelf.objects.bulk_create(shelves, update_conflicts=True, **options)

    assert updates(events) == [{"books": (7, 9)}]


@pytest.mark.skipif(django.VERSION < (5, 0), reason="generated columns are from Django 5.0")
@pytest.mark.parametrize("title", ["TITLE", Upper(Value("title"))])
def test_upsert_on_a_key_that_the_database_generates_is_an_update(shop, events, title):
    """The conflict is found by the expression of the column, with the values that the statement inserts."""
    shop.Page.objects.create(title="Title")
    events()

    pages = [shop.Page(title=title, views=2), shop.Page(title="other")]
    options = {"unique_fields": ["slug"], "update_fields": ["views"]}
    shop.Page.objects.bulk_create(pages, update_conflicts=True, **options)

    (updated, changes), (created, _) = events()
    assert (updated, changes) == ("shop.page.update", {"views": {"before": 0, "after": 2}})
    assert created == "shop.page.create"


@pytest.mark.skipif(django.VERSION < (5, 0), reason="generated columns are from Django 5.0")
def test_upsert_on_a_column_that_is_generated_from_a_relation_is_an_update(shop, events):
    """The column of the relation, ``pk`` and the condition in the expression stand for values of the new row."""
    first, second = (shop.Author.objects.create(name=name) for name in "ab")
    shop.Ticket.objects.create(number=1, author=second)
    events()

    gap = second.pk - first.pk
    tickets = [shop.Ticket(number=gap * 100, author=first, seat=1, price=5)]
    shop.Ticket.objects.bulk_create(tickets, update_conflicts=True, unique_fields=["code"], update_fields=["price"])

    assert updates(events) == [{"price": (0, 5)}]


@pytest.mark.skipif(django.VERSION < (5, 2), reason="keys of several columns are from Django 5.2")
def test_composite_key_is_recorded_by_all_writes(shop, handler):
    """Both columns name the row, before and after a change of one of them."""
    place = shop.Place.objects.create(row=1, name="a")
    place.value = 1
    place.save()
    shop.Place.objects.bulk_update([shop.Place(row=1, name="a", value=2)], ["value"])
    shop.Place.objects.filter(pk=(1, "a")).update(name="b")
    conflicting = [shop.Place(row=1, name="b", value=3)]
    options = {"unique_fields": ["row", "name"], "update_fields": ["value"]}
    shop.Place.objects.bulk_create(conflicting, update_conflicts=True, **options)
    shop.Place.objects.all().delete()

    assert [(event.operation.removeprefix("shop.place."), event.entry_ids) for event in handler.iter_events()] == [
        ("create", ["shop.place:1,a"]),
        ("update", ["shop.place:1,a"]),
        ("update", ["shop.place:1,a"]),
        ("update", ["shop.place:1,a", "shop.place:1,b"]),
        ("update", ["shop.place:1,b"]),
        ("delete", ["shop.place:1,b"]),
    ]


# --- Relations ------------------------------------------------------------------------------------------------------------


def test_generic_relation_is_recorded_with_its_cascade(shop, events):
    """A row with a generic key is recorded as any other, also when its object is deleted."""
    group = shop.Group.objects.create()
    group.comments.create(text="a")
    group.delete()
    assert operations(events) == ["group.create", "comment.create", "comment.delete", "group.delete"]


@pytest.mark.parametrize("field", ["protected", "restricted"])
def test_deletion_that_a_relation_refuses_is_not_recorded(shop, events, field):
    """Django asks before it deletes anything."""
    author = shop.Author.objects.create(name="a")
    shop.Loan.objects.create(**{field: author})
    events()
    with pytest.raises(IntegrityError):
        author.delete()
    assert events() == []


def test_relation_that_a_deletion_sets_is_recorded(shop, events):
    """Rows that refer to the deleted object get the default, or the value of a function."""
    kept, author = (shop.Author.objects.create(name=name) for name in "ab")
    shop.Loan.objects.create(by_default=author, by_function=author)
    events()
    author_id = author.pk
    author.delete()
    found = [changes for operation, changes in events() if operation == "shop.loan.update"]
    values = {name: (values["before"], values["after"]) for changes in found for name, values in changes.items()}
    assert values == {"by_default": (author_id, None), "by_function": (author_id, kept.pk)}


def test_key_that_is_a_relation_can_be_set_to_an_object(shop, events):
    """The key of the object is the new key of the row."""
    first, second = (shop.Author.objects.create(name=name) for name in "ab")
    shop.Profile.objects.create(author=first)
    events()
    shop.Profile.objects.update(author=second)
    assert updates(events) == [{"author": (first.pk, second.pk)}]


def test_relation_to_another_field_than_the_key_is_recorded_by_that_field(shop, handler):
    """The column has the value of that field, so the entry ids have it where the relation is the key."""
    first, second = (shop.Author.objects.create(name=name) for name in "ab")
    shop.Badge.objects.create(author=first)
    handler.clear()

    shop.Badge.objects.update(author=second, sponsor=first)

    (event,) = handler.iter_events()
    assert event.entry_ids == ["shop.badge:a", "shop.badge:b"]
    assert {name: values["after"] for name, values in event.metadata["changes"].items()} == {
        "author": "b",
        "sponsor": "a",
    }


def test_relation_to_another_field_is_recorded_by_it_if_an_expression_changes_the_key(shop, events):
    """The row cannot be read again; the value that the statement writes is that of the field."""
    first, second = (shop.Author.objects.create(name=name) for name in "ab")
    shop.Badge.objects.create(author=first)
    events()

    shop.Badge.objects.update(author=Value("b"), sponsor=second)

    assert updates(events) == [{"author": ("a", "[result of an expression]"), "sponsor": (None, "b")}]


def test_relation_through_a_model_is_recorded_as_that_model(shop, events):
    """Its rows have fields of their own, so they are created and deleted, not added and removed."""
    author, group = shop.Author.objects.create(name="a"), shop.Group.objects.create()
    events()

    group.members.add(author, through_defaults={"role": "writer"})
    ((operation, changes),) = events()
    assert (operation, changes["role"]["after"]) == ("shop.membership.create", "writer")

    group.members.set([author], through_defaults={"role": "other"})
    shop.Membership.objects.filter(author__name="a").update(role="reader")
    group.members.clear()
    assert operations(events) == ["membership.update", "membership.delete"]


def test_child_whose_parent_is_kept_is_deleted_alone(shop, events):
    """Each of the two rows has its own event, if it is deleted."""
    contract = shop.Contract.objects.create(party="a")
    events()
    contract.delete(keep_parents=True)
    assert operations(events) == ["contract.delete"]


def test_child_updates_the_rows_of_both_tables(shop, events):
    """The fields of the parent are in the event of the parent's row."""
    shop.Contract.objects.create(party="a", text="b")
    events()
    shop.Contract.objects.update(party="c", text="d")
    assert updates(events) == [{"text": ("b", "d")}, {"party": ("a", "c")}]


# --- Statements -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda authors: authors.update(score=F("score") + 1), 3),
        (lambda authors: authors.update(score=Case(When(score__gt=1, then=Value(8)), default=F("score"))), 8),
        (lambda authors: authors.update(score=Subquery(authors.filter(pk=OuterRef("pk")).values("score")) * 5), 10),
        (lambda authors: authors.annotate(more=F("score") + 7).filter(more=9).update(score=F("more")), 9),
        (lambda authors: authors.order_by("-name").update(score=7), 7),
        (lambda authors: authors.distinct().update(score=7), 7),
        (lambda authors: authors.filter(pk__in=authors.all()[:1]).update(score=7), 7),
        (lambda authors: authors.update_or_create(name="a", defaults={"score": 7}), 7),
        (lambda authors: authors.bulk_update([authors.model(pk=authors.get().pk, score=7)], ["score"]), 7),
        (lambda authors: authors.bulk_update([authors.model(pk=authors.get().pk, score=F("score") * 2)], ["score"]), 4),
    ],
)
def test_update_of_any_kind_is_recorded_with_its_result(shop, events, change, after):
    """Whatever computes and selects, the event has the values of the row."""
    shop.Author.objects.create(name="a", score=2)
    events()
    change(shop.Author.objects.all())
    assert updates(events) == [{"score": (2, after)}]


def test_expression_that_is_saved_is_recorded_with_its_result(shop, events):
    """An attribute may be an expression until the save."""
    author = shop.Author.objects.create(name="a")
    events()
    author.name = Upper("name")
    author.save()
    assert updates(events) == [{"name": ("a", "A")}]


def test_asynchronous_writes_are_recorded(shop, events):
    """Each of them runs the statement of its counterpart."""

    async def write():
        author = shop.Author(name="a")
        await author.asave()
        author.score = 1
        await author.asave()
        await shop.Author.objects.abulk_create([shop.Author(name="b")])
        await shop.Author.objects.filter(name="b").aupdate(score=2)
        await shop.Author.objects.aupdate_or_create(name="b", defaults={"score": 3})
        await shop.Author.objects.aget_or_create(name="b")
        await author.adelete()

    asyncio.run(write())
    verbs = [operation.removeprefix("author.") for operation in operations(events)]
    assert verbs == ["create", "update", "create", "update", "update", "delete"]


class ToOther:
    """A router that lets all models be written to another database."""

    def db_for_write(self, model, **hints):
        return "other"


def test_change_in_the_database_of_a_router_names_it(shop, handler):
    """The database that the statement was executed in counts."""
    with override_settings(DATABASE_ROUTERS=[ToOther()]):
        author = shop.Author.objects.create(name="a")
        author.delete()
        shop.Author.objects.create(name="b")
    shop.Author.objects.using("other").update(score=5)
    found = list(handler.iter_events())
    assert [event.metadata["database"] for event in found] == ["other"] * 4
    assert found[-1].metadata["changes"] == {"score": {"before": 0, "after": 5}}


def test_statement_on_no_rows_is_not_recorded(shop, events):
    """Empty selections execute nothing that could be recorded."""
    assert shop.Author.objects.none().update(score=1) == 0
    assert shop.Author.objects.filter(pk__in=[]).delete() == (0, {})
    assert events() == []


def test_query_of_raw_sql_that_writes_is_not_recorded(shop, events):
    """SQL that the application wrote itself is not seen, whatever executes it."""
    shop.Author.objects.create(name="a")
    events()
    list(shop.Author.objects.raw("UPDATE shop_author SET score = 5 RETURNING id, name, score"))
    assert shop.Author.objects.get().score == 5
    assert events() == []


# --- Transactions ---------------------------------------------------------------------------------------------------------


def names(events):
    return [changes["name"]["after"] for _, changes in events()]


def test_savepoint_that_is_rolled_back_without_a_block_takes_its_changes_with_it(shop, events):
    """Django itself keeps what waits for the commit then."""
    with transaction.atomic():
        shop.Author.objects.create(name="a")
        outer = begin_savepoint()
        shop.Author.objects.create(name="b")
        inner = begin_savepoint()
        shop.Author.objects.create(name="c")
        transaction.savepoint_commit(inner)
        transaction.savepoint_rollback(outer)
        shop.Author.objects.create(name="d")
        kept = begin_savepoint()
        shop.Author.objects.create(name="e")
        transaction.savepoint_commit(kept)
    assert names(events) == ["a", "d", "e"]


def test_savepoint_that_is_rolled_back_keeps_functions_of_the_application(shop, events):
    """Only the changes of tracked models are removed; what else waits for the commit is Django's concern."""
    called = []
    with transaction.atomic():
        shop.Author.objects.create(name="a")
        savepoint = begin_savepoint()
        transaction.on_commit(lambda: called.append(1))
        shop.Author.objects.create(name="b")
        transaction.savepoint_rollback(savepoint)
    assert (names(events), called) == (["a"], [1])


def test_savepoint_of_an_earlier_transaction_does_not_count(shop, events):
    """A name that SQL uses again is that of the newer savepoint, which began before the first change."""
    for rolled_back in ("a", "b"):
        with suppress(KeyError), transaction.atomic(), connection.cursor() as cursor:
            if rolled_back == "a":
                shop.Author.objects.create(name="first")
            cursor.execute("SAVEPOINT mine")
            shop.Author.objects.create(name=rolled_back)
            cursor.execute("ROLLBACK TO SAVEPOINT mine")
            shop.Author.objects.create(name="c")
            if rolled_back == "a":
                raise KeyError
    assert names(events) == ["c"]


def test_function_that_fails_after_the_commit_does_not_hide_a_change(shop, events, caplog):
    """With ``robust=True``, Django continues with the functions after it."""
    with transaction.atomic():
        transaction.on_commit(lambda: 1 / 0, robust=True)
        shop.Author.objects.create(name="a")
    assert names(events) == ["a"]


def test_function_that_fails_first_does_not_hide_a_change(shop, events):
    """Django runs no function after one that fails, but the database has committed."""
    with suppress(ZeroDivisionError), transaction.atomic():
        transaction.on_commit(lambda: 1 / 0)
        shop.Author.objects.create(name="a")
    assert names(events) == ["a"]


def test_change_that_cannot_be_recorded_does_not_keep_functions_from_running(shop, tmp_path, handler, monkeypatch):
    """With ``on_error="raise"`` the caller gets the error of the trail when the functions of the application have run."""
    logger = logging.getLogger("audit")
    logger.removeHandler(handler)
    logger.addHandler(AuditHandler(filename=tmp_path / "audit.jsonl", on_error="raise"))
    called = []

    def write():
        with transaction.atomic():
            transaction.on_commit(lambda: called.append("before"))
            shop.Author.objects.create(name="a")
            transaction.on_commit(lambda: called.append("after"))
            fill_disk(patch)

    with monkeypatch.context() as patch, pytest.raises(AuditWriteError):
        write()
    assert called == ["before", "after"]


def test_commit_that_a_test_case_imitates_records_what_waits_for_it(shop, events):
    """The test cases of Django roll back all they did, and call the functions that wait for a commit if told to."""
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True):
            shop.Author.objects.create(name="a")
        shop.Author.objects.create(name="b")
        transaction.set_rollback(True)
    assert names(events) == ["a"]


@all_texts
def test_text_that_ends_a_transaction_or_a_part_of_it_is_followed(shop, events, statements, expected):
    """What the application executes by itself keeps or undoes changes as a block does."""
    with transaction.atomic(), connection.cursor() as cursor:
        run_all(statements, cursor.execute, lambda name: shop.Author.objects.create(name=name))
    assert names(events) == expected


def test_wrapper_of_a_block_is_removed_with_it(shop, events):
    """A block that wraps statements ends its own wrapper, also if the first tracked write is in it."""
    from structlog_audit.contrib.django import tracking

    connection.execute_wrappers.clear()
    tracking._watched.pop(connections["default"], None)
    seen = []

    def wrap(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrap):
        shop.Author.objects.create(name="a")
    count = len(seen)
    shop.Author.objects.create(name="b")

    assert count == len(seen) > 0
    assert names(events) == ["a", "b"]


def test_definition_of_a_table_records_at_once_where_it_commits(shop, events, monkeypatch):
    """MariaDB and MySQL commit before a definition; the changes are recorded once, whatever follows."""
    with suppress(KeyError), transaction.atomic(), connection.cursor() as cursor:
        shop.Author.objects.create(name="a")
        with monkeypatch.context() as patch:
            patch.setattr(connections["default"], "vendor", "mysql")
            cursor.execute("CREATE TABLE passing (id INTEGER)")
        assert names(events) == ["a"]
        raise KeyError
    assert events() == []


@pytest.mark.parametrize(("vendor", "expected"), [("postgresql", []), ("mysql", ["a"]), ("sqlite", ["a"])])
def test_commit_after_a_failed_statement_records_what_the_database_kept(shop, events, monkeypatch, vendor, expected):
    """PostgreSQL answers that commit by a rollback; others keep what was written before."""
    error = DatabaseError("failed")
    error.__cause__ = IntegrityError()
    error.__cause__.sqlstate = "23505"

    def fail(execute, sql, params, many, context):
        raise error

    with transaction.atomic():
        shop.Author.objects.create(name="a")
        with monkeypatch.context() as patch, suppress(DatabaseError), connection.execute_wrapper(fail):
            patch.setattr(connections["default"], "vendor", vendor)
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing")
    assert names(events) == expected


def test_error_of_the_driver_does_not_hide_the_failure_of_the_transaction_before_it(shop, events, monkeypatch):
    """What does not reach the server, an error or a statement without parameters, ends no failure."""
    failed = DatabaseError("failed")
    failed.__cause__ = IntegrityError()
    failed.__cause__.sqlstate = "23505"
    errors = [failed, DatabaseError("cannot adapt")]

    def fail(execute, sql, params, many, context):
        if many:
            return
        raise errors.pop(0)

    with transaction.atomic():
        shop.Author.objects.create(name="a")
        with monkeypatch.context() as patch, connection.execute_wrapper(fail), connection.cursor() as cursor:
            patch.setattr(connections["default"], "vendor", "postgresql")
            for _ in range(2):
                with suppress(DatabaseError):
                    cursor.execute("SELECT nothing")
            cursor.executemany("INSERT INTO shop_untracked (text) VALUES (%s)", [])
    shop.Author.objects.create(name="b")
    assert names(events) == ["b"]


def test_deadlock_takes_all_changes_of_the_transaction_with_it(shop, events, monkeypatch):
    """MariaDB and MySQL roll back the whole transaction; what follows is another one."""
    error = DatabaseError(1213, "Deadlock found")

    def fail(execute, sql, params, many, context):
        raise error

    with transaction.atomic():
        shop.Author.objects.create(name="a")
        with monkeypatch.context() as patch, suppress(DatabaseError), connection.execute_wrapper(fail):
            patch.setattr(connections["default"], "vendor", "mysql")
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing")
        shop.Author.objects.create(name="b")
    assert names(events) == ["b"]
