#!/bin/bash
# oclgrind.sh [BUILD]: test_opencl on a simulated OpenCL device (Debian's oclgrind), which reports kernels that read or
# write beyond a buffer, or race, and calls that OpenCL forbids. (Its check for memory that nobody wrote crashes by
# itself.) BUILD: the folder that it was built in; "build" otherwise. Takes some minutes. Fails with the test, and with
# anything that was reported.
set -u
build=$(cd "${1:-$(dirname "$0")/../build}" && pwd) || exit 1
driver=/usr/lib/oclgrind/liboclgrind-rt-icd.so
[ -e "$driver" ] || { echo "oclgrind.sh: apt-get install oclgrind" >&2; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "$driver" >"$folder/oclgrind.icd"
export OCL_ICD_VENDORS="$folder/oclgrind.icd" OCLGRIND_LOG="$folder/log" XDG_CACHE_HOME="$folder"
export OCLGRIND_DATA_RACES=1 OCLGRIND_CHECK_API=1
touch "$folder/log"
"$build/tests/test_opencl"
status=$?
# It knows OpenCL C 1.2 alone, though it lists later ones: they are tried first.
grep -v -e '^$' -e 'OpenCL runtime error detected' -e 'Function: clBuildProgram' -e 'CL_BUILD_PROGRAM_FAILURE' \
    "$folder/log" >"$folder/found"
if [ -s "$folder/found" ]; then
    echo "oclgrind.sh: reported:"
    head -60 "$folder/found"
    exit 1
fi
echo "oclgrind.sh: nothing was reported, exit status $status"
exit "$status"
