"""Recipes of the guide for tools that the other tests do not need, run as the guide shows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from structlog_audit import AuditLogger

pytestmark = pytest.mark.system

EXPORTS = Path(__file__).parent.parent.parent / "examples" / "guide" / "exports.md"
RECIPE = re.compile(r"<!-- not run: polars.*?-->\n```python\n(?P<polars>.*?)\n(?P<duckdb>duckdb\..*?)```", re.DOTALL)


@pytest.fixture
def events(tmp_path, monkeypatch):
    """A folder with an export in which a member appears late: the first events have no error."""
    audit = AuditLogger()
    for number in range(200):
        error = "boom" if number > 150 else None
        audit.record("STORE", "90071992547409931", entry_ids=[f"e{number}"], error_message=error)
    audit.export_to_file(tmp_path / "events.jsonl")
    monkeypatch.chdir(tmp_path)
    return audit.query_events(newest_first=False)


def test_polars_recipe_has_every_column(events):
    """The recipe for polars reads all events, with the members that only late events have."""
    polars = pytest.importorskip("polars", reason="not installed: polars")
    recipe = RECIPE.search(EXPORTS.read_text(encoding="utf-8"))
    table = eval(recipe["polars"], {"polars": polars})
    assert table["event_id"].to_list() == [event.event_id for event in events]
    assert table["error_message"].to_list() == [event.error_message for event in events]
    assert set(table["user_id"]) == {"90071992547409931"}


def test_duckdb_recipe_has_every_column(events):
    """The recipe for DuckDB reads all events, with the members that only late events have."""
    duckdb = pytest.importorskip("duckdb", reason="not installed: duckdb")
    recipe = RECIPE.search(EXPORTS.read_text(encoding="utf-8"))
    table = eval(recipe["duckdb"], {"duckdb": duckdb})
    rows = table.project("event_id, error_message, user_id").fetchall()
    assert rows == [(event.event_id, event.error_message, "90071992547409931") for event in events]
