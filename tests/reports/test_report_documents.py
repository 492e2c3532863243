"""The documents of a report: texts of events are shown and do nothing, and everybody can read them."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reporting import HOSTILE, NOON, Events, hostile_events, stored
from strategies import texts, unruly_texts

from structlog_audit import EventStatus
from structlog_audit.reports import charts, compliance_report
from structlog_audit.reports import formatting as text
from structlog_audit.reports.markdown import escape

VOID = {"meta", "br", "link", "img", "input", "hr", "base"}


class Page(HTMLParser):
    """An HTML document as a list of tags with their attributes and texts, which is strict about what must be closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    unknown_decl = handle_pi = handle_comment

    @property
    def structure(self):
        """What is there apart from texts: tags, and attributes but those that labels are in."""
        free = {"aria-label", "width", "height", "viewbox", "d", "x", "y", "cx", "cy", "transform"}
        return [(tag, {k: v for k, v in attributes.items() if k not in free}) for tag, attributes in self.tags]

    def all(self, tag):
        """The attributes of every *tag*."""
        return [attributes for name, attributes in self.tags if name == tag]

    def text_in(self, tag):
        """The texts within *tag*s."""
        return [data for path, data in self.texts if tag in path]


def of_text(value, number=3):
    """Events that have *value* wherever a text can be, in some of each kind."""
    members = {"user_id": value, "session_id": value, "entry_ids": [value], "error_message": value}
    kinds = [{}, {"operation": "FORGET"}, {"operation": "EXPORT"}, {"operation": f"o{value}"}]
    events = [stored(n, status=EventStatus.FAILURE, duration_ms=5.0, **kind, **members) for n, kind in enumerate(kinds)]
    own = [
        {"kind": "intent"},
        {"kind": "trail", "operation": value},
        {"kind": "gap", "metadata": {"lost": 1, "a": value}},
    ]
    return Events([*events, *(stored(n, **{**members, **kind}) for n, kind in enumerate(own, number))])


@pytest.fixture(scope="module")
def hostile():
    """The report of hostile texts."""
    return compliance_report(Events(hostile_events()), user_id=None)


@pytest.fixture(scope="module")
def page(hostile):
    """The same as HTML."""
    return Page(hostile.to_html())


# --- HTML ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(value=st.one_of(texts, unruly_texts, st.sampled_from(HOSTILE)))
def test_no_text_changes_the_structure_of_the_page(value):
    """The tags and attributes of the page, its charts included, are the same whatever the texts of events are."""
    assume(value.strip())
    plain = Page(compliance_report(of_text("text"), user_id="text").to_html())
    found = Page(compliance_report(of_text(value), user_id=value).to_html())
    assert found.structure == plain.structure


def test_nothing_on_the_page_runs_or_asks_anybody(page):
    """No script, no handler, no style of an element, no address but places on the page, nothing to send."""
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "link",
        "base",
        "form",
        "foreignobject",
        "use",
        "image",
    }
    for _, attributes in page.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
        ]
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    (style,) = page.text_in("style")
    assert not re.search(r"url\(|@import|@font-face|expression|https?:|//", style)


def test_the_policy_allows_the_style_sheet_by_its_hash_and_nothing_else(page):
    """The content security policy stands before everything it governs."""
    (style,) = page.text_in("style")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert page.tags[3] == ("meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    assert [tag for tag, _ in page.tags[:3]] == ["html", "head", "meta"]


@pytest.mark.parametrize("value", [value for value in HOSTILE if value and len(value) < 500])
def test_hostile_texts_are_shown_as_they_are(page, hostile, value):
    """Every hostile text can be read on the page, with hidden characters as escapes; so in the chart and in Markdown."""
    shown = text.visible(value)
    assert any(shown in data for data in page.text_in("bdi"))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200b\ufeff]", hostile.to_html())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200b\ufeff]", hostile.to_markdown())


