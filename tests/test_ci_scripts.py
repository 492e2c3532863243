"""The scripts of the continuous integration that a person runs as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / ".ci"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="a source distribution has no .ci")


@pytest.mark.parametrize("words", [["unpack-python"], ["unpack-python", "3.14"], ["unpack-syslog-ng"]])
def test_script_without_an_argument_states_its_usage(words, tmp_path):
    """A missing argument is an error with the usage, before anything is written."""
    name, *arguments = words
    done = subprocess.run(
        ["bash", SCRIPTS / name, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert done.returncode != 0
    assert f"usage: .ci/{name} " in done.stderr
    assert not list(tmp_path.iterdir())
