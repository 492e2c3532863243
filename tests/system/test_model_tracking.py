"""Tracked models on a real PostgreSQL and a real MariaDB, and the import of rows that the real django-auditlog wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mariadb import empty_database, mariadb
from postgresql import DATABASE, postgresql

from structlog_audit import open_trail

pytestmark = pytest.mark.system

CONTRIB = Path(__file__).parents[1] / "contrib"

DJANGO = """
import json, logging, os, sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import django
import pymysql
from django.conf import settings
from structlog_audit import AuditHandler

pymysql.install_as_MySQLdb()
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "shop"],
    DATABASES={"default": json.loads(os.environ["DJANGO"])},
    MIGRATION_MODULES={"contenttypes": None},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.management import call_command
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from shop import random_operations
from shop.models import Author, Tag

handler = AuditHandler(max_events=1_000_000)
logger = logging.getLogger("audit")
logger.setLevel("INFO")
logger.propagate = False
logger.addHandler(handler)

call_command("migrate", verbosity=0, run_syncdb=True)
random_operations.prepare()

def compare():
    recorded = Counter(random_operations.recorded_changes(handler.iter_events()))
    seen = Counter(random_operations.seen_changes())
    connection.close()
    return recorded, seen

def in_thread(function, *arguments):
    def run():
        try:
            return function(*arguments)
        finally:
            connection.close()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run).result()
"""

SQLALCHEMY = """
import json, logging, os, sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import create_engine, delete, event, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, SAWarning
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from structlog_audit import AuditHandler
import documents
from documents import Author, Counter as Code, Document, Tag

handler = AuditHandler(max_events=1_000_000)
logger = logging.getLogger("audit")
logger.setLevel("INFO")
logger.propagate = False
logger.addHandler(handler)

engine = create_engine(os.environ["SQLALCHEMY"])
documents.prepare(engine)
operations = documents.Operations(engine, 0)

def compare():
    recorded = Counter(documents.recorded_changes(handler.iter_events()))
    seen = Counter(documents.seen_changes(engine))
    engine.dispose()
    return recorded, seen
"""

OUTCOME = """
recorded, seen = compare()
print(json.dumps({
    "changes": seen.total(),
    "not recorded": [repr(change) for change in seen - recorded],
    "not seen": [repr(change) for change in recorded - seen],
}))
"""

DJANGO_AT_RANDOM = """
def run(seed):
    operations = random_operations.Operations(seed)
    if workers > 1:
        # Deadlocks, and objects that another thread has deleted: Django cannot insert an expression in place of an update.
        operations = random_operations.Operations(seed, refusals=(DatabaseError, ObjectDoesNotExist, ValueError))
        # Another transaction may insert a row between the question whether it exists and the upsert.
        operations.names = [name for name in operations.names if "upsert" not in name]
    operations.run(count)
    connection.close()

workers, count = (int(number) for number in sys.argv[1:])
with ThreadPoolExecutor(workers) as executor:
    list(executor.map(run, range(workers)))
"""

SQLALCHEMY_AT_RANDOM = """
def run(seed):
    operations = documents.Operations(engine, seed)
    if workers > 1:
        # Deadlocks, and objects that another thread has deleted.
        operations = documents.Operations(engine, seed, refusals=(DBAPIError, InvalidRequestError, SAWarning, StaleDataError))
        # Another transaction may insert a row between the question whether it exists and the upsert.
        operations.names = [name for name in operations.names if "upsert" not in name]
    operations.run(count)

workers, count = (int(number) for number in sys.argv[1:])
with ThreadPoolExecutor(workers) as executor:
    list(executor.map(run, range(workers)))
