"""Configurations of log shippers: each is in the syntax of its shipper and contains the path of the trail."""

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
from structlog_audit.events.json_safe import MAX_DEPTH
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.shippers import DEFAULT_TO, SHIPPERS, configuration
from structlog_audit.trail.segment_names import next_name

GUIDE = (Path(__file__).parents[2] / "examples" / "guide" / "shippers.md").read_text(encoding="utf-8")
PLAIN_PATH = "/var/log/app/audit.jsonl"
HOSTILE_PATH = '/srv/it\'s "$HOME" `x` #1; é/a b.jsonl'
IDENTIFY_BY_CONTENT = {"vector", "filebeat", "otel-collector", "splunk"}
COMMENT = re.compile(r"^\s*(?:#|//).*$", re.MULTILINE)


def quoted_texts(text, unescape):
    """Return the texts in double quotes in *text*, without those in comments."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', COMMENT.sub("", text))
    return [unescape(re.sub(r"\\(.)", r"\1", each)) for each in found]


def texts_within(value):
    """Return all texts within *value*, the result of a parser."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_within(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts_within(each)]
    return [value] if isinstance(value, str) else []


def is_balanced(text):
    """Return whether all brackets in *text* outside of comments and quotes are in pairs."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", COMMENT.sub("", text))
    text, before = re.sub(r"[^(){}\[\]]", "", text), None
    while text != before:
        text, before = re.sub(r"\(\)|\{\}|\[\]", "", text), text
    return not text


def parsed_texts(name, text):
    """Return the texts in a configuration, read by a parser of its syntax, as the shipper understands them."""
    file = SHIPPERS[name].file
    if file.endswith(".json"):
        return texts_within(json.loads(text))

    if file.endswith((".yaml", ".yml")):
        found = texts_within(yaml.safe_load(text))
        return [each.replace("$$", "$") for each in found] if name in ("vector", "otel-collector") else found

    if name == "splunk":
        parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=True)
        parser.read_string(text)
        sections = {section: dict(parser[section]) for section in parser.sections()}
        return [*sections, *texts_within(sections)]

    assert is_balanced(text)
    return quoted_texts(text, lambda each: each.replace("``", "`") if name == "syslog-ng" else each)


@pytest.mark.parametrize("path", [PLAIN_PATH, HOSTILE_PATH])
@pytest.mark.parametrize("name", SHIPPERS)
def test_configuration_parses_and_contains_trail(name, path):
    """A configuration parses, has no placeholder left, and contains the path of the trail, whatever its characters."""
    text = configuration(name, path)
    assert "<<" not in text

    found = parsed_texts(name, text)
    folder, base = path.rsplit("/", 1)
    if name == "lnav":
        assert [each for each in found if base in each.replace("\\", "")]
    elif name == "splunk":
        assert f"monitor://{folder}" in found
    else:
        assert path in found


@pytest.mark.parametrize("path", [PLAIN_PATH, HOSTILE_PATH])
@pytest.mark.parametrize("name", [name for name, shipper in SHIPPERS.items() if shipper.to])
def test_configuration_that_writes_file_contains_default_destination(name, path):
    """A configuration that writes to a file contains the default path, whole or as folder and name."""
    found = set(parsed_texts(name, configuration(name, path)))
    assert {DEFAULT_TO} <= found or {"/var/log/shipped", "audit.jsonl"} <= found


@pytest.mark.parametrize("name", SHIPPERS)
def test_configuration_states_if_tests_do_not_run_it(name):
    """A configuration that the tests do not run states this in its head comment and in the guide."""
    text = configuration(name, PLAIN_PATH)
    assert ("NOT RUN BY OUR TESTS" in text[:400]) is not SHIPPERS[name].is_run
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` "))
    assert ("not run by our tests" in row) is not SHIPPERS[name].is_run


@pytest.mark.parametrize("name", SHIPPERS)
def test_configuration_marks_destination(name):
    """The part to replace is marked in every configuration that ships events."""
    assert ("DESTINATION" in configuration(name, PLAIN_PATH)) is (name != "lnav")


def test_every_template_belongs_to_shipper():
    """Every file beside the module is the template of a shipper."""
    templates = {each.name for each in files(shippers).iterdir() if not each.name.startswith("__")}
    assert templates == {shipper.file for shipper in SHIPPERS.values()}


@pytest.mark.parametrize("name", SHIPPERS)
def test_rolled_segments_are_read_only_if_identified_by_content(name):
    """Rolled segments are read only by shippers that identify a file by its content, which do not send it twice."""
    text = configuration(name, PLAIN_PATH)
    assert (f"{PLAIN_PATH}.*Z" in text or r"\.\d{6}Z" in text) is (name in IDENTIFY_BY_CONTENT)


def test_splunk_whitelist_matches_uncompressed_segments_only():
    """The whitelist matches the active and rolled segments, and neither compressed segments nor other files."""
    text = configuration("splunk", HOSTILE_PATH)
    whitelist = re.compile(re.search("^whitelist = (.*)$", text, re.MULTILINE)[1])
    rolled = next_name(HOSTILE_PATH, [], dt.datetime(2025, 1, 15, tzinfo=dt.UTC))
    assert all(whitelist.search(each) for each in (HOSTILE_PATH, rolled))
    others = (f"{rolled}.gz", f"{rolled}.zst", f"{HOSTILE_PATH}.1", "/a/xa b.jsonl")
    assert not any(whitelist.search(each) for each in others)


@pytest.mark.parametrize("name", ["rsyslog", "syslog-ng", "fluent-bit", "vector", "filebeat", "splunk"])
def test_longest_event_fits_line_limit_of_shipper(name):
    """The line limit in a configuration is more than twice the size limit of an event."""
    limits = re.findall(r"(?:128k|131072|128K)", configuration(name, PLAIN_PATH))
    assert limits
    assert DEFAULT_MAX_EVENT_BYTES * 2 < 131_072


def test_fluent_bit_tells_reused_inode_by_name():
    """Fluent Bit compares the name as well: a new segment may have the inode of a deleted one."""
    [source] = yaml.safe_load(configuration("fluent-bit", PLAIN_PATH))["pipeline"]["inputs"]
    assert source["db.compare_filename"] is True


def test_fluent_bit_retries_without_limit():
    """Fluent Bit never gives up lines, which it does after one retry by default."""
    [output] = yaml.safe_load(configuration("fluent-bit", PLAIN_PATH))["pipeline"]["outputs"]
    assert output["retry_limit"] == "no_limits"


def test_collector_keeps_integers():
    """The collector parses integers as integers, not as floats of 53 bits."""
    receivers = yaml.safe_load(configuration("otel-collector", PLAIN_PATH))["receivers"]
    parser, _ = receivers["filelog/structlog_audit"]["operators"]
    assert parser["parse_ints"] is True


def test_collector_writes_no_line_to_its_own_log():
    """The collector's log has neither damaged lines nor those without a status, such as the parts of a long event."""
    receivers = yaml.safe_load(configuration("otel-collector", PLAIN_PATH))["receivers"]
    parser, severity = receivers["filelog/structlog_audit"]["operators"]
    assert parser["on_error"] == "send_quiet"
    assert severity["if"] == "attributes.status != nil"


