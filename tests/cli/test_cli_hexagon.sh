#!/bin/sh
# Goal:   with a Hexagon DSP beside the processor the text is the same, dense, with experts and by neuron; it is told what
#         the DSP did; and one that is lost in the middle leaves the text as it is.
# Method: small synthetic models and the emulated DSP (PI2_HEXAGON_EMULATOR, PI2_HEXAGON_PROGRAM; skipped without), then
#         one whose emulator is ended after a moment.
. "$(dirname "$0")/cli_support.sh"
[ -n "${PI2_HEXAGON_EMULATOR:-}" ] && [ -n "${PI2_HEXAGON_PROGRAM:-}" ] || {
    echo "skipped: no Hexagon emulator or program (make hexagon)"
    exit 77
}
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_0 -o "$folder/dense.gguf" -q || fail synth
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 512 --type q4_0 --architecture qwen3moe --experts 8 \
    --experts-used 2 --expert-ffn 256 -o "$folder/experts.gguf" -q || fail synth
"$program" synth --layers 2 --embedding 256 --ffn 1024 --vocab 512 --type q8_0 --ffn-activation relu --ffn-zeros 0.8 \
    --neuron-repeat 0.6 -o "$folder/sparse.gguf" -q || fail synth
answer() { # answer MODEL DEVICE [OPTION...]: on the standard output of the program
    model=$1
    device=$2
    shift 2
    expect 0 run -m "$folder/$model.gguf" --raw -p "one two three four five" -n 12 --temp 0 --memory 2G -c 64 \
        --device "$device" -t 2 "$@"
}
for model in dense experts sparse; do
    answer $model none
    cp "$folder/out" "$folder/none"
    for try in 1 2 3 4 5 6 7 8; do # threads may be done before an emulator on a busy machine has begun
        answer $model hexagon --device-memory 1M --device-always --device-share 0.3
        grep -q '^devices  [1-9][0-9]* % of the weights.* bytes in .*: hexagon:0' "$folder/err" && break
        [ $try != 8 ] || fail "$model: no line on what the DSP did, or it did nothing"
    done
    cmp -s "$folder/none" "$folder/out" || fail "$model: the DSP gives another text"
done
answer dense none -n 60
cp "$folder/out" "$folder/none"
emulator=$PI2_HEXAGON_EMULATOR
PI2_HEXAGON_EMULATOR="$folder/short-lived"
export PI2_HEXAGON_EMULATOR
for life in 0.2 0.1 0.3 0.05 0.15 0.5 1; do # of the DSP's process: in the midst of a run, however fast the machine
    printf '#!/bin/sh\nexec timeout -s KILL %s "%s" "$@"\n' $life "$emulator" >"$folder/short-lived"
    chmod +x "$folder/short-lived"
    answer dense hexagon -n 60 --device-always
    cmp -s "$folder/none" "$folder/out" || fail "a DSP that is lost after $life s gives another text"
    grep -q "device 'hexagon:0' is lost.*with the same text" "$folder/err" && break
    grep -q "the Hexagon DSP's process .*computes alone" "$folder/err" && break
    [ $life != 1 ] || fail "nothing on a DSP that is lost"
done
PI2_HEXAGON_PROGRAM=''
expect 0 run -m "$folder/dense.gguf" --raw -p "one" -n 4 --temp 0 --memory 2G -c 64 --device hexagon
grep -q 'PI2_HEXAGON_PROGRAM does not say.*computes alone' "$folder/err" || fail "nothing on a setting that is missing"
finish