"""

DJANGO_MANY = """
Tag.objects.bulk_create([Tag(name=str(name)) for name in range(int(sys.argv[1]))])
Tag.objects.update(name=Concat("name", Value("a")))
Tag.objects.all().delete()
connection.close()
print(json.dumps(Counter(event.operation for event in handler.iter_events())))
"""

DJANGO_BOUND = """
from shop.models import Counter as Code
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO shop_counter SELECT 'a%s' || n, 0 FROM generate_series(1, 66000) n")
changed = Code.objects.update(value=F("value") + 1)
connection.close()
print(json.dumps([changed, handler.count_events(operation="shop.counter.update")]))
"""

SQLALCHEMY_MANY = """
with engine.begin() as connection:
    connection.execute(insert(Tag), [{"name": str(name)} for name in range(int(sys.argv[1]))])
    connection.execute(update(Tag).values(name=Tag.name + "a"))
    connection.execute(delete(Tag))
engine.dispose()
print(json.dumps(Counter(event.operation for event in handler.iter_events())))
"""


@pytest.fixture(scope="module")
def postgresql_socket():
    with postgresql() as folder:
        yield folder


@pytest.fixture(scope="module")
def mariadb_socket():
    with mariadb() as socket:
        yield socket


def empty_postgresql(socket):
    """Remove all tables, and return where Django and SQLAlchemy find the database."""
    import psycopg

    with psycopg.connect(host=socket, user=DATABASE, dbname=DATABASE, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")

    settings = {"ENGINE": "django.db.backends.postgresql", "HOST": socket, "USER": DATABASE, "NAME": DATABASE}
    return {"DJANGO": json.dumps(settings), "SQLALCHEMY": f"postgresql+psycopg://{DATABASE}@/{DATABASE}?host={socket}"}


def empty_mariadb(socket):
    """Remove all tables, and return where Django and SQLAlchemy find the database."""
    empty_database(socket)
    settings = {"ENGINE": "django.db.backends.mysql", "HOST": socket, "USER": "root", "NAME": DATABASE}
    url = f"mysql+pymysql://root@/{DATABASE}?unix_socket={socket}"
    return {"DJANGO": json.dumps(settings), "SQLALCHEMY": url}


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request):
    """Where Django and SQLAlchemy find an empty database of each kind."""
    socket = request.getfixturevalue(f"{request.param}_socket")
    empty = {"postgresql": empty_postgresql, "mariadb": empty_mariadb}
    return empty[request.param](socket)


def outcome(script, database, *arguments):
    """Run *script* on the database, and return what it printed."""
    environment = {**os.environ, **database, "PYTHONPATH": str(CONTRIB)}
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_exact(found, least):
    assert found["not recorded"] == []
    assert found["not seen"] == []
    assert found["changes"] > least


def test_django_records_1000_random_operations_as_the_triggers_saw_them(database):
    """Of 1,000 random operations, the events are exactly the changes that triggers of the database saw."""
    assert_exact(outcome(DJANGO + DJANGO_AT_RANDOM + OUTCOME, database, 1, 1_000), least=1_000)


def test_django_records_concurrent_operations_as_the_triggers_saw_them(database):
    """Of 1,000 operations of four threads on the same rows, the events are exactly the changes that triggers saw."""
    assert_exact(outcome(DJANGO + DJANGO_AT_RANDOM + OUTCOME, database, 4, 250), least=500)


def test_sqlalchemy_records_1000_random_operations_as_the_triggers_saw_them(database):
    """Of 1,000 random operations, the events are exactly the changes that triggers of the database saw."""
    assert_exact(outcome(SQLALCHEMY + SQLALCHEMY_AT_RANDOM + OUTCOME, database, 1, 1_000), least=1_000)


def test_sqlalchemy_records_concurrent_operations_as_the_triggers_saw_them(database):
    """Of 1,000 operations of four threads on the same rows, the events are exactly the changes that triggers saw."""
    assert_exact(outcome(SQLALCHEMY + SQLALCHEMY_AT_RANDOM + OUTCOME, database, 4, 250), least=500)


@pytest.mark.parametrize(
    ("script", "label"),
    [(DJANGO + DJANGO_MANY, "shop.tag"), (SQLALCHEMY + SQLALCHEMY_MANY, "tag")],
    ids=["django", "sqlalchemy"],
)
def test_statement_on_more_rows_than_it_has_parameters_is_recorded(database, script, label):
    """An update or delete of 70,000 rows is executed and recorded; PostgreSQL accepts 65,535 parameters."""
    counts = outcome(script, database, 70_000)
    assert counts == {f"{label}.{verb}": 70_000 for verb in ("create", "update", "delete")}


def test_django_records_more_rows_than_a_server_binds_parameters(postgresql_socket):
    """With parameters that the server binds, an update of more rows than these is executed and recorded."""
    database = empty_postgresql(postgresql_socket)
    settings = json.loads(database["DJANGO"])
    settings["OPTIONS"] = {"server_side_binding": True}
    database["DJANGO"] = json.dumps(settings)
    assert outcome(DJANGO + DJANGO_BOUND, database) == [66_000, 66_000]


SQLALCHEMY_CASES = {
    # The name of each case, its statements, and the number of changes on PostgreSQL and on MariaDB.
    "failed statement and commit": (
        """
