"""The class of an operation follows from the words of its name, and nothing is guessed."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditTypeError, AuditValueError, OperationClass, OperationClasses, OperationType
from structlog_audit.events import operation_classes
from structlog_audit.events.operation_classes import register_operations, registered_operations

# Names of real products by class. Sources:
# AWS: the API references of S3, IAM, STS, EC2, KMS and CloudTrail, whose actions are the event names of CloudTrail.
# GitHub: "Audit log events for your organization", "Audited actions", https://docs.github.com.
# Google Workspace: "Drive audit activity events", "Login audit activity events", "Admin audit activity events",
# https://developers.google.com/admin-sdk/reports. Google Cloud: the method names of its audit logs.
# Okta: "Event types", https://developer.okta.com/docs/reference/api/event-types/.
# Azure and Microsoft 365: the operations of resource providers, the directory audit activities, the audit log activities.
# Django: the signals of django.contrib.auth, the flags of LogEntry, the default permissions. Kubernetes: request verbs.
PRODUCTS = {
    "create": """
        CreateBucket CreateUser CreateAccessKey CreateSnapshot CreateChangeSet
        repo.create public_key.create org.add_member team.add_repository oauth_access.create
        upload CREATE_USER add_to_folder storage.objects.create v1.compute.instances.insert
        google.iam.admin.v1.CreateServiceAccountKey
        user.lifecycle.create system.api_token.create group.user_membership.add
        FileUploaded ADDITION auth.add_user create
    """,
    "read": """
        GetObject ListBuckets DescribeInstances
        view storage.objects.get storage.buckets.list system.agent.ad.read_config
        Microsoft.Compute/virtualMachines/read Microsoft.Storage/storageAccounts/listKeys/action
        FileAccessed FilePreviewed auth.view_user get list watch
    """,
    "update": """
        PutObject ModifyInstanceAttribute UpdateTrail
        repo.rename repo.archived org.update_member public_key.update two_factor_authentication.enabled issue.update
        edit untrash rename move CHANGE_PASSWORD SUSPEND_USER
        user.account.update_password user.account.lock user.lifecycle.deactivate user.mfa.factor.activate
        policy.rule.update zone.update Microsoft.Compute/virtualMachines/write Set-Mailbox CHANGE auth.change_user update patch
    """,
    "delete": """
        DeleteBucket DeleteUser DeleteTrail TerminateInstances DeregisterImage ScheduleKeyDeletion DeleteChangeSet
        repo.destroy org.remove_member team.destroy hook.destroy org.async_delete pull_request_review_comment.delete
        delete trash DELETE_USER storage.objects.delete v1.compute.instances.delete
        user.lifecycle.delete.initiated group.user_membership.remove
        Microsoft.Compute/virtualMachines/delete FileDeleted SoftDelete HardDelete DELETION auth.delete_user deletecollection
        s3:ObjectRemoved:Delete
    """,
    "export": """
        ExportTableToPointInTime repo.download_zip org.audit_log_export download print DOWNLOAD_USERLIST_CSV FileDownloaded
        cloudsql.instances.export
    """,
    "login": """
        ConsoleLogin user.login user.failed_login login_success login_failure login_challenge logout
        user.session.start user.session.end user.authentication.sso user.authentication.auth_via_mfa
        UserLoggedIn user_logged_in user_logged_out user_login_failed
    """,
    "permission": """
        AttachRolePolicy DetachRolePolicy PutBucketAcl UpdateAssumeRolePolicy AssumeRole AuthorizeSecurityGroupIngress
        RevokeSecurityGroupIngress personal_access_token.access_granted ASSIGN_ROLE GRANT_ADMIN_PRIVILEGE SetIamPolicy
        user.account.privilege.grant user.account.privilege.revoke Microsoft.Authorization/roleAssignments/write
        Add-MailboxPermission impersonate escalate
    """,
    "configuration": """
        PutBucketPolicy hook.config_changed CHANGE_APPLICATION_SETTING business.set_fork_pr_workflows_policy
    """,
    "other": """
        RunInstances StopInstances StopLogging Microsoft.Compute/virtualMachines/start/action system.agent.ad.start
    """,
    None: """
        Decrypt repo.access git.clone git.push bind readme unreadable HeadObject
    """,
}
BUSINESS = {
    "create": "employee.hire prescription_prescribed plugin.install student.enrol",
    "read": "refund.list charge.view pay_run.read",
    "update": """
        invoice.pay invoice_paid PayInvoice RefundOrder order.refunded payment.charge card_charged claim.reimburse
        account.deposit funds.withdrawn voucher.redeem fee.waived cheque.void order.cancelled order.fulfilled fund.transfer
        appointment.reschedule shift_reassigned leave.extend seat.reserve newsletter.unsubscribe user.banned comment.hidden
        contract.amend record.rectify user.anonymise AnonymizeUser note.redacted plan_upgraded article.publish
        customer.merge order.archive order.restore document.finalize stock.adjust
    """,
    "delete": "pay_slip_delete hire_record.delete subscription_deleted confirm_delete unsubscribe.delete",
    "export": "submit.export refunds.export",
    "permission": "access.grant access.revoke user.impersonate",
    "other": """
        leave.approve leave.rejected terms.accept offer.declined booking.confirm user.invite invoice.remind claim.submitted
        alert.acknowledge
    """,
    None: "order.ship ticket.close file.sign card.expired cart.clear report.generate payment.capture credit_score debit",
}
"""Names of business applications: the state of a thing that remains changes, or something is decided or handed over."""
SENTENCES = {
    "create": ["Add user"],
    "update": ["Reset user password"],
    "delete": ["Delete user", "Delete group"],
    "permission": ["Add member to role"],
    "configuration": ["Update policy"],
}
NAMES = [
    (name, expected) for expected, names in PRODUCTS.items() for name in [*names.split(), *SENTENCES.get(expected, ())]
]


def class_of(name):
    """Return the class of *name* in the table without entries."""
    return OperationClasses().class_of(name)


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_name_of_a_product_has_its_class(name, expected):
    """The names that real products give to operations have the class of what they do, or none."""
    assert class_of(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [(name, expected) for expected, names in BUSINESS.items() for name in names.split()]
)
def test_name_of_a_business_operation_has_its_class(name, expected):
    """Verbs of payments, shops, HR, health and data protection have the class of their effect, or none if they have several."""
    assert class_of(name) == expected


def test_table_of_products_is_large():
    """The table has more than a hundred names, of every class."""
    assert len(NAMES) > 100
    assert {expected for _, expected in NAMES} == {*OperationClass, None}


@pytest.mark.parametrize(
    ("member", "expected"),
    list(zip(OperationType, ["create", "read", "delete", "update", "export", "create"], strict=True)),
)
def test_operation_of_the_memory_sdk_has_a_class(member, expected):
    """The six operations are classified, as members and as text."""
    assert class_of(member) == class_of(member.value) == expected


def words_of(part):
    """Return the words of a part of a name, in lower case."""
    return [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)]


def capitalized(words):
    return [word.capitalize() for word in words]


STYLES = {
    "snake": "_".join,
    "kebab": "-".join,
    "spaced": " ".join,
    "upper": lambda words: "_".join(words).upper(),
    "Pascal": lambda words: "".join(capitalized(words)),
    "camel": lambda words: "".join([words[0], *capitalized(words[1:])]),
    "Sentence": lambda words: " ".join(words).capitalize(),
}


@given(
    named=st.sampled_from([item for item in NAMES if item[1] is not None]),
    style=st.sampled_from(sorted(STYLES)),
    separator=st.sampled_from([".", ":", "/", "::", "#"]),
    namespaces=st.lists(st.sampled_from(["app", "Acme", "com", "v1", "audit_log", "prod-eu", "größe"]), max_size=3),
)
def test_class_is_the_same_in_every_style_and_namespace(named, style, separator, namespaces):
    """A classified name keeps its class in every case style, with every separator, and below any namespaces."""
    name, expected = named
    parts = [STYLES[style](words) for words in map(words_of, re.split("[./:]+", name)) if words]
    assert class_of(separator.join([*namespaces, *parts])) == expected


@given(st.text(max_size=60))
def test_any_text_has_a_class_or_none(text):
    """Classification is total: any text has one of the classes, or none."""
    assert class_of(text) in {*OperationClass, None}


@given(st.sampled_from(["get", "delete", "export", "grant"]), st.text("bcfgjkmqvwxzäß", min_size=1, max_size=5))
def test_part_of_a_word_states_nothing(verb, letters):
    """A verb that is only a part of a word does not count, before or after letters of any language."""
    assert class_of(f"{verb}{letters}") is None
    assert class_of(f"{letters}{verb}") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("export.delete", "delete"),
        ("delete.export", "export"),
        ("delete_export", "delete"),
        ("export_deleted", "delete"),
        ("export_delete_failed", "delete"),
        ("report_export", "export"),
        ("access_key_delete", "delete"),
        ("list_deleted_users", "read"),
        ("deleted_items_list", "read"),
        ("bulk_delete_users", "delete"),
        ("deletion_protection.enable", "update"),
        ("deletion.requested", "delete"),
        ("undelete", "update"),
        ("cancel_delete", "update"),
        ("login_failed", "login"),
        ("loginFailed", "login"),
        ("Log out", "login"),
        ("sign_up", "create"),
        ("dropped", "delete"),
        ("transferred", "update"),
        ("user.deleted.v2", "delete"),
        ("start_export", "export"),
        ("export.run", "export"),
        ("job.run", "other"),
        ("role.update", "permission"),
        ("role.delete", "delete"),
        ("settings.update", "configuration"),
        ("settings.read", "read"),
        ("oauth2Login", "login"),
    ],
)
def test_verb_at_the_decisive_place_counts(name, expected):
    """Of several words, the last part and in it the imperative first or the past form last decide."""
    assert class_of(name) == expected


ATTRIBUTES = """
    redacted anonymized pseudonymised paid hidden reserved banned withdrawn converted adjusted extended annotated subscribed
    installed prescribed voided
