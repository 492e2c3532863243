"""Configurations of log shippers: each is in the syntax of its shipper, and names the trail."""

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
    """Return the texts in double quotes in *text*, without its comments."""
    text = re.sub(r"^\s*(?:#|//).*$", "", text, flags=re.MULTILINE)
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return [unescaped(re.sub(r"\\(.)", r"\1", each)) for each in found]


def leaves(value):
    """Return every text within *value*, the result of a parser."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in leaves(each)]
    if isinstance(value, list):
        return [text for each in value for text in leaves(each)]
    return [value] if isinstance(value, str) else []


def balanced(text):
    """Return whether every bracket of *text* outside comments and quotes is closed."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", re.sub(r"^\s*(?:#|//).*$", "", text, flags=re.MULTILINE))
    text, before = re.sub(r"[^(){}\[\]]", "", text), None
    while text != before:
        text, before = re.sub(r"\(\)|\{\}|\[\]", "", text), text
    return not text


def texts_in(name, text):
    """Return the texts that a parser for the syntax of *name* finds in *text*, as the shipper reads them."""
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
def test_configuration_parses_and_names_the_trail(name, path):
    """Every configuration parses without placeholders and contains the trail, whatever its name."""
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
def test_configuration_states_whether_tests_run_it(name):
    """A configuration that the tests do not run states so at its head, as the guide does."""
    text = configuration(name, PATHS[0])
    assert ("NOT RUN BY OUR TESTS" in text[:400]) is not SHIPPERS[name].is_run
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` "))
    assert ("not run by our tests" in row) is not SHIPPERS[name].is_run
    assert ("DESTINATION" in text) is (name != "lnav")


def test_every_template_belongs_to_a_shipper():
    """Every template is the file of a shipper."""
    there = {each.name for each in files(shippers).iterdir() if not each.name.startswith("__")}
    assert there == {shipper.file for shipper in SHIPPERS.values()}


@pytest.mark.parametrize("name", SHIPPERS)
def test_configuration_lists_rolled_segments_if_tracked_by_content(name):
    """A configuration lists rolled segments only if its shipper tracks files by content and sends nothing twice."""
    text = configuration(name, PATHS[0])
    assert (f"{PATHS[0]}.*Z" in text or r"\.\d{6}Z" in text) is (name in BY_CONTENT)


def test_splunk_whitelist_excludes_packed_segments():
    """Active and rolled segments match; packed segments and other files do not."""
    wanted = re.compile(re.search("^whitelist = (.*)$", configuration("splunk", PATHS[1]), re.MULTILINE)[1])
    rolled = next_name(PATHS[1], [], dt.datetime(2025, 1, 15, tzinfo=dt.UTC))
    assert all(wanted.search(each) for each in (PATHS[1], rolled))
    assert not any(wanted.search(each) for each in (f"{rolled}.gz", f"{rolled}.zst", f"{PATHS[1]}.1", "/a/xa b.jsonl"))


@pytest.mark.parametrize("name", ["rsyslog", "syslog-ng", "fluent-bit", "vector", "filebeat", "splunk"])
def test_longest_line_is_within_the_limit_of_the_shipper(name):
    """A shipper's limit on lines is at least twice that of an event."""
    bounds = re.findall(r"(?:128k|131072|128K)", configuration(name, PATHS[0]))
    assert bounds
    assert DEFAULT_MAX_EVENT_BYTES * 2 < 131_072


@pytest.mark.parametrize("text", ["a*", "a?", "[a]", "{a}", "a\\b", "a\nb", "a\x7f", "a\udcff", "a "])
@pytest.mark.parametrize("parameter", ["trail", "to"])
def test_path_with_special_characters_is_refused(parameter, text):
    """A path that is a pattern, or cannot be written in a configuration, is refused."""
    given = {"trail": "/logs/audit.jsonl", "to": "/copy"} | {parameter: f"/x/{text}"}
    with pytest.raises(AuditError, match=f"^{parameter}="):
        configuration("vector", given["trail"], to=given["to"])


@pytest.mark.parametrize(("name", "path"), [("fluent-bit", "/a,b"), ("vector", "/a%b"), ("splunk", "/a...b")])
def test_path_special_to_one_shipper_is_refused_for_it(name, path):
    """A pattern in the syntax of one shipper only is refused for that one only."""
    with pytest.raises(AuditError, match=r"^trail="):
        configuration(name, path)
    assert path in configuration("rsyslog", path)


class TestCommand:
    def test_stdout_is_the_configuration_alone(self, tmp_path, monkeypatch):
        """stdout is the configuration for the absolute path, and stderr is empty."""
        monkeypatch.chdir(tmp_path)
        done = run("shipper", "syslog-ng", "--trail", "logs/audit.jsonl", "--to", "copy")
        assert (done.code, done.err) == (0, "")
        assert done.out == configuration("syslog-ng", tmp_path / "logs" / "audit.jsonl", to=str(tmp_path / "copy"))

    def test_without_a_name_all_shippers_are_listed(self):
        """The names are listed, with whether the tests run the configuration."""
        done = run("shipper")
        assert done.code == 0
        assert [line.split()[0] for line in done.lines] == list(SHIPPERS)
        assert sum(" not run by our tests " in line for line in done.lines) == 8

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["rsyslogd", "--trail", "a"],
                "unknown shipper 'rsyslogd'. Did you mean 'rsyslog'? Known shippers: rsyslog, ",
            ),
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
    def test_invalid_name_or_path_is_a_usage_error(self, words, message):
        """An invalid name or path is a usage error with a remedy."""
        done = run("shipper", *words)
        assert (done.code, done.out) == (2, "")
        assert message in done.error_line


def test_configuration_refuses_unknown_shipper_or_path_type():
    """The Python function raises for an unknown shipper and for a path of the wrong type."""
    with pytest.raises(AuditError, match="no configuration for 'x'; there is one for: rsyslog"):
        configuration("x", "/a")
    with pytest.raises(TypeError, match="trail=3"):
        configuration("vector", 3)
