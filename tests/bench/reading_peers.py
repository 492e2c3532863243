"""Other programs that count the lines of a user in the files of a trail. One that is not installed is left out."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

Count = Callable[[Path, str], int]
"""Counts the lines of a user in the files of a folder."""


def _output_of(command: list[str], folder: Path) -> str:
    """Return the output of *command* with the files of *folder*."""
    paths = sorted(str(path) for path in folder.iterdir())
    # To a pipe, because grep stops at the first line if its output is /dev/null.
    return subprocess.run([*command, *paths], stdout=subprocess.PIPE, text=True, check=False).stdout


def grep(folder: Path, user: str) -> int:
    """Count the lines with *user* in quotes by ``grep``."""
    return sum(map(int, _output_of(["grep", "-chF", f'"{user}"'], folder).split()))


def zcat_grep(folder: Path, user: str) -> int:
    """Count the lines with *user* in quotes by ``zcat`` and ``grep``."""
    pipe = 'text=$1; shift; zcat -f "$@" | grep -cF "$text"'
    return int(_output_of(["sh", "-c", pipe, "sh", f'"{user}"'], folder))


def ripgrep(folder: Path, user: str) -> int:
    """Count the lines with *user* in quotes by ``rg``."""
    command = ["rg", "--no-config", "--count", "--no-filename", "--fixed-strings", f'"{user}"']
    return sum(map(int, _output_of(command, folder).split()))


def jq(folder: Path, user: str) -> int:
    """Count the lines with *user* as their user by ``jq``."""
    return _output_of(["jq", "--arg", "user", user, "select(.user_id == $user) | 1"], folder).count("1")


def duckdb_json(folder: Path, user: str) -> int:
    """Count the lines with *user* as their user by DuckDB, which reads one member of each."""
    source = "read_json($files, format = 'newline_delimited', columns = {user_id: 'VARCHAR'})"
    return _duckdb(f"SELECT count(*) FROM {source} WHERE user_id = $user", folder, user)


def duckdb_text(folder: Path, user: str) -> int:
    """Count the lines with *user* in quotes by DuckDB, which reads the files as texts."""
    lines = "SELECT unnest(string_split(content, chr(10))) AS line FROM read_text($files)"
    return _duckdb(f"SELECT count(*) FROM ({lines}) WHERE contains(line, '\"' || $user || '\"')", folder, user)


def _duckdb(query: str, folder: Path, user: str) -> int:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    found = connection.execute(query, {"files": f"{folder}/*", "user": user}).fetchone()
    connection.close()
    return int(found[0])


class _User(msgspec.Struct):
    """The only member that is decoded."""

    user_id: str | None = None


_decode_users = msgspec.json.Decoder(_User).decode_lines


def bare_msgspec(folder: Path, user: str) -> int:
    """Count the lines with *user* as their user by msgspec, which decodes one member of each."""
    return sum(line.user_id == user for path in folder.iterdir() for line in _decode_users(path.read_bytes()))


PEERS: dict[str, Count] = {
    "grep -cF of a user": grep,
    "ripgrep -cF of a user": ripgrep,
    "msgspec, one member": bare_msgspec,
    "DuckDB read_text": duckdb_text,
    "DuckDB read_json": duckdb_json,
    "jq": jq,
}
"""The peers by the name of their row."""

_NEEDED = {
    "ripgrep -cF of a user": "rg",
    "jq": "jq",
    "DuckDB read_text": "duckdb",
    "DuckDB read_json": "duckdb",
}
"""The program, or for DuckDB the module, without which a row is left out."""


def reason_to_leave_out(name: str) -> str | None:
    """Return why the peer of a row cannot be measured, or None if it can."""
    needed = _NEEDED.get(name)
    if needed == "duckdb":
        return None if importlib.util.find_spec("duckdb") else "the module duckdb is not installed"
    return None if needed is None or shutil.which(needed) else f"{needed} is not installed"
