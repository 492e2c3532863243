"""CPython's own tests of `logging`, with the classes of this library in the place of those that they claim to be."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("cpython_logging.py")
GUIDE = Path(__file__).parents[2] / "examples/guide/dictconfig.md"

DIFFERENCES = {
    "RotatingFileHandlerTest": {
        "test_namer_rotator_inheritance, test_rollover_filenames, test_rotator": (
            "a namer or rotator is refused: segments have fixed names, by which readers find them"
        ),
        "test_max_bytes, test_max_bytes_delay, test_should_rollover": (
            "shouldRollover() considers the segment alone, and a line is longer than its message"
        ),
        "test_should_not_rollover, test_should_not_rollover_non_file": "a special file such as /dev/null is refused",
    },
    "FileHandlerTest": {
        "test_delay": "there is no stream: lines are appended to the descriptor",
        "test_emit_open_error": "missing folders are created",
        "test_emit_after_closing_in_write_mode": 'the mode "w" is refused: events are only ever appended',
    },
    "HandlerTest": {
        "test_name": "emit() of an AuditHandler records; it is not abstract",
        "test_path_objects, test_pathlike_objects": "the second positional parameter is maxBytes and not mode",
    },
    "MemoryHandlerTest": {
        "test_flush, test_flush_on_close, test_shutdown_flush_on_close": (
            "each event is written at once and not held back until a flush"
        ),
        "test_race_between_set_target_and_flush": "a target must be a logging.Handler",
    },
    "FormatterTest": {
        "test_braces, test_dollars, test_percent, test_format_validate, test_issue_89047, test_time": (
            "a format string is refused: lines have one format"
        ),
        "test_default_msec_format_none": "the format of time is fixed",
        "test_defaults_parameter": "defaults is refused: use static_fields",
    },
    "ConfigDictTest": {
        "test_config18_ok": "there is no flushLevel",
        "test_config_queue_handler": "the file has lines of JSON and no plain messages",
    },
}
"""The tests of CPython 3.11 to 3.14 that fail here, with the reason, by the class of the tests."""


HAS_TESTS = importlib.util.find_spec("test") is not None and importlib.util.find_spec("test.test_logging") is not None
"""Whether this Python has its tests: packages of a distribution often leave them out."""


@pytest.mark.skipif(not HAS_TESTS, reason="this Python is installed without the package test.test_logging")
@pytest.mark.parametrize("name", DIFFERENCES)
def test_class_of_cpython_passes_except_for_the_listed_differences(name, tmp_path):
    """Every test of CPython passes with the classes of this library, unless its failure is listed with the reason."""
    child = subprocess.run([sys.executable, RUNNER, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    failed = {test.partition(".")[2]: outcome for test, outcome in found.items() if outcome not in ("ok", "skipped")}

    listed = {test for tests in DIFFERENCES[name] for test in tests.split(", ")}
    assert not {test: outcome for test, outcome in failed.items() if test not in listed}
    if sys.version_info < (3, 12):
        # Later versions have other tests, some with the same name.
        assert listed & {test.partition(".")[2] for test in found} == failed.keys()


def test_guide_lists_the_differences():
    """The page about the configuration has exactly the table of the differences."""
    rows = [
        f"| `{name}`: {', '.join(f'`{test}`' for test in tests.split(', '))} | {reason} |"
        for name, differences in DIFFERENCES.items()
        for tests, reason in differences.items()
    ]
    text = GUIDE.read_text(encoding="utf-8").partition("## Differences from the standard library")[2]
    table = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    assert table == rows
