"""Tests of `structlog_audit.redaction`: no clear value reaches memory or disk, and nothing else changes."""

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
    """Return the event with *fields* as written, without id and timestamp."""
    return "{" + encode_payload(convert({"operation": "STORE", **fields}), 32_000, redactor).decode()


def metadata(redactor, **fields):
    return json.loads(written(redactor, **fields)).get("metadata", {})


# --- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(DEFAULT_KEYS))
def test_default_key_is_masked_in_any_spelling(key):
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
def test_key_that_resembles_a_default_key_stays(key):
    """Names are compared as wholes."""
    assert metadata(Redactor(), **{key: CANARY}).get(key, CANARY) == CANARY
    assert MARKS not in metadata(Redactor(), **{key: CANARY})


@pytest.mark.parametrize(
    "text",
    [TOKEN, TOKEN.lower(), f"\u00e9 bearer\n{CANARY.lower()}\u00e9", f"a;BEARER\t{CANARY},", PEM, PEM[:-30], PEM * 2],
)
def test_bearer_tokens_and_private_keys_are_masked_in_every_text(text):
    """Credentials in a text are removed, wherever the text is."""
    line = written(
        Redactor(),
        operation=text,
        error_message=text,
        metadata={"text": text, text: 1, "deep": {"list": [text, {text: [text]}]}},
        args=(text,),
    )
    assert CANARY.lower() not in line.lower()


@pytest.mark.parametrize("text", [TOKEN, TOKEN.replace(" ", "\t"), TOKEN.replace(" ", "\n"), PEM])
def test_credential_below_a_name_seen_before_is_masked(text):
    """A name that had a harmless value before does not hide a credential, whatever blank precedes the token."""
    redactor = Redactor()
    assert metadata(redactor, text="harmless") == {"text": "harmless"}
    assert CANARY not in written(redactor, text=text)
    assert metadata(redactor, text="harmless") == {"text": "harmless"}


class Posing(str):
    """A text with the hash of another one, to which it is equal."""

    __slots__ = ()

    def __hash__(self):
        return hash("password")

    def __eq__(self, other):
        return True


def test_key_that_poses_as_another_hides_no_secret():
    """A harmless key is remembered by its text, and not as an object that may be equal to the name of a secret."""
    redactor = Redactor()
    assert metadata(redactor, metadata={Posing("harmless"): 1}) == {"harmless": 1}
    assert metadata(redactor, metadata={"password": CANARY})["password"] == MASK


@pytest.mark.parametrize(
    "text",
    [
        "Bearer token expired",
        "Bearer Token expired",
        "a bearer of news",
        "Missing bearer token.",
        "Bearer",
        "forbearer x1",
    ],
)
def test_word_after_bearer_stays(text):
    """A word of prose after "Bearer" stays."""
    assert metadata(Redactor(), text=text) == {"text": text}


def test_defaults_do_not_change_identifiers():
    """User, session and entries change only by an explicit rule."""
    fields = {"user_id": TOKEN, "session_id": TOKEN, "entry_ids": [TOKEN]}
    event = json.loads(written(Redactor(), **fields))
    assert {name: event[name] for name in fields} == fields
    assert CANARY not in written(Redactor(patterns=[r"C4nary\S*"]), **fields)


@pytest.mark.parametrize("how", [{"keys": ["user_id", "session_id", "entry_ids", "error_message", "operation"]},
                                 {"paths": ["user_id", "session_id", "entry_ids", "error_message", "operation"]}])  # fmt: skip
def test_keys_and_paths_redact_any_member(how):
    """Keys and paths select members of the event, and values that could not be members."""
    fields = dict.fromkeys(("operation", "user_id", "session_id", "error_message"), CANARY) | {
        "entry_ids": [CANARY, CANARY]
    }
    event = json.loads(written(Redactor(**how), **fields))
    assert [event[name] for name in fields] == [MASK, MASK, MASK, MASK, [MASK]]
    misfits = {name: {"a": CANARY, CANARY: object()} for name in fields}
    assert CANARY not in written(Redactor(**how), **misfits)
    assert CANARY not in written(Redactor(**how), **misfits, metadata=dict.fromkeys(fields, 1))


def test_path_includes_lists_and_names_with_dots():
    """A path selects its value through lists and through names that contain dots."""
    redactor = Redactor(paths=["metadata.user.email"])
    found = metadata(redactor, user=[{"Email": CANARY}], metadata={"user.email": CANARY, "email": "kept"})
    assert CANARY not in str(found)
    assert found["email"] == "kept"


