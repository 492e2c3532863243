"""Tests of the files that a package consists of, and of files that cannot be read."""

from __future__ import annotations

import os
import sys

import pytest

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit.catalogue import catalogue


@pytest.fixture(autouse=True)
def app(tmp_path, monkeypatch):
    """Create a package that fails if it is imported, with hidden folders and a virtual environment inside."""
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
def test_package_is_found_by_name_and_by_path(package, files):
    """A package is found by its name, its folder, a file or an outer folder, and is not imported."""
    found = catalogue(package)
    assert "sub.job" in found.operations
    (where,) = found.operations["sub.job"]
    assert (where.file, where.line) == (os.path.join("src", "app", "sub", "jobs.py"), 3)
    assert (found.files, found.unread) == (files, ())
    assert not {name for name in sys.modules if name.split(".")[0] == "app"}


def test_several_packages_form_one_catalogue():
    """Several packages form one catalogue, which has each file once."""
    found = catalogue("app", "single", "src/app/sub", "src/single.py")
    assert list(found.operations) == ["single", "sub.job"]
    assert (len(found.declarations), found.files) == (2, 5)


def test_current_directory_is_searched(tmp_path, monkeypatch):
    """A module in the current directory is found by its name, even if the directory is not on ``sys.path``."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "src" not in path])
    monkeypatch.chdir(tmp_path / "src")
    assert list(catalogue("app.sub.jobs").operations) == ["sub.job"]


@pytest.mark.parametrize(
    ("package", "error", "message"),
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
def test_invalid_package_raises(tmp_path, package, error, message):
    """An argument that does not exist or has no source raises an error that states the expected value."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        catalogue(package)


def test_missing_package_raises():
    """A call without a package raises an error."""
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
def test_invalid_file_is_listed_with_the_reason(content, reason, recwarn):
    """A file that this version of Python cannot parse is listed with the reason, and the others are read."""
    with open("src/app/bad.py", "wb") as file:
        file.write(content)
    found = catalogue("app")
    (unread,) = found.unread
    assert unread.file == os.path.join("src", "app", "bad.py")
    assert reason in unread.reason.lower()
    assert (found.files, list(found.operations)) == (4, ["sub.job"])
    assert found.to_dict()["unread"] == [{"file": unread.file, "reason": unread.reason}]
    assert not recwarn.list


def test_constant_of_an_invalid_file_is_computed():
    """A constant that is imported from an invalid file is computed."""
    with open("src/app/ops.py", "w") as file:
        file.write("(")
    found = catalogue("app")
    assert [each.operation for each in found.declarations] == [None]
    assert len(found.unread) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_listed(tmp_path):
    """A folder without read permission is listed with the reason."""
    folder = tmp_path / "src" / "app" / "closed"
    folder.mkdir(mode=0)
    assert [unread.reason for unread in catalogue("app").unread] == ["Permission denied"]


def test_warnings_about_the_source_are_suppressed(recwarn):
    """Warnings of the compiler about the inspected source are not emitted."""
    with open("src/single.py", "a") as file:
        file.write('\nx = "\\d" is 5\n')
    catalogue("src/single.py")
    assert not recwarn.list


def test_imports_of_a_namespace_package_are_followed(tmp_path):
    """Imports from a package without an ``__init__.py`` lead to its modules, by name and by path."""
    folder = tmp_path / "src" / "space"
    folder.mkdir()
    (folder / "ops.py").write_text('OP = "spaced"')
    (folder / "jobs.py").write_text("import structlog_audit as s\nfrom space.ops import OP\ns.audited(OP)")
    for package in ("space", "space.jobs", "src"):
        assert "spaced" in catalogue(package).operations, package


def test_extension_module_is_not_imported(tmp_path, monkeypatch):
    """An import of an extension module is not followed, even from a folder that has the name of a standard module."""
    folder = tmp_path / "src" / "profile"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "fast.so").touch()
    (tmp_path / "src" / "jobs.py").write_text(
        "from structlog_audit import audited\nfrom profile.fast import OP\naudited(OP)"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path / "src"), *sys.path])

    found = catalogue("src/jobs.py")
    assert [declaration.operation for declaration in found.declarations] == [None]
    assert "profile.fast" not in sys.modules
