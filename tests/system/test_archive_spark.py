"""Queries of an archive by Spark: in a Java process of this host, on a cluster with two workers, and over Connect."""

from __future__ import annotations

import contextlib
import random
import shutil

import pytest
import spark_servers
from archive_cases import (
    DRAWN,
    PROMOTED,
    check_decisions,
    check_equal,
    conditions_of,
    drawn_conditions,
    filters_for,
    word_of,
    written,
)
from archives import EVERYTHING, all_ids, compacted, write_closed
from commands import run
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from servers import free_port
from test_golden import GOLDEN, QUESTIONS, answer_of, name_of, reader_of_an_archive, same
from trail_files import id_of, ids, line_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditReadError, open_trail
from structlog_audit.archive import open_archive
from structlog_audit.archive import spark_engine as spark_module
from structlog_audit.query import filters as query_filters

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java: apt-get install default-jre-headless"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the servers, with the settings of Spark in the environment."""
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in spark_servers.environment(folder / "settings").items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module", params=["local", "cluster", "connect"])
def engine(request, folder):
    """The name of an engine, which stays connected for the tests that use it."""
    from pyspark import SparkContext

    servers = {
        "local": lambda _: contextlib.nullcontext("local[2]"),
        "cluster": spark_servers.cluster,
        "connect": spark_servers.connect_server,
    }
    held = small_archive(folder / f"held by {request.param}")
    with servers[request.param](folder / request.param) as name, open_archive(held, engine=name):
        yield name
    # The last reader ends its application.
    assert SparkContext._active_spark_context is None


on_local = pytest.mark.parametrize("engine", ["local"], indirect=True)
"""Marks the tests of what does not depend on where Spark runs."""


def small_archive(folder):
    """Make an archive of one event in *folder*."""
    compacted(write_closed(folder / "logs", line_of(1)), folder / "archive")
    return folder / "archive"


def is_answered(source, question):
    """Return whether *source* gives the answer of the golden table."""
    found, expected = answer_of(source, question), question["answer"]
    if question["method"] in ("get_statistics", "get_user_statistics"):
        return all(same(name, found[name], expected[name]) for name in expected)
    return found == expected


@pytest.mark.parametrize("share", ["some", pytest.param("all", marks=pytest.mark.long)])
def test_golden_questions_have_the_expected_answers(tmp_path, engine, share):
    """Each question about the golden trail has the answer of the table; some of its metadata is promoted.

    The cluster and the Connect server get half of the questions each, and all of them in the long tests.
    """
    path = tmp_path / "audit.jsonl"
    shutil.copy(GOLDEN / "trail.jsonl", path)
    reader_of_an_archive(path, promote=["source", "user.plan"]).close()
    numbers = [number for number, question in enumerate(QUESTIONS) if "answer" in question]
    if share == "some" and engine != "local[2]":
        numbers = numbers[engine.startswith("sc://") :: 2]
    with open_archive(tmp_path / "archive", engine=engine) as source:
        wrong = [name_of(number) for number in numbers if not is_answered(source, QUESTIONS[number])]
    assert wrong == []


