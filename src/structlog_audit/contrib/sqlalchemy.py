"""`track`: records the changes of SQLAlchemy models, as the database made them. Needs SQLAlchemy 2.0 or newer.

**Scope.** Every ``insert()``, ``update()`` and ``delete()`` that a connection executes on a tracked table, whatever caused it:
a flush with its cascades and association tables, bulk statements of a session, Core, async sessions. SQL as text, and what
the database does itself (triggers, ``ON DELETE CASCADE``), is not seen. The events of a session miss half of these, and the
history of an attribute knows the value before only if it was loaded. All writes pass the execution of statements.

**Guarantees.** Rows are read before and after each statement, in its transaction. Where the database can lock rows, they are
locked, and the statement is limited to them. Events are recorded once the database has committed, also if a session takes part
in a transaction that began outside of it; a savepoint that is rolled back takes its events with it.

**Performance.** Two more queries per UPDATE and DELETE of a tracked table, per set of parameters, and one per INSERT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

try:
    from sqlalchemy import Delete, Engine, Insert, Table, Update, event, inspect, select, tuple_
    from sqlalchemy.orm import Mapper
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.sqlalchemy needs SQLAlchemy: pip install 'structlog-audit[sqlalchemy]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.contrib.tracked_changes import (
    EXPRESSION,
    ChangedRow,
    Key,
    Row,
    Rows,
    TrackedEvent,
    TrackedFields,
    changed_rows,
    key_text,
    recorder,
    tracked_fields,
)
from structlog_audit.exceptions import AuditTypeError, AuditValueError

M = TypeVar("M", bound=type)

_KEYS_PER_QUERY = 500
"""Databases limit the parameters of a statement."""

_INFO = "structlog_audit"
"""The key of `_Transaction` in the dictionary ``info`` of a connection."""

_tracked: dict[type, TrackedFields] = {}
"""The recorded fields of each tracked model and declarative base."""

_tables: dict[Table, _Table | None] = {}
"""What is known of each table that was written to; None if it is not tracked."""

_dialects: WeakSet[Any] = WeakSet()
"""The dialects whose commits and savepoints are followed."""


def track(model: M, *, fields: Iterable[str] | None = None, exclude: Iterable[str] = (), mask: Iterable[str] = ()) -> M:
    """Record the changes of *model* as events, and return it, so that this is a class decorator as well.

    An event is named ``table.create``, ``.update`` or ``.delete``, its entry id is ``table:key``, and its metadata has
    ``changes``: for each changed attribute its values ``before`` and ``after``. A row of an association table without a model
    is named by the objects that it refers to.

    Args:
        model: A mapped class, or a declarative base, which stands for all of its models, also those declared later.
        fields: The attributes to record; all by default.
        exclude: The attributes not to record.
        mask: The attributes whose changes are recorded without their values.

    Raises:
        AuditTypeError: *model* is neither a mapped class with a table of its own nor a declarative base, or an argument is not
            a list of names.
        AuditValueError: The model has no such attribute, or the parent of a joined table is not tracked.
    """
    mappers = _mappers_of(model)
    where = f"track({model.__name__})"

    # The row of a child has only its own attributes.
    parent = mappers[0].inherits if _is_mapped(model) else None
    if parent is not None and not any(issubclass(parent.class_, known) for known in _tracked):
        raise AuditValueError(
            f"{where}: its parent {parent.class_.__name__} holds part of its attributes: track it before"
        )

    known = {name for mapper in mappers for name in _names_of(mapper).values()}
    _tracked[model] = tracked_fields(where, known, fields, exclude, mask)
    _tables.clear()

    listeners: dict[str, Callable[..., Any]] = {
        "before_execute": _before_execute,
        "after_execute": _after_execute,
        "begin": _begin,
        "rollback": _begin,
    }
    if not event.contains(Engine, "begin", _begin):
        for name, listener in listeners.items():
            event.listen(Engine, name, listener, **({"retval": True} if name == "before_execute" else {}))
        event.listen(Mapper, "after_configured", _tables.clear)
    return model


def _is_mapped(model: Any) -> bool:
    return inspect(model, raiseerr=False) is not None


def _mappers_of(model: Any) -> list[Any]:
    """Return the mapper of a class, or those of all models of a declarative base."""
    mapper = inspect(model, raiseerr=False) if isinstance(model, type) else None
    if isinstance(mapper, Mapper):
        if mapper.inherits is not None and mapper.local_table is mapper.inherits.local_table:
            raise AuditTypeError(
                f"model={model!r}: expected a model with a table of its own; track {mapper.inherits.class_!r}"
            )
        return [mapper]

    registry = getattr(model, "registry", None)
    if not isinstance(model, type) or registry is None:
        raise AuditTypeError(
            f"model={model!r}: expected a mapped class or a declarative base, got {type(model).__name__}"
        )
    return [found for found in registry.mappers if issubclass(found.class_, model)]


def _names_of(mapper: Any) -> dict[Any, str]:
    """Return the names of the attributes of the columns of a mapper's own table."""
    columns = mapper.local_table.columns
    return {
        column: mapper.get_property_by_column(column).key for column in columns if column in mapper._columntoproperty
    }


