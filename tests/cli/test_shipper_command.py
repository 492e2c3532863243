"""Configurations of log shippers: what is printed is in the syntax of each, and names the trail."""

from __future__ import annotations

import configparser
import datetime as dt
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from commands import run

from structlog_audit import AuditError, shippers
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.shippers import DEFAULT_TO, SHIPPERS, configuration
from structlog_audit.trail.segment_names import next_name

GUIDE = (Path(__file__).parents[2] / "examples" / "guide" / "shippers.md").read_text(encoding="utf-8")
PATHS = ["/var/log/app/audit.jsonl", '/srv/it\'s "$HOME" `x` #1; é/a b.jsonl']
BY_CONTENT = {"vector", "filebeat", "otel-collector", "splunk"}


def strings(text, unescaped):
    """The texts in double quotes of *text*, without its comments."""
    text = re.sub(r"^\s*(?:#|//).*$", "", text, flags=re.MULTILINE)
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return [unescaped(re.sub(r"\\(.)", r"\1", each)) for each in found]


def leaves(value):
    """Every text within *value*, which came out of a parser."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in leaves(each)]
    if isinstance(value, list):
        return [text for each in value for text in leaves(each)]
    return [value] if isinstance(value, str) else []


def balanced(text):
    """Whether every bracket of *text* that is not in a comment or in quotes is closed by its own."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", re.sub(r"^\s*(?:#|//).*$", "", text, flags=re.MULTILINE))
    text, before = re.sub(r"[^(){}\[\]]", "", text), None
    while text != before:
        text, before = re.sub(r"\(\)|\{\}|\[\]", "", text), text
    return not text


def texts_in(name, text):
    """What a parser of the syntax of *name* finds in *text*, as the shipper understands it."""
    if SHIPPERS[name].file.endswith(".json"):
        return leaves(json.loads(text))
    if SHIPPERS[name].file.endswith((".yaml", ".yml")):
        found = leaves(yaml.safe_load(text))
        return [each.replace("$$", "$") for each in found] if name in ("vector", "otel-collector") else found
    if name == "splunk":
        parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=True)
        parser.read_string(text)
        return [*parser.sections(), *leaves({section: dict(parser[section]) for section in parser.sections()})]
    assert balanced(text)
    return strings(text, lambda each: each.replace("``", "`") if name == "syslog-ng" else each)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SHIPPERS)
def test_a_configuration_is_in_its_syntax_and_names_the_trail(name, path):
    """Every configuration parses, nothing in it is left open, and the trail is in it, whatever its name."""
    text = configuration(name, path)
    assert "<<" not in text
    found = texts_in(name, text)
    folder, base = path.rsplit("/", 1)
    if name == "lnav":
        assert [each for each in found if base in each.replace("\\", "")]
    elif name == "splunk":
        assert f"monitor://{folder}" in found
    else:
        assert path in found
    if SHIPPERS[name].to:
        assert {DEFAULT_TO} <= set(found) or {"/var/log/shipped", "audit.jsonl"} <= set(found)


