"""`track` of Django: every change that the database made is recorded once, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Multiset
from contextlib import suppress

import django
import pytest
from conftest import fill_disk
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import F, Model, Value
from django.db.models.functions import Concat
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import examples

from structlog_audit import AuditHandler, AuditTypeError, AuditValueError, AuditWriteError
from structlog_audit.catalogue import catalogue, compare
from structlog_audit.contrib.actor import bind_actor
from structlog_audit.contrib.django import track
from structlog_audit.events.operation_classes import registered_operations

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def shop(project, handler):
    """The models of the shop, with empty tables."""
    from django.db import connections
    from shop import models as tracked

    yield tracked
    for alias in ("default", "other"):
        with connections[alias].constraint_checks_disabled(), connections[alias].cursor() as cursor:
            for table in connections[alias].introspection.table_names():
                if table.startswith("shop_"):
                    cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture
def events(handler):
    """A function that returns the events since its last call, as operations, entry ids and changes."""

    def take():
        found = [(event.operation, event.entry_ids, event.metadata["changes"]) for event in handler.iter_events()]
        handler.clear()
        return found

    return take


@pytest.fixture(scope="module")
def triggers(project):
    """Triggers that see what the database does; dropped at the end."""
    from django.db import connections
    from shop import random_operations

    random_operations.prepare()
    yield
    for database in connections.all():
        with database.cursor() as cursor:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'seen_%'")
            for (name,) in cursor.fetchall():
                cursor.execute(f'DROP TRIGGER "{name}"')
            cursor.execute("DROP TABLE seen")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(2), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_operations_are_recorded_as_the_triggers_saw_them(shop, triggers, handler, seed):
    """Of random operations in transactions and savepoints, the events are exactly the changes that triggers saw."""
    from shop.random_operations import Operations, forget_changes, recorded_changes, seen_changes

    handler.clear()
    forget_changes()

    Operations(seed).run(60)

    recorded = Multiset(recorded_changes(handler.iter_events()))
    assert recorded == Multiset(seen_changes())


# --- Transactions and the actor ---------------------------------------------------------------------------------------


def test_change_is_recorded_after_the_commit_only(shop, events):
    """Within a transaction nothing is recorded; after its commit, its changes are, in their order."""
    with transaction.atomic():
        shop.Untracked.objects.create(text="a")
        tag = shop.Tag.objects.create(name="a")
        tag.name = "b"
        tag.save()
        assert events() == []

    assert [operation for operation, _, _ in events()] == ["shop.tag.create", "shop.tag.update"]


def test_savepoint_that_is_rolled_back_takes_its_changes_with_it(shop, events):
    """A change in a savepoint that is rolled back is not recorded; the others of its transaction are."""
    with transaction.atomic():
        shop.Tag.objects.create(name="before")
        with suppress(KeyError), transaction.atomic():
            with transaction.atomic():
                shop.Tag.objects.create(name="inside")
            raise KeyError
        shop.Tag.objects.create(name="after")

    assert [changes["name"]["after"] for _, _, changes in events()] == ["before", "after"]


def test_statement_that_fails_is_not_recorded(shop, events):
    """A statement that the database refuses leaves no event, and the same error as without tracking."""
    shop.Tag.objects.create(name="a")
    events()

    with pytest.raises(IntegrityError):
        shop.Tag.objects.create(name="a")

    assert events() == []


def test_failed_statement_without_savepoint_breaks_its_transaction_as_without_tracking(shop):
    """After an error in a transaction, Django refuses further queries until its end."""
    shop.Tag.objects.create(name="a")
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            shop.Tag.objects.create(name="a")
        with pytest.raises(transaction.TransactionManagementError):
            shop.Tag.objects.count()
        transaction.set_rollback(True)


def test_event_has_the_actor_of_its_statement(shop, handler):
    """The context of the statement counts, not that of the commit."""
    with transaction.atomic():
        with bind_actor({"user_id": "ada", "request_id": "r1"}):
            shop.Tag.objects.create(name="a")
        with bind_actor({"user_id": "bob"}):
            shop.Tag.objects.create(name="b")

    found = list(handler.iter_events())
    assert [event.user_id for event in found] == ["ada", "bob"]
    assert found[0].metadata["request_id"] == "r1"


def test_change_in_another_database_waits_for_its_commit_and_names_it(shop, handler):
    """The transaction of the database that is written to decides, and the event names that database."""
    with suppress(KeyError), transaction.atomic(using="other"):
        with transaction.atomic():
            shop.Tag.objects.create(name="a")
        shop.Tag.objects.using("other").create(name="b")
        raise KeyError
    shop.Tag.objects.using("other").create(name="c")

    found = [
        (event.metadata["changes"]["name"]["after"], event.metadata.get("database")) for event in handler.iter_events()
    ]
    assert found == [("a", None), ("c", "other")]


def test_event_that_cannot_be_recorded_is_reported_after_the_commit(shop, handler, tmp_path, monkeypatch):
    """With ``on_error="raise"`` the caller of a write gets the AuditWriteError; the row is committed."""
    logger = logging.getLogger("audit")
    logger.removeHandler(handler)
    logger.addHandler(AuditHandler(filename=tmp_path / "audit.jsonl", on_error="raise"))
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(AuditWriteError):
            shop.Tag.objects.create(name="a")

    assert shop.Tag.objects.filter(name="a").exists()


def test_write_in_a_manual_transaction_is_refused(shop):
    """Django runs no function after the commit of a manual transaction, with or without a block in it."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(AuditValueError, match="expected autocommit, with or without atomic"):
            shop.Tag.objects.create(name="a")
        with (
            transaction.atomic(),
            pytest.raises(AuditValueError, match="got manual transactions, whose commits Django does not report"),
        ):
            shop.Tag.objects.create(name="a")
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert not shop.Tag.objects.exists()


