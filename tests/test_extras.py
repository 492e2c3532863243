"""The packages of the extras: what happens if one is missing or has a wrong version."""

import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from structlog_audit import AuditError
from structlog_audit._version import check_versions

REQUIREMENTS = [
    "structlog>=25.1",
    "typer>=0.26; extra == 'cli'",
    "duckdb<3,>=1.5; extra == 'archive'",
    "backports.zstd>=1.0; (python_version < '3.14') and extra == 'zstd'",
    'moto[server]>=5.1; extra == "system"',
]


MODULES = {
    "celery": "celery",
    "django": "asgiref.sync",
    "opentelemetry": "opentelemetry.sdk._logs",
    "prometheus": "prometheus_client.core",
    "sqlalchemy": "sqlalchemy",
}


@pytest.fixture(autouse=True)
def unchecked():
    """Forget the versions that this process has checked."""
    check_versions.cache_clear()
    yield
    check_versions.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Return the versions of the installed packages, which a test sets."""
    versions = {}

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "requires", lambda name: REQUIREMENTS)
    monkeypatch.setattr(metadata, "version", version)
    return versions


@pytest.mark.parametrize(
    ("extra", "package", "version"),
    [
        ("cli", "typer", "0.26"),
        ("cli", "typer", "0.26.0"),
        ("cli", "typer", "1.0rc1"),
        ("archive", "duckdb", "1.5.6"),
        ("archive", "duckdb", "2.0.1"),
        ("zstd", "backports.zstd", "1.0.0"),
        ("cli", "typer", "unknown"),
    ],
)
def test_version_within_the_bounds_is_accepted(installed, extra, package, version):
    """A version within the bounds is accepted, and one that is no number is not judged."""
    installed[package] = version
    check_versions(extra)


@pytest.mark.parametrize(
    ("extra", "package", "version", "bounds"),
    [
        ("cli", "typer", "0.15.4", ">=0.26"),
        ("archive", "duckdb", "1.4.9", "<3,>=1.5"),
        ("archive", "duckdb", "3.0", "<3,>=1.5"),
        ("zstd", "backports.zstd", "0.9", ">=1.0"),
        ("system", "moto", "5.0.28", ">=5.1"),
    ],
)
def test_version_out_of_bounds_raises_an_error_that_names_the_command(installed, extra, package, version, bounds):
    """A version out of bounds raises an error with the package, both versions and the command that mends it."""
    installed[package] = version
    with pytest.raises(AuditError) as caught:
        check_versions(extra)
    expected = f"expected {package}{bounds}, got {package} {version}: pip install 'structlog-audit[{extra}]'"
    assert str(caught.value) == expected


def test_versions_are_read_once(installed, monkeypatch):
    """A second check of the same extra reads no metadata."""
    check_versions("archive")
    monkeypatch.setattr(metadata, "requires", None)
    check_versions("archive")


def test_wrong_version_is_reported_each_time(installed):
    """An error is not remembered as a success: the second check raises it, too."""
    installed["duckdb"] = "1.4.9"
    for _ in range(2):
        with pytest.raises(AuditError, match=r"got duckdb 1\.4\.9"):
            check_versions("archive")


def test_missing_package_is_left_to_the_import(installed):
    """A package that is not installed raises nothing here."""
    check_versions("cli")


def test_without_metadata_nothing_is_checked(monkeypatch):
    """An application that was frozen without the metadata of this distribution runs."""

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    check_versions("cli")


def test_every_extra_of_the_distribution_is_understood():
    """Each requirement of an extra has a form that the check understands: none is left out in silence."""
    from structlog_audit._version import _REQUIREMENT

    of_extras = [text for text in metadata.requires("structlog-audit") if "extra ==" in text]
    assert of_extras
    assert [text for text in of_extras if _REQUIREMENT.match(text) is None] == []


OLD_TYPER = """
from importlib import metadata

real = metadata.version
metadata.version = lambda package: "0.15.4" if package == "typer" else real(package)

from structlog_audit.cli import main
main()
"""


def test_command_with_an_old_typer_exits_with_2():
    """With a wrong version of typer, the command prints what to install and exits with 2."""
    done = subprocess.run([sys.executable, "-c", OLD_TYPER, "--version"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "got typer 0.15.4: pip install 'structlog-audit[cli]'" in done.stderr
    assert done.stdout == ""


WITHOUT_FCNTL = """
import sys

sys.modules["fcntl"] = None
import structlog_audit
"""


def test_import_without_fcntl_names_the_supported_systems():
    """On a system without fcntl, importing the library raises an ImportError that names the systems it runs on."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_FCNTL], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: structlog-audit: expected Linux or macOS, which have fcntl; got" in done.stderr


@pytest.mark.parametrize("extra", MODULES)
def test_import_without_the_extra_names_the_command_to_install_it(extra, monkeypatch):
    """Without the packages of its extra, a module raises a ModuleNotFoundError that names the extra."""
    name = f"structlog_audit.contrib.{extra}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, MODULES[extra], None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'structlog-audit\[{extra}\]'") as caught:
        importlib.import_module(name)
    assert caught.value.name == MODULES[extra]


FOR_DEVELOPMENT = {"bench", "dev", "mutation", "system", "test"}
GUIDE = Path(__file__).parent.parent / "examples" / "guide" / "dependency.md"
REQUIRED = re.compile(r"([\w.-]+)")
EXTRA = re.compile(r"extra == ['\"](\w+)['\"]")


def required_packages():
    """Return the packages that the distribution requires, each with its extra, without those for development."""
    found = set()
    for text in metadata.requires("structlog-audit"):
        package = REQUIRED.match(text)[1].replace(".", "-")
        extra = EXTRA.search(text)
        found.add((package, extra[1] if extra else ""))
    return {(package, extra) for package, extra in found if extra not in FOR_DEVELOPMENT}


def test_guide_lists_every_package_with_its_extra():
    """The table of licences on the guide's page has each package that an application can get, and no other."""
    rows = re.findall(r"^\| ([\w.-]+) \| (?:`(\w+)` )?\|", GUIDE.read_text(), re.MULTILINE)
    listed = {(package.replace(".", "-"), extra) for package, extra in rows if package != "package"}
    assert listed == {(package, extra) for package, extra in required_packages() if extra != "all"}


def test_extra_all_has_the_packages_of_every_extra_for_applications():
    """The extra `all` consists of every extra except those for development, and `spark`, which replaces an installed Spark."""
    required = required_packages()
    of_all = {package for package, extra in required if extra == "all"}
    assert of_all == {package for package, extra in required if extra not in {"", "all", "spark"}}
