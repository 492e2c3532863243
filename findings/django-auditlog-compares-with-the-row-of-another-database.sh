#!/usr/bin/env bash
# django-auditlog compares an object that is saved in a second database with the row of that key in the default one, and so
#   records changes that nobody made.
#
# A reader would expect: the old values come from the database that save(using=…) writes to; the signals name it, and the entry
#   of a deletion is right.
# Guessed before running: the old values of the database that is written to.
# Seen on 2026-11-29, Python 3.11.7, Django 5.2.19, django-auditlog 3.4.1: with one product 1 in each database, changing the
#   price of that in "archive" from 7 to 8 is recorded as a change of the price from 5 to 8 and of the name from "lamp" to "desk",
#   which are those of the default database. Where the default one lacks the key, each field is recorded as changed from None. All
#   entries go to the default database, and none says which one the object is in.
# What follows: with a database for each tenant, or an archive, an entry shows values of another tenant, and the old value is
#   lost. Let a router choose the database by model or request, so that reading finds the same one.
# The reason: pre_save looks the old row up by the default manager, without using. Known in part:
#   https://github.com/jazzband/django-auditlog/issues/758
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check Django==5.2.19 django-auditlog==3.4.1 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import django
from django.conf import settings

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("Django", "django-auditlog")))
memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(
    DATABASES={"default": memory, "archive": dict(memory)},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "auditlog"],
    USE_TZ=True,
)
django.setup()

from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.core.management import call_command
from django.db import connections, models


class Product(models.Model):
    name = models.CharField(max_length=20)
    price = models.IntegerField()

    class Meta:
        app_label = "auth"


for alias in connections:
    call_command("migrate", database=alias, verbosity=0)
    with connections[alias].schema_editor() as editor:
        editor.create_model(Product)
auditlog.register(Product)
Product.objects.using("default").create(pk=1, name="lamp", price=5)


def history(pk):
    """Create the product in the archive, load it from there, change its price, delete it, and return the new entries."""
    LogEntry.objects.all().delete()
    Product.objects.using("archive").create(pk=pk, name="desk", price=7)
    product = Product.objects.using("archive").get(pk=pk)
    product.price = 8
    product.save(using="archive")
    product.delete(using="archive")
    entries = [(entry.get_action_display(), entry.changes) for entry in LogEntry.objects.using("default").order_by("pk")]
    for action, changes in entries:
        print(f"product {pk} of the archive, whose price went from 7 to 8: {action} {changes}")
    return entries, LogEntry.objects.using("archive").count()


both, archive_only = history(1), history(2)
updates = [changes for entries, _ in (both, archive_only) for action, changes in entries if action == "update"]
expected = [
    {"name": ["lamp", "desk"], "price": ["5", "8"]},
    {"name": ["None", "desk"], "price": ["None", "8"], "id": ["None", "2"]},
]
same = updates == expected and both[1] == archive_only[1] == 0
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
