"""What reaches a terminal, a pipe, and people without colours."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest
from commands import GOLDEN, PROGRAM, environment, process, run
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from structlog_audit import AuditLogger
from structlog_audit.cli import terminal
from structlog_audit.cli.terminal import clean

OURS = re.compile(r"\x1b\[(\d+)?m")
"""The escape sequences that we write ourselves: a colour, and its end."""

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\r\nforged line\t\x00\x7f\x9b2J\u202eevil\u2028\u2066b"

COMMANDS = [
    ("query",), ("query", "-r"), ("query", "-o", "json"), ("query", "-o", "jsonl"), ("query", "-o", "csv"), ("tail",),
    ("tail", "-o", "csv"), ("stats",), ("stats", "-o", "json"), ("users",), ("users", "-o", "json"), ("users", "-o", "jsonl"),
    ("users", "-o", "csv"), ("report",), ("doctor",), ("doctor", "-o", "json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trail(tmp_path_factory):
    """A trail with events whose every text is hostile."""
    path = tmp_path_factory.mktemp("hostile") / "audit.jsonl"
    with AuditLogger(filename=path) as logger:
        for number in range(30):
            logger.record(
                f"OP{HOSTILE}", f"user{number % 3}{HOSTILE}", HOSTILE, [HOSTILE, "王" * 30],
                {HOSTILE: HOSTILE, "deep": [HOSTILE]}, ["SUCCESS", "FAILURE", "PARTIAL"][number % 3], HOSTILE, 1.5,
            )  # fmt: skip
    return path


def on_terminal(*words, columns=80, **more):
    """What a command writes to a terminal of that many columns, stderr included, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*PROGRAM, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm", **more)
    ) as done:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that nobody writes any more
            pass
        os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n"), done.returncode


def dangerous(text):
    """The characters in *text* that a terminal would act on."""
    return [c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(c) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))]  # fmt: skip


@given(st.text(alphabet=st.characters(), max_size=50))
def test_clean_text_is_harmless_and_on_one_line(text):
    """For all texts nothing is left that a terminal would act on, and what was harmless stays as it was."""
    cleaned = clean(text)
    cleaned.encode()
    assert dangerous(cleaned) == []
    assert "\n" not in cleaned
    if not dangerous(text) and text.isprintable():
        assert cleaned == text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_of_an_event_acts_on_a_terminal(words, trail):
    """On a terminal no control character of an event gets through; the only escapes are our colours."""
    command, *options = words
    output, code = on_terminal(command, trail, *options)
    assert code in (0, 4), output
    assert "Traceback" not in output
    assert dangerous(OURS.sub("", output)) == []
    assert "\nforged line" not in output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_color_means_no_escapes(words, trail):
    """With NO_COLOR nothing but text is written to a terminal."""
    command, *options = words
    output, _ = on_terminal(command, trail, *options, NO_COLOR="1")
    assert "\x1b" not in output


def test_failures_have_a_colour_on_a_terminal_only(trail):
    """A terminal shows failures in red; a pipe gets text."""
    assert "\x1b[31m" in on_terminal("query", trail)[0]
    assert "\x1b[31m" not in on_terminal("query", trail, NO_COLOR="1")[0]
    assert "\x1b" not in process("query", trail).out


@pytest.mark.parametrize("columns", [40, 60, 90])
@pytest.mark.parametrize("words", [("query",), ("tail",), ("stats",), ("users",), ("doctor",)], ids=" ".join)
def test_lines_fit_the_terminal(words, columns, trail):
    """No line is wider than the terminal, wide characters counted as such, nor wider than COLUMNS in a pipe."""
    for output in (
        on_terminal(*words, trail, columns=columns, NO_COLOR="1")[0],
        run(*words, trail, COLUMNS=str(columns)).out,
    ):
        assert output
        assert max(map(cell_len, output.splitlines())) <= columns


def test_the_time_of_a_user_stays_in_one_piece():
    """At 60 columns other columns are broken: a time is there to be given back."""
    assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 ", run("users", GOLDEN, COLUMNS="60").out)


def test_a_pipe_gets_whole_lines(trail):
    """In a pipe nothing is cut, and every event is one line."""
    lines = process("query", trail).lines
    assert len(lines) == 31
    assert all(line.endswith(r"\u2028\u2066b" + '"') or "deep=" in line for line in lines[1:])


def test_what_goes_into_a_pipe_is_utf_8_whatever_the_locale():
    """A locale without UTF-8 changes nothing of the bytes."""
    usual = process("query", GOLDEN)
    assert "zoë-王" in usual.out
    assert (
        process("query", GOLDEN, env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="latin-1")).out
        == usual.out
    )


def test_an_error_is_as_harmless_as_an_event():
    """What was given on the command line is cleaned before it is said, so an error is one line."""
    done = run("query", f"{HOSTILE}.jsonl")
    assert done.code == 3
    assert dangerous(done.said) == []
    assert run("query", GOLDEN, f"user{HOSTILE}=x").code != 0
    assert dangerous(run("query", GOLDEN, f"user{HOSTILE}").said) == []


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("err", "out", "quietly", "shown"),
    [
        (Terminal, io.StringIO, True, True),
        (Terminal, io.StringIO, False, True),
        (Terminal, Terminal, True, True),
        (Terminal, Terminal, False, False),
        (io.StringIO, Terminal, True, False),
        (io.StringIO, io.StringIO, True, False),
    ],
)
def test_a_bar_shows_only_where_it_is_in_nobodys_way(monkeypatch, err, out, quietly, shown):
    """Progress is shown if stderr is a terminal, and not while stdout writes to one."""
    monkeypatch.setattr(sys, "stderr", err())
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(terminal, "_PROGRESS_DELAY", -1)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress(lambda: 100, quietly=quietly) as told:
        assert (told is not None) == shown
        if told is not None:
            told(50)
    assert bool(sys.stderr.getvalue()) == shown
    assert sys.stdout.getvalue() == ""


def test_short_work_has_no_bar(monkeypatch):
    """What is done at once shows no bar, nor does a terminal that can't move its cursor."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.progress(lambda: 100, quietly=True) as told:
        told(100)
    assert sys.stderr.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    with terminal.progress(lambda: 100, quietly=True) as told:
        assert told is None
