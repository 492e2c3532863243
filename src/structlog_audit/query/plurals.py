"""Numbers with their nouns, in messages for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return *number* with *noun* in the singular or plural: ``1 gap``, ``2,000 gaps``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
