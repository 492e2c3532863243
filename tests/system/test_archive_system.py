"""The archive under SIGKILL, in an object store, and read by other programs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from archives import all_ids, compacted, digests, write_closed
from children import without_coverage
from seals import POLICY, Sealer, Writer, make_trail, verified
from trail_files import append, id_of, line_of, roll_over, rolled_name

from structlog_audit import AuditError, open_trail
from structlog_audit.archive import gc, merge, open_archive, restore, show, verify
from structlog_audit.archive.proofs import prove_archived, verify_archived
from structlog_audit.integrity.proving import prove

pytestmark = pytest.mark.system

HOSTS = ("h1", "h2", "h3")
SEGMENTS = 8
EVENTS = 60

COMPACT = """
import sys
from structlog_audit.archive import compact
print("begin", flush=True)
compact(sys.argv[1], sys.argv[2], host=sys.argv[3], promote=["tenant"], delete_after=sys.argv[4] or None)
"""


def lines_of(host, segment):
    """Return the lines of one segment."""
    first = HOSTS.index(host) * 10_000 + segment * 100
    return b"".join(line_of(first + number, metadata={"tenant": host}) for number in range(EVENTS))


def launch(path, archive, host, delete_after=""):
    """Return a process of its own for a compaction; it prints a line when the compaction begins."""
    return subprocess.Popen(
        [sys.executable, "-c", COMPACT, str(path), str(archive), host, delete_after],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=without_coverage(os.environ),
    )  # fmt: skip


def start(path, archive, host, delete_after=""):
    """Start a compaction in a process of its own, and return it once it has begun."""
    process = launch(path, archive, host, delete_after)
    with process.stdout:
        process.stdout.readline()
    return process


def check(archive, paths, expected):
    """Check that archive and live trails have each event exactly once, however the compaction is interrupted."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_archive(archive, live=list(paths.values())))
        found = [event_id for event_id in all_ids(source) if event_id in expected]
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.long)])
def test_killed_compactions_archive_each_event_exactly_once(tmp_path, kills):
    """SIGKILL at random times, three hosts, sometimes two compactors of one trail: looks during, between and after agree."""
    chance = random.Random(11)
    archive = tmp_path / "archive"
    paths, before = {}, {}
    for number, host in enumerate(HOSTS):
        lines = (lines_of(host, n) for n in range(SEGMENTS))
        paths[host] = write_closed(tmp_path / host, *lines, last=90_000 + 10 * number)
    expected = set(all_ids(open_trail(*paths.values())))
    compacted(write_closed(tmp_path / "other", line_of(99_999)), archive, host="other")

    at_work = count = 0
    while count < kills or at_work < kills // 4:
        assert count < 20 * kills, "nearly all compactions ended before they were killed"
        hosts = chance.sample(HOSTS, chance.choice([1, 2, 3]))
        # There is always something to archive, or a kill would meet a process that is about to end.
        for number, host in enumerate(HOSTS):
            expected |= add_segments(paths[host], 200_000 + 1_000 * count + 100 * number)
        victims = [launch(paths[host], archive, host) for host in [*hosts, hosts[0]]]
        victims[0].stdout.readline()
        until = time.perf_counter() + chance.random() * 0.2
        while time.perf_counter() < until:
            pass
        # A look takes about as long as a compaction: every other kill is at once.
        if chance.random() < 0.5:
            check(archive, paths, expected)
        for victim in victims:
            victim.kill()
            victim.communicate(timeout=30)
        assert all(victim.returncode in (0, -signal.SIGKILL) for victim in victims)
        at_work += sum(victim.returncode != 0 for victim in victims)
        count += len(victims)
        check(archive, paths, expected)

    for host, path in paths.items():
        before[host] = digests(path.parent)
    for host in HOSTS:
        process = start(paths[host], archive, host, "0s")
        assert process.wait(timeout=60) == 0
    check(archive, paths, expected)
    assert verify(archive).findings == ()
    restored = restore(archive, tmp_path / "restored")
    by_content = {digest for folder in (tmp_path / "restored").iterdir() for digest in digests(folder).values()}
    for host, files in before.items():
        # The last two segments may still be appended to.
        closed = sorted(name for name in files if name != "audit.jsonl")[:-1]
        for name in closed:
            assert files[name] in by_content, (host, name)
    assert len(restored.files) == sum(len(files) - 2 for files in before.values()) + 1

    gc(archive, older_than="0s")
    check(archive, paths, expected)
    assert len(list(archive.glob("date=*/*.parquet"))) == show(archive).files
    assert not list(archive.glob("date=*/.*"))


