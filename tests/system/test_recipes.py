"""Recipes of the guide for tools that the other tests do not need, run as the guide shows them."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from archives import compacted, write_closed
from commands import GOLDEN
from test_docs import run_blocks

from structlog_audit import AuditLogger
from structlog_audit.archive import open_archive

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


def test_response_model_takes_events_as_they_are(trail):
    """A pydantic field of mappings takes events, with the plain JSON values of each."""
    pydantic = pytest.importorskip("pydantic", reason="not installed: pydantic")
    events = trail.query_events()
    adapter = pydantic.TypeAdapter(list[dict[str, object]])
    assert adapter.validate_python(events) == [event.to_dict() for event in events]


def test_encoder_of_fastapi_takes_an_event_as_it_is(trail):
    """FastAPI's encoder returns the plain JSON values of an event."""
    encoders = pytest.importorskip("fastapi.encoders", reason="not installed: FastAPI")
    event = trail.query_events()[0]
    assert encoders.jsonable_encoder([event]) == [event.to_dict()]


# --- the archive -------------------------------------------------------------------------------------------------------------

ARCHIVE_PAGE = EXPORTS.with_name("reading-the-archive.md")
RUN_HERE = re.compile(r"<!-- not run: [^>]*; the system tests run it -->\n")


def test_page_about_other_readers_of_the_archive_runs(tmp_path):
    """With Polars, pandas, pyarrow and deltalake, all blocks that need no server run, and print the counts of this library."""
    for module in ("polars", "pandas", "pyarrow", "deltalake"):
        pytest.importorskip(module)
    text, count = RUN_HERE.subn("", ARCHIVE_PAGE.read_text(encoding="utf-8"))
    assert count == 3
    run_blocks(ARCHIVE_PAGE.name, text, tmp_path)


@pytest.fixture(scope="module")
def golden_archive(tmp_path_factory):
    """The path of an archive of the golden trail, and the reader of it."""
    folder = tmp_path_factory.mktemp("golden")
    path = write_closed(folder / "logs", GOLDEN.read_bytes())
    compacted(path, folder / "archive")
    with open_archive(folder / "archive") as source:
        yield str(folder / "archive"), source


def read_by_polars(archive):
    polars = pytest.importorskip("polars")
    return polars.scan_parquet(f"{archive}/date=*/*.parquet").collect().to_dicts()


def read_by_polars_as_delta(archive):
    return pytest.importorskip("polars").scan_delta(archive).collect().to_dicts()


def read_by_pandas(archive):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(archive).astype(object)
    return frame.where(frame.notna(), None).to_dict("records")


def read_by_pyarrow(archive):
    return pytest.importorskip("pyarrow.dataset").dataset(archive, partitioning="hive").to_table().to_pylist()


def read_by_delta_rs(archive):
    pytest.importorskip("pyarrow")
    return pytest.importorskip("deltalake").DeltaTable(archive).to_pyarrow_table().to_pylist()


@pytest.mark.parametrize(
    "read", [read_by_polars, read_by_polars_as_delta, read_by_pandas, read_by_pyarrow, read_by_delta_rs]
)
def test_reader_counts_as_the_archive_does(golden_archive, read):
    """Every reader has the same events, by operation, user, status, entry and metadata, as the archive's own."""
    archive, source = golden_archive
    rows = [row for row in read(archive) if row["kind"] is None]
    events = source.query_events(newest_first=False)
    assert len(rows) == len(events) > 40

    def counts(values):
        return Counter(map(str, values))

    for name in ("operation", "status", "user_id", "session_id", "error_message"):
        assert counts(row[name] for row in rows) == counts(getattr(event, name) for event in events)
    entries = (entry for row in rows if row["entry_ids"] is not None for entry in row["entry_ids"])
    assert Counter(entries) == Counter(entry for event in events for entry in event.entry_ids)
    documents = {row["event_id"]: json.loads(row["metadata"] or "{}") for row in rows}
    assert documents == {event.event_id: event.metadata for event in events}
