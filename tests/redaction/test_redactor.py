"""Redaction: no clear value reaches memory or disk, nothing else changes, and a clear value still finds its pseudonym."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
from collections import deque

import pytest
import strategies
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from structlog_audit import (
    AuditHandler,
    AuditLogger,
    AuditProcessor,
    AuditTypeError,
    AuditValueError,
    Redactor,
    get_audit_handler,
    get_audit_logger,
)
from structlog_audit.events.codec import MARKS, decode, encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event_id import Stamp
from structlog_audit.redaction.redactor import make_redactor
from structlog_audit.redaction.rules import DEFAULT_KEYS
from structlog_audit.redaction.scrubber import MASK

CANARY = "C4nary-7f3e.zq"
KEY = b"0123456789abcdef0123456789abcdef"
TOKEN = f"Bearer {CANARY}"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\nMIIE\n-----END RSA PRIVATE KEY-----"


def written(redactor, **fields):
    """The event with *fields* as it is written, without id and time."""
    return "{" + encode_payload(convert({"operation": "STORE", **fields}), 32_000, redactor).decode()


def metadata(redactor, **fields):
    return json.loads(written(redactor, **fields)).get("metadata", {})


# --- what is redacted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(DEFAULT_KEYS))
def test_the_default_keys_are_masked_in_any_spelling(key):
    """Every credential key is masked in any case, with hyphens, and where conversion renamed it."""
    for spelled in (
        key,
        key.upper(),
        key.title(),
        key.replace("_", "-"),
        f"{key}_",
        f"{key}_12",
        key.replace("k", "\u212a"),
    ):
        found = metadata(Redactor(), metadata={"a": [{spelled: CANARY}]})
        assert found == {"a": [{spelled: MASK}], MARKS: {f"a[0].{spelled}": "redacted: mask"}}


@pytest.mark.parametrize(
    "key", ["classname", "pwd", "tokens_used", "key", "session_id", "my_password", "secretary", "to_ken"]
)
def test_a_key_that_only_resembles_one_stays(key):
    """Names are compared as wholes."""
    assert metadata(Redactor(), **{key: CANARY}).get(key, CANARY) == CANARY
    assert MARKS not in metadata(Redactor(), **{key: CANARY})


@pytest.mark.parametrize(
    "text",
    [TOKEN, TOKEN.lower(), f"\u00e9 bearer\n{CANARY.lower()}\u00e9", f"a;BEARER\t{CANARY},", PEM, PEM[:-30], PEM * 2],
)
def test_bearer_tokens_and_private_keys_are_masked_in_every_text(text):
    """What is surely secret in a text is taken out, wherever the text stands."""
    line = written(
        Redactor(),
        operation=text,
        error_message=text,
        metadata={"text": text, text: 1, "deep": {"list": [text, {text: [text]}]}},
        args=(text,),
    )
    assert CANARY.lower() not in line.lower()


@pytest.mark.parametrize(
    "text", ["Bearer token expired", "a bearer of news", "Missing bearer token.", "Bearer", "forbearer x1"]
)
def test_prose_is_no_token(text):
    """A word behind "Bearer" stays."""
    assert metadata(Redactor(), text=text) == {"text": text}


def test_the_defaults_leave_identities_alone():
    """User, session and entries are touched only if told."""
    fields = {"user_id": TOKEN, "session_id": TOKEN, "entry_ids": [TOKEN]}
    event = json.loads(written(Redactor(), **fields))
    assert {name: event[name] for name in fields} == fields
    assert CANARY not in written(Redactor(patterns=[r"C4nary\S*"]), **fields)


@pytest.mark.parametrize("how", [{"keys": ["user_id", "session_id", "entry_ids", "error_message", "operation"]},
                                 {"paths": ["user_id", "session_id", "entry_ids", "error_message", "operation"]}])  # fmt: skip
def test_every_member_can_be_redacted_if_told(how):
    """Keys and paths reach the own members, and what could not be one of them."""
    fields = dict.fromkeys(("operation", "user_id", "session_id", "error_message"), CANARY) | {
        "entry_ids": [CANARY, CANARY]
    }
    event = json.loads(written(Redactor(**how), **fields))
    assert [event[name] for name in fields] == [MASK, MASK, MASK, MASK, [MASK]]
    misfits = {name: {"a": CANARY, CANARY: object()} for name in fields}
    assert CANARY not in written(Redactor(**how), **misfits)
    assert CANARY not in written(Redactor(**how), **misfits, metadata=dict.fromkeys(fields, 1))


def test_a_path_goes_through_lists_and_names_with_dots():
    """A path means the same whatever holds its parts."""
    redactor = Redactor(paths=["metadata.user.email"])
    found = metadata(redactor, user=[{"Email": CANARY}], metadata={"user.email": CANARY, "email": "kept"})
    assert CANARY not in str(found)
    assert found["email"] == "kept"


def test_modes_can_differ_by_rule():
    """Each rule may say its own mode."""
    redactor = Redactor(
        keys={"a": "drop", "b": "mask"}, paths={"metadata.c": "pseudonym"}, patterns={"x+": "drop"}, secret=KEY
    )
    found = metadata(redactor, a=1, b=[2], c={"n": [3]}, d="oxxo", xx="y")
    marks = {"a": "drop", "b": "mask", "c": "pseudonym", "d": "drop", "": "drop"}
    assert found.pop(MARKS) == {name: f"redacted: {how}" for name, how in marks.items()}
    assert found == {"b": MASK, "c": redactor.pseudonym({"n": [3]}), "d": "oo", "": "y"}


def test_a_group_called_secret_limits_a_pattern():
    """The rest of what the pattern matches stays."""
    assert metadata(Redactor(patterns=[r"pin=(?P<secret>\d+)"]), text="pin=1234;")["text"] == f"pin={MASK};"


def test_a_key_that_is_bytes_counts():
    """Headers as WSGI and ASGI have them are redacted by their names."""
    assert metadata(Redactor(), headers={b"Authorization": CANARY, b"accept": "text/html"})["headers"] == {
        "Authorization": MASK,
        "accept": "text/html",
    }


@pytest.mark.parametrize("redactor", [Redactor(), Redactor(patterns=["never to be found"])])
@pytest.mark.parametrize("text", ["harmless", "password", MARKS])
def test_a_key_of_a_hostile_class_is_a_text(redactor, text):
    """Nothing is asked of it, at any depth, beside an equal text that was seen before or not."""
    for key in (strategies.HostileStr(text), text, strategies.HostileStr(text)):
        found = metadata(redactor, metadata={key: 5, "x": {key: 1}})
        assert found.pop("x") == {text: MASK if text == "password" else 1}
        assert MASK in found.values() if text == "password" else 5 in found.values()


def test_no_pattern_touches_the_id_of_an_intent():
    """An event's id as ``metadata.intent_id`` stays, so that no intent stays open; another value is redacted."""
    digits = Redactor(patterns=[r"[0-9]+"])
    intent_id = "evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c"
    assert metadata(digits, intent_id=intent_id) == {"intent_id": intent_id}
    assert metadata(digits, intent_id="card 4111")["intent_id"] == f"card {MASK}"


