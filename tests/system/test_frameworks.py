"""Actor context from a request to the task it starts, under real servers and workers."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import free_port, get, stop, trail, wait_until

from structlog_audit.contrib.actor import session_digest

pytestmark = pytest.mark.system

TASKS = """
import os
from celery import Celery
from celery.signals import setup_logging
from structlog.contextvars import bind_contextvars
from structlog_audit import get_audit_logger
from structlog_audit.contrib.celery import carry_actor

LOGGING = {
    "version": 1, "disable_existing_loggers": False,
    "handlers": {
        "file": {"class": "structlog_audit.AuditFileHandler", "filename": os.environ["TRAIL"], "maxBytes": 20_000},
        "audit": {"class": "structlog_audit.AuditHandler", "target": "file"},
        "console": {"class": "logging.FileHandler", "filename": os.environ["CONSOLE"]},
    },
    "loggers": {
        "audit": {"handlers": ["audit"], "level": "INFO", "propagate": False},
        "django_structlog": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
}
log = get_audit_logger()
celery = Celery("tasks", broker="filesystem://")
folder = os.environ["FOLDER"]
celery.conf.broker_transport_options = {
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": os.path.join(folder, "control")
}
carry_actor()

@setup_logging.connect
def configure(**_):
    import logging.config
    logging.config.dictConfig(LOGGING)

def bind_for_some(number):
    if number % 4 > 1:
        bind_contextvars(bound=number)

@celery.task(ignore_result=True)
def work(number):
    bind_for_some(number)
    log.info("TASK", number=number)
"""

FASTAPI = """
import asyncio, logging.config
from fastapi import Depends, FastAPI, Request
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from structlog.contextvars import bind_contextvars
from structlog_audit.contrib.asgi import AuditContextMiddleware
import tasks

logging.config.dictConfig(tasks.LOGGING)

class Token(AuthenticationBackend):
    async def authenticate(self, conn):
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else None

app = FastAPI()
app.add_middleware(AuditContextMiddleware, session=lambda scope: dict(scope["headers"])[b"x-session"].decode())
app.add_middleware(AuthenticationMiddleware, backend=Token())

async def bearer(request: Request):
    bind_contextvars(user_id=request.headers["x-bearer"])

@app.get("/ready")
async def ready():
    return "ready"

@app.get("/thread/{number}")
def thread(number: int):
    tasks.bind_for_some(number)
    tasks.log.info("REQUEST", number=number)
    tasks.work.delay(number)

@app.get("/loop/{number}")
async def loop(number: int):
    tasks.bind_for_some(number)
    await tasks.log.ainfo("REQUEST", number=number)
    await asyncio.to_thread(tasks.work.delay, number)

@app.get("/dependency/{number}", dependencies=[Depends(bearer)])
def dependency(number: int):
    tasks.bind_for_some(number)
    tasks.log.info("REQUEST", number=number)
    tasks.work.delay(number)
"""

KEEP_ALIVE = """
import asyncio, logging.config
from structlog.contextvars import bind_contextvars
from structlog_audit.contrib.asgi import AuditContextMiddleware
import tasks

logging.config.dictConfig(tasks.LOGGING)

async def answer(scope, receive, send):
    while scope["method"] == "POST" and (await receive())["more_body"]:
        pass
    if scope["query_string"]:
        bind_contextvars(tenant=scope["query_string"].decode())
    await tasks.log.ainfo("REQUEST", path=scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

audited = AuditContextMiddleware(answer, user=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None)

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    # The server stops reading while a long body waits: it goes on when the application reads it.
    while scope["method"] == "POST" and not receive.__self__.flow.read_paused:
        await asyncio.sleep(0)
    await audited(scope, receive, send)
"""

DJANGO = """
import asyncio, os, sys
import django
from django.conf import settings
from django.urls import path
import structlog
import tasks

settings.configure(
    SECRET_KEY="of these tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django_structlog"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_structlog.middlewares.RequestMiddleware",
        "structlog_audit.contrib.django.AuditContextMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    LOGGING=tasks.LOGGING,
    STRUCTLOG_AUDIT={"trusted_proxies": 1},
)
structlog.configure(
    [structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
django.setup()

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse

def thread(request, number):
    structlog.get_logger("django_structlog").info("in_the_view")
    tasks.bind_for_some(number)
    tasks.log.info("REQUEST", number=number)
    tasks.work.delay(number)
    return HttpResponse("done")

async def loop(request, number):
    tasks.bind_for_some(number)
    await tasks.log.ainfo("REQUEST", number=number)
    await asyncio.to_thread(tasks.work.delay, number)
    return HttpResponse("done")

def streamed(request, number):
    tasks.bind_for_some(number)
    def pieces():
        tasks.log.info("REQUEST", number=number)
        yield b"piece"
        tasks.work.delay(number)
    return StreamingHttpResponse(pieces())

urlpatterns = [
    path("ready", lambda request: HttpResponse("ready")),
    *(path(f"{view.__name__}/<int:number>", view) for view in (thread, loop, streamed)),
]
wsgi, asgi = get_wsgi_application(), get_asgi_application()

def prepare():
    import json
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client
    call_command("migrate", verbosity=0)
    sessions = {}
    for number in range(4):
        client, user = Client(), User.objects.create(username=f"u{number}")
        client.force_login(user)
        sessions[str(user.pk)] = client.cookies["sessionid"].value
    print(json.dumps(sessions))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with the applications; set the environment of their processes."""
    for name, text in (("tasks", TASKS), ("fast", FASTAPI), ("keep", KEEP_ALIVE), ("project", DJANGO)):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "queue" / "control").mkdir(parents=True)
    monkeypatch.setenv("TRAIL", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("CONSOLE", str(tmp_path / "console.log"))
    monkeypatch.setenv("FOLDER", str(tmp_path / "queue"))
    monkeypatch.setenv("DATABASE", str(tmp_path / "db.sqlite3"))
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def running(place, *command):
    """Run *command* as a Python process until the block ends."""
    with pathlib.Path(place / "processes.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=place, stdout=log, stderr=log)
        try:
            yield process
        finally:
            stop(process)


def request_and_task_events(place, server, calls):
    """Make all *calls* (path, headers); return the events of each request and its task, in the order of the calls."""
    port = free_port()
    worker = ["celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "2"]
    with running(place, *worker) as tasks, running(place, *(part.format(port=port) for part in server)) as process:
        wait_until(lambda: get(port, "/ready", **{"X-Session": "-"}), process, "the first answer")
        with ThreadPoolExecutor(8) as executor:
            answers = list(executor.map(lambda call: get(port, call[0], **call[1]), calls))
        assert None not in answers
        wait_until(
            lambda: sum(line["operation"] == "TASK" for line in trail(place)) >= len(calls), tasks, "all tasks", 120
        )
    lines = trail(place)
    assert len({line["event_id"] for line in lines}) == len(lines)
    by_number = {
        name: {line["metadata"]["number"]: line for line in lines if line["operation"] == name}
        for name in ("REQUEST", "TASK")
    }
    assert [len(events) for events in by_number.values()] == [len(calls), len(calls)]
    return [(by_number["REQUEST"][number], by_number["TASK"][number]) for number in range(len(calls))]


def test_fastapi_request_and_celery_task_have_the_same_actor(place):
    """A FastAPI request and its Celery task have the same user, session and request id, and what each binds itself."""
    kinds = ["thread", "loop", "dependency"]
    calls = [
        (
            f"/{kinds[number % 3]}/{number}",
            {
                "X-Bearer" if number % 3 == 2 else "X-User": f"u{number % 4}",
                "X-Session": f"s{number % 5}",
                "X-Request-ID": f"r{number}",
            },
        )
        for number in range(60)
    ]
    server = ["uvicorn", "--workers", "2", "fast:app", "--port", "{port}", "--log-level", "warning"]
    for number, (request, task) in enumerate(request_and_task_events(place, server, calls)):
        for event in (request, task):
            assert (event["user_id"], event["session_id"]) == (f"u{number % 4}", f"s{number % 5}")
            assert event["metadata"]["request_id"] == f"r{number}"
            assert event["metadata"].get("bound") == (number if number % 4 > 1 else None)
        assert request["metadata"]["client_address"] == "127.0.0.1"
        assert "client_address" not in task["metadata"]


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_requests_of_one_connection_have_their_own_context(place, parser):
    """A request has nothing of the one before it, pipelined, or after a body that the server had to stop reading."""
    port = free_port()
    first = {"X-User": "ada", "X-Request-ID": "first"}
    lines = [f"{name}: {value}\r\n" for name, value in first.items()]
    body = b"x" * 200_000
    post = (
        f"POST /first?acme HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n".encode() + body
    )
    pipelined = [f"GET /{number}{'?acme' if number % 2 else ''} HTTP/1.1\r\nHost: x\r\n\r\n" for number in range(6)]

    server = ["uvicorn", "keep:app", "--port", str(port), "--http", parser, "--log-level", "warning"]
    with running(place, *server) as process:
        wait_until(lambda: get(port, "/ready"), process, "the first answer")
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(post)
            received = b""
            for waiting in (b"".join(part.encode() for part in pipelined), b""):
                expected = 1 if waiting else 1 + len(pipelined)
                while received.count(b"\r\n\r\nok") < expected:
                    data = connection.recv(65_536)
                    assert data
                    received += data
                connection.sendall(waiting)

    events = {line["metadata"]["path"]: line for line in trail(place) if line["operation"] == "REQUEST"}
    assert (events["/first"]["user_id"], events["/first"]["metadata"]["request_id"]) == ("ada", "first")
    others = [events[f"/{number}"] for number in range(6)]
    assert [event.get("user_id") for event in others] == [None] * 6
    assert [event["metadata"].get("tenant") for event in others] == [None, "acme"] * 3
    assert len({event["metadata"]["request_id"] for event in events.values()}) == len(events)


SERVERS = {
    "gunicorn": ["gunicorn", "--workers", "2", "--threads", "2", "project:wsgi", "--bind", "127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "--workers", "2", "project:asgi", "--port", "{port}", "--no-proxy-headers"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_django_request_and_celery_task_have_the_same_actor(place, server):
    """A Django request and its Celery task have the same actor, what each binds itself, and django-structlog's request id."""
    prepare = [sys.executable, "-c", "import project; project.prepare()"]
    done = subprocess.run(prepare, cwd=place, env=os.environ, capture_output=True, text=True, check=True, timeout=60)
    sessions = list(json.loads(done.stdout).items())
    kinds = ["thread", "loop", "streamed"] if server == "gunicorn" else ["thread", "loop"]
    calls = [
        (
            f"/{kinds[number % len(kinds)]}/{number}",
            {"Cookie": f"sessionid={sessions[number % 4][1]}", "X-Forwarded-For": f"6.6.6.6, 192.0.2.{number}"},
        )
        for number in range(60)
    ]
    events = request_and_task_events(place, SERVERS[server], calls)
    for number, (request, task) in enumerate(events):
        user, key = sessions[number % 4]
        for event in (request, task):
            assert (event["user_id"], event["session_id"]) == (user, session_digest(key))
            assert event["metadata"]["request_id"] == request["metadata"]["request_id"]
            assert event["metadata"].get("bound") == (number if number % 4 > 1 else None)
        assert request["metadata"]["client_address"] == f"192.0.2.{number}"
    logged = [json.loads(line) for line in (place / "console.log").read_text().splitlines()]
    assert {request["metadata"]["request_id"] for request, _ in events} <= {line["request_id"] for line in logged}
    in_views = [line for line in logged if line["event"] == "in_the_view"]
    assert {type(line["user_id"]) for line in in_views} == {int}
    assert len({line["request_id"] for line in in_views}) == len(in_views) == sum("thread" in path for path, _ in calls)
    assert len({request["metadata"]["request_id"] for request, _ in events}) == len(calls)
