"""The direction of imports, and the names of the root package."""

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
    """The name of the module at *path*, below the root package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def imported_by(path: Path) -> set[str]:
    """The top-level names of everything that *path* imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_structlog_is_imported_by_entry_points_and_one_module_below():
    """Only entry points import structlog; below them, one module does, which reads its context variables."""
    knowing = {name_of(path) for path in MODULES if "structlog" in imported_by(path)}
    entry_points = {name for name in knowing if name.startswith("loggers.")} | {"contrib.actor"}
    assert knowing - entry_points == {"events.context"}


def test_values_touch_neither_disk_nor_clock():
    """Events, filters, statistics and formats are functions of values."""
    packages = ("events", "query", "formats")
    values = [path for path in MODULES if name_of(path).split(".")[0] in packages]
    assert len(values) > 15
    for path in values:
        if name_of(path) == "events.event_id":
            continue
        assert not imported_by(path) & {"time", "io", "tempfile", "pathlib", "threading", "secrets"}, path


def test_root_has_few_modules():
    """At most ten modules lie in the root of the package; everything else has a package of its own."""
    assert len(list(SOURCE.glob("*.py"))) <= 10


def test_no_module_shares_its_name_with_a_public_function():
    """`import structlog_audit.x as m` never gives a function: no public name of the root is a module, too."""
    functions = {name for name in structlog_audit.__all__ if not isinstance(getattr(structlog_audit, name), type)}
    assert not functions & {name_of(path).rsplit(".")[-1] for path in MODULES}


def test_layers_hold():
    """Imports run downwards only, lazy imports included: the contract in pyproject.toml."""
    command = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv = ['lint-imports']; run()"
    done = subprocess.run([sys.executable, "-c", command], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["pickle", "marshal", "socket", "ctypes", "subprocess"])
def test_nothing_dangerous_is_imported(name):
    """No pickle, no sockets, no foreign code; only the doctor starts processes, to try a configuration and to ask the clock."""
    allowed = {"cli.doctor", "cli.doctor.host"} if name == "subprocess" else set()
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
