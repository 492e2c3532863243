"""Tests of the calls that declare an operation, and of the details of a declaration."""

from __future__ import annotations

import os

import pytest
from inspected_source import HEAD, catalogue_of, operations_of


class TestEntryPoints:
    """Calls that declare an operation."""

    @pytest.mark.parametrize(
        ("source", "entry_point"),
        [
            ('@audited("A")\ndef f(): pass', "audited"),
            ('@structlog_audit.audited(operation="A")\ndef f(): pass', "audited"),
            ('from structlog_audit.audited import audited as seen\n@seen("A")\ndef f(): pass', "audited"),
            ('import structlog_audit as sa\nwrapped = sa.audited("A")(print)', "audited"),
            ('import functools\nmine = functools.partial(audited, logger="x")\n@mine("A")\ndef f(): pass', "audited"),
            ('with log.operation("A"): pass', "operation"),
            ('async def f(x):\n  async with x.log.operation("A") as op: pass', "operation"),
            ('scope = log.operation("A")', "operation"),
            ('with ExitStack() as stack: stack.enter_context(anything.operation("A"))', "operation"),
            ('instrument(obj, {"m": "A"})', "instrument"),
            ('undo = structlog_audit.instrument(operations={"m": "A"}, obj=obj)', "instrument"),
            ('MAP = {"m": "A"}\ninstrument(obj, MAP)', "instrument"),
            ('MAP = {"m": "A"}\ninstrument(obj, {**MAP})', "instrument"),
            ('async def f(x): await x.log_event("A")', "log_event"),
            ('async def f(x): await x.log_event(operation="A")', "log_event"),
            ('AuditLogger().record("A")', "record"),
            ('with AuditLogger() as audit: audit.record("A")', "record"),
            ('def f(audit: AuditLogger | None): audit.record("A")', "record"),
            ('class Mine(AuditLogger): pass\nMine().record("A")', "record"),
            ('log.info("A")', "info"),
            ('async def f(): await log.aerror("A")', "aerror"),
            ('log.bind(x=1).new().exception("A")', "exception"),
            ('get_audit_logger("other").warning("A")', "warning"),
            ('mine = log\nmine.critical("A")', "critical"),
            ('(log or None).info("A")', "info"),
            ('def f(log: "AuditBoundLogger"): log.info("A")', "info"),
            ('def made() -> AuditBoundLogger: ...\nmade().info("A")', "info"),
            ('class C:\n  def __init__(self): self._log = log.bind()\n  def f(self): self._log.info("A")', "info"),
            ('class C:\n  log = get_audit_logger()\n  def f(self): self.log.info("A")', "info"),
            ('class B:\n  log = get_audit_logger()\nclass C(B):\n  def f(self): self.log.info("A")', "info"),
            ('class C:\n  log: AuditBoundLogger\n  def f(self): self.log.info("A")', "info"),
            ('structlog.get_logger().info("text", operation="A")', "info"),
            ('anything.info("text", extra={"operation": "A"})', "info"),
            ('logging.getLogger("audit").info("A")', "info"),
            ('logging.getLogger("audit.web").warn("A", extra={"user_id": 1})', "warn"),
            ('logging.getLogger("audit").getChild("web").debug("A")', "debug"),
        ],
    )
    def test_entry_point_declares_its_operation(self, tmp_path, source, entry_point):
        """Each entry point declares the operation once, with its name and line."""
        (found,) = catalogue_of(tmp_path, source).declarations
        assert (found.operation, found.entry_point) == ("A", entry_point)
        lines = (HEAD + source).splitlines()
        assert '"A"' in lines[found.line - 1] or "instrument" in lines[found.line - 1]
        assert found.file.endswith(os.path.join("app", "main.py"))

    @pytest.mark.parametrize(
        "source",
        [
            "from structlog_audit.contrib.django import track\n@track\nclass Model: pass",
            "from structlog_audit.contrib import django\n@django.track\nclass Model: pass",
            "from structlog_audit.contrib.sqlalchemy import track\ntrack(Model, mask=['pin'])",
            "from structlog_audit.contrib.sqlalchemy import track as record\nrecord(model=Model)",
            "import structlog_audit.contrib.django.tracking as t\nt.track(Model)",
        ],
    )
    def test_tracked_model_declares_operations_without_a_name(self, tmp_path, source):
        """The table of a model names the operations of its changes, so the declaration names the model."""
        (found,) = catalogue_of(tmp_path, source).declarations
        assert (found.operation, found.expression, found.entry_point) == (None, "Model", "track")
        assert "track" in (HEAD + source).splitlines()[found.line - 1] or "record(" in source
        assert (found.status, found.function, found.fields) == ("SUCCESS", None, ())

    @pytest.mark.parametrize(
        "source",
        [
            "from other import track\n@track\nclass Model: pass",
            "from other import track\ntrack(Model)",
            'anything.info("A")',
            'structlog.get_logger().info("A")',
            'logging.getLogger(__name__).info("A")',
            'logging.getLogger("auditor").info("A")',
            'anything.record("A")',
            'anything.operation("A")',
            'print("A")',
            "log.bind(a=1)",
            'from mine import audited as seen\n@seen("A")\ndef f(): pass',
            'def f(log): log.info("A")',
            'def f():\n  log = other()\n  log.info("A")',
        ],
    )
    def test_other_calls_declare_nothing(self, tmp_path, source):
        """Methods of other objects, and functions of other packages, declare nothing."""
        assert operations_of(tmp_path, source) == []

    def test_instrument_declares_an_operation_for_each_method(self, tmp_path):
        """``instrument`` declares an operation for each method; an unknown mapping is one computed declaration."""
        source = 'KEY = "k"\ninstrument(memory.store, {"store": "STORE", "get": f(), KEY: "X", **{"a": "b"}, **more()})'
        found = catalogue_of(tmp_path, source).declarations
        assert [(each.operation, each.function) for each in found] == [
            ("STORE", "memory.store.store"),
            (None, "memory.store.get"),
            ("X", "memory.store.KEY"),
            ("b", "memory.store.a"),
            (None, None),
        ]
        assert found[-1].expression == "more()"


