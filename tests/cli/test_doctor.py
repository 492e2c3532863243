"""The report of ``doctor``, its exit codes and its options."""

from __future__ import annotations

import json
import re

import pytest
from commands import run
from doctor_helpers import (
    HOST_DEPENDENT,
    clean_process,  # noqa: F401
    findings_of,
    make_config,
    trail_folder,  # noqa: F401
)

IGNORED = [word for code in sorted(HOST_DEPENDENT | {"re-entrancy"}) for word in ("--ignore", code)]


@pytest.fixture
def save_config(folder, tmp_path):
    """A function that saves a configuration with changes, and returns its path."""

    def save(name="logging.json", **changes):
        path = tmp_path / name
        path.write_text(json.dumps(make_config(folder, **changes)))
        return path

    return save


def test_text_report_has_most_severe_finding_first(save_config):
    """Each finding has its severity, message, code, place and fix; the most severe comes first."""
    path = save_config(loggers__audit__level="ERROR", handlers__file__maxBytes=0)
    done = run("doctor", "--config", path, *IGNORED)
    assert done.lines[:3] == [
        "error: logger 'audit' drops events below ERROR [level]",
        f"  in {path}: handler 'audit'",
        '  fix: set its level to "INFO"',
    ]
    assert re.search(r"^note: handler 'file': with maxBytes=0 .* \[one-segment\]$", done.out, re.MULTILINE)


def test_text_report_ends_with_summary(folder, save_config):
    """The last line has the numbers of findings by severity, and the places that were examined."""
    path = save_config(loggers__audit__level="ERROR", handlers__file__maxBytes=0)
    done = run("doctor", "--config", path, *IGNORED)
    assert done.lines[-1] == f"1 error, 0 warnings, 1 note; examined {path}, {folder}/audit.jsonl"


def test_text_report_without_findings_is_one_line(folder, save_config):
    """Without findings, the report is one line."""
    path = save_config()
    done = run("doctor", "--config", path, *IGNORED)
    assert done.lines == [f"no findings; examined {path}, {folder}/audit.jsonl"]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, (0, 0, 0)),
        ({"handlers__file__maxBytes": 0}, (0, 0, 4)),
        ({"handlers__audit__max_pending": 0}, (0, 4, 4)),
        ({"loggers__audit__level": "ERROR"}, (4, 4, 4)),
    ],
)
def test_exit_code_is_4_from_severity_of_fail_on(save_config, changes, codes):
    """``--fail-on`` is the lowest severity that exits with code 4."""
    path = save_config(**changes)
    for severity, code in zip(("error", "warning", "note"), codes, strict=True):
        assert run("doctor", "--config", path, "--fail-on", severity, *IGNORED).code == code


@pytest.mark.parametrize(
    ("changes", "code"), [({"handlers__file__maxBytes": 0}, 0), ({"handlers__audit__max_pending": 0}, 4)]
)
def test_fail_on_is_warning_by_default(save_config, changes, code):
    """Without ``--fail-on``, a warning exits with code 4 and a note does not."""
    assert run("doctor", "--config", save_config(**changes), *IGNORED).code == code


def test_ignored_code_is_omitted(save_config):
    """``--ignore`` omits the findings with a code."""
    path = save_config(handlers__audit__max_pending=0)
    assert "no-pending" in findings_of("--config", path)
    assert findings_of("--config", path, "--ignore", "no-pending") == {}


def test_several_configs_are_examined_separately(folder, save_config):
    """Each finding about several configurations names one of them; all places are listed in the order of examination."""
    a = save_config("a.json", loggers__audit__level="ERROR")
    b = save_config("b.json", loggers__audit__level="CRITICAL")
    document = json.loads(run("doctor", "-c", a, "-c", b, "-o", "json").out)
    where = [finding["where"] for finding in document["findings"] if finding["code"] == "level"]
    assert [text.split(":")[0] for text in where] == [str(a), str(b)]
    assert document["looked_at"] == [str(a), str(b), str(folder / "audit.jsonl")]
