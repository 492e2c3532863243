"""FastAPI: a route for auditors that pages through the trail, with typed filters.

Needs: pip install fastapi httpx2
"""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from structlog_audit import AuditHandler, AuditValueError, EventStatus, get_audit_logger, open_trail

trail = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "audit.jsonl"
logging.getLogger("audit").setLevel(logging.INFO)
logging.getLogger("audit").addHandler(AuditHandler(filename=trail))
log = get_audit_logger("audit")
router = APIRouter(prefix="/audit")


class EventQuery(BaseModel, extra="forbid"):  # a misspelt filter would select every event
    user_id: str | None = None
    operation: str | None = None
    operation_class: str | None = None  # such as delete
    status: EventStatus | None = None
    since: str | None = None  # 7d, 2025-01-15 or RFC 3339
    until: str | None = None
    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = None


def auditor(x_user: Annotated[str, Header()]) -> str:
    if x_user != "ada":  # simplified: a real application gets user and permission from its authentication
        log.info("audit_events.list", user_id=x_user, status="FAILURE")
        raise HTTPException(403, "only auditors may read the trail")
    return x_user


@router.get("/events")  # not async: reading files would block the event loop
def events(user: Annotated[str, Depends(auditor)], query: Annotated[EventQuery, Query()]) -> dict[str, Any]:
    given = query.model_dump(exclude_none=True)
    try:
        page = open_trail(trail).page(newest_first=True, **given)
    except AuditValueError as error:
        raise HTTPException(422, str(error)) from None
    log.info("audit_events.list", user_id=user, query=given)
    return {"events": list(map(dict, page.events)), "cursor": page.cursor}


app = FastAPI()
app.include_router(router)
if __name__ == "__main__":
    log.info("document.create", user_id="bob", entry_ids=["doc_1"])
    for user in ("bob", "ada"):
        print(TestClient(app).get("/audit/events?limit=1&since=1h", headers={"X-User": user}).text)