def test_an_operation_never_becomes_empty():
    """An operation of which nothing is left is masked."""
    assert json.loads(written(Redactor(patterns={"C.*": "drop"}), operation=CANARY))["operation"] == MASK


def test_keys_that_become_alike_stay_apart():
    """Two names that are masked keep both of their values."""
    found = metadata(Redactor(), metadata={f"Bearer {n}x.1": n for n in range(3)} | {f"Bearer {MASK}": 9})
    assert sorted(value for name, value in found.items() if name != MARKS) == [0, 1, 2, 9]


def test_marks_name_no_secret_and_keep_what_else_was_changed():
    """Marks of the conversion below what was redacted go; the others stay."""
    found = metadata(Redactor(), metadata={"password": {CANARY: object()}, TOKEN: {"a": b"x"}, "b": b"x"})
    assert CANARY not in json.dumps(found)
    assert found[MARKS]["b"] == "replaced: bytes as base64"
    assert found[MARKS]["password"] == "redacted: mask"


def test_what_is_cut_was_redacted_before():
    """The marks of a cut stand beside those of the redaction."""
    redactor = Redactor(keys=["entry_ids"], patterns={r"C4nary\S*": "mask"})
    body = convert({"operation": "STORE", "error_message": f"{CANARY} {'x' * 9_000}"})
    event = decode(Stamp().line(encode_payload(body, 4_096, redactor)))
    assert event.metadata[MARKS]["error_message"].startswith("redacted: mask; cut: ")


