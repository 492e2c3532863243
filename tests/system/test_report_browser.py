"""HTML reports in a real browser: figures, layout, printing, accessibility, and no scripts or requests."""

from __future__ import annotations

import datetime as dt
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
from accessibility import axe, violations_in  # noqa: F401
from msgspec.structs import replace
from reporting import HOSTILE, NOON, Events, hostile_events, stored

from structlog_audit import EventStatus
from structlog_audit.reports import (
    ComparisonReport,
    PersonReport,
    Report,
    comparison_report,
    compliance_report,
    person_report,
)
from structlog_audit.reports.formatting import number, percent

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium"),
]

DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"


def chromium(folder: Path, *arguments: str) -> str:
    """Run headless Chromium with a new profile and return its stdout."""
    # Chromium refuses to start with a sandbox as root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [BROWSER, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*command, *sandbox, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Site(NamedTuple):
    """A local server of *pages* that records the paths of its requests."""

    url: str
    pages: dict[str, str]
    requests: list[str]


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a server on the loopback interface."""
    pages: dict[str, str] = {}
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
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
        yield Site(f"http://127.0.0.1:{server.server_port}", pages, requests)
        server.shutdown()


def january(extra: list[object] = ()) -> Events:  # type: ignore[assignment]
    """Return a month of events with every status."""
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
  const style = (what, name) => {{
    const found = inner.querySelector(what);
    return found && view.getComputedStyle(found)[name];
  }};
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
"""A page that measures the report in a frame of a given width. The policy of the report itself forbids scripts."""


def measured(site: Site, folder: Path, width: int, *arguments: str) -> dict[str, object]:
    """Return the measurements of the page `MEASURE`."""
    site.pages["/measure"] = MEASURE.format(width=width)
    dom = chromium(folder, "--virtual-time-budget=20000", *arguments, "--dump-dom", f"{site.url}/measure")
    found: dict[str, object] = json.loads(html.unescape(re.search("<pre>(.*)</pre>", dom)[1]))
    return found


def test_rendered_report_shows_the_figures_of_the_queries(site, tmp_path):
    """The numbers of the rendered report equal those of the queries, and every bar of the charts is present."""
    source = january()
    statistics = source.get_statistics()
    site.pages["/report"] = compliance_report(source).to_html()
    found = measured(site, tmp_path, 1_000)
    failures, deletions, exports = (
        source.count_events(**of) for of in ({"status": "FAILURE"}, {"operation": "FORGET"}, {"operation": "EXPORT"})
    )
    shown = [number(statistics["total_events"]), percent(statistics["success_rate"]), number(len(statistics["by_user"])),
             number(failures), number(deletions), number(exports)]  # fmt: skip
    assert found["keys"] == shown
    dom = chromium(tmp_path, "--dump-dom", f"{site.url}/report")
    for operation, count in statistics["by_operation"].items():
        if count:
            # The class of the operation stands between its name and its number.
            name = rf'<bdi class="code">{re.escape(operation)}</bdi></th>\s*<td[^>]*>[^<]*</td>'
            row = re.search(rf"{name}\s*<td[^>]*>\s*([\d,]+)", dom)
            assert row[1] == number(count)
    begins = compliance_report(source).to_dict()["over_time"]["steps"]
    bars = re.findall(r"<rect [^>]*><title>[^<]*: ([\d,]+) (SUCCESS|FAILURE|PARTIAL)</title></rect>", dom)
    for status, charts in (("SUCCESS", 1), ("FAILURE", 2), ("PARTIAL", 2)):
        counted = sum(int(count.replace(",", "")) for count, of in bars if of == status)
        # Each chart exists in a wide and a narrow size.
        assert counted == statistics["by_status"][status] * charts * 2
    assert len(bars) == 2 * sum((step["SUCCESS"] > 0) + 2 * (step["FAILURE"] > 0) + 2 * (step["PARTIAL"] > 0)
                                for step in begins)  # fmt: skip


HOUR = dt.timedelta(hours=1)


def month_of(events: list[object]) -> Report:
    """Return the report on January of *events*, compared with the same events in December."""
    before = [replace(event, timestamp=event.timestamp - 31 * 24 * HOUR) for event in events if event.kind is None]
    source = Events([*before, *events], complete_since=NOON - 90 * 24 * HOUR, now=NOON + 60 * 24 * HOUR)
    made = compliance_report(source, month="2025-01")
    assert made.to_dict()["comparison"]["reasons"] == []
    return made


def person_of(events: list[object]) -> PersonReport:
    """Return the report on the user of the first of *events*, who has a name of an entry in all of them."""
    person = events[0].user_id or HOSTILE[0]
    return person_report(Events([replace(event, entry_ids=[*event.entry_ids, person]) for event in events]), person)


def changes_of(events: list[object]) -> ComparisonReport:
    """Return the comparison of *events* with half of them."""
    return comparison_report(Events(events), against=Events(events[::2][:40]))


EACH = pytest.mark.parametrize("made_of", [month_of, person_of, changes_of], ids=["report", "person", "diff"])


@EACH
def test_hostile_texts_run_no_script_and_send_no_request(site, tmp_path, made_of):
    """Texts with scripts and external images run nothing and fetch nothing, even without the content security policy."""
    hostile = [text.replace("https://evil.example", site.url) for text in HOSTILE]
    hostile += [
        f'<img src="{site.url}/beacon">',
        f"<link rel=stylesheet href={site.url}/beacon>",
        f"@import '{site.url}/b';",
    ]
    events = [stored(n, operation=text or "x", user_id=text, entry_ids=[text], error_message=text,
                     status=EventStatus.FAILURE, duration_ms=1) for n, text in enumerate(hostile)]  # fmt: skip
    page = made_of([*events, *hostile_events()]).to_html()
    without_policy = re.sub("<meta http-equiv=[^>]*>", "", page)
    assert without_policy != page
    site.pages.update({"/report": page, "/without": without_policy, "/control": f"<body>{hostile[0]}{hostile[-3]}"})
    for path in ("/report", "/without"):
        site.requests.clear()
        dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}{path}")
        assert re.search("<title>(Audit report|Report on one person|Comparison)", dom)
        assert "data-pwned" not in dom
        assert "<title>pwned" not in dom
        assert set(site.requests) <= {path, "/favicon.ico"}
    site.requests.clear()
    dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}/control")
    assert "<title>pwned" in dom
    assert "/beacon" in site.requests


def test_policy_blocks_injected_scripts_images_and_styles(site, tmp_path):
    """A script, an image or a style that was injected into the page neither runs nor is fetched."""
    page = compliance_report(january()).to_html()
    smuggled = (
        f"<script>document.title='pwned'</script><img src='{site.url}/beacon'><style>body{{display:none}}</style>"
    )
    site.pages["/report"] = page.replace("<main>", f"<main>{smuggled}")
    dom = chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", f"{site.url}/report")
    assert "<title>Audit report" in dom
    assert set(site.requests) <= {"/report", "/favicon.ico"}
    assert measured(site, tmp_path, 1_000)["charts"] == ["chart wide"]


@pytest.mark.parametrize("width", [320, 390, 768, 1_280])
def test_report_fits_every_width(site, tmp_path, width):
    """At phone, tablet and desktop widths nothing overflows, and a legible chart of the right size is shown."""
    site.pages["/report"] = compliance_report(january(hostile_events())).to_html()
    found = measured(site, tmp_path, width)
    assert found["overflow"] == 0
    assert found["charts"] == ["chart narrow" if width < 640 else "chart wide"]
    assert all(9 <= size <= 14 for size in found["size"])


@EACH
@pytest.mark.parametrize("width", [320, 1_280])
def test_every_document_fits_a_phone_and_a_desktop(site, tmp_path, made_of, width):
    """Neither the page nor what it prints beyond the tables that scroll is wider than the window."""
    site.pages["/report"] = made_of(january(hostile_events()).events).to_html()
    assert measured(site, tmp_path, width)["overflow"] == 0


@EACH
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_axe_finds_no_violation(site, tmp_path, axe, made_of, scheme):  # noqa: F811
    """No document violates a rule of axe-core, in the light and in the dark scheme."""
    page = made_of(january(hostile_events()).events).to_html()
    site.pages["/report"] = axe(re.sub("<meta http-equiv=[^>]*>", "", page))
    dom = chromium(tmp_path, "--virtual-time-budget=60000", scheme, "--dump-dom", f"{site.url}/report")
    assert violations_in(dom) == []


def test_charts_follow_light_and_dark(site, tmp_path):
    """The dark scheme changes the colours of background, text, bars and labels, and its background is darker."""
    site.pages["/report"] = compliance_report(january()).to_html()
    light, dark = (measured(site, tmp_path, 1_000, scheme) for scheme in (LIGHT, DARK))
    for what in ("paper", "ink", "bar", "label"):
        assert light[what] != dark[what]
    brightness = {name: sum(map(int, re.findall(r"\d+", found["paper"])[:3])) for name, found in
                  (("light", light), ("dark", dark))}  # fmt: skip
    assert brightness["dark"] < 150 < 700 < brightness["light"]


def test_report_prints_as_numbered_pages_with_charts(tmp_path):
    """The printed report is a PDF with numbered pages, key figures, all sections and coloured charts."""
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
