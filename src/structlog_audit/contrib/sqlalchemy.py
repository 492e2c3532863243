"""`track`: records the changes of SQLAlchemy models, as the database made them. Needs SQLAlchemy 2.0.21 or newer.

**Scope.** Every ``insert()``, ``update()`` and ``delete()`` that a connection executes on a tracked table, whatever caused it:
a flush with its cascades and association tables, bulk statements of a session, Core, async sessions. SQL as text, and what
the database does itself (triggers, ``ON DELETE CASCADE``), is not seen. The events of a session miss half of these, and the
history of an attribute knows the value before only if it was loaded. All writes pass the execution of statements.

**Guarantees.** Rows are read before and after each statement, in its transaction. Where the database can lock rows, they are
locked, and the statement is limited to them. Events are recorded once the database has committed, also if a session takes part
in a transaction that began outside of it. What a savepoint, an error or a deadlock rolls back is not recorded. A statement
whose changes cannot be known is refused.

**Performance.** Two more queries per UPDATE and DELETE of a tracked table, per set of parameters, at most one per INSERT; for
an upsert, one more for each row and unique key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from structlog_audit._version import check_versions

try:
    check_versions("sqlalchemy")
    from sqlalchemy import (
        Alias,
        BindParameter,
        Compiled,
        Connection,
        CursorResult,
        Delete,
        Engine,
        Insert,
        Join,
        Table,
        UniqueConstraint,
        Update,
        and_,
        bindparam,
        cast,
        event,
        false,
        inspect,
        literal,
        literal_column,
        or_,
        select,
        tuple_,
        type_coerce,
    )
    from sqlalchemy.orm import FromStatement, Mapper
    from sqlalchemy.orm.exc import UnmappedClassError, UnmappedColumnError
    from sqlalchemy.sql.dml import DMLState
    from sqlalchemy.sql.expression import StatementLambdaElement
    from sqlalchemy.sql.visitors import iterate
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.sqlalchemy needs SQLAlchemy: pip install 'structlog-audit[sqlalchemy]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.contrib.tracked_changes import (
    COMMITTING_BY_DDL,
    EXPRESSION,
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

_MOST_PARAMETERS = 10_000
"""PostgreSQL accepts 65,535, others fewer."""

_MOST_LIMITS = 100_000
"""The most parameters by which all sets together are limited to their rows: each set has as many as the largest one."""

_SCHEMAS = "schema_translate_map"
"""The option of an execution that changes the names of schemas."""

_INFO = "structlog_audit"
"""The key of `_Transaction` in the dictionary ``info`` of a connection."""

_PRIVATE: dict[type, frozenset[str]] = {
    Connection: frozenset({"_is_autocommit_isolation"}),
    CursorResult: frozenset({"_rewind"}),
    DMLState: frozenset({"_dict_parameters"}),
    Insert: frozenset(
        {
            "_inline",
            "_multi_values",
            "_post_values_clause",
            "_prefixes",
            "_return_defaults",
            "_returning",
            "_select_names",
            "_values",
        }
    ),
    StatementLambdaElement: frozenset({"_resolved"}),
    Update: frozenset({"_annotations", "_values"}),
}
"""The members of SQLAlchemy 2.0 and 2.1 that this module uses without a public interface to them.

What an INSERT writes and does in a conflict can be read there alone, a result that was read cannot be given back to its caller
otherwise, the isolation level of an engine is not in the options of its connections, and which columns the attributes of an
UPDATE are is known only where it is compiled.
"""

_tracked: dict[type, TrackedFields] = {}
"""The recorded fields of each tracked model and declarative base."""

_tables: dict[Table, _Table | None] = {}
"""The known facts of each table that was written to; None if it is not tracked."""

_dialects: WeakSet[Any] = WeakSet()
"""The dialects whose commits are followed."""


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
        AuditValueError: The model has no such attribute, a masked one is not recorded, the parent of a joined table is not
            tracked, or the values of the primary key are not hashable.
    """
    mappers = _mappers_of(model)
    where = f"track({model.__name__})"

    # The row of a child has only its own attributes, unless its table is complete.
    mapper = _mapper_of(model)
    parent = None if mapper is None or mapper.concrete else mapper.inherits
    if parent is not None and not any(issubclass(parent.class_, known) for known in _tracked):
        raise AuditValueError(
            f"{where}: its parent {parent.class_.__name__} holds part of its attributes: track it before"
        )

    # Those of models that are declared later are found with their first statement.
    for mapper in mappers:
        for table in _tables_of(mapper):
            _keys_of(table, mapper.primary_key)

    known = {name for mapper in mappers for table in _tables_of(mapper) for name in _names_of(mapper, table).values()}
    _tracked[model] = tracked_fields(where, known, fields, exclude, mask)
    _forget_tables()

    listeners: dict[str, Callable[..., Any]] = {
        "before_execute": _before_execute,
        "after_execute": _after_execute,
        "begin": _begin,
        "begin_twophase": _begin,
        "rollback": _begin,
        "rollback_twophase": _begin,
        "after_cursor_execute": _after_cursor_execute,
        "handle_error": _error,
    }
    if not event.contains(Engine, "begin", _begin):
        for name, listener in listeners.items():
            event.listen(Engine, name, listener, **({"retval": True} if name == "before_execute" else {}))
        event.listen(Mapper, "after_configured", _forget_tables)
    return model


