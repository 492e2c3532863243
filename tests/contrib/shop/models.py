"""Tracked models with relations of every kind."""

from django.db import models

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


MODELS = [Author, Tag, Document, Document.tags.through, Document.related.through, Note, Contract, Counter]
"""The models that the random operations change, and whose tables have triggers."""
