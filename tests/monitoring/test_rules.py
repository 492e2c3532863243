"""Tests of `structlog_audit.monitoring.rules`."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit._durations import format_duration
from structlog_audit.monitoring import DEFAULT_RULES, Rule, load_rules
from structlog_audit.monitoring.rules import checked_duration, rules_of

DELETIONS = {"name": "deletions", "operation": "FORGET", "more_than": 100, "within": "1h"}


def test_rule_is_an_immutable_value():
    """Rules made from the same arguments are equal and cannot be changed."""
    rule = Rule("deletions", operation_class="delete", more_than=100, within="1h")
    hour = dt.timedelta(hours=1)
    assert rule == Rule("deletions", operation_class=["delete"], more_than=100, within=hour) == DEFAULT_RULES[0]
    assert hash(rule) == hash(DEFAULT_RULES[0])
    assert (rule.bound, rule.threshold, rule.per, rule.level) == ("more_than", 100, None, logging.WARNING)
    with pytest.raises(AttributeError):
        rule.threshold = 5
    assert "deletions" in repr(rule)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"more_than": None}, AuditTypeError, ["expected one of more_than, success_rate_below", "got none"]),
        ({"success_rate_below": 0.9}, AuditTypeError, ["got more_than, success_rate_below"]),
        ({"more_than": -1}, AuditValueError, ["more_than=-1"]),
        ({"more_than": 1.5}, AuditTypeError, ["more_than=1.5"]),
        ({"more_than": None, "success_rate_below": 95}, AuditValueError, ["success_rate_below=95", "between 0 and 1"]),
        ({"more_than": None, "avg_duration_ms_above": "1s"}, AuditTypeError, ["avg_duration_ms_above='1s'"]),
        ({"more_than": None, "p95_duration_ms_above": float("nan")}, AuditValueError, ["p95_duration_ms_above=nan"]),
        ({"more_than": None, "success_rate_below": True}, AuditTypeError, ["success_rate_below=True"]),
        ({"within": "soon"}, AuditValueError, ["within='soon'", "15m"]),
        ({"within": ""}, AuditValueError, ["within=''"]),
        ({"within": 0}, AuditValueError, ["within=0", "expected 1s or more"]),
        ({"within": None}, AuditTypeError, ["'within' is missing"]),
        ({"within": float("inf")}, AuditValueError, ["within=inf"]),
        ({"quiet": -5}, AuditValueError, ["quiet=-5"]),
        ({"per": "user"}, AuditValueError, ["per='user'", "'user_id'"]),
        ({"min_events": 5}, AuditValueError, ["min_events=5", "leave it out"]),
        ({"max_subjects": 0}, AuditValueError, ["max_subjects=0"]),
        ({"level": "LOUD"}, AuditValueError, ["level='LOUD'"]),
        ({"level": True}, AuditValueError, ["level=True"]),
        ({"moer_than": 5}, AuditTypeError, ["'moer_than'", "more_than", "operation", "quiet"]),
        ({"start_time": dt.datetime.now(dt.UTC)}, AuditTypeError, ["'start_time'"]),
        ({"status": "BROKEN"}, AuditValueError, ["status='BROKEN'", "FAILURE"]),
        ({"operation": None}, AuditTypeError, ["operation=None"]),
    ],
)
def test_invalid_argument_raises(arguments, error, words):
    """Each error names the rule, the parameter, the value and the expected value."""
    with pytest.raises(error) as caught:
        Rule(**{**DELETIONS, **arguments})
    for word in ["rule 'deletions': ", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["", None, 5])
def test_rule_without_name_raises(name):
    """The name is text and not empty."""
    with pytest.raises(AuditTypeError, match="name="):
        Rule(name, more_than=1, within=60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400), (" 1d2h3m4s ", 93_784)],
)
def test_duration_text_is_parsed(text, seconds):
    """A duration is written with w, d, h, m and s."""
    assert checked_duration("within", text, minimum=0).total_seconds() == seconds


@given(st.integers(0, 10**9))
def test_duration_round_trips(seconds):
    """For all whole seconds: the text of a duration parses to that duration."""
    time = dt.timedelta(seconds=seconds)
    assert checked_duration("within", format_duration(time), minimum=0) == time


def test_rules_of_accepts_each_form():
    """A list, a mapping with one, and a single rule give rules in order."""
    rule = Rule(**DELETIONS)
    other = {**DELETIONS, "name": "other"}
    assert rules_of([rule]) == rules_of([DELETIONS]) == rules_of(rule) == rules_of({"rules": (DELETIONS,)}) == (rule,)
    assert [found.name for found in rules_of([rule, other])] == ["deletions", "other"]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([], AuditValueError, "at least one rule"),
        (5, AuditTypeError, "list of rules, or the path of a file with one, got 5"),
        ({"working_hours": {}}, AuditTypeError, "a mapping with the key 'rules', got the keys 'working_hours'"),
        ({}, AuditTypeError, "a mapping with the key 'rules', got the keys none"),
        ({"rule": []}, AuditTypeError, "unknown key 'rule': expected the keys 'rules' and, if needed, 'working_hours'"),
        ({"rules": [DELETIONS], "working_hour": {}}, AuditTypeError, "Did you mean 'working_hours'?"),
        ({"rules": DELETIONS}, AuditTypeError, "expected a list of rules, in TOML each below [[rules]], got a mapping"),
        ([{**DELETIONS, "class": "delete"}], AuditTypeError, "Did you mean 'operation_class'?"),
        ({"rules": "x"}, AuditTypeError, "list of rules, or the path of a file with one, got 'x'"),
        ([5], AuditTypeError, "rule 1: expected a Rule or a mapping of its arguments, got 5"),
        ([DELETIONS, {"name": "x"}], AuditTypeError, "rule 'x': expected one of more_than, "),
        ([{"name": "x", "more_than": 1}], AuditTypeError, "rule 'x': 'within' is missing"),
        ([{"within": 60}], AuditTypeError, "rule 1: 'name' is missing"),
        ([DELETIONS, DELETIONS], AuditValueError, "two rules have the name 'deletions'"),
        ([{**DELETIONS, "self": 1}], AuditTypeError, "'self'"),
    ],
)
def test_rules_of_refuses_other_values(value, error, words):
    """A value without valid rules raises an error that names the place."""
    with pytest.raises(error) as caught:
        rules_of(value)
    assert words in str(caught.value)


TOML = """
[[rules]]
name = "deletions"
operation = "FORGET"
more_than = 100
within = "1h"
"""
YAML = """
rules:
  - {name: deletions, operation: FORGET, more_than: 100, within: 1h}