def _mapper_of(model: Any) -> Any:
    """Return the mapper of a class, or None if it is not mapped, or not yet."""
    if not isinstance(model, type):
        return None
    try:
        return inspect(model, raiseerr=False)
    except UnmappedClassError:
        # An abstract class whose table is the union of those of its children, which are not all declared.
        return None


def _mappers_of(model: Any) -> list[Any]:
    """Return the mapper of a class, or those of all models of a declarative base."""
    mapper = _mapper_of(model)
    if mapper is not None:
        if not _tables_of(mapper):
            parent = mapper.inherits.class_.__name__
            raise AuditTypeError(
                f"model={model!r}: expected a model with a table of its own; track its parent {parent}"
            )
        return [mapper]

    if not isinstance(model, type) or not hasattr(model, "registry"):
        raise AuditTypeError(
            f"model={model!r}: expected a mapped class or a declarative base, got {type(model).__name__}"
        )
    return list(_mappers_below(model))


def _mappers_below(base: type) -> Iterator[Any]:
    models: list[type] = base.__subclasses__()
    for model in models:
        mapper = _mapper_of(model)
        if mapper is not None:
            yield mapper
        yield from _mappers_below(model)


def _tables_of(mapper: Any) -> list[Any]:
    """Return the tables that a mapper has for itself: none in the table of its parent, several in a join."""
    inherited = () if mapper.inherits is None else mapper.inherits.tables
    return [table for table in mapper.tables if table not in inherited]


def _names_of(mapper: Any, table: Any) -> dict[str, str]:
    """Return the names of the attributes of a mapper's *table* by the keys of their columns, also of those of its children."""
    # The collections of attributes are complete only when all models are declared, and fail before.
    names: dict[str, str] = {}
    for sharing in mapper.self_and_descendants:
        for column in table.columns:
            with suppress(UnmappedColumnError):
                names.setdefault(column.key, sharing.get_property_by_column(column).key)
    return names


# --- Transactions -------------------------------------------------------------------------------------------------------


class _Transaction:
    """The changes of a transaction that is not committed yet."""

    def __init__(self) -> None:
        # The functions that record the changes, in their order.
        self.recorders: list[Callable[[], None]] = []

        self.savepoints = Savepoints()

        # Whether only a rollback can follow.
        self.is_failed = False


def _transaction(connection: Any) -> _Transaction:
    found: _Transaction = connection.info.setdefault(_INFO, _Transaction())
    return found


def _begin(connection: Any, *_: Any) -> None:
    """Forget the changes of the transaction before, which has been rolled back."""
    # The first statement of a transaction is prepared before the transaction begins.
    _forget(_transaction(connection))


def _forget(transaction: _Transaction) -> None:
    transaction.recorders.clear()
    transaction.savepoints = Savepoints()
    transaction.is_failed = False


def _error(context: Any) -> None:
    """Forget the changes that the database rolled back by itself because of an error."""
    connection = context.connection
    if connection is None or context.is_disconnect:
        return

    transaction: _Transaction | None = connection.info.get(_INFO)
    if transaction is None:
        return

    error = context.original_exception
    outcome = outcome_of_error(connection.dialect.name, error)
    if outcome == "failed":
        transaction.is_failed = True
    elif outcome == "rolled back" or _has_ended(connection):
        _forget(transaction)


def _has_ended(connection: Any) -> bool:
    """Return whether the database has no transaction any more, as far as its driver knows; those of SQLite do."""
    driver = connection.connection.driver_connection
    return not getattr(driver, "in_transaction", True)


