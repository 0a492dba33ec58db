#!/bin/sh
# Goal:   wrong command lines give exit code 2, one line that helps, and nothing on stdout; --help
#         names every option.
# Method: the program without any model.
. "$(dirname "$0")/cli_support.sh"

expect 2
[ -s "$folder/out" ] && fail "usage without arguments went to stdout"
expect 0 --help
cp "$folder/out" "$folder/help"
for command in run serve prepare inspect tokenize perplexity bench; do
    grep -q "^  $command " "$folder/help" || fail "--help does not name $command"
    expect 0 "$command" --help
    grep -q "^Usage: powerinfer2 $command" "$folder/out" || fail "$command --help"
    [ -s "$folder/err" ] && fail "$command --help wrote to stderr"
    cp "$folder/out" "$folder/help_$command"
    expect 0 help "$command"
    cmp -s "$folder/out" "$folder/help_$command" || fail "help $command differs from $command --help"
    # An option that help names is one that the parser knows: the two use one table. Here it is
    # enough that help is wrapped and has no empty description.
    expect_error 2 "no model" "$command"
    expect_error 2 "unknown option '--no-such-thing'" "$command" --no-such-thing
    expect_error 2 "unexpected argument 'word'" "$command" word
    expect_error 2 "needs an argument" "$command" -m
done
expect 0 --version
grep -q '^powerinfer2 [0-9]' "$folder/out" || fail "--version"

for option in -m -p -f -n -c -t -b -s --seed --temp --top-k --top-p --min-p --repeat-penalty \
    --repeat-last-n --presence-penalty --frequency-penalty -ctk -ctv --ignore-eos -r --reverse-prompt -sys -e \
    -no-cnv --raw --no-display-prompt --memory --read-method --cluster-file --no-prepare --json --color -ngl \
    --predict --ctx-size --threads --batch-size -fa --mlock --no-mmap; do
    grep -q -e "[ ,]$option\\([ ,]\\|\$\\)" "$folder/help_run" || fail "run --help does not name $option"
    checks=$((checks + 1))
done
for option in -m -f -c --chunks --json --memory; do
    grep -q -e "[ ,]$option\\([ ,]\\|\$\\)" "$folder/help_perplexity" || fail "perplexity --help: $option"
done
for option in -m -p -n -r -t -c -o --memory; do
    grep -q -e "[ ,]$option\\([ ,]\\|\$\\)" "$folder/help_bench" || fail "bench --help: $option"
done
grep -q 'default: 0.8' "$folder/help_run" || fail "run --help has no defaults"
grep -q 'LLAMA_ARG_MODEL' "$folder/help_run" || fail "run --help names no environment variable"

expect_error 2 "did you mean 'tokenize'" tokenise
expect_error 2 "unknown command 'frobnicate'" frobnicate
expect_error 2 "did you mean '--memory'" run -m x -p y --memry 64M
expect_error 2 "did you mean '--temp'" run --tmep 0
expect_error 2 "not a whole number" run -m x -p y -n ten
expect_error 2 "not a whole number" run -m x -p y -c 12x
expect_error 2 "lies outside" run -m x -p y -c -5
expect_error 2 "not a whole number" run -m x -p y -n 99999999999999999999
expect_error 2 "not a number" run -m x -p y --temp hot
expect_error 2 "not a number" run -m x -p y --temp nan
expect_error 2 "no size" run -m x -p y --memory 12Q
expect_error 2 "no size" run -m x -p y --memory -1
expect_error 2 "none of" run -m x -p y --read-method mmap
expect_error 2 "same type" run -m x -p y -ctk q8_0
expect_error 2 "exclude each other" run -m x -p y -f z
expect_error 2 "takes no argument" run -m x -p y --json=yes
expect_error 2 "either -p or -f" tokenize -m x
expect_error 2 "either -p or -f" tokenize -m x -p a -f b
expect_error 2 "no text" perplexity -m x
expect_error 2 "not a list" bench -m x -p 1,,2
expect_error 2 "two numbers" bench -m x -pg 5
# The environment stands in for options, and is checked like them.
LLAMA_ARG_CTX_SIZE=many
export LLAMA_ARG_CTX_SIZE
expect_error 2 "LLAMA_ARG_CTX_SIZE: 'many'" run -m x -p y
unset LLAMA_ARG_CTX_SIZE
# Options of llama.cpp that mean nothing here are taken with a warning, or silently.
run run -m "$folder/missing.gguf" -p y -ngl 99 --mlock -fa on --color --jinja
grep -q "warning: -ngl has no effect here: .*--device NAME" "$folder/err" || fail "-ngl does not warn, or what does it"
grep -q 'warning: --mlock has no effect' "$folder/err" || fail "--mlock does not warn"
grep -q 'warning: .*color' "$folder/err" && fail "--color warns"
grep -q 'missing.gguf' "$folder/err" || fail "-fa took the wrong argument"
expect_error 2 "powerinfer2 machine --list-devices" run --list-devices
# Those of guessing ahead have llama.cpp's newer names too, and their variables; what asks for a draft model's share of
# other machines has no effect. A name that only looks like one of ours is not proposed where something else is here.
run run -m "$folder/missing.gguf" -p y -ngld 99 -devd none -td 2 -ctkd q8_0 -cd 512 --spec-type draft-mtp -fit on \
    --spec-ngram-mod-n-min 4 -lcs x --spec-draft-p-split 0.1 -kvu -cram 100 --swa-full
