"""The sections of a report, the compliance clauses that they support, and the limits of the report.

The clauses refer to GDPR (Regulation (EU) 2016/679), HIPAA (45 CFR part 164), the AICPA Trust Services Criteria (SOC 2),
ISO/IEC 27001:2022 annex A, and PCI DSS v4.0. Their requirements are paraphrased.
"""

from __future__ import annotations

from typing import NamedTuple

SECTIONS = {
    "completeness": "Completeness",
    "integrity": "Integrity",
    "months": "Monthly figures",
    "over_time": "Events over time",
    "comparison": "Since last month",
    "operations": "Operations",
    "classes": "Operations by class",
    "users": "Users",
    "failures": "Failures",
    "deletions": "Deletions",
    "exports": "Exports",
    "activity": "Activity of the user",
    "open_intents": "Intents without an outcome",
    "trail_events": "Trail events",
    "clauses": "Compliance clauses",
    "not_shown": "What this report does not show",
}
"""The titles of the sections by the names of the report's members, in order."""


class Clause(NamedTuple):
    """A clause and the evidence for it.

    ``requirement`` is paraphrased, ``sections`` has the evidence, and ``not_covered`` is the part that a report does not cover.
    """

    framework: str
    clause: str
    requirement: str
    sections: tuple[str, ...]
    not_covered: str


CLAUSES = (
    Clause("GDPR", "Art. 5(1)(c)", "No more personal data than the purpose requires", ("users",),
           "Whether the recorded data is necessary. The report itself omits metadata."),
    Clause("GDPR", "Art. 5(1)(e)", "Personal data is kept no longer than necessary", ("deletions", "trail_events"),
           "The retention periods that apply. The report lists deletions and removed trail segments."),
    Clause("GDPR", "Art. 5(1)(f), 32", "Integrity and confidentiality of processing",
           ("failures", "completeness", "integrity", "trail_events"), "The protective measures themselves."),
    Clause("GDPR", "Art. 15", "Access of a person to the data processed about them", ("activity",),
           "The full list of events, which an export contains. Recipients and purposes, which trails do not record."),
    Clause("GDPR", "Art. 17", "Erasure on request, with evidence", ("deletions",),
           "The request itself, and copies outside the application."),
    Clause("HIPAA", "§ 164.312(b)", "Record and examine activity in systems that contain health information",
           ("operations", "users", "over_time"), "Systems that do not record to this trail."),
    Clause("HIPAA", "§ 164.312(c)(1)", "Protection from improper alteration and destruction",
           ("deletions", "completeness", "integrity", "trail_events"), "The health records themselves."),
    Clause("SOC 2", "CC7.2", "Monitor for anomalies that may indicate incidents",
           ("failures", "over_time", "comparison", "exports", "users"), "Real-time alerts, and the response to them."),
    Clause("ISO 27001", "A.8.15", "Logs are produced, stored, protected and analysed",
           ("months", "operations", "completeness", "trail_events"),
           "Read access to the files. The operating system controls it."),
    Clause("PCI DSS", "10.2.1.3, 10.2.1.6", "Access to the trail, and its start and stop, are logged", ("trail_events",),
           "Access to the files other than through the command line."),
    Clause("PCI DSS", "10.2.1.4, 10.2.1.5", "Invalid access attempts, and changes of credentials and privileges",
           ("classes", "failures"), "Attempts and changes that the application does not record."),
    Clause("PCI DSS", "10.2.2", "User, type, time, outcome, origin and object of each event",
           ("failures", "deletions", "exports"), "The origin. It is part of the metadata, which exports contain."),
    Clause("PCI DSS", "10.3.2, 10.3.4", "The trail is protected, and changes to it are detected",
           ("trail_events", "completeness", "integrity"), "Lines that no verified seal covers: see the integrity."),
    Clause("PCI DSS", "10.5.1", "Twelve months are kept, the last three immediately available", ("completeness", "months"),
           "How long segments will be kept: see the retention settings of the file handler."),
    Clause("PCI DSS", "10.7.2", "Failures of logging are detected and addressed",
           ("trail_events", "completeness", "open_intents"), "The response."),
)  # fmt: skip

NOT_SHOWN = (
    "Unrecorded actions. An action without an event leaves no trace here.",
    "Whether an event is true. The trail contains the statements of the application.",
    "Whether the trail was altered, beyond the verdicts under 'Integrity'. The figures describe the events as they were read.",
    "Where copies of the trail are. PCI DSS 10.3.3 requires one on another host, which events of this host cannot prove.",
    "Other processes, if the report was made from a handler or a logger: these have only the events of their own process "
    "that are still in the buffer. A report made from the files covers every process that writes to them.",
    "What an operation did. Its class follows from the words of its name, and from the entries of the application. Operations "
    "without a class are named in 'Operations by class'; none of them is counted as a deletion or an export.",
    "Metadata of events, because it may be personal. Exports contain it.",
    "Complete lists. A list shows the newest or the most frequent items, and long texts are cut; totals count everything. "
    "Each full event can be found by its id.",
    "Exact percentiles. They come from a histogram, with an error of at most 1 %.",
    "Whether an intent without an outcome is due to a crash: the operation may still have been running.",
    "Compliance. This report is evidence for an assessment.",
)
"""The limits of every report."""
