"""The documents of a report: texts of events are displayed literally, and the page is accessible."""

import base64
import datetime as dt
import functools
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reporting import HOSTILE, NOON, Events, hostile_events, stored
from strategies import examples, texts, unruly_texts

from structlog_audit import EventStatus
from structlog_audit.events.operation_classes import registered_operations
from structlog_audit.reports import charts, comparison_report, compliance_report, formatting, person_report
from structlog_audit.reports.markdown import escape_markdown

HOUR = dt.timedelta(hours=1)

VOID = {"meta", "br", "link", "img", "input", "hr", "base"}


class Page(HTMLParser):
    """An HTML document as lists of tags with their attributes and of texts; an unclosed tag is an error."""

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
        """The tags with their attributes, except attributes that hold labels or positions."""
        free = {"aria-label", "data-label", "width", "height", "viewbox", "d", "x", "y", "cx", "cy", "transform"}
        return [(tag, {k: v for k, v in attributes.items() if k not in free}) for tag, attributes in self.tags]

    def all(self, tag):
        """Return the attributes of every *tag*."""
        return [attributes for name, attributes in self.tags if name == tag]

    def ids(self):
        """Return the ids of all elements, in order."""
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def text_in(self, tag):
        """Return the texts within *tag* elements."""
        return [data for path, data in self.texts if tag in path]


def source_with(value, number=3):
    """Return a source of events of each kind that have *value* in every text."""
    members = {"user_id": value, "session_id": value, "entry_ids": [value], "error_message": value}
    kinds = [{}, {"operation": "FORGET"}, {"operation": "EXPORT"}, {"operation": f"o{value}"}]
    events = [stored(n, status=EventStatus.FAILURE, duration_ms=5.0, **kind, **members) for n, kind in enumerate(kinds)]
    of_library = [
        {"kind": "intent"},
        {"kind": "trail", "operation": value},
        {"kind": "gap", "metadata": {"lost": 1, "a": value}},
    ]
    return Events([*events, *(stored(n, **{**members, **kind}) for n, kind in enumerate(of_library, number))])


@pytest.fixture(scope="module")
def hostile():
    """Return the report of hostile texts."""
    return compliance_report(Events(hostile_events()), user_id=None)


@pytest.fixture(scope="module")
def page(hostile):
    """Return the same report as HTML."""
    return Page(hostile.to_html())


def hostile_report():
    """Return a report of hostile texts, all of which differ from those of the period before."""
    before = [stored(n, NOON - HOUR, text or "x", user_id=f"{text}?") for n, text in enumerate(HOSTILE)]
    source = Events([*before, *hostile_events()], complete_since=NOON - 24 * HOUR, now=NOON + HOUR)
    made = compliance_report(source, start_time=NOON, end_time=NOON + HOUR)
    assert made.to_dict()["comparison"]["users"]["changes"] >= len(HOSTILE)
    return made


def hostile_person():
    """Return the report on a person with a hostile name, whom events of others with hostile texts name."""
    person = HOSTILE[0]
    others = [
        stored(n, user_id=text, entry_ids=[person, text], metadata={text: text}) for n, text in enumerate(HOSTILE)
    ]
    return person_report(Events([*hostile_events(), *others]), person, members=HOSTILE[1:3])


def hostile_comparison():
    """Return the comparison of hostile texts with nothing."""
    return comparison_report(Events(hostile_events()), against=Events([]))


@pytest.fixture(
    scope="module", params=[hostile_report, hostile_person, hostile_comparison], ids=["report", "person", "diff"]
)
def made(request):
    """Return each kind of report, made of hostile texts."""
    return request.param()


@pytest.fixture(scope="module")
def each_page(made):
    """Return the same as HTML."""
    return Page(made.to_html())


def structures_with(text):
    """Return the structure of the page of each report on events with *text* in every text."""
    made = (
        compliance_report(source_with(text), user_id=text),
        person_report(source_with(text), text),
        comparison_report(source_with(text), against=Events([])),
    )
    return [Page(report.to_html()).structure for report in made]


@functools.cache
def structures_of_plain_text():
    """Return the structures that a plain text gives."""
    return structures_with("text")


