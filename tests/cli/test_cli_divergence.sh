#!/bin/sh
# Goal:   perplexity keeps logits and compares with them, in llama-perplexity's format; what cannot be compared is
#         refused in one line.
# Method: tiny models: one with itself, in other steps, with another type's weights, and with files that are cut,
#         changed, of another vocabulary, or no such file. The golden file was written by Debian sid's llama-perplexity
#         from this very model and text: llama-perplexity -m model.gguf -f text -c 16 --chunks 2 -t 1
#         --kl-divergence-base llama_perplexity.logits
. "$(dirname "$0")/cli_support.sh"
golden=$(dirname "$0")/../golden/llama_perplexity.logits
tiny model layers=2 context=256 type=Q8_0
tiny coarse layers=2 context=256 type=Q4_0
model=$folder/model.gguf
print_lines 60 "the hand and the other one are in line " "" >"$folder/text"

expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --json
plain=$(cat "$folder/out")
expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --json --kl-divergence-base "$folder/base.logits" -b 7
[ "$(cat "$folder/out")" = "$plain" ] || fail "keeping the logits changes the perplexity: $(cat "$folder/out")"
grep -q "base.logits: it will have [0-9.]* [kMG]*B" "$folder/err" || fail "no size is told: $(cat "$folder/err")"
expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --kl-divergence-base "$folder/again.logits" -t 1
cmp -s "$folder/base.logits" "$folder/again.logits" || fail "the same logits gave another file"

# With itself: what 16 bits do not tell apart is left.
for mode in "" "-b 5 -t 1" "-c 128"; do
    # shellcheck disable=SC2086
    expect 0 perplexity -m "$model" --kl-divergence --kl-divergence-base "$folder/base.logits" --json $mode
    [ "$mode" = "" ] && first=$(cat "$folder/out")
    [ "$(cat "$folder/out")" = "$first" ] || fail "with '$mode': $(cat "$folder/out"), not $first"
done
json kl_divergence | awk '{ exit !($1 < 1e-6 && $1 > -1e-6) }' || fail "a model diverges from itself by $(json kl_divergence)"
[ "$(json same_top)" = 1 ] || [ "$(json same_top)" = 1.0 ] || fail "same_top is $(json same_top)"
echo "$plain" >"$folder/out.plain"
[ "$("$json_get" tokens <"$folder/out.plain")" = "$(json tokens)" ] || fail "not the same tokens are compared"
[ "$("$json_get" chunks <"$folder/out.plain")" = "$(json chunks)" ] || fail "not the same chunks are compared"

# With the same weights in fewer bits: a divergence, whose percentiles ascend.
expect 0 perplexity -m "$folder/coarse.gguf" --kl-divergence --kl-divergence-base "$folder/base.logits" --json
json kl_divergence | awk '{ exit !($1 > 1e-4) }' || fail "Q4_0 diverges from Q8_0 by $(json kl_divergence) alone"
for field in kl_divergence_error same_top same_top_error perplexity perplexity_error perplexity_reference correlation \
    perplexity_ratio_error p_change p_change_rms kl_divergence_percentiles.50 p_change_percentiles.99; do
    expect_json "?$field" real
done
echo "$(json kl_divergence_percentiles.0) $(json kl_divergence_percentiles.50) $(json kl_divergence_percentiles.100)" |
    awk '{ exit !($1 <= $2 && $2 < $3) }' || fail "percentiles do not ascend: $(cat "$folder/out")"
expect 0 perplexity -m "$folder/coarse.gguf" --kl-divergence --kl-divergence-base "$folder/base.logits" --chunks 2 \
    -f "$folder/text"
grep -q '^tokens  *62 (2 chunks of 64)$' "$folder/out" || fail "$(cat "$folder/out")"
grep -q '^mean KL divergence  *[0-9.]* +/- [0-9.]* nats$' "$folder/out" || fail "$(cat "$folder/out")"
grep -q '^  *99.9 % ' "$folder/out" || fail "$(cat "$folder/out")"
grep -q "text is not read" "$folder/err" || fail "that -f is not read is not told: $(cat "$folder/err")"

# A file of llama-perplexity's, over this text and this model: its logits are ours but for its own arithmetic.
expect 0 perplexity -m "$model" --kl-divergence --kl-divergence-base "$golden" --json
expect_json tokens 14
json kl_divergence | awk '{ exit !($1 > 0 && $1 < 0.002) }' || fail "from llama.cpp we diverge by $(json kl_divergence)"
expect 0 perplexity -m "$model" -f "$folder/text" -c 16 --chunks 2 --kl-divergence-base "$folder/like.logits"
[ "$(wc -c <"$folder/like.logits")" = "$(wc -c <"$golden")" ] || fail "our file has another size"
# Magic, numbers and tokens are the same bytes.
head -c 148 "$folder/like.logits" >"$folder/like.head"
head -c 148 "$golden" | cmp -s - "$folder/like.head" || fail "our file begins otherwise than llama-perplexity's"

# What cannot be compared, or kept.
against() { expect_error "$1" "$2" perplexity -m "$model" --kl-divergence --kl-divergence-base "$folder/$3"; }
head -c 5000 "$folder/base.logits" >"$folder/cut.logits"
against 3 "cut.logits: 5000 bytes, but .* was not written to its end" cut.logits
against 3 "text: this is no file of logits" text
against 5 "none.logits: No such file" none.logits
cp "$folder/base.logits" "$folder/token.logits"
printf '\377\377\377\177' | dd of="$folder/token.logits" bs=1 seek=24 conv=notrunc 2>/dev/null
against 3 "token 2147483647 at byte 24 is not one of" token.logits
expect_error 2 "exclude each other" perplexity -m "$model" --kl-divergence --kl-divergence-base "$folder/base.logits" \
    --count-zeros
expect_error 2 "name it with --kl-divergence-base" perplexity -m "$model" --kl-divergence
expect_error 2 "chunks have 64 tokens, and the context 32" perplexity -m "$model" --kl-divergence \
    --kl-divergence-base "$folder/base.logits" -c 32
expect_error 2 "chunks 0" perplexity -m "$model" --kl-divergence --kl-divergence-base "$folder/base.logits" --chunks 0
"$program" synth --layers 1 --embedding 64 --heads 2 --kv-heads 2 --ffn 64 --vocab 512 --context 64 --type q8_0 \
    -o "$folder/other.gguf" -q || fail synth
expect_error 3 "logits of [0-9]* tokens, and .*other.gguf has a vocabulary of [0-9]*" perplexity -m "$folder/other.gguf" \
    --kl-divergence --kl-divergence-base "$folder/base.logits"
expect_error 2 "is no regular file" perplexity -m "$model" -f - -c 64 --kl-divergence-base "$folder/new.logits"
cp "$folder/text" "$folder/text2"
expect_error 2 "text2 is there and is not a file of logits" perplexity -m "$model" -f "$folder/text" -c 64 \
    --kl-divergence-base "$folder/text2"
expect_error 2 "is an input of this command" perplexity -m "$model" -f "$folder/text" -c 64 --kl-divergence-base "$model"
echo "too short" >"$folder/short"
expect_error 2 "are too few" perplexity -m "$model" -f "$folder/short" -c 64 --kl-divergence-base "$folder/new.logits"
[ -e "$folder/new.logits" ] && fail "a text that is too short left a file"
[ -z "$(find "$folder" -name '.*.tmp')" ] || fail "left behind: $(find "$folder" -name '.*.tmp')"
finish