def test_vector_acknowledges_after_delivery():
    """Vector stores a position only after the destination has the lines."""
    [sink] = yaml.safe_load(configuration("vector", PLAIN_PATH))["sinks"].values()
    assert sink["acknowledgements"] == {"enabled": True}


@pytest.mark.parametrize("text", [configuration("filebeat", PLAIN_PATH), GUIDE])
def test_depth_limit_for_elasticsearch_admits_deepest_metadata(text):
    """The depth limit that we advise for Elasticsearch is above the depth of the metadata of any event."""
    limits = [int(digits) for digits in re.findall(r'depth_limit(?:": | of )(\d+)\b(?! refuses)', text)]
    assert limits
    assert min(limits) > MAX_DEPTH + 1


@pytest.mark.parametrize("text", ["a*", "a?", "[a]", "{a}", "a\\b", "a\nb", "a\x7f", "a\udcff", "a "])
@pytest.mark.parametrize("parameter", ["trail", "to"])
def test_path_that_is_pattern_or_unprintable_is_refused(parameter, text):
    """A path with characters of patterns, unprintable characters or a trailing space is refused."""
    given = {"trail": "/logs/audit.jsonl", "to": "/copy"} | {parameter: f"/x/{text}"}
    with pytest.raises(AuditError, match=f"^{parameter}="):
        configuration("vector", given["trail"], to=given["to"])


@pytest.mark.parametrize(("name", "path"), [("fluent-bit", "/a,b"), ("vector", "/a%b"), ("splunk", "/a...b")])
def test_path_that_is_special_for_one_shipper_is_refused_for_it_only(name, path):
    """A text that only one shipper interprets as a pattern is refused for that shipper only."""
    with pytest.raises(AuditError, match=r"^trail="):
        configuration(name, path)
    assert path in configuration("rsyslog", path)


def test_unknown_shipper_raises_with_known_names():
    """An unknown shipper raises an error with the known names."""
    with pytest.raises(AuditError, match="name='x': expected one of rsyslog, "):
        configuration("x", "/a")


def test_trail_that_is_not_path_raises_type_error():
    """A trail that is not a path raises a TypeError that names the parameter."""
    with pytest.raises(TypeError, match="trail=3"):
        configuration("vector", 3)


class TestCommand:
    """The command ``shipper``."""

    def test_command_prints_configuration_only(self, tmp_path, monkeypatch):
        """stdout is the configuration for the absolute path, and stderr is empty."""
        monkeypatch.chdir(tmp_path)
        done = run("shipper", "syslog-ng", "--trail", "logs/audit.jsonl", "--to", "copy")
        assert (done.code, done.err) == (0, "")
        assert done.out == configuration("syslog-ng", tmp_path / "logs" / "audit.jsonl", to=str(tmp_path / "copy"))

    def test_command_without_name_lists_shippers(self):
        """Without a name, the command lists the shippers, with whether the tests run the configuration."""
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
            (["vector", "--trail", "-"], "because a shipper does not read stdin"),
            (["vector", "--trail", ""], "--trail='': expected the path of a file"),
            (["vector", "--trail", "."], "--trail='.': expected the path of a file"),
            (["vector", "--trail", "/a/*.jsonl"], "--trail='/a/*.jsonl': contains '*'"),
            (["vector", "--trail", "/a.jsonl.20250115T103045.123456Z"], "expected the active segment, a.jsonl"),
            (
                ["vector", "--trail", "/a.jsonl", "--to", "/a.jsonl.1"],
                "--to='/a.jsonl.1': expected a file that is not part of the trail",
            ),
            (["alloy", "--trail", "a", "--to", "b"], "alloy does not ship to a file"),
        ],
    )
    def test_invalid_name_or_path_exits_2(self, words, message):
        """An invalid name or path is a usage error on one line that names the expected value."""
        done = run("shipper", *words)
        assert (done.code, done.out) == (2, "")
        assert message in done.error_line
