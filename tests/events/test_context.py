"""Tests of `structlog_audit.events.context`; the entry points' own tests cover its use."""

from contextvars import ContextVar, copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, unbind_contextvars

from structlog_audit.events import context
from structlog_audit.events.context import bound_by_structlog

names = st.text(max_size=5)


@pytest.mark.parametrize("has_registry", [True, False])
@given(bound=st.dictionaries(names, st.integers()), unbound=st.lists(names), is_cleared=st.booleans())
def test_bound_fields_are_those_of_structlog(has_registry, bound, unbound, is_cleared):
    """For all sequences of binding, unbinding and clearing, the fields are those that structlog finds by a search."""

    def in_context():
        ContextVar("other", default=None).set(1)
        if is_cleared:
            bind_contextvars(cleared=1)
            clear_contextvars()
        bind_contextvars(**bound)
        unbind_contextvars(*unbound)
        assert bound_by_structlog() == get_contextvars()

    with pytest.MonkeyPatch.context() as patches:
        if not has_registry:
            patches.setattr(context, "_STRUCTLOG_VARIABLES", None)
        copy_context().run(in_context)


def test_structlog_has_the_registry():
    """The installed structlog holds its variables by name; without that, an event would cost more with other variables."""
    assert context._STRUCTLOG_VARIABLES is not None
