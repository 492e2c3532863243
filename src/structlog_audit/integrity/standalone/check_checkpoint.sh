#!/bin/sh
# check_checkpoint.sh CHECKPOINT VKEY: verify the signature of a checkpoint with openssl (3.0 or newer) alone.
#
# Prints the origin, the number of lines and the root that are signed. Exit code: 0 signed by this key, 1 not, 2 wrong usage.
set -eu
export LC_ALL=C

if [ $# -ne 2 ] || [ ! -r "$1" ]; then
  echo "usage: check_checkpoint.sh CHECKPOINT NAME+ID+KEY" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A verifier key is NAME+ID+KEY. Its key is the base64 of 0x01 and the 32 bytes of an Ed25519 key; the base64 may have a plus.
NAME=${2%%+*}
rest=${2#*+}
id=${rest%%+*}
export NAME
printf %s "${rest#*+}" | openssl base64 -d -A > "$work/key"
if [ "$(wc -c < "$work/key" | tr -d ' ')" != 33 ] || [ "$(head -c 1 "$work/key" | od -An -tx1 | tr -d ' ')" != 01 ]; then
  echo "expected a verifier key NAME+ID+KEY of type 1, got $2" >&2
  exit 2
fi

# The DER of an Ed25519 key is a constant beginning and the 32 bytes.
{ printf '\060\052\060\005\006\003\053\145\160\003\041\000'; tail -c 32 "$work/key"; } > "$work/der"

# The text ends in front of the empty line. Its first line is the origin, which must be the name of the key.
sed '/^$/,$d' "$1" > "$work/text"
if [ "$(head -n 1 "$work/text")" != "$NAME" ]; then
  echo "the checkpoint is not one of $NAME" >&2
  exit 1
fi

# A signature is the base64 of the id of its key and 64 bytes. Other keys may have signed, too.
awk '$1 == "\342\200\224" && $2 == ENVIRON["NAME"] && NF == 3 { print $3 }' "$1" > "$work/signatures"
while read -r signature; do
  printf %s "$signature" | openssl base64 -d -A > "$work/raw"
  [ "$(head -c 4 "$work/raw" | od -An -tx1 | tr -d ' ')" = "$id" ] || continue
  tail -c +5 "$work/raw" > "$work/signature"
  if openssl pkeyutl -verify -pubin -inkey "$work/der" -keyform DER -rawin -in "$work/text" \
    -sigfile "$work/signature" > "$work/out" 2>&1; then
    cat "$work/text"
    exit 0
  fi
done < "$work/signatures"

echo "the checkpoint has no right signature of $NAME with the id $id" >&2
exit 1
