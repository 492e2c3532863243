"""`track` of Django: every change that the database made is recorded once, and nothing else."""

from __future__ import annotations

from collections import Counter as Multiset

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def shop(project, handler):
    """The models of the shop, with empty tables."""
    from django.db import connections
    from shop import models

    yield models
    for alias in ("default", "other"):
        with connections[alias].constraint_checks_disabled(), connections[alias].cursor() as cursor:
            for table in connections[alias].introspection.table_names():
                if table.startswith("shop_"):
                    cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture
def events(handler):
    """A function that returns the events since its last call, as operations, entry ids and changes."""

    def take():
        found = [(event.operation, event.entry_ids, event.metadata["changes"]) for event in handler.iter_events()]
        handler.clear()
        return found

    return take


@pytest.fixture(scope="module")
def triggers(project):
    """Triggers that see what the database does; dropped at the end."""
    from django.db import connection
    from shop import random_operations

    random_operations.prepare()
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'seen_%'")
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP TRIGGER "{name}"')
        cursor.execute("DROP TABLE seen")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_operations_are_recorded_as_the_triggers_saw_them(shop, triggers, handler, seed):
    """Of random operations in transactions and savepoints, the events are exactly the changes that triggers saw."""
    from django.db import connection
    from shop.random_operations import Operations, recorded_changes, seen_changes

    handler.clear()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM seen")

    Operations(seed).run(60)

    recorded = Multiset(recorded_changes(handler.iter_events()))
    assert recorded == Multiset(seen_changes())
