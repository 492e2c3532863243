"""Random operations on the models of the shop, and the changes that triggers of the database saw."""

from __future__ import annotations

import random
import string
import uuid
from contextvars import ContextVar

from asgiref.sync import async_to_sync
from django.core.files.base import ContentFile
from django.db import IntegrityError, connections, models, router, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from triggers import create_triggers, differences, json_text, seen_change

from . import models as shop
from .models import MODELS, Archived, Author, Contract, Counter, Document, Group, Item, Loan, Note, Tag


class RolledBackError(Exception):
    """Ends a block of operations as an error of the application would."""


current = ContextVar("current", default="default")
"""The database of the operations that name none."""


class ToCurrent:
    """A router that reads and writes where an object was loaded, else in the current database."""

    def db_for_read(self, model, *, instance=None, **_):
        return (instance and instance._state.db) or current.get()

    db_for_write = db_for_read


# --- Triggers -----------------------------------------------------------------------------------------------------------


def prepare():
    """Create the triggers in all databases."""
    tables = {model._meta.db_table: list(_columns(model)) for model in MODELS}
    for connection in connections.all():
        with connection.cursor() as cursor:
            create_triggers(cursor.execute, connection.vendor, tables)


def _columns(model):
    """Return the fields of a model by their columns, without those that the database generates, which are not recorded."""
    fields = model._meta.local_concrete_fields
    return {field.column: field for field in fields if not getattr(field, "generated", False)}


def seen_changes():
    """Return what the triggers saw of committed transactions, the keys of pairs left out."""
    return [change for connection in connections.all() for change in _seen_in(connection)]


