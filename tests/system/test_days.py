"""The day of each user, from install to answer: scripts of commands that a person types, in `days/`, with the real tools.

A script runs in a folder with what the person has at the beginning. It makes an environment of its own and installs the wheel
of this checkout there. All packages come from one folder, which pip fills once: the index is asked once for all days, and every
day has the same versions. An S3 server, the application that the platform engineer watches, and the database of the Django
project are there before the day begins; they are not commands of it.

``pytest -m system -n 0 -rP tests/system/test_days.py`` prints each command, its answer and its seconds.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import day_files
import pytest
from children import without_coverage
from commands import environment
from servers import free_port, get, stop, wait_until
from test_report_browser import BROWSER

from structlog_audit.integrity.standalone import verify_trail

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DAYS = Path(__file__).parent / "days"
NAMES = sorted(script.parent.name for script in DAYS.glob("*/day.sh"))

EXTRAS = "archive,cli,django,explore,reports,signing"

needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where one of *programs* is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def typed_lines(name: str) -> list[str]:
    """Return the lines of a script that a person types, without what follows a first line: a here-document."""
    script = (DAYS / name / "day.sh").read_text()
    without_documents = re.sub(r"(<<'END'.*\n)(?:.*\n)*?END\n", r"\1", script)
    return [line for line in without_documents.splitlines() if line and not line.startswith(("#", ". "))]


def commands(name: str) -> list[str]:
    """Return the commands of a day: those that are timed, and those that last until its end."""
    return [line for line in typed_lines(name) if line.startswith("time ") or line.endswith(" &")]


class Day(NamedTuple):
    """What a day printed, and the folder in which it was."""

    folder: Path
    transcript: str

    def answer(self, command: str) -> str:
        """Return what the one command that begins so printed, with the line itself."""
        answers = re.split("^(?=time )", self.transcript, flags=re.MULTILINE)
        [found] = [answer for answer in answers if answer.startswith(f"time {command}")]
        return found


def seconds_of(transcript: str) -> dict[str, float]:
    """Return the seconds of a day: all, the CPU time of its commands, and both for the two that install."""
    timed = re.findall(r"^\((\S+) s, CPU (\S+) \+ (\S+) s\)$", transcript, re.MULTILINE)
    seconds = [(float(all_of_it), float(user) + float(system)) for all_of_it, user, system in timed]
    [total] = re.findall(r"^total: (.*) s$", transcript, re.MULTILINE)
    return {
        "seconds": float(total),
        "CPU seconds": sum(cpu for _, cpu in seconds),
        "seconds of the installation": sum(each for each, _ in seconds[:2]),
        "CPU seconds of the installation": sum(cpu for _, cpu in seconds[:2]),
    }


Live = Callable[[str, Path], Day]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this checkout, and with those of all packages that the days install."""
    folder = tmp_path_factory.mktemp("wheels")
    words = ["wheel", "-q", "-w", folder, f"{ROOT}[{EXTRAS}]", "pytest", "s3fs", "django-auditlog"]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=600)
    return folder