# --- Transactions -------------------------------------------------------------------------------------------------------


class _Transaction:
    """The changes of a transaction that is not committed yet."""

    def __init__(self) -> None:
        self.recorders: list[Callable[[], None]] = []
        self.savepoints: dict[str, int] = {}
        self.statement: _Statement | None = None


def _transaction(connection: Any) -> _Transaction:
    found: _Transaction = connection.info.setdefault(_INFO, _Transaction())
    return found


def _begin(connection: Any) -> None:
    """Forget the changes of the transaction before, which has been rolled back."""
    # The first statement of a transaction is prepared before the transaction begins.
    transaction = _transaction(connection)
    transaction.recorders.clear()
    transaction.savepoints.clear()


def _follow(dialect: Any) -> None:
    """Follow the commits and savepoints of *dialect*.

    The event of a commit comes before the commit, which can still fail, and that of a savepoint does not know its name.
    """
    if dialect not in _dialects:
        for name, function in _FOLLOWED.items():
            setattr(dialect, name, partial(function, getattr(dialect, name)))
        _dialects.add(dialect)


def _commit(commit: Callable[..., None], connection: Any, *arguments: Any) -> None:
    commit(connection, *arguments)
    _record(connection)


def _savepoint(begin: Callable[..., None], connection: Any, name: str) -> None:
    begin(connection, name)
    transaction = _transaction(connection)
    transaction.savepoints[name] = len(transaction.recorders)


def _rollback_to_savepoint(rollback: Callable[..., None], connection: Any, name: str) -> None:
    rollback(connection, name)
    transaction = _transaction(connection)

    # A savepoint that is not known began before the first change.
    del transaction.recorders[transaction.savepoints.get(name, 0) :]


_FOLLOWED: dict[str, Callable[..., None]] = {
    "do_commit": _commit,
    "do_commit_twophase": _commit,
    "do_savepoint": _savepoint,
    "do_rollback_to_savepoint": _rollback_to_savepoint,
}
"""The methods of a dialect that decide what becomes of changes."""


def _record(connection: Any) -> None:
    transaction: _Transaction | None = connection.info.pop(_INFO, None)
    if transaction is not None:
        for record in transaction.recorders:
            record()


# --- Statements ---------------------------------------------------------------------------------------------------------


class _Statement(NamedTuple):
    """A statement that is being executed, and what its table had before."""

    element: Any
    table: _Table
    parameters: list[Mapping[str, Any]]
    before: list[Rows]
    """The rows that an UPDATE or DELETE selects, by sets of parameters; those with which an INSERT conflicts."""

    returns: tuple[Any, ...]
    """The columns that were added to an INSERT to learn what it wrote."""


def _before_execute(connection: Any, element: Any, multiple: Any, single: Any, options: Any) -> tuple[Any, Any, Any]:
    """Read the rows that a statement is going to change, and return the statement limited to them."""
    if isinstance(element, Insert | Update | Delete):
        table = _table_of(element.table)
        if table is not None:
            _follow(connection.dialect)
            parameters = list(multiple) or [single]
            reader = _Reader(connection, table, options)
            prepare = _prepare_insert if isinstance(element, Insert) else _prepare_change
            statement = prepare(reader, element, parameters)
            _transaction(connection).statement = statement
            element = statement.element
    return element, multiple, single


def _after_execute(connection: Any, element: Any, _multiple: Any, _single: Any, options: Any, result: Any) -> None:
    """Read the rows again, and keep the difference until the commit."""
    if not isinstance(element, Insert | Update | Delete):
        return
    transaction = _transaction(connection)
    statement, transaction.statement = transaction.statement, None
    if statement is None or statement.element is not element:
        return

    reader = _Reader(connection, statement.table, options)
    finish = _inserted if isinstance(element, Insert) else _changed
    events = [statement.table.event(row) for row in finish(reader, statement, result)]
    if events:
        transaction.recorders.append(recorder(events))
    if connection._is_autocommit_isolation():
        _record(connection)


def _prepare_change(reader: _Reader, element: Any, parameters: list[Mapping[str, Any]]) -> _Statement:
    conditions = [] if element.whereclause is None else [element.whereclause]
    before = [reader.rows(*conditions, parameters=given, lock=True) for given in parameters]

    # A row that another transaction commits from now on must not be changed without having been read. SQLite lets none commit.
    if len(before) == 1 and reader.connection.dialect.name != "sqlite":
        element = element.where(reader.table.has_keys(list(before[0])))
    return _Statement(element, reader.table, parameters, before, ())


