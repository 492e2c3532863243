#!/usr/bin/env bash
# A day of a developer who replaces django-auditlog: the old rows and the new events answer one query.
# Usage: day.sh WHEELS, in a folder with a Django project and its database, in which django-auditlog has rows.
. "$(dirname "$0")/../timed.sh"

# Install, beside what the project has.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,django]" django-auditlog

# The old rows become events.
time python manage.py dumpdata contenttypes auditlog.LogEntry --format jsonl -o auditlog.jsonl
time structlog-audit import-auditlog auditlog.jsonl audit.jsonl

# The model is tracked by the trail, and the actor is bound as for every other event.
time patch -s -p0 <<'END'
--- shop/models.py
+++ shop/models.py
@@ -3,10 +3,8 @@
-from auditlog.registry import auditlog
 from django.db import models
+from structlog_audit.contrib.django import track
 
 
+@track
 class Product(models.Model):
     name = models.CharField(max_length=40)
     price = models.IntegerField()
-
-
-auditlog.register(Product)
--- shop/management/commands/price.py
+++ shop/management/commands/price.py
@@ -3,5 +3,5 @@
-from auditlog.context import set_actor
 from django.contrib.auth.models import User
 from django.core.management.base import BaseCommand
+from structlog.contextvars import bound_contextvars
 
 from shop.models import Product
@@ -17,3 +17,3 @@
         actor, _ = User.objects.get_or_create(username=user)
-        with set_actor(actor):
+        with bound_contextvars(user_id=actor.pk):
             Product.objects.update_or_create(name=product, defaults={"price": price})
--- shop/settings.py
+++ shop/settings.py
@@ -5,3 +5,9 @@
 DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
 DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
 USE_TZ = True
+LOGGING = {
+    "version": 1,
+    "disable_existing_loggers": False,
+    "handlers": {"audit": {"class": "structlog_audit.AuditHandler", "filename": "audit.jsonl"}},
+    "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
+}
END

# A new price, and the history of the product: who set which price, and when?
time python manage.py price bob chair 120
time structlog-audit query audit.jsonl entry_ids=shop.product:1 --columns operation,user_id,metadata.changes,metadata.happened_at
time structlog-audit doctor --config shop.settings:LOGGING --fail-on error
