#!/bin/sh
# Goal:   tokenize takes text byte for byte and prints ids on one line.
# Method: tiny vocabularies whose ids are known: BPE has 3 special tokens, then a token for each
#         byte in order, so that byte B is token 3 + B; SPM has <unk>, <s>, </s>, then the bytes.
. "$(dirname "$0")/cli_support.sh"
tiny bpe vocabulary=bpe
tiny spm vocabulary=spm
bpe=$folder/bpe.gguf
spm=$folder/spm.gguf

expect 0 tokenize -m "$bpe" -p "XYZ"
expect_text "$folder/out" "91 92 93"
expect 0 tokenize -m "$bpe" -p ""
expect_text "$folder/out" ""
expect 0 tokenize -m "$spm" -p ""
expect_text "$folder/out" ""
expect 0 tokenize -m "$bpe" -p 'X\n'
expect_text "$folder/out" "91 95 113" # no escapes
expect 0 tokenize -m "$bpe" -p "<|im_end|>" --parse-special
expect_text "$folder/out" "2"
run tokenize -m "$bpe" -p "<|im_end|>"
case " $(cat "$folder/out") " in *" 2 "*) fail "a special token came from plain text" ;; esac

# NUL bytes, a final newline, bytes that are no UTF-8: all of them count.
printf 'X\000Z\n' >"$folder/text"
expect 0 tokenize -m "$bpe" -f "$folder/text"
expect_text "$folder/out" "91 3 93 13"
: >"$folder/text"
expect 0 tokenize -m "$bpe" -f "$folder/text"
expect_text "$folder/out" ""
printf '\377\300' >"$folder/text"
expect 0 tokenize -m "$spm" -f "$folder/text" --no-bos
case $(cat "$folder/out") in *"258 195") ;; *) fail "byte fallback: $(cat "$folder/out")" ;; esac

# In parts and at once: longer than a part, every byte, with a mark at the beginning and a newline at the end.
text=$(awk 'BEGIN { for (i = 0; i < 900; i++) printf "the hand of %d, ", i * 7 }')
printf '\357\273\277%s\n' "$text" >"$folder/text"
for vocabulary in "$bpe" "$spm"; do
    expect 0 tokenize -m "$vocabulary" -p "$(cat "$folder/text")
.
" --no-bos
    cp "$folder/out" "$folder/whole"
    printf '.\n' >>"$folder/text"
    expect 0 tokenize -m "$vocabulary" -f "$folder/text" --no-bos
    cmp -s "$folder/out" "$folder/whole" || fail "a file has other tokens than the same text at once"
    printf '\357\273\277%s\n' "$text" >"$folder/text"
done
checks=$((checks + 1))
yes 'the hand' | timeout 60 "$program" tokenize -m "$bpe" -f - 2>/dev/null | head -c 100000 >"$folder/out"
[ "$(wc -c <"$folder/out")" = 100000 ] || fail "a text without an end gives no ids"

expect 0 tokenize -m "$spm" -p "A"
case $(cat "$folder/out") in "1 "*) ;; *) fail "no beginning-of-sequence token: $(cat "$folder/out")" ;; esac
expect 0 tokenize -m "$spm" -p "A" --no-bos
case $(cat "$folder/out") in "1 "*) fail "--no-bos left the token" ;; esac

# A prompt goes on: its end token is printed only when asked for, and where the model was trained with one.
tiny ends vocabulary=spm add_eos=1
expect 0 tokenize -m "$folder/ends.gguf" -p "A"
case $(cat "$folder/out") in *" 2") fail "an end token behind a prompt: $(cat "$folder/out")" ;; esac
expect 0 tokenize -m "$folder/ends.gguf" -p "A" --eos
case $(cat "$folder/out") in "1 "*" 2") ;; *) fail "--eos: $(cat "$folder/out")" ;; esac
expect 0 tokenize -m "$spm" -p "A" --eos
case $(cat "$folder/out") in *" 2") fail "--eos without add_eos_token: $(cat "$folder/out")" ;; esac
# Two beginnings are told.
expect 0 tokenize -m "$spm" -p "<s>A" --parse-special
grep -q 'warning: .*beginning-of-sequence' "$folder/err" || fail "two beginnings are not told"
expect 0 tokenize -m "$spm" -p "<s>A" --parse-special --no-bos
[ -s "$folder/err" ] && fail "a warning about one beginning: $(cat "$folder/err")"

checks=$((checks + 1))
printf 'XYZ' | "$program" tokenize -m "$bpe" -f - >"$folder/out" || fail "text from stdin"
expect_text "$folder/out" "91 92 93"
expect_error 5 "$folder/none" tokenize -m "$bpe" -f "$folder/none"
expect_error 5 "$folder" tokenize -m "$bpe" -f "$folder"
LLAMA_ARG_MODEL=$bpe
export LLAMA_ARG_MODEL
expect 0 tokenize -p X
expect_text "$folder/out" "91"
expect 0 tokenize -m "$spm" -p X --no-bos # the command line wins
[ "$(cat "$folder/out")" = 91 ] && fail "the environment won over the command line"

# The folder of known vocabularies, where it is at hand.
if [ -n "${PI2_TEST_DATA:-}" ] && [ -d "$PI2_TEST_DATA/vocab" ]; then
    expect 0 tokenize -m "$PI2_TEST_DATA/vocab/ggml-vocab-llama-bpe.gguf" -p "Hello world" --no-bos
    expect_text "$folder/out" "9906 1917"
else
    echo "SKIPPED: vocabularies (PI2_TEST_DATA is not set)"
fi
finish