for option in -ngld -devd -td -ctkd -cd --spec-type --spec-ngram-mod-n-min -lcs --spec-draft-p-split -kvu -cram \
    --swa-full; do
    grep -q "warning: $option has no effect here" "$folder/err" || fail "$option does not warn"
done
grep -q -- '-fit' "$folder/err" && fail "-fit warns"
grep -q "warning: --spec-type .*run --draft-max 0" "$folder/err" || fail "--spec-type does not say what decides"
grep -q 'missing.gguf' "$folder/err" || fail "one of them took the wrong argument"
expect_error 2 "--spec-draft-n-max: 'x' is not" run -m x -p y --spec-draft-n-max x
expect_error 2 "--spec-draft-n-min: 'x' is not" run -m x -p y --spec-draft-n-min x
expect_error 2 "--spec-draft-p-min: 2 lies outside" run -m x -p y --spec-draft-p-min 2
expect_error 5 "missing.gguf" run -m "$folder/missing.gguf" -p y --spec-draft-model x
LLAMA_ARG_DRAFT_MAX=old LLAMA_ARG_SPEC_DRAFT_N_MAX=new
export LLAMA_ARG_DRAFT_MAX LLAMA_ARG_SPEC_DRAFT_N_MAX
expect_error 2 "SPEC_DRAFT_N_MAX: 'new'" run -m x -p y
LLAMA_ARG_SPEC_DRAFT_N_MAX=
expect_error 2 "LLAMA_ARG_DRAFT_MAX: 'old'" run -m x -p y
unset LLAMA_ARG_DRAFT_MAX LLAMA_ARG_SPEC_DRAFT_N_MAX
expect_error 2 "run -md FILE" run -m x -p y -hfd a/b
expect_error 2 "eval --hellaswag FILE" perplexity -m x -f y --hellaswag
expect_error 2 "eval --multiple-choice FILE" perplexity -m x -bf y
expect_error 2 "run --prompt-cache FOLDER" run -m x --prompt-cache-ro=1
# The argument of an option is text, whatever it reads like; as a word of its own it asks for help.
for word in -h --help; do
    for arguments in "-p $word" "-p a -r $word" "-p a -sys $word" "--prompt $word"; do
        # shellcheck disable=SC2086
        expect_error 5 "missing.gguf" run -m "$folder/missing.gguf" $arguments
    done
    expect_error 5 "missing.gguf" tokenize -m "$folder/missing.gguf" -p $word
    expect_error 5 "$folder/missing" perplexity -m $word -f "$folder/missing"
    expect 0 run -m "$folder/missing.gguf" -p $word $word
    grep -q '^Usage: powerinfer2 run' "$folder/out" || fail "$word behind an option's text gives no help"
done
# Quiet holds for warnings about options too, wherever it stands; as an option's text it means nothing.
for quiet in -q --quiet --log-disable; do
    expect_error 5 "missing.gguf" run -ngl 99 -m "$folder/missing.gguf" -p y --mlock $quiet
    [ "$(wc -l <"$folder/err")" = 1 ] || fail "$quiet does not silence: $(cat "$folder/err")"
done
run run -ngl 99 -m "$folder/missing.gguf" -p -q
grep -q 'warning: -ngl' "$folder/err" || fail "a prompt that reads -q silences"
finish
