"""`track`: records the changes of Django models, as the database made them.

**Scope.** Every INSERT, UPDATE and DELETE that the ORM executes on a tracked table, whatever called it: ``save`` and
``update_fields``, expressions, ``update``, ``bulk_create`` with and without conflicts, ``bulk_update``, many-to-many managers
from either side, cascades and fast deletes, fixtures, data migrations. SQL that does not come from the ORM (``cursor.execute``,
``raw``, triggers, cascades of the database) is not seen. Signals miss half of these, so none are used: the compilers of the
three kinds of statements are the place that all of them pass.

**Guarantees.** Rows are read before and after each statement, in its transaction. Where the database can lock rows, they are
locked, and the statement is limited to them, so a concurrent transaction cannot change these rows. Events are recorded when
the transaction is committed. What a savepoint, an error or a deadlock rolls back is not recorded.

**Performance.** Two more queries per UPDATE and DELETE of a tracked model, one per upsert, none per other INSERT. The rows are
in memory meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q, QuerySet, Value, expressions
from django.db.models.base import ModelBase
from django.db.models.constants import OnConflict
from django.db.models.sql import DeleteQuery, InsertQuery, Query, UpdateQuery
from django.db.models.sql.where import AND, ExtraWhere

from structlog_audit.contrib.tracked_changes import (
    EXPRESSION,
    MASK,
    ChangedRow,
    Key,
    Row,
    Rows,
    Savepoints,
    TrackedEvent,
    TrackedFields,
    call_all,
    changed_rows,
    commits_first,
    control_of,
    in_batches,
    key_of,
    key_text,
    outcome_of_error,
    parts_of,
    recorder,
    tracked_fields,
)
from structlog_audit.exceptions import AuditTypeError, AuditValueError

M = TypeVar("M", bound=type)

_EXECUTE = ("execute_sql", "execute_returning_sql")
"""The methods of a compiler that execute its statement; Django 6 added the second."""

_DATABASE_DEFAULT: Any = getattr(expressions, "DatabaseDefault", ())
"""The class of a value that is left to the database; Django before 5.0 has none."""

_UNHASHABLE = frozenset({"ArrayField", "HStoreField", "JSONField"})
"""The classes of fields whose values are lists or dictionaries; without the driver of PostgreSQL, two cannot be imported."""

_tracked: dict[str, TrackedFields] = {}
"""The recorded fields of each tracked model, by its label, which the models of data migrations have as well."""


def track(model: M, *, fields: Iterable[str] | None = None, exclude: Iterable[str] = (), mask: Iterable[str] = ()) -> M:
    """Record the changes of *model* as events, and return it, so that this is a class decorator as well.

    An event is named ``app.model.create``, ``.update`` or ``.delete``, its entry id is ``app.model:pk``, and its metadata has
    ``changes``: for each changed field its values ``before`` and ``after``. A many-to-many field has the keys ``added`` and
    ``removed`` there, and the related objects are entry ids, too. ``database`` names another database than the default one.

    Args:
        model: A model. A proxy stands for the model whose table it has.
        fields: The fields to record, many-to-many fields included; all by default.
        exclude: The fields not to record.
        mask: The fields whose changes are recorded without their values.

    Raises:
        AuditTypeError: *model* is not a model with a table, or an argument is not a list of names.
        AuditValueError: The model has no such field, a masked one is not recorded, a parent with a table of its own is not
            tracked, or the values of the primary key are not hashable.
    """
    meta = _meta_of(model)
    where = f"track({model.__name__})"

    # The row of a child has only its own fields.
    for parent in meta.parents:
        label = parent._meta.label_lower
        if label not in _tracked:
            raise AuditValueError(f"{where}: its parent {label} holds part of its fields: track that model before it")

    for field in _key_fields(meta):
        kinds = {kind.__name__ for kind in type(field).__mro__}
        if kinds & _UNHASHABLE:
            raise AuditValueError(
                f"{where}: expected a primary key of hashable values, got {field.name}, a {type(field).__name__}"
            )

    known = [field.name for field in (*_columns(meta), *meta.local_many_to_many)]
    _tracked[meta.label_lower] = tracked_fields(where, known, fields, exclude, mask)

    for kind in (InsertQuery, UpdateQuery, DeleteQuery):
        kind.get_compiler = _get_compiler
    BaseDatabaseWrapper.run_and_clear_commit_hooks = _record_and_run_hooks
    return model


def _meta_of(model: Any) -> Any:
    """Return the options of the model whose table *model* has."""
    if not isinstance(model, ModelBase):
        raise AuditTypeError(f"model={model!r}: expected a Django model, got {type(model).__name__}")

    meta: Any = model._meta
    if meta.abstract or meta.swapped:
        raise AuditTypeError(f"model={model!r}: expected a model with a table, got an abstract or swapped one")
    return meta.concrete_model._meta


def _columns(meta: Any) -> list[Any]:
    """Return the fields of a model that statements write; not those that the database generates."""
    return [field for field in meta.local_concrete_fields if not _is_generated(field)]


def _key_fields(meta: Any) -> list[Any]:
    """Return the fields of the primary key; several only since Django 5.2."""
    fields: list[Any] = getattr(meta, "pk_fields", [meta.pk])
    return fields


def _is_generated(field: Any) -> bool:
    # Django before 5.0 has none of these.
    is_generated: bool = getattr(field, "generated", False)
    return is_generated


def _get_compiler(query: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the compiler of a query that writes; that of a tracked table records the changes when it executes."""
    compiler = Query.get_compiler(query, *args, **kwargs)
    table = _table_of(query.model)
    if table is not None:
        for method in _EXECUTE:
            if hasattr(compiler, method):
                setattr(compiler, method, partial(_execute, compiler, table, method))
    return compiler


