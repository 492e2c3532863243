"""The code in the README and the guide runs, and prints the text shown below it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent
PAGES = [TOP / "README.md", *sorted((TOP / "examples" / "guide").glob("*.md"))]

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w-]*)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.*? -->\s*\Z")

MARK = "\x1e"
"""The separator after the output of each block."""

DRIVER = """
import json, sys
page, blocks = json.load(sys.stdin)
namespace = {"__name__": "__main__"}
for line, code in blocks:
    exec(compile("\\n" * (line - 1) + code, page, "exec"), namespace)
    print(chr(0x1E), end="", flush=True)
"""
"""A program that runs the blocks of a page in order. Errors have the line numbers of the page."""


class Block(NamedTuple):
    """A block of code of a page, and the output that the page shows for it, if any."""

    line: int
    code: str
    printed: str | None


def blocks_of(text: str) -> list[Block]:
    """Return the Python blocks of *text* that must run."""
    fences = list(FENCE.finditer(text))
    found = []
    for number, fence in enumerate(fences):
        if fence["language"] != "python" or NOT_RUN.search(text, 0, fence.start()):
            continue

        printed = None
        if number + 1 < len(fences):
            following = fences[number + 1]
            between = text[fence.end() : following.start()].strip()
            if following["language"] == "text" and not between:
                printed = following["body"]

        line = text.count("\n", 0, fence.start()) + 2
        found.append(Block(line, fence["body"], printed))
    return found


def matches(printed: str, shown: str) -> bool:
    """Return whether *printed* equals *shown*.

    ``...`` matches any text within a line.
    """
    return re.fullmatch(re.escape(shown).replace(re.escape("..."), ".*"), printed) is not None


def run_blocks(name, text, folder):
    """Run the Python blocks of *text*, the page *name*, in *folder*, and compare what they print with what it shows."""
    blocks = blocks_of(text)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        input=json.dumps([name, [[block.line, block.code] for block in blocks]]),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(MARK)
    assert len(printed) == len(blocks) + 1
    for block, output in zip(blocks, printed, strict=False):
        if block.printed is not None and not matches(output, block.printed):
            assert output == block.printed, f"{name}:{block.line} prints something else"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_code_of_a_page_runs_and_prints_the_shown_text(page, tmp_path):
    """The Python blocks of a page run in order, without a warning, and print exactly the text shown below each."""
    run_blocks(page.name, page.read_text(encoding="utf-8"), tmp_path)


def test_comment_with_a_reason_excludes_the_next_block_only():
    """A "not run" comment excludes the block directly below it, if the comment gives a reason."""
    reason, none = "<!-- not run: needs a server -->", "<!-- not run: -->"
    block = "```python\n{}\n```\n"
    text = "\n".join(
        [
            f"{reason}\n",
            block.format("a"),
            block.format("b"),
            none,
            block.format("c"),
            f"{reason} and",
            block.format("d"),
        ]
    )
    assert [found.code for found in blocks_of(text)] == ["b\n", "c\n", "d\n"]


def test_text_block_is_output_only_directly_below_a_python_block():
    """A text block is the output of the Python block before it, unless prose or another block lies between them."""
    text = "```python\na\n```\n\n```text\n1\n```\n```python\nb\n```\nProse.\n```text\n2\n```\n```sh\nc\n```\n"
    assert blocks_of(text) == [Block(2, "a\n", "1\n"), Block(9, "b\n", None)]


def test_three_dots_match_within_a_line_only():
    """Three dots match any text within a line; all other characters match themselves."""
    assert matches("id evt_1 (x)\n", "id ... (x)\n")
    assert not matches("id 1\n2 (x)\n", "id ... (x)\n")
    assert not matches("a+\n", "a.\n")
    assert not matches("a\nb\n", "a\n")
