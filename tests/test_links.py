"""The relative links of the documentation lead to existing files and headings, as GitHub resolves them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

TOP = Path(__file__).parent.parent
PAGES = sorted(
    [
        TOP / "README.md",
        TOP / "CHANGELOG.md",
        *(TOP / ".github").rglob("*.md"),
        *(TOP / "examples" / "guide").glob("*.md"),
        TOP / "findings" / "README.md",
    ]
)

MARKDOWN = MarkdownIt("gfm-like")
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
HTML_LINK = re.compile(r"""<(?:a|img|source)\b[^>]*?\s(?:href|src|srcset)=["']([^"'\s]+)""", re.IGNORECASE)
HTML_ANCHOR = re.compile(r"""<[a-z]\w*\b[^>]*?\s(?:id|name)=["']([^"']+)""", re.IGNORECASE)


def tokens_of(text):
    """Return the tokens of a page, including those within paragraphs and headings."""
    tokens = []
    for token in MARKDOWN.parse(text):
        tokens.append(token)
        tokens += token.children or []
    return tokens


def links_of(text):
    """Return the targets of relative links and images, in Markdown and in HTML."""
    links = []
    for token in tokens_of(text):
        if token.type == "link_open":
            links.append(token.attrs["href"])
        elif token.type == "image":
            links.append(token.attrs["src"])
        elif token.type in ("html_block", "html_inline"):
            links += HTML_LINK.findall(token.content)
    return [unquote(link) for link in links if not EXTERNAL.match(link)]


def slug_of(heading):
    """Return the anchor that GitHub gives to a heading.

    The text is lower-cased, punctuation is removed, and each space becomes a hyphen.
    """
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors_of(text):
    """Return the anchors of a page.

    Each heading has one, which is numbered if it repeats; HTML elements with an id have one as well.
    """
    anchors = set()
    tokens = MARKDOWN.parse(text)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open":
            shown = (part.content for part in following.children if part.type in ("text", "code_inline"))
            slug = anchor = slug_of("".join(shown))
            number = 0
            while anchor in anchors:
                number += 1
                anchor = f"{slug}-{number}"
            anchors.add(anchor)

    for token in tokens_of(text):
        if token.type in ("html_block", "html_inline"):
            anchors |= set(HTML_ANCHOR.findall(token.content))
    return anchors


def resolves(link, page, top):
    """Return whether a link on *page* leads to a file and heading that exist.

    The file must lie below *top*.
    """
    path, _, anchor = link.partition("#")
    target = (page.parent / path if path else page).resolve()

    if not target.exists():
        return False
    if not target.is_relative_to(top.resolve()):
        return False
    if not anchor:
        return True

    # Only pages have headings.
    if target.suffix != ".md":
        return False
    return anchor in anchors_of(target.read_text(encoding="utf-8"))


def broken_links(page, top=TOP):
    """Return the relative links of a page that do not resolve."""
    links = links_of(page.read_text(encoding="utf-8"))
    return [link for link in links if not resolves(link, page, top)]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(TOP)) for page in PAGES])
def test_relative_links_of_a_page_lead_to_files_and_headings(page):
    """Each relative link and image of a page names an existing file, and each anchor a heading of it."""
    assert broken_links(page) == []


def test_links_are_found_in_markdown_and_html():
    """Inline links, reference links, images and HTML are links; external URLs and code are not."""
    text = (
        "[a](a.md) ![b](b.png) [c][ref] <img alt='' src='d.svg'> [e](https://e.example) `[f](f.md)`\n\n"
        "<p><a href='g.md#h'>g</a></p>\n\n| table |\n|---|\n| [i](i%20j.md) |\n\n    [k](k.md)\n\n[ref]: c.md\n"
    )
    assert links_of(text) == ["a.md", "b.png", "c.md", "d.svg", "g.md#h", "i j.md"]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Log shippers", "log-shippers"),
        ("What's `max_event_bytes`?", "whats-max_event_bytes"),
        ("Read & write", "read--write"),
        ("The [guide](x.md), *first* part", "the-guide-first-part"),
        ("Über-Größe", "über-größe"),
    ],
)
def test_anchor_of_a_heading_follows_the_rule_of_github(heading, anchor):
    """Lower case, without punctuation and markup, a hyphen for each space."""
    assert anchors_of(f"# {heading}\n") == {anchor}


def test_anchors_of_equal_headings_are_numbered():
    """The second heading with the same text gets ``-1``, the third ``-2``."""
    assert anchors_of("# A\n\n## A\n\n## A\n") == {"a", "a-1", "a-2"}


def test_html_ids_are_anchors():
    """An HTML element with an id can be linked to."""
    assert anchors_of('<a id="here"></a>\n\ntext <span id="there">x</span>\n') == {"here", "there"}


@pytest.mark.parametrize("link", ["missing.md", "other.md#missing", "#missing", "../outside.md", "picture.svg#x"])
def test_link_to_a_missing_file_or_heading_is_broken(link, tmp_path):
    """A link is broken if its file or heading is missing, or if it leaves the repository."""
    top = tmp_path / "repository"
    top.mkdir()
    (tmp_path / "outside.md").touch()
    (top / "other.md").write_text("# Other\n")
    (top / "picture.svg").touch()
    page = top / "page.md"
    page.write_text(f"# Page\n\n[good](other.md#other) [good](#page) [good](picture.svg) [bad]({link})\n")
    assert broken_links(page, top) == [link]
