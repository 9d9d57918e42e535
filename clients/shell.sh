#!/bin/sh
# A folder of DICOM files in, RTSTRUCT, QA report and report for people out: ./shell.sh FOLDER OUT [LABEL]
set -eu
folder=$1 out=$2 label=${3:-}
call() { curl -sS --fail-with-body -H "Authorization: Bearer ${OARLOCK_KEY:-}" "$@"; }

mkdir -p "$out"
set --
for file in "$folder"/*; do set -- "$@" -F "files=@$file"; done
[ -z "$label" ] || set -- "$@" -F "label=$label"
job=$(call "$OARLOCK_URL/v1/jobs" "$@") || { echo "$job" >&2; exit 1; }
self=$OARLOCK_URL$(echo "$job" | jq -r .links.self)

until state=$(call "$self" | jq -r .state) && [ "$state" != queued ] && [ "$state" != running ]; do sleep 2; done
if [ "$state" != succeeded ]; then call "$self" | jq -r '.error.detail // .state' >&2; exit 1; fi

call "$self/rtstruct" -o "$out/rtstruct.dcm"
call "$self/qa" -o "$out/qa.json"
call "$self/report.html" -o "$out/report.html"
jq -r '.organs[] | select(.verdict == "red") | "red  \(.oar)  \(.reason)"' "$out/qa.json"
