"""The Django middleware, in a real project with sessions, users and a database."""

from __future__ import annotations

import asyncio
import sys

import pytest
from asgiref.sync import sync_to_async
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from structlog_audit import AuditTypeError, AuditValueError, get_audit_logger
from structlog_audit.contrib.actor import SavedContext, bind_actor, session_digest
from structlog_audit.contrib.django import AuditContextMiddleware
from structlog_audit.contrib.django.middleware import _before_request, _begin_request, _end_request

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


def aborted(request):
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


def bound_tenant(request):
    bind_contextvars(tenant="acme")
    LOG.info("STORE")
    return HttpResponse("done")


def bound_tenant_in_a_stream(request):
    bind_contextvars(tenant="acme")

    def pieces():
        LOG.info("STORE")
        bind_contextvars(tenant="bound in a piece")
        yield b"piece"
        LOG.info("STORE")

    return StreamingHttpResponse(pieces())


def cleared(request):
    clear_contextvars()
    return plain(request)


def file(request):
    return FileResponse(open(__file__, "rb"))


VIEWS = [plain, on_the_loop, failing, bound_in_the_view, aborted, streamed, streamed_on_the_loop, file]
VIEWS += [bound_tenant, bound_tenant_in_a_stream, cleared]
urlpatterns = [path(view.__name__, view) for view in VIEWS]


@pytest.fixture
def ada(project):
    """A user."""
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username="ada")[0]


def request_sync(view, *, user=None, headers=None):
    """Request *view* under WSGI; return the body of the response and the client."""
    client = Client(raise_request_exception=False)
    if user:
        client.force_login(user)
    response = client.get(f"/{view.__name__}", headers=headers)
    return response.getvalue(), client


def request_async(view, *, user=None, headers=None):
    """Request *view* as `request_sync` does, under ASGI."""

    async def run():
        client = AsyncClient(raise_request_exception=False)
        if user:
            await sync_to_async(client.force_login)(user)
        response = await client.get(f"/{view.__name__}", headers=headers)
        if response.streaming and response.is_async:
            return b"".join([piece async for piece in response.streaming_content]), client
        return await sync_to_async(response.getvalue)(), client

    return asyncio.run(run())


SERVERS = pytest.mark.parametrize("request_view", [request_sync, request_async], ids=["WSGI", "ASGI"])


@SERVERS
@pytest.mark.parametrize("view", [plain, on_the_loop, failing])
def test_request_names_its_actor_in_every_event(handler, ada, request_view, view):
    """Events name the actor under WSGI and ASGI, in both kinds of views, and if the view fails."""
    _, client = request_view(view, user=ada, headers={"x-request-id": "r1", "x-forwarded-for": "6.6.6.6"})
    (event,) = handler.query_events()
    assert event.user_id == str(ada.pk)
    assert event.session_id == session_digest(client.cookies["sessionid"].value)
    assert event.metadata == {"request_id": "r1", "client_address": "127.0.0.1"}
    assert get_contextvars() == {}


@pytest.mark.parametrize(
    ("request_view", "view"), [(request_sync, streamed), (request_async, streamed_on_the_loop)], ids=["WSGI", "ASGI"]
)
def test_streamed_response_keeps_the_actor_of_its_request(handler, ada, request_view, view):
    """The pieces are made after the middleware has returned: each names the actor, and no field stays bound."""
    body, _ = request_view(view, user=ada, headers={"x-request-id": "r1"})
    assert body == b"piecepiece"
    assert [event.user_id for event in handler.query_events()] == [str(ada.pk)] * 2
    assert {event.metadata["request_id"] for event in handler.query_events()} == {"r1"}
    assert get_contextvars() == {}


@SERVERS
def test_values_bound_by_a_view_end_with_its_request(handler, project, request_view):
    """What a view binds and does not clear is in no event of the next request of the same thread."""
    request_view(bound_tenant)
    request_view(plain)
    assert [event.metadata.get("tenant") for event in handler.iter_events()] == ["acme", None]
    assert get_contextvars() == {}


def test_values_bound_by_a_view_hold_for_its_stream(handler, project):
    """The pieces of a stream are made in the context of the view, and each piece in that of the one before."""
    request_sync(bound_tenant_in_a_stream)
    assert [event.metadata["tenant"] for event in handler.iter_events()] == ["acme", "bound in a piece"]
    assert get_contextvars() == {}


@SERVERS
def test_clearing_view_keeps_the_actor(handler, ada, request_view):
    """A view or an inner middleware that clears structlog's contextvars leaves the actor in the events."""
    request_view(cleared, user=ada, headers={"x-request-id": "r1"})
    (event,) = handler.query_events()
    assert (event.user_id, event.metadata["request_id"]) == (str(ada.pk), "r1")


def leaving(get_response):
    """A middleware that binds a value for some requests and never clears it."""

    def respond(request):
        if "x-tenant" in request.headers:
            bind_contextvars(tenant=request.headers["x-tenant"])
        return get_response(request)

    return respond


LEAVING = f"{__name__}.leaving"