def _before_cursor_execute(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    """Record the changes of a transaction that this statement commits, even if it fails."""
    if commits_first(connection.dialect.name, statement):
        _record(connection)


def _after_cursor_execute(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    """Follow a savepoint, and a transaction that a statement of the application ends."""
    verb, name = control_of(statement)
    transaction: _Transaction | None = connection.info.get(_INFO) if verb else None
    if transaction is None:
        return

    if verb == "commit":
        _record(connection)
        return

    kept = transaction.savepoints.follow(verb, name, len(transaction.recorders))
    del transaction.recorders[kept:]
    if verb.startswith("rollback"):
        transaction.is_failed = False


def _follow(dialect: Any) -> None:
    """Follow the commits of *dialect*: their event comes before the commit, which can still fail."""
    if dialect in _dialects:
        return

    if dialect.name in COMMITTING_BY_DDL and not event.contains(
        Engine, "before_cursor_execute", _before_cursor_execute
    ):
        event.listen(Engine, "before_cursor_execute", _before_cursor_execute)
    for name, function in _FOLLOWED.items():
        original = getattr(dialect, name)
        setattr(dialect, name, partial(function, original))

    # At the end, because another thread relies on it. If both get here, the first of two records leaves nothing to the second.
    _dialects.add(dialect)


def _commit(commit: Callable[..., None], connection: Any, *arguments: Any) -> None:
    commit(connection, *arguments)
    _record(connection)


_FOLLOWED: dict[str, Callable[..., None]] = {
    "do_commit": _commit,
    "do_commit_twophase": _commit,
}
"""The methods of a dialect that commit."""


def _record(connection: Any) -> None:
    transaction: _Transaction | None = connection.info.pop(_INFO, None)
    if transaction is not None and not transaction.is_failed:
        call_all(transaction.recorders)


# --- Statements ---------------------------------------------------------------------------------------------------------


class _Statement(NamedTuple):
    """A statement that is being executed, and the rows of its table before."""

    element: Any
    table: _Table
    parameters: list[Mapping[str, Any]]
    before: list[Rows]
    """The rows that an UPDATE or DELETE selects, by sets of parameters; those with which an INSERT conflicts."""

    returns: tuple[Any, ...]
    """The columns that were added to an INSERT to learn its rows."""


def _before_execute(connection: Any, element: Any, multiple: Any, single: Any, options: Any) -> tuple[Any, Any, Any]:
    """Read the rows that a statement is going to change, and return the statement limited to them."""
    written = _written_by(element)
    table = None if written is None else _table_of(_table_written(written))
    if table is None:
        return element, multiple, single

    if isinstance(element, StatementLambdaElement | Compiled):
        verb = type(written).__name__.lower()
        raise AuditValueError(
            f"statement on the tracked {table.label}: expected an insert(), update() or delete(),"
            f" got a {type(element).__name__} of it; execute the {verb}() itself"
        )

    _follow(connection.dialect)
    reader = _Reader(connection, table, options)
    prepare = _prepare_insert if isinstance(written, Insert) else _prepare_change

    parameters = list(multiple) or [single]
    statement = prepare(reader, written, parameters)

    # Each set may have the keys of its rows, too.
    if multiple:
        multiple = statement.parameters

    # Its options lead from the execution to what was read before, whatever else is executed in between.
    if written is element:
        return statement.element.execution_options(**{_INFO: statement}), multiple, single
    loading = element.execution_options(**{_INFO: statement})
    loading.element = statement.element
    return loading, multiple, single


def _after_execute(connection: Any, element: Any, _multiple: Any, _single: Any, options: Any, result: Any) -> None:
    """Read the rows again, and keep the difference until the commit."""
    if _written_by(element) is None:
        return

    statement: _Statement | None = element.get_execution_options().get(_INFO)
    if statement is None:
        return

    reader = _Reader(connection, statement.table, options)
    finish = _inserted if isinstance(statement.element, Insert) else _changed
    rows = finish(reader, statement, result)
    events = [statement.table.event(row) for row in rows]
    if events:
        transaction = _transaction(connection)
        transaction.recorders.append(recorder(events))

    if connection._is_autocommit_isolation() or _has_ended(connection):
        _record(connection)


def _written_by(element: Any) -> Any:
    """Return the INSERT, UPDATE or DELETE that a statement is, or whose rows it loads as objects; None for another one."""
    # SQLAlchemy before 2.1 executes these, too.
    if isinstance(element, Compiled):
        element = element.statement
    if not getattr(element, "is_dml", False):
        return None

    if isinstance(element, StatementLambdaElement):
        element = element._resolved
    if isinstance(element, FromStatement):
        element = element.element
    return element if isinstance(element, Insert | Update | Delete) else None


def _table_written(element: Any) -> Any:
    """Return the table that a statement writes to; a session executes that of a joined child once for each of its tables."""
    annotations = element._annotations
    return annotations.get("_emit_insert_table", annotations.get("_emit_update_table", element.table))


def _prepare_change(reader: _Reader, element: Any, parameters: list[Mapping[str, Any]]) -> _Statement:
    if isinstance(element, Update):
        _check_one_table(reader.table, element)

    conditions = []
    if element.whereclause is not None:
        conditions.append(element.whereclause)
    before = [reader.rows(*conditions, parameters=given, lock=True) for given in parameters]

    # A row that another transaction commits from now on must not be changed without having been read. SQLite lets none commit.
    can_lock = reader.connection.dialect.name != "sqlite"
    if can_lock and len(before) == 1:
        keys = list(before[0])
        element = element.where(reader.table.has_keys(keys))
    elif can_lock:
        element, parameters = _limit_each(reader.table, element, parameters, before)
    return _Statement(element, reader.table, parameters, before, ())


def _limit_each(
    table: _Table, element: Any, parameters: list[Mapping[str, Any]], before: list[Rows]
) -> tuple[Any, list[Any]]:
    """Return a statement whose sets of parameters are limited to the rows that each of them selects."""
    # No list of keys can be a parameter here, so each key is one; where a set has fewer, NULL selects nothing.
    columns = table.columns_of_key
    most = max(len(rows) for rows in before)
    nulls = [key for rows in before for key in rows if None in parts_of(key)]
    size = most * len(columns)
    if size > _MOST_PARAMETERS or size * len(parameters) > _MOST_LIMITS or nulls:
        return element, parameters

    names = []
    conditions: list[Any] = [false()]
    for number in range(most):
        row = [f"{_INFO}_{number}_{column.key}" for column in columns]
        pairs = zip(columns, row, strict=True)
        equal = [column == bindparam(name, type_=column.type) for column, name in pairs]

        names.append(row)
        conditions.append(and_(*equal))

    limited = []
    nothing = (None,) * len(columns)
    for given, rows in zip(parameters, before, strict=True):
        values = dict(given)
        keys = list(rows)
        missing = most - len(keys)
        keys += [nothing] * missing

        for row, key in zip(names, keys, strict=True):
            parts = parts_of(key)
            values |= zip(row, parts, strict=True)
        limited.append(values)

    condition = or_(*conditions)
    return element.where(condition), limited


def _check_one_table(table: _Table, element: Any) -> None:
    """Raise an error if an UPDATE sets columns of several tables, as that of MariaDB can."""
    for column in element._values or {}:
        other = getattr(column, "table", table.table)
        known = _table_of(other)
        if known is None or known.label != table.label:
            raise AuditValueError(
                f"update of the tracked {table.label}: expected values for its columns, got one for {other};"
                " execute an update() for each table"
            )


def _changed(reader: _Reader, statement: _Statement, _: Any) -> Iterator[ChangedRow]:
    """Yield the rows that an UPDATE or DELETE changed."""
    before: Rows = {}
    for rows in statement.before:
        before |= rows

    # Without a lock, MariaDB shows a row that is unchanged as it was when the transaction began.
    after = reader.rows_of(list(before), lock=True)
    if isinstance(statement.element, Delete):
        yield from changed_rows(before, after)
        return

    # A row that is not there any more has another key now, and so has one whose place that row has taken.
    parameters_of = {
        key: parameters for rows, parameters in zip(statement.before, statement.parameters, strict=True) for key in rows
    }
    moved: dict[Key, Key] = {}
    written: dict[Key, dict[str, Any]] = {}
    gone = before.keys() - after.keys()
    stated = reader.stated_values(statement) if gone else {}
    while gone:
        taken: dict[Key, Key] = {}
        for key in gone:
            values = statement.table.written_values(stated, parameters_of[key])
            written[key] = values
            taken[key] = statement.table.moved_key(key, values)

        moved |= taken
        gone = before.keys() & set(taken.values()) - moved.keys()
    after |= reader.rows_of(list(moved.values()), lock=True)
    statement.table.share_equal_values(before, after, moved)

    for row in changed_rows(before, after, moved):
        if row.after is None and row.before is not None:
            values = written[row.key_before]
            known = statement.table.known_values(values)
            yield row._replace(after=row.before | known)
        else:
            yield row


def _prepare_insert(reader: _Reader, element: Any, parameters: list[Mapping[str, Any]]) -> _Statement:
    existing: Rows = {}
    if _may_conflict(element):
        existing = reader.conflicting_rows(element, parameters)

    _check_returned_key(reader.table, element)

    # Where the keys are not known, the caller has no means to learn them either, so it expects no rows.
    returns: tuple[Any, ...] = ()
    if not element._returning and not _is_key_known(reader.table, element, parameters):
        dialect = reader.connection.dialect
        if not dialect.insert_returning:
            raise AuditValueError(
                f"insert into the tracked {reader.table.label}: expected a database that returns the rows of an INSERT"
                f" (PostgreSQL, SQLite 3.35, MariaDB 10.5), or one row with a key in each statement, got {dialect.name}"
            )
        returns = tuple(reader.table.table.columns)
        element = element.returning(*returns)
    return _Statement(element, reader.table, parameters, [existing], returns)


def _check_returned_key(table: _Table, element: Any) -> None:
    """Raise an error if an INSERT returns rows to its caller that cannot be named."""
    # An INSERT keeps these columns when they were once read, also if returning() adds others later.
    if not element._returning:
        return

    returned = element.exported_columns
    if not all(returned.contains_column(column) for column in table.columns_of_key):
        raise AuditValueError(
            f"insert into the tracked {table.label}: expected returning() with its primary key, or without it at all"
        )


def _may_conflict(element: Any) -> bool:
    """Return whether an INSERT does not fail for each row that exists already: an upsert, or one with IGNORE or REPLACE."""
    return element._post_values_clause is not None or bool(element._prefixes)


def _is_key_known(table: _Table, element: Any, parameters: list[Mapping[str, Any]]) -> bool:
    """Return whether the result of an INSERT knows the keys of its rows."""
    if not table.table.primary_key:
        return False

    # Rows that may exist already, rows of a query, and several rows in one statement.
    is_query = element.select is not None
    if _may_conflict(element) or is_query or element._multi_values or element._inline:
        return False

    if len(parameters) == 1 or element._return_defaults:
        return True

    names = set(table.keys)
    return all(names <= given.keys() for given in parameters)


def _inserted(reader: _Reader, statement: _Statement, result: Any) -> Iterator[ChangedRow]:
    """Yield the rows that an INSERT inserted, updated or replaced."""
    if statement.returns:
        after = statement.table.rows_from(result)
    elif statement.element._returning:
        after = reader.returned_rows(result)
    else:
        keys = [key_of(row) for row in result.inserted_primary_key_rows]
        _check_keys(statement.table, keys)
        after = reader.rows_of(keys)

    # A row that is in the way of another one is left as it is, or replaced.
    (before,) = statement.before
    others = [key for key in before if key not in after]
    after |= reader.rows_of(others, lock=True)
    statement.table.share_equal_values(before, after, {})
    yield from changed_rows(before, after)


def _check_keys(table: _Table, keys: list[Key]) -> None:
    """Raise an error if the database made a key that the driver does not know."""
    for key in keys:
        if None in parts_of(key):
            raise AuditValueError(
                f"insert into the tracked {table.label}: expected a primary key that the statement states"
                " or the database numbers, got one that the database computed; add returning() with the key"
            )


class _Reader(NamedTuple):
    """Reads rows of a table in the transaction of a connection."""

    connection: Any
    table: _Table
    options: Mapping[str, Any]

    def rows(self, *conditions: Any, parameters: Mapping[str, Any] | None = None, lock: bool = False) -> Rows:
        """Return the rows that meet *conditions*."""
        query = select(*self.table.table.columns).where(*conditions)
        if lock:
            query = query.with_for_update()

        options = {}
        if _SCHEMAS in self.options:
            options[_SCHEMAS] = self.options[_SCHEMAS]
        result = self.connection.execute(query, parameters or {}, execution_options=options)
        return self.table.rows_from(result)

    def rows_of(self, keys: Sequence[Key], *, lock: bool = False) -> Rows:
        """Return the rows with these keys."""
        found: Rows = {}
        for batch in in_batches(keys):
            condition = self.table.has_keys(batch)
            found |= self.rows(condition, lock=lock)
        return found

    def stated_values(self, statement: _Statement) -> dict[str, Any]:
        """Return the parameters and expressions that an UPDATE states for columns, by their keys."""
        # The name of an attribute is that of a column only where the statement is compiled.
        names = list(statement.parameters[0])
        compiled: Any = statement.element.compile(dialect=self.connection.dialect, column_keys=names)
        return _by_keys(compiled.compile_state._dict_parameters or {})

    def returned_rows(self, result: Any) -> Rows:
        """Return the rows of an INSERT whose caller will read what it returns, as far as that names them."""
        rows = result.all()
        result._rewind(rows)

        columns = self.table.columns_of_key
        keys = [key_of(row._mapping[column] for column in columns) for row in rows]
        return self.rows_of(keys)

    def conflicting_rows(self, element: Any, parameters: list[Mapping[str, Any]]) -> Rows:
        """Return the rows with which the rows of an INSERT conflict, locked."""
        if element.select is not None:
            return self._conflicting_with_query(element, parameters)

        found: Rows = {}
        for values, given in _inserted_values(self.table.table, element, parameters):
            if self.table.computed_keys:
                row = self._with_computed(values)
                for column in self.table.computed_keys:
                    computed = select(row.columns[column.name])
                    values[column.key] = computed.scalar_subquery()

            for columns in self.table.unique_keys():
                conditions = [column == value for column, value in _values_of(columns, values)]

                # A key of which a function computes a part has no conflict that could be known before.
                if len(conditions) == len(columns):
                    found |= self.rows(*conditions, parameters=given, lock=True)
        return found

    def _conflicting_with_query(self, element: Any, parameters: list[Mapping[str, Any]]) -> Rows:
        """Return the rows with which the rows of a query conflict that are to be inserted."""
        query = element.select.subquery()
        selected = dict(zip(element._select_names, query.columns, strict=True))
        if self.table.computed_keys:
            rows = self._with_computed(selected).columns
            columns = [column for column in self.table.table.columns if column.name in rows]
            selected = {column.key: rows[column.name] for column in columns}

        found: Rows = {}
        for columns in self.table.unique_keys():
            pairs = _values_of(columns, selected)
            if len(pairs) == len(columns):
                condition = tuple_(*columns).in_(select(*[value for _, value in pairs]))
                for given in parameters:
                    found |= self.rows(condition, parameters=given, lock=True)
        return found

    def _with_computed(self, values: Mapping[str, Any]) -> Any:
        """Return the query of the rows of an INSERT with *values* and with the keys that the database computes of them."""
        dialect = self.connection.dialect
        computed = {column: _sql_of(column.computed, dialect) for column in self.table.computed_keys}
        columns = [column for column in self.table.table.columns if column not in computed]
        known = dict(_values_of(columns, values))

        # The expression can be a text, of which the columns are not known.
        used = " ".join(computed.values())
        given = []
        for column in columns:
            if column in known:
                value: Any = type_coerce(known[column], column.type)
                given.append(value.label(column.name))
            elif column.name in used:
                value = cast(None, column.type)
                given.append(value.label(column.name))

        row = select(*given).subquery()
        keys: list[Any] = [literal_column(sql).label(column.name) for column, sql in computed.items()]
        return select(*row.columns, *keys).subquery()


def _sql_of(computed: Any, dialect: Any) -> str:
    """Return the SQL of the expression of a column, as it is in the definition of the table."""
    options = {"include_table": False, "literal_binds": True}
    compiled = computed.sqltext.compile(dialect=dialect, compile_kwargs=options)

    # Some drivers need each percent sign twice, which SQLAlchemy does again for the statement that has this text.
    sign = literal_column("%").compile(dialect=dialect)
    return str(compiled).replace(str(sign), "%")


def _inserted_values(
    table: Any, element: Any, parameters: list[Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Yield the values of each row of an INSERT by the keys of their columns, and the parameters of its execution."""
    fixed = _by_keys(element._values or {})
    for given in parameters:
        yield fixed | dict(given), given

    for rows in element._multi_values:
        for row in rows:
            values = row if isinstance(row, Mapping) else dict(zip(table.columns, row, strict=False))
            yield _by_keys(values), {}


def _stated_value(column: str, value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return the value that an UPDATE states for a column, marked if it is an expression."""
    if not isinstance(value, BindParameter):
        return EXPRESSION

    # A parameter of the application can have another name than its column, and that of a plain value has none.
    name = column if value.unique else value.key
    return parameters.get(name, value.effective_value)


def _by_keys(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the values of a statement by the keys of their columns."""
    return {getattr(column, "key", column): value for column, value in row.items()}


def _values_of(columns: Sequence[Any], values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the columns with their values in a row of an INSERT, or else with the constant that is their default."""
    pairs = []
    for column in columns:
        default = column.default
        if column.key in values:
            pairs.append((column, values[column.key]))
        elif default is not None and default.is_scalar:
            pairs.append((column, literal(default.arg, column.type)))
        elif (constant := _server_constant(column)) is not None:
            pairs.append((column, constant))
    return pairs


_CONSTANT = re.compile(r"'[^']*'|-?\d+(?:\.\d+)?|true|false", re.IGNORECASE)


def _server_constant(column: Any) -> Any:
    """Return the SQL of the default that the database has for a column, if it is a constant."""
    # What a function returns can differ at each call, or have an effect.
    given = getattr(column.server_default, "arg", None)
    if isinstance(given, str):
        quoted = given.replace("'", "''")
        return literal_column(f"'{quoted}'")

    sql = str(getattr(given, "text", ""))
    return literal_column(sql) if _CONSTANT.fullmatch(sql) else None


# --- Tables -------------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """A tracked table, and the names of its columns in events."""

    table: Any
    label: str
    """Its name in operations and entry ids."""

    names: dict[str, str]
    """The names in events by the keys of the columns."""

    keys: tuple[str, ...]
    """The keys of the columns that tell rows apart."""

    fields: TrackedFields
    is_association: bool
    """Whether no model has this table: its rows are pairs of objects."""

    @property
    def columns_of_key(self) -> list[Any]:
        """The columns that tell rows apart: of the primary key, else of that of the model, else all."""
        return [self.table.columns[key] for key in self.keys]

    def rows_from(self, result: Iterable[Any]) -> Rows:
        """Return the rows of a result that has all columns, by their keys."""
        names = list(self.names.values())
        names_of_key = [self.names[column.key] for column in self.columns_of_key]

        rows: Rows = {}
        for values in result:
            row = dict(zip(names, values, strict=True))

            # The key counts even if it is not recorded.
            key = key_of(row[name] for name in names_of_key)
            rows[key] = self.fields.recorded(row)
        return rows

    def has_keys(self, keys: Sequence[Key]) -> Any:
        """Return the condition that a row has one of these keys."""
        # In an association table without a key, a part can be null, which equals nothing.
        with_null = [key for key in keys if None in parts_of(key)]
        without = [key for key in keys if None not in parts_of(key)]

        columns = self.columns_of_key
        operand, *further = columns
        values: list[Any] = list(without)
        if further:
            operand = tuple_(*columns)
        else:
            values = [part for key in without for part in parts_of(key)]

        # Protocols limit the parameters of a statement, so more keys than that are written into its text.
        is_long = len(values) > _MOST_PARAMETERS
        condition = operand.in_(bindparam(None, values, literal_execute=is_long))
        return or_(condition, *[self._has_key(key) for key in with_null])

    def _has_key(self, key: Key) -> Any:
        pairs = zip(self.columns_of_key, parts_of(key), strict=True)
        return and_(*[column.is_(None) if part is None else column == part for column, part in pairs])

    def unique_keys(self) -> Iterator[list[Any]]:
        """Yield the columns of each key that can conflict."""
        if self.table.primary_key:
            yield list(self.table.primary_key)
        for constraint in self.table.constraints:
            if isinstance(constraint, UniqueConstraint):
                yield list(constraint.columns)
        for index in self.table.indexes:
            if index.unique:
                yield list(index.columns)

    def written_values(self, stated: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that an UPDATE writes, by the keys of their columns; those that are computed are marked."""
        written: dict[str, Any] = {}
        for column in self.table.columns:
            name = column.key
            if name in stated:
                written[name] = _stated_value(name, stated[name], parameters)
            elif name in parameters:
                written[name] = parameters[name]
            elif column.onupdate is not None or column.server_onupdate is not None:
                written[name] = EXPRESSION
        return written

    def moved_key(self, key: Key, written: Mapping[str, Any]) -> Key:
        """Return the key of a row after an UPDATE that has *written* these values, or *key* if it is not known."""
        # With one part unknown, the others can be the key of another row.
        if any(written.get(name) is EXPRESSION for name in self.keys):
            return key

        # An array that the database returns as a tuple can be written as a list.
        pairs = zip(self.columns_of_key, parts_of(key), strict=True)
        values = {column: tuple(value) if isinstance(value, list) else value for column, value in written.items()}
        return key_of(values.get(column.key, part) for column, part in pairs)

    def known_values(self, written: Mapping[str, Any]) -> Row:
        """Return what is known of the values of a row that cannot be found again, because an expression computes its key."""
        values = dict(written)

        # A key that the statement does not set is computed by the database itself.
        if not values.keys() & self.keys:
            values |= dict.fromkeys(self.keys, EXPRESSION)

        row = {self.names[column]: value for column, value in values.items()}
        return self.fields.recorded(row)

    def share_equal_values(self, before: Rows, after: Rows, moved: Mapping[Key, Key]) -> None:
        """Put the value before also after the statement where Python cannot compare the two, but their type can."""
        for key, old in before.items():
            new_key = moved.get(key, key)
            new = after.get(new_key, {})
            for column in self.table.columns:
                name = self.names[column.key]
                value = old.get(name)
                other = new.get(name)
                if _is_incomparable(value, other) and column.type.compare_values(value, other):
                    new[name] = value

    @property
    def computed_keys(self) -> list[Any]:
        """The columns of keys that the database computes."""
        columns = {column for key in self.unique_keys() for column in key}
        return [column for column in self.table.columns if column in columns and column.computed is not None]

    def event(self, row: ChangedRow) -> TrackedEvent:
        """Return the event of *row*."""
        entry_ids = []
        for key in row.keys:
            entry_ids += self._entry_ids(key)

        operation = f"{self.label}.{row.verb}"
        changes = row.changes(self.fields)
        return TrackedEvent(operation, entry_ids, {"changes": changes})

    def _entry_ids(self, key: Key) -> list[str]:
        if not self.is_association:
            return [f"{self.label}:{key_text(key)}"]

        entry_ids = []
        for column, part in zip(self.columns_of_key, parts_of(key), strict=True):
            # A masked column names its object neither here nor in the changes.
            if self.names[column.key] not in self.fields.mask:
                labels = [foreign_key.column.table.fullname for foreign_key in column.foreign_keys]
                entry_ids += [f"{label}:{key_text(part)}" for label in labels]
        return entry_ids


def _is_incomparable(value: Any, other: Any) -> bool:
    """Return whether two values are objects of a class without ``__eq__``, which are equal to themselves alone."""
    if value is None or other is None:
        return False
    compare: Any = type(value).__eq__
    return type(value) is type(other) and compare is object.__eq__


def _table_of(table: Any) -> _Table | None:
    """Return the tracked fields of *table*."""
    if isinstance(table, Alias):
        known = _table_of(table.element)
        return None if known is None else known._replace(table=table)
    if isinstance(table, Join):
        if any(isinstance(part, Table) and _table_of(part) for part in iterate(table)):
            raise AuditValueError(
                f"update of {table}: expected one tracked table, got a join; execute one for each table"
            )
        return None

    tables = _tables
    if table not in tables:
        tables[table] = next(_find_table(table), None)
    return tables[table]


def _forget_tables() -> None:
    """Forget the facts of all tables, because there are more models now."""
    # A thread that is finding a table meanwhile keeps what it finds with what is forgotten.
    global _tables
    _tables = {}


def _find_table(table: Any) -> Iterator[_Table]:
    # A model that is tracked itself takes precedence over its base.
    models = sorted(_tracked, key=lambda model: _mapper_of(model) is None)
    pairs = []
    for model in models:
        fields = _tracked[model]
        pairs += [(mapper, fields) for mapper in _mappers_of(model)]

    for mapper, fields in pairs:
        if table in _tables_of(mapper):
            names = {column.key: column.key for column in table.columns} | _names_of(mapper, table)
            keys = _keys_of(table, mapper.primary_key)
            yield _Table(table, table.fullname, names, keys, fields, is_association=False)

    for mapper, fields in pairs:
        for relationship in mapper.relationships:
            secondary = relationship.secondary
            if secondary is not None and secondary == table:
                names = {column.key: column.key for column in secondary.columns}
                # Nothing equals a value of JSON, neither in Python nor in each database.
                hashable = [column for column in secondary.columns if column.type.hashable]
                keys = _keys_of(secondary, hashable)
                fields = fields._replace(fields=None)
                yield _Table(secondary, secondary.fullname, names, keys, fields, is_association=True)


def _keys_of(table: Any, otherwise: Iterable[Any]) -> tuple[str, ...]:
    """Return the keys of the columns of the primary key of *table*, or else those of its columns in *otherwise*."""
    columns = list(table.primary_key) or [column for column in otherwise if column.table is table]
    for column in columns:
        if not column.type.hashable:
            raise AuditValueError(
                f"tracked table {table.fullname}: expected a primary key of hashable values (those of an ARRAY with"
                f" as_tuple=True are), got {column.name} of type {type(column.type).__name__}"
            )
    return tuple(column.key for column in columns)
