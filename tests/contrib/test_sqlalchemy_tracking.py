"""`track` of SQLAlchemy: every change that the database made is recorded once, and nothing else."""

from __future__ import annotations

from collections import Counter as Multiset

import documents
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text


@pytest.fixture
def engine(tmp_path):
    """An SQLite database with the tables, and triggers that see their changes."""
    made = create_engine(f"sqlite:///{tmp_path}/documents.sqlite3")
    documents.use_savepoints(made)
    documents.prepare(made)
    yield made
    made.dispose()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_operations_are_recorded_as_the_triggers_saw_them(engine, handler, seed):
    """Of random operations in transactions and savepoints, the events are exactly the changes that triggers saw."""
    handler.clear()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM seen"))

    documents.Operations(engine, seed).run(60)

    recorded = Multiset(documents.recorded_changes(handler.iter_events()))
    assert recorded == Multiset(documents.seen_changes(engine))
