"""Loading of logging configurations by ``doctor``."""

from __future__ import annotations

import os

import pytest
from commands import run
from doctor_helpers import clean_process, findings_of  # noqa: F401

from structlog_audit.cli.doctor import config_loading, dry_run

SETTINGS = """
LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"audit": {"class": "structlog_audit.AuditHandler"}},
           "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}}}
OTHER = {"version": 2}
def made(): return LOGGING
class Settings: LOGGING = LOGGING
print("output of the application is not part of the answer")
"""


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        (
            "logging.yaml",
            "version: 1\nhandlers: {audit: {class: structlog_audit.AuditHandler}}\nroot: {handlers: [audit], level: INFO}",
            "logging.yaml",
        ),
        ("settings.py", SETTINGS, "settings.py"),
        ("settings.py", SETTINGS, "settings.py:LOGGING"),
        ("settings.py", SETTINGS, "settings:LOGGING"),
        ("settings.py", SETTINGS, "settings:made"),
        ("settings.py", SETTINGS, "settings:Settings.LOGGING"),
    ],
)
def test_config_loads_from_file_or_attribute(tmp_path, monkeypatch, name, text, given):
    """A configuration is a YAML file, a Python file, or an attribute of a file or module."""
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert config_loading.load_config(given)["version"] == 1
    assert "memory-only" in findings_of("--config", given)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "text", "given", "message"),
    [
        ("x", "", "nothing.json", "nothing.json"),
        ("x.json", "{", "x.json", "cannot be loaded: JSONDecodeError"),
        ("x.json", "[]", "x.json", "expected a mapping, got a list"),
        ("x.yaml", "a: [", "x.yaml", "cannot be loaded"),
        ("x.ini", "", "x.ini", "is for fileConfig"),
        ("x.toml", "", "x.toml", "expected a JSON, YAML or Python file"),
        (
            "x.py",
            "A = {'version': 1}\nB = {'version': 1}",
            "x.py",
            "expected one configuration, got A, B; name it as x.py:NAME",
        ),
        ("x.py", "", "x.py", "expected one configuration, got none"),
        ("x.py", "", "x:LOGGING", "'x' has no attribute 'LOGGING'"),
        ("x.py", "", "y:LOGGING", "No module named 'y'"),
        ("x.py", "1/0", "x.py", "ZeroDivisionError"),
        ("x.py", "import os; os._exit(7)", "x.py", "ended the process that loaded it (exit code 7)"),
        ("x.py", "raise SystemExit('goodbye')", "x.py", "goodbye"),
    ],
)
def test_config_that_cannot_be_loaded_exits_3(tmp_path, monkeypatch, name, text, given, message):
    """A configuration that cannot be loaded is an error on one line, with exit code 3."""
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    done = run("doctor", "--config", given)
    assert (done.code, done.out) == (3, "")
    assert message in done.error_line

    # The texts that end the process would end this one too.
    if "ystem" not in text and "exit" not in text:
        assert dry_run.examine(given, str(tmp_path))["error"].startswith(given)


def test_yaml_config_without_pyyaml_names_package(tmp_path, monkeypatch):
    """Without PyYAML, the error for a YAML file names the package to install."""
    (tmp_path / "yaml.py").write_text("raise ImportError('not here')")
    (tmp_path / "logging.yml").write_text("version: 1")
    monkeypatch.chdir(tmp_path)
    assert "pip install pyyaml" in run("doctor", "--config", "logging.yml").error_line