def test_asynchronous_write_has_the_actor_of_its_task(shop, handler):
    """A write that Django runs in another thread has the context of its caller."""

    async def write():
        with bind_actor({"user_id": "ada"}):
            await shop.Tag.objects.acreate(name="a")

    asyncio.run(write())
    assert [event.user_id for event in handler.iter_events()] == ["ada"]


# --- What is recorded ---------------------------------------------------------------------------------------------------


def test_created_object_is_recorded_with_all_values_of_its_row(shop, events):
    """A create states the key that the database assigned, and each value that is not null."""
    document = shop.Document.objects.create(text="a")

    assert events() == [
        (
            "shop.document.create",
            [f"shop.document:{document.pk}"],
            {
                "id": {"before": None, "after": document.pk},
                "text": {"before": None, "after": "a"},
                "copies": {"before": None, "after": 0},
            },
        )
    ]


def test_expression_is_recorded_with_its_result(shop, events):
    """The value after an expression is what the database computed."""
    author = shop.Author.objects.create(name="a", score=2)
    events()

    shop.Author.objects.update(score=F("score") * 10)

    assert events() == [("shop.author.update", [f"shop.author:{author.pk}"], {"score": {"before": 2, "after": 20}})]


def test_save_records_the_fields_that_were_written_only(shop, events):
    """A changed attribute that ``update_fields`` leaves out is not in the event."""
    author = shop.Author.objects.create(name="a")
    events()

    author.name, author.score = "b", 1
    author.save(update_fields=["score"])

    assert [changes for _, _, changes in events()] == [{"score": {"before": 0, "after": 1}}]


def test_write_that_changes_nothing_is_not_recorded(shop, events):
    """A save of the same values is not an event, whatever types the attributes have."""
    account = shop.Account.objects.create(name="a", price="1.5", settings={"a": [1, None]})
    events()

    account.save()
    shop.Account.objects.update(price=F("price") * 1)

    assert events() == []


def test_json_values_that_are_equal_in_python_only_are_recorded(shop, events):
    """In JSON, true and 1 differ."""
    account = shop.Account.objects.create(settings={"on": 1})
    events()

    account.settings = {"on": True}
    account.save()

    assert [changes for _, _, changes in events()] == [{"settings": {"before": {"on": 1}, "after": {"on": True}}}]


def test_masked_values_are_not_in_events_and_excluded_fields_are_not_mentioned(shop, events):
    """A masked field shows that it changed; an excluded one does not."""
    account = shop.Account.objects.create(name="a", pin="1234", seen=1)
    (operation, _, created), *_ = events()
    assert operation == "shop.account.create"
    assert created["pin"] == {"before": None, "after": "[redacted]"}
    assert "seen" not in created

    shop.Account.objects.update(pin="5678", seen=2)
    shop.Account.objects.update(seen=3)
    assert events() == [
        (
            "shop.account.update",
            [f"shop.account:{account.pk}"],
            {"pin": {"before": "[redacted]", "after": "[redacted]"}},
        )
    ]