with engine.connect() as connection:
    connection.execute(insert(Author).values(name="a"))
    with suppress(IntegrityError):
        connection.execute(insert(Author).values(name="a"))
    connection.commit()
""",
        # PostgreSQL answers the commit by a rollback.
        {"postgresql": 0, "mariadb": 1},
    ),
    "failed statement and rollback to a savepoint": (
        """
with engine.begin() as connection:
    connection.execute(insert(Author).values(name="a"))
    with suppress(IntegrityError), connection.begin_nested():
        connection.execute(insert(Author).values(name="b"))
        connection.execute(insert(Author).values(name="a"))
    connection.execute(insert(Author).values(name="c"))
""",
        {"postgresql": 2, "mariadb": 2},
    ),
    "error of the driver alone": (
        """
with engine.begin() as connection:
    connection.execute(insert(Author).values(name="a"))
    with suppress(Exception):
        connection.execute(select(literal(object())))
""",
        {"postgresql": 1, "mariadb": 1},
    ),
    "row that another transaction changed meanwhile": (
        """
with engine.begin() as connection:
    connection.execute(insert(Tag).values(name="a"))
with engine.connect() as connection:
    connection.execute(select(Tag)).all()
    with engine.begin() as other:
        other.execute(update(Tag).values(name="b"))
    connection.execute(update(Tag).values(name="b"))
    connection.commit()
""",
        {"postgresql": 2, "mariadb": 2},
    ),
    "definition of a table and rollback": (
        """
for statement in ("CREATE TABLE other (id INTEGER)", "/* again */ create table other (id INTEGER)"):
    with engine.connect() as connection, suppress(DBAPIError):
        connection.execute(insert(Tag).values(name="a"))
        connection.exec_driver_sql(statement)
    connection = None
with engine.connect() as connection:
    connection.execute(insert(Tag).values(name="a"))
    connection.exec_driver_sql("CREATE TEMPORARY TABLE passing (id INTEGER)")
""",
        # MariaDB commits before it defines a table, even if that fails.
        {"postgresql": 0, "mariadb": 2},
    ),
    "deadlock": (
        """
from threading import Barrier
with engine.begin() as connection:
    connection.execute(insert(Tag), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}])
barrier = Barrier(2)
def change(first, second):
    with engine.connect() as connection:
        connection.execute(insert(Author).values(name=f"{first}"))
        connection.execute(update(Tag).where(Tag.id == first).values(name="x"))
        barrier.wait()
        with suppress(DBAPIError):
            connection.execute(update(Tag).where(Tag.id == second).values(name="y"))
        connection.commit()
with ThreadPoolExecutor(2) as executor:
    list(executor.map(change, (1, 2), (2, 1)))
""",
        # One of the two is rolled back.
        {"postgresql": 6, "mariadb": 6},
    ),
    "two phases": (
        """
with engine.connect() as connection:
    for end in ("commit", "rollback"):
        transaction = connection.begin_twophase()
        connection.execute(insert(Tag).values(name=end))
        transaction.prepare()
        getattr(transaction, end)()
""",
        {"postgresql": 1, "mariadb": 1},
    ),
    "autocommit and rollback": (
        """
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    connection.execute(insert(Tag).values(name="a"))
    connection.rollback()