class TestDetails:
    """Details of a declaration."""

    def test_function_is_the_decorated_or_enclosing_one(self, tmp_path):
        """The function is the decorated or the enclosing one, by its qualified name; None at the top level of a module."""
        source = """
            class C:
                @audited("a")
                async def m(self):
                    log.info("b")
                    def inner(): log.info("c")
                log.info("d")
            log.info("e")
        """
        functions = {each.operation: each.function for each in catalogue_of(tmp_path, source).declarations}
        assert functions == {"a": "C.m", "b": "C.m", "c": "C.m.inner", "d": None, "e": None}

    @pytest.mark.parametrize(
        ("call", "intent"),
        [
            ('log.operation("a")', False),
            ('log.operation("a", intent=True)', True),
            ('log.operation("a", intent=False)', False),
            ('log.operation("a", intent=x)', None),
            ('log.operation("a", **x)', None),
            ('log.info("a")', False),
        ],
    )
    def test_intent_is_known_or_computed(self, tmp_path, call, intent):
        """``intent`` is the argument of ``operation``; None if the code computes it."""
        (found,) = catalogue_of(tmp_path, call).declarations
        assert found.intent is intent

    @pytest.mark.parametrize(
        ("call", "status", "level"),
        [
            ('log.info("a")', "SUCCESS", "INFO"),
            ('log.warning("a", user_id=u)', "SUCCESS", "WARNING"),
            ('log.error("a")', "FAILURE", "ERROR"),
            ('log.exception("a", exc_info=True)', "FAILURE", "ERROR"),
            ('log.error("a", status="PARTIAL")', "PARTIAL", "ERROR"),
            ('log.info("a", status=EventStatus.FAILURE)', "FAILURE", "INFO"),
            ('log.info("a", status=x)', None, "INFO"),
            ('log.info("a", status="nonsense")', None, "INFO"),
            ('log.info("a", status="denied")', "FAILURE", "INFO"),
            ('log.info("a", status=False)', "FAILURE", "INFO"),
            ('log.error("a", status=204)', "SUCCESS", "ERROR"),
            ('log.info("a", error_message=x)', None, "INFO"),
            ('log.info("a", **x)', None, "INFO"),
            ('log.operation("a")', None, None),
            ('log.operation("a", status="PARTIAL")', "PARTIAL", None),
            ('AuditLogger().record("a", u, None, [], {}, "failure")', "FAILURE", None),
            ('AuditLogger().record("a", u)', "SUCCESS", None),
            ('AuditLogger().record("a", *x)', None, None),
            ('audited("a")', None, None),
        ],
    )
    def test_status_follows_from_argument_or_level(self, tmp_path, call, status, level):
        """The status follows from the argument, or from the level, if the call alone determines it."""
        (found,) = catalogue_of(tmp_path, call).declarations
        assert (found.status, found.level) == (status, level)

    @pytest.mark.parametrize(
        ("call", "fields"),
        [
            ('log.info("a", user_id=u, plan="pro", exc_info=True, **more)', ("user_id", "plan")),
            ('x.log_event("a", u, s, [e], duration_ms=1)', ("user_id", "session_id", "entry_ids", "duration_ms")),
            ('audited("a", user_id="user", metadata={"x": "y"}, logger="b")', ("user_id", "metadata")),
            ('logging.getLogger("audit").info("a", extra={"user_id": 1, "b": 2, c: 3})', ("user_id", "b")),
            ('instrument(obj=o, operations={"m": "a"}, entry_ids="ids")', ("entry_ids",)),
        ],
    )
    def test_fields_are_those_that_the_call_passes(self, tmp_path, call, fields):
        """Fields are those of the event, in the order in which the call passes them."""
        (found,) = catalogue_of(tmp_path, call).declarations
        assert found.fields == fields

    def test_long_expression_is_truncated(self, tmp_path):
        """The source of an operation is quoted up to 100 characters and an ellipsis."""
        (found,) = catalogue_of(tmp_path, f"log.info(f({'x' * 1_000}))").declarations
        assert len(found.expression) == 101
