#!/bin/sh
# same_on_devices.sh DEVICE...: with each device beside the processor the texts are the processor's.
#
# By hand, after `make build`: 20 prompts of 64 greedy tokens, which do not stop at an end token, of a dense model (the
# default one), a mixture of experts and a model with zeros whose neurons are computed one by one (both synthetic). A
# device that is lost, or computes nothing, of the experts or of hot neurons too, fails as one with another text does.
# One thread computes beside it: two would have done nearly everything before a driver has begun. Names are those of 'machine --list-devices'.
#
#   PROMPTS, TOKENS    so many
#   TINY=1             three tiny synthetic models, where an emulator is slow: the Hexagon DSP's (make hexagon),
#                      PI2_HEXAGON_EMULATOR=/usr/bin/qemu-hexagon \
#                      PI2_HEXAGON_PROGRAM=build/hexagon/powerinfer2-hexagon [PI2_HEXAGON_PROCESSOR=v67]
#   MODELS             files instead of the three
#   PROGRAM            another build
#   ROOT               a folder with another Debian whose drivers are meant (as root): the devices are asked for inside
#                      of it, and compared with the processor outside
#   DEBIAN             that Debian's name: it is made in ROOT (debootstrap), with PACKAGES (PoCL), where it is not there
#   SHARE              of the weights that are the devices' own: 1, from which the thread takes what it comes to
#   OPTIONS            further options of both
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: same_on_devices.sh DEVICE..., as 'machine --list-devices' names them" >&2; exit 2; }
prompts=${PROMPTS:-20}
tokens=${TOKENS:-64}
program=${PROGRAM:-build/powerinfer2}
root=${ROOT:-}
mkdir -p "$root/tmp"
if [ -n "${DEBIAN:-}" ] && [ ! -e "$root/.has_devices" ]; then
    echo "making $DEBIAN in $root (some minutes)" >&2
    mirror=$(apt-get indextargets --format '$(SITE)|$(ORIGIN)|$(RELEASE)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 !~ /security/ { print $1; exit }')
    # An archived mirror's release file may have passed its date.
    { debootstrap --variant=minbase "$DEBIAN" "$root" "$mirror" && cp /etc/resolv.conf "$root/etc/resolv.conf" &&
        chroot "$root" apt-get -q -o Acquire::Check-Valid-Until=false update &&
        chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
            ${PACKAGES:-ocl-icd-libopencl1 pocl-opencl-icd}; } >"$root/tmp/devices.log" 2>&1 || {
        tail -5 "$root/tmp/devices.log" >&2
        exit 1
    }
    touch "$root/.has_devices"
fi
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
        # Drivers look at /proc and /sys; the private mount namespace ends with the program.
        # shellcheck disable=SC2016
        unshare --mount sh -c 'root=$1; shift; mount --rbind /proc "$root/proc" && mount --rbind /sys "$root/sys" &&
            exec chroot "$root" "$@"' sh "$root" env LD_LIBRARY_PATH="${work#"$root"}/lib" \
            XDG_CACHE_HOME="${work#"$root"}" "${work#"$root"}/powerinfer2" "$@"
    fi
}

head -n "$prompts" scripts/same_prompts.txt | sed 's/"/\\"/g; s/.*/{"prompt": "&"}/' >"$work/prompts.jsonl"
asked=$(wc -l <"$work/prompts.jsonl")

if [ -n "${MODELS:-}" ]; then
    for model in $MODELS; do cp "$model" "$work/"; done
elif [ -n "${TINY:-}" ]; then
    "$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_0 -o "$work/dense.gguf" -q
    "$program" synth --layers 2 --embedding 256 --vocab 512 --type q4_0 --architecture qwen3moe --experts 8 \
        --experts-used 2 --expert-ffn 512 -o "$work/experts.gguf" -q
    "$program" synth --layers 2 --embedding 256 --ffn 1024 --vocab 512 --type q8_0 --ffn-activation relu \
        --ffn-zeros 0.8 --neuron-repeat 0.6 -o "$work/sparse.gguf" -q
else
    cp "$(scripts/model.sh)" "$work/dense.gguf"
    # A piece of work must be worth a driver's trouble, or the thread does nearly all of it.
    "$program" synth --layers 2 --embedding 512 --vocab 2048 --type q4_0 --architecture qwen3moe --experts 8 \
        --experts-used 4 --expert-ffn 1024 -o "$work/experts.gguf" -q
    "$program" synth --layers 4 --embedding 256 --ffn 2048 --vocab 2048 --type q8_0 --ffn-activation relu \
        --ffn-zeros 0.8 --neuron-repeat 0.6 -o "$work/sparse.gguf" -q
fi
if [ -f "$work/sparse.gguf" ]; then # neurons one by one are those of a file that has them so
    "$program" prepare -m "$work/sparse.gguf" -o "$work/sparse.pi2" --layout neuron -q
    rm "$work/sparse.gguf"
fi
# Spans of this name of the members of devices.
spans() { # spans NAME TRACE
    awk -v name=" $1\"" '/"thread_name"/ && /"device / { sub(/.*"tid":/, ""); sub(/,.*/, ""); device[$0] = 1; next }
        index($0, name) { sub(/.*"tid":/, ""); sub(/,.*/, ""); if ($0 in device) n++ } END { print n + 0 }' "$2"
}

failures=0
for model in "$work"/*.gguf "$work"/*.pi2; do
    [ -f "$model" ] || continue
    name=$(basename "$model")
    must= # compute, beside some of the weights
    only= # options of one model
    case $name in
    experts.gguf) must='experts' ;;
    sparse.pi2)
        must='hot gate+up'
        only='--sparsity always'
        ;;
    esac
    common="-c 256 -t 1 -s 1 --temp 0 --ignore-eos -n $tokens --memory 2G --device-share ${SHARE:-1} $only ${OPTIONS:-}"
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
        # A thread on a busy machine may be done before a device has begun.
        for try in 1 2 3 4 5; do
            # shellcheck disable=SC2086
            inside run -m "$inside_model" -p "Name three things that a plant needs." $common --device "$device" \
                --device-always --trace "${work#"$root"}/trace" >/dev/null 2>"$work/report" ||
                { cat "$work/report" >&2; exit 1; }
            grep -q '^devices  *[1-9]' "$work/report" || continue
            [ -z "$must" ] || [ "$(spans "$must" "$work/trace")" != 0 ] || continue
            break
        done
        sed 's/"hash": *"[^"]*", *//' "$work/device" >"$work/got"
        same=$(paste -d '\n' "$work/want" "$work/got" | awk 'NR % 2 { want = $0; next } $0 == want { n++ } END { print n + 0 }')
        echo "$name, $device: $same of $asked texts the same, $tokens tokens each"
        if grep -h "is lost\|the processor computes alone" "$work/log" "$work/report"; then failures=$((failures + 1)); fi
        sed -n 's/^devices  */    /p' "$work/report"
        grep -q '^devices  *[1-9]' "$work/report" || { echo "    it computed nothing"; failures=$((failures + 1)); }
        if [ -n "$must" ] && [ "$(spans "$must" "$work/trace")" = 0 ]; then
            echo "    it computed nothing of '$must'"
            failures=$((failures + 1))
        fi
        [ "$same" -eq "$asked" ] || failures=$((failures + 1))
    done
done
[ "$failures" -eq 0 ]
