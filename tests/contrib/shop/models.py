"""Tracked models with relations of every kind."""

import uuid

import django
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.core.files.storage import Storage
from django.db import models
from django.db.models.functions import Lower

from structlog_audit.contrib.django import track


@track
class Author(models.Model):
    name = models.CharField(max_length=40, unique=True)
    score = models.IntegerField(default=0)


@track
class Tag(models.Model):
    name = models.CharField(max_length=40, unique=True)


@track
class Document(models.Model):
    text = models.TextField(null=True)
    copies = models.IntegerField(default=0)
    author = models.ForeignKey(Author, on_delete=models.SET_NULL, null=True)
    tags = models.ManyToManyField(Tag)
    related = models.ManyToManyField("self")


@track
class Note(models.Model):
    document = models.ForeignKey(Document, on_delete=models.CASCADE)
    text = models.TextField(null=True)


@track
class Contract(Document):
    """A row of this table, and one of its parent's."""

    party = models.TextField(null=True)


@track
class Counter(models.Model):
    """A key that can be changed."""

    code = models.CharField(max_length=40, primary_key=True)
    value = models.IntegerField(default=0)


class Account(models.Model):
    """Tracked in part."""

    name = models.TextField()
    pin = models.TextField(null=True)
    seen = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=6, decimal_places=2, default=0)
    settings = models.JSONField(default=dict)
    friends = models.ManyToManyField(Author)


track(Account, exclude=["seen"], mask=["pin", "friends"])


class Archived(Author):
    """A model that seems to be another, and has the same table."""

    class Meta:
        proxy = True


class Untracked(models.Model):
    text = models.TextField()


@track
class Comment(models.Model):
    """Belongs to an object of any model."""

    text = models.TextField()
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveIntegerField()
    target = GenericForeignKey()


@track
class Group(models.Model):
    """Has members by a model of its own, and comments."""

    members = models.ManyToManyField(Author, through="Membership")
    comments = GenericRelation(Comment)


@track
class Membership(models.Model):
    group = models.ForeignKey(Group, on_delete=models.CASCADE)
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    role = models.CharField(max_length=40, default="reader")


@track
class Profile(models.Model):
    """A relation is its key."""

    author = models.OneToOneField(Author, on_delete=models.CASCADE, primary_key=True)


@track
class Badge(models.Model):
    """Its relations refer to a field that is not the primary key."""

    author = models.OneToOneField(Author, on_delete=models.CASCADE, to_field="name", primary_key=True, related_name="+")
    sponsor = models.ForeignKey(Author, on_delete=models.CASCADE, to_field="name", null=True, related_name="+")


def first_author():
    return Author.objects.first()


@track
class Loan(models.Model):
    """What becomes of it when an author is deleted."""

    protected = models.ForeignKey(Author, on_delete=models.PROTECT, null=True, related_name="+")
    restricted = models.ForeignKey(Author, on_delete=models.RESTRICT, null=True, related_name="+")
    by_default = models.ForeignKey(Author, on_delete=models.SET_DEFAULT, null=True, default=None, related_name="+")
    by_function = models.ForeignKey(Author, on_delete=models.SET(first_author), null=True, related_name="+")


class NamesOnly(Storage):
    """Stores no content, so that several threads can use it."""

    def _save(self, name, content):
        return name

    def exists(self, name):
        return False

    def delete(self, name):
        pass


@track
class Item(models.Model):
    """Values of several kinds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    data = models.JSONField(default=dict)
    file = models.FileField(null=True, storage=NamesOnly())
    number = models.IntegerField(default=1)
    blob = models.BinaryField(null=True)


if django.VERSION >= (5, 0):

    @track
    class Shelf(models.Model):
        """Defaults and a column of the database."""

        code = models.CharField(max_length=40, db_default="wood")
        name = models.CharField(max_length=40)
        books = models.IntegerField(db_default=7)
        double = models.GeneratedField(
            expression=models.F("books") * 2, output_field=models.IntegerField(), db_persist=True
        )

        class Meta:
            constraints = (models.UniqueConstraint(fields=["code", "name"], name="code_and_name"),)

    @track
    class Page(models.Model):
        """A unique column that the database computes."""

        title = models.CharField(max_length=40)
        views = models.IntegerField(default=0)
        slug = models.GeneratedField(
            expression=Lower("title"), output_field=models.CharField(max_length=40), db_persist=True, unique=True
        )

    @track
    class Ticket(models.Model):
        """A unique column that the database computes from a relation, the primary key and a condition."""

        number = models.IntegerField(primary_key=True)
        author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="+")
        seat = models.IntegerField(default=0)
        price = models.IntegerField(default=0)
        code = models.GeneratedField(
            expression=models.Case(
                models.When(seat=0, then=models.F("author_id") * 100),
                default=models.F("author_id") * 100 + models.F("pk"),
            ),
            output_field=models.IntegerField(),
            db_persist=True,
            unique=True,
        )


if django.VERSION >= (5, 2):

    @track
    class Place(models.Model):
        """A key of two columns."""

        pk = models.CompositePrimaryKey("row", "name")
        row = models.IntegerField()
        name = models.CharField(max_length=40)
        value = models.IntegerField(default=0)


MODELS = [
    Author,
    Tag,
    Document,
    Document.tags.through,
    Document.related.through,
    Note,
    Contract,
    Counter,
    Group,
    Membership,
    Loan,
    Item,
]
"""The models that the random operations change, and whose tables have triggers."""

if django.VERSION >= (5, 0):
    MODELS += [Shelf, Page]
if django.VERSION >= (5, 2):
    MODELS += [Place]
