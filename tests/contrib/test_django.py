"""The Django middleware, in a real project with sessions, users and a database."""

from __future__ import annotations

import asyncio
import sys

import django
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from structlog.contextvars import bind_contextvars, get_contextvars

from structlog_audit import AuditTypeError, AuditValueError, get_audit_logger
from structlog_audit.contrib.actor import session_digest
from structlog_audit.contrib.django import AuditContextMiddleware

LOG = get_audit_logger()
AUDIT = "structlog_audit.contrib.django.AuditContextMiddleware"
AUTHENTICATION = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def plain(request):
    LOG.info("STORE")
    return HttpResponse("done")


async def on_the_loop(request):
    await LOG.ainfo("STORE")
    return HttpResponse("done")


def failing(request):
    LOG.info("STORE")
    raise RuntimeError("no")


def bound_in_the_view(request):
    bind_contextvars(user_id="known later")
    return streamed(request)


def streamed(request):
    def pieces():
        for number in range(2):
            LOG.info("STORE", number=number)
            yield b"piece"

    return StreamingHttpResponse(pieces())


def broken_off(request):
    def pieces():
        with LOG.operation("EXPORT"):
            yield b"piece"
            yield b"piece"

    return StreamingHttpResponse(pieces())


async def streamed_on_the_loop(request):
    async def pieces():
        for number in range(2):
            await LOG.ainfo("STORE", number=number)
            yield b"piece"

    return StreamingHttpResponse(pieces())


def file(request):
    return FileResponse(open(__file__, "rb"))


VIEWS = [plain, on_the_loop, failing, bound_in_the_view, broken_off, streamed, streamed_on_the_loop, file]
urlpatterns = [path(view.__name__, view) for view in VIEWS]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A Django project with the users and sessions that Django has."""
    settings.configure(
        SECRET_KEY="of these tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=[*AUTHENTICATION, AUDIT],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(tmp_path_factory.mktemp("django") / "db.sqlite3"),
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    yield
    asyncio.run(sync_to_async(connections.close_all)())
    connections.close_all()


@pytest.fixture
def ada(project):
    """A user."""
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username="ada")[0]


def ask(view, *, user=None, headers=None):
    """The body of the answer of *view* under WSGI, and who asked."""
    client = Client(raise_request_exception=False)
    if user:
        client.force_login(user)
    response = client.get(f"/{view.__name__}", headers=headers)
    return response.getvalue(), client


def ask_async(view, *, user=None, headers=None):
    """The same under ASGI."""

    async def run():
        client = AsyncClient(raise_request_exception=False)
        if user:
            await sync_to_async(client.force_login)(user)
        response = await client.get(f"/{view.__name__}", headers=headers)
        if response.streaming and response.is_async:
            return b"".join([piece async for piece in response.streaming_content]), client
        return await sync_to_async(response.getvalue)(), client

    return asyncio.run(run())


WAYS = pytest.mark.parametrize("way", [ask, ask_async], ids=["WSGI", "ASGI"])


@WAYS
@pytest.mark.parametrize("view", [plain, on_the_loop, failing])
def test_the_events_of_a_request_name_who_acts(handler, ada, way, view):
    """Under both kinds of server, in both kinds of views, and if the view fails."""
    _, client = way(view, user=ada, headers={"x-request-id": "r1", "x-forwarded-for": "6.6.6.6"})
    (event,) = handler.query_events()
    assert event.user_id == str(ada.pk)
    assert event.session_id == session_digest(client.cookies["sessionid"].value)
    assert event.metadata == {"request_id": "r1", "client_address": "127.0.0.1"}
    assert get_contextvars() == {}


@pytest.mark.parametrize(("way", "view"), [(ask, streamed), (ask_async, streamed_on_the_loop)], ids=["WSGI", "ASGI"])
def test_a_streamed_response_is_made_by_who_acted(handler, ada, way, view):
    """Pieces are made after the middleware has returned: each has the actor all the same, and leaves nothing behind."""
    body, _ = way(view, user=ada, headers={"x-request-id": "r1"})
    assert body == b"piecepiece"
    assert [event.user_id for event in handler.query_events()] == [str(ada.pk)] * 2
    assert {event.metadata["request_id"] for event in handler.query_events()} == {"r1"}
    assert get_contextvars() == {}


def test_what_the_view_bound_holds_for_what_it_streams_and_ends_there(handler, project):
    """A user whom only the view knows is named in its streamed response, and nowhere later."""
    bind_contextvars(user_id="before")
    ask(bound_in_the_view)
    assert {event.user_id for event in handler.query_events()} == {"known later"}
    assert get_contextvars() == {"user_id": "before"}


def test_between_two_pieces_nobody_acts(handler, ada):
    """Whoever takes the pieces of a streamed response does not become its actor."""
    client = Client()
    client.force_login(ada)
    response = client.get("/streamed")
    next(iter(response))
    assert get_contextvars() == {}
    response.close()


def test_who_breaks_off_a_streamed_response_is_named(handler, ada):
    """What a generator still records because nobody reads on is done by who acted."""
    client = Client()
    client.force_login(ada)
    response = client.get("/broken_off")
    next(iter(response))
    response.close()
    (event,) = handler.query_events()
    assert (event.status, event.user_id) == ("FAILURE", str(ada.pk))
    assert get_contextvars() == {}


@WAYS
def test_a_session_that_the_client_made_up_is_none(handler, ada, way):
    """A key that opens no session is not recorded as one, by whatever means the user is known."""
    for options in ({}, {"user": lambda request: "bob"}):
        with override_settings(STRUCTLOG_AUDIT=options):
            way(plain, headers={"cookie": "sessionid=" + "a" * 32})
    assert [event.session_id for event in handler.query_events()] == [None, None]


def test_a_file_is_left_to_the_server(project):
    """A file's response keeps what lets a server send it by itself."""
    response = AuditContextMiddleware(file)(RequestFactory().get("/file"))
    assert response.file_to_stream is not None
    response.close()


