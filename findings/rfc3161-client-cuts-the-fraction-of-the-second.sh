#!/usr/bin/env bash
# rfc3161-client gives the time of a timestamp without the fraction of the second that the authority signed.
#
# A reader would expect: the time of the token; RFC 3161 allows fractions of a second in genTime, and "ordering" promises that
#   tokens of one authority can be ordered by it.
# Guessed before running: the fraction as microseconds, or an error while the token is decoded.
# Seen on 2026-11-28, Python 3.11.7, rfc3161-client 1.0.9, asn1crypto 1.5.1, rfc3161ng 2.1.3, OpenSSL 3.0: the authority signs
#   microseconds and ordering; gen_time has whole seconds, and two tokens of one second have the same time. asn1crypto,
#   rfc3161ng and "openssl ts" show the fraction. The accuracy is read with its microseconds.
# What follows: the order of seals within a second is lost, and the time plus or minus the accuracy can miss the moment of
#   signing: with an accuracy of 0.1 s the time is up to 0.9 s too early. Read genTime from the token with asn1crypto.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v openssl > /dev/null || exit 2
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check rfc3161-client==1.0.9 asn1crypto==1.5.1 rfc3161ng==2.1.3 || exit 2
cd "$work"
cat > tsa.cnf <<'CNF'
[req]
distinguished_name = name
prompt = no
[name]
CN = Test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[timestamps]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
serial = ./serial
default_policy = 1.2.3.4
digests = sha256
signer_digest = sha256
accuracy = secs:0, millisecs:100, microsecs:0
clock_precision_digits = 6
ordering = yes
CNF
{
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -config tsa.cnf -extensions authority -days 30
  openssl req -new -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -config tsa.cnf -subj /CN=TSA
  openssl x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem -extfile tsa.cnf -extensions timestamps
  echo 01 > serial
  echo seal > seal
  openssl ts -query -data seal -sha256 -cert -out query.tsq
  for number in $(seq 20); do
    openssl ts -reply -queryfile query.tsq -signer tsa.pem -inkey tsa.key -out "$number.tsr" -config tsa.cnf -section tsa
  done
} > log 2>&1 || { cat log; exit 2; }
openssl version
openssl ts -reply -in 1.tsr -text 2> /dev/null | grep "Time stamp:"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import rfc3161ng
from asn1crypto import tsp
from cryptography import x509
from rfc3161_client import VerifierBuilder, decode_timestamp_response

names = ("rfc3161-client", "asn1crypto", "rfc3161ng")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
responses = [Path(f"{number}.tsr").read_bytes() for number in range(1, 21)]


def by_asn1crypto(response):
    token = tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]
    return token["encap_content_info"]["content"].parsed["gen_time"].native


root = x509.load_pem_x509_certificate(Path("ca.pem").read_bytes())
decoded = decode_timestamp_response(responses[0])
verified = VerifierBuilder().add_root_certificate(root).build().verify_message(decoded, Path("seal").read_bytes())
print("verified:", verified, "ordering:", decoded.tst_info.ordering, "accuracy:", decoded.tst_info.accuracy.millis, "ms")

times = {
    "asn1crypto": [by_asn1crypto(response) for response in responses],
    "rfc3161ng": [rfc3161ng.get_timestamp(rfc3161ng.decode_timestamp_response(r).time_stamp_token) for r in responses],
    "rfc3161-client": [decode_timestamp_response(response).tst_info.gen_time for response in responses],
}
seen = {}
for name, values in times.items():
    seen[name] = any(value.microsecond for value in values), len(set(values)) == len(values)
    print(f"{name}: {values[0]}, {len(set(values))} times of {len(values)} tokens")

expected = {"asn1crypto": (True, True), "rfc3161ng": (True, True), "rfc3161-client": (False, False)}
same = seen == expected and verified
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
