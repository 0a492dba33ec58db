#!/bin/sh
# Goal:   every public header compiles alone, as C11 and as C++; every other header as C11.
# Method: the compiler's syntax check of a file that includes nothing else.
set -u
root=${1:?usage: test_headers.sh SOURCE_FOLDER}
cd "$root" || exit 1
failed=0
checked=0
flags="-Wall -Wextra -Werror -fsyntax-only -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc"
check() { # check LANGUAGE STANDARD HEADER
    checked=$((checked + 1))
    # shellcheck disable=SC2086 # the flags are meant to be split
    printf '#include "%s"\n' "$3" | ${CC:-cc} $flags -x "$1" "-std=$2" - || {
        echo "$3 does not compile alone as $1"
        failed=1
    }
}
has_cxx=1
echo 'class a {};' | ${CC:-cc} -x c++ -fsyntax-only - 2>/dev/null || has_cxx=0
for header in $(cd include && find powerinfer2 -name '*.h' | sort); do
    check c c11 "$header"
    if [ $has_cxx = 1 ]; then check c++ c++11 "$header"; fi
done
# Headers of one instruction set compile only with its flags; templates, and headers that say
# "Include a ... first.", only with the names that the kernel before them defines.
for header in $(cd src && find . -name '*.h' ! -name '*_avx2.h' ! -name '*_avx512.h' \
    ! -name '*_neon*.h' ! -name '*_template.h' | sed 's|^\./||' | sort); do
    head -2 "src/$header" | grep -q 'Include a .* first\.' || check c c11 "$header"
done
echo "$checked headers checked; C++ compiler: $has_cxx"
[ $failed = 0 ] && [ $checked -gt 0 ]