"""


@pytest.mark.parametrize(
    ("name", "text"), [("r.toml", TOML), ("r.yaml", YAML), ("r.YML", YAML), ("r.json", json.dumps([DELETIONS]))]
)
def test_rules_load_from_each_format(tmp_path, name, text):
    """TOML, YAML and JSON files give the same rules."""
    path = tmp_path / name
    path.write_text(text)
    assert load_rules(path) == rules_of(str(path)) == (Rule(**DELETIONS),)


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("none.toml", None, AuditValueError, "No such file"),
        ("r.ini", "", AuditValueError, ".toml, .json, .yaml, .yml"),
        ("r.toml", "rules = ]", AuditValueError, "line 1"),
        ("r.json", "{", AuditValueError, "line 1"),
        ("r.yaml", "rules: [", AuditValueError, "line 1"),
        ("r.yaml", "", AuditTypeError, "list of rules, or the path of a file with one, got None"),
        ("r.json", b"\xff", AuditValueError, "utf-8"),
        ("r.toml", TOML.replace("100", "-1"), AuditValueError, "rule 'deletions': more_than=-1"),
        ("r.toml", TOML.replace("more_than", "more"), AuditTypeError, "rule 'deletions': unknown parameter"),
    ],
)
def test_unreadable_file_raises(tmp_path, name, text, error, words):
    """An unreadable file, and one without rules, raise an error that names the file and the place."""
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error) as caught:
        load_rules(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_yaml_without_pyyaml_raises(tmp_path, monkeypatch):
    """Without PyYAML the error names the package and the alternatives."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "r.yaml"
    path.write_text(YAML)
    with pytest.raises(AuditValueError, match="pip install pyyaml, or use another format"):
        load_rules(path)
