"""The guide's recipes for logins, rejected requests and rate limits, with the frameworks' real authentication."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from guide_blocks import GUIDE, block_of
from servers import trail

from structlog_audit import OperationClasses

pytestmark = pytest.mark.system

HEAD = """
import logging
from structlog_audit import AuditHandler, get_audit_logger
logging.getLogger("audit").setLevel("INFO")
logging.getLogger("audit").addHandler(AuditHandler(filename="audit.jsonl"))
log = get_audit_logger()
"""

DJANGO = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="of these tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "structlog_audit.contrib.django.AuditContextMiddleware",
        f"{__name__}.record_rejections",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"login.html": "log in"})]},
    }],
    LOGIN_REDIRECT_URL="/open",
    LOGOUT_REDIRECT_URL="/open",
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def refuse(request):
    raise PermissionDenied

urlpatterns = [
    path("login", LoginView.as_view(template_name="login.html")),
    path("logout", LogoutView.as_view()),
    path("open", lambda request: HttpResponse("open")),
    path("secret", refuse),
    path("busy", lambda request: HttpResponse(status=429)),
]

def visit():
    call_command("migrate", verbosity=0)
    User.objects.create_user("ada", password="correct horse")
    client = Client()
    client.post("/login", {"username": "ada", "password": "wrong"})
    client.post("/login", {"username": "ada", "password": "correct horse"})
    client.get("/secret")
    client.get("/busy")
    client.post("/logout")
    client.post("/logout")
"""

FLASK = """
from flask import Flask, abort
from flask_login import LoginManager, UserMixin, login_required, login_user, logout_user

app = Flask(__name__)
app.secret_key = "of these tests"
app.after_request(record_rejections)
manager = LoginManager(app)

class User(UserMixin):
    id = "1"

@manager.user_loader
def load(identity):
    return User()

@app.post("/login")
def login():
    if request.form["password"] != "correct horse":
        log.info("user.login", status="FAILURE", username=request.form["username"])
        return "wrong"
    login_user(User())
    return "in"

@app.post("/logout")
def logout():
    logout_user()
    return "out"

@app.get("/secret")
@login_required
def secret():
    abort(403)

@app.get("/busy")
def busy():
    abort(429)

def visit():
    client = app.test_client()
    client.post("/login", data={"username": "ada", "password": "wrong"})
    client.get("/secret")
    client.post("/login", data={"username": "ada", "password": "correct horse"})
    client.get("/secret")
    client.get("/busy")
    client.post("/logout")
"""


CREDENTIALS = """
from pydantic import BaseModel

class Credentials(BaseModel):
    username: str
    password: str

async def authenticate(credentials):
    return "1" if credentials.password == "correct horse" else None

async def new_token(user):
    return "token"
"""

FASTAPI = """
from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException as AnyHTTPException
from structlog.contextvars import bind_contextvars

app = FastAPI()
app.add_exception_handler(AnyHTTPException, record_rejection)
app.post("/login")(login)

class RateLimitExceeded(HTTPException):
    pass

@app.get("/secret")
async def secret(authorization: Annotated[str | None, Header()] = None):
    if authorization is None:
        raise HTTPException(401)
    bind_contextvars(user_id="1")
    raise HTTPException(403)

@app.get("/busy")
def busy():
    raise RateLimitExceeded(429)

def visit():
    client = TestClient(app)
    assert client.post("/login", json={"username": "ada", "password": "wrong"}).status_code == 400
    assert client.get("/secret").status_code == 401
    assert client.post("/login", json={"username": "ada", "password": "correct horse"}).json() == {"token": "token"}
    assert client.get("/secret", headers={"Authorization": "token"}).status_code == 403
    assert client.get("/busy").status_code == 429
    assert client.get("/missing").status_code == 404
"""


def events_of(folder, program):
    """Run *program* in *folder*, call its ``visit``, and return operation, user, status and code or name of each event."""
    (folder / "site_module.py").write_text(program)
    words = [sys.executable, "-W", "error", "-c", "import site_module; site_module.visit()"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    lines = [line for line in trail(folder) if "kind" not in line]
    return [
        (
            line["operation"],
            line.get("user_id"),
            line["status"],
            line.get("metadata", {}).get("username") or line.get("metadata", {}).get("code"),
        )
        for line in lines
    ]


def test_django_records_logins_and_rejections(tmp_path):
    """Django's signals record each login, failed login and logout once; the middleware records 403 and 429."""
    recipe = block_of("frameworks.md", "a database")
    assert events_of(tmp_path, HEAD + recipe + DJANGO) == [
        ("user.login", None, "FAILURE", "ada"),
        ("user.login", "1", "SUCCESS", None),
        ("request.reject", "1", "FAILURE", 403),
        ("request.reject", "1", "FAILURE", 429),
        ("user.logout", "1", "SUCCESS", None),
    ]


def test_flask_login_records_logins_and_rejections(tmp_path):
    """Flask-Login's signals record each login and logout once; `after_request` records 401, 403 and 429."""
    recipe = block_of("frameworks.md", "Flask-Login")
    assert events_of(tmp_path, HEAD + recipe + FLASK) == [
        ("user.login", None, "FAILURE", "ada"),
        ("request.reject", None, "FAILURE", 401),
        ("user.login", "1", "SUCCESS", None),
        ("request.reject", None, "FAILURE", 403),
        ("request.reject", None, "FAILURE", 429),
        ("user.logout", "1", "SUCCESS", None),
    ]


def test_fastapi_records_logins_and_rejections(tmp_path):
    """The route records each login and failed login once; the handler records 401, 403 and 429 with the bound user."""
    recipe = block_of("frameworks.md", "a FastAPI application")
    assert events_of(tmp_path, HEAD + CREDENTIALS + recipe + FASTAPI) == [
        ("user.login", None, "FAILURE", "ada"),
        ("request.reject", None, "FAILURE", 401),
        ("user.login", "1", "SUCCESS", None),
        ("request.reject", "1", "FAILURE", 403),
        ("request.reject", None, "FAILURE", 429),
    ]


def test_operations_of_table_have_stated_classes():
    """The operations in the guide's table of access events have the classes that it states."""
    text = (GUIDE / "frameworks.md").read_text(encoding="utf-8")
    stated = set(re.findall(r"^\| [^|]+ \| `([^`]+)` \| (\w+) \|", text, re.MULTILINE))
    assert stated == {(operation, OperationClasses().class_of(operation)) for operation, _ in stated}
    assert {operation for operation, _ in stated} == {"user.login", "user.logout", "request.reject"}