""",
        {"postgresql": 1, "mariadb": 1},
    ),
    "upsert of the rows of a query": (
        """
with engine.begin() as connection:
    connection.execute(insert(Author), [{"name": "a"}, {"name": "b"}])
    connection.execute(insert(Tag), [{"name": "a"}, {"name": "c"}])
    statement = operations._insert().from_select(["name", "score"], select(Tag.name, literal(7)))
    connection.execute(operations._upsert(statement))
""",
        {"postgresql": 6, "mariadb": 6},
    ),
    "upsert that changes the key": (
        """
with engine.begin() as connection:
    connection.execute(insert(Code).values(code="a", place=1))
    statement = operations.dialect.insert(Code).values(code="a", place=1)
    if engine.dialect.name == "mysql":
        statement = statement.on_duplicate_key_update(value=5)
    else:
        statement = statement.on_conflict_do_update(index_elements=["code", "place"], set_={"value": 5})
    connection.execute(statement)
""",
        {"postgresql": 2, "mariadb": 2},
    ),
    "pairs with null": (
        """
with engine.begin() as connection:
    key = connection.execute(insert(Document).values(kind="document")).inserted_primary_key[0]
    connection.execute(insert(documents.related).values(document_id=key, other_id=None))
    connection.execute(update(documents.related).values(other_id=key))
    connection.execute(update(documents.related).values(other_id=None))
    connection.execute(delete(documents.related))
""",
        {"postgresql": 5, "mariadb": 5},
    ),
}


@pytest.mark.parametrize("case", SQLALCHEMY_CASES)
def test_sqlalchemy_records_what_the_database_kept(request, database, case):
    """Whatever ends a transaction, and whatever a statement meets, the events are the changes that triggers saw."""
    script, changes = SQLALCHEMY_CASES[case]
    kind = request.node.callspec.params["database"]
    found = outcome(SQLALCHEMY + script + OUTCOME, database)
    assert found == {"changes": changes[kind], "not recorded": [], "not seen": []}


DJANGO_CASES = {
    "savepoint that is rolled back without a block": (
        """
with transaction.atomic():
    Author.objects.create(name="a")
    for name in "bcd":
        # Django 6.1 renamed it.
        savepoint = (getattr(transaction, "savepoint_create", None) or transaction.savepoint)()
        Author.objects.create(name=name)
        with transaction.atomic():
            Author.objects.filter(name=name).update(score=1)
        end = transaction.savepoint_commit if name == "c" else transaction.savepoint_rollback
        end(savepoint)
    Author.objects.create(name="e")
""",
        {"postgresql": 4, "mariadb": 4},
    ),
    "failed statement and commit": (
        """
with transaction.atomic():
    Author.objects.create(name="a")
    with suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT nothing")
Author.objects.create(name="b")
""",
        # PostgreSQL answers the commit by a rollback.
        {"postgresql": 1, "mariadb": 2},
    ),
    "error of the driver alone": (
        """
with transaction.atomic():
    Author.objects.create(name="a")
    with suppress(Exception), connection.cursor() as cursor:
        cursor.execute("SELECT %s", [object()])
""",
        {"postgresql": 1, "mariadb": 1},
    ),
    "definition of a table and rollback": (
        """
