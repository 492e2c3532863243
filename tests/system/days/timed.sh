# Sourced by each day. Shows each command and its output, the seconds of each that begins with `time`, and those of the day.
set -euo pipefail
WHEEL=$(echo "$1"/structlog_audit-*.whl)
: "${CHROMIUM:=chromium --headless}"
TIMEFORMAT='(%R s, CPU %U + %S s)'
begin=${EPOCHREALTIME//[.,]/}

day_ends() {
  local microseconds=$((${EPOCHREALTIME//[.,]/} - begin))
  printf 'total: %d.%03d s\n' $((microseconds / 1000000)) $((microseconds / 1000 % 1000))

  # What runs in the background ends with the day.
  jobs -p | xargs -r kill 2> /dev/null || true
  wait
}

# Wait for a text in a file for two minutes at most, as a person does who looks at it.
seen() { timeout 120 sh -c 'until grep -qs -- "$1" "$2"; do sleep 0.1; done' sh "$1" "$2"; }

trap day_ends EXIT
exec 2>&1
set -v