def test_each_rule_can_have_its_mode():
    """Each rule can have a mode."""
    redactor = Redactor(
        keys={"a": "drop", "b": "mask"}, paths={"metadata.c": "pseudonym"}, patterns={"x+": "drop"}, secret=KEY
    )
    found = metadata(redactor, a=1, b=[2], c={"n": [3]}, d="oxxo", xx="y")
    marks = {"a": "drop", "b": "mask", "c": "pseudonym", "d": "drop", "": "drop"}
    assert found.pop(MARKS) == {name: f"redacted: {how}" for name, how in marks.items()}
    assert found == {"b": MASK, "c": redactor.pseudonym({"n": [3]}), "d": "oo", "": "y"}


def test_group_called_secret_limits_a_pattern():
    """The rest of the match stays."""
    assert metadata(Redactor(patterns=[r"pin=(?P<secret>\d+)"]), text="pin=1234;")["text"] == f"pin={MASK};"


def test_key_of_bytes_is_compared_as_text():
    """Headers in the form of WSGI and ASGI are redacted by their names."""
    assert metadata(Redactor(), headers={b"Authorization": CANARY, b"accept": "text/html"})["headers"] == {
        "Authorization": MASK,
        "accept": "text/html",
    }


@pytest.mark.parametrize("redactor", [Redactor(), Redactor(patterns=["never to be found"])])
@pytest.mark.parametrize("text", ["harmless", "password", MARKS])
def test_key_of_a_hostile_class_is_compared_as_text(redactor, text):
    """No method of the key is called, at any depth, whether an equal text was seen before or not."""
    for key in (strategies.HostileStr(text), text, strategies.HostileStr(text)):
        found = metadata(redactor, metadata={key: 5, "x": {key: 1}})
        assert found.pop("x") == {text: MASK if text == "password" else 1}
        assert MASK in found.values() if text == "password" else 5 in found.values()


class Incomparable(str):
    """A text with the hash of another one, which raises when the two are compared."""

    __slots__ = ()

    def __hash__(self):
        return hash("source")

    def __eq__(self, other):
        raise ValueError("not comparable")


def test_key_whose_comparison_raises_is_redacted():
    """A key that cannot be compared with the names seen before does not keep its secret."""
    redactor = Redactor()
    assert metadata(redactor, metadata={"source": "api"}) == {"source": "api"}
    for kept in ({}, {"other": 1}):
        found = metadata(redactor, metadata={**kept, Incomparable("password"): CANARY})
        assert found.pop(MARKS) == {"password": "redacted: mask"}
        assert found == {**kept, "password": MASK}


def test_key_in_a_known_shape_of_objects_is_redacted():
    """Names that are known to be harmless, at any depth, hide no other key: in an object, in a list, or beside a brace."""
    redactor = Redactor()
    harmless = {"a": {"b": {"c": 1}}, "d": "text"}
    for _ in range(2):
        assert metadata(redactor, metadata=harmless) == harmless

    hidden = [
        {"a": {"b": {"password": 1}}, "d": "text"},
        {"a": {"b": {"c": {"password": 1}}}, "d": "text"},
        {"a": [{"password": 1}], "d": "text"},
        {"a": {"b": [{"password": 1}]}, "d": "{"},
        {"a": {"password": 1}},
    ]
    for members in hidden:
        assert MASK in json.dumps(metadata(redactor, metadata=members))


def test_pattern_does_not_change_an_intent_id():
    """An event's id in ``metadata.intent_id`` stays, so that no intent stays open; another value is redacted."""
    digits = Redactor(patterns=[r"[0-9]+"])
    intent_id = "evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c"
    assert metadata(digits, intent_id=intent_id) == {"intent_id": intent_id}
    assert metadata(digits, intent_id="card 4111")["intent_id"] == f"card {MASK}"


def test_operation_without_remaining_text_is_masked():
    """An operation of which no text remains is masked."""
    assert json.loads(written(Redactor(patterns={"C.*": "drop"}), operation=CANARY))["operation"] == MASK


def test_redacted_names_that_become_equal_keep_their_values():
    """Two names that are masked keep both of their values."""
    found = metadata(Redactor(), metadata={f"Bearer {n}x.1": n for n in range(3)} | {f"Bearer {MASK}": 9})
    assert sorted(value for name, value in found.items() if name != MARKS) == [0, 1, 2, 9]


def test_marks_do_not_name_secrets():
    """Marks of the conversion below a redacted value are removed; the others stay."""
    found = metadata(Redactor(), metadata={"password": {CANARY: object()}, TOKEN: {"a": b"x"}, "b": b"x"})
    assert CANARY not in json.dumps(found)
    assert found[MARKS]["b"] == "replaced: bytes as base64"
    assert found[MARKS]["password"] == "redacted: mask"


