#!/bin/sh
# Goal:   the page talks with the model, keeps what was said, runs nothing of what a model or a person wrote, asks nothing
#         of other servers, and can be used by keyboard, screen reader and phone.
# Method: a server with a tiny model, and Chromium over its DevTools protocol (page_browser.py).
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "skipped: no python3, which drives the browser"; exit 77; }
command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || { echo "skipped: no Chromium"; exit 77; }
tiny m layers=2 context=2048
mkdir "$folder/models"
ln -s ../m.gguf "$folder/models/one.gguf"
ln -s ../m.gguf "$folder/models/two.gguf"
checks=$((checks + 1))
timeout 280 python3 "$(dirname "$0")/page_browser.py" "$program" "$folder" || fail "page_browser.py"
finish
