"""The options that every command that reads trails has."""

from __future__ import annotations

import datetime as dt
import inspect
import subprocess
import sys
from importlib import import_module
from typing import get_args

import pytest

from structlog_audit.cli.app import COMMANDS
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Force, TrailOptions, reads_trails
from structlog_audit.cli.times import time_range

OTHERS = (
    "compact",
    "archive",
    "keygen",
    "rotate_key",
    "seal",
    "verify",
    "prove",
    "verify_proof",
    "erase",
    "import_auditlog",
    "doctor",
    "shipper",
    "demo",
)
READERS = [name for name in COMMANDS if name not in OTHERS]
WITH_ALL = {"query", "tail", "stats", "export", "explore"}


def command_named(name):
    return getattr(import_module(f"structlog_audit.cli.commands.{name}"), name)


@pytest.mark.parametrize("name", READERS)
def test_command_that_reads_trails_has_the_shared_options(name):
    """Every command that reads trails has the shared options, and --all only where kinds can be selected."""
    parameters = inspect.signature(command_named(name)).parameters
    shared = [
        "words",
        "since",
        "until",
        "month",
        "vault",
        "engine",
        "operations",
        "tz",
        "utc",
        "every_kind",
        "record",
        "strict",
    ]
    found = [parameter for parameter in parameters if parameter in shared]
    assert found == [parameter for parameter in shared if parameter in parameters]
    assert set(shared) - set(found) <= {"every_kind", "operations"}
    assert list(parameters)[:3] == ["words", "since", "until"]
    assert ("every_kind" in parameters) is (name in WITH_ALL)


def all_commands():
    """Yield the name and the parameters of every command, those of groups included."""
    for name in COMMANDS:
        found = command_named(name)
        inner = {each.callback.__name__: each.callback for each in getattr(found, "registered_commands", ())}
        for word, function in (inner or {"": found}).items():
            yield f"{name} {word}".strip(), inspect.signature(function, eval_str=True).parameters


def test_output_means_the_same_in_every_command():
    """Every -o chooses from the five formats, and is text by default; no other option is named so."""
    found = {}
    for name, parameters in all_commands():
        for parameter in parameters.values():
            declared = getattr(parameter.annotation, "__metadata__", (None,))[0]
            if "-o" in (getattr(declared, "param_decls", None) or ()):
                assert (parameter.name, parameter.default) == ("output", "text")
                found[name] = set(get_args(get_args(parameter.annotation)[0]))

    assert {name: len(formats) for name, formats in found.items()} == {
        "query": 4, "tail": 4, "users": 4, "monitor": 3, "stats": 2, "catalogue": 2, "compact": 2, "archive show": 2,
        "archive verify": 2, "verify": 2, "doctor": 2, "report": 3, "person": 3, "diff": 3,
    }  # fmt: skip
    assert all({"text", "json"} <= formats <= {"text", "json", "jsonl", "csv", "html"} for formats in found.values())


def test_decorated_command_receives_shared_options_as_one_value():
    """The shared options arrive as `TrailOptions`, those of the command as they are; missing ones have their defaults."""
    received = []

    @reads_trails()
    def example(options: TrailOptions, *, force: Force = False) -> Exit:
        received.append((options, force))
        return Exit.DONE

    assert example(words=["a"], since="1h", strict=True, force=True) == Exit.DONE
    example(words=None)
    given = TrailOptions("example", ["a"], since="1h", strict=True)
    assert received == [(given, True), (TrailOptions("example"), False)]


def test_time_range_with_an_end_cannot_be_followed():
    """--follow is refused with --until, and accepted without it."""
    TrailOptions("tail").require_endless("text")
    with pytest.raises(UsageError, match="--follow cannot be combined with --until"):
        TrailOptions("tail", until="1h").require_endless("text")


def test_month_cannot_be_followed():
    """A month is a time range with an end."""
    with pytest.raises(UsageError, match="--follow cannot be combined with --month"):
        TrailOptions("tail", month="this").require_endless("text")


NOW = dt.datetime(2025, 3, 30, 10, 30, tzinfo=dt.UTC)


def test_reversed_range_is_an_error():
    """A range that ends before it begins is an error that names both ends; a missing end is not a bound."""
    with pytest.raises(UsageError, match="--since='1h' must not be later than --until='2h'"):
        time_range("1h", "2h", None, NOW)
    assert time_range("1h", None, None, NOW) == (NOW - dt.timedelta(hours=1), None)


@pytest.mark.parametrize(
    ("since", "until", "month", "message"),
    [
        ("yesteday", None, None, "--since='yesteday': expected a time. Did you mean 'yesterday'?"),
        (None, "1 y", None, "--until='1 y': expected a time. Use RFC 3339"),
        (None, None, "march", "--month='march': expected a month such as '2025-01', 'this' or 'last'"),
        ("1d", None, "this", "--month cannot be combined with --since or --until"),
    ],
)
def test_mistake_in_a_time_range_is_a_usage_error(since, until, month, message):
    """A mistake names the option, what it got and what it expects."""
    with pytest.raises(UsageError) as caught:
        time_range(since, until, month, NOW)
    assert str(caught.value).startswith(message)


def test_month_is_the_range_of_its_zone():
    """A month is read in the zone of --tz, as every other time."""
    zone = TrailOptions("stats", tz="Europe/Berlin").zone
    start, end = time_range(None, None, "2025-03", NOW, zone)
    assert (start, end) == (dt.datetime(2025, 2, 28, 23, tzinfo=dt.UTC), dt.datetime(2025, 3, 31, 22, tzinfo=dt.UTC))


@pytest.mark.parametrize("name", ["", "Berlin", "Europe", "../etc/passwd", "a\0b"])
def test_unknown_zone_is_a_usage_error(name):
    """What is no time zone is an error that names it."""
    with pytest.raises(UsageError, match="expected the name of a time zone"):
        _ = TrailOptions("stats", tz=name).zone


def test_two_zones_are_a_usage_error():
    """Times have one zone."""
    with pytest.raises(UsageError, match="--tz cannot be combined with --utc"):
        _ = TrailOptions("stats", tz="Asia/Tokyo", utc=True).zone


def test_process_of_the_doctor_does_not_import_typer():
    """The values of options are apart from the options, so that loading a configuration does not import typer."""
    code = "import sys, structlog_audit.cli.choices as options; print(options.Severity.ERROR, 'typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "error False\n"
