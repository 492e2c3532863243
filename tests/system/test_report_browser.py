"""The report in a real browser: it shows what the queries say, runs and asks nothing, and can be printed."""

from __future__ import annotations

import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from reporting import HOSTILE, Events, hostile_events, stored

from structlog_audit import EventStatus
from structlog_audit.reports import compliance_report
from structlog_audit.reports.formatting import number, percent

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium"),
]

DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"


def chromium(folder: Path, *arguments: str) -> str:
    """What headless Chromium prints, run with a profile of its own."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to have one as root
    command = [BROWSER, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*command, *sandbox, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Site(NamedTuple):
    """A local server of *pages*, which remembers what it was asked for."""

    url: str
    pages: dict[str, str]
    asked: list[str]


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on the loopback interface."""
    pages: dict[str, str] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = pages.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(f"http://127.0.0.1:{server.server_port}", pages, asked)
        server.shutdown()


def january(extra: list[object] = ()) -> Events:  # type: ignore[assignment]
    """A month of events of every status."""
    operations = ["STORE", "RECALL", "RECALL", "FORGET", "EXPORT", "invoice.sent"]
    statuses = [EventStatus.SUCCESS] * 5 + [EventStatus.FAILURE, EventStatus.PARTIAL]
    events = [
        stored((n - 700) * 1_800, operation=operations[n % 6], user_id=f"user_{n % 23}", status=statuses[n % 7],
               duration_ms=1.5**(n % 20), entry_ids=[f"entry_{n}"],
               error_message="TimeoutError: no answer" if statuses[n % 7] == "FAILURE" else None)
        for n in range(1_400)
    ]  # fmt: skip
    return Events([*events, *extra])


MEASURE = """<!DOCTYPE html><meta charset="utf-8"><title>waiting</title>
<iframe src="/report" width="{width}" height="800" style="border:0"></iframe>
<pre></pre>
<script>
onload = () => {{
  const inner = document.querySelector("iframe").contentDocument, view = inner.defaultView;
  const style = (what, name) => view.getComputedStyle(inner.querySelector(what))[name];
  const shown = [...inner.querySelectorAll("svg.chart")].filter(svg => svg.getBoundingClientRect().width);
  document.querySelector("pre").textContent = JSON.stringify({{
    overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
    paper: style("body", "backgroundColor"), ink: style("body", "color"),
    bar: style(".serie-2 rect", "fill"), label: style(".chart text", "fill"),
    charts: [...new Set(shown.map(svg => svg.getAttribute("class")))],
    size: shown.map(svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width),
    keys: [...inner.querySelectorAll(".keys dd")].map(dd => dd.innerText),
  }});
}};
</script>
"""
"""A page that looks at the report as a window of some width has it; the report's own policy would let it run nothing."""


def measured(site: Site, folder: Path, width: int, *arguments: str) -> dict[str, object]:
    """What the page `MEASURE` finds."""
    site.pages["/measure"] = MEASURE.format(width=width)
    dom = chromium(folder, "--virtual-time-budget=20000", *arguments, "--dump-dom", f"{site.url}/measure")
    found: dict[str, object] = json.loads(html.unescape(re.search("<pre>(.*)</pre>", dom)[1]))
    return found


def test_the_page_shows_what_the_queries_say(site, tmp_path):
    """The numbers in the rendered page are those of the query, and every bar is there."""
    source = january()
    asked = source.get_statistics()
    site.pages["/report"] = compliance_report(source).to_html()
    found = measured(site, tmp_path, 1_000)
    failures, deletions, exports = (
        source.count_events(**of) for of in ({"status": "FAILURE"}, {"operation": "FORGET"}, {"operation": "EXPORT"})
    )
    shown = [number(asked["total_events"]), percent(asked["success_rate"]), number(len(asked["by_user"])),
             number(failures), number(deletions), number(exports)]  # fmt: skip
    assert found["keys"] == shown
    dom = chromium(tmp_path, "--dump-dom", f"{site.url}/report")
    for operation, count in asked["by_operation"].items():
        if count:
            row = re.search(rf'<bdi class="code">{re.escape(operation)}</bdi></th>\s*<td[^>]*>\s*([\d,]+)', dom)
            assert row[1] == number(count)
    begins = compliance_report(source).to_dict()["over_time"]["steps"]
    bars = re.findall(r"<rect [^>]*><title>[^<]*: ([\d,]+) (SUCCESS|FAILURE|PARTIAL)</title></rect>", dom)
    for status, charts in (("SUCCESS", 1), ("FAILURE", 2), ("PARTIAL", 2)):
        counted = sum(int(count.replace(",", "")) for count, of in bars if of == status)
        assert counted == asked["by_status"][status] * charts * 2  # wide and narrow
    assert len(bars) == 2 * sum((step["SUCCESS"] > 0) + 2 * (step["FAILURE"] > 0) + 2 * (step["PARTIAL"] > 0)
                                for step in begins)  # fmt: skip