def test_mark_of_truncation_follows_that_of_redaction():
    """Redaction precedes truncation, and the mark has both."""
    redactor = Redactor(keys=["entry_ids"], patterns={r"C4nary\S*": "mask"})
    payload = convert({"operation": "STORE", "error_message": f"{CANARY} {'x' * 9_000}"})
    event = decode(Stamp().line(encode_payload(payload, 4_096, redactor)))
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
def test_line_never_contains_a_secret(value, others, user, session):
    """For all nested values with a secret under a key, a path or in a text, the line does not contain it."""
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
def test_event_without_secrets_is_not_changed(fields, others):
    """Without a secret, redaction does not change a byte."""
    fields = {**others, **fields}
    plain = written(None, **fields)
    if not re.search("bearer|-----begin", plain.lower()) and not any(json.dumps(key) in plain for key in DEFAULT_KEYS):
        assert written(Redactor(), **fields) == plain
        assert written(Redactor(patterns=["never to be found"]), **fields) == plain


# A secret below a neighbour is redacted, too.
@given(strategies.keys, strategies.json_values.filter(lambda value: "password" not in json.dumps(value).lower()))
def test_neighbours_of_a_secret_stay(key, value):
    """Redaction of one member does not change its neighbours."""
    before = metadata(None, metadata={"x": {f"kept {key}": value}})
    after = metadata(
        Redactor(defaults=False, keys=["password"]), metadata={"x": {f"kept {key}": value, "password": CANARY}}
    )
    assert {**after["x"], "password": 0} == {**before["x"], "password": 0}


@given(strategies.any_fields)
def test_redaction_accepts_any_value(fields):
    """Whatever an application passes, redaction gives a line, and further ones for entry ids that need parts."""
    payloads = encode_payload(convert({**strategies.made(fields), "operation": "STORE"}), 32_000, redactor).split(b"\n")
    first, *parts = [json.loads(b"{" + payload) for payload in payloads]
    assert first["operation"] == "STORE"
    assert [part["kind"] for part in parts] == ["part"] * len(parts)
    assert all(len(b"{" + payload) <= 32_000 for payload in payloads)


def test_kelvin_sign_is_the_only_letter_with_an_ascii_lower_case():
    """The prefilter knows every letter with an ASCII lower case."""
    assert [chr(n) for n in range(128, sys.maxunicode + 1) if chr(n).lower().isascii()] == ["\u212a"]


# --- every output out -----------------------------------------------------------------------------------------------------


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