@WAYS
def test_nobody_is_logged_in(handler, project, way):
    """An anonymous request has no user and no session, and each an id of its own."""
    way(plain)
    way(plain)
    events = handler.query_events()
    assert [(event.user_id, event.session_id) for event in events] == [(None, None)] * 2
    assert len({event.metadata["request_id"] for event in events}) == 2


def mail_of(request):
    """Who acts, by a query of the database."""
    from django.contrib.auth.models import User

    return User.objects.get(pk=request.user.pk).username


@WAYS
def test_the_project_says_who_acts(handler, ada, way):
    """Options are in a setting, by dotted path or not; under ASGI, too, they may ask the database."""
    sys.modules.setdefault("test_contrib_django", sys.modules[__name__])
    options = {"user": "test_contrib_django.mail_of", "session": lambda request: "s1", "trusted_proxies": 1}
    with override_settings(STRUCTLOG_AUDIT=options):
        way(plain, user=ada, headers={"x-forwarded-for": "6.6.6.6, 192.0.2.9"})
    (event,) = handler.query_events()
    assert (event.user_id, event.session_id, event.metadata["client_address"]) == ("ada", "s1", "192.0.2.9")


@WAYS
def test_without_authentication_there_is_no_user(handler, project, way):
    """A project without users and sessions has events without."""
    with override_settings(MIDDLEWARE=[AUDIT]):
        way(plain)
    assert handler.query_events()[0].user_id is None


@WAYS
def test_a_middleware_that_runs_too_early_says_so(handler, ada, way):
    """Before AuthenticationMiddleware nobody is known: a warning says where to put it."""
    with override_settings(MIDDLEWARE=[AUDIT, *AUTHENTICATION]), pytest.warns(RuntimeWarning, match="put it behind"):
        way(plain, user=ada)


async def user_on_the_loop(request):
    return "ada"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"users": len}, AuditTypeError, "STRUCTLOG_AUDIT has \\['users'\\]: the options are user, session"),
        ({"user": 1}, AuditTypeError, "user=1: give a function"),
        ({"user": user_on_the_loop}, AuditTypeError, "give a plain function"),
        ({"session": "structlog_audit.nowhere"}, ImportError, "nowhere"),
        ({"trusted_proxies": "1"}, AuditTypeError, "trusted_proxies='1'"),
        ({"trusted_proxies": -1}, AuditValueError, "trusted_proxies=-1"),
    ],
)
def test_options_that_cannot_be_meant(project, options, error, words):
    """What can't be meant is an error when the project starts."""
    with override_settings(STRUCTLOG_AUDIT=options), pytest.raises(error, match=words):
        AuditContextMiddleware(plain)
