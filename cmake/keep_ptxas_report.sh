#!/bin/sh
# Compiler launcher: runs nvcc and keeps all it says, ptxas's report included, in OBJECT.log; tests/test_nvcc_report.py
# reads it. What is more than that report is shown as usual.
object=
previous=
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2> "$object.log"
status=$?
grep -v -e '^ptxas info' -e 'bytes stack frame,' "$object.log" >&2
exit $status
