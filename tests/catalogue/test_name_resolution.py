"""Tests of the values that names and expressions in the source resolve to."""

from __future__ import annotations

import ast

import pytest
from inspected_source import catalogue_of, operations_of

from structlog_audit.catalogue import catalogue

OPERATIONS = """
    from enum import Enum, StrEnum, auto
    class Ops(StrEnum):
        LOGIN = auto()
        LOGOUT = "auth.logout"
    class Old(Enum):
        FORGET = "forget"
        PAIR = "a", "b"
    class Plain:
        RENAME = "rename"
    class Below(Plain):
        pass
    NAME = "export-all"
    COPY = NAME
    LOOP = LOOP2
    LOOP2 = LOOP
    count = 1
    from structlog_audit import OperationType as Types
"""


@pytest.mark.parametrize(
    ("expression", "known"),
    [
        ('"x"', ["x"]),
        ('"store"', ["STORE"]),
        ("OperationType.STORE", ["STORE"]),
        ("OperationType.STORE.value", ["STORE"]),
        ("structlog_audit.OperationType.RECALL", ["RECALL"]),
        ("ops.Types.IMPORT", ["IMPORT"]),
        ("Ops.LOGIN", ["login"]),
        ("Ops.LOGOUT.value", ["auth.logout"]),
        ("ops.Old.FORGET", ["FORGET"]),
        ("app.ops.Old.FORGET", ["FORGET"]),
        ("renamed.NAME", ["export-all"]),
        ("COPY", ["export-all"]),
        ("Below.RENAME", ["rename"]),
        ("starred_constant", ["from a star"]),
        ('"a" if x else "b"', ["a", "b"]),
        ('"a" if x else f()', None),
        ('f"job.{COPY}"', ["job.export-all"]),
        ('"job." + COPY', ["job.export-all"]),
        ('f"job.{x}"', None),
        ('f"{COPY:>20}"', None),
        ('f"{Ops.LOGIN}"', None),
        ("LOCAL", ["module"]),
        ("TWICE", ["one", "two"]),
        ("CHANGED", None),
        ("LOOPED", None),
        ("ops.LOOP", None),
        ("ops.Old.PAIR", None),
        ("ops.NOTHING", None),
        ("ops.count", None),
        ("unknown", None),
        ("other_package.X", None),
        ("argument", None),
        ("made()", None),
        ("(walrus := 'w')", ["w"]),
        ("1", None),
        ("{'a': 'b'}['a']", None),
    ],
)
def test_operation_is_known_or_computed(tmp_path, expression, known):
    """Literals, constants and members of Enums in the same code are known; every other operation is computed."""
    source = f"""
        import app.ops
        import app.ops as renamed
        import other_package
        from . import ops
        from .ops import *
        from .stars import *
        from app.ops import COPY, Ops, Below
        LOCAL = "module"
        TWICE = "one"
        TWICE = "two"
        CHANGED = "one"
        CHANGED += "two"
        for LOOPED in ("a", "b"): pass
        def f(argument):
            log.info({expression})
    """
    found = catalogue_of(tmp_path, source, ops=OPERATIONS, stars='starred_constant = "from a star"').declarations
    if known is None:
        assert [(each.operation, each.function) for each in found] == [(None, "f")]
        assert found[0].expression == ast.unparse(ast.parse(expression))
    else:
        assert [each.operation for each in found] == known


def test_inner_scope_hides_outer_scope(tmp_path):
    """A name resolves to the innermost scope that binds it; a class body is not a scope for its methods."""
    source = """
        OP = "outer"
        def f():
            OP = "inner"
            log.info(OP)
            def g(OP): log.info(OP)
            [log.info(OP) for OP in names]
            (lambda OP: log.info(OP))
        class C:
            OP = "class"
            log.info(OP)
            def f(self):
                log.info(OP)
                log.info(C.OP)
                log.info(self.OP)
        def h():
            global LATER
            LATER = "later"
        def k():
            match x:
                case {"a": OP, **rest}: log.info(OP)
        def m():
            try: pass
            except E as OP: log.info(OP)
        def n():
            log.info(OP)
            log.info(LATER)
            a, b = "left", "right"
            log.info(b)
            c, d = pair
            log.info(d)
            state = "before"
            def inner():
                nonlocal state
                state = "after"
            log.info(state)
    """
    assert operations_of(tmp_path, source) == [
        *("inner", None, None, None),
        *("class", "outer", "class", None),
        *(None, None),
        *("outer", "later", "right", None, "after", "before"),
    ]


def test_operation_passed_by_star_is_computed(tmp_path):
    """An operation that is passed by * or **, or is missing, is computed, and the call is quoted."""
    found = catalogue_of(tmp_path, "log.info(*args)\nlog.info(**fields)\naudited(*args)\nlog.error()").declarations
    assert [(each.operation, each.expression) for each in found] == [
        (None, "log.info(*args)"),
        (None, "log.info(**fields)"),
        (None, "audited(*args)"),
        (None, "log.error()"),
    ]


def test_message_with_arguments_is_computed(tmp_path):
    """A message that `logging` formats with arguments is computed."""
    assert operations_of(tmp_path, 'logging.getLogger("audit").info("did %s", what)') == [None]


def test_imports_are_followed_within_the_code(tmp_path):
    """Loggers, entry points and constants are followed through imports, from a package to its modules too."""
    source = """
        from .wiring import audit, recorded, make
        from . import wiring
        audit.info("a")
        wiring.audit.info("b")
        @recorded(wiring.NAME)
        def f(): pass
        make().info("d")
    """
    wiring = """
        from structlog_audit import AuditBoundLogger, audited as recorded, get_audit_logger
        audit = get_audit_logger()
        NAME = "c"
        def make() -> AuditBoundLogger: return audit
    """
    assert operations_of(tmp_path, source, wiring=wiring) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "expression",
    [
        '"store".upper()',
        '"job.{}".format(NAME)',
        '"-".join(PARTS)',
        "str(argument)",
        'NAME.replace("a", "b")',
        'f"{NAME!r}"',
        'argument or "x"',
        'TABLE["key"]',
        "PARTS[0]",
        "settings.mode",
        "pick()",
    ],
)
def test_computed_string_never_becomes_a_wrong_operation(tmp_path, expression):
    """Calls, items and attributes of instances are computed, since their value may change or depend on the run."""
    source = f"""
        NAME = "abc"
        PARTS = ["p"]
        PARTS[0] = "q"
        TABLE = {{"key": "v"}}
        TABLE["key"] = "w"
        class Settings:
            mode = "m"
        settings = Settings()
        settings.mode = "n"
        def pick(): return NAME
        def f(argument):
            log.info({expression})
    """
    assert operations_of(tmp_path, source) == [None]


def test_chains_of_names_are_bounded(tmp_path):
    """Names that refer to each other in many ways are computed."""
    lines = [f"n{a} = n{b}" for a in range(30) for b in range(30)]
    (tmp_path / "app.py").write_text("\n".join(["import structlog_audit", *lines, "structlog_audit.audited(n1)"]))
    assert [each.operation for each in catalogue(tmp_path / "app.py").declarations] == [None]