# --- HTML ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(25))
@given(value=st.one_of(texts, unruly_texts, st.sampled_from(HOSTILE)))
def test_texts_of_events_do_not_change_the_structure_of_the_page(value):
    """The tags and attributes of the page and its charts are the same for all texts of events."""
    # The text is in the operation, too: one of a known class has sections of its own.
    assume(value.strip() and registered_operations().class_of(f"o{value}") is None)
    assert structures_with(value) == structures_of_plain_text()


ACTIVE_TAGS = {
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
ACTIVE_ATTRIBUTES = {"style", "src", "srcset", "action"}


def test_page_has_no_active_elements(each_page):
    """The page has no scripts, forms, embedded documents or external images."""
    assert not {tag for tag, _ in each_page.tags} & ACTIVE_TAGS


def test_page_has_no_active_attributes(each_page):
    """No element has an event handler, an inline style, or an address to load or submit to."""
    for _, attributes in each_page.tags:
        assert not attributes.keys() & ACTIVE_ATTRIBUTES
        assert not [name for name in attributes if name.startswith("on")]


def test_links_stay_on_the_page(each_page):
    """Every link leads to a place on the each_page."""
    for _, attributes in each_page.tags:
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")


def test_style_sheet_loads_nothing(each_page):
    """The style sheet refers to no other resource."""
    (style,) = each_page.text_in("style")
    assert not re.search(r"url\(|@import|@font-face|expression|https?:|//", style)


def test_policy_allows_only_the_style_sheet_by_its_hash(each_page):
    """The content security policy allows only the style sheet, and stands before everything that it governs."""
    (style,) = each_page.text_in("style")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert each_page.tags[3] == ("meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    assert [tag for tag, _ in each_page.tags[:3]] == ["html", "head", "meta"]


@pytest.mark.parametrize("value", [value for value in HOSTILE if value and len(value) < 500])
def test_hostile_texts_are_displayed_literally(page, value):
    """Every hostile text can be read on the page, with hidden characters as escapes."""
    shown = formatting.visible(value)
    assert any(shown in data for data in page.text_in("bdi"))


@pytest.mark.parametrize("form", ["to_html", "to_markdown"])
def test_documents_contain_no_hidden_characters(made, form):
    """No document, its charts included, contains a control, bidirectional or invisible character."""
    hidden = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200b\ufeff]"
    assert not re.search(hidden, getattr(made, form)())


def test_page_states_its_language(each_page):
    """The document states its language, for screen readers."""
    assert each_page.all("html") == [{"lang": "en"}]


def test_headings_begin_at_one_and_skip_no_level(each_page):
    """There is one heading of level one, it is the first, and no level is skipped."""
    levels = [int(tag[1]) for tag, _ in each_page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_ids_are_unique(each_page):
    """Every id occurs once."""
    ids = each_page.ids()
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("attribute", "prefix"), [("aria-labelledby", ""), ("href", "#")])
def test_references_point_to_ids_of_the_page(each_page, attribute, prefix):
    """Every label and every link refers to an element of the each_page."""
    targets = [attributes[attribute].split() for _, attributes in each_page.tags if attribute in attributes]
    assert targets
    assert {target for each in targets for target in each} <= {f"{prefix}{id}" for id in each_page.ids()}


def test_names_of_regions_are_unique(made):
    """Tables of one caption in several sections are told apart by the titles of these."""
    source = made.to_html()
    texts = dict(re.findall('<(?:h2|caption) id="([^"]*)">(.*?)</(?:h2|caption)>', source))
    labels = re.findall('role="region" aria-labelledby="([^"]*)"', source)
    names = [" ".join(texts[id] for id in label.split()) for label in labels]
    assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize(("tag", "caption", "least"), [("table", "caption", 9), ("figure", "figcaption", 2)])
def test_tables_and_figures_have_captions(page, tag, caption, least):
    """Every table and every figure has a caption."""
    assert len(page.all(caption)) == len(page.all(tag)) >= least


def test_there_are_two_figures(page):
    """The figures are those of events over time and of durations."""
    assert len(page.all("figure")) == 2


def test_header_cells_have_a_scope(each_page):
    """Every header cell of a table states whether it heads a column or a row."""
    assert {attributes["scope"] for attributes in each_page.all("th")} == {"col", "row"}


def test_images_are_labelled_or_hidden(each_page):
    """Every drawing has a label or is hidden from assistive technology."""
    for svg in each_page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])


