#!/bin/sh
# Goal:   requests that are answered at the same time have the answers of run, whatever shares their passes: in memory and
#         streamed, with guesses and without, with states that cannot be taken back; none stops another; prompts that are
#         there are not read again; what the budget has no room for is told; slow, leaving and senseless clients harm none,
#         and mutated requests to any route get a reply in its form.
# Method: servers with tiny models, many_clients.py as their clients, load_clients.py and fuzz_requests.py for a moment.
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which is the client here"; exit 77; }

sanitized=
ldd "$program" | grep -q 'lib[atu]*san' && sanitized=sanitized # its memory tells nothing
tiny m layers=2 context=2048
fits=", fewer sequences ("
[ "$sanitized" ] && fits=
expect_error 4 "sequences; --memory gives .*$fits" serve -m "$folder/m.gguf" --port 0 -np 40 --memory 24M
expect_error 2 "-np: 0 lies outside" serve -m "$folder/m.gguf" --port 0 -np 0
"$(dirname "$make_tiny_model")/make_family_model" qwen35 "$folder/recurrent.gguf" || fail "make_family_model"
[ "$sanitized" ] || {
    tiny large layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0
    expect 0 run -m "$folder/large.gguf" -p a -n 1 -c 512 --json -q
    echo $(($(json memory.peak_bytes) - 13000000)) >"$folder/budget"
}
checks=$((checks + 1))
python3 "$(dirname "$0")/many_clients.py" "$program" "$folder" || fail "many_clients.py"
# shellcheck disable=SC2086 # nothing where it is empty
python3 "$(dirname "$0")/load_clients.py" "$program" "$folder" 1.5 12 $sanitized || fail "load_clients.py"
# shellcheck disable=SC2086
python3 "$(dirname "$0")/fuzz_requests.py" "$program" "$folder" 600 4 $sanitized || fail "fuzz_requests.py"
finish
