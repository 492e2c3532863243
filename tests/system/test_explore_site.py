"""``explore`` as a real process: who can read the site, its numbers, and its pages in a real browser."""

from __future__ import annotations

import contextlib
import datetime as dt
import html
import http.client
import http.server
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest
from accessibility import axe, violations_in  # noqa: F401
from children import without_coverage
from commands import GOLDEN, PROGRAM, environment, run
from reporting import HOSTILE
from test_report_browser import BROWSER, DARK, chromium
from trail_files import line_of, write_trail

from structlog_audit import open_trail
from structlog_audit.cli.explore.access import POLICY
from structlog_audit.query.filters import CLASSES

pytest.importorskip("datasette", reason="not installed: datasette")
pytestmark = pytest.mark.system

needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")

LEFTOVER = 30
"""Seconds that a process may take to stop."""


class Site(NamedTuple):
    """A served site.

    Attributes:
        url: The printed address.
        trail: The path of the trail that it shows.
        process: The process that serves it.
        folder: The folder for its temporary files.
    """

    url: str
    trail: Path
    process: subprocess.Popen
    folder: Path


@contextlib.contextmanager
def explored(folder, trail, *words):
    """Serve the site of *trail* in a process of its own, for the duration of a ``with`` block."""
    temporary = folder / "temporary"
    temporary.mkdir()
    variables = without_coverage(environment(TMPDIR=str(temporary)))
    process = subprocess.Popen(
        [*PROGRAM, "explore", str(trail), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables,
    )  # fmt: skip
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1].startswith("http://127.0.0.1:"), (lines, process.stderr.read())
        yield Site(lines[1].strip(), trail, process, temporary)
    finally:
        process.kill()
        process.communicate()


