#!/usr/bin/env bash
# django-auditlog records no actor after a set_actor() within a set_actor(), and each such block leaves a signal receiver
#   behind.
#
# A reader would expect: the outer actor again after the inner block, as with other context managers.
# Guessed before running: the outer actor again.
# Seen on 2026-11-28, Python 3.11.7, django-auditlog 3.4.1, Django 5.2.19: entries after the inner block have the actor None.
#   The context variable is set, but never reset, so the outer receiver of the signal no longer matches it; and since both exits
#   disconnect the inner receiver, the outer one stays. set_extra_data() shares this. Tasks of asyncio do not disturb each
#   other.
# What follows: AuditlogMiddleware is such a block. In a view that uses set_actor() for one step, the rest of the request has
#   no user. In a worker each nested block adds a receiver that every later entry calls. Set the actor again after an inner
#   block.
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

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "auditlog"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()
from auditlog.context import set_actor
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db.models.signals import pre_save

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("django-auditlog", "Django")))
call_command("migrate", verbosity=0)
auditlog.register(Group)
ann, bob = (User.objects.create(username=name) for name in ("ann", "bob"))
receivers = len(pre_save.receivers)

with set_actor(ann):
    Group.objects.create(name="before")
    with set_actor(bob):
        Group.objects.create(name="within")
    Group.objects.create(name="after")
actors = {entry.object_repr: entry.actor and entry.actor.username for entry in LogEntry.objects.order_by("id")}
print("actors:", actors)

for _ in range(100):
    with set_actor(ann), set_actor(bob):
        pass
left = len(pre_save.receivers) - receivers
print(f"receivers left behind by 101 nested blocks: {left}")

same = actors == {"before": "ann", "within": "bob", "after": None} and left == 101
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