def log_secrets(logger):
    """Log the secret in every form that logging has."""
    log = get_audit_logger()
    for log_one in (
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
        log_one()


def test_no_output_contains_a_secret(tmp_path, capsys):
    """Buffer, pending and lost events, targets, on_failure, stderr and exports do not contain the secret."""
    target, failures = Failing(), []
    handler, logger = attached(target=target, max_pending=4, on_failure=failures.append)
    log_secrets(logger)
    pending = repr([(entry.body, entry.line) for entry in handler._commit._queue])
    handler.close()
    target.failing = False
    log_secrets(logger)
    handler.flush()
    exported = []
    for suffix in ("json", "jsonl", "csv"):
        assert handler.export_to_file(tmp_path / f"x.{suffix}") == len(handler) - 1
        exported.append((tmp_path / f"x.{suffix}").read_text())
    outputs = [
        pending,
        *target.seen,
        *exported,
        repr(failures),
        repr(handler.query_events(kind=[None, "gap"])),
        capsys.readouterr().err,
    ]
    assert handler.get_statistics()["lost"] == 6
    assert not [output for output in outputs if CANARY in output]


def test_trail_does_not_contain_a_secret(path):
    """The file of the trail does not contain the secret."""
    handler, logger = attached(filename=path)
    log_secrets(logger)
    assert CANARY not in path.read_text()
    assert handler.count_events() == 10


def test_exports_and_returned_events_do_not_contain_a_secret(tmp_path, capsys):
    """An automatic export, a returned event and a warning do not contain the secret."""
    with AuditLogger(max_events=2, auto_export_path=tmp_path / "out") as audit:
        for _ in range(3):
            assert CANARY not in repr(audit.record("STORE", metadata={"password": CANARY}, error_message=TOKEN))
        logging.disable(logging.CRITICAL)
        with pytest.warns(RuntimeWarning) as warned:
            assert CANARY not in repr(audit.record("STORE", metadata={"password": CANARY}))
    files = [found.read_text() for found in (tmp_path / "out").iterdir()]
    assert len(files) == 2
    assert CANARY not in repr([files, [str(one.message) for one in warned], capsys.readouterr()])


def test_write_error_does_not_contain_a_secret():
    """The exception of an unrecorded event does not contain its content."""
    _, logger = attached(target=Failing(), on_error="raise")
    with pytest.raises(Exception, match="not recorded") as caught:
        logger.info("STORE", extra={"password": CANARY})
    assert CANARY not in repr(caught.value) + repr(caught.value.__cause__)


def test_redactor_none_disables_redaction():
    """With ``redactor=None`` events contain clear values."""
    handler, logger = attached(redactor=None)
    logger.info("STORE", extra={"password": CANARY})
    assert handler.query_events(metadata={"password": CANARY})


# --- pseudonyms and queries --------------------------------------------------------------------------------------------


def test_query_by_a_clear_value_finds_its_pseudonym():
    """Filters by user, session, entries and metadata accept clear values and written ones."""
    keys = ["user_id", "session_id", "entry_ids", "email"]
    handler, _ = attached(redactor={"keys": keys, "mode": "pseudonym", "secret": KEY.decode(), "patterns": [r"\d{4}"]})
    log = get_audit_logger()
    log.info("STORE", user_id="ada", session_id=7, entry_ids=["e1", "e2"], who={"email": ["a@b.c"]}, note="pin 1234")
    log.info("STORE", user_id="bob", session_id=8, entry_ids=["e3"], who={"email": ["d@e.f"]}, note="pin 4321")
    for filters in (
        {"user_id": "ada"},
        {"user_id": ["ada", "eve"]},
        {"session_id": 7},
        {"entry_ids": "e2"},
        {"metadata": {"who": {"email": ["a@b.c"]}}},
        {"metadata": {"note": "pin 1234"}},
        {"user_id": handler.redactor.pseudonym("ada")},
    ):
        (event,) = handler.query_events(**filters)
        assert event.user_id == handler.redactor.pseudonym("ada")
    assert handler.get_user_statistics("ada")["total_operations"] == 1
    assert handler.count_events(user_id=None) == 0
    assert re.fullmatch(r"hmac:1:[\w-]{22}", handler.query_events()[0].user_id)


@given(strategies.texts.filter(len), st.lists(strategies.texts, max_size=3), strategies.json_values)
def test_every_clear_value_finds_its_pseudonym(user, entries, value):
    """For all pseudonymised values, the query by the clear value finds them."""
    redactor = Redactor(keys=["user_id", "entry_ids", "hidden"], mode="pseudonym", secret=KEY, defaults=False)
    handler = AuditHandler(redactor=redactor)
    extra = {"user_id": user, "entry_ids": entries, "metadata": {"hidden": value}}
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, **extra}))
    assert handler.count_events(user_id=user, metadata={"hidden": value}) == 1
    assert all(handler.count_events(entry_ids=entry) == 1 for entry in entries)


@pytest.mark.parametrize("rule", [{"keys": ["user_id"]}, {"paths": ["user_id"]}, {"patterns": ["^ada$"]}])
def test_query_by_a_clear_value_finds_its_pseudonym_by_each_kind_of_rule(rule):
    """A single rule of any kind is enough for a filter to match the pseudonym of its value, and only that."""
    handler = AuditHandler(redactor=Redactor(**rule, mode="pseudonym", secret=KEY, defaults=False))
    for user in ("ada", "bob"):
        handler.handle(logging.makeLogRecord({"msg": user, "levelno": 20, "user_id": user}))
    assert [event.user_id for event in handler.iter_events(user_id="ada")] == [handler.redactor.pseudonym("ada")]


def test_pseudonym_depends_on_key_and_version():
    """Another key gives another pseudonym, and the version of the key is a part of it."""
    one, two = (Redactor(keys={"user_id": "pseudonym"}, secret=key, key_version=2) for key in (KEY, KEY[::-1]))
    assert one.pseudonym("ada").startswith("hmac:2:")
    assert one.pseudonym("ada") != two.pseudonym("ada")


def test_pseudonym_of_a_pseudonym_is_the_same():
    """Redacting twice equals redacting once, and different texts have different pseudonyms."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret=KEY)
    assert redactor.pseudonym(redactor.pseudonym("ada")) == redactor.pseudonym("ada") != redactor.pseudonym("bob")


def test_pseudonym_of_a_number_is_that_of_its_text():
    """A user id that is a number has the pseudonym of its text."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret=KEY)
    assert redactor.pseudonym(5) == redactor.pseudonym("5")