def hostile_lines(first=0):
    """Return lines of events with hostile texts in every member, among them addresses of another host."""
    texts = [*HOSTILE, "https://evil.example/", "http://evil.example/x.png", "<img src=http://evil.example/beacon>"]
    lines = []
    for number, text in enumerate(texts, first):
        members = {
            "user_id": text, "session_id": text, "entry_ids": [text], "metadata": {text: [text, {"inner": text}]},
            "status": "FAILURE", "error_message": text,
        }  # fmt: skip
        line = json.loads(line_of(number, **members))
        line["operation"] = text
        lines.append(json.dumps(line).encode() + b"\n")
    return b"".join(lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the golden trail with hostile events before it."""
    folder = tmp_path_factory.mktemp("explore")
    path = write_trail(folder / "logs", (100, hostile_lines()), active=GOLDEN.read_bytes())
    with explored(folder, path) as made:
        yield made


def fetch(url, method="GET"):
    """Return the status and the text of the answer to a request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows_of(url):
    """Return the rows that a page has as JSON, as dictionaries, and the number of rows that it states."""
    status, text = fetch(url)
    assert status == 200, text
    document = json.loads(text)
    rows = [dict(zip(document["columns"], row, strict=True)) for row in document["rows"]]
    return rows, document.get("filtered_table_rows_count")


# --- who can read it ---------------------------------------------------------------------------------------------------------


def test_site_answers_only_the_printed_address(site):
    """Without the token each path is 403, and nothing but GET and HEAD is accepted with it."""
    parts = urlsplit(site.url)
    assert len(parts.path) > 30
    assert fetch(site.url)[0] == 200
    for path in ("/", "/audit/events", "/-/static/app.css", f"{parts.path[:-2]}/", "/-/metadata"):
        assert fetch(f"{parts.scheme}://{parts.netloc}{path}")[0] == 403
    assert fetch(site.url, "POST")[0] == 405


def test_site_listens_on_the_loopback_interface_only(site):
    """The port of the site is bound to 127.0.0.1."""
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    if not tables[0].exists():
        pytest.skip("only Linux lists its sockets in /proc")
    port = urlsplit(site.url).port
    listening = []
    for table in filter(Path.exists, tables):
        for line in table.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if int(local.rpartition(":")[2], 16) == port and state == "0A":
                listening.append(local.rpartition(":")[0])
    assert listening == ["0100007F"]


def test_database_cannot_be_written(site):
    """SQL that writes, attaches or reads another file is refused."""
    for sql in (
        "DELETE FROM events",
        "ATTACH '/tmp/x.db' AS x",
        "SELECT readfile('/etc/passwd')",
        "PRAGMA user_version = 7",
    ):
        status, text = fetch(f"{site.url}audit.json?{urlencode({'sql': sql})}")
        assert status == 400, text
    assert rows_of(f"{site.url}audit.json?sql=SELECT+count(*)+AS+n+FROM+events")[0][0]["n"] > 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_copy_is_private_and_removed_at_exit(tmp_path, number):
    """Only this user can read the copy, and no file is left however the process is told to stop."""
    with explored(tmp_path, write_trail(tmp_path / "logs", active=line_of(1))) as site:
        (folder,) = site.folder.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {"audit.db": 0o600}
        site.process.send_signal(number)
        assert site.process.wait(LEFTOVER) == 0
        assert site.process.stderr.read() == ""
        assert list(site.folder.iterdir()) == []


def test_trail_that_cannot_be_read_leaves_nothing(tmp_path):
    """An error before the site is served has its exit code, and no copy is left."""
    (tmp_path / "t").mkdir()
    words = [*PROGRAM, "explore", str(tmp_path / "nothing.jsonl")]
    done = subprocess.run(words, env=environment(TMPDIR=str(tmp_path / "t")), capture_output=True, check=False)
    assert (done.returncode, list((tmp_path / "t").iterdir())) == (3, [])


# --- its numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ({}, {}),
        ({"user_id": "ann"}, {"user_id": "ann"}),
        ({"user_id__exact": HOSTILE[0]}, {"user_id": HOSTILE[0]}),
        ({"user_id__exact": ""}, {"user_id": ""}),
        ({"user_id__isnull": "1"}, {"user_id": None}),
        ({"operation": "STORE", "status": "SUCCESS"}, {"operation": "STORE", "status": "SUCCESS"}),
        ({"duration_ms__gte": "10"}, {"min_duration_ms": 10}),
        (
            {"timestamp__gte": "2025-01-15T10:30:20", "timestamp__lt": "2025-01-15T10:30:40"},
            {
                "start_time": dt.datetime(2025, 1, 15, 10, 30, 20, tzinfo=dt.UTC),
                "end_time": dt.datetime(2025, 1, 15, 10, 30, 40, tzinfo=dt.UTC),
            },
        ),
    ],
)
def test_filter_gives_the_number_of_the_query(site, query, filters):
    """A filter of the table shows the number, and the events, that the query of the trail has."""
    trail = open_trail(site.trail)
    rows, count = rows_of(f"{site.url}audit/events.json?{urlencode(query)}&_size=max")
    assert count == trail.count_events(**filters)
    expected = [event.event_id for event in trail.query_events(**filters)]
    assert Counter(row["event_id"] for row in rows) == Counter(expected)


def test_form_leads_to_the_filtered_page(site):
    """The form of the table applies a filter, with and without a search."""
    form = {
        "_filter_column": "user_id",
        "_filter_op": "exact",
        "_filter_value": "ann",
        "_search": "",
        "_sort_desc": "number",
    }
    status, text = fetch(f"{site.url}audit/events?{urlencode(form)}")
    count = open_trail(site.trail).count_events(user_id="ann")
    assert (status, f">{count} rows where user_id = &#34;ann&#34;" in text) == (200, True)
    rows, count = rows_of(f"{site.url}audit/events.json?_search=pwned&_size=max")
    assert count == sum("pwned" in text for text in HOSTILE) == len(rows)


@pytest.mark.parametrize(
    ("path", "status"),
    [("audit/events/999999", 404), ("audit/nothing", 404), ("audit?sql=DELETE+FROM+events", 400), ("x/y/z/a", 404)],
)
def test_error_is_a_page_of_the_site_and_quiet(site, path, status):
    """What is not there is a page with the reason, and nothing is written to the terminal."""
    found, text = fetch(f"{site.url}{path}")
    assert found == status
    assert 'class="error"' in text
    assert site.process.poll() is None


