"""What a report serves, clause by clause, and what it does not show.

The clauses are named after GDPR (Regulation (EU) 2016/679), HIPAA (45 CFR part 164), the AICPA Trust Services Criteria (SOC 2),
ISO/IEC 27001:2022 annex A, and PCI DSS v4.0. What each asks for is said in words of our own.
"""

from __future__ import annotations

from typing import NamedTuple

SECTIONS = {
    "completeness": "Completeness",
    "months": "Monthly figures",
    "over_time": "Events over time",
    "operations": "Operations",
    "users": "Users",
    "failures": "Failures",
    "deletions": "Deletions",
    "exports": "Exports",
    "activity": "Activity of the user",
    "open_intents": "Intents without an outcome",
    "own_acts": "Acts on the trail itself",
    "clauses": "What serves which clause",
    "not_shown": "What this report does not show",
}
"""The sections of a report by the names of its members, in their order."""


class Clause(NamedTuple):
    """A clause: what it asks for, the sections that serve it, and what it asks for beyond."""

    framework: str
    clause: str
    asks: str
    sections: tuple[str, ...]
    beyond: str


CLAUSES = (
    Clause("GDPR", "Art. 5(1)(c)", "No more personal data than the purpose needs", ("users",),
           "Whether what is recorded is needed. The report itself leaves metadata out."),
    Clause("GDPR", "Art. 5(1)(e)", "Kept no longer than necessary", ("deletions", "own_acts"),
           "The periods you have set; here is what was deleted, and when segments of the trail went."),
    Clause("GDPR", "Art. 5(1)(f), 32", "Integrity and confidentiality of processing", ("failures", "completeness", "own_acts"),
           "The measures themselves."),
    Clause("GDPR", "Art. 15", "A person's access to what is processed about them", ("activity",),
           "The report of that user alone, and an export of all their events. Recipients and purposes are in no trail."),
    Clause("GDPR", "Art. 17", "Erasure on request, and evidence of it", ("deletions",),
           "The request itself, and copies outside of the application."),
    Clause("HIPAA", "§ 164.312(b)", "Record and examine activity in systems with health information",
           ("operations", "users", "over_time"), "Systems that do not record to this trail."),
    Clause("HIPAA", "§ 164.312(c)(1)", "Protection from improper alteration and destruction",
           ("deletions", "completeness", "own_acts"), "The health records themselves."),
    Clause("SOC 2", "CC7.2", "Watch for anomalies that may be incidents", ("failures", "over_time", "exports", "users"),
           "Alerts at the moment, and what came of them."),
    Clause("ISO 27001", "A.8.15", "Logs are made, kept, protected and analysed",
           ("months", "operations", "completeness", "own_acts"), "Who may read the files; that is the system's to say."),
    Clause("PCI DSS", "10.2.1.3, 10.2.1.6", "Access to the trail, its start and its stop are logged", ("own_acts",),
           "Reading the files by other means than the command line."),
    Clause("PCI DSS", "10.2.2", "User, type, time, outcome, origin and object of each event",
           ("failures", "deletions", "exports"), "The origin: it is in the metadata, which exports have."),
    Clause("PCI DSS", "10.3.2, 10.3.4", "The trail is protected, and a change to it is noticed", ("own_acts", "completeness"),
           "This report does not verify the trail."),
    Clause("PCI DSS", "10.5.1", "Twelve months kept, three at hand", ("completeness", "months"),
           "How long the segments will be kept; see the retention of the file handler."),
    Clause("PCI DSS", "10.7.2", "Failures of logging are noticed and answered", ("own_acts", "completeness", "open_intents"),
           "The answer."),
)  # fmt: skip

NOT_SHOWN = (
    "What nobody recorded. An action without an event leaves no trace here.",
    "Whether an event is true. The trail says what an application said.",
    "Whether the trail was changed. The figures are those of the events as they were read; nothing was verified.",
    "Where copies of the trail are. PCI DSS 10.3.3 asks for one off the host, which the host's own events can't show.",
    "Other processes, if it was made from a handler or a logger: those know the events of their own process that their buffer "
    "still holds. Made from the files, it knows every process that writes to them.",
    "Deletions and exports under other names. Sections 'Deletions' and 'Exports' are about the operations FORGET and EXPORT; "
    "any other is in 'Operations' only.",
    "Metadata of events. It may be personal, and where it matters it is in the exports.",
    "Long lists. Of each, the newest or the most frequent are shown, and long texts are cut; the totals count all. The id of "
    "an event leads to the whole of it.",
    "Exact percentiles. They come from a histogram and are right to 1 %.",
    "Whether an intent without an outcome is one of a crash: its operation may still have been under way.",
    "Compliance. It is evidence for those who judge.",
)
"""What no report of this kind shows."""