def test_pseudonym_without_a_secret_is_refused():
    """A redactor without a secret cannot make pseudonyms."""
    with pytest.raises(AuditValueError, match="secret"):
        Redactor().pseudonym("ada")


# --- the processor, the value, the parameters ------------------------------------------------------------------------


def test_redactor_as_a_processor_redacts_the_event_dict():
    """The event dict contains no secret in any form, and all else as it was."""
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


def test_redactor_after_an_audit_processor_keeps_the_acknowledgement(handler):
    """An event that was recorded stays so when its message is redacted, and later processors get the redacted message."""
    messages = []

    def keep_message(logger, name, event_dict):
        messages.append(str(event_dict["event"]))
        return event_dict

    log = structlog.wrap_logger(
        logging.getLogger("audit"),
        processors=[
            AuditProcessor(when=lambda event: True),
            Redactor(),
            keep_message,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.info(TOKEN)
    assert handler.count_events() == 1
    assert messages == [f"Bearer {MASK}"]


def test_redactor_in_chain_and_handler_makes_one_pseudonym():
    """The same redactor in the chain and in the handler gives one pseudonym."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret=KEY)
    handler, logger = attached(redactor=redactor)
    log = structlog.wrap_logger(
        logger, processors=[redactor, structlog.stdlib.render_to_log_kwargs], wrapper_class=structlog.stdlib.BoundLogger
    )
    log.info("STORE", user_id="ada")
    assert handler.query_events(user_id="ada")[0].user_id == redactor.pseudonym("ada")


def test_dict_config_accepts_a_mapping():
    """A redactor can be configured with its handler."""
    arguments = {"keys": {"email": "drop"}, "paths": ["user_id"], "secret": KEY.decode()}
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"audit": {"class": "structlog_audit.AuditHandler", "redactor": arguments}},
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    })  # fmt: skip
    assert get_audit_handler().redactor == Redactor(**arguments)


def test_redactor_is_a_value():
    """Equal parameters make equal redactors."""
    made = Redactor(keys={"a": "pseudonym"}, secret=KEY)
    assert made == Redactor(keys={"A": "pseudonym"}, secret=KEY.decode())
    assert hash(made) == hash(Redactor(keys={"A": "pseudonym"}, secret=KEY))
    assert made != Redactor(keys={"a": "pseudonym"}, secret=KEY[::-1])


def test_repr_hides_the_secret():
    """No text of a redactor contains its secret."""
    redactor = Redactor(keys={"a": "pseudonym"}, secret=KEY)
    assert KEY.decode() not in repr(redactor)
    assert KEY.decode() not in repr(redactor._parameters)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"keys": "email"}, AuditTypeError, "keys='email'"),
    ({"keys": [5]}, AuditTypeError, "keys: expected a string, got 5"),
    ({"keys": [""]}, AuditValueError, "keys: expected a name, got ''"),
    ({"keys": {"a": "hide"}}, AuditValueError, "keys['a']='hide'"),
    ({"paths": {"user_id": "hide"}}, AuditValueError, "paths['user_id']='hide'"),
    ({"patterns": {"x": "hide"}}, AuditValueError, "patterns['x']='hide'"),
    ({"paths": {"operation": "drop"}}, AuditValueError, "paths: expected mode 'mask' or 'pseudonym' for 'operation'"),
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
def test_invalid_parameter_is_refused_with_its_name(arguments, error, message):
    """The message names the parameter, the expected value and the received one."""
    with pytest.raises(error, match=re.escape(message)):
        Redactor(**arguments)
    with pytest.raises(error):
        AuditHandler(redactor=arguments)


@pytest.mark.parametrize("what", ["mask", True, {"key": ["a"]}])
def test_redactor_of_another_type_is_refused(what):
    """`redactor` accepts a Redactor, a mapping of its arguments or None."""
    with pytest.raises(AuditTypeError, match="redactor"):
        make_redactor(what)


@pytest.mark.parametrize("rules", [{"keys": ["user_id"]}, {"patterns": ["{x}"]}, {"paths": ["user_id"]}])
def test_brace_in_a_text_hides_no_secret(rules):
    """A text like an object does not prevent the search for secrets."""
    handler = AuditHandler(redactor=Redactor(**rules))
    for metadata in ({}, {"name": 1}, {"name": 1}, {"name": 1}):
        record = {"msg": "STORE", "levelno": 20, "user_id": "{x}", "metadata": metadata}
        handler.handle(logging.makeLogRecord(record))
    assert all(event.user_id != "{x}" for event in handler.iter_events())