def _execute(compiler: Any, table: _Table, method: str, argument: Any = None) -> Any:
    """Execute the statement of *compiler*, record the changes after the commit, and return its result."""
    # Each of the two methods may call the other.
    for name in _EXECUTE:
        vars(compiler).pop(name, None)

    connection = compiler.connection
    alias = connection.alias
    is_managed = connection.commit_on_exit if connection.in_atomic_block else connection.get_autocommit()
    if not is_managed:
        raise AuditValueError(
            f"database {alias!r}: expected autocommit, with or without atomic(), for the tracked {table.label},"
            " got manual transactions, whose commits Django does not report"
        )

    with transaction.atomic(using=alias, savepoint=False):
        if isinstance(compiler.query, InsertQuery):
            result, rows = _insert(compiler, table, argument)
        else:
            execute = partial(getattr(compiler, method), argument)
            result, rows = _change(compiler, table, execute)

        events = table.events(alias, rows)
        if events:
            transaction.on_commit(_Recorder(_watch(connection), recorder(events)), using=alias)
    return result


# --- Transactions -------------------------------------------------------------------------------------------------------


class _Watched:
    """What is known of the open transaction of a connection."""

    def __init__(self) -> None:
        # With the number of functions that waited for the commit.
        self.savepoints = Savepoints()

        # Whether only a rollback can follow.
        self.is_failed = False


@dataclass(frozen=True)
class _Recorder:
    """A function that records changes after the commit, if that was not a rollback."""

    watched: _Watched
    record: Callable[[], None]

    def __call__(self) -> None:
        if not self.watched.is_failed:
            self.record()


_watched: WeakKeyDictionary[Any, _Watched] = WeakKeyDictionary()
"""The connections that wrote to a tracked table, which belong to one thread each."""

_run_hooks = BaseDatabaseWrapper.run_and_clear_commit_hooks


def _record_and_run_hooks(connection: Any) -> None:
    """Record the changes that a connection has committed, and run the functions of the application that wait for it.

    Of these functions, Django runs none after one that fails. Neither they nor the changes depend on each other here.
    """
    try:
        call_all(_remove_recorders(connection, 0))
    finally:
        _run_hooks(connection)


def _watch(connection: Any) -> _Watched:
    """Follow the statements of *connection* from now on.

    Django keeps the functions of a savepoint that was rolled back without ``atomic``, and runs them too after a commit that the
    database answered by a rollback.
    """
    if connection not in _watched:
        _watched[connection] = _Watched()

        # At the beginning, because a block that adds a wrapper removes the last one.
        connection.execute_wrappers.insert(0, _execute_watched)

    # A statement was executed, so the transaction has not failed, whatever became of the one before.
    watched = _watched[connection]
    watched.is_failed = False
    return watched


