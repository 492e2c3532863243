"""Adds the modules that are imported by name, and the files that are read: templates, shipper files, style sheets."""

from importlib.util import find_spec

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

# A module whose framework the application lacks would be a warning for each.
OPTIONAL = ("structlog_audit.contrib.", "structlog_audit.cli.explore.")
hiddenimports = collect_submodules("structlog_audit", filter=lambda name: not name.startswith(OPTIONAL))

datas = collect_data_files("structlog_audit", include_py_files=False)
# The versions of optional packages are checked by it.
datas += copy_metadata("structlog-audit")
if find_spec("pygal") is not None:
    datas += collect_data_files("pygal")
