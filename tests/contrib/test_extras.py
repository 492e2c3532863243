"""The message for a missing extra."""

import importlib
import sys

import pytest

MODULES = {
    "celery": "celery",
    "django": "asgiref.sync",
    "opentelemetry": "opentelemetry.sdk._logs",
    "prometheus": "prometheus_client.core",
    "sqlalchemy": "sqlalchemy",
}


@pytest.mark.parametrize("extra", MODULES)
def test_import_without_the_extra_names_the_command_to_install_it(extra, monkeypatch):
    """Without the packages of its extra, a module raises a ModuleNotFoundError that names the extra."""
    name = f"structlog_audit.contrib.{extra}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, MODULES[extra], None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'structlog-audit\[{extra}\]'") as caught:
        importlib.import_module(name)
    assert caught.value.name == MODULES[extra]