@pytest.fixture
def live(wheels: Path, record_property: Callable[[str, object], None]) -> Live:
    """A function that runs the script of a person in a folder, records its seconds, and returns the day."""

    def live(name: str, folder: Path, **more: str) -> Day:
        # Chromium refuses to start with a sandbox as root.
        sandbox = " --no-sandbox" if os.geteuid() == 0 else ""
        base = Path(getattr(sys, "_base_executable", sys.executable)).parent
        variables = {
            **{
                key: value
                for key, value in without_coverage(environment()).items()
                if not key.startswith(("PYTHON", "VIRTUAL"))
            },
            "PATH": f"{base}:{os.environ['PATH']}",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_NO_INDEX": "1",
            "TZ": "UTC",
            "CHROMIUM": f"{BROWSER} --headless --disable-gpu{sandbox} --user-data-dir={folder / 'profile'}",
            **more,
        }
        process = subprocess.Popen(
            ["bash", DAYS / name / "day.sh", wheels], cwd=folder, env=variables, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            transcript, _ = process.communicate(timeout=600)
        finally:
            # A script that fails leaves nothing behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        print(transcript)
        assert process.returncode == 0, transcript
        for what, seconds in seconds_of(transcript).items():
            print(f"{name}: {what} {seconds:.1f}")
            record_property(what, round(seconds, 3))
        return Day(folder, transcript)

    return live


@pytest.mark.parametrize("name", NAMES)
def test_day_has_fewer_than_ten_commands(name: str) -> None:
    """Each line that is typed is a command that is timed or lasts until the end, or waits; fewer than ten are commands."""
    others = [line for line in typed_lines(name) if line not in commands(name)]
    assert [line for line in others if not line.startswith("seen ")] == []
    assert len(commands(name)) < 10

    # Only the activation of the environment, and the output of an expected exit code, may follow on the same line.
    for line in commands(name):
        rest = line.removesuffix(" && PATH=$PWD/venv/bin:$PATH").removesuffix(' || echo "exit code $?"')
        assert "&&" not in rest
        assert "||" not in rest


def test_guide_states_the_commands_of_each_day() -> None:
    """The table of the guide has a row for each day, with the number of its commands."""
    page = (ROOT / "examples" / "guide" / "days.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.*\]\(../../tests/system/days/(.*)/day.sh\) \| (\d+) \|", page, re.MULTILINE)
    assert sorted(rows) == [(name, str(len(commands(name)))) for name in NAMES]


@needs("patch")
def test_developer_records_queries_tests_and_understands_a_mistake(live: Live, tmp_path: Path) -> None:
    """Four lines record the events of an application; a query, a test and the doctor's explanation of a mistake follow."""
    shutil.copy(DAYS / "developer" / "shop.py", tmp_path)
    day = live("developer", tmp_path)

    found = re.findall(r"order.delete  (\w+)  (\w+) +entries=(\S+)", day.answer("structlog-audit query"))
    assert found == [("SUCCESS", "ann", "order-17"), ("SUCCESS", "bob", "order-18")]
    assert "succeeded              66.7%  (SUCCESS 2, FAILURE 1, PARTIAL 0)" in day.answer("structlog-audit stats")
    assert "1 passed" in day.answer("pytest")

    explained = day.answer("structlog-audit doctor")
    assert "error: logger 'audit' drops events below WARNING, inherited from its parent [level]" in explained
    assert 'fix: set its level to "INFO"' in explained
    assert "exit code 4" in explained


@needs_browser
@needs("openssl", "pdftotext")
def test_auditor_verifies_reports_and_proves_without_the_application(live: Live, tmp_path: Path) -> None:
    """Verdict, exports of a month, the report on paper, and a proof that Python alone verifies are about the same events."""
    key = day_files.write_trail(tmp_path / "export")
    (tmp_path / "audit.pem").unlink()
    (tmp_path / "audit.vkey").write_text(f"{key}\n")
    for name in ("verify_trail.py", "check_checkpoint.sh"):
        shutil.copy(Path(verify_trail.__file__).parent / name, tmp_path / "export")
    day = live("auditor", tmp_path)

    assert "INTACT  export/audit.jsonl" in day.answer("structlog-audit verify")
    found = re.findall(r"^2025-01-0(\d)T17:00\S+ +bob +(list-\d)", day.answer("structlog-audit query"), re.MULTILINE)
    assert found == [("1", "list-0"), ("2", "list-1"), ("3", "list-2")]

    paper = subprocess.run(["pdftotext", "-layout", tmp_path / "january.pdf", "-"], capture_output=True, text=True)
    assert "Complete for the period" in paper.stdout
    assert "export/audit.jsonl: INTACT" in paper.stdout
    assert len(re.findall(r"customers.export +bob +SUCCESS", paper.stdout)) == 3

    assert f"INTACT  the line is leaf 9 of {day_files.ORIGIN}" in day.answer("python3 -IS")
    assert f"\n{day_files.ORIGIN}\n488\n" in day.answer("sh export/check_checkpoint.sh")


@needs_browser
def test_security_officer_finds_what_changed_and_who_it_was(live: Live, tmp_path: Path) -> None:
    """The comparison, the page in a browser and the rule name the same user and the same number of refusals."""
    key = day_files.write_trail(tmp_path / "export")
    (tmp_path / "audit.vkey").write_text(f"{key}\n")
    day = live("security-officer", tmp_path)

    differences = day.answer("structlog-audit diff")
    assert "| mallory | appeared | 0 | 30 | 0 before, 30 now: very unlikely to be chance |" in differences
    assert "| customers.export | changed | 0.0 % | 88.2 % |" in differences

    page = re.sub(r"<[^>]*>\s*", " ", (tmp_path / "users.html").read_text())
    assert re.search(r"mallory +30 +30 +2025-02-15T02:00\S* +2025-02-15T02:29", page)
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")

    alerts = day.answer("structlog-audit monitor")
    assert "refused exports: more than 5 events within 1h, user_id 'mallory'" in alerts
    assert "exit code 1" in alerts


def test_data_protection_officer_answers_and_erases(live: Live, tmp_path: Path) -> None:
    """The report has the person's events, and after the erasure no file has her name, while the trail is intact."""
    key = day_files.write_customers(tmp_path / "logs")
    (tmp_path / "audit.vkey").write_text(f"{key}\n")
    day = live("data-protection-officer", tmp_path)

    assert "| 2 | 1 | 0 | 0 | 3 |" in day.answer("structlog-audit person")
    before, after = re.findall("^(time structlog-audit query(?:.*\n)*?)[(]", day.transcript, re.MULTILINE)
    assert re.findall(r"(\S+) +ottilie +(\S+)$", before, re.MULTILINE) == [
        ("account.create", "ottilie@example.org"),
        ("order.create", "ottilie@example.org"),
    ]
    assert "no event has user_id 'ottilie'" in after
    assert "recorded the erasure of s_" in day.answer("structlog-audit erase")

    counts = re.findall(r"^logs/\S+:(\d+)$", day.answer("grep"), re.MULTILINE)
    assert len(counts) >= 5
    assert set(counts) == {"0"}
    assert "INTACT  logs/audit.jsonl" in day.answer("structlog-audit verify")


@needs("patch")
def test_migrating_developer_queries_old_rows_and_new_events_together(live: Live, tmp_path: Path) -> None:
    """The rows of the real django-auditlog and the events of the tracked model are one history of a product."""
    pytest.importorskip("auditlog", reason="not installed: django-auditlog")
    shutil.copytree(DAYS / "migrating-developer", tmp_path, dirs_exist_ok=True)
    for words in ("migrate -v 0 --run-syncdb", "price ann chair 100", "price bob chair 110"):
        subprocess.run([sys.executable, "manage.py", *words.split()], cwd=tmp_path, check=True, timeout=120)
    day = live("migrating-developer", tmp_path)

    assert "2 of 2 log entries are recorded in audit.jsonl" in day.answer("structlog-audit import-auditlog")
    history = day.answer("structlog-audit query")
    found = re.findall(r'^shop.product.(\w+) +(\d) .*"price":(\{.*?\}).* (20|–)', history, re.MULTILINE)
    assert found == [
        ("create", "1", '{"before":"None","after":"100"}', "20"),
        ("update", "2", '{"before":"100","after":"110"}', "20"),
        ("update", "2", '{"before":110,"after":120}', "–"),
    ]
    assert "0 errors" in day.answer("structlog-audit doctor")


@contextlib.contextmanager
def application(trail: Path) -> Iterator[dict[str, str]]:
    """Run the application of the guide's page on deployment; yield its addresses."""
    deploy, port, metrics = ROOT / "examples" / "deploy", free_port(), free_port()
    variables = {
        **os.environ,
        "AUDIT_TRAIL": str(trail),
        "AUDIT_ORIGIN": day_files.ORIGIN,
        "WEB_CONCURRENCY": "1",
        "METRICS_PORT": str(metrics),
    }
    words = ["--config", deploy / "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}", "--chdir", deploy]
    process = subprocess.Popen([sys.executable, "-B", "-m", "gunicorn", *words, "shop:application"], env=variables)
    try:
        wait_until(lambda: get(port, "/health") and get(metrics, "/metrics"), process, "the application")
        yield {"SHOP": f"127.0.0.1:{port}", "METRICS": f"127.0.0.1:{metrics}"}
    finally:
        stop(process)


@needs("rsyslogd", "curl")
def test_platform_engineer_seals_watches_and_ships(live: Live, tmp_path: Path) -> None:
    """Another process seals the trail of a running application; a checkpoint that rsyslog shipped covers its lines."""
    (tmp_path / "web1").mkdir(mode=0o700)
    (tmp_path / "rsyslog.conf").write_text(
        f'global(workDirectory="{tmp_path}")\ninclude(file="{tmp_path}/audit.conf")\n'
    )
    with application(tmp_path / "web1" / "audit.jsonl") as addresses:
        day = live("platform-engineer", tmp_path, **addresses)

    watched = day.answer("curl")
    assert re.findall(r'^\{"page": "(.*)"\}$', watched, re.MULTILINE) == ["/page/1", "/page/2", "/page/3"]
    assert re.findall(r"^\{\}$", watched, re.MULTILINE) == ["{}"]
    figures = dict(re.findall(r"structlog_audit_(\w+)\{.*\} (\S+)", watched))
    assert figures == {"recorded_events_total": "3.0", "lost_events_total": "0.0", "pending_events": "0.0"}

    verdict = day.answer("structlog-audit verify")
    assert "INTACT  web1/audit.jsonl" in verdict
    assert "lines covered by checkpoints outside of the host: 4" in verdict


@pytest.fixture
def object_store() -> Iterator[dict[str, str]]:
    """An S3 server on loopback with a bucket "audit"; the variables that lead to it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3fs.S3FileSystem(key="k", secret="s", endpoint_url=url).mkdir("audit")
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def test_platform_engineer_archives_asks_restores_and_prunes(
    live: Live, tmp_path: Path, object_store: dict[str, str]
) -> None:
    """Two hosts are archived in an object store: one question to all of them, their files given back, and old days gone."""
    (tmp_path / "logs").mkdir()
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = [today - dt.timedelta(days=80), today - dt.timedelta(days=40)]
    for host in ("web1", "web2"):
        day_files.write_trail(tmp_path / "logs" / host, begins, days=3, size=5_000)
        (tmp_path / "logs" / "audit.pem").unlink()
    day = live("platform-engineer-archive", tmp_path, **object_store)

    archived = re.findall(r"^(\d+) segments, (\d+) events: .* verified$", day.answer("for host"), re.MULTILINE)
    assert archived == [("3", "53")] * 2
    assert re.findall(r"^(\w+) +(\d+) .* +0.0%$", day.answer("structlog-audit users"), re.MULTILINE) == [
        ("mallory", "60")
    ]
    assert "6 segments, 106 events: verified" in day.answer("structlog-audit archive verify")
    assert "6 segments in restored" in day.answer("structlog-audit archive restore")
    assert len(list((tmp_path / "restored").rglob("audit.jsonl.2*"))) == 6
    assert "56 events pruned" in day.answer("structlog-audit archive prune")
    assert "6 segments, 50 events" in day.answer("structlog-audit archive show")