def test_masked_relation_shows_neither_keys_nor_objects(shop, events):
    """A masked many-to-many field states that objects were added, not which."""
    account = shop.Account.objects.create(name="a")
    author = shop.Author.objects.create(name="b")
    events()

    account.friends.add(author)

    entry_ids = [f"shop.account:{account.pk}"]
    assert events() == [("shop.account.update", entry_ids, {"friends": {"added": "[redacted]"}})]


def test_relation_is_recorded_at_the_model_with_the_field_from_either_side(shop, events):
    """An event of a many-to-many field names the object with the field first, then the related ones."""
    document = shop.Document.objects.create()
    tag = shop.Tag.objects.create(name="a")
    events()
    entry_ids = [f"shop.document:{document.pk}", f"shop.tag:{tag.pk}"]

    tag.document_set.add(document)
    assert events() == [("shop.document.update", entry_ids, {"tags": {"added": [tag.pk]}})]

    document.tags.clear()
    assert events() == [("shop.document.update", entry_ids, {"tags": {"removed": [tag.pk]}})]


def test_delete_records_all_that_goes_with_the_object(shop, events):
    """Cascades, fast deletes and relations of a deleted object are recorded as well."""
    author = shop.Author.objects.create(name="a")
    document = shop.Document.objects.create(author=author)
    document.note_set.create(text="n")
    document.tags.create(name="t")
    other = shop.Document.objects.create(author=author)
    events()

    shop.Document.objects.filter(pk=document.pk).delete()
    assert sorted(operation for operation, _, _ in events()) == [
        "shop.document.delete",
        "shop.document.update",
        "shop.note.delete",
    ]

    author_id = author.pk
    author.delete()
    assert sorted((operation, entry_ids) for operation, entry_ids, _ in events()) == [
        ("shop.author.delete", [f"shop.author:{author_id}"]),
        ("shop.document.update", [f"shop.document:{other.pk}"]),
    ]


def test_new_key_of_an_object_is_recorded_with_both_entry_ids(shop, events):
    """An update of the primary key is one event, which names the object by both keys."""
    shop.Counter.objects.create(code="a")
    events()

    shop.Counter.objects.filter(pk="a").update(code="b", value=1)

    changes = {"code": {"before": "a", "after": "b"}, "value": {"before": 0, "after": 1}}
    assert events() == [("shop.counter.update", ["shop.counter:a", "shop.counter:b"], changes)]


def test_key_that_an_expression_changes_is_marked(shop, events):
    """The row with a computed key cannot be found again; the event says that an expression changed the key."""
    shop.Counter.objects.create(code="a")
    events()

    shop.Counter.objects.update(code=Concat("code", Value("1")))

    changes = {"code": {"before": "a", "after": "[result of an expression]"}}
    assert events() == [("shop.counter.update", ["shop.counter:a"], changes)]


@pytest.mark.parametrize(("value", "after"), [(5, 5), (F("value") + 5, "[result of an expression]")])
def test_value_that_is_written_with_a_computed_key_is_recorded(shop, events, value, after):
    """Of a row that cannot be found again, what the statement states is known, and that it wrote the rest."""
    shop.Counter.objects.create(code="a")
    events()

    shop.Counter.objects.update(code=Concat("code", Value("1")), value=value)

    ((_, _, changes),) = events()
    assert changes["value"] == {"before": 0, "after": after}


def test_key_that_is_not_recorded_is_not_in_the_changes_if_an_expression_changes_it(shop, events, monkeypatch):
    """The entry id names the row in any case."""
    from structlog_audit.contrib.django import tracking

    monkeypatch.setattr(tracking, "_tracked", dict(tracking._tracked))
    track(shop.Counter, exclude=["code"])
    shop.Counter.objects.create(code="a")
    events()

    shop.Counter.objects.update(code=Concat("code", Value("1")), value=1)

    assert events() == [("shop.counter.update", ["shop.counter:a"], {"value": {"before": 0, "after": 1}})]


