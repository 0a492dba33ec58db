#!/bin/sh
# Goal:   the Python package is built with the library inside, and does what its README says.
# Method: its build with the library that is there, without a network, into a folder; test_powerinfer2.py.
sources=$(cd "$(dirname "$0")/../.." && pwd)
. "$sources/tests/cli/cli_support.sh"
python3 -c 'import cffi, setuptools' 2>/dev/null ||
    { echo "skipped: no python3 with cffi and setuptools"; exit 77; }
tiny m layers=2 context=2048
tiny plain layers=2 context=2048 template=
"$(dirname "$make_tiny_model")/make_family_model" qwen35 "$folder/recurrent.gguf" || fail "make_family_model"
cp -r "$sources/python" "$folder/python"
cp "$sources/CMakeLists.txt" "$folder"
cp -r "$sources/include" "$folder"
(cd "$folder/python" &&
    POWERINFER2_BUILD=$(dirname "$program") python3 setup.py -q build --build-lib "$folder/site") >"$folder/log" 2>&1 ||
    fail "cannot be built: $(tail -5 "$folder/log")"
for file in py.typed _declarations.py lib/libpowerinfer2.so lib/libpcre2-8.so.0; do
    [ -f "$folder/site/powerinfer2/$file" ] || fail "the package has no $file"
done
checks=$((checks + 1))
PYTHONPATH=$folder/site timeout 240 python3 "$sources/tests/python/test_powerinfer2.py" "$folder/m.gguf" \
    "$folder/plain.gguf" "$program" "$folder/recurrent.gguf" >"$folder/log" 2>&1 || fail "test_powerinfer2.py: $(cat "$folder/log")"
sed -n 's/^Ran /ran /p' "$folder/log"
finish
