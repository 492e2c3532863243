#!/usr/bin/env bash
# A developer's day: an application that logs with structlog gets an audit trail and a test; a mistake is explained.
# Usage: day.sh WHEELS, in a folder with shop.py.
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli]" pytest

# Four lines record every event that has a user; and a test.
time patch -s <<'END'
--- shop.py
+++ shop.py
@@ -5,1 +5,2 @@
 import structlog
+from structlog_audit import AuditProcessor
@@ -10,3 +11,5 @@
         "console": {"class": "logging.StreamHandler"},
+        "audit": {"class": "structlog_audit.AuditHandler", "filename": "audit.jsonl"},
     },
+    "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
     "root": {"handlers": ["console"], "level": "WARNING"},
@@ -20,2 +23,3 @@
         structlog.stdlib.add_log_level,
+        AuditProcessor(when=lambda event: "user_id" in event),
         structlog.processors.JSONRenderer(),
--- /dev/null
+++ test_shop.py
@@ -0,0 +1,6 @@
+import shop
+
+
+def test_deletion_is_recorded(audit_trail):
+    shop.delete("ann", "order-17")
+    audit_trail.assert_recorded(operation="order.delete", user_id="ann", entry_ids="order-17", times=1)
END
time python shop.py

# Who deleted what, and how much failed?
time structlog-audit query audit.jsonl operation=order.delete
time structlog-audit stats audit.jsonl

# The test, and a mistake: without a level, the logger takes that of the root logger.
time pytest -q test_shop.py
time sed -i 's/"level": "INFO", //' shop.py
time structlog-audit doctor --config shop:LOGGING || echo "exit code $?"
