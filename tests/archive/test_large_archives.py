"""The memory of queries, and of the upkeep, of an archive of twenty million events."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from structlog_audit.archive import show

pytestmark = [pytest.mark.long, pytest.mark.timeout(7_200)]

BENCH = Path(__file__).parents[1] / "bench"
EVENTS = 20_000_000
HOSTS = ("h1", "h2")
MOST_MIB = 300
MOST_OF_COMPACTION_MIB = 400

QUERIES = {
    "opening": "pass",
    "user": "source.query_events(user_id='user_5')",
    "user and operation, newest 100": "source.query_events(user_id='user_5', operation='auth.login', limit=100)",
    "count": "source.count_events()",
    "event id": "source.get_event(source.query_events(limit=1)[0].event_id)",
    "entry id": "source.query_events(entry_ids='doc_17')",
    "member, promoted": "source.count_events(metadata={'tenant': 't5'})",
    "newest 100 of a member, promoted": "source.query_events(limit=100, metadata={'tenant': 't5'})",
    "member, not promoted": "source.query_events(metadata={'request': {'id': 'req-00000000'}})",
    "newest 100": "source.query_events(limit=100)",
    "statistics": "source.get_statistics()",
    "statistics of a user": "source.get_statistics(user_id='user_5')",
    "statistics by user": "source.get_statistics_by_user()",
    "statistics of an operation": "source.get_statistics(operation='auth.login')",
    "first million": "for event in itertools.islice(source.iter_events(), 1_000_000): pass",
    "first million of an operation": (
        "for event in itertools.islice(source.iter_events(operation='auth.login'), 1_000_000): pass"
    ),
    "pages, newest first": (
        "cursor = None\n"
        "    for _ in range(20):\n"
        "        cursor = source.page(cursor, limit=500, newest_first=True).cursor"
    ),
    "export of a user": "source.export_to_file(pathlib.Path(sys.argv[1]).with_name('user_5.jsonl'), user_id='user_5')",
    "completeness": "source.completeness()",
}
"""Queries by name, as code with a *source*."""

QUERY = """
import itertools, pathlib
from structlog_audit.archive import open_archive
with open_archive(sys.argv[1], memory_limit="256MB") as source:
    {query}
"""

COMPACT = """
from structlog_audit.archive import compact
compact(sys.argv[1], sys.argv[2], promote=["tenant", "region"], host=sys.argv[3])
"""

VERIFY = """
from structlog_audit.archive import verify
assert not verify(sys.argv[1]).findings
"""


@pytest.fixture(scope="module")
def bench():
    """The benchmark of archives, which makes trails and measures processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        spec = importlib.util.spec_from_file_location("archive_bench", BENCH / "archive.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def archive(bench, tmp_path_factory):
    """An archive of the trails of two hosts with the same days, and the greatest peak of compaction in MiB."""
    folder = tmp_path_factory.mktemp("large")
    peaks = []
    for host in HOSTS:
        path = bench.write_trail(folder / host, EVENTS // len(HOSTS))
        peaks.append(bench.run_in_process(COMPACT, path, folder / "archive", host)["peak"])
        shutil.rmtree(folder / host)
    yield folder / "archive", max(peaks)
    shutil.rmtree(folder)


def test_compaction_of_any_size_takes_bounded_memory(archive):
    """Its peak does not depend on the number of events."""
    folder, peak = archive
    assert show(folder).events == EVENTS
    assert peak <= MOST_OF_COMPACTION_MIB


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_query_of_a_large_archive_takes_bounded_memory(bench, archive, query):
    """A process of its own stays below the goal, DuckDB, Python and the answer included."""
    assert bench.run_in_process(QUERY.format(query=query), archive[0])["peak"] <= MOST_MIB


def test_verification_of_a_large_archive_takes_bounded_memory(bench, archive):
    """As for queries."""
    assert bench.run_in_process(VERIFY, archive[0])["peak"] <= MOST_MIB