"""
THINGS = "pay charge refund deposit reserve ban upgrade downgrade hire install void increment decrement"
DECIDING = {
    "export": "export",
    "list": "read",
    "get": "read",
    "delete": "delete",
    "create": "create",
    "import": "create",
}


@pytest.mark.parametrize("word", ATTRIBUTES.split())
def test_attribute_counts_only_without_another_verb(word):
    """A past form that says which things a verb acts on decides no part with that verb, wherever it stands."""
    for verb, expected in DECIDING.items():
        names = (f"{verb}_{word}", f"user_{verb}_{word}", f"{word}_{verb}", f"{verb}_{word}_users")
        assert [class_of(name) for name in names] == 4 * [expected]
    assert class_of(f"user_{word}") == ("create" if word in ("installed", "prescribed") else "update")


@pytest.mark.parametrize("word", THINGS.split())
def test_verb_that_is_mostly_a_thing_counts_only_without_another_verb(word):
    """A verb that is mostly a thing decides no part with a verb, or the noun of one, that acts on that thing."""
    for verb, expected in {**DECIDING, "removal": "delete"}.items():
        names = (f"{word}_{verb}", f"{verb}_{word}", f"{word}_{verb}_job")
        assert [class_of(name) for name in names] == 3 * [expected]
    alone = "create" if word in ("hire", "install") else "update"
    assert class_of(f"{word}_order") == class_of(f"order_{word}") == alone


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("refund_deleted", "delete"),
        ("charge_exported", "export"),
        ("deleted_charge", "delete"),
        ("install_upgraded", "update"),
        ("hide_export", "update"),
        ("export_deleted", "delete"),
        ("list_deleted_declined", "delete"),
        ("export_deleted_accepted", "delete"),
    ],
)
def test_decisive_verb_beside_a_thing_or_a_phase_counts(name, expected):
    """Beside a thing, an attribute or the phase of an operation, the verb at the decisive place counts."""
    assert class_of(name) == expected


@pytest.mark.parametrize(
    "name",
    ["", "42", "invoice.closed", "prevent_delete", "user_not_deleted", "delete_protection_enabled", "import_export"],
)
def test_ambiguous_or_unknown_name_is_unclassified(name):
    """A name without a known verb, with a negation, or with two verbs of equal rank has no class."""
    assert class_of(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DELETE /exports/42", "delete"),
        ("delete /users/{id}", "delete"),
        ("GET /users/5/delete", "read"),
        ("GET https://example.org/reports/export?format=csv", "export"),
        ("HEAD /reports/export", "read"),
        ("PUT /users/5", "update"),
        ("PATCH /users/5", "update"),
        ("POST /login", "login"),
        ("POST /users/5/delete", "delete"),
        ("POST /users", None),
        ("http.DELETE /users/5", "delete"),
        ("DELETE /files/session/end", "delete"),
        ("POST /session/end", "login"),
    ],
)
def test_request_has_the_class_of_its_method(name, expected):
    """The method of an HTTP request decides; of a POST the path, and of a GET the path if that is an export."""
    assert class_of(name) == expected


@pytest.mark.parametrize("path", ["/users/5", "https://example.org/users/5", "https://example.org"])
@pytest.mark.parametrize(
    "added", ["?next=/delete", "?q=delete", "#/delete", "?x=" + 1000 * "x" + "/delete", "?x=a.view"]
)
@pytest.mark.parametrize(
    ("method", "expected"), [("DELETE", "delete"), ("PUT", "update"), ("GET", "read"), ("POST", None)]
)
def test_query_string_of_a_request_states_nothing(method, path, added, expected):
    """What clients add to a path changes no class, at any length, neither by the table nor by an entry."""
    classes = OperationClasses({"a.view": "other"})
    assert classes.class_of(f"{method} {path}{added}") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POST /api/users/(?P<pk>[0-9]+)/delete", "delete"),
        (r"GET /a/(?P<x>\d+)/export", "export"),
        ("POST /users/{id?}/delete", "delete"),
        ("POST /users/{id:int?}/delete?x=/view", "delete"),
        ("POST /a(b){c}/delete", "delete"),
    ],
)
def test_question_mark_of_a_route_belongs_to_the_path(name, expected):
    """The question mark of a named group or of an optional parameter does not end the template of a route."""
    assert class_of(name) == expected


@pytest.mark.parametrize("added", ["?}", "?(?P<x>", "?{x?}", "#{x?}", "?x={y?}", "(?:x)", "{?}", "{a/b?}", "/?"])
def test_query_string_like_a_route_states_nothing(added):
    """A query string that looks like a part of a template changes no class."""
    assert class_of(f"POST /users/delete{added}/view") == "delete"
    assert class_of(f"POST /users{added}/delete") is None


@pytest.mark.parametrize("piece", ["(", "{", "({", "{a", "(?P<", "{a?}", "{(?P<"])
def test_path_of_many_brackets_takes_no_memory_for_each(piece):
    """A hostile path of brackets is read without state for each of them."""
    name = f"POST /{piece * 20_000}"
    tracemalloc.start()
    try:
        class_of(f"{name}/delete")
        assert tracemalloc.get_traced_memory()[1] < 10 * len(name)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("letters", [5, 1000, 5000])
def test_method_of_a_request_with_a_path_of_any_length_decides(letters):
    """The method is found before a path of any length, and the end of that path decides for a POST."""
    segment = "y" * letters
    assert class_of(f"DELETE /users/{segment}") == class_of(f"POST /users/{segment}/delete") == "delete"


def test_host_of_a_request_states_nothing():
    """The host is no part of the path."""
    assert class_of("POST https://login.example.org/users") is None
    assert class_of("GET https://export.example.org/users") == "read"


@pytest.mark.parametrize(
    ("entry", "name", "expected"),
    [
        ({"invoice.close": "delete"}, "POST https://invoice.close?x=1", None),
        ({"invoice.close": "delete"}, "PUT https://invoice/close", "update"),
        ({"invoice.close": "delete"}, "POST https://h/invoice/close?x=1", "delete"),
        ({"audit.read": "read"}, "DELETE https://audit.read/", "delete"),
        ({"post /jobs": "other"}, "POST https://h/jobs", "other"),
        ({"post /jobs": "other"}, "http: POST /jobs", "other"),
        ({"post /jobs": "other"}, "PUT /jobs", "update"),
        ({"post /jobs": "other"}, "POST https://h/v1/jobs", None),
    ],
)
def test_entry_counts_for_method_and_path_of_a_request(entry, name, expected):
    """An entry is the end of the method and the path of a request; its scheme and host decide nothing."""
    assert OperationClasses(entry).class_of(name) == expected


def test_verb_of_class_other_counts_only_alone():
    """A verb of the class other decides in the last part only if the name has no verb of another class."""
    assert class_of("user.delete.notify") == class_of("delete.verify") == "delete"
    assert class_of("user.created.notify") == "create"
    assert class_of("user.notify") == "other"


# --- entries of an application ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["settle", "invoice.settle", "invoice.settled", "settle_invoice", "SETTLE", "shop.InvoiceSettled"]
)
def test_entry_of_one_word_is_a_verb(name):
    """An entry of one word classifies names like a verb of the table, in its base form and past forms."""
    assert class_of(name) is None
    assert OperationClasses({"settle": "update"}).class_of(name) == "update"


@pytest.mark.parametrize("verb", ["login", "logout", "signin", "delete", "pay"])
def test_entry_of_a_known_verb_covers_its_past_forms(verb):
    """An entry changes the class of the past forms as well, also of a verb that is a noun, too."""
    past = {"login": "logged_in", "logout": "logged_out", "signin": "signed_in", "delete": "deleted", "pay": "paid"}[
        verb
    ]
    classes = OperationClasses({verb: "other"})
    assert classes.class_of(f"user.{verb}") == classes.class_of(f"user.{past}") == "other"
    assert classes.class_of(f"{verb}_removed") == class_of(f"{verb}_removed")


@pytest.mark.parametrize("name", ["invoice.close", "invoiceClose", "shop:invoice_closed", "INVOICE_CLOSE"])
def test_entry_of_several_words_is_the_end_of_names(name):
    """An entry of several words classifies the names that end with them, in any style."""
    classes = OperationClasses({"invoice.close": "delete"})
    assert classes.class_of(name) == "delete"
    assert classes.class_of("ticket.close") is None


def test_longest_entry_wins():
    """Of several entries, the longest one decides, and each wins over the table."""
    classes = OperationClasses({"export": "read", "user.export": "other", "admin.user.export": "export"})
    names = ("report.export", "user.export", "admin.user.export")
    assert [classes.class_of(name) for name in names] == ["read", "other", "export"]


def test_extension_wins_and_leaves_the_first_unchanged():
    """An extended classification has all entries, later ones winning; the first one stays as it was."""
    first = OperationClasses({"settle": "update", "close": "update"})
    extended = first.extended({"close": "delete"})
    assert [extended.class_of("settle"), extended.class_of("close")] == ["update", "delete"]
    assert first.class_of("close") == "update"
    assert first.extended(None) is first
    assert OperationClasses().extended(first) == first
    assert hash(first) == hash(OperationClasses({"settle": "update", "close": "update"}))


@pytest.mark.parametrize(
    ("entries", "error", "words"),
    [
        (["settle"], AuditTypeError, "expected a mapping"),
        ({5: "update"}, AuditTypeError, "got 5"),
        ({"...": "update"}, AuditTypeError, r"got '\.\.\.'"),
        ({"settle": "udpate"}, AuditValueError, "'settle': expected one of create, read, .* got 'udpate'"),
        ({"settle": ["update"]}, AuditValueError, r"got \['update'\]$"),
        ({"cart": {"abandoned": "other"}}, AuditValueError, r"'cart': .* got {.*}; quote a name with dots$"),
    ],
)
def test_invalid_entry_raises_an_error_that_names_it(entries, error, words):
    """An entry that is no name with the name of a class is refused."""
    with pytest.raises(error, match=words):
        OperationClasses(entries)


def test_registered_entry_counts_in_the_process(monkeypatch):
    """A registered entry counts from then on, beside those registered before."""
    monkeypatch.setattr(operation_classes, "_registered", OperationClasses())
    register_operations({"settle": "update"})
    register_operations({"invoice.close": "delete"})
    found = registered_operations()
    assert [found.class_of("invoice.settled"), found.class_of("invoice.close")] == ["update", "delete"]
    assert repr(found) == "OperationClasses({'settle': 'update', 'invoice.close': 'delete'})"
