"""Random operations on the models of the shop, and the changes that triggers of the database saw."""

from __future__ import annotations

import random
import string

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from triggers import create_triggers, differences, seen_change

from .models import MODELS, Archived, Author, Contract, Counter, Document, Group, Loan, Note, Tag


class RolledBackError(Exception):
    """Ends a block of operations as an error of the application would."""


# --- Triggers -----------------------------------------------------------------------------------------------------------


def prepare():
    """Create the triggers."""
    tables = {model._meta.db_table: [field.column for field in model._meta.local_fields] for model in MODELS}
    with connection.cursor() as cursor:
        create_triggers(cursor.execute, connection.vendor, tables)


def seen_changes():
    """Return what the triggers saw of committed transactions, the keys of pairs left out."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT place, verb, old_row, new_row FROM seen ORDER BY number")
        changes = [seen_change(*row) for row in cursor.fetchall()]
    through = {model._meta.db_table for model in MODELS if model._meta.auto_created}
    return [
        (table, verb, tuple(column for column in columns if table not in through or column[0] != "id"))
        for table, verb, columns in changes
    ]


# --- Events -------------------------------------------------------------------------------------------------------------


def recorded_changes(events):
    """Return the changes in *events* as the triggers see them: table, verb, and the columns before and after."""
    return [change for event in events for change in _changes_of(event)]


def _changes_of(event):
    label, verb = event.operation.rsplit(".", 1)
    model = next(model for model in MODELS if model._meta.label_lower == label)
    changes = event.metadata["changes"]
    relation = next((field for field in model._meta.local_many_to_many if field.name in changes), None)
    if relation is None:
        columns = {
            model._meta.get_field(name).column: (values["before"], values["after"]) for name, values in changes.items()
        }
        yield model._meta.db_table, verb, tuple(sorted((name, *values) for name, values in columns.items()))
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

    def run(self, count):
        """Run *count* operations, some of them in transactions, savepoints and blocks that are rolled back."""
        while count > 0:
            block = self.random.randint(1, 6)
            try:
                self._block(block, depth=0)
            except self.refusals:
                pass
            count -= block

    def _block(self, count, depth):
        if self.random.random() < 0.4:
            for _ in range(count):
                self._operation(depth)
            return

        with transaction.atomic(durable=depth == 0):
            for _ in range(count):
                if depth < 3 and self.random.random() < 0.3:
                    try:
                        self._block(self.random.randint(1, 3), depth + 1)
                    except RolledBackError:
                        if not transaction.get_connection().in_atomic_block:
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

    def do_bulk_create_updating_conflicts(self):
        names = {self.name() for _ in range(3)}
        authors = [Author(name=name, score=self.random.randint(0, 5)) for name in sorted(names)]
        # MariaDB has no upsert for one of the keys.
        has_target = connection.features.supports_update_conflicts_with_target
        target = ["name"] if has_target else None
        Author.objects.bulk_create(authors, update_conflicts=True, unique_fields=target, update_fields=["score"])

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
        with transaction.atomic():
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

        transaction.on_commit(fail)

    def do_roll_back_text(self):
        with transaction.atomic(), connection.cursor() as cursor:
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
        with transaction.atomic():
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