def test_the_page_can_be_read_by_everybody(page):
    """A language, one first heading, no level left out, ids once, tables with captions and scopes, charts with labels."""
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert attributes.get("href", f"#{ids[0]}")[1:] in ids
    assert len(page.all("caption")) == len(page.all("table")) > 8
    assert all(attributes["scope"] in ("col", "row") for attributes in page.all("th"))
    images = page.all("svg")
    assert all(svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"]) for svg in images)
    assert {svg["class"] for svg in images if "role" in svg} == {"chart wide", "chart narrow"}
    assert len(page.all("figcaption")) == len(page.all("figure")) == 2


def test_the_direction_of_a_text_stays_its_own(page):
    """Texts of events stand in ``bdi``, so that Hebrew or Arabic does not turn what is beside it."""
    for path, data in page.texts:
        if "שלום" in data:
            assert {"bdi", "svg", "p"} & set(path)


def colours(style, scheme):
    """The custom properties of the *scheme*, as red, green and blue."""
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return {
        name: tuple(int(value[at : at + 2], 16) / 255 for at in (0, 2, 4))
        for name, value in re.findall(r"--(\w+): #(\w{6})", blocks[scheme])
    }


def luminance(colour):
    """The relative luminance (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(page, scheme):
    """Text has a contrast of 4.5 to the paper, shapes of charts of 3 (WCAG 2.2, 1.4.3 and 1.4.11), in both schemes."""
    (style,) = page.text_in("style")
    found = colours(style, scheme)

    def contrast(name):
        low, high = sorted((luminance(found[name]), luminance(found["paper"])))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "soft", "link", "failure", "good"):
        assert contrast(name) >= 4.5, name
    for name in ("success", "partial"):
        assert contrast(name) >= 3, name


def test_the_page_stays_small():
    """However many users, operations, entries and long texts there are, the page is below 1.5 MB."""
    long = "é<&" * 400
    events = [
        stored(n * 3_600, operation=f"{n % 900}{long}", user_id=f"{n % 997}{long}", status=list(EventStatus)[n % 3],
               error_message=long, entry_ids=[long] * 20, duration_ms=n)
        for n in range(3_000)
    ]  # fmt: skip
    events += [
        stored(n, operation=o, user_id=long, entry_ids=[long] * 20) for n in range(60) for o in ("FORGET", "EXPORT")
    ]
    events += [
        stored(n, operation=long, kind=kind, metadata={"a": long}) for n in range(60) for kind in ("trail", "intent")
    ]
    events += [stored(n, user_id="ann", error_message=long, entry_ids=[long] * 20) for n in range(600)]
    for user_id in (None, "ann"):
        assert len(compliance_report(Events(events), user_id=user_id).to_html().encode()) < 1_500_000


# --- charts -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**15))
def test_ticks_reach_the_most_in_few_whole_steps(most):
    """A scale begins at zero, ends at or above the most, and has at most seven whole, equal steps."""
    ticks = charts.whole_ticks(most)
    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert 2 <= len(ticks) <= 8
    assert len({after - before for before, after in pairwise(ticks)}) == 1


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_powers_of_ten_enclose_the_durations(one, other):
    """A logarithmic scale has two ends that enclose what is shown, as far as a nanosecond."""
    least, most = sorted((one, other))
    ticks = charts.powers_of_ten(least, most)
    assert len(ticks) >= 2
    assert ticks[0] <= max(least, 1e-6) * (1 + 1e-9)
    assert ticks[-1] >= most * (1 - 1e-9)


def test_charts_show_every_number():
    """Each bar and each dot has its number as its title, and is not there for a zero."""
    events = [stored(n, status=status, duration_ms=10.0) for n, status in enumerate(["SUCCESS"] * 3 + ["FAILURE"])]
    found = Page(compliance_report(Events(events), month="2025-01").to_html())
    bars = [data for path, data in found.texts if path[-2:] == ("rect", "title")]
    assert sorted(bars) == sorted(["15 January 2025: 3 SUCCESS", *["15 January 2025: 1 FAILURE"] * 2] * 2)
    dots = [data for path, data in found.texts if path[-2:] == ("circle", "title")]
    assert sorted(dots) == sorted([f"STORE: {p} 10.0 ms" for p in ("p50", "p95", "p99")] * 2)


# --- Markdown -----------------------------------------------------------------------------------------------------------

render = MarkdownIt("gfm-like").render


def rendered(report):
    """A report in Markdown as the HTML that a renderer makes of it, HTML in Markdown allowed."""
    return Page(render(report.to_markdown()))


@settings(max_examples=60)
@given(value=st.one_of(texts, unruly_texts, st.sampled_from(HOSTILE)))
def test_no_text_changes_the_structure_of_the_markdown(value):
    """What a renderer makes of the Markdown has the same tags whatever the texts of events are."""
    assume(value.strip())
    plain = rendered(compliance_report(of_text("text"), user_id="text"))
    assert rendered(compliance_report(of_text(value), user_id=value)).tags == plain.tags


def test_markdown_is_text_tables_and_lists(hostile):
    """Of hostile texts nothing becomes a link, an image, code, emphasis or HTML."""
    names = {tag for tag, _ in rendered(hostile).tags}
    assert names == {"h1", "h2", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}


@given(st.one_of(texts, unruly_texts))
def test_a_text_comes_out_of_markdown_as_it_went_in(value):
    """A cell with an escaped text is shown as exactly that text, for all texts, made visible."""
    shown = text.visible(value)
    found = Page(render(f"| a | b |\n| - | - |\n| {escape(shown)} | &#32;end |\n"))
    assert " ".join("".join(found.text_in("td")).split()) == " ".join(f"{shown} end".split())


# --- texts --------------------------------------------------------------------------------------------------------------


@given(st.one_of(texts, unruly_texts))
def test_what_is_visible_is_printable_and_can_be_encoded(value):
    """A visible text has no character that breaks a line, turns the direction, hides, or that UTF-8 can't encode."""
    shown = text.visible(value)
    shown.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]", shown)
    assert text.visible(shown) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\t\x00", r"a\u000ab\u0009\u0000"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
        ("é e\u0301\u0323 שָׁלוֹם 王 👩‍👧", "é e\u0301\u0323 שָׁלוֹם 王 👩‍👧"),
        ("z" + "\u0301" * 9 + "x", "z" + "\u0301" * 4 + "x [5 combining marks left out]"),
    ],
)
def test_visible_texts(value, shown):
    """Hidden characters are escapes, stacks of marks are cut; languages and emoji stay as they are."""
    assert text.visible(value) == shown


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.0, "0.0 %"), (1e-9, "0.1 %"), (0.5, "50.0 %"), (0.9996, "99.9 %"), (1 - 1e-12, "99.9 %"), (1.0, "100.0 %")],
)
def test_a_rate_is_not_rounded_to_all_or_nothing(rate, shown):
    """One failure among a million is not 100.0 %."""
    assert text.percent(rate) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1e-6, "< 0.001"),
        (0.0214, "0.021"),
        (3.456, "3.46"),
        (45.21, "45.2"),
        (999.6, "1,000"),
        (12_345.6, "12,346"),
    ],
)
def test_milliseconds(value, shown):
    """Durations have about three digits."""
    assert text.milliseconds(value) == shown