def test_facets_have_the_numbers_of_the_statistics(site):
    """The facets for class, operation, user, status and day count what the statistics and queries count."""
    trail = open_trail(site.trail)
    found = trail.get_statistics()
    _, text = fetch(f"{site.url}audit/events.json?_facet_size=max&_size=0")
    facets = json.loads(text)["facet_results"]
    counted = {name: {one["value"]: one["count"] for one in facet["results"]} for name, facet in facets.items()}
    assert counted["operation"] == {name: count for name, count in found["by_operation"].items() if count}
    assert counted["operation_class"] == {
        name: count for name in CLASSES if (count := trail.count_events(operation_class=name))
    }
    assert counted["user_id"] == {name: count for name, count in found["by_user"].items() if name is not None}
    assert counted["status"] == {str(name): count for name, count in found["by_status"].items() if count}
    assert counted["timestamp"] == Counter(f"{event.timestamp:%Y-%m-%d}" for event in trail.iter_events())


def test_questions_have_the_numbers_of_the_query(site):
    """Each canned query lists the events that the trail has for it."""
    trail = open_trail(site.trail)
    events = trail.query_events()

    def answers(name, **parameters):
        return rows_of(f"{site.url}audit/{name}.json?{urlencode(parameters)}")[0]

    for name, wanted in (("deletions", "delete"), ("exports", "export")):
        of_class = trail.query_events(operation_class=wanted)
        assert len(answers(name)) == len(of_class) > 0
        assert len(answers(name, user="bob")) == sum(event.user_id == "bob" for event in of_class)

    assert len(answers("failures", day="2025-01-19")) == trail.count_events(status="FAILURE") > 0
    assert answers("failures", day="2025-01-20") == []
    entry = next(entry for event in events for entry in event.entry_ids)
    assert len(answers("entry", entry=entry)) == trail.count_events(entry_ids=entry)
    users = {row["user_id"]: (row["events"], row["first"][:19], row["last"][:19]) for row in answers("users")}
    for user, row in users.items():
        times = sorted(event.timestamp for event in events if event.user_id == user)
        assert row == (len(times), f"{times[0]:%Y-%m-%dT%H:%M:%S}", f"{times[-1]:%Y-%m-%dT%H:%M:%S}")


def test_csv_has_all_rows(tmp_path):
    """The CSV of a page, a question and SQL has every row, beyond the 5,000 of a page and of its JSON."""
    lines = (line_of(number, operation="document.delete", user_id="ann") for number in range(5_010))
    path = write_trail(tmp_path / "logs", active=b"".join(lines))
    with explored(tmp_path, path) as made:
        link = re.search(r'href="([^"]+events\.csv[^"]*)"', fetch(f"{made.url}audit/events")[1])[1]
        pages = (urljoin(made.url, html.unescape(link)), f"{made.url}audit/deletions.csv?user=ann")
        for url in (*pages, f"{made.url}audit.csv?{urlencode({'sql': 'SELECT number FROM events'})}"):
            assert fetch(url)[1].count("\r\n") == 5_011, url
        assert fetch(f"{made.url}audit/deletions.csv?user=bob")[1].count("\r\n") == 1
        assert fetch(f"{made.url}audit.csv?sql=DROP+TABLE+events")[0] == 400


