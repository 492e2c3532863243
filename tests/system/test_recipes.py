"""Recipes of the guide for tools that the other tests do not need, run as the guide shows them."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from structlog_audit import AuditLogger

pytestmark = pytest.mark.system

EXPORTS = Path(__file__).parent.parent.parent / "examples" / "guide" / "exports.md"
RECIPE = re.compile(r"<!-- not run: polars.*?-->\n```python\n(?P<polars>.*?)\n(?P<duckdb>duckdb\..*?)```", re.DOTALL)

FRAMES = re.compile(r"<!-- not run: pandas.*?-->\n```python\n(?P<pandas>.*?)\n\n(?P<polars>.*?)```", re.DOTALL)


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


@pytest.fixture
def trail():
    """A logger with events that differ in their metadata."""
    audit = AuditLogger()
    audit.record("STORE", "007", metadata={"size": 1, "tags": ["a"]}, duration_ms=2.5)
    audit.record("FORGET", None, metadata={"reason": "expired"})
    return audit


def test_pandas_recipe_makes_a_frame_of_events(trail):
    """pandas takes events as they are: ids stay text, times are times."""
    pandas = pytest.importorskip("pandas", reason="not installed: pandas")
    recipe = FRAMES.search(EXPORTS.read_text(encoding="utf-8"))
    names = {"pandas": pandas, "trail": trail}
    exec(recipe["pandas"], names)
    frame = names["frame"]
    assert list(frame["operation"]) == ["FORGET", "STORE"]
    assert list(frame["user_id"])[1] == "007"
    assert [time.to_pydatetime() for time in frame["timestamp"]] == [e.timestamp for e in trail.query_events()]


def test_polars_recipe_makes_a_frame_of_events(trail):
    """polars takes the dictionaries of events whose metadata differ."""
    polars = pytest.importorskip("polars", reason="not installed: polars")
    recipe = FRAMES.search(EXPORTS.read_text(encoding="utf-8"))
    frame = eval(recipe["polars"], {"polars": polars, "trail": trail})
    assert frame["operation"].to_list() == ["STORE", "FORGET"]
    assert frame["metadata"].to_list() == [event.metadata for event in trail.iter_events()]


def test_pydantic_takes_an_event_as_it_is(trail):
    """A pydantic model is made of an event, and times and texts have the types of the model."""
    pydantic = pytest.importorskip("pydantic", reason="not installed: pydantic")
    model = pydantic.create_model("Model", timestamp=dt.datetime, operation=str, metadata=dict[str, object])
    event = trail.query_events()[0]
    made = model.model_validate(dict(event))
    assert (made.timestamp, made.operation, made.metadata) == (event.timestamp, "FORGET", {"reason": "expired"})


def test_encoder_of_fastapi_takes_an_event_as_it_is(trail):
    """FastAPI's encoder returns the plain JSON values of an event."""
    encoders = pytest.importorskip("fastapi.encoders", reason="not installed: FastAPI")
    event = trail.query_events()[0]
    assert encoders.jsonable_encoder([event]) == [event.to_dict()]
