"""Helpers of the tests of reports: a minimal source of given events, and hostile texts."""

from __future__ import annotations

import datetime as dt

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus
from structlog_audit.query.event_source import EventSource

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)

HOSTILE = [
    "<script>document.title='pwned';document.body.dataset.pwned='1'</script>",
    '"]]><svg onload="document.title=\'pwned\'"></svg>',
    "'><img src=x onerror=document.title='pwned'>",
    "</style></title></svg></script><script>document.title='pwned'</script>",
    "javascript:document.title='pwned'",
    "[click](javascript:alert(1)) ![x](https://evil.example/x.png) <https://evil.example>",
    "| a | b |\n| --- | --- |\n\n# heading\n\n- item\n\n---",
    "`code` **bold** _it_ ~~gone~~ $x$ \\| \\` &lt;b&gt; &#60; https://evil.example www.evil.example a@evil.example",
    "a\x00b\x1b[31mred\x07\x7f\x85\u2028next\u2029",
    "invoice\u202efdp.exe\u2066\u200b\ufeff\u061c",
    "z" + "\u0301" * 80,
    "{{ 7 * 7 }}{% raw %}{# x #}",
    "--> <!-- x",
    "שלום עולם",
    "",
    "x" * 5_000,
]
"""Texts that try to break out of HTML, SVG, Markdown, templates or lines, or that display misleadingly."""


class Events(EventSource):
    """A source of *events*, which are in the order of commit; ``selections`` lists the conditions of each whole pass."""

    def __init__(self, events, *, now=NOON, complete_since=None, counters=None, problems=None):
        self.events = list(events)
        self.selections = []
        self._at = now
        self._complete_since = complete_since
        self._counted = counters or {}
        self._problems = problems or {}

    def select(self, conditions, *, newest_first, at_most=None):
        if at_most is None:
            self.selections.append(conditions)
        events = self.events[::-1] if newest_first else self.events
        return (event for event in events if conditions.matches(event))

    @property
    def complete_since(self):
        return self._complete_since

    @property
    def problems(self):
        return self._problems

    def _counters(self):
        return self._counted

    def _now(self):
        return self._at


def stored(number=0, at=NOON, operation="STORE", **members):
    """Return an event, *number* seconds after *at*."""
    return StoredEvent(f"evt_{number + 1:032x}", at + dt.timedelta(seconds=number), operation, **members)


def hostile_events():
    """Return events of every kind in a report, with a hostile text in every field that can hold one."""
    events = []
    for number, text in enumerate(HOSTILE):
        for operation in (text or "x", "STORE", "FORGET", "EXPORT"):
            status = EventStatus.FAILURE if operation == "STORE" else list(EventStatus)[number % 3]
            members = {"user_id": text, "session_id": text, "entry_ids": [text, text], "error_message": text}
            events.append(stored(len(events), operation=operation, status=status, duration_ms=number + 0.5, **members))
        events.append(stored(len(events), operation=text, kind="intent", user_id=text, entry_ids=[text]))
        events.append(stored(len(events), operation=text, kind="trail", metadata={text: text}))
        events.append(stored(len(events), operation="gap", kind="gap", metadata={"lost": 2, text: text}))
    return events
