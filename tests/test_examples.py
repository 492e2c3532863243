"""The examples run, say what they should, and stay short."""

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
        "document.create ada ['document:1'] {'before': {}, 'after': {'text': 'draft'}}",
        "document.update ada ['document:1'] {'before': {'text': 'draft'}, 'after': {'text': 'final'}}",
        "document.delete ada ['document:1'] {'before': {'id': 1, 'text': 'final'}, 'after': {}}",
    ],
    "demo.py": [
        "export.json (82 events), failures.csv (1 events)",
        "82 events, 98.8% succeeded",
        "Most common operation of user_1: document.create",
        "doc_1, doc_2 (GDPR request)",
    ],
    "memory_system.py": [],
}
"""What the output of each example contains, in lines or parts of them."""

SYSTEM = {"07_flask.py", "08_sqlalchemy.py"}
"""Examples that need what the extra ``system`` brings."""

NEEDS = {"03_axon_memory.py": "axon"}
"""What an example needs that may be missing, because it does not support every Python."""

TRAIL_LINES = {
    "01_dictconfig.py": 4,
    "02_structlog_app.py": 2,
    "03_axon_memory.py": 5,
    "04_asyncio_contextvars.py": 60,
    "05_plain_logging.py": 3,
    "07_flask.py": 5,
    "08_sqlalchemy.py": 3,
    "demo.py": 82,
}
"""How many events each example leaves in ``audit.jsonl``."""


def run(name: str, *arguments: str, folder: Path) -> str:
    """The output of an example that is run in *folder* and ends well."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed; it may not support this Python")
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    """Each script among the examples is known to these tests."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(LINES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.system if name in SYSTEM else ()) for name in LINES]
)
def test_example_runs(name, tmp_path):
    """An example ends with exit code 0, prints its key lines, and writes to the folder it is given and nowhere else."""
    (tmp_path / "given").mkdir()
    output = run(name, "given", folder=tmp_path)
    for line in LINES[name]:
        assert line in output, output
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    if name in TRAIL_LINES:
        assert len(lines_in(tmp_path / "given" / "audit.jsonl")) == TRAIL_LINES[name]


@pytest.mark.parametrize("name", LINES)
def test_example_is_short_and_says_what_it_shows(name):
    """An example has fewer than 60 lines, and begins with a docstring."""
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 60
    assert text.startswith('"""')


def test_demo_leaves_its_files_in_the_current_folder(tmp_path):
    """The demo without arguments leaves a trail and two exports in ``./audit-demo``, and says where; twice is no problem."""
    output = run("demo.py", folder=tmp_path)
    folder = tmp_path / "audit-demo"
    assert f"Files in {folder.resolve()}:" in output
    assert sorted(path.name for path in folder.iterdir()) == ["audit.jsonl", "export.json", "failures.csv"]
    document = json.loads((folder / "export.json").read_text())
    assert document["total_events"] == len(document["events"]) == 82
    with (folder / "failures.csv").open(newline="") as file:
        assert [row["error_message"] for row in csv.DictReader(file)] == ["Database connection timeout"]
    run("demo.py", folder=tmp_path)
    assert json.loads((folder / "export.json").read_text())["total_events"] == 164
