"""Code blocks of the guide that only the system tests can run."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "examples" / "guide"

BLOCK = re.compile(r"<!-- not run: (?P<reason>.*?) -->\s*```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def block_of(page: str, reason: str) -> str:
    """Return the one block of the guide's *page* that its tests do not run because it "needs *reason*"."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    [code] = [found["code"] for found in BLOCK.finditer(text) if found["reason"].startswith(f"needs {reason};")]
    return code