def test_charts_are_drawn_wide_and_narrow(page):
    """The labelled drawings are charts of both sizes."""
    assert {svg["class"] for svg in page.all("svg") if "role" in svg} == {"chart wide", "chart narrow"}


def test_direction_of_a_text_does_not_affect_its_surroundings(each_page):
    """Texts of events stand in ``bdi``, so Hebrew or Arabic does not reorder the text beside it."""
    for path, data in each_page.texts:
        if "שלום" in data:
            assert {"bdi", "svg", "p"} & set(path)


def colours(style, scheme):
    """Return the custom properties of the *scheme*, as red, green and blue."""
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return {
        name: tuple(int(value[at : at + 2], 16) / 255 for at in (0, 2, 4))
        for name, value in re.findall(r"--(\w+): #(\w{6})", blocks[scheme])
    }


def luminance(colour):
    """Return the relative luminance (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(page, scheme):
    """Text has a contrast of 4.5 to the background, shapes of charts of 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    (style,) = page.text_in("style")
    found = colours(style, scheme)

    def contrast(name):
        low, high = sorted((luminance(found[name]), luminance(found["paper"])))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "soft", "link", "failure", "good", "doubt"):
        assert contrast(name) >= 4.5, name
    for name in ("success", "partial"):
        assert contrast(name) >= 3, name


@pytest.mark.parametrize("user_id", [None, "ann"])
def test_page_of_many_long_texts_stays_below_a_size(user_id):
    """With many users, operations, entries and long texts, the page is below 1.5 MB."""
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
    assert len(compliance_report(Events(events), user_id=user_id).to_html().encode()) < 1_500_000


# --- charts -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**15))
def test_whole_ticks_reach_the_highest_number_in_few_equal_steps(highest):
    """A scale begins at zero, ends at or above the highest number, and has at most seven whole, equal steps."""
    ticks = charts.whole_ticks(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest
    assert 2 <= len(ticks) <= 8
    assert len({after - before for before, after in pairwise(ticks)}) == 1


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_powers_of_ten_enclose_the_durations(one, other):
    """A logarithmic scale has at least two ticks, which enclose all durations from a nanosecond on."""
    shortest, longest = sorted((one, other))
    ticks = charts.powers_of_ten(shortest, longest)
    assert len(ticks) >= 2
    assert ticks[0] <= max(shortest, 1e-6) * (1 + 1e-9)
    assert ticks[-1] >= longest * (1 - 1e-9)


@pytest.fixture(scope="module")
def page_of_four_events():
    """Return the page of three successes and a failure on one day."""
    events = [stored(n, status=status, duration_ms=10.0) for n, status in enumerate(["SUCCESS"] * 3 + ["FAILURE"])]
    return Page(compliance_report(Events(events), month="2025-01").to_html())


def test_bars_have_their_numbers_as_titles(page_of_four_events):
    """Each bar has its number as its title in both sizes of each chart; a zero has no bar."""
    found = page_of_four_events
    bars = [data for path, data in found.texts if path[-2:] == ("rect", "title")]
    assert sorted(bars) == sorted(["15 January 2025: 3 SUCCESS", *["15 January 2025: 1 FAILURE"] * 2] * 2)


def test_dots_have_their_durations_as_titles(page_of_four_events):
    """Each dot has its percentile as its title in both sizes of the chart."""
    found = page_of_four_events
    dots = [data for path, data in found.texts if path[-2:] == ("circle", "title")]
    assert sorted(dots) == sorted([f"STORE: {p} 10.0 ms" for p in ("p50", "p95", "p99")] * 2)


# --- Markdown -----------------------------------------------------------------------------------------------------------

markdown = MarkdownIt("gfm-like")
# GitHub makes no link of a domain without www or a scheme, such as "o.al".
markdown.linkify.tlds(["com"])
render = markdown.render


def rendered(report):
    """Return the HTML that a renderer makes of a report in Markdown, with HTML in Markdown allowed."""
    return Page(render(report.to_markdown()))


def tags_with(text):
    """Return the tags of the rendered report on events with *text* in every text."""
    return rendered(compliance_report(source_with(text), user_id=text)).tags


@functools.cache
def tags_of_plain_text():
    """Return the tags that a plain text gives."""
    return tags_with("text")


@settings(max_examples=examples(40))
@given(value=st.one_of(texts, unruly_texts, st.sampled_from(HOSTILE)))
def test_texts_of_events_do_not_change_the_structure_of_markdown(value):
    """The rendered Markdown has the same tags for all texts of events."""
    # The text is in the operation, too: one of a known class has sections of its own.
    assume(value.strip() and registered_operations().class_of(f"o{value}") is None)
    assert tags_with(value) == tags_of_plain_text()


def test_hostile_texts_add_no_markup_to_markdown(hostile):
    """No hostile text becomes a link, an image, code, emphasis or HTML."""
    names = {tag for tag, _ in rendered(hostile).tags}
    assert names == {"h1", "h2", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}


@given(st.one_of(texts, unruly_texts))
def test_escaped_text_is_rendered_literally(value):
    """A cell with an escaped text is rendered as exactly that text, for all visible texts."""
    shown = formatting.visible(value)
    found = Page(render(f"| a | b |\n| - | - |\n| {escape_markdown(shown)} | &#32;end |\n"))
    assert " ".join("".join(found.text_in("td")).split()) == " ".join(f"{shown} end".split())


# --- texts --------------------------------------------------------------------------------------------------------------


@given(st.one_of(texts, unruly_texts))
def test_visible_text_has_no_hidden_or_unencodable_characters(value):
    """A visible text has no character that breaks lines, reorders or hides text, or that UTF-8 cannot encode."""
    shown = formatting.visible(value)
    shown.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]", shown)
    assert formatting.visible(shown) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\t\x00", r"a\u000ab\u0009\u0000"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
        ("é e\u0301\u0323 שָׁלוֹם 王 👩‍👧", "é e\u0301\u0323 שָׁלוֹם 王 👩‍👧"),
        ("z" + "\u0301" * 9 + "x", "z" + "\u0301" * 4 + "x [5 combining marks omitted]"),
    ],
)
def test_visible_escapes_hidden_characters_and_limits_marks(value, shown):
    """Hidden characters become escapes and stacked marks are limited; languages and emoji are unchanged."""
    assert formatting.visible(value) == shown


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.0, "0.0 %"), (1e-9, "0.1 %"), (0.5, "50.0 %"), (0.9996, "99.9 %"), (1 - 1e-12, "99.9 %"), (1.0, "100.0 %")],
)
def test_rate_is_not_rounded_to_all_or_nothing(rate, shown):
    """Only a rate of exactly one is 100.0 %, and only a rate of exactly zero 0.0 %."""
    assert formatting.percent(rate) == shown


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
def test_milliseconds_have_about_three_digits(value, shown):
    """Durations are rounded to about three digits."""
    assert formatting.milliseconds(value) == shown


