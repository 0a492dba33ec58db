#!/bin/sh
# Makes tests/golden/families/NAME.kld: what llama.cpp computes on the tiny model of each family, for test_family_logits;
# with make_type_model tests/golden/types/NAME-SEED.kld: on those of each weight type, for test_type_logits.
#
#   debootstrap --variant=minbase --include=llama.cpp-tools sid FOLDER    (as root: Debian's own build, in a folder)
#   tests/golden/make_family_logits.sh build/tests/make_family_model FOLDER [FAMILY ...]
#
# Keys and values stay floats and flash attention is off, so that what is left is the rounding of our own cache. The
# file is llama-perplexity's: of 48 tokens the last half's logarithms of probabilities, in 16 bits each.
set -eu
maker=${1:?usage: make_family_logits.sh MAKE_FAMILY_MODEL FOLDER [FAMILY ...]}
folder=${2:?usage: make_family_logits.sh MAKE_FAMILY_MODEL FOLDER [FAMILY ...]}
shift 2
texts=$(dirname "$0")/families
golden=$texts
case $maker in *make_type_model) golden=$(dirname "$0")/types ;; esac
work=$(mktemp -d "$folder/tmp/families.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$texts/text.txt" "$work/"
[ $# -gt 0 ] || set -- $("$maker")
for name; do
    "$maker" "$name" "$work/model.gguf"
    inside=${work#"$folder"}
    chroot "$folder" llama-perplexity -m "$inside/model.gguf" -f "$inside/text.txt" -c 48 -b 48 --chunks 1 -t 1 -ngl 0 \
        -fa off -ctk f32 -ctv f32 --kl-divergence-base "$inside/logits.kld" >"$work/log" 2>&1 ||
        { tail -5 "$work/log"; echo "$name: llama.cpp cannot run it"; exit 1; }
    cp "$work/logits.kld" "$golden/$name.kld"
done
