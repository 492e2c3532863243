"""Log records made by hand."""

import logging


def record_of(msg="STORE", *args, level=logging.INFO, exc_info=None, **attributes):
    """Return a record of the logger "app" with additional *attributes*."""
    record = logging.LogRecord("app", level, "app.py", 1, msg, args, exc_info)
    record.__dict__.update(attributes)
    return record