def add_segments(path, first):
    """Roll a trail over twice, with lines in each segment; return the ids of the lines."""
    added = set()
    for number in range(2):
        lines = [line_of(first + 50 * number + k, metadata={"tenant": "x"}) for k in range(10)]
        append(path, *lines)
        roll_over(path, first + 50 * number + 20)
        added |= {id_of(line) for line in lines}
    path.write_bytes(line_of(first + 99))
    return added | {id_of(line_of(first + 99))}


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.long)])
def test_killed_compactions_leave_a_seal_that_fits(tmp_path, kills):
    """SIGKILL at random times, two compactors at once: the copy of the seal always covers the archived lines."""
    chance = random.Random(12)
    archive = tmp_path / "archive"
    writer = Writer()
    path = write_closed(tmp_path / "logs", writer.event(0), last=90_000)
    path.with_name(rolled_name("audit.jsonl", 90_000)).write_bytes(writer.event(1))
    path.write_bytes(writer.event(2))
    sealer = Sealer(path)
    sealer.seal()
    compacted(path, archive)

    for number in range(kills):
        roll_over(path, 90_001 + number)
        path.write_bytes(b"".join(writer.event(n) for n in range(EVENTS)))
        sealer.seal()
        victims = [start(path, archive, "h1") for _ in range(2)]
        until = time.perf_counter() + chance.random() * 0.6
        while time.perf_counter() < until:
            pass
        for victim in victims:
            victim.kill()
            victim.wait(timeout=30)
        (report,) = verify_archived(archive, POLICY, max_age=None)
        assert report.verdict == "INTACT", report.to_text()

    compacted(path, archive)
    gc(archive, older_than="0s")
    (report,) = verify_archived(archive, POLICY, max_age=None)
    assert (report.verdict, report.size) == ("INTACT", sealer.tree.size)


# --- an object store ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    """A bucket of S3, served by moto on loopback, and the options to reach it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"},
    }
    s3fs.S3FileSystem(**options).mkdir("audit")
    yield "s3://audit", options
    server.stop()


def test_bucket_is_an_archive(tmp_path, bucket):
    """Compaction, queries, verification and restoration work in an object store as in a folder."""
    url, options = bucket
    path = write_closed(tmp_path / "logs", lines_of("h1", 0), lines_of("h1", 1) + b"junk\n")
    expected = all_ids(open_trail(path))
    archive = f"{url}/first"
    assert compacted(path, archive, storage_options=options, promote=["tenant"]).events == 2 * EVENTS
    assert compacted(path, archive, storage_options=options).events == 0
    append(tmp_path / "logs" / rolled_name("audit.jsonl", 100), line_of(77_777))
    assert compacted(path, archive, storage_options=options).events == 1
    with open_archive(archive, live=path, storage_options=options, host="h1") as source:
        assert set(all_ids(source)) == {*expected, *all_ids(open_trail(path))}
        assert source.count_events(metadata={"tenant": "h1"}) == 2 * EVENTS
    assert verify(archive, storage_options=options).findings == ()
    restored = restore(archive, tmp_path / "restored", storage_options=options)
    assert len(restored.files) == 2
    assert digests(tmp_path / "restored").items() <= digests(path.parent).items()


