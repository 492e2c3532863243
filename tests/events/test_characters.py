"""Tests of `structlog_audit.events.characters`: characters that break lines or deceive readers."""

import re
import unicodedata

import pytest

from structlog_audit.events import characters
from structlog_audit.events.characters import matching, unicode_escape

CLASSES = {name: value for name, value in vars(characters).items() if name.isupper()}
ALL = [chr(code) for code in range(0x110000)]
EVERY_CHARACTER = "".join(ALL)


def members_of(character_class):
    """Return the characters of a class."""
    return set(matching(character_class).findall(EVERY_CHARACTER))


def test_classes_are_disjoint():
    """No character is in two classes."""
    found = [members_of(value) for value in CLASSES.values()]
    assert sum(map(len, found)) == len(set().union(*found))


def test_controls_are_those_of_unicode():
    """C0 controls, line breaks, DEL and C1 controls are the Unicode category Cc."""
    controls = members_of(characters.C0_BUT_LINE_BREAKS + characters.LINE_BREAKS + characters.DELETE_AND_C1)
    assert controls == {character for character in ALL if unicodedata.category(character) == "Cc"}


def test_bidirectional_characters_are_those_of_unicode():
    """The bidirectional class has every mark, embedding, override and isolate of Unicode (UAX #9, table 1)."""
    types = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    explicit = {character for character in ALL if unicodedata.bidirectional(character) in types}
    assert members_of(characters.BIDIRECTIONAL) == explicit | {"\u061c", "\u200e", "\u200f"}


def test_separators_are_those_of_unicode():
    """The separators are the Unicode categories Zl and Zp."""
    separators = {character for character in ALL if unicodedata.category(character) in ("Zl", "Zp")}
    assert members_of(characters.SEPARATORS) == separators


def test_surrogates_are_those_of_unicode():
    """The surrogates are the Unicode category Cs."""
    surrogates = {character for character in ALL if unicodedata.category(character) == "Cs"}
    assert members_of(characters.SURROGATES) == surrogates


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a\x7fb", r"a\u007fb"), ("\u202e", r"\u202e"), ("\U000e0041", r"\U000e0041"), ("\ud800", r"\ud800")],
)
def test_unicode_escape_names_the_code_point(text, escaped):
    """An escape has four digits, or eight beyond U+FFFF."""
    assert matching(*CLASSES.values()).sub(unicode_escape, text) == escaped


def test_matching_joins_classes():
    """A pattern of several classes matches the characters of each, and no others."""
    pattern = matching(characters.SEPARATORS, characters.LINE_BREAKS)
    assert re.sub(pattern, "|", "a\u2028b\nc\x00") == "a|b|c\x00"
