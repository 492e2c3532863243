"""The hook of PyInstaller, which finds it by an entry point: modules and files that no import statement shows."""

from __future__ import annotations

import os


def hook_folders() -> list[str]:
    """Return the folders of the hooks, for PyInstaller."""
    return [os.path.dirname(__file__)]
