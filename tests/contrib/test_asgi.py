"""The ASGI middleware, under Starlette's test client."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from structlog_audit import AuditTypeError, AuditValueError, get_audit_logger
from structlog_audit.contrib.asgi import AuditContextMiddleware

LOG = get_audit_logger()


class Token(AuthenticationBackend):
    """Authenticates a client as the user that its header names."""

    async def authenticate(self, conn):
        name = conn.headers.get("authorization")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


def in_a_thread(request):
    LOG.info("STORE", path=request.url.path)
    return PlainTextResponse("done")


async def on_the_loop(request):
    await LOG.ainfo("RECALL", path=request.url.path)
    return PlainTextResponse("done", background=BackgroundTask(lambda: LOG.info("COMPACT")))


async def streamed(request):
    async def pieces():
        for number in range(3):
            LOG.info("EXPORT", number=number)
            yield b"piece"

    return StreamingResponse(pieces())


async def failing(request):
    LOG.info("FORGET")
    raise RuntimeError("no")


async def bound_in_the_request(request):
    bind_contextvars(user_id="known later", tenant="bound in the request")
    LOG.info("STORE")
    return PlainTextResponse("done")


async def socket(websocket):
    await websocket.accept()
    LOG.info("STORE", text=await websocket.receive_text())
    await websocket.close()


ROUTES = [
    Route("/thread", in_a_thread),
    Route("/loop", on_the_loop),
    Route("/streamed", streamed),
    Route("/failing", failing),
    Route("/bound", bound_in_the_request),
    WebSocketRoute("/socket", socket),
]

AUTHENTICATION = Middleware(AuthenticationMiddleware, backend=Token())


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def client(*inner, before=(AUTHENTICATION,), **options):
    """Return a client of the application, with the audit middleware between *before* and *inner*."""
    middleware = [*before, Middleware(AuditContextMiddleware, **options), *inner]
    return TestClient(Starlette(routes=ROUTES, middleware=middleware), client=("192.0.2.7", 50_000))


HEADERS = {"authorization": "ada", "x-request-id": "r1"}


@pytest.mark.parametrize("inner", [(), (Middleware(Passing),)], ids=["pure", "with BaseHTTPMiddleware"])
@pytest.mark.parametrize(
    ("path", "operations"),
    [("/thread", ["STORE"]), ("/loop", ["RECALL", "COMPACT"]), ("/streamed", ["EXPORT"] * 3)],
)
def test_http_request_names_its_actor_in_every_event(handler, path, operations, inner):
    """Events name the actor in threads, on the loop, in background tasks and while a response is streamed."""
    with client(*inner) as http:
        assert http.get(path, headers=HEADERS).status_code == 200
    events = list(handler.iter_events())
    assert [event.operation for event in events] == operations
    for event in events:
        assert (event.user_id, event.session_id) == ("ada", None)
        assert event.metadata["request_id"] == "r1"
        assert event.metadata["client_address"] == "192.0.2.7"


def test_websocket_names_its_actor(handler):
    """A WebSocket counts as a request while it is open."""
    with client().websocket_connect("/socket", headers=HEADERS) as connection:
        connection.send_text("hello")
    (event,) = handler.query_events()
    assert (event.user_id, event.metadata["request_id"], event.metadata["text"]) == ("ada", "r1", "hello")


def test_anonymous_requests_have_no_user_and_distinct_request_ids(handler):
    """Events of an anonymous request have no user, and each request has a different id."""
    http = client()
    http.get("/thread")
    http.get("/thread")
    events = handler.query_events()
    assert [event.user_id for event in events] == [None, None]
    assert len({event.metadata["request_id"] for event in events}) == 2


async def call(app, path="/bound", **scope):
    """Send one request in the current task, as a server without a task per request would."""

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", **scope}
    await app(scope, receive, send)


@pytest.mark.parametrize("path", ["/bound", "/failing"])
def test_fields_bound_in_a_request_end_with_it(handler, path):
    """Fields that the application binds itself end with the request, even if it fails."""
    app = AuditContextMiddleware(Starlette(routes=ROUTES), user=lambda scope: None)

    async def run():
        bind_contextvars(user_id="before", tenant="acme")
        try:
            await call(app, path)
        except RuntimeError:
            assert path == "/failing"
        assert get_contextvars() == {"user_id": "before", "tenant": "acme"}

    asyncio.run(run())
    assert [event.user_id for event in handler.query_events()] == ["known later" if path == "/bound" else None]


def test_server_is_called_in_the_context_around_the_request(handler):
    """A server that begins the next request in a copy of the context in which it is called passes nothing on to it."""
    contexts = []

    async def receive():
        contexts.append(copy_context())
        return {"type": "http.disconnect"}

    async def send(message):
        contexts.append(copy_context())

    async def app(scope, receive, send):
        bind_contextvars(tenant="acme")
        LOG.info(scope["path"])
        await receive()
        await asyncio.create_task(send({"type": "http.response.start"}))

    middleware = AuditContextMiddleware(app, user=lambda scope: scope["path"])

    def request(path):
        asyncio.run(middleware({"type": "http", "path": path, "headers": []}, receive, send))

    request("/first")
    for context in contexts[:2]:
        context.run(request, "/next")
    first, *others = handler.iter_events()
    assert (first.user_id, len(others)) == ("/first", 2)
    assert {event.user_id for event in others} == {"/next"}
    assert len({event.metadata["request_id"] for event in handler.iter_events()}) == 3
    assert contexts[0].run(get_contextvars) == contexts[1].run(get_contextvars) == {}


def test_values_bound_by_the_user_function_are_of_its_request(handler):
    """What the function `user` binds is in the events of its request and ends with it."""

    async def user(scope):
        bind_contextvars(tenant="acme")
        return "ada"

    async def run():
        await call(AuditContextMiddleware(Starlette(routes=ROUTES), user=user), "/thread")
        assert get_contextvars() == {}

    asyncio.run(run())
    (event,) = handler.query_events()
    assert (event.user_id, event.metadata["tenant"]) == ("ada", "acme")


def test_clearing_middleware_keeps_the_actor(handler):
    """A middleware that begins with `clear_contextvars()`, as structlog advises, leaves the actor in the events."""

    class Clearing(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            clear_contextvars()
            bind_contextvars(tenant="acme")
            return await call_next(request)

    with client(Middleware(Clearing)) as http:
        http.get("/thread", headers=HEADERS)
    (event,) = handler.query_events()
    assert (event.user_id, event.metadata["request_id"], event.metadata["tenant"]) == ("ada", "r1", "acme")


def test_task_that_outlives_its_request_keeps_its_context(handler):
    """A task started in a request names the actor of that request, while the next request has its own."""
    started = []

    async def app(scope, receive, send):
        async def later():
            await event.wait()
            LOG.info("LATER", path=scope["path"])

        started.append(asyncio.create_task(later()))

    async def run():
        nonlocal event
        event = asyncio.Event()
        for path in ("/one", "/two"):
            await call(AuditContextMiddleware(app, user=lambda scope: scope["path"]), path)
        event.set()
        await asyncio.gather(*started)

    event = None
    asyncio.run(run())
    assert sorted((event.user_id, event.metadata["path"]) for event in handler.query_events()) == [
        ("/one", "/one"),
        ("/two", "/two"),
    ]


def test_user_and_session_functions_determine_the_actor(handler):
    """`user` and `session` are functions of the scope, async or not; repeated headers count as one."""

    async def user(scope):
        return dict(scope["headers"])[b"x-user"].decode()

    http = client(before=(), user=user, session=lambda scope: scope["path"], trusted_proxies=1)
    headers = [
        ("x-user", "u1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "192.0.2.9"),
        ("x-request-id", "a b"),
    ]
    http.get("/thread", headers=headers)
    (event,) = handler.query_events()
    assert (event.user_id, event.session_id) == ("u1", "/thread")
    assert event.metadata["client_address"] == "192.0.2.9"
    assert event.metadata["request_id"] != "a b"


def test_concurrent_requests_keep_their_actors_apart(handler):
    """With many requests in one loop each event has the user of its request."""

    async def app(scope, receive, send):
        for _ in range(5):
            await asyncio.sleep(0)
            await LOG.ainfo("STORE", path=scope["path"])

    middleware = AuditContextMiddleware(app, user=lambda scope: scope["path"])

    async def run():
        await asyncio.gather(*(call(middleware, f"u{number}") for number in range(50)))

    asyncio.run(run())
    events = handler.query_events()
    assert len(events) == 250
    assert all(event.user_id == event.metadata["path"] for event in events)


def test_request_without_a_client_has_no_address(handler):
    """Behind a Unix socket a server may not know the client, and the event has no address."""
    asyncio.run(call(AuditContextMiddleware(Starlette(routes=ROUTES)), client=None))
    assert "client_address" not in handler.query_events()[0].metadata


def test_middleware_before_authentication_warns(handler):
    """If authentication runs later, events would lack their user: a warning names the right order."""
    with pytest.warns(RuntimeWarning, match="add it before AuthenticationMiddleware"):
        client(AUTHENTICATION, before=()).get("/thread", headers=HEADERS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"user": "u1"}, AuditTypeError, "user='u1': expected a function"),
        ({"session": 1}, AuditTypeError, "session=1: expected a function"),
        ({"trusted_proxies": True}, AuditTypeError, "trusted_proxies=True: expected an integer"),
        ({"trusted_proxies": -1}, AuditValueError, "trusted_proxies=-1: expected 0 or"),
    ],
)
def test_invalid_option_is_an_error_that_names_it(options, error, message):
    """An invalid option is an error that names the parameter, when the application is built."""
    with pytest.raises(error, match=message):
        AuditContextMiddleware(Starlette(), **options)
