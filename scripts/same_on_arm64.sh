#!/bin/sh
# same_on_arm64.sh [PROMPTS] [TOKENS] [MODEL]: the static ARM program, under qemu, gives this machine's program's text.
#
# By hand, since an emulated model takes minutes: `make build tarball-arm64` first. 20 prompts of 64 greedy tokens
# otherwise, of the default model. Every second one runs with pages of 16 KB. Answers do not stop at an end token.
# FIRST=15 leaves the prompts before the 15th out: twenty of them can be asked in parts.
# PROGRAM and ARM_PROGRAM name other builds, PI2_CPU holds for the ARM program alone (scalar, neon, dotprod).
set -eu
cd "$(dirname "$0")/.."
most=${1:-20}
tokens=${2:-64}
model=${3:-$(scripts/model.sh)}
here=${PROGRAM:-build/powerinfer2}
arm=${ARM_PROGRAM:-build-arm64/powerinfer2}
cpu=${PI2_CPU:-}
first=${FIRST:-1}
unset PI2_CPU
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
answer() { # answer NAME COMMAND...: the text, into a file
    name=$1
    shift
    "$@" run -m "$model" -c 256 -n "$tokens" --temp 0 --ignore-eos -t 2 -p "$prompt" -q </dev/null >"$work/$name" 2>"$work/$name.log" || {
        echo "same_on_arm64.sh: $name failed: $(tail -1 "$work/$name.log")" >&2
        exit 1
    }
}
number=0
asked=0
equal=0
while IFS= read -r prompt && [ "$asked" -lt "$most" ]; do
    number=$((number + 1))
    [ "$number" -ge "$first" ] || continue
    asked=$((asked + 1))
    answer here "$here"
    page=4096
    [ $((number % 2)) -eq 1 ] || page=16384
    answer arm env ${cpu:+PI2_CPU="$cpu"} qemu-aarch64 -p $page "$arm"
    if cmp -s "$work/here" "$work/arm" && [ -s "$work/here" ]; then
        equal=$((equal + 1))
        echo "same ($page): $prompt"
    else
        echo "DIFFERENT ($page): $prompt"
        diff "$work/here" "$work/arm" || true
    fi
done <scripts/same_prompts.txt
echo "$equal of $asked the same, $tokens tokens each"
[ "$equal" -eq "$asked" ] && [ "$asked" -gt 0 ]
