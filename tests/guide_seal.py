"""The sealed trail that the guide's page for auditors verifies: an export, its key, an anchor, a proof and a time stamp."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from seals import SIGNER, lines_of, make_trail, note_of

from structlog_audit.integrity.merkle import inclusion_proof
from structlog_audit.integrity.notes import Proof
from structlog_audit.integrity.standalone import verify_trail

TSA_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
"""

TSA_COMMANDS = """
openssl req -x509 -newkey ed25519 -nodes -days 9000 -keyout ca.key -out tsa-ca.pem -subj "/CN=A time-stamping authority"
openssl req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj "/CN=TSA"
printf 'extendedKeyUsage=critical,timeStamping\\n' > extensions
openssl x509 -req -in tsa.csr -out tsa.pem -days 9000 -CA tsa-ca.pem -CAkey ca.key -CAcreateserial -extfile extensions
openssl ts -query -data "$1" -sha256 -cert -out query
openssl ts -reply -queryfile query -signer tsa.pem -inkey tsa.key -config tsa.conf -out "$1.tsr"
"""


def write_export(folder: Path) -> None:
    """Write ``export/``, a sealed trail with the verifier, and beside it what an auditor has from elsewhere, to *folder*."""
    export = folder / "export"
    export.mkdir()
    sealer = make_trail(export, segments=2, lines=40)
    standalone = Path(verify_trail.__file__).parent
    for name in ("verify_trail.py", "check_checkpoint.sh"):
        shutil.copy(standalone / name, export)

    (folder / "audit.vkey").write_text(f"{SIGNER.key}\n")
    lines = [line for path in sorted(export.glob("audit.jsonl.2*")) for line in lines_of(path)]
    with sealer.hashes() as hashes:
        size = sealer.tree.size
        proof = Proof(7, tuple(inclusion_proof(7, size, hashes.read)), note_of(size, sealer.tree.root()))
        old = str(note_of(40, verify_trail.range_root(hashes.read, 0, 40)))
    (folder / "event.json").write_bytes(lines[7] + b"\n")
    (folder / "event.tlog-proof").write_text(str(proof))
    shipped = old.replace("\n", "#012")
    (folder / "shipped.log").write_text(f"Jan 15 10:30:55 web1 audit: {shipped}\n")

    shutil.copy(sealer.folder / "checkpoint", sealer.folder / "stamped")
    if shutil.which("openssl"):
        authority = folder / "authority"
        authority.mkdir()
        (authority / "tsa.conf").write_text(TSA_CONFIG)
        words = ["sh", "-ec", TSA_COMMANDS, "sh", str(sealer.folder / "stamped")]
        subprocess.run(words, cwd=authority, check=True, capture_output=True)
        shutil.copy(authority / "tsa-ca.pem", folder)
        shutil.rmtree(authority)