@pytest.mark.skipif(django.VERSION < (5, 2), reason="has no keys of several fields")
def test_part_of_a_key_is_recorded_with_both_entry_ids(project, events):
    """A key of several fields names the object by all of them, and each of them can change."""
    with isolate_apps("shop"):

        class Part(Model):
            pk = models.CompositePrimaryKey("place", "number")
            place = models.TextField()
            number = models.IntegerField()

            class Meta:
                app_label = "shop"

        track(Part)
        with connection.schema_editor() as editor:
            editor.create_model(Part)
        Part.objects.create(place="a", number=1)
        Part.objects.update(number=2)
        Part.objects.update(number=F("number") + 1)
        Part.objects.all().delete()
        with connection.schema_editor() as editor:
            editor.delete_model(Part)

    created, updated, computed, deleted = events()
    assert created[:2] == ("shop.part.create", ["shop.part:a,1"])
    assert updated == ("shop.part.update", ["shop.part:a,1", "shop.part:a,2"], {"number": {"before": 1, "after": 2}})
    marked = {"number": {"before": 2, "after": "[result of an expression]"}}
    assert computed == ("shop.part.update", ["shop.part:a,2"], marked)
    assert deleted[:2] == ("shop.part.delete", ["shop.part:a,3"])


def test_bulk_create_without_conflicts_returns_the_keys_as_without_tracking(shop):
    """Objects get the keys that the database assigned."""
    tags = shop.Tag.objects.bulk_create([shop.Tag(name="a"), shop.Tag(name="b")])
    assert {tag.pk: tag.name for tag in tags} == dict(shop.Tag.objects.values_list("pk", "name"))


def test_ignored_conflict_is_not_recorded(shop, events):
    """Of objects that conflict, those that the database inserted are recorded; a single one may be none of them."""
    shop.Tag.objects.create(name="a")
    events()

    shop.Tag.objects.bulk_create([shop.Tag(name="a"), shop.Tag(name="b")], ignore_conflicts=True)
    assert [changes["name"]["after"] for _, _, changes in events()] == ["b"]

    shop.Tag.objects.bulk_create([shop.Tag(name="a")], ignore_conflicts=True)
    assert events() == []


UPSERT = {"update_conflicts": True, "unique_fields": ["name"], "update_fields": ["score"]}


def test_upsert_is_recorded_as_create_or_update(shop, events):
    """Each row of an upsert is recorded for what happened to it."""
    shop.Author.objects.create(name="a", score=1)
    events()

    authors = [shop.Author(name="a", score=2), shop.Author(name="b", score=3)]
    shop.Author.objects.bulk_create(authors, **UPSERT)

    updated, created = events()
    assert (updated[0], updated[2]) == ("shop.author.update", {"score": {"before": 1, "after": 2}})
    assert (created[0], created[2]["name"]) == ("shop.author.create", {"before": None, "after": "b"})


@pytest.mark.parametrize(("options", "queries"), [({}, 0), ({"ignore_conflicts": True}, 0), (UPSERT, 1)])
def test_insert_reads_no_rows_except_an_upsert_which_reads_once(shop, options, queries):
    """All other rows are returned by the INSERT itself."""
    with CaptureQueriesContext(connection) as captured:
        shop.Author.objects.bulk_create([shop.Author(name="a"), shop.Author(name="b")], **options)
    assert sum(query["sql"].startswith("SELECT") for query in captured) == queries


def test_upsert_without_named_target_finds_conflicts_by_every_key(shop):
    """A database that accepts no target for conflicts has a conflict at each unique key."""
    from structlog_audit.contrib.django.tracking import _unique_keys

    keys = [[field.name for field in key] for key in _unique_keys(shop.Document.tags.through._meta)]
    assert keys == [["id"], ["document", "tag"]]
    if django.VERSION >= (5, 2):
        assert [[field.name for field in key] for key in _unique_keys(shop.Place._meta)] == [["row", "name"]]


def test_more_rows_than_a_query_can_name_are_all_recorded(shop, events):
    """An update of many rows reads them in several queries."""
    shop.Author.objects.bulk_create([shop.Author(name=str(number)) for number in range(1_100)])
    events()

    shop.Author.objects.update(score=1)

    assert len(events()) == 1_100


def test_proxy_is_recorded_as_the_model_with_its_table(shop, events):
    """Writes through a proxy are those of its model."""
    shop.Archived.objects.create(name="a")
    assert [operation for operation, _, _ in events()] == ["shop.author.create"]


def test_model_of_a_data_migration_is_recorded(shop, events):
    """Models that a migration makes have the label of the tracked one."""
    state = ProjectState.from_apps(apps)
    state.apps.get_model("shop", "Tag").objects.create(name="a")
    assert [operation for operation, _, _ in events()] == ["shop.tag.create"]


def test_untracked_model_and_raw_sql_are_not_recorded(shop, events):
    """Other models, and SQL that does not come from the ORM, leave no events."""
    shop.Untracked.objects.create(text="a")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop_tag (name) VALUES ('a')")
    assert events() == []