@pytest.mark.parametrize("is_closed", [True, False])
def test_values_left_by_a_middleware_around_end_with_the_request(handler, project, is_closed):
    """The next request of a thread begins without them, even if the server never closes a response."""
    if not is_closed:
        _before_request.set(SavedContext())
    with override_settings(MIDDLEWARE=[LEAVING, AUDIT]):
        if is_closed:
            request_sync(plain, headers={"x-tenant": "acme"})
        else:
            bind_contextvars(tenant="left by a request that was not closed")
        request_sync(plain)
    assert handler.query_events()[0].metadata.get("tenant") is None
    assert get_contextvars() == {}


def test_request_in_a_request_keeps_the_context_of_the_view(handler, project):
    """A view that sends a request to the application, such as a health check, keeps its own context."""
    with bind_actor({"user_id": "ada"}):
        _begin_request()
        bind_contextvars(tenant="acme")
        request_sync(plain)
        LOG.info("RECALL")
        _end_request()
    _, outer = handler.iter_events()
    assert (outer.user_id, outer.metadata["tenant"]) == ("ada", "acme")


def test_user_bound_by_a_view_holds_for_its_stream_only(handler, project):
    """A user that only the view knows is named in its streamed response, and not afterwards."""
    bind_contextvars(user_id="before")
    request_sync(bound_in_the_view)
    assert {event.user_id for event in handler.query_events()} == {"known later"}
    assert get_contextvars() == {"user_id": "before"}


def test_no_actor_is_bound_between_two_pieces_of_a_stream(handler, ada):
    """Code that consumes a streamed response does not run with its actor."""
    client = Client()
    client.force_login(ada)
    response = client.get("/streamed")
    next(iter(response))
    assert get_contextvars() == {}
    response.close()


def test_aborted_stream_is_recorded_with_its_actor(handler, ada):
    """Events that a generator records when its stream is aborted name the actor."""
    client = Client()
    client.force_login(ada)
    response = client.get("/aborted")
    next(iter(response))
    response.close()
    (event,) = handler.query_events()
    assert (event.status, event.user_id) == ("FAILURE", str(ada.pk))
    assert get_contextvars() == {}


@SERVERS
def test_session_key_invented_by_the_client_is_not_recorded(handler, ada, request_view):
    """A key that opens no session is not recorded, even if the user is known from another source."""
    for options in ({}, {"user": lambda request: "bob"}):
        with override_settings(STRUCTLOG_AUDIT=options):
            request_view(plain, headers={"cookie": "sessionid=" + "a" * 32})
    assert [event.session_id for event in handler.query_events()] == [None, None]


def test_file_response_is_left_to_the_server(project):
    """The response of a file keeps its `file_to_stream`, with which a server sends it."""
    response = AuditContextMiddleware(file)(RequestFactory().get("/file"))
    assert response.file_to_stream is not None
    response.close()


@SERVERS
def test_anonymous_requests_have_no_user_and_distinct_request_ids(handler, project, request_view):
    """An anonymous request has neither user nor session, and each has a different id."""
    request_view(plain)
    request_view(plain)
    events = handler.query_events()
    assert [(event.user_id, event.session_id) for event in events] == [(None, None)] * 2
    assert len({event.metadata["request_id"] for event in events}) == 2


def name_of(request):
    """Return the name of the user by a query of the database."""
    from django.contrib.auth.models import User

    return User.objects.get(pk=request.user.pk).username


@SERVERS
def test_options_in_the_settings_determine_the_actor(handler, ada, request_view):
    """Options are functions or dotted paths in a setting; under ASGI they may query the database, too."""
    sys.modules.setdefault("test_contrib_django", sys.modules[__name__])
    options = {"user": "test_contrib_django.name_of", "session": lambda request: "s1", "trusted_proxies": 1}
    with override_settings(STRUCTLOG_AUDIT=options):
        request_view(plain, user=ada, headers={"x-forwarded-for": "6.6.6.6, 192.0.2.9"})
    (event,) = handler.query_events()
    assert (event.user_id, event.session_id, event.metadata["client_address"]) == ("ada", "s1", "192.0.2.9")


@SERVERS
def test_request_without_authentication_has_no_user(handler, project, request_view):
    """A project without users and sessions has events without them."""
    with override_settings(MIDDLEWARE=[AUDIT]):
        request_view(plain)
    assert handler.query_events()[0].user_id is None


@SERVERS
def test_middleware_before_authentication_warns(handler, ada, request_view):
    """Before AuthenticationMiddleware the user is unknown: a warning names the right position."""
    with override_settings(MIDDLEWARE=[AUDIT, *AUTHENTICATION]), pytest.warns(RuntimeWarning, match="put it behind"):
        request_view(plain, user=ada)


async def user_on_the_loop(request):
    return "ada"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"users": len},
            AuditTypeError,
            "STRUCTLOG_AUDIT: expected only user, session, trusted_proxies, got \\['users'\\]",
        ),
        ({"user": 1}, AuditTypeError, "user=1: expected a function"),
        ({"user": user_on_the_loop}, AuditTypeError, "expected a plain function, got an async one"),
        ({"session": "structlog_audit.nowhere"}, ImportError, "nowhere"),
        ({"trusted_proxies": "1"}, AuditTypeError, "trusted_proxies='1'"),
        ({"trusted_proxies": -1}, AuditValueError, "trusted_proxies=-1"),
    ],
)
def test_invalid_option_is_an_error_at_startup(project, options, error, message):
    """An invalid option is an error when the project starts."""
    with override_settings(STRUCTLOG_AUDIT=options), pytest.raises(error, match=message):
        AuditContextMiddleware(plain)