def test_names_are_cut_in_the_middle():
    """A name that is too long keeps its beginning and its end; the empty one is told from none."""
    shown = text.name("a" * 500 + "z")
    assert (len(shown), shown[0], shown[-1]) == (text.LONGEST_NAME, "a", "z")
    assert text.name("") == '""'


def test_the_markdown_of_the_month():
    """A month in Markdown, as a person reads it."""
    events = [
        stored(0, user_id="ann", duration_ms=3.0, entry_ids=["e1"]),
        stored(1, operation="FORGET", user_id="ann", entry_ids=["e1", "e2"], status=EventStatus.FAILURE,
               error_message="KeyError: 'e_2'", duration_ms=4.0),
    ]  # fmt: skip
    shown = compliance_report(Events(events, now=NOON), month="2025-01").to_markdown()
    for line in [
        "# Audit report: January 2025",
        "- **Period:** from 2025-01-01 00:00:00 up to 2025-02-01 00:00:00 (UTC, the end excluded)",
        "| 2 | 50.0 % | 1 | 1 | 1 | 0 |",
        "| January 2025 | 2 | 1 | 1 | 0 | 1 | 0 | 0 | 0 | 0 |",
        "| FORGET | 1 | 0.0 % | 1 | 0 | 4.04 | 4.04 | 4.04 |",
        r"| 2025-01-15 12:00:01 | FORGET | ann | KeyError: 'e\_2' · evt\_00000000000000000000000000000002 |",
        r"| 2025-01-15 12:00:01 | ann | FAILURE | e1, e2 · evt\_00000000000000000000000000000002 |",
    ]:
        assert line in shown.splitlines()
