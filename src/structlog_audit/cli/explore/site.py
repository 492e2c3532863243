"""The Datasette site of an exported database: its settings, questions, templates and cells.

**Guarantees**: the database is opened as immutable. Plugins that are installed for Datasette are not used. Every text of an
event is escaped, and none becomes a link to another place.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from datasette.app import Datasette
from datasette.database import Database, QueryInterrupted
from datasette.filters import Filters
from datasette.plugins import pm
from datasette.utils import InvalidSql, derive_named_parameters, validate_sql_select
from datasette.utils.asgi import Request, Response
from datasette.version import __version__ as datasette_version
from datasette.views.base import DatasetteError
from datasette.views.table import TableView
from markupsafe import Markup, escape
from pluggy import HookimplMarker

from structlog_audit import __version__
from structlog_audit.cli.explore.local_times import add_functions
from structlog_audit.cli.explore.overview import Overview
from structlog_audit.cli.terminal import put_error

hookimpl = HookimplMarker("datasette")

DATABASE = "audit"
"""The name of the database in addresses, which is that of its file without the suffix."""

_OF_CLASS = """
SELECT number, {{time}}, operation, user_id, status, entry_ids, error_message, metadata
FROM events WHERE kind IS NULL AND operation_class = '{name}' AND (:user = '' OR user_id = :user) ORDER BY number DESC
"""

_QUESTIONS: dict[str, dict[str, str]] = {
    "deletions": {
        "title": "What did a user delete?",
        "description": "Operations of the class delete, newest first; without a user, those of all users.",
        "sql": _OF_CLASS.format(name="delete"),
    },
    "failures": {
        "title": "What failed this week?",
        "description": "Failures from Monday to Sunday ({zone}) in the week of a day, such as 2025-01-15, or in this week.",
        "sql": """
SELECT number, {time}, operation, user_id, status, entry_ids, error_message, metadata FROM events
WHERE kind IS NULL AND status = 'FAILURE'
  AND {time} >= date(coalesce(nullif(:day, ''), local_today()), '-6 days', 'weekday 1')
  AND {time} < date(coalesce(nullif(:day, ''), local_today()), '-6 days', 'weekday 1', '+7 days')
ORDER BY number DESC
""",
    },
    "users": {
        "title": "When did each user act first and last?",
        "description": "Events, failures, first and last event of each user, the busiest first.",
        "sql": """
SELECT user_id, count(*) AS events, sum(status = 'FAILURE') AS failures,
       local_time(min(timestamp)) AS first, local_time(max(timestamp)) AS last
FROM events WHERE kind IS NULL GROUP BY user_id ORDER BY events DESC, user_id
""",
    },
    "exports": {
        "title": "Who exported what?",
        "description": "Operations of the class export, newest first; without a user, those of all users.",
        "sql": _OF_CLASS.format(name="export"),
    },
    "entry": {
        "title": "What happened to an entry?",
        "description": "Every event that names an entry id, oldest first.",
        "sql": """
