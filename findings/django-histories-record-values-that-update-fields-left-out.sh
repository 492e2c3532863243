#!/usr/bin/env bash
# django-simple-history and django-easy-audit record values that save(update_fields=…) did not store. django-auditlog does
#   not.
#
# A reader would expect: the values that are in the database after the save.
# Guessed before running: each of the three records the stored fields only.
# Seen on 2026-11-28, Python 3.11.7, Django 5.2.19, django-simple-history 3.13.0, django-easy-audit 1.3.9, django-auditlog
#   3.4.1: with a new name and a new price, and save(update_fields=["name"]), the row keeps its price, and the histories of the
#   first two state the new one. The next save of the reloaded object shows the price go back, under another user and time.
# What follows: a history states a change that nobody made: a reviewer finds a price of 1 that no customer ever saw. Change
#   only the attributes that the save stores, or reload the object before.
# Known for simple-history: https://github.com/django-commons/django-simple-history/issues/1127
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  Django==5.2.19 django-simple-history==3.13.0 django-easy-audit==1.3.9 django-auditlog==3.4.1 || exit 2
"$work/venv/bin/python" - <<'PY'
import json
import sys
from importlib.metadata import version

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "auditlog",
        "easyaudit",
        "simple_history",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.core.management import call_command
from django.db import connection, models
from easyaudit.models import CRUDEvent
from simple_history.models import HistoricalRecords

names = ("Django", "django-simple-history", "django-easy-audit", "django-auditlog")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))


class Product(models.Model):
    name = models.CharField(max_length=20)
    price = models.IntegerField()
    history = HistoricalRecords()

    class Meta:
        app_label = "auth"


auditlog.register(Product)
call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(Product)
    editor.create_model(Product.history.model)

product = Product.objects.create(name="lamp", price=40)
product.name, product.price = "Lamp", 1
product.save(update_fields=["name"])

event = CRUDEvent.objects.filter(content_type__model="product").latest("id")
seen = {
    "database": Product.objects.values_list("name", "price").get(),
    "simple-history": Product.history.values_list("name", "price").latest("history_id"),
    "easy-audit": json.loads(event.changed_fields),
    "auditlog": LogEntry.objects.latest("id").changes,
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "database": ("Lamp", 40),
    "simple-history": ("Lamp", 1),
    "easy-audit": {"name": ["lamp", "Lamp"], "price": ["40", "1"]},
    "auditlog": {"name": ["lamp", "Lamp"]},
}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
