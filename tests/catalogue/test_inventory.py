"""The catalogue: which operations code declares, and how events agree with it."""

from __future__ import annotations

import ast
import os
import sys
import textwrap
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit import AuditLogger, AuditTypeError, AuditValueError
from structlog_audit.catalogue import MOST_UNDECLARED, catalogue, compare
from structlog_audit.event import EventStatus, operation_of

HEAD = """
import logging
import structlog
import structlog_audit
from contextlib import ExitStack
from structlog_audit import AuditBoundLogger, AuditLogger, EventStatus, OperationType, audited, get_audit_logger, instrument
log = get_audit_logger()
"""
LINES = HEAD.count("\n")


def declared(folder, source, **others):
    """The catalogue of a module with *source*, beside *others*."""
    package = folder / "app"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    for name, text in others.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    (package / "main.py").write_text(HEAD + textwrap.dedent(source).lstrip("\n"))
    return catalogue(package / "main.py")


def told(folder, source, **others):
    """The operations that *source* declares, in the order of its lines; None for a computed one."""
    return [declaration.operation for declaration in declared(folder, source, **others).declarations]


class TestDoors:
    """Where an operation is declared."""

    @pytest.mark.parametrize(
        ("source", "door"),
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
    def test_a_door_declares_its_operation(self, tmp_path, source, door):
        """Each door declares the operation once, with its name and line."""
        (found,) = declared(tmp_path, source).declarations
        assert (found.operation, found.door) == ("A", door)
        lines = (HEAD + source).splitlines()
        assert '"A"' in lines[found.line - 1] or "instrument" in lines[found.line - 1]
        assert found.file.endswith(os.path.join("app", "main.py"))

    @pytest.mark.parametrize(
        "source",
        [
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
    def test_what_is_no_door_declares_nothing(self, tmp_path, source):
        """Methods of other objects, and functions of other packages, declare nothing."""
        assert told(tmp_path, source) == []

    def test_each_method_of_instrument_is_a_declaration(self, tmp_path):
        """instrument declares an operation for each method, called by object and method; what it can't tell is computed."""
        source = 'KEY = "k"\ninstrument(memory.store, {"store": "STORE", "get": f(), KEY: "X", **{"a": "b"}, **more()})'
        found = declared(tmp_path, source).declarations
        assert [(each.operation, each.function) for each in found] == [
            ("STORE", "memory.store.store"),
            (None, "memory.store.get"),
            ("X", "memory.store.KEY"),
            ("b", "memory.store.a"),
            (None, None),
        ]
        assert found[-1].expression == "more()"


class TestNames:
    """Which operations are known."""

    OPS = """
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
    def test_an_operation_is_resolved_or_computed(self, tmp_path, expression, known):
        """Literals, constants and members of Enums of the same code are known; everything else is told as computed."""
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
        found = declared(tmp_path, source, ops=self.OPS, stars='starred_constant = "from a star"').declarations
        if known is None:
            assert [(each.operation, each.function) for each in found] == [(None, "f")]
            assert found[0].expression == ast.unparse(ast.parse(expression))
        else:
            assert [each.operation for each in found] == known

    def test_an_inner_scope_hides_an_outer_one(self, tmp_path):
        """A name means what the innermost scope that binds it says; a class body is none for its methods."""
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
        assert told(tmp_path, source) == [
            *("inner", None, None, None),
            *("class", "outer", "class", None),
            *(None, None),
            *("outer", "later", "right", None, "after", "before"),
        ]

    def test_the_arguments_may_be_spread(self, tmp_path):
        """An operation that comes by * or **, or not at all, is computed, and the call is quoted."""
        found = declared(tmp_path, "log.info(*args)\nlog.info(**fields)\naudited(*args)\nlog.error()").declarations
        assert [(each.operation, each.expression) for each in found] == [
            (None, "log.info(*args)"),
            (None, "log.info(**fields)"),
            (None, "audited(*args)"),
            (None, "log.error()"),
        ]

    def test_a_message_with_arguments_is_computed(self, tmp_path):
        """What `logging` puts together of a message and arguments is not known."""
        assert told(tmp_path, 'logging.getLogger("audit").info("did %s", what)') == [None]

    def test_a_logger_and_constants_come_from_other_modules(self, tmp_path):
        """Loggers, doors and constants are followed through imports within the code, also from a package to its modules."""
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
        assert told(tmp_path, source, wiring=wiring) == ["a", "b", "c", "d"]


class TestDetails:
    """What a declaration says besides."""

    def test_functions_are_qualified(self, tmp_path):
        """The function is the decorated one, or that which the place stands in; None at the top of a module."""
        source = """
            class C:
                @audited("a")
                async def m(self):
                    log.info("b")
                    def inner(): log.info("c")
                log.info("d")
            log.info("e")
        """
        functions = {each.operation: each.function for each in declared(tmp_path, source).declarations}
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
    def test_an_intent_is_told(self, tmp_path, call, intent):
        """Whether the intent is recorded first; None if the code computes that."""
        (found,) = declared(tmp_path, call).declarations
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
    def test_the_status_that_the_place_says(self, tmp_path, call, status, level):
        """The status by argument or level, if the place alone decides it."""
        (found,) = declared(tmp_path, call).declarations
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
    def test_the_fields_that_the_place_names(self, tmp_path, call, fields):
        """Fields are those of the event, in the order in which the place names them."""
        (found,) = declared(tmp_path, call).declarations
        assert found.fields == fields

    def test_long_expressions_are_cut(self, tmp_path):
        """The source of an operation is quoted up to a length."""
        (found,) = declared(tmp_path, f"log.info(f({'x' * 1_000}))").declarations
        assert len(found.expression) == 101


class TestPlaces:
    """Where source is looked for."""

    @pytest.fixture(autouse=True)
    def app(self, tmp_path, monkeypatch):
        """A package that may not be imported, with a virtual environment and hidden files beside it."""
        for name, source in {
            "app/__init__.py": "raise SystemExit('imported')",
            "app/sub/__init__.py": "raise SystemExit('imported')",
            "app/sub/jobs.py": "from app.ops import OP\nfrom structlog_audit import audited\naudited(OP)",
            "app/ops.py": 'OP = "sub.job"',
            "app/.hidden/x.py": "(",
            "app/__pycache__/x.py": "(",
            "app/venv/pyvenv.cfg": "",
            "app/venv/x.py": "(",
            "app/notes.txt": "(",
            "single.py": 'import structlog_audit\nstructlog_audit.audited("single")',
        }.items():
            path = tmp_path / "src" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "src")])
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("package", "files"),
        [
            ("app", 4), ("app.sub", 2), ("app.sub.jobs", 1), ("src/app", 4), ("src", 5), (".", 5),
            ("src/app/sub/jobs.py", 1),
        ],
    )  # fmt: skip
    def test_by_name_and_by_path_the_same_is_found(self, package, files):
        """A package is found by its name, its folder, a file or a folder around it, and nothing of it is imported."""
        found = catalogue(package)
        assert "sub.job" in found.operations
        (where,) = found.operations["sub.job"]
        assert (where.file, where.line) == (os.path.join("src", "app", "sub", "jobs.py"), 3)
        assert (found.files, found.unread) == (files, ())
        assert not {name for name in sys.modules if name.split(".")[0] == "app"}

    def test_several_packages_are_one_catalogue(self):
        """Several packages are listed together, and each file once."""
        found = catalogue("app", "single", "src/app/sub", "src/single.py")
        assert list(found.operations) == ["single", "sub.job"]
        assert (len(found.declarations), found.files) == (2, 5)

    def test_the_current_directory_counts(self, tmp_path, monkeypatch):
        """A module of the current directory is found by its name, as the console script has it not on its path."""
        monkeypatch.setattr(sys, "path", [path for path in sys.path if "src" not in path])
        monkeypatch.chdir(tmp_path / "src")
        assert list(catalogue("app.sub.jobs").operations) == ["sub.job"]

    @pytest.mark.parametrize(
        ("package", "error", "said"),
        [
            ("nothing_of_that_name", AuditValueError, "no such module"),
            ("app.nothing", AuditValueError, "no such module"),
            ("app.ops.nothing", AuditValueError, "no such module"),
            ("no/such/file.py", AuditValueError, "no such file"),
            ("sys", AuditValueError, "no Python source"),
            ("empty", AuditValueError, "expected at least one Python file, found none"),
            ("", AuditTypeError, "expected the name of a package"),
            (5, AuditTypeError, "expected the name of a package"),
        ],
    )
    def test_what_is_no_package_is_an_error(self, tmp_path, package, error, said):
        """What is nowhere, or has no source, is an error that says what to give."""
        (tmp_path / "empty").mkdir()
        with pytest.raises(error, match=said):
            catalogue(package)

    def test_without_a_package_there_is_no_catalogue(self):
        """At least one package is needed."""
        with pytest.raises(AuditTypeError, match="expected at least one package"):
            catalogue()

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"x = (", "line 1: '(' was never closed"),
            (b"\xff\xfe", "utf-8"),
            (b"x\0", "null byte"),
            (b"x = " + b"-" * 100_000 + b"1", "nested too deeply"),
            (b"x = " + b"+".join([b"a"] * 20_000), "nested too deeply"),
        ],
    )
    def test_what_cant_be_read_is_listed(self, content, reason, recwarn):
        """A file that is no Python of this version is listed with the reason, and the others are read."""
        with open("src/app/bad.py", "wb") as file:
            file.write(content)
        found = catalogue("app")
        (unread,) = found.unread
        assert unread.file == os.path.join("src", "app", "bad.py")
        assert reason in unread.reason.lower()
        assert (found.files, list(found.operations)) == (4, ["sub.job"])
        assert found.to_dict()["unread"] == [{"file": unread.file, "reason": unread.reason}]
        assert not recwarn.list

    def test_an_import_of_what_cant_be_read_is_unknown(self):
        """A constant of a module that can't be read is computed; of a namespace package it is found."""
        with open("src/app/ops.py", "w") as file:
            file.write("(")
        found = catalogue("app")
        assert [each.operation for each in found.declarations] == [None]
        assert len(found.unread) == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_cant_be_read_is_listed(self, tmp_path):
        """A folder without the right to read is listed, and not passed over."""
        folder = tmp_path / "src" / "app" / "closed"
        folder.mkdir(mode=0)
        assert [unread.reason for unread in catalogue("app").unread] == ["Permission denied"]

    def test_a_warning_of_the_source_is_not_ours(self, recwarn):
        """What the compiler warns of in somebody's source is not told."""
        with open("src/single.py", "a") as file:
            file.write('\nx = "\\d" is 5\n')
        catalogue("src/single.py")
        assert not recwarn.list

    def test_a_namespace_package_is_followed(self, tmp_path):
        """Imports of a package without an __init__.py lead to its modules, by name and by path."""
        folder = tmp_path / "src" / "space"
        folder.mkdir()
        (folder / "ops.py").write_text('OP = "spaced"')
        (folder / "jobs.py").write_text("import structlog_audit as s\nfrom space.ops import OP\ns.audited(OP)")
        for package in ("space", "space.jobs", "src"):
            assert "spaced" in catalogue(package).operations, package


WAYS = {
    "literal": "{name!r}",
    "constant": "CONSTANT_{number}",
    "member": "Ops.M{number}",
    "local": "local",
    "either": "{name!r} if number_{number} else 'other'",
    "joined": "'' + {name!r}",
    "computed": "str({name!r})",
    "argument": "argument",
}
DOORS = {
    "audited": "@structlog_audit.audited({op})\n    def inner(): pass\n    inner()",
    "operation": "with log.operation({op}): pass",
    "instrument": "import types\n    obj = types.SimpleNamespace(m=lambda: None)\n"
    "    structlog_audit.instrument(obj, {{'m': {op}}})\n    obj.m()",
    "info": "log.info({op})",
    "named": "log.error('text', operation={op})",
    "record": "audit.record({op})",
    "bound": "log.bind(a=1).warning({op}, user_id='u')",
}
PLACES = st.lists(
    st.tuples(st.sampled_from(list(DOORS)), st.sampled_from(list(WAYS)), st.sampled_from(["STORE", "store", "x", "a.b", "é"])),
    max_size=12,
)  # fmt: skip


def program(places):
    """A program that goes through all *places*: door, way of naming, name."""
    constants = [f"CONSTANT_{n} = {name!r}\nnumber_{n} = {n % 2}" for n, (_, _, name) in enumerate(places)]
    members = [f"    M{n} = {name!r}" for n, (_, _, name) in enumerate(places)] or ["    pass"]
    functions = []
    for number, (door, way, name) in enumerate(places):
        operation = WAYS[way].format(name=name, number=number)
        body = DOORS[door].format(op=operation)
        functions.append(f"def f{number}(argument):\n    local = {name!r}\n    {body}\nf{number}({name!r})")
    head = "import structlog_audit\nfrom enum import Enum\nlog = structlog_audit.get_audit_logger()\n"
    enum = "\n".join(["class Ops(str, Enum):", *members])
    return (
        "\n".join([head, "audit = structlog_audit.AuditLogger(handler='audit')", *constants, enum, *functions]) + "\n"
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES)
def test_what_a_program_records_is_declared_or_computed(tmp_path, places):
    """For all programs: what running them records is declared by name, or comes of a place that is told as computed."""
    import logging

    from structlog_audit import AuditHandler

    source = program(places)
    (tmp_path / "program.py").write_text(source, encoding="utf-8")
    handler, logger = AuditHandler(), logging.getLogger("audit")
    handler.set_name("audit")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    exec(compile(source, "program.py", "exec"), {"__name__": "program"})
    found = catalogue(tmp_path / "program.py")
    compared = compare(found, handler)
    computed = [name for _, way, name in places if way in ("computed", "argument")]
    assert len(found.computed) == len(computed)
    assert compared.events == len(places)
    assert set(compared.undeclared) <= {operation_of(name).value for name in computed}
    assert not set(compared.undeclared) & set(found.operations)
    assert compared.is_declared or compared.computed
    logger.handlers = []
    handler.close()


NAMES = st.sampled_from(["STORE", "login", "logout", "x", "y"])
RECORDED = st.lists(
    st.tuples(NAMES, st.sampled_from(["ann", "", None]), st.sampled_from(EventStatus), st.booleans()), max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(named=st.sets(NAMES), events=RECORDED)
def test_the_comparison_is_what_counting_gives(tmp_path, named, events):
    """For all catalogues and events: the comparison is what counting the events one operation at a time gives."""
    (tmp_path / "app.py").write_text(
        "import structlog_audit\n" + "".join(f"structlog_audit.audited({n!r})\n" for n in named)
    )
    audit = AuditLogger()
    for name, user, status, _ in events:
        audit.record(name, user, status=status)
    found = compare(catalogue(tmp_path / "app.py"), audit)
    of = {name: [event for event in events if event[0] == name] for name in {event[0] for event in events}}
    assert found.events == len(events)
    assert found.recorded == {name: len(those) for name, those in of.items() if name in named}
    assert found.undeclared == {name: len(those) for name, those in of.items() if name not in named}
    assert set(found.never_recorded) == named - of.keys()
    assert set(found.never_failed) == {
        name for name, those in of.items() if name in named and {status for _, _, status, _ in those} == {"SUCCESS"}
    }
    nobody = Counter(name for name, user, _, _ in events if not user and name in named)
    assert found.without_user == nobody
    assert list(found.never_recorded) == sorted(found.never_recorded)


def test_the_librarys_own_events_are_left_out(tmp_path):
    """What a trail says of itself, and intents, are neither recorded operations nor undeclared ones."""
    (tmp_path / "app.py").write_text("")
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        pass
    compared = compare(catalogue(tmp_path / "app.py"), audit)
    assert (compared.events, compared.undeclared) == (0, {})


def test_filters_choose_the_events(tmp_path):
    """Only the events that match the filters are compared; an unknown filter is an error."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    audit.record("a", "ann")
    audit.record("b", "bob")
    assert compare(catalogue(tmp_path / "app.py"), audit, user_id="ann").undeclared == {"a": 1}
    with pytest.raises(AuditTypeError):
        compare(catalogue(tmp_path / "app.py"), audit, user="ann")


def test_undeclared_names_are_bounded(tmp_path):
    """Of undeclared operations the first thousand are named, and the events of others counted."""
    (tmp_path / "app.py").write_text("")
    audit = AuditLogger()
    for number in range(MOST_UNDECLARED + 5):
        audit.record(f"op-{number}")
        audit.record("op-0")
    compared = compare(catalogue(tmp_path / "app.py"), audit)
    assert (len(compared.undeclared), compared.undeclared_beyond) == (MOST_UNDECLARED, 5)
    assert compared.undeclared["op-0"] == MOST_UNDECLARED + 6


def test_following_names_is_bounded(tmp_path):
    """Names that lead to each other in many ways end as unknown, and soon."""
    lines = [f"n{a} = n{b}" for a in range(30) for b in range(30)]
    (tmp_path / "app.py").write_text("\n".join(["import structlog_audit", *lines, "structlog_audit.audited(n1)"]))
    assert [each.operation for each in catalogue(tmp_path / "app.py").declarations] == [None]