def _changed(reader: _Reader, statement: _Statement, _: Any) -> Iterator[ChangedRow]:
    """Yield the rows that an UPDATE or DELETE changed."""
    before = {key: row for rows in statement.before for key, row in rows.items()}
    after = reader.rows_of(list(before))
    if isinstance(statement.element, Delete):
        yield from changed_rows(before, after)
        return

    # A row that is not there any more has another key now.
    moved: dict[Key, Key] = {}
    for rows, parameters in zip(statement.before, statement.parameters, strict=True):
        for key in rows.keys() - after.keys():
            moved[key] = reader.new_key(statement.element, parameters, key)
    after |= reader.rows_of(list(moved.values()))
    for row in changed_rows(before, after, moved):
        yield row if row.after is not None else statement.table.with_unknown_key(row)


def _prepare_insert(reader: _Reader, element: Any, parameters: list[Mapping[str, Any]]) -> _Statement:
    table = reader.table
    is_upsert = element._post_values_clause is not None
    existing = reader.conflicting_rows(element, parameters) if is_upsert else {}

    keys = [column.key for column in table.key_columns]
    is_known = bool(table.key_columns) and all(name in given for given in parameters for name in keys)
    is_plain = not (is_upsert or element._multi_values or element.select is not None) and bool(table.key_columns)

    # A plain INSERT returns its key anyway. Of any other, the caller has no means to learn the keys, so it expects no rows.
    returns: tuple[Any, ...] = ()
    if not element._returning and not (is_plain and (is_known or len(parameters) == 1 or element._return_defaults)):
        returns = tuple(table.table.columns)
        element = element.returning(*returns)
    return _Statement(element, table, parameters, [existing], returns)


def _inserted(reader: _Reader, statement: _Statement, result: Any) -> Iterator[ChangedRow]:
    """Yield the rows that an INSERT inserted or updated."""
    table, element = statement.table, statement.element
    if statement.returns:
        names = [table.names[column] for column in statement.returns]
        rows = [dict(zip(names, row, strict=True)) for row in result.all()]
        after = {table.key_of(row): table.recorded(row) for row in rows}
    elif element._returning:
        after = reader.returned_rows(result)
    else:
        keys = [tuple(row) for row in result.inserted_primary_key_rows]
        after = reader.rows_of([key if len(key) > 1 else key[0] for key in keys])

    existing = statement.before[0]
    yield from changed_rows({key: existing[key] for key in after if key in existing}, after)


class _Reader(NamedTuple):
    """Reads rows of a table in the transaction of a connection."""

    connection: Any
    table: _Table
    options: Mapping[str, Any]

    def rows(self, *conditions: Any, parameters: Mapping[str, Any] | None = None, lock: bool = False) -> Rows:
        """Return the rows that meet *conditions*."""
        table = self.table
        query = select(*table.table.columns).where(*conditions)
        if lock:
            query = query.with_for_update()

        schemas = {name: value for name, value in self.options.items() if name == "schema_translate_map"}
        result = self.connection.execute(query, parameters or {}, execution_options=schemas)
        names = list(table.names.values())
        found = [dict(zip(names, row, strict=True)) for row in result]
        return {table.key_of(row): table.recorded(row) for row in found}

    def rows_of(self, keys: Sequence[Key]) -> Rows:
        """Return the rows with these keys."""
        found: Rows = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            found |= self.rows(self.table.has_keys(keys[start : start + _KEYS_PER_QUERY]))
        return found

    def new_key(self, element: Any, parameters: Mapping[str, Any], key: Key) -> Key:
        """Return the key that an UPDATE with *parameters* gives to the row with *key*, if it sets the key to a value."""
        compiled = element.compile(dialect=self.connection.dialect, column_keys=list(parameters))
        values = compiled.params | parameters
        parts = key if isinstance(key, tuple) else (key,)
        columns = self.table.columns_of_key
        new = tuple(values.get(column.key, part) for column, part in zip(columns, parts, strict=True))
        return new if len(new) > 1 else new[0]

    def returned_rows(self, result: Any) -> Rows:
        """Return the rows of an INSERT whose caller will read what it returns, as far as that names them."""
        columns = self.table.key_columns
        rows = result.all()
        result._rewind(rows)
        keys = [tuple(row._mapping.get(column) for column in columns) for row in rows]
        if not columns or any(None in key for key in keys):
            raise AuditValueError(
                f"insert into the tracked {self.table.label}: expected returning() with its primary key, or without it at all"
            )
        return self.rows_of([key if len(key) > 1 else key[0] for key in keys])

    def conflicting_rows(self, element: Any, parameters: list[Mapping[str, Any]]) -> Rows:
        """Return the rows with which the rows of an INSERT conflict, locked."""
        found: Rows = {}
        given = [*_inserted_values(element, parameters)]
        for columns in self.table.unique_keys():
            for values in given:
                if all(column.key in values for column in columns):
                    conditions = [column == values[column.key] for column in columns]
                    found |= self.rows(*conditions, lock=True)
        return found


