"""A small memory system for the other examples, audited with ``audit_logger=`` or, from outside, with ``instrument``."""

import time
from contextlib import asynccontextmanager
from uuid import uuid4


class MemorySystem:
    def __init__(self, config=None, audit_logger=None):
        self.config, self.audit_logger, self.entries = config, audit_logger, {}

    @asynccontextmanager
    async def _operation(self, operation, user_id, session_id, entry_ids=()):
        event = {"user_id": user_id, "session_id": session_id, "entry_ids": list(entry_ids)}
        start = time.perf_counter()
        try:
            yield event
        except Exception as error:
            event |= {"status": "FAILURE", "error_message": f"{type(error).__name__}: {error}"}
            raise
        finally:
            if self.audit_logger is not None:
                event["duration_ms"] = (time.perf_counter() - start) * 1000
                await self.audit_logger.log_event(operation, **event)

    async def store(self, content, user_id=None, session_id=None, importance=0.5):
        async with self._operation("STORE", user_id, session_id) as event:
            if not content:
                raise ValueError("content cannot be empty")
            entry_id = str(uuid4())
            self.entries[entry_id] = content
            event |= {"entry_ids": [entry_id], "metadata": {"importance": importance}}
            return entry_id

    async def recall(self, query, user_id=None, session_id=None):
        async with self._operation("RECALL", user_id, session_id) as event:
            event["entry_ids"] = [key for key, text in self.entries.items() if query.lower() in text.lower()]
            return [self.entries[key] for key in event["entry_ids"]]

    async def get(self, entry_id, user_id=None, session_id=None):
        async with self._operation("GET", user_id, session_id, [entry_id]):
            return self.entries[entry_id]

    async def forget(self, entry_id, user_id=None, session_id=None):
        async with self._operation("FORGET", user_id, session_id, [entry_id]):
            return self.entries.pop(entry_id, None) is not None

    async def compact(self, user_id=None):
        async with self._operation("COMPACT", user_id, None):
            self.entries = {key: text for text, key in {text: key for key, text in self.entries.items()}.items()}

    async def export(self, user_id=None):
        async with self._operation("EXPORT", user_id, None, self.entries):
            return dict(self.entries)

    async def import_data(self, entries, user_id=None):
        async with self._operation("IMPORT", user_id, None) as event:
            event["entry_ids"] = [str(uuid4()) for _ in entries]
            self.entries.update(zip(event["entry_ids"], entries, strict=True))