def test_hostile_texts_run_nothing_and_ask_nobody(site, tmp_path):
    """With texts that would run scripts and fetch pictures nothing runs and nothing is fetched, even without the policy."""
    hostile = [text.replace("https://evil.example", site.url) for text in HOSTILE]
    hostile += [
        f'<img src="{site.url}/beacon">',
        f"<link rel=stylesheet href={site.url}/beacon>",
        f"@import '{site.url}/b';",
    ]
    events = [stored(n, operation=text or "x", user_id=text, entry_ids=[text], error_message=text,
                     status=EventStatus.FAILURE, duration_ms=1) for n, text in enumerate(hostile)]  # fmt: skip
    page = compliance_report(Events([*hostile_events(), *events])).to_html()
    without_policy = re.sub("<meta http-equiv=[^>]*>", "", page)
    assert without_policy != page
    site.pages.update({"/report": page, "/without": without_policy, "/control": f"<body>{hostile[0]}{hostile[-3]}"})
    for path in ("/report", "/without"):
        site.asked.clear()
        dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}{path}")
        assert "<title>Audit report" in dom
        assert "data-pwned" not in dom
        assert "<title>pwned" not in dom
        assert set(site.asked) <= {path, "/favicon.ico"}
    site.asked.clear()
    dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}/control")
    assert "<title>pwned" in dom
    assert "/beacon" in site.asked


def test_the_policy_stops_what_escaping_would_miss(site, tmp_path):
    """A script, a picture or a style that got onto the page all the same would neither run nor be fetched."""
    page = compliance_report(january()).to_html()
    smuggled = (
        f"<script>document.title='pwned'</script><img src='{site.url}/beacon'><style>body{{display:none}}</style>"
    )
    site.pages["/report"] = page.replace("<main>", f"<main>{smuggled}")
    dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}/report")
    assert "<title>Audit report" in dom
    assert set(site.asked) <= {"/report", "/favicon.ico"}
    assert measured(site, tmp_path, 1_000)["charts"] == ["chart wide"]


@pytest.mark.parametrize("width", [320, 390, 768, 1_280])
def test_the_page_fits_every_width(site, tmp_path, width):
    """Nothing sticks out on a phone, a tablet or a desk, whatever the texts; the chart that fits is shown, and legible."""
    site.pages["/report"] = compliance_report(january(hostile_events())).to_html()
    found = measured(site, tmp_path, width)
    assert found["overflow"] == 0
    assert found["charts"] == ["chart narrow" if width < 640 else "chart wide"]
    assert all(9 <= size <= 14 for size in found["size"])


def test_charts_follow_light_and_dark(site, tmp_path):
    """Paper, text, bars and labels have other colours in the dark, and the paper is the darker one."""
    site.pages["/report"] = compliance_report(january()).to_html()
    light, dark = (measured(site, tmp_path, 1_000, scheme) for scheme in (LIGHT, DARK))
    for what in ("paper", "ink", "bar", "label"):
        assert light[what] != dark[what]
    brightness = {name: sum(map(int, re.findall(r"\d+", found["paper"])[:3])) for name, found in
                  (("light", light), ("dark", dark))}  # fmt: skip
    assert brightness["dark"] < 150 < 700 < brightness["light"]


def test_it_prints(tmp_path):
    """Printed, the report is a PDF of several numbered pages with its figures and all its sections, and coloured charts."""
    if shutil.which("pdftotext") is None:
        pytest.skip("there is no pdftotext: apt-get install poppler-utils")
    source = january(hostile_events())
    (tmp_path / "report.html").write_text(compliance_report(source).to_html())
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path, DARK, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", f"file://{tmp_path / 'report.html'}")
    printed = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
    pages = printed.split("\f")[:-1]
    assert len(pages) > 3
    for position, page in enumerate(pages, 1):
        assert f"{position} / {len(pages)}" in page
    assert number(source.get_statistics()["total_events"]) in pages[0]
    assert "What this report does not show" in printed
    assert "The numbers" not in printed
    command = ["pdftoppm", "-r", "50", "-f", "1", "-l", "3", pdf, tmp_path / "page"]
    subprocess.run(command, check=True)
    seen = set()
    for picture in tmp_path.glob("page-*.ppm"):
        data = picture.read_bytes().split(b"\n255\n", 1)[1]
        seen |= {data[at : at + 3] for at in range(0, len(data), 3)}
    assert bytes.fromhex("ffffff") in seen
    assert {bytes.fromhex(colour) for colour in ("7495b0", "b97a16", "9e2a2b")} <= seen