def _seen_in(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT place, verb, old_row, new_row FROM seen ORDER BY number")
        changes = [seen_change(*row) for row in cursor.fetchall()]
    model_of = {model._meta.db_table: model for model in MODELS}
    for table, verb, columns in changes:
        model = model_of[table]
        kept = [column for column in columns if not model._meta.auto_created or column[0] != "id"]
        yield connection.alias, table, verb, _plain(model, kept)


def _plain(model, columns):
    """Return the changes of *columns* with values as no type of a database has its own form of them."""
    fields = _columns(model)
    return tuple((name, *(_plain_value(fields[name], value) for value in values)) for name, *values in columns)


def _plain_value(field, value):
    if isinstance(field, models.UUIDField) and value is not None:
        return str(uuid.UUID(value))
    return json_text(value)


def forget_changes():
    """Forget what the triggers saw."""
    for connection in connections.all():
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM seen")


# --- Events -------------------------------------------------------------------------------------------------------------


def recorded_changes(events):
    """Return the changes in *events* as the triggers see them: database, table, verb, and the columns before and after."""
    return [(event.metadata.get("database", "default"), *change) for event in events for change in _changes_of(event)]


def _changes_of(event):
    label, verb = event.operation.rsplit(".", 1)
    model = next(model for model in MODELS if model._meta.label_lower == label)
    changes = event.metadata["changes"]
    relation = next((field for field in model._meta.local_many_to_many if field.name in changes), None)
    if relation is None:
        columns = {
            model._meta.get_field(name).column: (values["before"], values["after"]) for name, values in changes.items()
        }
        yield model._meta.db_table, verb, _plain(model, sorted((name, *values) for name, values in columns.items()))
        return

    source = int(event.entry_ids[0].split(":")[1])
    ends = relation.m2m_column_name(), relation.m2m_reverse_name()
    for side, targets in changes[relation.name].items():
        for target in targets:
            pair = dict(zip(ends, (source, target), strict=True))
            before, after = ({}, pair) if side == "added" else (pair, {})
            yield relation.m2m_db_table(), "create" if side == "added" else "delete", differences(before, after)


# --- Operations ---------------------------------------------------------------------------------------------------------


class Operations:
    """Random operations; those that the state of the database does not allow do nothing or raise an IntegrityError."""

    def __init__(self, seed, refusals=()):
        # Errors that end a block, besides those of the block and of constraints.
        self.refusals = (RolledBackError, IntegrityError, *refusals)
        self.random = random.Random(seed)
        self.names = [name for name in dir(self) if name.startswith("do_")]
        for model in ("shelf", "page", "place"):
            # Django before 5.2 lacks what they need.
            if not hasattr(shop, model.title()):
                self.names = [name for name in self.names if not name.startswith(f"do_{model}")]

    @property
    def connection(self):
        return connections[current.get()]

    def run(self, count):
        """Run *count* operations, some of them in transactions, savepoints and blocks that are rolled back."""
        mine = ToCurrent()
        router.routers.append(mine)
        try:
            self._run(count)
        finally:
            router.routers.remove(mine)

    def _run(self, count):
        while count > 0:
            block = self.random.randint(1, 6)
            try:
                self._block(block, depth=0)
            except self.refusals:
                pass
            count -= block

    def _block(self, count, depth):
        """Run *count* operations in one of the databases, which need not be that of the block around them."""
        token = current.set(self.random.choice(list(connections)))
        try:
            self._block_in(current.get(), count, depth)
        finally:
            current.reset(token)

    def _block_in(self, alias, count, depth):
        if self.random.random() < 0.4:
            for _ in range(count):
                self._operation(depth)
            return

        with transaction.atomic(using=alias, durable=depth == 0):
            for _ in range(count):
                if depth < 3 and self.random.random() < 0.3:
                    try:
                        self._block(self.random.randint(1, 3), depth + 1)
                    except RolledBackError:
                        if not self.connection.in_atomic_block:
                            raise
                else:
                    self._operation(depth)
            if self.random.random() < 0.3:
                raise RolledBackError

    def _operation(self, depth):
        name = self.random.choice(self.names)
        getattr(self, name)()

    def word(self):
        return "".join(self.random.choices(string.ascii_letters + "é'\"\\", k=4))

    def name(self):
        return self.random.choice("abcdefghij")

    def some(self, model, most=3):
        """Return some of the objects."""
        keys = list(model.objects.order_by("pk").values_list("pk", flat=True))
        chosen = self.random.sample(keys, min(len(keys), self.random.randint(0, most)))
        return list(model.objects.filter(pk__in=chosen))

    def one(self, model):
        return self.random.choice(list(model.objects.order_by("pk")) or [None])

    # Each method below is an operation.

    def do_create(self):
        Document.objects.create(text=self.word(), author=self.one(Author))

    def do_create_note(self):
        if document := self.one(Document):
            document.note_set.create(text=self.word())

    def do_save(self):
        for document in self.some(Document):
            document.text = self.random.choice([None, document.text, self.word()])
            document.author = self.one(Author)
            document.save()

    def do_save_update_fields(self):
        for document in self.some(Document):
            document.text, document.copies = self.word(), self.random.randint(0, 3)
            document.save(update_fields=["copies"])

    def do_save_expression(self):
        for document in self.some(Document):
            document.copies = F("copies") + 1
            document.save()

    def do_save_stale(self):
        if note := self.one(Note):
            Note.objects.filter(pk=note.pk).delete()
            note.save()

    def do_update(self):
        Document.objects.filter(copies__lt=self.random.randint(0, 4)).update(text=self.word())

    def do_update_expression(self):
        Author.objects.filter(name__gt=self.name()).update(score=F("score") * 2 + 1)

    def do_update_by_relation(self):
        Note.objects.filter(document__author__name__lt=self.name()).update(text=self.word())

    def do_bulk_create(self):
        Note.objects.bulk_create(
            [Note(document=document, text=self.word()) for document in self.some(Document)], batch_size=2
        )

    def do_bulk_create_ignoring_conflicts(self):
        Tag.objects.bulk_create([Tag(name=self.name()) for _ in range(3)], ignore_conflicts=True)

    def do_upsert(self):
        names = {self.name() for _ in range(3)}
        authors = [Author(name=name, score=self.random.randint(0, 5)) for name in sorted(names)]
        self._upsert(authors, ["name"], ["score"])

    def _upsert(self, objects, target, fields):
        # MariaDB has no upsert for one of the keys.
        has_target = self.connection.features.supports_update_conflicts_with_target
        target = target if has_target else None
        type(objects[0]).objects.bulk_create(objects, update_conflicts=True, unique_fields=target, update_fields=fields)

    def do_bulk_update(self):
        documents = self.some(Document)
        for document in documents:
            document.text, document.copies = self.word(), self.random.randint(0, 3)
        Document.objects.bulk_update(documents, ["text", "copies"], batch_size=2)

    def do_get_or_create(self):
        Author.objects.get_or_create(name=self.name())

    def do_update_or_create(self):
        Tag.objects.update_or_create(name=self.name(), defaults={"name": self.name()})

    def do_bulk_update_expression(self):
        documents = self.some(Document)
        for document in documents:
            document.copies = F("copies") + 1
        Document.objects.bulk_update(documents, ["copies"])

    def do_update_locked(self):
        with transaction.atomic(current.get()):
            authors = Author.objects.select_for_update().filter(name__lt=self.name()).in_bulk()
            for author in authors.values():
                author.score = F("score") + 1
                author.save(update_fields=["score"])

    def do_update_some(self):
        keys = list(Document.objects.order_by("-pk").values_list("pk", flat=True)[:2])
        Document.objects.filter(pk__in=keys).order_by("copies").update(copies=F("copies") - 1)

    def do_fail_after_commit(self):
        def fail():
            raise RolledBackError

        transaction.on_commit(fail, using=current.get())

    def do_roll_back_text(self):
        with transaction.atomic(current.get()), self.connection.cursor() as cursor:
            tag = Tag.objects.create(name=self.word())
            cursor.execute("SAVEPOINT mine")
            Tag.objects.filter(pk=tag.pk).update(name=Concat("name", Value("x")))
            cursor.execute(self.random.choice(["ROLLBACK TO mine", "RELEASE SAVEPOINT mine"]))

    def do_join_group(self):
        group, _ = Group.objects.get_or_create(pk=1)
        group.members.add(*self.some(Author), through_defaults={"role": self.word()})

    def do_set_group(self):
        if group := self.one(Group):
            group.members.set(self.some(Author), through_defaults={"role": self.word()})

    def do_leave_group(self):
        if author := self.one(Author):
            author.group_set.clear()

    def do_lend(self):
        authors = self.some(Author)
        if authors:
            fields = [self.random.choice(["protected", "restricted", "by_default", "by_function"]) for _ in authors]
            Loan.objects.create(**dict(zip(fields, authors, strict=True)))

    def do_end_loans(self):
        Loan.objects.all().delete()

    def do_create_duplicate(self):
        with transaction.atomic(current.get()):
            Author.objects.create(name=self.name())

    def do_save_proxy(self):
        if author := self.one(Archived):
            author.score += 1
            author.save()

    def do_add(self):
        if document := self.one(Document):
            document.tags.add(*self.some(Tag))

    def do_remove(self):
        if document := self.one(Document):
            document.tags.remove(*self.some(Tag))

    def do_clear(self):
        if document := self.one(Document):
            document.tags.clear()

    def do_set(self):
        if document := self.one(Document):
            document.tags.set(self.some(Tag))

    def do_reverse_add(self):
        if tag := self.one(Tag):
            tag.document_set.add(*self.some(Document))

    def do_reverse_set(self):
        if tag := self.one(Tag):
            tag.document_set.set(self.some(Document), clear=self.random.random() < 0.5)

    def do_reverse_clear(self):
        if tag := self.one(Tag):
            tag.document_set.clear()

    def do_relate(self):
        if document := self.one(Document):
            document.related.set(self.some(Document))

    def do_reverse_foreign_key_set(self):
        if author := self.one(Author):
            author.document_set.set(self.some(Document), bulk=self.random.random() < 0.5)

    def do_create_child(self):
        Contract.objects.create(text=self.word(), party=self.word())

    def do_save_child(self):
        for contract in self.some(Contract):
            contract.party, contract.copies = self.word(), contract.copies + 1
            contract.save()

    def do_update_child(self):
        Contract.objects.filter(copies__lt=3).update(party=self.word(), text=self.word())

    def do_change_key(self):
        Counter.objects.get_or_create(code=self.name())
        Counter.objects.filter(pk=self.name()).update(code=self.word(), value=F("value") + 1)

    def do_delete(self):
        for document in self.some(Document, most=1):
            document.delete()

    def do_delete_author(self):
        for author in self.some(Author, most=1):
            author.delete()

    def do_delete_tag(self):
        for tag in self.some(Tag, most=1):
            tag.delete()

    def do_delete_query(self):
        Document.objects.filter(copies__gt=self.random.randint(1, 6)).delete()

    def do_delete_by_relation(self):
        Note.objects.filter(document__copies=self.random.randint(0, 3)).delete()

    def do_raw_delete(self):
        notes = Note.objects.filter(text__gt=self.word())
        notes._raw_delete(notes.db)

    # The other database.

    def do_copy_to_another_database(self):
        alias = self.random.choice(list(connections))
        for document in self.some(Document):
            document.pk, document.author = None, None
            document.save(using=alias)

    def do_write_to_another_database(self):
        alias = self.random.choice(list(connections))
        Author.objects.using(alias).update(score=F("score") + 1)
        Tag.objects.using(alias).bulk_create([Tag(name=self.word())])
        Note.objects.db_manager(alias).filter(text__gt=self.word()).delete()

    def do_delete_in_the_current_database(self):
        for tag in self.some(Tag, most=1):
            tag.delete(using=current.get())

    # Values of several kinds.

    def data(self):
        parts = [None, True, 1, 1.5, "", self.name(), {"a": [self.name()]}, []]
        return {self.name(): self.random.choice(parts) for _ in range(2)}

    def key(self):
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def do_create_item(self):
        Item.objects.create(id=self.key(), data=self.data(), file=self.random.choice([None, "", self.name()]))

    def do_change_data(self):
        for item in self.some(Item):
            item.data[self.name()] = self.data()
            item.save()

    def do_change_data_to_equal(self):
        for item in self.some(Item):
            item.data = dict(reversed(item.data.items()))
            item.save(update_fields=["data"])

    def do_update_data(self):
        Item.objects.filter(data__has_key=self.name()).update(data=self.data())

    def do_update_data_to_an_expression(self):
        data = Value(self.data(), models.JSONField())
        Item.objects.filter(number__lt=2).update(data=data, number=F("number") + 1)

    def do_bulk_update_data(self):
        items = self.some(Item)
        for item in items:
            item.data, item.file = self.data(), self.name()
        Item.objects.bulk_update(items, ["data", "file"])

    def do_store_file(self):
        for item in self.some(Item, most=1):
            item.file.save(self.name(), ContentFile(b""), save=self.random.random() < 0.5)
            item.save(update_fields=["file"])

    def do_delete_file(self):
        for item in self.some(Item):
            item.file.delete()

    def do_delete_items(self):
        Item.objects.filter(number__gt=2).delete()

    # The asynchronous methods.

    def do_write_in_a_task(self):
        async_to_sync(self._write)()

    async def _write(self):
        author, _ = await Author.objects.aget_or_create(name=self.name())
        author.score += 1
        await author.asave()
        tags = await Tag.objects.abulk_create([Tag(name=self.word()) for _ in range(2)])
        await Tag.objects.aupdate_or_create(name=self.name(), defaults={"name": self.word()})
        await Document.objects.filter(author=author).aupdate(copies=F("copies") + 1)
        document = await author.document_set.acreate(text=self.word())
        await document.tags.aset(tags)
        await document.tags.aremove(tags[0])
        tags[1].name = self.word()
        await Tag.objects.abulk_update(tags, ["name"])
        await tags[0].adelete()

    # Defaults and columns of the database.

    def do_shelf_create(self):
        shop.Shelf.objects.create(name=self.word(), **self.random.choice([{}, {"books": 1}, {"code": self.word()}]))

    def do_shelf_save(self):
        for shelf in self.some(shop.Shelf):
            shelf.books += 1
            shelf.save()

    def do_shelf_update(self):
        shop.Shelf.objects.filter(double__gt=14).update(books=F("double") - F("books"))

    def do_shelf_bulk_create(self):
        shop.Shelf.objects.bulk_create(
            [shop.Shelf(name=name) for name in (self.name(), self.word())], ignore_conflicts=True
        )

    def do_shelf_upsert(self):
        shelves = [
            shop.Shelf(name=name, books=self.random.randint(1, 9)) for name in sorted({self.name(), self.name()})
        ]
        self._upsert(shelves, ["code", "name"], ["books"])

    def do_page_upsert(self):
        title = self.name()
        pages = [shop.Page(title=self.random.choice([title, title.upper()]), views=self.random.randint(1, 9))]
        self._upsert(pages, ["slug"], ["views"])

    def do_page_update(self):
        shop.Page.objects.filter(slug=self.name()).update(title=self.name().upper(), views=F("views") + 1)

    # Keys of several columns.

    def place(self):
        return {"row": self.random.randint(1, 2), "name": self.name()}

    def do_place_create(self):
        shop.Place.objects.get_or_create(**self.place(), defaults={"value": 1})

    def do_place_save(self):
        for place in self.some(shop.Place):
            place.value += self.random.randint(0, 1)
            place.save()

    def do_place_update(self):
        shop.Place.objects.filter(name__lt=self.name()).update(value=F("value") + 1)

    def do_place_bulk_update(self):
        places = self.some(shop.Place)
        for place in places:
            place.value = self.random.randint(0, 3)
        shop.Place.objects.bulk_update(places, ["value"])

    def do_place_upsert(self):
        keys = {tuple(self.place().values()) for _ in range(3)}
        places = [shop.Place(row=row, name=name, value=self.random.randint(0, 3)) for row, name in sorted(keys)]
        self._upsert(places, ["row", "name"], ["value"])

    def do_place_move(self):
        if place := self.one(shop.Place):
            shop.Place.objects.filter(pk=place.pk).update(name=self.name(), value=F("value") + 1)

    def do_place_delete(self):
        for place in self.some(shop.Place, most=1):
            place.delete()
        shop.Place.objects.filter(value__gt=3).delete()
