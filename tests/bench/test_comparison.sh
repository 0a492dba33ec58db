#!/bin/sh
# test_comparison.sh SOURCE_FOLDER: the arithmetic, merging and scheduling of bench/compare.
command -v python3 >/dev/null || {
    echo "skipped: test_comparison needs python3"
    exit 77
}
exec python3 -B "$1/tests/bench/test_comparison.py"