# --- for all values ----------------------------------------------------------------------------------------------------

redactor = Redactor(
    keys={"Hidden": "mask", "g\u00e9heim": "drop", "user_id": "pseudonym", 'q"\\\x01': "mask", "id": "pseudonym"},
    paths=["metadata.where.it is", "session_id", "metadata.a.b.c"],
    secret=KEY,
)
hidden_keys = st.sampled_from(
    ["hidden", "HIDDEN", "G\u00c9HEIM", "id", "ID_", 'Q"\\\x01', "password", "Set-Cookie", "TO\u212aEN_3", "User_Id"]
)
secrets = st.recursive(
    st.sampled_from([CANARY, f"\ud800{CANARY}", f"x{CANARY}\n"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(st.just(CANARY), inner, min_size=1)
    ),
    max_leaves=4,
)
holders = st.one_of(
    st.dictionaries(hidden_keys, secrets, min_size=1),
    st.sampled_from([TOKEN, PEM, {"text": TOKEN}, {TOKEN: 1}, [PEM]]),
    secrets.map(lambda value: {"where": {"It-is".replace("-", " "): value}}).map(lambda value: {"metadata": value}),
)
nested = st.recursive(
    holders.filter(lambda value: "metadata" not in value),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.tuples(inner, strategies.scalars),
        st.builds(deque, st.lists(inner, max_size=2)),
        st.dictionaries(strategies.texts, inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(nested, strategies.others, secrets, secrets)
@example({"password": CANARY}, {}, CANARY, CANARY)
def test_no_canary_is_written_whatever_holds_it(value, others, user, session):
    """For all nested values with a secret under a key, a path or in a text, the line does not have it."""
    fields = {
        **others,
        "value": value,
        "user_id": user,
        "session_id": session,
        "where": {"it is": user},
        "a": {"b.c": session},
    }
    line = written(redactor, **{name: item for name, item in fields.items() if name != "operation"})
    assert CANARY not in line


@given(strategies.well_typed, strategies.others)
def test_an_event_without_secrets_is_written_as_without_redaction(fields, others):
    """Nothing else is changed: not a byte."""
    fields = {**others, **fields}
    plain = written(None, **fields)
    if not re.search("bearer|-----begin", plain.lower()) and not any(json.dumps(key) in plain for key in DEFAULT_KEYS):
        assert written(Redactor(), **fields) == plain
        assert written(Redactor(patterns=["never to be found"]), **fields) == plain


@given(strategies.keys, strategies.json_values)
def test_what_stands_beside_a_secret_stays(key, value):
    """Redaction of one member leaves its neighbours as they are."""
    before = metadata(None, metadata={"x": {f"kept {key}": value}})
    after = metadata(
        Redactor(defaults=False, keys=["password"]), metadata={"x": {f"kept {key}": value, "password": CANARY}}
    )
    assert {**after["x"], "password": 0} == {**before["x"], "password": 0}


@given(strategies.any_fields)
def test_no_hostile_value_makes_it_raise(fields):
    """Whatever an application passes, redaction gives a line, and further ones for entry ids that need parts."""
    bodies = encode_payload(convert({**strategies.made(fields), "operation": "STORE"}), 32_000, redactor).split(b"\n")
    first, *parts = [json.loads(b"{" + body) for body in bodies]
    assert first["operation"] == "STORE"
    assert [part["kind"] for part in parts] == ["part"] * len(parts)
    assert all(len(b"{" + body) <= 32_000 for body in bodies)


def test_only_the_kelvin_sign_is_another_letter_within_ascii():
    """The first look knows every letter that lowers to ASCII."""
    assert [chr(n) for n in range(128, sys.maxunicode + 1) if chr(n).lower().isascii()] == ["\u212a"]


# --- every way out -----------------------------------------------------------------------------------------------------


class Failing(logging.Handler):
    failing = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        self.seen.append(repr(record.__dict__))
        if self.failing:
            raise OSError(28, "No space left on device")


def attached(**options):
    handler = AuditHandler(call_later=lambda seconds, retry: None, **options)
    logger = logging.getLogger("audit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler, logger


def speak(logger):
    """Say the secret in every way that logging has."""
    log = get_audit_logger()
    for say in (
        lambda: logger.info("login with %s", TOKEN),
        lambda: logger.info("%d", {"password": CANARY}),
        lambda: logger.info("%d %d", TOKEN, 1),
        lambda: logger.info({"event": TOKEN, "token": CANARY}),
        lambda: logger.info(json.dumps({"operation": "STORE", "headers": {"Authorization": CANARY}})),
        lambda: logger.info(
            "STORE", extra={"api_key": CANARY, TOKEN: 1, "metadata": {"api_key": CANARY, TOKEN: [PEM]}}
        ),
        lambda: logger.error("STORE", exc_info=ValueError(TOKEN)),
        lambda: log.error("STORE", exc_info=ValueError(PEM), cookie=[CANARY]),
        lambda: log.info(TOKEN, entry_ids=["e"] * 2_000, secret=object),
        lambda: log.info("STORE", blob=f"{TOKEN} {'x' * 40_000}"),
    ):
        say()


def test_no_canary_leaves_by_any_way(tmp_path, capsys):
    """Files, buffer, what is pending, lost events, foreign targets, on_failure, stderr and exports: none has it."""
    target, told = Failing(), []
    handler, logger = attached(target=target, max_pending=4, on_failure=told.append)
    speak(logger)
    held = repr([(entry.body, entry.line) for entry in handler._commit._queue])
    handler.close()
    target.failing = False
    speak(logger)
    handler.flush()
    exported = []
    for suffix in ("json", "jsonl", "csv"):
        assert handler.export_to_file(tmp_path / f"x.{suffix}") == len(handler) - 1
        exported.append((tmp_path / f"x.{suffix}").read_text())
    ways = [
        held,
        *target.seen,
        *exported,
        repr(told),
        repr(handler.query_events(kind=[None, "gap"])),
        capsys.readouterr().err,
    ]
    assert handler.get_statistics()["lost"] == 6
    assert not [way for way in ways if CANARY in way]


def test_the_files_have_no_canary(path, tmp_path, capsys):
    """Neither has the trail, nor an automatic export, nor what a caller gets back."""
    handler, logger = attached(filename=path)
    speak(logger)
    assert CANARY not in path.read_text()
    assert handler.count_events() == 10
    with AuditLogger(max_events=2, auto_export_path=tmp_path / "out") as audit:
        for _ in range(3):
            assert CANARY not in repr(audit.record("STORE", metadata={"password": CANARY}, error_message=TOKEN))
        logging.disable(logging.CRITICAL)
        with pytest.warns(RuntimeWarning) as warned:
            assert CANARY not in repr(audit.record("STORE", metadata={"password": CANARY}))
    files = [found.read_text() for found in (tmp_path / "out").iterdir()]
    assert len(files) == 2
    assert CANARY not in repr([files, [str(one.message) for one in warned], capsys.readouterr()])


def test_an_event_that_raises_has_no_canary():
    """What the caller gets says nothing of the event."""
    _, logger = attached(target=Failing(), on_error="raise")
    with pytest.raises(Exception, match="not recorded") as caught:
        logger.info("STORE", extra={"password": CANARY})
    assert CANARY not in repr(caught.value) + repr(caught.value.__cause__)


def test_none_means_no_redaction():
    """Who wants the clear values has them."""
    handler, logger = attached(redactor=None)
    logger.info("STORE", extra={"password": CANARY})
    assert handler.query_events(metadata={"password": CANARY})


# --- pseudonyms and queries --------------------------------------------------------------------------------------------


def test_a_query_by_the_clear_value_finds_its_pseudonym():
    """User, session, entries and metadata are asked for by what they were, and by what is written."""
    keys = ["user_id", "session_id", "entry_ids", "email"]
    handler, _ = attached(redactor={"keys": keys, "mode": "pseudonym", "secret": KEY.decode(), "patterns": [r"\d{4}"]})
    log = get_audit_logger()
    log.info("STORE", user_id="ada", session_id=7, entry_ids=["e1", "e2"], who={"email": ["a@b.c"]}, note="pin 1234")
    log.info("STORE", user_id="bob", session_id=8, entry_ids=["e3"], who={"email": ["d@e.f"]}, note="pin 4321")
    for asked in (
        {"user_id": "ada"},
        {"user_id": ["ada", "eve"]},
        {"session_id": 7},
        {"entry_ids": "e2"},
        {"metadata": {"who": {"email": ["a@b.c"]}}},
        {"metadata": {"note": "pin 1234"}},
        {"user_id": handler.redactor.pseudonym("ada")},
    ):
        (event,) = handler.query_events(**asked)
        assert event.user_id == handler.redactor.pseudonym("ada")
    assert handler.get_user_statistics("ada")["total_operations"] == 1
    assert handler.count_events(user_id=None) == 0
    assert re.fullmatch(r"hmac:1:[\w-]{22}", handler.query_events()[0].user_id)


@given(strategies.texts.filter(len), st.lists(strategies.texts, max_size=3), strategies.json_values)
def test_every_clear_value_finds_its_pseudonym(user, entries, value):
    """For all values that are pseudonymised, the query that finds them in clear finds them."""
    redactor = Redactor(keys=["user_id", "entry_ids", "hidden"], mode="pseudonym", secret=KEY, defaults=False)
    handler = AuditHandler(redactor=redactor)
    extra = {"user_id": user, "entry_ids": entries, "metadata": {"hidden": value}}
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, **extra}))
    assert handler.count_events(user_id=user, metadata={"hidden": value}) == 1
    assert all(handler.count_events(entry_ids=entry) == 1 for entry in entries)


def test_pseudonyms_are_keyed_and_versioned():
    """Another key gives another pseudonym, the same key the same; redacting twice is redacting once."""
    one, two = (Redactor(keys={"user_id": "pseudonym"}, secret=key, key_version=2) for key in (KEY, KEY[::-1]))
    assert one.pseudonym("ada").startswith("hmac:2:")
    assert one.pseudonym("ada") != two.pseudonym("ada")
    assert one.pseudonym(one.pseudonym("ada")) == one.pseudonym("ada") != one.pseudonym("bob")
    assert one.pseudonym(5) == one.pseudonym("5")
    with pytest.raises(AuditValueError, match="secret"):
        Redactor().pseudonym("ada")


# --- the processor, the value, the parameters ------------------------------------------------------------------------


def test_as_a_processor_it_redacts_what_comes_behind_it():
    """The event dict has what is secret no more, whatever its shape, and everything else as it was."""
    kept = object()
    event = {"event": TOKEN, "user_id": 5, "metadata": {"token": CANARY}, "deep": ({"password": CANARY}, [PEM]),
             "kept": kept, "tuple": (1, 2), "exc_info": True, "cookie": CANARY,
             "entry_ids": [CANARY], "session_id": None}  # fmt: skip
    made = Redactor(keys={"user_id": "pseudonym", "cookie": "drop", "entry_ids": "drop"}, secret=KEY)
    found = made(None, "info", event)
    assert found is event
    assert CANARY not in repr(event)
    assert "cookie" not in event
    assert "entry_ids" not in event
    assert (event["kept"], event["tuple"], event["exc_info"], event["session_id"]) == (kept, (1, 2), True, None)
    assert event["user_id"] == made.pseudonym("5")


def test_behind_an_audit_processor_an_event_is_recorded_once(handler):
    """That the event was recorded is not lost with its secret."""
    log = structlog.wrap_logger(
        logging.getLogger("audit"),
        processors=[AuditProcessor(when=lambda event: True), Redactor(), structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.info(TOKEN)
    assert handler.count_events() == 1


def test_before_an_audit_handler_it_changes_nothing_more():
    """The same redactor in the chain and in the handler gives one pseudonym."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret=KEY)
    handler, logger = attached(redactor=redactor)
    log = structlog.wrap_logger(
        logger, processors=[redactor, structlog.stdlib.render_to_log_kwargs], wrapper_class=structlog.stdlib.BoundLogger
    )
    log.info("STORE", user_id="ada")
    assert handler.query_events(user_id="ada")[0].user_id == redactor.pseudonym("ada")


def test_dict_config_takes_a_mapping():
    """A redactor can be described where the handler is."""
    arguments = {"keys": {"email": "drop"}, "paths": ["user_id"], "secret": KEY.decode()}
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"audit": {"class": "structlog_audit.AuditHandler", "redactor": arguments}},
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    })  # fmt: skip
    assert get_audit_handler().redactor == Redactor(**arguments)


def test_it_is_a_value_and_hides_its_key():
    """Equal parameters make equal redactors, and no text of one has the key."""
    made = Redactor(keys={"a": "pseudonym"}, secret=KEY)
    assert made == Redactor(keys={"A": "pseudonym"}, secret=KEY.decode())
    assert hash(made) == hash(Redactor(keys={"A": "pseudonym"}, secret=KEY))
    assert made != Redactor(keys={"a": "pseudonym"}, secret=KEY[::-1])
    assert KEY.decode() not in repr(made)


@pytest.mark.parametrize(("arguments", "error", "says"), [
    ({"keys": "email"}, AuditTypeError, "keys='email'"),
    ({"keys": [5]}, AuditTypeError, "keys: expected a string, got 5"),
    ({"keys": [""]}, AuditValueError, "keys: expected a name, got ''"),
    ({"keys": {"a": "hide"}}, AuditValueError, "keys['a']='hide'"),
    ({"keys": {"operation": "drop"}}, AuditValueError, "keys: expected mode 'mask' or 'pseudonym' for 'operation', got 'drop'"),
    ({"paths": ["email"]}, AuditValueError, "paths: expected one of operation, user_id, session_id, error_message, entry_ids"),
    ({"paths": ["metadata"]}, AuditValueError, "or metadata.…, got 'metadata'"),
    ({"paths": ["status"]}, AuditValueError, "metadata.…, got 'status'"),
    ({"paths": ["user_id.name"]}, AuditValueError, "metadata.…, got 'user_id.name'"),
    ({"patterns": ["("]}, AuditValueError, "patterns: expected a regular expression, got '('"),
    ({"patterns": [b"x"]}, AuditTypeError, "patterns: expected a pattern for strings, got b'x'"),
    ({"patterns": [5]}, AuditTypeError, "patterns: expected a regular expression, got 5"),
    ({"patterns": ["x*"]}, AuditValueError, "does not match the empty string, got 'x*'"),
    ({"mode": "hide"}, AuditValueError, "mode='hide'"),
    ({"mode": "pseudonym", "keys": ["a"]}, AuditValueError, "secret=None"),
    ({"secret": "short"}, AuditValueError, "secret: expected at least 16 bytes, got 5"),
    ({"secret": 5}, AuditTypeError, "secret: expected str or bytes, got int"),
    ({"key_version": None}, AuditTypeError, "key_version=None"),
    ({"key_version": "a b"}, AuditValueError, "key_version='a b'"),
    ({"defaults": 1}, AuditTypeError, "defaults=1"),
])  # fmt: skip
def test_a_parameter_that_cant_be_meant_says_so(arguments, error, says):
    """The message names the parameter, the value and what to do."""
    with pytest.raises(error, match=re.escape(says)):
        Redactor(**arguments)
    with pytest.raises(error):
        AuditHandler(redactor=arguments)


@pytest.mark.parametrize("what", ["mask", True, {"key": ["a"]}])
def test_a_redactor_that_is_none_says_so(what):
    """`redactor` takes a Redactor, a mapping of its arguments or None."""
    with pytest.raises(AuditTypeError, match="redactor"):
        make_redactor(what)


@pytest.mark.parametrize("rules", [{"keys": ["user_id"]}, {"patterns": ["{x}"]}, {"paths": ["user_id"]}])
def test_a_brace_in_a_text_hides_nothing(rules):
    """What looks like an object inside of a text does not make the first look miss what is to be redacted."""
    handler = AuditHandler(redactor=Redactor(**rules))
    for metadata in ({}, {"name": 1}, {"name": 1}, {"name": 1}):
        record = {"msg": "STORE", "levelno": 20, "user_id": "{x}", "metadata": metadata}
        handler.handle(logging.makeLogRecord(record))
    assert all(event.user_id != "{x}" for event in handler.iter_events())