@pytest.mark.parametrize(
    ("numbers", "headlines"), [((0, 1, 2), ["Unknown", "Intact"]), ((0, 2, 3), ["Incomplete", "Changed"])]
)
def test_front_page_states_conditions_and_verdicts(tmp_path, numbers, headlines):
    """The front page names what was selected, whether it is complete, and with a key whether it is as it was sealed."""
    path = write_trail(tmp_path / "logs", active=b"".join(line_of(number, user_id="ann") for number in numbers))
    (tmp_path / "k.vkey").write_text(run("keygen", tmp_path / "k.pem", "--origin", "audit.example/shop/web1").out)
    assert run("seal", path, "--key", tmp_path / "k.pem", "--origin", "audit.example/shop/web1").code == 0
    words = ("user_id=ann", "--since", "2025-01-15", "--key", str(tmp_path / "k.vkey"))
    with explored(tmp_path, path, *words) as site:
        _, text = fetch(site.url)
    assert "<code>user_id=ann</code>" in text
    assert "Period 2025-01-15 00:00:00 to the end (UTC)" in re.sub(r"(<[^>]*>)+", " ", text).replace("  ", " ")
    assert re.findall('<p class="headline">(.*?)</p>', text) == headlines
    assert ("1 event of writer" in text) == (headlines[0] == "Incomplete")
    assert "3 lines, the newest of 2025-01-15T10:30" in text


def test_every_link_leads_to_a_page_of_the_site(site):
    """From the front page on, each link of each page stays below the printed address and leads to a page."""
    waiting, seen, kinds, most = [site.url], {site.url}, Counter(), 120
    while waiting and most:
        most -= 1
        page = waiting.pop(0)
        status, text = fetch(page)
        assert status == 200, page
        if not text.startswith("<!DOCTYPE html>"):
            continue
        for link in re.findall(r'(?:href|action|src)="([^"]*)"', text):
            target = urljoin(page, html.unescape(link))
            if target.startswith("data:"):
                continue
            assert target.startswith(site.url), (page, link)
            # Of each kind of page a few are enough.
            kind = re.sub(r"[^/?=&]+(?=&|$)|\d+", "", urlsplit(target).path + "?" + urlsplit(target).query)
            target = target.partition("#")[0]
            if target not in seen and kinds[kind] < 3:
                kinds[kind] += 1
                seen.add(target)
                waiting.append(target)
    assert len(seen) > 20


# --- in a browser ------------------------------------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """A proxy that records the requests of a browser, and may change the pages of the site.

    Attributes:
        address: The proxy for the browser.
        requests: The requested addresses.
        change: A list with the function that changes a page, if any.
    """

    address: str
    requests: list[str]
    change: list


@pytest.fixture
def proxy():
    """Return a proxy on the loopback interface that reaches 127.0.0.1 only."""
    requests, change = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            parts = urlsplit(self.path)
            if parts.hostname != "127.0.0.1":
                self.send_error(502)
                return
            target = parts._replace(scheme="", netloc="").geturl()
            with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=60)) as connection:
                connection.request("GET", target, headers={"Host": parts.netloc})
                answer = connection.getresponse()
                body = answer.read()
            own = ("transfer-encoding", "content-length")
            headers = [item for item in answer.getheaders() if item[0].lower() not in own]
            if change and "html" in answer.getheader("content-type", ""):
                body = change[0](body.decode()).encode()
                headers = [item for item in headers if item[0].lower() != "content-security-policy"]
            self.send_response(answer.status)
            for name, value in [*headers, ("Content-Length", str(len(body)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self):
            requests.append(self.path)
            self.send_error(502)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Proxy(f"http://127.0.0.1:{server.server_port}", requests, change)
        server.shutdown()


def shown(proxy, folder, url, *arguments):
    """Return the DOM of a page, loaded by the proxy."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"]
    through = [f"--proxy-server={proxy.address}", "--proxy-bypass-list=<-loopback>"]
    return chromium(folder, "--virtual-time-budget=20000", *quiet, *through, *arguments, "--dump-dom", url)


def pages_of(site):
    """Return the addresses of one page of each kind, all with hostile texts on them."""
    hostile = quote(HOSTILE[0])
    return [
        site.url,
        f"{site.url}audit/events?_size=max&_facet_size=max",
        f"{site.url}audit/events?user_id__exact={hostile}",
        f"{site.url}audit/events/1",
        f"{site.url}audit/events/{len(HOSTILE) + 3}",
        f"{site.url}audit/failures?day=2025-01-15",
        f"{site.url}audit/entry?entry={hostile}",
        f"{site.url}audit/users",
        f"{site.url}audit?sql={quote('SELECT user_id, metadata, error_message AS x FROM events')}",
        f"{site.url}audit/event_entries?_size=max",
    ]


