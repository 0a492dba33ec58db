#!/bin/sh
# test_comparison.sh SOURCE_FOLDER: the arithmetic, merging and scheduling of bench/compare; results and docs/speed.md.
command -v python3 >/dev/null || {
    echo "skipped: test_comparison needs python3"
    exit 77
}
exec python3 -B -m unittest discover -s "$1/tests/bench" -p 'test_*.py'