def test_long_name_is_cut_in_the_middle():
    """A long name keeps its beginning and its end."""
    shown = formatting.display_name("a" * 500 + "z")
    assert (len(shown), shown[0], shown[-1]) == (formatting.LONGEST_NAME, "a", "z")


def test_empty_name_is_shown_as_quotes():
    """The empty name is distinct from an absent name."""
    assert formatting.display_name("") == '""'


def test_markdown_of_a_month_has_the_expected_lines():
    """The Markdown of a small month has the expected header, figures and rows."""
    events = [
        stored(0, user_id="ann", duration_ms=3.0, entry_ids=["e1"]),
        stored(1, operation="FORGET", user_id="ann", entry_ids=["e1", "e2"], status=EventStatus.FAILURE,
               error_message="KeyError: 'e_2'", duration_ms=4.0),
    ]  # fmt: skip
    shown = compliance_report(Events(events, now=NOON), month="2025-01").to_markdown()
    for line in [
        "# Audit report: January 2025",
        "- **Period:** from 2025-01-01 00:00:00 to 2025-02-01 00:00:00 (UTC, end excluded)",
        "| events | succeeded | users | failures | deletions, 1 failed | exports |",
        "| 2 | 50.0 % | 1 | 1 | 1 | 0 |",
        "| January 2025 | 2 | 1 | 1 | 1 | 0 |",
        "| FORGET | delete | 1 | 0.0 % | 1 | 0 | 4.04 | 4.04 | 4.04 |",
        r"| 2025-01-15 12:00:01 | FORGET | ann | KeyError: 'e\_2' · evt\_00000000000000000000000000000002 |",
        r"| 2025-01-15 12:00:01 | FORGET | ann | FAILURE | e1, e2 · evt\_00000000000000000000000000000002 |",
    ]:
        assert line in shown.splitlines()
