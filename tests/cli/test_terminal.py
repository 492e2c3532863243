"""Output on a terminal, in a pipe, and without colours."""

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
from commands import GOLDEN, environment, process, run
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from structlog_audit import AuditLogger
from structlog_audit.cli import terminal
from structlog_audit.cli.terminal import clean

WITHOUT_BAR = [
    sys.executable, "-c",
    "from structlog_audit.cli import main, terminal; terminal._PROGRESS_DELAY = float('inf'); main()",
]  # fmt: skip
"""The program without its progress bar, whose escape sequences appear where the machine is slow."""

COLOUR = re.compile(r"\x1b\[(\d+)?m")
"""The escape sequences of the program: a colour, and its end."""

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\r\nforged line\t\x00\x7f\x9b2J\u202eevil\u2028\u2066b"

COMMANDS = [
    ("query",), ("query", "-r"), ("query", "-o", "json"), ("query", "-o", "jsonl"), ("query", "-o", "csv"), ("tail",),
    ("tail", "-o", "csv"), ("stats",), ("stats", "-o", "json"), ("users",), ("users", "-o", "json"), ("users", "-o", "jsonl"),
    ("users", "-o", "csv"), ("report",), ("doctor",), ("doctor", "-o", "json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trail(tmp_path_factory):
    """Return a trail of events with control characters in every text."""
    path = tmp_path_factory.mktemp("hostile") / "audit.jsonl"
    with AuditLogger(filename=path) as logger:
        for number in range(30):
            logger.record(
                f"OP{HOSTILE}", f"user{number % 3}{HOSTILE}", HOSTILE, [HOSTILE, "王" * 30],
                {HOSTILE: HOSTILE, "deep": [HOSTILE]}, ["SUCCESS", "FAILURE", "PARTIAL"][number % 3], HOSTILE, 1.5,
            )  # fmt: skip
    return path


def on_terminal(*words, columns=80, **more):
    """Run a command on a terminal of *columns*; return its output, stderr included, and its exit code."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*WITHOUT_BAR, *map(str, words)], stdin=child, stdout=child, stderr=child, env=environment(TERM="xterm", **more)
    ) as done:
        os.close(child)
        chunks = []
        try:
            while chunk := os.read(parent, 65536):
                chunks.append(chunk)
        except OSError:
            # Linux reports the end of a terminal's output as an error.
            pass
        os.close(parent)
    return b"".join(chunks).decode().replace("\r\n", "\n"), done.returncode


def dangerous(text):
    """Return the characters of *text* that a terminal would act on."""
    return [c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(c) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))]  # fmt: skip


@given(st.text(alphabet=st.characters(), max_size=50))
def test_clean_text_has_no_control_characters(text):
    """For all texts, no character is left that a terminal acts on, and harmless texts are unchanged."""
    cleaned = clean(text)
    cleaned.encode()
    assert dangerous(cleaned) == []
    assert "\n" not in cleaned
    if not dangerous(text) and text.isprintable():
        assert cleaned == text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_event_cannot_act_on_a_terminal(words, trail):
    """On a terminal no control character of an event is written; the only escape sequences are the program's colours."""
    command, *options = words
    output, code = on_terminal(command, trail, *options)
    assert code in (0, 4), output
    assert "Traceback" not in output
    assert dangerous(COLOUR.sub("", output)) == []
    assert "\nforged line" not in output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_color_disables_escape_sequences(words, trail):
    """With NO_COLOR only text is written to a terminal."""
    command, *options = words
    output, _ = on_terminal(command, trail, *options, NO_COLOR="1")
    assert "\x1b" not in output


def test_failures_are_red_on_a_terminal_only(trail):
    """A terminal shows failures in red; a pipe gets plain text."""
    assert "\x1b[31m" in on_terminal("query", trail)[0]
    assert "\x1b[31m" not in on_terminal("query", trail, NO_COLOR="1")[0]
    assert "\x1b" not in process("query", trail).out


@pytest.mark.parametrize("columns", [40, 60, 90])
@pytest.mark.parametrize("words", [("query",), ("tail",), ("stats",), ("users",), ("doctor",)], ids=" ".join)
def test_lines_fit_the_terminal(words, columns, trail):
    """No line is wider than the terminal, or than COLUMNS in a pipe; wide characters count as two."""
    for output in (
        on_terminal(*words, trail, columns=columns, NO_COLOR="1")[0],
        run(*words, trail, COLUMNS=str(columns)).out,
    ):
        assert output
        assert max(map(cell_len, output.splitlines())) <= columns


def test_last_activity_is_not_wrapped_at_60_columns():
    """At 60 columns other cells are wrapped, and the time can still be copied."""
    assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 ", run("users", GOLDEN, COLUMNS="60").out)


def test_pipe_gets_whole_lines(trail):
    """In a pipe nothing is cut, and every event is one line."""
    lines = process("query", trail).lines
    assert len(lines) == 31
    assert all(line.endswith(r"\u2028\u2066b" + '"') or "deep=" in line for line in lines[1:])


def test_output_is_utf_8_in_every_locale():
    """A locale without UTF-8 does not change the bytes."""
    usual = process("query", GOLDEN)
    assert "zoë-王" in usual.out
    assert (
        process("query", GOLDEN, env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="latin-1")).out
        == usual.out
    )


def test_error_message_has_no_control_characters():
    """Arguments are cleaned before an error shows them, so that it is one line."""
    done = run("query", f"{HOSTILE}.jsonl")
    assert done.code == 3
    assert dangerous(done.error_line) == []
    assert run("query", GOLDEN, f"user{HOSTILE}=x").code != 0
    assert dangerous(run("query", GOLDEN, f"user{HOSTILE}").error_line) == []


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

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
def test_progress_is_shown_only_where_it_does_not_interfere(monkeypatch, err, out, quietly, shown):
    """A progress bar is shown if stderr is a terminal, unless stdout writes to one meanwhile."""
    monkeypatch.setattr(sys, "stderr", err())
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(terminal, "_PROGRESS_DELAY", -1)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress(lambda: 100, quietly=quietly) as advance:
        assert (advance is not None) == shown
        if advance is not None:
            advance(50)
    assert bool(sys.stderr.getvalue()) == shown
    assert sys.stdout.getvalue() == ""


def test_short_work_or_dumb_terminal_has_no_progress(monkeypatch):
    """Work of less than half a second shows no bar, nor does a terminal without cursor movement."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.progress(lambda: 100, quietly=True) as advance:
        advance(100)
    assert sys.stderr.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    with terminal.progress(lambda: 100, quietly=True) as advance:
        assert advance is None
