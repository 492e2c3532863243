"""The settings of the shop."""

SECRET_KEY = "of an example"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "auditlog", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
