#!/bin/sh
# Goal:   'guesses --shortcut' makes a shortcut that 'run -md' takes, with the same text; it replaces no file of another
#         kind, and leaves nothing behind where it fails or is interrupted; options that are wrong are named.
# Method: a tiny random model; in place of a full disk a limit on the size of files.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=4 feed_forward=512 context=512
model=$folder/model.gguf map=$folder/model.shortcut

expect_error 2 "layers" guesses -m "$model" --shortcut --layers 3
expect_error 2 "layers" guesses -m "$model" --shortcut --layers 3,3
expect_error 2 "shortcut" guesses -m "$model" --layers 1,3
expect_error 2 "shortcut" guesses -m "$model" -o "$map"
expect_error 2 "cannot be left out" guesses -m "$model" --shortcut --layers 1,9
echo "no shortcut" >"$map"
expect_error 2 "model.shortcut" guesses -m "$model" --shortcut --tokens 20
grep -qx "no shortcut" "$map" || fail "a file of another kind was replaced"
rm "$map"
(
    ulimit -f 8
    trap '' XFSZ
    expect_error 5 "model.shortcut" guesses -m "$model" --shortcut --tokens 20
    [ "$failures" = 0 ]
) || fail "no line on a file that could not be written"
[ -z "$(find "$folder" -name '*shortcut*')" ] || fail "a file that could not be written is left behind"

expect 0 guesses -m "$model" --shortcut --tokens 300
grep -q "model.shortcut: the shortcut is made of [0-9]* tokens; 2 of 4 layers" "$folder/err" || fail "no line on it"
grep -q "tokens of other answers it names [0-9]* % first" "$folder/err" || fail "nothing was counted"
[ "$(head -c 4 "$map")" = GGUF ] || fail "no shortcut"
echo "the hand and the house and the hand" >"$folder/text"
expect 0 guesses -m "$model" --shortcut --tokens 20 --layers 2,3 -o "$folder/other.shortcut" -f "$folder/text"
grep -q "3 of 4 layers.*without layers 2 to 2" "$folder/err" || fail "other layers are not told of"
[ -s "$folder/other.shortcut" ] || fail "no shortcut where it was asked for"
expect 0 run -m "$model" -p "the hand" -n 24 --temp 0 --ignore-eos --json --draft-max 0
tokens=$(json tokens)
expect 0 run -m "$model" -p "the hand" -n 24 --temp 0 --ignore-eos --json -md "$map" --draft-always
expect_json tokens "$tokens"
grep -q '"self"' "$folder/out" || fail "it does not guess"
# Beside the model it is found where weights stream, or one insists; what is wrong with it is a line.
answer() { # answer OPTIONS...: the same text
    expect 0 run -m "$model" -p "the hand" -n 24 --temp 0 --ignore-eos --json "$@"
    expect_json tokens "$tokens"
}
answer
grep -q "shortcut" "$folder/err" "$folder/out" && fail "it is spoken of where all is in memory"
answer --draft-always
grep -q '"self"' "$folder/out" || fail "it is not found"
answer --draft-always --draft-max 0
grep -q '"self"' "$folder/out" && fail "it guesses where nothing shall"
head -c 3000 "$map" >"$folder/cut" && mv "$folder/cut" "$map"
answer --draft-always
grep -q "model.shortcut is left out" "$folder/err" || fail "no line on one that was cut"
expect 3 run -m "$model" -p "the hand" -n 4 -md "$map"
cp "$folder/other.shortcut" "$map"
printf '\377\177\377\177' | dd of="$map" bs=1 seek=3000 conv=notrunc 2>"$folder/dd" # NaN
answer --draft-always
grep -q "model.shortcut is left out: .*a number that is none" "$folder/err" || fail "no line on numbers that are none"
expect 0 guesses -m "$model" --shortcut --tokens 20 # one that is there is replaced
tiny model layers=4 feed_forward=768 context=512
expect 0 run -m "$model" -p "the hand" -n 4 --draft-always
grep -q "left out: .*made of another model" "$folder/err" || fail "no line on another model's"
expect_error 2 "made of another model" run -m "$model" -p "the hand" -n 4 -md "$map"
finish