@needs_browser
@pytest.mark.parametrize("has_policy", [True, False])
def test_hostile_texts_execute_nothing_and_request_nothing(site, proxy, tmp_path, has_policy):
    """No text of an event becomes code or a request to another place, even without the content security policy."""
    if not has_policy:
        proxy.change.append(lambda page: page)
    for page in pages_of(site):
        dom = shown(proxy, tmp_path, page)
        assert "data-pwned" not in dom
        assert "<title>pwned" not in dom
        assert "<h1>" in dom
    assert not [request for request in proxy.requests if "evil" in request]
    of_site = {urlsplit(request).netloc for request in proxy.requests if request.startswith("http://127.")}
    assert of_site == {urlsplit(site.url).netloc}


@needs_browser
def test_proxy_sees_what_a_hostile_text_would_request(site, proxy, tmp_path):
    """If a text were not escaped, the test above would see the script run and the request."""
    texts = f"{HOSTILE[0]}<img src=http://evil.example/beacon>"
    proxy.change.append(lambda page: page.replace("<main>", f"<main>{texts}"))
    dom = shown(proxy, tmp_path, site.url)
    assert "<title>pwned" in dom
    assert [request for request in proxy.requests if "evil.example" in request]


@needs_browser
def test_policy_blocks_a_script_and_a_request_that_were_injected(site, proxy, tmp_path):
    """With the policy, a script in the page does not run, and an image of another host is not requested."""
    _, page = fetch(site.url)
    assert "<script" not in page
    injected = "<script>document.body.dataset.pwned='1'</script><img src='http://evil.example/b'>"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    proxy.change.append(lambda page: page.replace("<head>", f"<head>{meta}").replace("<main>", f"<main>{injected}"))
    dom = shown(proxy, tmp_path, site.url)
    assert "<img src=" in dom
    assert "data-pwned" not in dom
    assert not [request for request in proxy.requests if "evil" in request]


@needs_browser
@pytest.mark.parametrize(
    ("query", "filters"),
    [("", {}), ("?user_id=ann", {"user_id": "ann"}), ("?status=FAILURE", {"status": "FAILURE"})],
)
def test_browser_shows_the_number_of_the_query(site, proxy, tmp_path, query, filters):
    """The page states the number of events that the trail has."""
    dom = shown(proxy, tmp_path, f"{site.url}audit/events{query}")
    assert re.search(r'class="count">([\d,]+) rows', dom)[1] == f"{open_trail(site.trail).count_events(**filters):,}"


WIDTH = "<script>onload=()=>document.body.dataset.overflow=document.documentElement.scrollWidth-innerWidth</script>"


@needs_browser
@pytest.mark.parametrize("width", [500, 1_200])
def test_page_is_not_wider_than_the_window(site, proxy, tmp_path, width):
    """On a phone and on a desktop only tables scroll sideways."""
    proxy.change.append(lambda page: page.replace("</body>", f"{WIDTH}</body>"))
    for page in pages_of(site):
        dom = shown(proxy, tmp_path, page, f"--window-size={width},900")
        assert int(re.search(r'data-overflow="(-?\d+)"', dom)[1]) <= 0, page


@needs_browser
@pytest.mark.parametrize("scheme", [(), (DARK,)], ids=["light", "dark"])
def test_axe_finds_no_violation(site, proxy, tmp_path, axe, scheme):  # noqa: F811
    """No page violates a rule of axe-core, in the light and in the dark scheme."""
    proxy.change.append(axe)
    for page in pages_of(site):
        dom = shown(proxy, tmp_path, page, *scheme)
        assert violations_in(dom) == [], page


def test_datasette_of_the_environment_is_not_imported_by_the_other_commands():
    """The command line imports Datasette for this command only."""
    code = "import sys, structlog_audit.cli.app; print('datasette' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout == "False\n"
