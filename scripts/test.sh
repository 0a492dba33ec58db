#!/bin/sh
# test.sh PRESET: runs the tests of a built preset; $TESTS (a regular expression) picks some, ORDER=random runs them in
# another order each time.
#
# PI2_TEST_DATA and PI2_TEST_MODEL (the default model's file) widen the tests; those that
# need what is absent are skipped by name.
set -eu
cd "$(dirname "$0")/.."
preset=$1
export PI2_TEST_PRESET="$preset"
case $preset in release) folder=build ;; *) folder=build-$preset ;; esac

# Only the release build, whose memory is the program's own, is tested with the real model. A
# PI2_TEST_MODEL that is set but empty means: without it.
if [ -z "${PI2_TEST_MODEL+set}" ] && [ "$preset" = release ]; then
    if PI2_TEST_MODEL=$(scripts/model.sh); then export PI2_TEST_MODEL; else
        unset PI2_TEST_MODEL
        echo "test.sh: without the default model its tests are skipped" >&2
    fi
fi
launcher=''
if [ "$preset" = tsan ]; then
    # ThreadSanitizer's shadow memory needs the address layout that it was built for.
    if setarch "$(uname -m)" -R true 2>/dev/null; then launcher="setarch $(uname -m) -R"; fi
fi
export ASAN_OPTIONS="${ASAN_OPTIONS:-allocator_may_return_null=1:quarantine_size_mb=8:detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1:allocator_may_return_null=1}"
export CTEST_PARALLEL_LEVEL="${JOBS:-2}"
cd "$folder"
# shellcheck disable=SC2086 # the launcher is meant to be split
exec $launcher ctest --output-on-failure --no-tests=error ${TESTS:+-R "$TESTS"} \
    ${TESTS_EXCEPT:+-E "$TESTS_EXCEPT"} ${ORDER:+--schedule-random}