def _inserted_values(element: Any, parameters: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the values of each row of an INSERT by the keys of their columns."""
    fixed = {
        _key_of_column(column): getattr(value, "value", value) for column, value in (element._values or {}).items()
    }
    for given in parameters:
        yield fixed | dict(given)
    for rows in element._multi_values:
        for row in rows:
            yield {_key_of_column(column): getattr(value, "value", value) for column, value in row.items()}


def _key_of_column(column: Any) -> str:
    return column if isinstance(column, str) else column.key


# --- Tables -------------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """A tracked table, and the names of its columns in events."""

    table: Any
    names: dict[Any, str]
    fields: TrackedFields
    is_association: bool
    """Whether no model has this table: its rows are pairs of objects."""

    @property
    def label(self) -> str:
        """The name of the table in operations and entry ids."""
        label: str = self.table.fullname
        return label

    @property
    def key_columns(self) -> list[Any]:
        """The columns of the primary key, which an association table may lack."""
        return list(self.table.primary_key.columns)

    @property
    def columns_of_key(self) -> list[Any]:
        """The columns that tell rows apart."""
        return self.key_columns or list(self.table.columns)

    def key_of(self, row: Row) -> Key:
        """Return the key of a row that has all columns."""
        key = tuple(row[self.names[column]] for column in self.columns_of_key)
        return key if len(key) > 1 else key[0]

    def recorded(self, row: Row) -> Row:
        """Return *row* with the recorded columns only."""
        return {name: value for name, value in row.items() if self.fields.includes(name)}

    def has_keys(self, keys: Sequence[Key]) -> Any:
        """Return the condition that a row has one of these keys."""
        columns = self.columns_of_key
        return columns[0].in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)

    def unique_keys(self) -> Iterator[list[Any]]:
        """Yield the columns of each key that can conflict."""
        if self.key_columns:
            yield self.key_columns
        for constraint in self.table.constraints:
            if constraint.__visit_name__ == "unique_constraint":
                yield list(constraint.columns)
        for index in self.table.indexes:
            if index.unique:
                yield list(index.columns)

    def with_unknown_key(self, row: ChangedRow) -> ChangedRow:
        """Return a row whose key an expression has changed, so that it cannot be found again."""
        names = [self.names[column] for column in self.columns_of_key]
        return row._replace(after={**(row.before or {}), **dict.fromkeys(names, EXPRESSION)})

    def event(self, row: ChangedRow) -> TrackedEvent:
        """Return the event of *row*."""
        entry_ids = [entry_id for key in row.keys for entry_id in self._entry_ids(key)]
        return TrackedEvent(f"{self.label}.{row.verb}", entry_ids, {"changes": row.changes(self.fields)})

    def _entry_ids(self, key: Key) -> list[str]:
        if not self.is_association:
            return [f"{self.label}:{key_text(key)}"]

        # A masked column names its object neither here nor in the changes.
        parts = key if isinstance(key, tuple) else (key,)
        return [
            f"{foreign_key.column.table.fullname}:{key_text(part)}"
            for column, part in zip(self.columns_of_key, parts, strict=True)
            for foreign_key in column.foreign_keys
            if self.names[column] not in self.fields.mask
        ]


def _table_of(table: Any) -> _Table | None:
    """Return what is tracked of *table*."""
    if table not in _tables:
        _tables[table] = next(_find_table(table), None)
    return _tables[table]


def _find_table(table: Any) -> Iterator[_Table]:
    # A model that is tracked itself takes precedence over its base.
    for model in sorted(_tracked, key=_is_mapped, reverse=True):
        fields = _tracked[model]
        mappers = _mappers_of(model)
        for mapper in mappers:
            if mapper.local_table is not None and mapper.local_table == table:
                own = mapper.local_table
                named = _names_of(mapper)
                names = {column: named.get(column, column.key) for column in own.columns}
                yield _Table(own, names, fields, is_association=False)

    for model, fields in _tracked.items():
        for mapper in _mappers_of(model):
            for relationship in mapper.relationships:
                secondary = relationship.secondary
                if secondary is not None and secondary == table:
                    names = {column: column.key for column in secondary.columns}
                    yield _Table(secondary, names, fields._replace(fields=None), is_association=True)