SELECT number, {time}, operation, user_id, status, entry_ids, error_message, metadata FROM events
WHERE event_id IN (SELECT event_id FROM event_entries WHERE entry_id = :entry) ORDER BY number
""",
    },
}
"""The canned queries, by their name in addresses, for the time column and the name of a zone."""

_FACETS = ("operation_class", "operation", "user_id", "status")
_LINKED = frozenset(("user_id", "session_id", "operation", "operation_class", "status", "kind"))
"""The columns whose cells lead to the events with the same value."""

_LOOKUPS = frozenset(key for key, *_ in Filters([]).lookups())
"""The comparisons that a filter may have after two underscores."""

_NAMING = frozenset(("_sort", "_sort_desc", "_facet", "_facet_date", "_facet_array"))
"""The parameters of a table whose values are columns."""

_LONGEST_CELL = 160
"""The number of characters of a cell; the page of an event has all."""


class Site:
    """The plugin with the templates and the cells of the site of one database."""

    __name__ = __package__
    """The package whose folders ``templates`` and ``static`` Datasette uses."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self.questions = {
            name: {
                key: text.format(time=overview.time_column, zone=overview.zone_name) for key, text in question.items()
            }
            for name, question in _QUESTIONS.items()
        }

    @hookimpl
    def extra_template_vars(self) -> dict[str, Any]:
        """Return what the templates use beyond the variables of Datasette."""
        return {
            "overview": self._overview,
            "questions": self.questions,
            "database_name": DATABASE,
            "library_version": __version__,
            "datasette_version": datasette_version,
            "decode": json.loads,
            "encode": json.dumps,
            "query_string": urlencode,
        }

    @hookimpl
    def prepare_connection(self, conn: sqlite3.Connection) -> None:
        """Add the SQL functions of the time zone."""
        add_functions(conn, self._overview.zone)

    @hookimpl
    def render_cell(self, value: Any, column: str, database: str, datasette: Datasette) -> Markup | None:
        """Return the content of a cell: text, or a link within the site."""
        if database != DATABASE or value is None:
            return None

        events = datasette.urls.table(DATABASE, "events")
        if column == "number" and isinstance(value, int):
            return Markup('<a href="{}/{}">{}</a>').format(events, value, value)
        if not isinstance(value, str):
            return None
        if column in _LINKED and value:
            address = f"{events}?{urlencode({f'{column}__exact': value})}"
            return Markup('<a href="{}">{}</a>').format(address, value)
        return escape(value if len(value) <= _LONGEST_CELL else f"{value[:_LONGEST_CELL]}…")

    @hookimpl
    def register_routes(self) -> list[tuple[str, Any]]:
        """Return the addresses of the questions, and of the CSV of a query, which Datasette's own ends without a sign."""
        names = "|".join(self.questions)
        return [
            (rf"/{DATABASE}(?:/(?P<question>{names}))?\.csv$", self._whole_csv),
            (rf"/(?P<database>{DATABASE})/(?P<table>{names})(?:\.(?P<format>\w+))?$", self._answer),
        ]

    @hookimpl
    async def filters_from_request(self, request: Request, database: str, table: str, datasette: Datasette) -> None:
        """Refuse a filter or an order that the table does not have: SQLite takes its name for a text, Datasette skips it."""
        columns = await datasette.get_database(database).table_columns(table)

        for name in request.args:
            column, has_lookup, lookup = name.rpartition("__")
            if name in _NAMING:
                for value in request.args.getlist(name):
                    # A facet can also be a JSON object.
                    if not value.startswith("{"):
                        _require_name(value, [*columns, "rowid", ""])
            elif has_lookup:
                _require_name(lookup, _LOOKUPS)
                _require_name(column, [*columns, "rowid"])
            elif not name.startswith("_"):
                _require_name(name, [*columns, "rowid"])

    @hookimpl
    def handle_exception(self, datasette: Datasette, request: Request, exception: Exception) -> Any:
        """Return the page of an error. Datasette's own handler prints all variables to the terminal."""
        status = getattr(exception, "status", 500)
        title = getattr(exception, "title", None) or f"Error {status}"
        # Where Datasette's message is HTML, its title says the same.
        is_html = getattr(exception, "message_is_html", False)
        message = title if is_html else getattr(exception, "message", None) or str(exception)
        if status == 500:
            put_error(f"{type(exception).__name__}: {message}")

        if request.path.partition("?")[0].endswith(".json"):
            return Response.json({"ok": False, "error": message, "status": status, "title": title}, status=status)

        async def page() -> Response:
            text = await datasette.render_template("error.html", {"title": title, "error": message}, request=request)
            return Response.html(text, status=status)

        return page()

    def metadata(self) -> Mapping[str, Any]:
        """Return the titles, facets and canned queries of the site."""
        events = {
            "title": "Events",
            "sort_desc": "number",
            "facets": [*_FACETS, self._overview.day_facet],
            "facet_size": 10,
            "label_column": "event_id",
        }
        return {
            "title": "Audit events",
            "databases": {DATABASE: {"tables": {"events": events}, "queries": self.questions}},
        }

    async def _answer(self, datasette: Datasette, request: Request) -> Response:
        """Answer a question as Datasette does, unless its parameters are wrong."""
        await self._check(request.url_vars["table"], datasette, request)
        return await TableView(datasette).dispatch_request(request)

    async def _check(self, question: str, datasette: Datasette, request: Request) -> None:
        """Refuse a parameter that *question* does not have, and a day that is none."""
        sql = self.questions[question]["sql"]
        names = await derive_named_parameters(datasette.get_database(DATABASE), sql)
        for name in request.args:
            if not name.startswith("_"):
                _require_name(name, names)

        day = request.args.get("day")
        if day and not _is_day(day):
            message = f"day: expected a day such as 2025-01-15, got {day!r}"
            raise DatasetteError(message, title="Invalid day", status=400)

    async def _whole_csv(self, datasette: Datasette, request: Request) -> Response:
        """Answer with all rows of a question, or of the SQL in the address."""
        question = request.url_vars["question"]
        if question:
            await self._check(question, datasette, request)

        sql = self.questions[question]["sql"] if question else request.args.get("sql") or ""
        database = datasette.get_database(DATABASE)
        try:
            validate_sql_select(sql)
            names = await derive_named_parameters(database, sql)
            values = {name: request.args.get(name) or "" for name in names}
            results = await database.execute(sql, values, log_sql_errors=False)
        except (InvalidSql, QueryInterrupted, sqlite3.DatabaseError) as error:
            raise DatasetteError(str(error), title="Invalid SQL", status=400) from None

        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(column[0] for column in results.description)
        writer.writerows(results.rows)
        return Response.text(text.getvalue())


def _require_name(name: str, known: Collection[str]) -> None:
    """Raise the error of a page unless *name* is *known*."""
    if name in known:
        return

    expected = ", ".join(sorted(set(filter(None, known)))) or "no parameter"
    raise DatasetteError(f"expected one of {expected}, got {name!r}", title="Unknown name", status=400)


def _is_day(text: str) -> bool:
    """Return whether *text* is a day as SQLite writes it; Python reads other forms, too."""
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class _QuietDatabase(Database):  # type: ignore[misc]
    """A database whose errors are on the page only: Datasette prints those of SQL to the terminal as well."""

    async def execute(self, *args: Any, **options: Any) -> Any:
        """Execute SQL without printing its error."""
        options["log_sql_errors"] = False
        return await super().execute(*args, **options)


def make_site(path: str, overview: Overview, token: str) -> Datasette:
    """Return the site of the database at *path*, whose addresses begin with *token*."""
    for plugin, _ in pm.list_plugin_distinfo():
        pm.unregister(plugin)
    pm.unregister(name="datasette.handle_exception")
    site = Site(overview)
    pm.register(site)

    made = Datasette(immutables=[path], metadata=site.metadata(), settings={
        "base_url": f"/{token}/",
        "default_cache_ttl": 0,
        "allow_download": False,
        "suggest_facets": False,
        "sql_time_limit_ms": 30_000,
        "facet_time_limit_ms": 10_000,
        "max_returned_rows": 5_000,
        "max_csv_mb": 0,
    })  # fmt: skip

    made.remove_database(DATABASE)
    made.add_database(_QuietDatabase(made, path, is_mutable=False), name=DATABASE)
    return made
