#!/bin/sh
# Goal:   a device whose bits are not the processor's is refused; taken all the same (--backend-precision fast) it makes
#         the run approximate: told with the device's name, measured by verify, held to --max-divergence, taken back by
#         --on-divergence exact; what such a run keeps is not used by exact ones. A device that has the bits changes
#         nothing by being asked for so.
# Method: an OpenCL device through a loader that makes its results a little too large (tests/tools/opencl_faults.c).
# What the driver has compiled before: it takes longer than the test.
POCL_CACHE_DIR=${POCL_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pocl/kcache}
export POCL_CACHE_DIR
. "$(dirname "$0")/cli_support.sh"
faults=$(dirname "$make_tiny_model")/opencl_faults
[ -e "$faults/libOpenCL.so.1" ] || { echo "skipped: built without OpenCL"; exit 77; }
LD_LIBRARY_PATH=$faults${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_k -o "$folder/model.gguf" -q || fail synth
model=$folder/model.gguf
print_lines 40 "the hand and the other one are in line " "" >"$folder/text"
common="-m $model --memory 2G -t 1"
chat="$common --raw -p one -n 8 --temp 0 -c 64"
fast="--device opencl --device-always --device-share 1 --backend-precision fast"

# shellcheck disable=SC2086
{
    expect 0 run $chat --device none
    exact=$(cat "$folder/out")
    expect 0 run $chat --device opencl
    grep 'the processor computes alone' "$folder/err" && { echo "skipped: no device that can be used"; exit 77; }

    # The bits are the processor's: fast is exact.
    expect 0 run $chat $fast --max-divergence 0
    [ "$(cat "$folder/out")" = "$exact" ] || fail "fast gives another text on a device that has the bits"
    grep -q approximate "$folder/err" && fail "an exact device is called approximate"
    expect 0 verify $common -f "$folder/text" -c 64 --chunks 2 --json $fast
    expect_json arithmetic exact

    # They are not.
    export PI2_OPENCL_FAULTS=other-bits
    expect 0 run $chat --device opencl
    grep -q "computes other bits than the processor .*; the processor computes alone" "$folder/err" ||
        fail "$(cat "$folder/err")"
    [ "$(cat "$folder/out")" = "$exact" ] || fail "a refused device gives another text"
    expect 0 run $chat $fast
    grep -q "^approximate (device .* [0-9a-f]\{16\}): what that costs was not measured" "$folder/err" ||
        fail "$(cat "$folder/err")"
    grep -q "^devices .*: the text is approximate" "$folder/err" || fail "$(cat "$folder/err")"
    expect_error 6 "was not measured: run 'powerinfer2 verify'" run $chat $fast --max-divergence 10 -q
    expect 0 run $chat $fast --max-divergence 10 --on-divergence exact
    [ "$(cat "$folder/out")" = "$exact" ] || fail "the run that fell back says another text"

    # On a busy machine the thread may have done all of it before the device began.
    for try in 1 2 3 4 5; do
        expect 0 verify $common -f "$folder/text" -c 64 --chunks 4 --json $fast
        mode=$(json arithmetic)
        measured=$(json kl_divergence)
        echo "$measured" | awk '{ exit !($1 > 1e-12) }' && break
        echo "the device came too late (try $try)"
    done
    echo "$mode" | grep -q '^device .* [0-9a-f]\{16\}$' || fail "the mode is called $mode"
    echo "$measured" | awk '{ exit !($1 > 1e-12 && $1 < 1) }' || fail "other bits cost $measured"
    expect 0 run $chat $fast --max-divergence 1 --json
    expect_json arithmetic "$mode"
    grep -q "^approximate (device .*): KL divergence" "$folder/err" || fail "$(cat "$folder/err")"
    expect_error 6 "more than --max-divergence 0" run $chat $fast --max-divergence 0 -q
    # With another approximation it is another mode.
    expect_error 6 "(cache q8_0, device .* was not measured" run $chat $fast -ctk q8_0 -ctv q8_0 --max-divergence 1 -q

    # Nothing of it is kept for others (sessions: test_device_choice).
    expect_error 2 "a prompt cache keeps what exact runs compute" run $chat $fast --prompt-cache "$folder/prompts" -q
}
finish