@pytest.mark.parametrize("name", SHIPPERS)
def test_a_configuration_says_whether_our_tests_run_it(name):
    """What our tests do not run says so at its head, the guide says it too, and every file is one of a shipper."""
    text = configuration(name, PATHS[0])
    assert ("NOT RUN BY OUR TESTS" in text[:400]) is not SHIPPERS[name].is_run
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` "))
    assert ("not run by our tests" in row) is not SHIPPERS[name].is_run
    assert ("DESTINATION" in text) is (name != "lnav")


def test_every_template_belongs_to_a_shipper():
    """No file lies there that no shipper has."""
    there = {each.name for each in files(shippers).iterdir() if not each.name.startswith("__")}
    assert there == {shipper.file for shipper in SHIPPERS.values()}


@pytest.mark.parametrize("name", SHIPPERS)
def test_who_knows_a_file_by_its_content_names_rolled_segments_and_nobody_packed_ones(name):
    """Rolled segments are named where that sends nothing twice."""
    text = configuration(name, PATHS[0])
    assert (f"{PATHS[0]}.*Z" in text or r"\.\d{6}Z" in text) is (name in BY_CONTENT)


def test_the_whitelist_of_splunk_takes_the_segments_that_are_not_packed():
    """Active and rolled segments match, packed ones and other files do not."""
    wanted = re.compile(re.search("^whitelist = (.*)$", configuration("splunk", PATHS[1]), re.MULTILINE)[1])
    rolled = next_name(PATHS[1], [], dt.datetime(2025, 1, 15, tzinfo=dt.UTC))
    assert all(wanted.search(each) for each in (PATHS[1], rolled))
    assert not any(wanted.search(each) for each in (f"{rolled}.gz", f"{rolled}.zst", f"{PATHS[1]}.1", "/a/xa b.jsonl"))


@pytest.mark.parametrize("name", ["rsyslog", "syslog-ng", "fluent-bit", "vector", "filebeat", "splunk"])
def test_a_line_of_the_greatest_length_is_within_the_bound(name):
    """Where a shipper has a bound on lines, it is well above that of an event."""
    bounds = re.findall(r"(?:128k|131072|128K)", configuration(name, PATHS[0]))
    assert bounds
    assert DEFAULT_MAX_EVENT_BYTES * 2 < 131_072


@pytest.mark.parametrize("text", ["a*", "a?", "[a]", "{a}", "a\\b", "a\nb", "a\x7f", "a\udcff", "a "])
@pytest.mark.parametrize("parameter", ["trail", "to"])
def test_a_path_that_is_a_pattern_or_cannot_be_written_down_is_refused(parameter, text):
    """No path is silently taken for something else."""
    given = {"trail": "/logs/audit.jsonl", "to": "/copy"} | {parameter: f"/x/{text}"}
    with pytest.raises(AuditError, match=f"^{parameter}="):
        configuration("vector", given["trail"], to=given["to"])


@pytest.mark.parametrize(("name", "path"), [("fluent-bit", "/a,b"), ("vector", "/a%b"), ("splunk", "/a...b")])
def test_a_path_that_means_something_to_one_shipper_is_refused_for_it(name, path):
    """What only one shipper takes for a pattern, only that one refuses."""
    with pytest.raises(AuditError, match=r"^trail="):
        configuration(name, path)
    assert path in configuration("rsyslog", path)


class TestCommand:
    def test_it_prints_the_configuration_alone(self, tmp_path, monkeypatch):
        """stdout is the configuration of the absolute path, and stderr is silent."""
        monkeypatch.chdir(tmp_path)
        done = run("shipper", "syslog-ng", "--trail", "logs/audit.jsonl", "--to", "copy")
        assert (done.code, done.err) == (0, "")
        assert done.out == configuration("syslog-ng", tmp_path / "logs" / "audit.jsonl", to=str(tmp_path / "copy"))

    def test_without_a_name_it_lists_them(self):
        """The names are listed, with whether our tests run the configuration."""
        done = run("shipper")
        assert done.code == 0
        assert [line.split()[0] for line in done.lines] == list(SHIPPERS)
        assert sum(" not run by our tests " in line for line in done.lines) == 8

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["rsyslogd", "--trail", "a"], "unknown shipper 'rsyslogd'. Did you mean 'rsyslog'? Known shippers: rsyslog, "),
            (["--trail", "a"], "expected the name of a shipper, one of rsyslog, "),
            (["vector"], "expected the trail that vector ships, such as --trail "),
            (["vector", "--trail", "-"], "--trail=-: expected the path of a file"),
            (["vector", "--trail", ""], "--trail='' is no file"),
            (["vector", "--trail", "."], "--trail='.' is no file"),
            (["vector", "--trail", "/a/*.jsonl"], "--trail='/a/*.jsonl' has '*' in it"),
            (["vector", "--trail", "/a.jsonl.20250115T103045.123456Z"], "give the active one, a.jsonl"),
            (["vector", "--trail", "/a.jsonl", "--to", "/a.jsonl.1"], "--to='/a.jsonl.1' would be taken for a segment"),
            (["alloy", "--trail", "a", "--to", "b"], "alloy does not ship to a file"),
        ],
    )
    def test_what_cannot_be_meant_is_said_in_one_line(self, words, said):
        """A bad name or path is a usage error that says what to do."""
        done = run("shipper", *words)
        assert (done.code, done.out) == (2, "")
        assert said in done.said


def test_the_module_refuses_what_is_no_shipper_or_no_path():
    """Called from Python it says the same."""
    with pytest.raises(AuditError, match="no configuration for 'x'; there is one for: rsyslog"):
        configuration("x", "/a")
    with pytest.raises(TypeError, match="trail=3"):
        configuration("vector", 3)
