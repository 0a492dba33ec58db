#!/bin/sh
# Goal:   profile counts texts into statistics, goes on where it ended, adds files exactly, and refuses what does not
#         belong together in one line; an interrupted count keeps what it counted; with its statistics prepare gives
#         a file with the same text and more hits in memory.
# Method: small synthetic models with planted hot neurons; two texts; files compared byte for byte.
. "$(dirname "$0")/cli_support.sh"
model=$folder/model.gguf
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 1024 --ffn-activation relu --ffn-zeros 0.85 \
    --neuron-hot 0.35 --neuron-repeat 0.5 -o "$model" -q || fail synth
print_lines 60 "the " ". line of a text, and some words" >"$folder/one"
print_lines 60 "" ": other words go on here." >"$folder/two"
count() { # count OUTPUT ARGUMENTS...
    output=$1
    shift
    expect 0 profile -m "$model" -c 128 -o "$folder/$output" "$@"
}

# same FILE OTHER
same() {
    checks=$((checks + 1))
    cmp -s "$folder/$1" "$folder/$2" || fail "$1 and $2 differ"
}

count all -f "$folder/one" "$folder/two"
grep -Eq '^mean +8[3-9]\.[0-9] %' "$folder/out" || fail "not 85 % zeros"
grep -q '^1: 1[2-6]\.[0-9] %, 2: .*, 32: [4-8][0-9]' "$folder/out" || fail "no shares of tokens together"
grep -q 'all: [1-9][0-9]* tokens are counted' "$folder/err" || fail "it is not told what was counted"
small=60M
ldd "$program" | grep -q 'lib[atu]*san' && small=1G # a sanitizer's memory fits no budget
count all -f "$folder/one" -f "$folder/two" --json -t 1 --memory $small
expect_json '#layers' 2
expect_json '#mean.in_batch' 5
expect_json '#batches' 5
expect_json '#mean.magnitude_by_rank' 10
total=$(json token_count)

# In parts, and by several processes.
count part -f "$folder/one" --tokens 200 --json
expect_json token_count 256
count part -f "$folder/one" --tokens 300 --resume --json
expect_json token_count 384
count part -f "$folder/two" "$folder/one" --resume --json
expect_json token_count "$total"
same part all
count first -f "$folder/one"
count second -f "$folder/two" -b 16
expect 0 profile --merge "$folder/second" "$folder/first" -o "$folder/merged" --json
expect_json token_count "$total"
same merged all

# Three processes at once share both texts; what does not fit together is refused.
pids=
for part in 1 2 3; do
    "$program" profile -m "$model" -c 128 -f "$folder/one" "$folder/two" --part $part/3 -t 1 -o "$folder/part$part" \
        >/dev/null 2>"$folder/err$part" </dev/null &
    pids="$pids $!"
done
for pid in $pids; do
    wait "$pid"
    code=$?
    checks=$((checks + 1))
    [ $code = 0 ] || fail "a part ends with $code: $(cat "$folder"/err?)"
done
expect 0 profile --merge "$folder/part3" "$folder/part1" -o "$folder/merged" --json
[ "$(json token_count)" -lt "$total" ] || fail "two of three parts are all"
expect_error 2 "both counted a part of a text" profile --merge "$folder/merged" "$folder/part1" -o "$folder/never"
expect_error 2 "both counted a text" profile --merge "$folder/merged" "$folder/all" -o "$folder/never"
expect 0 profile --merge "$folder/part2" "$folder/merged" -o "$folder/shared" --json
expect_json token_count "$total"
same shared all
expect_error 2 "counted other parts of" profile -m "$model" -c 128 -f "$folder/one" --part 2/3 --resume -o "$folder/part1"
count part1 -f "$folder/two" "$folder/one" --part 1/3 --resume
for wrong in 0/3 4/3 1/65 3 1/ /2 1/2/3 -1/2 1/2x; do
    expect_error 2 "part wants K/N" profile -m "$model" -f "$folder/one" --part $wrong -o "$folder/never"
done
expect_error 2 "leave out -f" profile --merge "$folder/first" "$folder/second" --part 1/2 -o "$folder/never"