def _execute_watched(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Execute SQL, and forget or record the changes that the database thereby rolls back or commits."""
    connection = context["connection"]
    watched = _watched[connection]
    statement = sql if isinstance(sql, str) else ""
    if commits_first(connection.vendor, statement):
        call_all(_remove_recorders(connection, 0))

    try:
        result = execute(sql, params, many, context)
    except Error as error:
        outcome = outcome_of_error(connection.vendor, error.__cause__ or error)
        if outcome == "failed":
            watched.is_failed = True
        elif outcome == "rolled back":
            _remove_recorders(connection, 0)
        raise

    verb, name = control_of(statement)
    if verb == "commit":
        call_all(_remove_recorders(connection, 0))
    elif verb:
        kept = watched.savepoints.follow(verb, name, len(connection.run_on_commit))
        _remove_recorders(connection, kept)
        watched.is_failed = False
    return result


def _remove_recorders(connection: Any, start: int) -> list[_Recorder]:
    """Remove the functions of this module that wait for the commit, from the one at *start* on, and return them."""
    waiting = connection.run_on_commit
    late = waiting[start:]
    waiting[start:] = [entry for entry in late if not isinstance(entry[1], _Recorder)]
    return [entry[1] for entry in late if isinstance(entry[1], _Recorder)]


# --- UPDATE and DELETE --------------------------------------------------------------------------------------------------


def _change(compiler: Any, table: _Table, execute: partial[Any]) -> tuple[Any, list[ChangedRow]]:
    """Execute an UPDATE or DELETE, and return its result and the rows that it changed."""
    query, connection = compiler.query, compiler.connection
    fields = table.written_by(query)
    if fields is None:
        return execute(), []

    selected = query.chain(klass=Query)
    selected.clear_ordering(force=True)
    alias = connection.alias
    instances = QuerySet(model=query.model, query=selected, using=alias)
    condition = Q(pk__in=instances.values("pk"))
    before = table.rows(alias, condition, fields)

    # A row that another transaction commits from now on must not be changed without having been read.
    if connection.features.has_select_for_update:
        _limit(query, before, connection)

    result = execute()
    if isinstance(query, DeleteQuery):
        after = table.rows_of(alias, list(before), fields)
        return result, list(changed_rows(before, after))

    moved = _moved_keys(query, table, before)
    keys = [moved.get(key, key) for key in before]
    after = table.rows_of(alias, keys, fields)
    changed = changed_rows(before, after, moved)
    return result, [_as_update(row, table, query) for row in changed]


def _limit(query: Any, rows: Rows, connection: Any) -> None:
    """Limit an UPDATE or DELETE to *rows*."""
    # For an empty list Django executes no statement at all, and then its own callers miss the number of rows.
    if not rows:
        query.where.add(ExtraWhere(["1 = 0"], ()), AND)
        return

    # Where the server binds parameters, it accepts 65,535, so the keys are written into the text.
    if getattr(connection.features, "uses_server_side_binding", False):
        selected = QuerySet(model=query.model, using=connection.alias).filter(pk__in=list(rows)).query
        compiler = selected.get_compiler(connection=connection)
        sql, parameters = compiler.compile(selected.where)
        text = connection.ops.compose_sql(sql, parameters)
        query.where.add(ExtraWhere([text.replace("%", "%%")], ()), AND)
    else:
        query.add_filter("pk__in", list(rows))


def _moved_keys(query: Any, table: _Table, before: Rows) -> dict[Key, Key]:
    """Return the new keys of rows, as far as an UPDATE sets parts of the primary key to values."""
    written = _written_values(query, table.key_fields)
    values = {field: value for field, value in written.items() if value is not EXPRESSION}
    if not values:
        return {}

    moved = {}
    for key in before:
        pairs = zip(table.key_fields, parts_of(key), strict=True)
        moved[key] = key_of(values.get(field, part) for field, part in pairs)
    return moved


def _written_values(query: Any, fields: Iterable[Any]) -> dict[Any, Any]:
    """Return the values that an UPDATE gives to *fields*; those that an expression computes are not known."""
    written = {field: value for field, _, value in query.values}

    values = {}
    for field in fields:
        if field not in written:
            continue

        value = written[field]
        if hasattr(value, "resolve_expression"):
            values[field] = EXPRESSION
            continue

        # The value of a foreign key can be an object; the column has the field of it that the key refers to.
        if hasattr(value, "prepare_database_save"):
            value = value.prepare_database_save(field)
        values[field] = field.to_python(value)
    return values


def _as_update(row: ChangedRow, table: _Table, query: Any) -> ChangedRow:
    """Return a row that an UPDATE changed. If it cannot be found again, an expression has changed its key."""
    if row.after is not None or row.before is None:
        return row

    # Only recorded fields can be shown; the entry id names the row in any case.
    values = _written_values(query, table.fields)
    written = {field.name: value for field, value in values.items()}
    return row._replace(after=row.before | written)


# --- INSERT -------------------------------------------------------------------------------------------------------------


def _insert(compiler: Any, table: _Table, returning_fields: Sequence[Any] | None) -> tuple[Any, list[ChangedRow]]:
    """Execute an INSERT; return the rows that its caller wants returned, and those that it inserted or updated."""
    query, connection = compiler.query, compiler.connection
    if not connection.features.can_return_rows_from_bulk_insert:
        raise AuditValueError(
            f"database {connection.alias!r}: expected one that returns the rows of an INSERT"
            f" (PostgreSQL, SQLite 3.35, MariaDB 10.5) for the tracked {table.label}, got {connection.display_name}"
        )

    existing: Rows = {}
    if query.on_conflict == OnConflict.UPDATE:
        existing = table.conflicting_rows(connection.alias, query)

    inserted = _inserted_rows(compiler, table)
    after = {table.key_of(row): table.recorded(row) for row in inserted}
    before = {key: existing[key] for key in after if key in existing}
    changed = list(changed_rows(before, after))

    if not returning_fields:
        return [], changed
    returned = [[row[field.name] for field in returning_fields] for row in inserted]
    return returned, changed


def _inserted_rows(compiler: Any, table: _Table) -> list[Row]:
    """Execute an INSERT, and return all columns of the rows that it wrote, as the database returns them."""
    fields = table.model._meta.local_concrete_fields
    names = [field.name for field in fields]

    # If the conflict of a single object is ignored, Django before 6.0 finds None in place of its row.
    convert = compiler.apply_converters
    compiler.apply_converters = lambda rows, converters: convert(filter(None, rows), converters)
    rows = compiler.execute_sql(fields)
    return [dict(zip(names, row, strict=True)) for row in rows if row]


# --- Tables -------------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """A tracked table: of a model, or of a many-to-many field of one."""

    model: Any
    owner: Any
    """The model that is tracked: *model* itself, or the one with the field *relation*."""

    options: TrackedFields
    relation: Any
    """The many-to-many field whose pairs are the rows; None for the table of a model."""

    @property
    def label(self) -> str:
        """The name of the tracked model in operations and entry ids."""
        label: str = self.owner._meta.label_lower
        return label

    @property
    def fields(self) -> list[Any]:
        """The columns that are recorded."""
        meta = self.model._meta
        if self.relation is not None:
            return [meta.get_field(name) for name in self._ends]

        return [field for field in _columns(meta) if self.options.includes(field.name)]

    @property
    def _ends(self) -> tuple[str, str]:
        """The fields of a pair: the object with the relation, and the related one."""
        relation = self.relation
        source = relation.m2m_field_name()
        return source, relation.m2m_reverse_field_name()

    @property
    def key_fields(self) -> list[Any]:
        """The fields of the primary key."""
        return _key_fields(self.model._meta)

    def key_of(self, row: Row) -> Key:
        """Return the primary key of a row that has all columns."""
        return key_of(row[field.name] for field in self.key_fields)

    def recorded(self, row: Row) -> Row:
        """Return *row* with the recorded columns only."""
        return {field.name: row[field.name] for field in self.fields}

    def written_by(self, query: Any) -> list[Any] | None:
        """Return the recorded columns that *query* writes; None if it changes none of them and no key."""
        if isinstance(query, DeleteQuery):
            return self.fields

        written = {field for field, _, _ in query.values}
        recorded = [field for field in self.fields if field in written]
        if recorded or written.intersection(self.key_fields):
            return recorded
        return None

    def rows(self, alias: str, condition: Q, fields: Sequence[Any]) -> Rows:
        """Return the rows that meet *condition*, locked."""
        every = QuerySet(model=self.model, using=alias)
        selected = every.filter(condition).order_by()

        # Without a lock, MariaDB shows a row that is unchanged as it was when the transaction began.
        selected = selected.select_for_update()

        names = [field.name for field in fields]
        columns = [field.attname for field in fields]
        return {key: dict(zip(names, row, strict=True)) for key, *row in selected.values_list("pk", *columns)}

    def rows_of(self, alias: str, keys: Sequence[Key], fields: Sequence[Any]) -> Rows:
        """Return the rows with these primary keys, locked."""
        found: Rows = {}
        for batch in in_batches(keys):
            condition = Q(pk__in=batch)
            found |= self.rows(alias, condition, fields)
        return found

    def conflicting_rows(self, alias: str, query: Any) -> Rows:
        """Return the rows with which the objects of an INSERT conflict, locked."""
        meta = self.model._meta
        keys = [query.unique_fields] if query.unique_fields else _unique_keys(meta)
        conditions = [
            Q(**{field.attname: _inserted_value(instance, field) for field in key})
            for key in keys
            for instance in query.objs
        ]

        found: Rows = {}
        for batch in in_batches(conditions):
            condition = reduce(or_, batch)
            found |= self.rows(alias, condition, self.fields)
        return found

    def events(self, alias: str, rows: Iterable[ChangedRow]) -> list[TrackedEvent]:
        """Return the events of *rows* that changed in the database *alias*."""
        make = self._model_events if self.relation is None else self._relation_events
        found = list(make(rows))
        if alias != DEFAULT_DB_ALIAS:
            for event in found:
                event.metadata["database"] = alias
        return found

    def _model_events(self, rows: Iterable[ChangedRow]) -> Iterator[TrackedEvent]:
        for row in rows:
            operation = f"{self.label}.{row.verb}"
            changes = row.changes(self.options)

            # A row whose key was changed has two.
            keys = [key_text(key) for key in row.keys]
            entry_ids = [f"{self.label}:{key}" for key in keys]
            yield TrackedEvent(operation, entry_ids, {"changes": changes})

    def _relation_events(self, rows: Iterable[ChangedRow]) -> Iterator[TrackedEvent]:
        """Yield an event for each object whose related objects changed."""
        related: dict[Key, _Pairs] = defaultdict(_new_pairs)
        source, target = self._ends

        def add(side: str, pair: Row | None) -> None:
            if pair is not None:
                pairs = related[pair[source]]
                pairs[side].append(pair[target])

        # A changed pair is one that was removed, and another one.
        for row in rows:
            add("removed", row.before)
            add("added", row.after)

        for key, pairs in related.items():
            yield self._relation_event(key, pairs)

    def _relation_event(self, key: Key, pairs: _Pairs) -> TrackedEvent:
        name = self.relation.name
        entry_ids = [f"{self.label}:{key_text(key)}"]
        shown: dict[str, Any] = dict(pairs)

        # The related objects are the value of the field.
        if name in self.options.mask:
            shown = dict.fromkeys(pairs, MASK)
        else:
            label = self.relation.remote_field.model._meta.concrete_model._meta.label_lower
            for others in pairs.values():
                entry_ids += [f"{label}:{key_text(other)}" for other in others]

        return TrackedEvent(f"{self.label}.update", entry_ids, {"changes": {name: shown}})


_Pairs = dict[str, list[Key]]
"""The keys of related objects that were ``added`` and ``removed``."""


def _new_pairs() -> _Pairs:
    return defaultdict(list)


def _table_of(model: Any) -> _Table | None:
    """Return the table of *model* if its changes are recorded."""
    # The model of a many-to-many field is not declared: it belongs to the model with the field.
    declared = model._meta.auto_created or model
    owner = declared._meta.concrete_model
    options = _tracked.get(owner._meta.label_lower)
    if options is None:
        return None
    if declared is model:
        return _Table(owner, owner, options, None)

    for relation in owner._meta.local_many_to_many:
        is_own = relation.remote_field.through is model
        if is_own and options.includes(relation.name):
            return _Table(model, owner, options, relation)
    return None


def _inserted_value(instance: Any, field: Any) -> Any:
    """Return the value of *field* in the row that *instance* becomes, or the expression by which the database computes it."""
    if not _is_generated(field):
        value = getattr(instance, field.attname)
        # Django before 5.1 has no SQL for it but in an INSERT.
        return field.db_default if isinstance(value, _DATABASE_DEFAULT) else value

    values: dict[Any, Any] = {}
    for other in _columns(instance._meta):
        column = other.get_col(None)
        value = _inserted_value(instance, other)
        if not hasattr(value, "resolve_expression"):
            # That of a foreign key has the type of the field that the key refers to.
            value = Value(value, column.output_field)

        # A condition refers to the column with its field as its type.
        compared = other.get_col(None, other)
        values |= {column: value, compared: value}

    # As Django does for the definition; before that, a column has several names, in conditions as text.
    query = Query(field.model, alias_cols=False)
    resolved = field.expression.resolve_expression(query, allow_joins=False)
    return resolved.replace_expressions(values)


def _unique_keys(meta: Any) -> list[list[Any]]:
    """Return the fields of each key that can conflict."""
    keys = [[field] for field in meta.local_concrete_fields if field.unique]
    primary = _key_fields(meta)
    if len(primary) > 1:
        keys.append(primary)
    together = list(meta.unique_together)
    together += [constraint.fields for constraint in meta.total_unique_constraints]

    for names in together:
        fields = [meta.get_field(name) for name in names]
        keys.append(fields)
    return keys
