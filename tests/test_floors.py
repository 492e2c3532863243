"""The direction of imports, and what the root package brings in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import structlog_audit

SOURCE = Path(structlog_audit.__file__).parent

FLOORS = [
    {"exceptions", "version"},
    {"event", "context", "chains", "problems"},
    {"plain", "segments", "body", "check", "lines"},
    {"fit", "query", "statistics", "secrecy", "places"},
    {"codec", "windows"},
    {"formats.table"},
    {"formats.ecs", "formats.ocsf", "formats.cadf", "formats.cef", "formats.otlp"},
    {"formats"},
    {
        "records",
        "stamp",
        "index",
        "tally",
        "entry",
        "followers",
        "export",
        "retention",
        "rules",
        "spans",
        "document",
        "trails",
    },
    {"conversion", "commit", "buffer", "source", "redaction", "forks", "unpack"},
    {"formatter", "acts", "monitoring", "scan"},
    {"pruning", "engine"},
    {"active", "paging", "following", "warm"},
    {"reader"},
    {"opening"},
    {"files", "target"},
    {"handler"},
    {"lookup"},
    {"unheard", "scope"},
    {"loggers"},
    {"processors", "audited", "audit_logger"},
    {"__init__"},
    {"reports.period", "reports.clauses", "reports.text"},
    {"reports.tally", "reports.charts"},
    {"reports.document"},
    {"reports.sections", "reports.markdown", "reports.html"},
    {"reports.report"},
    {"reports"},
    {"catalogue.source_files"},
    {"catalogue.scopes", "catalogue.call_arguments"},
    {"catalogue.name_resolution"},
    {"catalogue.inference"},
    {"catalogue.declarations"},
    {"catalogue.inventory"},
    {"catalogue.comparison"},
    {"catalogue"},
    {"doubles", "mismatch", "children", "prometheus", "opentelemetry"},
    {"trial"},
    {"conformance"},
    {"testing"},
    {"shippers"},
    {"cli.choices", "cli.exits"},
    {"cli.when", "cli.conditions", "cli.terminal"},
    {"cli.output", "cli.record"},
    {"cli.reading"},
    {"cli.events", "cli.counts", "cli.files", "cli.shipping"},
    {"cli.demo", "cli.alerts", "cli.catalogue"},
    {"cli.doctor.findings", "cli.doctor.loading"},
    {"cli.doctor.configuration", "cli.doctor.places", "cli.doctor.history", "cli.doctor.machine"},
    {"cli.doctor.dryrun", "cli.doctor"},
    {"cli.app"},
    {"cli"},
    {"cli.__main__"},
    {"contrib"},
    {"contrib.actor", "contrib.threads"},
    {"contrib.asgi", "contrib.django", "contrib.celery"},
]
"""A module imports only from floors before its own: values, rules, files, the handler, the doors, what is built on them."""

MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The name of the module at *path*, below the root package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def modules_imported(path: Path) -> set[str]:
    """The modules of this package that *path* imports, at whatever place in it."""
    known = {name_of(module) for module in MODULES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("structlog_audit"):
            module = (node.module or "").removeprefix("structlog_audit").lstrip(".")
            inner = {f"{module}.{name.name}".lstrip(".") for name in node.names} & known
            found |= inner or {module or "__init__"}
        elif isinstance(node, ast.Import):
            names = (name.name for name in node.names if name.name.startswith("structlog_audit."))
            found |= {name.removeprefix("structlog_audit.") for name in names}
    return found


def test_every_module_has_a_floor():
    """No module is outside of the picture."""
    assert {name_of(path) for path in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_floors_below_its_own(path):
    """Imports run one way, lazy ones included."""
    floor = next(number for number, names in enumerate(FLOORS) if name_of(path) in names)
    assert modules_imported(path) <= set().union(*FLOORS[:floor])


def imported_by(path: Path) -> set[str]:
    """The top-level names of everything that *path* imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_only_the_doors_and_one_module_below_them_know_structlog():
    """Below the doors structlog is known in one place, which reads its contextvars; above, in one that sets them."""
    doors = {"unheard", "loggers", "processors", "audited", "audit_logger", "scope", "__init__", "contrib.actor"}
    knowing = {name_of(path) for path in MODULES if "structlog" in imported_by(path)}
    assert knowing - doors == {"context"}


def test_values_and_rules_touch_neither_disk_nor_clock():
    """Up to the formats everything is a function of values."""
    values = set().union(*FLOORS[:8]) - {"chains", "check", "places"}
    for path in MODULES:
        assert name_of(path) not in values or not imported_by(path) & {
            "time",
            "io",
            "tempfile",
            "pathlib",
            "threading",
            "secrets",
        }


@pytest.mark.parametrize("name", ["pickle", "marshal", "socket", "ctypes", "subprocess"])
def test_nothing_dangerous_is_imported(name):
    """No pickle, no sockets, no foreign code; only the doctor starts processes, to try a configuration and to ask the clock."""
    allowed = {"cli.doctor", "cli.doctor.machine"} if name == "subprocess" else set()
    assert {name_of(path) for path in MODULES if name in imported_by(path)} == allowed


@pytest.mark.parametrize(
    "module", ["structlog_audit", "structlog_audit.contrib.asgi", "structlog_audit.contrib.threads"]
)
def test_the_root_imports_no_optional_dependency(module):
    """Importing the package, or what fits any framework, brings in the core dependencies and the standard library only."""
    code = (
        f"import sys; before = set(sys.modules); import {module};"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    allowed = {"structlog", "structlog_audit", "pythonjsonlogger", "msgspec", "typing_extensions"}
    # structlog itself imports rich, better_exceptions and colorama if it finds them; and rich attrs
    assert (
        set(found) - {"rich", "better_exceptions", "colorama", "pygments", "markdown_it", "mdurl", "attr", "attrs"}
        <= allowed
    )


def test_the_public_names_are_those_that_are_documented():
    """`__all__` is sorted, complete, and every name has a docstring."""
    names = structlog_audit.__all__
    assert names == sorted(names)
    assert set(names) == {
        name
        for name, value in vars(structlog_audit).items()
        if not name.startswith("_") and not isinstance(value, type(ast))
    }
    assert all(getattr(structlog_audit, name).__doc__ for name in names)


def test_modules_and_functions_stay_small():
    """A module has at most about 400 lines, a function about 40."""
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 400, name_of(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno + 1 - (doc or "").count("\n")
                assert lines <= 50, f"{name_of(path)}.{node.name} has {lines} lines"
