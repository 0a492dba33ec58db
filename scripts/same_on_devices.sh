#!/bin/sh
# same_on_devices.sh DEVICE...: with each device beside the processor the texts are the processor's.
#
# By hand, after `make build`: 20 prompts of 64 greedy tokens, which do not stop at an end token, of a dense model (the
# default one), a mixture of experts and a model with zeros whose neurons are computed one by one (both synthetic). A
# device that computes nothing fails as one that gives another text does. Names are those of 'machine --list-devices'.
#
#   PROMPTS, TOKENS    so many, where an emulator is slow
#   MODELS             files instead of the three
#   PROGRAM            another build
#   ROOT               a folder with another Debian whose drivers are meant (debootstrap; as root): the devices are
#                      asked for inside of it, and compared with the processor outside
#   OPTIONS            further options of both
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: same_on_devices.sh DEVICE..., as 'machine --list-devices' names them" >&2; exit 2; }
prompts=${PROMPTS:-20}
tokens=${TOKENS:-64}
program=${PROGRAM:-build/powerinfer2}
root=${ROOT:-}
mkdir -p "$root/tmp"
work=$(mktemp -d "$root/tmp/same_on_devices.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# What the program needs and the other system has not.
if [ -n "$root" ]; then
    mkdir "$work/lib"
    ldd "$program" | sed -n 's/^\t*\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p' | while read -r name file; do
        find "$root/lib/" "$root/usr/lib" -name "$name" 2>/dev/null | grep -q . || cp "$file" "$work/lib/$name"
    done
    cp "$program" "$work/powerinfer2"
fi
inside() { # inside ARGUMENTS...: the program where the devices are
    if [ -z "$root" ]; then
        "$program" "$@"
    else
        chroot "$root" env LD_LIBRARY_PATH="${work#"$root"}/lib" XDG_CACHE_HOME="${work#"$root"}" \
            "${work#"$root"}/powerinfer2" "$@"
    fi
}

head -n "$prompts" scripts/same_prompts.txt | sed 's/"/\\"/g; s/.*/{"prompt": "&"}/' >"$work/prompts.jsonl"
asked=$(wc -l <"$work/prompts.jsonl")

if [ -n "${MODELS:-}" ]; then
    for model in $MODELS; do cp "$model" "$work/"; done
else
    cp "$(scripts/model.sh)" "$work/dense.gguf"
    "$program" synth --layers 4 --embedding 256 --vocab 2048 --type q4_0 --architecture qwen3moe --experts 16 \
        --experts-used 4 --expert-ffn 256 -o "$work/experts.gguf" -q
    "$program" synth --layers 4 --embedding 256 --ffn 2048 --vocab 2048 --type q8_0 --ffn-activation relu \
        --ffn-zeros 0.8 --neuron-repeat 0.6 -o "$work/sparse.gguf" -q
fi

failures=0
for model in "$work"/*.gguf; do
    name=$(basename "$model")
    common="-c 256 -t 2 -s 1 --temp 0 --ignore-eos -n $tokens --memory 2G ${OPTIONS:-}"
    # shellcheck disable=SC2086
    rm -f "$work/processor"
    "$program" batch -m "$model" -f "$work/prompts.jsonl" -o "$work/processor" -np 1 $common -q
    sed 's/"hash": *"[^"]*", *//' "$work/processor" >"$work/want"
    for device in "$@"; do
        rm -f "$work/device"
        inside_model=${model#"$root"}
        # shellcheck disable=SC2086
        inside batch -m "$inside_model" -f "${work#"$root"}/prompts.jsonl" -o "${work#"$root"}/device" -np 1 $common \
            --device "$device" --device-always 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
        # shellcheck disable=SC2086
        inside run -m "$inside_model" -p "Name three things that a plant needs." $common --device "$device" \
            --device-always >/dev/null 2>"$work/report" || { cat "$work/report" >&2; exit 1; }
        sed 's/"hash": *"[^"]*", *//' "$work/device" >"$work/got"
        same=$(paste -d '\n' "$work/want" "$work/got" | awk 'NR % 2 { want = $0; next } $0 == want { n++ } END { print n + 0 }')
        echo "$name, $device: $same of $asked texts the same, $tokens tokens each"
        grep -h "is lost\|the processor computes alone" "$work/log" "$work/report" | sort -u || true
        sed -n 's/^devices  */    /p' "$work/report"
        grep -q '^devices  *[1-9]' "$work/report" || { echo "    it computed nothing"; failures=$((failures + 1)); }
        [ "$same" -eq "$asked" ] || failures=$((failures + 1))
    done
done
[ "$failures" -eq 0 ]