def test_catalogue_knows_the_operations_of_tracked_models(shop, handler):
    """Events of each kind are counted as changes of the models that the source tracks."""
    document = shop.Document.objects.create(text="a")
    document.tags.create(name="b")
    document.delete()

    compared = compare(catalogue(shop.__file__), handler)

    assert compared.is_declared
    assert compared.tracked == {
        "shop.document.create": 1,
        "shop.document.delete": 1,
        "shop.document.update": 2,
        "shop.tag.create": 1,
    }


def test_operations_of_changes_are_classified(shop, events):
    """The shared table of classes knows the operations, so that reports can count them."""
    classes = registered_operations()
    found = [classes.class_of(f"shop.document.{verb}") for verb in ("create", "update", "delete")]
    assert found == ["create", "update", "delete"]


def test_database_that_returns_no_rows_is_refused_before_the_write(shop, monkeypatch):
    """Without the rows of an INSERT its changes are unknown: the error names the databases that return them."""
    monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
    with pytest.raises(AuditValueError, match=r"database 'default': expected one that returns the rows .* got SQLite"):
        shop.Tag.objects.create(name="a")
    assert not shop.Tag.objects.exists()


def test_database_that_can_lock_rows_gets_statements_for_the_read_rows_only(shop, events, monkeypatch):
    """A row that appears between the query and the UPDATE is left as it is: it has not been read."""
    shop.Author.objects.create(name="a")
    events()
    monkeypatch.setattr(connection.features, "has_select_for_update", True)
    monkeypatch.setattr(connection.ops, "for_update_sql", lambda **_: "")

    with CaptureQueriesContext(connection) as queries:
        assert shop.Author.objects.filter(name="none").update(score=1) == 0
        assert shop.Author.objects.update(score=1) == 1

    updates = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert "1 = 0" in updates[0]
    assert '"id" IN (' in updates[1]
    assert len(events()) == 1


# --- Arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fields": ["nme"]}, AuditValueError, "expected names of friends, id, name, .* got nme"),
        ({"exclude": ["a"], "mask": ["b"]}, AuditValueError, "got a, b"),
        ({"fields": ["name"], "exclude": ["pin"]}, AuditValueError, "expected fields= or exclude=, got both"),
        ({"mask": "pin"}, AuditTypeError, "mask='pin': expected a list of names of fields"),
        ({"fields": [1]}, AuditTypeError, r"fields=\[1\]: expected a list of names of fields"),
    ],
)
def test_wrong_choice_of_fields_is_refused(shop, options, error, message):
    """The error names the call, what was expected, and what was given."""
    with pytest.raises(error, match=rf"track\(Account\): .*{message}"):
        track(shop.Account, **options)


def test_only_models_with_a_table_can_be_tracked():
    """Anything else is a type error."""

    class Abstract(Model):
        class Meta:
            abstract = True

    for wrong in (Abstract, "shop.Tag", int):
        with pytest.raises(AuditTypeError, match="expected a "):
            track(wrong)


def test_key_of_values_that_are_not_hashable_is_refused(project):
    """Rows are found again by their keys."""
    with isolate_apps("shop"):

        class Keyed(Model):
            data = models.JSONField(primary_key=True)

            class Meta:
                app_label = "shop"

        with pytest.raises(AuditValueError, match=r"track\(Keyed\): .* hashable values, got data, a JSONField"):
            track(Keyed)


def test_child_of_an_untracked_parent_is_refused(project):
    """A part of the child's fields would be missing."""
    with isolate_apps("shop"):

        class Parent(Model):
            class Meta:
                app_label = "shop"

        class Child(Parent):
            class Meta:
                app_label = "shop"

        with pytest.raises(AuditValueError, match=r"track\(Child\): its parent shop.parent holds part of its fields"):
            track(Child)


def test_chosen_fields_are_recorded_alone(shop, events, monkeypatch):
    """With ``fields`` other fields do not appear, and changes of them are not events."""
    from structlog_audit.contrib.django import tracking

    monkeypatch.setattr(tracking, "_tracked", dict(tracking._tracked))
    track(shop.Account, fields=["name"])

    account = shop.Account.objects.create(name="a", pin="1")
    account.friends.add(shop.Author.objects.create(name="b"))
    shop.Account.objects.update(seen=1)

    found = [changes for operation, _, changes in events() if operation.startswith("shop.account")]
    assert found == [{"name": {"before": None, "after": "a"}}]
