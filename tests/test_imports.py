"""The direction of imports, forbidden imports, and the public names of the root package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import structlog_audit

SOURCE = Path(structlog_audit.__file__).parent
TOP = Path(__file__).parent.parent

MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the name of the module at *path*, relative to the root package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    if parts == ("__init__",):
        return "__init__"

    # A package is named by its folder.
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def imported_by(path: Path) -> set[str]:
    """Return the top-level names of all imports in the module at *path*."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import has no module, and counts as "".
            modules.append(node.module or "")

    return {module.split(".")[0] for module in modules}


def test_only_entry_points_and_context_module_import_structlog():
    """Entry points import structlog; below them, only the module that reads its context variables does."""
    below = set()
    for path in MODULES:
        name = name_of(path)
        is_entry_point = name.startswith("loggers.") or name == "contrib.actor"
        if "structlog" in imported_by(path) and not is_entry_point:
            below.add(name)

    assert below == {"events.context"}


def test_events_query_and_formats_use_neither_disk_nor_clock():
    """Events, filters, statistics and formats depend on their arguments only; ids need the clock and random bits."""
    packages = ("events", "query", "formats")
    impure = {"time", "io", "tempfile", "pathlib", "threading", "secrets"}
    checked = 0
    for path in MODULES:
        name = name_of(path)
        if name.split(".")[0] not in packages:
            continue

        checked += 1
        if name != "events.event_id":
            assert not imported_by(path) & impure, path

    assert checked > 15


def test_root_package_has_at_most_ten_modules():
    """All other modules lie in a sub-package."""
    assert len(list(SOURCE.glob("*.py"))) <= 10


def test_module_names_differ_from_names_of_public_functions():
    """`import structlog_audit.x as m` binds a module, never a function of the root package."""
    functions = set()
    for name in structlog_audit.__all__:
        if not isinstance(getattr(structlog_audit, name), type):
            functions.add(name)

    modules = {name_of(path).split(".")[-1] for path in MODULES}
    assert not functions & modules


def test_imports_follow_the_layers_of_pyproject():
    """Imports run downwards only, lazy imports included."""
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv = ['lint-imports']; run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["pickle", "marshal", "socket", "ctypes", "subprocess"])
def test_dangerous_modules_are_imported_only_where_processes_are_run(name):
    """The doctor tries a configuration and queries the clock, a command signs, anchors and Spark are elsewhere; that is all."""
    importing = {name_of(path) for path in MODULES if name in imported_by(path)}
    expected = {
        "subprocess": {"cli.doctor", "cli.doctor.host", "integrity.signing"},
        "socket": {"archive.spark_engine", "integrity.submission"},
    }
    assert importing == expected.get(name, set())


@pytest.mark.parametrize(
    "module", ["structlog_audit", "structlog_audit.contrib.asgi", "structlog_audit.contrib.threads"]
)
def test_import_loads_no_optional_dependency(module):
    """Importing the root, or the integrations without a framework, loads core dependencies and the standard library only."""
    code = (
        f"import sys; before = set(sys.modules); import {module};"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    core = {"structlog", "structlog_audit", "pythonjsonlogger", "msgspec", "typing_extensions"}
    # structlog imports rich, better_exceptions, colorama and greenlet if they are installed, and rich imports the others.
    of_structlog = {
        "rich",
        "better_exceptions",
        "colorama",
        "greenlet",
        "pygments",
        "markdown_it",
        "mdurl",
        "attr",
        "attrs",
    }
    # Generated when Python 3.15 is built, so the names of its standard library lack it.
    generated = {"_missing_stdlib_info"}
    assert set(done.stdout.split()) <= core | of_structlog | generated


def test_all_lists_every_public_name_sorted():
    """`__all__` is sorted and complete."""
    module = type(ast)
    names = structlog_audit.__all__
    assert names == sorted(names)

    public = set()
    for name, value in vars(structlog_audit).items():
        if not name.startswith("_") and not isinstance(value, module):
            public.add(name)
    assert set(names) == public


def test_every_public_name_has_a_docstring():
    """Each public name of the root package is documented."""
    for name in structlog_audit.__all__:
        assert getattr(structlog_audit, name).__doc__, name