for _ in range(2):
    with suppress(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        Author.objects.create(name="a" if _ else "b")
        cursor.execute("CREATE TABLE other (id INTEGER)")
        transaction.set_rollback(True)
""",
        # MariaDB commits before it defines a table, even if that fails.
        {"postgresql": 0, "mariadb": 2},
    ),
    "deadlock": (
        """
from threading import Barrier
for name in ("a", "b"):
    Tag.objects.create(name=name)
barrier = Barrier(2)
def change(first, second):
    with suppress(DatabaseError), transaction.atomic():
        Author.objects.create(name=first)
        Tag.objects.filter(name=first).update(name=first * 2)
        barrier.wait()
        with suppress(DatabaseError):
            list(Tag.objects.select_for_update().filter(name__startswith=second))
    connection.close()
with ThreadPoolExecutor(2) as executor:
    list(executor.map(change, "ab", "ba"))
""",
        # One of the two is rolled back.
        {"postgresql": 4, "mariadb": 4},
    ),
    "failed statement in a savepoint": (
        """
with transaction.atomic():
    Author.objects.create(name="a")
    with suppress(IntegrityError), transaction.atomic():
        Author.objects.create(name="b")
        Author.objects.create(name="a")
    Author.objects.create(name="c")
""",
        {"postgresql": 2, "mariadb": 2},
    ),
    "row that another transaction changed meanwhile": (
        """
Tag.objects.create(name="a")
with suppress(DatabaseError), transaction.atomic():
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION")
    list(Tag.objects.all())
    in_thread(lambda: Tag.objects.update(name="b"))
    Tag.objects.update(name="b")
""",
        {"postgresql": 2, "mariadb": 2},
    ),
    "get_or_create of a row that another transaction inserts meanwhile": (
        """
from unittest.mock import patch
original = type(Author.objects.all()).create
def create(self, **values):
    in_thread(lambda: original(Author.objects.all(), **values))
    return original(self, **values)
with patch.object(type(Author.objects.all()), "create", create):
    author, created = Author.objects.get_or_create(name="a")
assert not created
""",
        {"postgresql": 1, "mariadb": 1},
    ),
    "update of locked rows": (
        """
Author.objects.create(name="a")
with transaction.atomic():
    author = Author.objects.select_for_update().get()
    author.score = F("score") + 1
    author.save()
""",
        {"postgresql": 2, "mariadb": 2},
    ),
}


@pytest.mark.parametrize("case", DJANGO_CASES)
def test_django_records_what_the_database_kept(request, database, case):
    """Whatever ends a transaction, and whatever a statement meets, the events are the changes that triggers saw."""
    script, changes = DJANGO_CASES[case]
    kind = request.node.callspec.params["database"]
    found = outcome(DJANGO + script + OUTCOME, database)
    assert found == {"changes": changes[kind], "not recorded": [], "not seen": []}


AUDITLOG = """
import os, sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "auditlog", "shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()

from auditlog.context import set_actor
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.contrib.auth.models import User
from django.core.management import call_command
from shop.models import Document, Tag

call_command("migrate", verbosity=0, run_syncdb=True)
auditlog.register(Document, m2m_fields={"tags"}, mask_fields=["copies"])
ada = User.objects.create(username="ada")
with set_actor(ada, remote_addr="192.0.2.1"):
    document = Document.objects.create(text="draft")
    document.text = "final"
    document.save()
    document.tags.add(Tag.objects.create(name="new"))
    document.delete()
call_command("dumpdata", "contenttypes", "auditlog.LogEntry", *sys.argv[2:], output=sys.argv[1])
print(LogEntry.objects.count())
"""


@pytest.mark.parametrize("options", [["--format", "jsonl"], ["--natural-foreign"]])
def test_rows_of_the_real_auditlog_are_imported_once_and_completely(tmp_path, options):
    """What django-auditlog and dumpdata wrote becomes an event for each row, with actor, changes and time."""
    file, trail = tmp_path / "auditlog.json", tmp_path / "audit.jsonl"
    command = [sys.executable, "-c", AUDITLOG, file, *options]
    environment = {**os.environ, "PYTHONPATH": str(CONTRIB)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    count = int(done.stdout)

    for _ in range(2):
        command = [sys.executable, "-m", "structlog_audit.cli", "import-auditlog", file, trail]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    events = list(open_trail(trail).iter_events())
    assert len(events) == count == 4
    assert [event.operation for event in events] == [
        f"shop.document.{verb}" for verb in ("create", "update", "update", "delete")
    ]
    assert {event.user_id for event in events} == {"1" if "--format" in options else "ada"}
    assert {event.metadata["client_address"] for event in events} == {"192.0.2.1"}
    assert events[1].metadata["changes"] == {"text": {"before": "draft", "after": "final"}}
    assert list(events[2].metadata["changes"]["tags"]) == ["added"]
