#!/bin/sh
# Goal:   a table of next tokens changes no text, and is told of by name; one that is damaged or another model's
#         is passed over; making it replaces no file of another kind, and leaves nothing behind where it fails.
# Method: a tiny random model. What the table says: test_next_table.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 feed_forward=512 context=256
model=$folder/model.gguf table=$folder/model.next-tokens

answer() { # answer OPTIONS...: one text for all of them
    expect 0 run -m "$model" -p "the hand" -n 24 --temp "$temperature" -s 5 --ignore-eos --json "$@"
}
echo "no table" >"$table"
expect_error 2 "model.next-tokens" guesses -m "$model"
grep -qx "no table" "$table" || fail "a file of another kind was replaced"
temperature=0
answer --draft-max 0
tokens=$(json tokens)
answer
expect_json tokens "$tokens"
grep -q "make it again" "$folder/err" || fail "no line on a file that is no table"
rm "$table"

expect 0 guesses -m "$model"
grep -q "model.next-tokens: the table is made" "$folder/err" || fail "the table is not told of"
[ "$(head -c 8 "$table")" = PI2NEXT2 ] || fail "no table"
cp "$table" "$folder/first"
expect 0 guesses -m "$model" -t 1 --memory 1G
cmp "$table" "$folder/first" || fail "the table hangs on the threads"
for temperature in 0 0.8; do
    answer --draft-max 0
    tokens=$(json tokens)
    for threads in 1 2; do
        answer -t "$threads" --draft-always
        expect_json tokens "$tokens"
        expect_json drafters.0.name ngram
        expect_json drafters.1.name tree
        answer -t "$threads"
        expect_json tokens "$tokens"
    done
done

# Damaged, cut short, another model's, of the first version: a line, and the text stays.
dd if="$folder/first" of="$table" bs=1 count=40 2>"$folder/dd" && tail -c +41 "$folder/first" | tr '\001' '\002' >>"$table"
answer
expect_json tokens "$tokens"
cmp -s "$table" "$folder/first" || grep -q "this table is damaged: make it again" "$folder/err" || fail "no line on damage"
for bytes in 0 7 31 32 100; do
    head -c "$bytes" "$folder/first" >"$table"
    answer
    expect_json tokens "$tokens"
    grep -q "make it again" "$folder/err" || fail "no line on a table of $bytes bytes"
done
{ printf PI2NEXT1; tail -c +9 "$folder/first"; } >"$table"
answer
expect_json tokens "$tokens"
grep -q "another version: make it again" "$folder/err" || fail "no line on an old table"
expect 0 guesses -m "$model"
cmp "$table" "$folder/first" || fail "an old table is not replaced"
tiny model layers=1 feed_forward=512 context=256
answer
grep -q "another model's: make it again" "$folder/err" || fail "no line on another model's table"
finish
