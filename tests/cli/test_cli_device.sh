#!/bin/sh
# Goal:   with a device beside the processor the text is the same, dense, with experts and sparse, and it is told what
#         the device did; a device that is not there leaves the work to the processor; a name that means
#         nothing is refused.
# Method: small synthetic models, and the first OpenCL device, where there is one.
. "$(dirname "$0")/cli_support.sh"
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # what a driver never gives back is not ours
export ASAN_OPTIONS
expect 0 machine --list-devices --json
grep -q '"refused": null' "$folder/out" || { echo "skipped: no device"; exit 77; }
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_k -o "$folder/dense.gguf" -q || fail synth
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_0 --architecture qwen3moe --experts 8 \
    --experts-used 2 --expert-ffn 256 -o "$folder/experts.gguf" -q || fail synth
"$program" synth --layers 2 --embedding 256 --ffn 1024 --vocab 512 --type q8_0 --ffn-activation relu --ffn-zeros 0.8 \
    --neuron-repeat 0.6 -o "$folder/sparse.gguf" -q || fail synth
for model in dense experts sparse; do
    for device in none opencl; do
        expect 0 run -m "$folder/$model.gguf" --raw -p "one two three four five" -n 12 --temp 0 --memory 2G -c 64 \
            --device $device -t 2 --device-always
        cp "$folder/out" "$folder/$device"
        grep 'the processor computes alone' "$folder/err" && { echo "skipped: no device that can be used"; exit 77; }
    done
    # Threads may be done before a device on a busy machine has begun.
    for try in 1 2 3 4 5 6 7 8; do
        grep -q '^devices  [1-9][0-9]* % of the weights.* bytes in .*: opencl:' "$folder/err" && break
        run run -m "$folder/$model.gguf" --raw -p "one two three four five" -n 12 --temp 0 --memory 2G -c 64 \
            --device opencl -t 1 --device-always
        [ $try != 8 ] || fail "$model: no line on what the device did, or it did nothing"
    done
    cmp -s "$folder/none" "$folder/opencl" || fail "$model: a device gives another text"
done
for try in 1 2 3 4 5 6 7 8; do
    expect 0 run -m "$folder/dense.gguf" --raw -p "one" -n 4 --temp 0 --memory 2G -c 64 --device opencl -t 1 \
        --device-always --device-share 1 --trace "$folder/trace"
    grep -q '"device opencl:[0-9]*"' "$folder/trace" && break
    [ $try != 8 ] || fail "no row of the device in the timeline"
done
expect 0 run -m "$folder/dense.gguf" --raw -p "one" -n 4 -np 3 --memory 2G -c 64 --device opencl --device-always
grep -q '^devices  [0-9]* % of the weights.* bytes in .*: opencl:' "$folder/err" || fail "of three answers no line on devices"
# Hot neurons, of a file of single neurons: half of each layer is the device's.
expect 0 prepare -m "$folder/sparse.gguf" -o "$folder/sparse.pi2" --layout neuron -q
for share in 0 0.5 1; do
    expect 0 run -m "$folder/sparse.pi2" --raw -p "one two three four five six seven eight nine ten" -n 12 --temp 0 \
        --memory 2G -c 64 --device opencl -t 2 --device-always --device-share $share --sparsity always \
        --trace "$folder/trace" --stats "$folder/stats"
    cp "$folder/out" "$folder/share_$share"
    [ "$share" = 0 ] || cmp -s "$folder/share_0" "$folder/share_$share" || fail "a share of $share changes the text"
done
for try in 1 2 3 4 5 6 7 8; do
    grep -q 'hot gate+up' "$folder/trace" && break
    run run -m "$folder/sparse.pi2" --raw -p "one two three four five six seven eight nine ten" -n 12 --temp 0 \
        --memory 2G -c 64 --device opencl -t 1 --device-always --device-share 1 --sparsity always \
        --trace "$folder/trace"
    [ $try != 8 ] || fail "no hot neurons in the timeline"
done
grep -q 'theirs by now: 100 % of each layer' "$folder/err" || fail "the report does not tell the share"
expect 0 machine --quick
expect 0 plan -m "$folder/dense.gguf" --memory 2G -c 64 --device opencl --device-share 0.25
grep -q '^devices  *opencl:.*25 % of each matrix with one token' "$folder/out" || fail "plan does not tell the share"
grep -q 'without them' "$folder/out" && fail "a speed without devices is told, though nothing was measured"
# What it is worth is measured: told, and left out where it does not pay, which may be so or not here.
expect 0 plan -m "$folder/dense.gguf" --memory 2G -c 64 --device opencl
grep -q '^devices .* opencl:[0-9].*times as fast with one token\|^ .* opencl:[0-9]*: matrices .*times as fast' "$folder/out" ||
    fail "plan does not tell what the device is worth"
expect 0 plan -m "$folder/dense.gguf" --memory 2G -c 64 --device opencl --device-always
grep -q '^ *without them [0-9.]* tokens/s of decoding' "$folder/out" || fail "plan does not tell the speed without it"
expect 0 plan -m "$folder/dense.gguf" --memory 2G -c 64 --device opencl --device-always --json
grep -q '"gain_with_tokens"' "$folder/out" && grep -q '"decode_without": {' "$folder/out" &&
    grep -q '"left_out": false' "$folder/out" || fail "the plan file does not tell what the device is worth"
expect_error 2 "lies outside" run -m "$folder/dense.gguf" -p x --device opencl --device-share 1.5
expect 0 run -m "$folder/dense.gguf" --raw -p "one two three four five" -n 12 --temp 0 --memory 2G -c 64 --device none
cp "$folder/out" "$folder/none"
expect 0 run -m "$folder/dense.gguf" --raw -p "one two three four five" -n 12 --temp 0 --memory 2G -c 64 --device opencl
cmp -s "$folder/none" "$folder/out" || fail "trying whether a device pays changes the text"
expect 0 run -m "$folder/dense.gguf" --raw -p "one" -n 4 --temp 0 --memory 2G -c 64 --device opencl:999
grep -q 'there is no device 999.*the processor computes alone' "$folder/err" || fail "nothing on a missing device"
expect_error 2 "there is no kind of device 'npu' (.*): .*--list-devices" run -m "$folder/dense.gguf" -p x --device npu
expect_error 2 "nothing behind the last comma" run -m "$folder/dense.gguf" -p x --device opencl,
expect_error 2 "must be a device's number" run -m "$folder/dense.gguf" -p x --device opencl:first
finish
