"""The examples run, print their key lines, and are short."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import lines_in

EXAMPLES = Path(__file__).parent.parent / "examples"

LINES = {
    "01_dictconfig.py": [
        "report.export   FAILURE  ['report_1'] PermissionError: user_123 may not export",
        "2 of 4 failed",
        "4 events in given/audit.jsonl",
    ],
    "02_structlog_app.py": ["recorded: document.read FAILURE user_123 ['doc_9'] {'message': 'document not found'}"],
    "03_axon_memory.py": [
        "rejected by axon: content cannot be empty",
        "  RECALL SUCCESS  alice ",
        "  STORE  FAILURE  None content cannot be empty",
        "with PII: ['email', 'phone']",
        "axon's export_audit_log: 2 events of alice",
        "  STORE SUCCESS 1 entries",
        "  RECALL SUCCESS 1 entries",
        "  EXPORT SUCCESS 2 entries",
    ],
    "04_asyncio_contextvars.py": [
        "by operation: {'document.create': 30, 'document.read': 30}",
        "by user: {'user_0': 20, 'user_1': 20, 'user_2': 20}",
        "events with another task's session: 0",
        "reads with a reason: 30",
    ],
    "05_plain_logging.py": [
        "console: INFO audit.billing invoice.create",
        "recorded: invoice.send SUCCESS user_123 {'message': 'invoice 7 sent'} ",
        "recorded: payment.collect FAILURE user_456 {} TimeoutError: the bank did not respond",
    ],
    "06_compliance_report.py": [
        "WARNING security: Excessive deletions: 120 in last hour",
        '  "total_events": 240,',
        '    "anonymous": {',
        "December: 2024-12",
    ],
    "07_flask.py": [
        "bob: doc_9 is locked",
        "document.create FAILURE bob ['doc_9'] {'client_address': '127.0.0.1'}",
        "document.export SUCCESS ada ['doc_2'] {'client_address': '127.0.0.1'}",
        "index.rebuild SUCCESS None [] {}",
    ],
    "08_sqlalchemy.py": [
        "document.create ada ['document:1'] {'id': {'before': None, 'after': 1}, 'text': {'before': None, 'after': 'draft'}}",
        "document.update ada ['document:1'] {'text': {'before': 'draft', 'after': 'draft!'}}",
        "note.delete ada ['note:1'] {'id': {'before': 1, 'after': None}, 'document_id': {'before': 1, 'after': None}}",
        "document.delete ada ['document:1'] {'id': {'before': 1, 'after': None}, 'text': {'before': 'draft!', 'after': None}}",
    ],
    "09_fastapi.py": [
        '{"detail":"only auditors may read the trail"}',
        '"operation":"audit_events.list","user_id":"bob","session_id":null,"entry_ids":[],"metadata":{},"status":"FAILURE"',
    ],
    "demo.py": [
        "export.json (82 events), failures.csv (1 events)",
        "82 events, 98.8% succeeded",
        "Most common operation of user_1: document.create",
        "doc_1, doc_2 (GDPR request)",
    ],
    "memory_system.py": [],
}
"""Lines, or parts of lines, that the output of each example contains."""

SYSTEM = {"07_flask.py", "09_fastapi.py"}
"""Examples that need the extra ``system``."""

NEEDS = {"03_axon_memory.py": "axon"}
"""Modules that an example needs, and that do not support every Python."""

TRAIL_LINES = {
    "01_dictconfig.py": 4,
    "02_structlog_app.py": 2,
    "03_axon_memory.py": 5,
    "04_asyncio_contextvars.py": 60,
    "05_plain_logging.py": 3,
    "07_flask.py": 5,
    "08_sqlalchemy.py": 5,
    "09_fastapi.py": 3,
    "demo.py": 82,
}
"""The number of events that each example leaves in ``audit.jsonl``."""


def run(name: str, *arguments: str, folder: Path) -> str:
    """Run an example in *folder*, check that it exits with 0, and return its output."""
    needed = NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed; it may not support this Python")

    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    """Each script in the folder of examples has an entry in `LINES`."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(LINES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.system if name in SYSTEM else ()) for name in LINES]
)
def test_example_prints_its_lines_and_writes_to_its_folder_only(name, tmp_path):
    """An example exits with 0, prints its key lines, and writes to the given folder only."""
    (tmp_path / "given").mkdir()

    output = run(name, "given", folder=tmp_path)

    for line in LINES[name]:
        assert line in output, output
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    if name in TRAIL_LINES:
        assert len(lines_in(tmp_path / "given" / "audit.jsonl")) == TRAIL_LINES[name]


@pytest.mark.parametrize("name", LINES)
def test_example_has_fewer_than_60_lines(name):
    """An example is short enough to read in one go."""
    assert len((EXAMPLES / name).read_text().splitlines()) < 60


@pytest.mark.parametrize("name", LINES)
def test_example_begins_with_a_docstring(name):
    """An example begins with a docstring that describes it."""
    assert (EXAMPLES / name).read_text().startswith('"""')


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, run without arguments: the current folder and the output."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run("demo.py", folder=folder)


def test_demo_names_the_folder_of_its_files(demo):
    """The demo without arguments writes a trail and two exports to ``./audit-demo``, and prints its path."""
    current, output = demo
    folder = current / "audit-demo"
    assert f"Files in {folder.resolve()}:" in output
    assert sorted(path.name for path in folder.iterdir()) == ["audit.jsonl", "export.json", "failures.csv"]


def test_demo_exports_all_events_and_all_failures(demo):
    """The JSON export has all events of the demo, the CSV export its failures."""
    current, _ = demo
    folder = current / "audit-demo"

    document = json.loads((folder / "export.json").read_text())
    assert document["total_events"] == len(document["events"]) == 82

    with (folder / "failures.csv").open(newline="") as file:
        messages = [row["error_message"] for row in csv.DictReader(file)]
    assert messages == ["Database connection timeout"]


def test_second_run_of_demo_continues_the_trail(tmp_path):
    """The demo can run again in the same folder; its export then has the events of both runs."""
    run("demo.py", folder=tmp_path)
    run("demo.py", folder=tmp_path)
    document = json.loads((tmp_path / "audit-demo" / "export.json").read_text())
    assert document["total_events"] == 164
