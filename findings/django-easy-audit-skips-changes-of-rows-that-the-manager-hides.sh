#!/usr/bin/env bash
# django-easy-audit records no change of a row that the model's manager hides. django-auditlog records it as changed from
#   nothing.
#
# A reader would expect: the change of the one field, since both write the event in a signal of the save that was made.
# Guessed before running: neither records the change.
# Seen on 2026-11-28, Python 3.11.7, Django 5.2.19, django-easy-audit 1.3.9, django-auditlog 3.4.1: with the usual soft
#   deletion (the manager "objects" filters deleted=False), editing and restoring a deleted row leaves no event with easy-audit,
#   only a traceback in the log of the application. auditlog records an update in which every field, also the unchanged ones,
#   changed from None.
# What follows: who edited or restored deleted data is unknown, or the old value is. Let "objects" be unfiltered and the first
#   manager of the class, and give the filtered one another name.
# Known upstream: https://github.com/soynatan/django-easy-audit/issues/175,
#   https://github.com/jazzband/django-auditlog/issues/747
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check Django==5.2.19 django-easy-audit==1.3.9 django-auditlog==3.4.1 || exit 2
"$work/venv/bin/python" - <<'PY'
import json
import logging
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

names = ("Django", "django-easy-audit", "django-auditlog")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
logging.disable()


class PresentDocuments(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(deleted=False)


class Document(models.Model):
    name = models.CharField(max_length=20)
    deleted = models.BooleanField(default=False)
    objects = PresentDocuments()
    everything = models.Manager()

    class Meta:
        app_label = "auth"


auditlog.register(Document)
call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(Document)

document = Document.objects.create(name="plan")
seen = {}
for step, attribute, value in (
    ("delete", "deleted", True),
    ("edit while deleted", "name", "secret"),
    ("restore", "deleted", False),
    ("edit", "name", "plan"),
):
    CRUDEvent.objects.all().delete()
    LogEntry.objects.all().delete()
    setattr(document, attribute, value)
    document.save()
    by_easy_audit = [json.loads(event.changed_fields) for event in CRUDEvent.objects.filter(content_type__model="document")]
    by_auditlog = [entry.changes for entry in LogEntry.objects.filter(content_type__model="document")]
    seen[step] = by_easy_audit, by_auditlog
    print(f"{step}: easy-audit {by_easy_audit}, auditlog {by_auditlog}")


def from_nothing(name, deleted):
    return [{"id": ["None", "1"], "name": ["None", name], "deleted": ["None", deleted]}]


deletion, edit = [{"deleted": ["False", "True"]}], [{"name": ["secret", "plan"]}]
expected = {
    "delete": (deletion, deletion),
    "edit while deleted": ([], from_nothing("secret", "True")),
    "restore": ([], from_nothing("secret", "False")),
    "edit": (edit, edit),
}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