def test_seal_travels_into_a_bucket(tmp_path, bucket):
    """Verification, proofs and restored seals come from the store; of compactors at once the newest seal prevails."""
    url, options = bucket
    (tmp_path / "logs").mkdir()
    sealer = make_trail(tmp_path / "logs", segments=6)
    archive = f"{url}/sealed"
    threads = [
        threading.Thread(target=compacted, args=(sealer.trail, archive), kwargs={"storage_options": options})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (report,) = verify_archived(archive, POLICY, max_age=None, storage_options=options)
    assert (report.verdict, report.size, report.unarchived) == ("INTACT", 240, 80)
    event_id = all_ids(open_trail(sealer.trail))[50]
    assert prove_archived(archive, event_id, storage_options=options) == prove(str(sealer.trail), event_id)
    assert restore(archive, tmp_path / "restored", storage_options=options).seals
    assert verified(tmp_path / "restored" / "audit.jsonl").verdict == "INTACT"
    assert gc(archive, older_than="0s", storage_options=options).files == 0


def test_three_compactors_race_on_one_bucket(tmp_path, bucket):
    """Two compactors of one trail and one of another: each event is in the archive once, and each file is used."""
    url, options = bucket
    archive = f"{url}/race"
    paths = {host: write_closed(tmp_path / host, *(lines_of(host, n) for n in range(4))) for host in HOSTS[:2]}
    errors = []

    def work(host):
        try:
            compacted(paths[host], archive, host=host, storage_options=options)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(host,)) for host in ("h1", "h1", "h2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_archive(archive, storage_options=options) as source:
        found = all_ids(source)
    assert len(found) == len(set(found)) == 2 * 4 * EVENTS
    assert gc(archive, older_than="0s", storage_options=options).files == 0


def test_bucket_without_rights_or_existence_is_a_clear_error(tmp_path, bucket):
    """The message names the place, and nothing is written."""
    url, options = bucket
    path = write_closed(tmp_path / "logs", lines_of("h1", 0))
    with pytest.raises((AuditError, OSError), match="nowhere"):
        compacted(path, "s3://nowhere/x", storage_options=options)
    with pytest.raises(AuditError, match="expected an archive, got no _delta_log"):
        open_archive(f"{url}/nothing", storage_options=options)


def test_store_without_exclusive_creation_is_refused(tmp_path):
    """A store that replaces existing objects could lose another host's commit."""
    fsspec = pytest.importorskip("fsspec")

    class Replacing(fsspec.get_filesystem_class("memory")):
        protocol = "replacing"

        def pipe_file(self, path, value, mode="overwrite", **options):
            super().pipe_file(path, value)

    fsspec.register_implementation("replacing", Replacing, clobber=True)
    path = write_closed(tmp_path / "logs", lines_of("h1", 0))
    with pytest.raises(AuditError, match="expected a store that creates objects only if they do not exist"):
        compacted(path, "replacing://archive")


# --- other readers -----------------------------------------------------------------------------------------------------------


def test_filters_of_other_programs_find_every_event(tmp_path):
    """A reader that skips files by the statistics of the log skips none for a column without them, in any file of the log."""
    deltalake = pytest.importorskip("deltalake")
    dataset = pytest.importorskip("pyarrow.dataset")
    archive = tmp_path / "archive"
    segments = [line_of(n, 86_400 * n, user_id="ann", metadata={"tenant": "x"}) for n in range(60)]
    compacted(write_closed(tmp_path / "logs", *segments, second=8_000_000), archive, promote=["tenant"])
    table = deltalake.DeltaTable(str(archive)).to_pyarrow_dataset()
    field = dataset.field
    for found in (
        field("kind").is_null(),
        field("user_id") == "ann",
        field("md_tenant") == "x",
        field("event_id") > "evt",
    ):
        assert table.count_rows(filter=found) == 60


def test_other_programs_read_the_archive_as_a_delta_table(tmp_path):
    """delta-rs and Polars count the events, also after a merge, after days were added, and from a checkpoint."""
    deltalake = pytest.importorskip("deltalake")
    polars = pytest.importorskip("polars")
    archive = tmp_path / "archive"
    segments = [line_of(n, 86_400 * (n // 20), metadata={"tenant": "x"}) for n in range(60)]
    path = write_closed(tmp_path / "logs", *segments, second=8_000_000)
    compacted(path, archive, promote=["tenant"])
    assert list(archive.glob("_delta_log/*.checkpoint.parquet"))
    assert polars.scan_delta(str(archive)).select(polars.len()).collect().item() == 60
    day = polars.scan_delta(str(archive)).filter(polars.col("md_tenant") == "x").select("event_id").collect()
    assert day.height == 60
    assert len(deltalake.DeltaTable(str(archive)).file_uris()) == 60

    assert merge(archive).after == 3
    assert polars.scan_delta(str(archive)).select(polars.len()).collect().item() == 60
    assert len(deltalake.DeltaTable(str(archive)).file_uris()) == 3