def archive_of(folder, drawn, promoted):
    """Archive the *drawn* events as two segments with other promoted columns, and return the trail."""
    path = written(folder / "logs", drawn, [len(drawn) // 2, len(drawn)])
    for columns in (promoted[:1], promoted):
        compacted(path, folder / "archive", promote=columns)
        newest = folder / "logs" / f"audit.jsonl.{2026 + len(columns)}0101T000000.000000Z"
        newest.write_bytes(b"")
    return path


# Shrinking an example on a cluster takes minutes.
FEW = settings(
    max_examples=3, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@FEW
@given(drawn=DRAWN, promoted=PROMOTED, newest_first=st.booleans(), limit=st.none() | st.integers(1, 4), data=st.data())
def test_spark_gives_the_answers_of_the_files(tmp_path_factory, engine, drawn, promoted, newest_first, limit, data):
    """For all events, clocks, filters and promoted members: the answers of the files."""
    folder = tmp_path_factory.mktemp("case")
    path = archive_of(folder, drawn, promoted)
    with open_archive(folder / "archive", live=path, engine=engine, host="h1") as source:
        check_equal(source, open_trail(path), data.draw(filters_for(drawn)), limit, newest_first)


@on_local
def test_users_of_two_trails_are_those_of_duckdb(tmp_path, engine):
    """Places of more than 64 bits have their order in Spark, too: of clocks that were set back, and before 1970."""
    for host in (2, 3):
        lines = [
            line_of(n, (n * host % 7) - 3e9 * (n < 3), user_id=("ann", "bob", None)[n % 3], operation=f"o{n % host}")
            for n in range(20)
        ]
        data = b"".join(lines).replace(b"80000001", b"8000000%x" % host)
        compacted(write_closed(tmp_path / f"logs{host}", data), tmp_path / "archive")

    found = []
    for name in ("duckdb", engine):
        with open_archive(tmp_path / "archive", engine=name) as source:
            users = source.get_statistics_by_user()
        found.append((list(users), users, [list(user["by_operation"]) for user in users.values()]))
    assert found[0] == found[1]
    assert found[0][0] == ["ann", "bob", None]


@on_local
def test_random_conditions_have_equal_answers_everywhere(tmp_path_factory, engine):
    """Buffer, files, DuckDB and Spark find the same events for all filters, with and without tests of fields."""
    check_random_conditions(tmp_path_factory, engine, 20)


@pytest.mark.long
def test_5000_random_conditions_have_equal_answers_everywhere(tmp_path_factory, engine):
    """The same for many filters, in a Java process, on a cluster and over Connect."""
    check_random_conditions(tmp_path_factory, engine, 5_000)


def check_random_conditions(tmp_path_factory, engine, conditions):
    """Check that buffer, files, DuckDB and *engine* find the same events for this many random conditions."""

    @settings(FEW, max_examples=max(1, conditions // 50))
    @given(drawn=DRAWN, promoted=PROMOTED, data=st.data(), chance=st.integers(0, 2**32).map(random.Random))
    def check(drawn, promoted, data, chance):
        folder = tmp_path_factory.mktemp("case")
        path = archive_of(folder, drawn, promoted)
        whole = folder / "whole.jsonl"
        whole.write_bytes(b"".join(file.read_bytes() for file in sorted(path.parent.glob("audit.jsonl.*"))))
        files = open_trail(path)
        stored = list(files.select(EVERYTHING, newest_first=False))
        with contextlib.ExitStack() as stack:
            buffer = AuditHandler(target=AuditFileHandler(whole), warm_start=True)
            stack.callback(buffer.close)
            engines = [
                stack.enter_context(open_archive(folder / "archive", engine=name)) for name in ("duckdb", engine)
            ]
            for _ in range(min(conditions, 50)):
                wanted = query_filters.conditions(**data.draw(filters_for(drawn)))
                of_fields = conditions_of([word_of(chance.choice(stored), chance)])
                # Half of them have a test of a field, and nothing else.
                if of_fields is not None and chance.random() < 0.5:
                    wanted = of_fields
                expected = ids(files.select(wanted, newest_first=False))
                assert sorted(ids(buffer.select(wanted, newest_first=False))) == sorted(expected)
                assert [ids(source.select(wanted, newest_first=False)) for source in engines] == [expected] * 2, wanted

    check()


@on_local
@pytest.mark.parametrize("conditions", [50, pytest.param(5_000, marks=pytest.mark.long)])
def test_sql_of_spark_is_certain_only_where_python_decides_alike(tmp_path_factory, engine, conditions):
    """For all events, filters and tests of fields: certain rows match, and rows of neither sort do not."""

    @settings(FEW, max_examples=conditions // 50)
    @given(drawn=DRAWN, promoted=PROMOTED, data=st.data(), chance=st.integers(0, 2**32).map(random.Random))
    def check(drawn, promoted, data, chance):
        folder = tmp_path_factory.mktemp("case")
        compacted(written(folder / "logs", drawn, [len(drawn)] * 3), folder / "archive", promote=promoted)
        filters = [query_filters.conditions(**data.draw(filters_for(drawn))) for _ in range(20)]
        with open_archive(folder / "archive", engine=engine) as reader:
            stored = list(reader.select(EVERYTHING, newest_first=False))
            check_decisions(reader, [*filters, *drawn_conditions(stored, chance, 30)])

    check()


@on_local
@pytest.mark.parametrize(
    "word",
    ["metadata.a=x", "metadata.a!=x", "metadata.n>=2", "metadata.n=2", "metadata.b=true", "metadata.a~^x", "metadata.a!~^x",
     "metadata.o.p=x", "metadata.a=", "entry_ids~^e"],
)  # fmt: skip
def test_test_of_a_plain_member_brings_no_other_row_to_python(tmp_path, engine, word):
    """Spark decides about text, numbers, booleans and missing members itself."""
    lines = [line_of(n, metadata={"a": "xyz"[n % 3], "n": n, "b": n % 2 == 0, "o": {"p": "x"}}) for n in range(6)]
    lines += [line_of(6, entry_ids=["e1"]), line_of(7, entry_ids=["f1"], metadata={"a": None, "n": 2.0})]
    path = write_closed(tmp_path / "logs", b"".join(lines))
    compacted(path, tmp_path / "archive")
    conditions = conditions_of([word])
    with open_archive(tmp_path / "archive", engine=engine) as source:
        [opened] = source._archives
        assert list(opened.engine.undecided(opened.log.require(), conditions)) == []
        expected = [event for event in source.select(EVERYTHING, newest_first=False) if conditions.matches(event)]
        assert ids(source.select(conditions, newest_first=False)) == ids(expected)
        assert expected


@on_local
@pytest.mark.parametrize(
    "words", [["user_id~^u"], ["user_id!~^u"], ["metadata.a~^x"], ["metadata.a!~^x"], ["user_id=v", "user_id="]]
)
def test_list_of_many_values_is_one_parameter(tmp_path, engine, monkeypatch, words):
    """A pattern may find thousands of values, for each of which PySpark would take a millisecond; NULL is none of them."""
    monkeypatch.setattr("structlog_audit.archive.field_sql._FEW_VALUES", 0)
    texts = ["u'1", 'u"2', "u\\", "u\u2028", "ué", "v"]
    lines = [line_of(n, user_id=text, metadata={"a": "x" + text}) for n, text in enumerate(texts)]
    lines += [line_of(10), line_of(11, metadata={"a": ["xu"]}), line_of(12, metadata={"a": 1})]
    path = write_closed(tmp_path / "logs", b"".join(lines))
    compacted(path, tmp_path / "archive")
    conditions = conditions_of(words)
    with open_archive(tmp_path / "archive", live=path, host="h1", engine=engine) as source:
        expected = ids(open_trail(path).select(conditions, newest_first=False))
        assert ids(source.select(conditions, newest_first=False)) == expected
        assert source._count(conditions) == len(expected)


@on_local
def test_metadata_that_spark_cannot_parse_is_decided_by_python(tmp_path, engine):
    """A number of more digits than Spark reads neither fails a query nor hides its event."""
    digits = int("1" * 1_200)
    lines = [line_of(n, metadata={"a": "x" if n < 4 else "y", "n": digits if n % 2 else 1}) for n in range(8)]
    compacted(write_closed(tmp_path / "logs", b"".join(lines)), tmp_path / "archive")
    with open_archive(tmp_path / "archive", engine=engine) as source:
        assert ids(source.query_events(metadata={"a": "x"}, limit=3)) == [id_of(lines[n]) for n in (3, 2, 1)]
        assert source.count_events(metadata={"a": "x"}) == 4
        assert source.get_statistics(metadata={"a": "x"})["total_events"] == 4
        assert [found["total_operations"] for found in source.get_statistics_by_user(metadata={"a": "x"}).values()] == [
            4
        ]
        first = source.page(limit=3, metadata={"a": "x"})
        assert ids(source.page(first.cursor, limit=3, metadata={"a": "x"}).events) == [id_of(lines[3])]


@on_local
@pytest.mark.parametrize("ask", ["count_events", "query_events", "get_statistics_by_user"])
def test_filter_of_no_value_matches_nothing(tmp_path, engine, ask):
    """It is the only condition of its query."""
    with open_archive(small_archive(tmp_path), engine=engine) as source:
        assert not getattr(source, ask)(kind=[])


@on_local
@pytest.mark.parametrize("ask", ["count_events", "query_events", "get_statistics_by_user"])
def test_message_that_looks_like_one_about_metadata_ends_in_an_error(tmp_path, engine, ask):
    """A missing file whose path has the name of an error class of Spark is not asked for again for ever."""
    archive = small_archive(tmp_path / "VARIANT_")
    for path in archive.glob("date=*/*.parquet"):
        path.unlink()
    with open_archive(archive, engine=engine) as source, pytest.raises(AuditReadError, match="PATH_NOT_FOUND"):
        getattr(source, ask)()


@on_local
@pytest.mark.parametrize("name", ["[prod] {a,b}", "a*b?", "back\\slash", "100%25", "date=2020-01-01", "_hidden", "a:b"])
def test_path_is_not_a_pattern(tmp_path, engine, name):
    """Spark takes paths for patterns, days for columns and names with an underscore for hidden ones."""
    archive = tmp_path / name / "archive"
    compacted(write_closed(tmp_path / "logs", line_of(1)), archive)
    with open_archive(archive, engine=engine) as source:
        assert source.count_events() == 1


@pytest.mark.parametrize("content", [None, b"PAR1 half of a file"])
def test_missing_or_damaged_file_is_an_error_with_its_remedy(tmp_path, engine, content):
    """A file that is gone is not taken for one without events."""
    archive = small_archive(tmp_path)
    [file] = archive.glob("date=*/*.parquet")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with open_archive(archive, engine=engine) as source, pytest.raises(AuditReadError, match="archive verify shows"):
        source.query_events()


@on_local
def test_bucket_needs_a_file_system_of_spark(engine, tmp_path):
    """The message states what to configure, since storage_options do not reach Spark."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    endpoint = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"}
    options = {"key": "k", "secret": "s", "client_kwargs": endpoint}
    # All servers of a process have the same buckets.
    s3fs.S3FileSystem(**options).mkdir("spark")
    compacted(write_closed(tmp_path / "logs", line_of(1)), "s3://spark/a", storage_options=options)
    with (
        open_archive("s3://spark/a", engine=engine, storage_options=options) as source,
        pytest.raises(AuditReadError, match=r"s3://spark/a: .*--packages org\.apache\.hadoop:hadoop-aws"),
    ):
        source.count_events()
    server.stop()


def test_command_line_has_the_answer_of_duckdb(tmp_path, engine, monkeypatch):
    """``--engine`` holds for an archive and the live trail beside it, with regular expressions and ``!=``."""
    monkeypatch.chdir(tmp_path)
    lines = [line_of(n, user_id=f"u{n % 3}", status="FAILURE" if n % 2 else "SUCCESS") for n in range(9)]
    compacted(write_closed(tmp_path / "logs", *lines), "archive")
    words = ["query", "archive", "logs/audit.jsonl", "user_id~^u[12]", "status!=SUCCESS", "-o", "jsonl"]
    found = run(*words, "--engine", engine)
    assert (found.code, found.out) == (0, run(*words).out)
    assert len(found.lines) == 3


@on_local
def test_session_of_the_application_stays_open(tmp_path, engine):
    """A reader that is given a session neither stops nor changes it."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    zone = session.conf.get("spark.sql.session.timeZone")
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    with open_archive(small_archive(tmp_path), engine=session) as source:
        assert all_ids(source) == [id_of(line_of(1))]
    assert session.conf.get("spark.sql.session.timeZone") == "America/New_York"
    assert session.range(3).count() == 3
    session.conf.set("spark.sql.session.timeZone", zone)


@on_local
def test_answered_queries_leave_nothing_in_the_driver(tmp_path, engine):
    """The jobs of a query that was read to its end are forgotten: a process may ask for as long as it wants."""
    from pyspark import SparkContext

    with open_archive(small_archive(tmp_path), engine=engine) as source:
        assert [all_ids(source) for _ in range(3)] == [[id_of(line_of(1))]] * 3
    scheduler = SparkContext._active_spark_context._jsc.sc().dagScheduler()
    assert scheduler.activeQueryToJobs().size() == 0


def test_readers_of_one_process_share_an_application(tmp_path, engine):
    """Closing one reader does not end the queries of another."""
    archive = small_archive(tmp_path)
    with open_archive(archive, engine=engine) as second:
        open_archive(archive, engine=engine).close()
        assert second.count_events() == 1


@on_local
def test_process_has_one_application(tmp_path, engine):
    """Spark itself would silently answer from the other cluster."""
    with pytest.raises(AuditReadError, match=r"a Spark application on 'local\[2\]' already: pass its SparkSession"):
        open_archive(small_archive(tmp_path), engine="local[1]")


@pytest.mark.parametrize(
    ("scheme", "message"), [("sc", "is the Spark Connect server running there"), ("spark", "expected a running master")]
)
def test_server_that_does_not_answer_is_an_error(tmp_path, monkeypatch, scheme, message):
    """The message names the address; nothing waits for minutes."""
    monkeypatch.setattr(spark_module, "_RETRIES", 1)
    port = free_port()
    with pytest.raises(AuditReadError, match=rf"{scheme}://127\.0\.0\.1:{port}.*{message}"):
        open_archive(small_archive(tmp_path), engine=f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_missing_java_is_an_error_with_its_remedy(tmp_path, monkeypatch, home):
    """Neither a stack trace nor a shell script's words: what to install, and what needs no Java."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("JAVA_HOME", home)
    with pytest.raises(AuditReadError, match=r"engine='local\[2\]' needs Java 17 or newer.*default-jre-headless"):
        open_archive(small_archive(tmp_path), engine="local[2]")


def test_client_alone_cannot_start_an_application(tmp_path, monkeypatch):
    """pyspark-client has no Spark: the message says what to install instead."""
    monkeypatch.setattr("pyspark.util.is_remote_only", lambda: True)
    with pytest.raises(AuditReadError, match="pip uninstall pyspark-client; pip install pyspark"):
        open_archive(small_archive(tmp_path), engine="local[2]")
