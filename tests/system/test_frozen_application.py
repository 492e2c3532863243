"""An application frozen by PyInstaller with the hook of this library: what is imported by name and read from files is there."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

# What the environment of the tests has, and these commands do not use: collecting it takes minutes.
EXCLUDED = ("django", "duckdb", "fsspec", "numpy", "pandas", "polars", "pyarrow", "pytest")

APPLICATION = """
from structlog_audit.cli import main

main()
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Freeze the command line, and return a function that runs it and returns its output."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", "--onedir", "--noconfirm"]
    for name in EXCLUDED:
        command += ["--exclude-module", name]
    subprocess.run([*command, "app.py"], cwd=folder, check=True, capture_output=True, timeout=600)

    def run(*words):
        program = folder / "dist" / "app" / "app"
        done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("demo", "trail")
    run.folder = folder
    return run


def test_frozen_command_answers_queries(frozen):
    """Commands, which are imported by name, are found."""
    assert "events                 6" in frozen("stats", "trail/audit.jsonl")


def test_frozen_command_writes_the_report_with_its_charts(frozen):
    """Templates and style sheets of the report, and those of pygal, are found."""
    frozen("report", "trail/audit.jsonl", "--html", "report.html")
    page = (frozen.folder / "report.html").read_text()
    assert page.count("<svg") >= 1
    assert "</html>" in page


def test_frozen_command_prints_a_shipper(frozen):
    """The files of the shippers are found."""
    assert "structlog_audit" in frozen("shipper", "rsyslog", "--trail", "trail/audit.jsonl")


def test_frozen_command_seals_and_verifies(frozen):
    """Keys, the sealer and the stand-alone verifier are found."""
    key = frozen("keygen", "audit.pem", "--origin", "audit.example/shop").strip()
    frozen("seal", "trail/audit.jsonl", "--key", "audit.pem", "--origin", "audit.example/shop")
    assert "INTACT" in frozen("verify", "trail/audit.jsonl", "--key", key)