# Plots: the commands and their data; the picture by whatever gnuplot is in the PATH.
bin=$folder/bin
mkdir "$bin"
PATH_before=$PATH
cat >"$bin/gnuplot" <<'FAKE'
#!/bin/sh
[ $# = 1 ] && head -n 1 "$1" | grep -q '^# powerinfer2: neurons' || exit 1
printf '<?xml version="1.0"?>\n<svg>%s</svg>\n' "$(grep -c . "$1")"
FAKE
chmod +x "$bin/gnuplot"
PATH=$bin:$PATH
expect 0 profile --merge "$folder/first" "$folder/second" -o "$folder/merged" --plot "$folder/plot"
grep -q 'plot.gnuplot, .*plot.svg: the plot$' "$folder/err" || fail "it is not told where the plot is"
sed -n 2p "$folder/plot.svg" | grep -q 'powerinfer2: neurons' || fail "the picture has no remark"
sed -n 3p "$folder/plot.svg" | grep -q '^<svg>[0-9]*</svg>$' || fail "the picture is not gnuplot's"
for block in by_rank layers batches; do
    grep -q "^\$$block << EOD\$" "$folder/plot.gnuplot" || fail "no data $block"
done
[ "$(sed -n '/^\$layers/,/^EOD/p' "$folder/plot.gnuplot" | grep -c '^[01] 8[0-9]\.')" = 2 ] || fail "not two layers"
[ "$(sed -n '/^\$by_rank/,/^EOD/p' "$folder/plot.gnuplot" | grep -c '^[0-9]')" = 12 ] || fail "not twelve ranks"
[ "$(sed -n '/^\$batches/,/^EOD/p' "$folder/plot.gnuplot" | grep -c '^[0-9]')" = 5 ] || fail "not five batches"
count plotted -f "$folder/one" "$folder/two" --plot "$folder/plot" # both are replaced
same plotted all
printf 'my notes\n' >"$folder/notes.svg"
cp "$folder/notes.svg" "$folder/notes.gnuplot"
rm -f "$folder/never"
expect_error 2 "notes.gnuplot is there and is no" profile -m "$model" -f "$folder/one" -o "$folder/never" \
    --plot "$folder/notes"
rm "$folder/notes.gnuplot"
expect_error 2 "notes.svg is there and is no" profile --merge "$folder/first" "$folder/second" -o "$folder/never" \
    --plot "$folder/notes"
expect_error 2 "a file of the plot" profile --merge "$folder/first" "$folder/second" -o "$folder/in.svg" \
    --plot "$folder/in"
[ -e "$folder/in.svg" ] && fail "what the plot would replace was written"
expect_error 5 "absent" profile --merge "$folder/first" "$folder/second" -o "$folder/merged" --plot "$folder/absent/x"
[ -e "$folder/never" ] && fail "what comes after a plot that cannot be written was done"
printf '#!/bin/sh\necho half a picture\nexit 3\n' >"$bin/gnuplot"
cp "$folder/plot.svg" "$folder/plot.before"
expect_error 5 "gnuplot did not draw" profile --merge "$folder/first" "$folder/second" -o "$folder/merged" \
    --plot "$folder/plot"
same plot.svg plot.before
mkdir "$folder/empty_bin"
PATH=$folder/empty_bin run_without=$("$program" profile --merge "$folder/first" "$folder/second" -o "$folder/merged" \
    --plot "$folder/undrawn" 2>&1) || fail "without gnuplot: $run_without"
PATH=$PATH_before
echo "$run_without" | grep -q "undrawn.gnuplot: the plot; gnuplot, which draws it, is not installed" ||
    fail "it is not told that gnuplot is missing"
[ -s "$folder/undrawn.gnuplot" ] && [ ! -e "$folder/undrawn.svg" ] || fail "without gnuplot: the wrong files"
ls -A "$folder" | grep -q '\.tmp$' && fail "a temporary file is left"
if command -v gnuplot >/dev/null; then
    expect 0 profile --merge "$folder/first" "$folder/second" -o "$folder/merged" --plot "$folder/real"
    head -c 5 "$folder/real.svg" | grep -q '<?xml' || fail "gnuplot's own picture is none"
    [ "$(wc -c <"$folder/real.svg")" -gt 20000 ] || fail "gnuplot's own picture is empty"
fi

# An end that is asked for: whole chunks are kept, or nothing is there yet; going on gives the whole.
i=0
while [ $i -lt 5 ]; do
    cat "$folder/one" "$folder/two" >>"$folder/long"
    i=$((i + 1))
done
count whole -f "$folder/long" -t 1
"$program" profile -m "$model" -c 128 -f "$folder/long" -t 1 -b 1 -o "$folder/ended" >/dev/null 2>"$folder/err" </dev/null &
pid=$!
sleep 0.3
kill -INT $pid
wait $pid
code=$?
checks=$((checks + 1))
[ $code = 130 ] || [ $code = 0 ] || fail "exit code $code after SIGINT"
ls -A "$folder" | grep -q '\.tmp$' && fail "a temporary file is left"
if [ $code = 130 ] && [ -e "$folder/ended" ]; then
    grep -q "tokens are counted; 'profile --resume' goes on" "$folder/err" || fail "it is not said how to go on"
fi
count ended -f "$folder/long" -t 1 --resume
same ended whole

# What does not belong together: one line, and nothing is written.
"$program" synth --layers 2 --embedding 256 --ffn 256 --vocab 1024 --ffn-activation relu -o "$folder/other.gguf" -q
expect 0 profile -m "$folder/other.gguf" -c 128 -f "$folder/one" -o "$folder/other"
cp "$folder/all" "$folder/kept"
never=$folder/never
expect_error 3 "different models" profile --merge "$folder/first" "$folder/other" -o "$never"
expect_error 2 "both counted a text" profile --merge "$folder/first" "$folder/all" -o "$never"
expect_error 2 "at least two" profile --merge "$folder/first" -o "$never"
expect_error 2 "is an input" profile --merge "$folder/first" "$folder/second" -o "$folder/first"
expect_error 2 "leave out -f" profile --merge "$folder/first" "$folder/second" -f "$folder/one" -o "$never"
expect_error 3 "different models" profile -m "$folder/other.gguf" -c 128 -f "$folder/one" -o "$folder/all" --resume
expect_error 2 "different lengths of chunks" profile -m "$model" -c 64 -f "$folder/one" -o "$folder/all" --resume
expect_error 2 "different activations" profile -m "$model" -c 128 --ffn-activation drelu -f "$folder/one" \
    -o "$folder/all" --resume
expect_error 3 "statistics of another model" prepare -m "$model" --layout neuron --statistics "$folder/other" -o "$never"
head -c 400 "$folder/all" >"$folder/cut"
expect_error 3 "another end" profile -m "$model" -c 128 -f "$folder/one" -o "$folder/cut" --resume
expect_error 3 "another end" profile --merge "$folder/first" "$folder/cut" -o "$never"
{ head -c 1000 "$folder/all"; printf 'x'; tail -c +1002 "$folder/all"; } >"$folder/altered"
expect_error 3 "checksum" profile --merge "$folder/altered" "$folder/first" -o "$never"
expect_error 5 "absent" profile -m "$model" -f "$folder/one" "$folder/absent" -o "$never"
expect_error 5 "a folder" profile -m "$model" -f "$folder" -o "$never"
: >"$folder/empty"
expect_error 2 "is empty" profile -m "$model" -f "$folder/empty" -o "$never"
cp "$folder/one" "$folder/copy"
expect_error 2 "the same text" profile -m "$model" -f "$folder/one" "$folder/copy" -o "$never"
expect_error 2 "no text" profile -m "$model" -o "$never"
expect_error 2 "give one with -o" profile -m "$model" -f "$folder/one"
expect_error 4 "needs at least" profile -m "$model" -f "$folder/one" --memory 5M -o "$never"
[ -e "$never" ] && fail "something was written"
same all kept

if [ $small = 1G ]; then
    echo "a sanitizer's memory fits no budget: hits are not compared"
    finish
fi
# Hot neurons first: the same text, and of the neurons that fire more are in memory, where it holds a part of them.
sparse=$folder/sparse.gguf
"$program" synth --layers 8 --embedding 512 --ffn 4096 --vocab 1024 --ffn-activation relu --ffn-zeros 0.9 \
    --neuron-hot 0.2 --neuron-repeat 0.55 -o "$sparse" -q || fail synth
expect 0 profile -m "$sparse" -f "$folder/one" -o "$folder/sparse.stats"
expect 0 prepare -m "$sparse" --layout neuron -o "$folder/plain.pi2"
expect 0 prepare -m "$sparse" --layout neuron --statistics "$folder/sparse.stats" -o "$folder/hot.pi2"

# hits FILE MEMORY: what of 1000 neurons that fired was in memory, and the text in $folder/text; 0: a dense run, or too
# little memory.
hits() {
    share=0
    run run -m "$1" --raw -p "abc def" -n 60 --ignore-eos --temp 0 -c 128 --draft-max 0 -t 1 --memory "$2" --json
    [ "$code" = 4 ] && return
    [ "$code" = 0 ] || fail "exit code $code at $2: $(cat "$folder/err")"
    json text >"$folder/text"
    uses=$(json io.neuron_uses)
    share=$((uses > 0 ? 1000 * $(json io.neuron_hits) / uses : 0))
}
checks=$((checks + 1))
found=no
memory=30
: >"$folder/text"
while [ $found = no ] && [ $memory -lt 100 ]; do
    memory=$((memory + 1))
    hits "$folder/plain.pi2" ${memory}M
    cp "$folder/text" "$folder/plain.text"
    plain=$share
    hits "$folder/hot.pi2" ${memory}M
    [ "$plain" = 0 ] && continue
    cmp -s "$folder/text" "$folder/plain.text" || fail "the text is another one at $memory MB"
    [ "$share" -gt $((plain + 100)) ] && found=yes
done
echo "at $memory MB $plain of 1000 neurons were in memory, with statistics $share"
[ $found = yes ] || fail "hot neurons first gave no more hits"
# The statistics of a cluster file are those of the model that it was made from.
expect 0 profile -m "$folder/hot.pi2" -f "$folder/one" -o "$folder/again.stats" --memory ${memory}M
same again.stats sparse.stats
finish
