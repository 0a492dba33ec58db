#!/usr/bin/env python3
"""Makes the files of pre_tokenizers/: a text, two small vocabularies, and what llama.cpp makes of the text.

usage: make_pre_tokenizers.py LLAMA_TOKENIZE NAME...     (needs: pip install xxhash)

LLAMA_TOKENIZE is Debian sid's program, or a script that runs it in its folder; every NAME is a value of
tokenizer.ggml.pre that pre_tokenizers.inc has. The text mixes words of many scripts, numbers, marks, white space of all
kinds, runs and any code points of Unicode 14. Merges of the vocabularies are learned from it without cutting it into
words, so that they join across every place that a pattern may cut. tests/tokenizer/test_pre_tokenizers.c compares.
"""
import collections
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import xxhash

FOLDER = pathlib.Path(__file__).parent / "pre_tokenizers"
# Tokens of these are characters; the others' are bytes.
OF_CHARACTERS = {"gemma4", "granite-embed-multi-311m", "mmbert", "sarvam-moe", "whitespace"}
NOT_CHECKED = {"whitespace"}  # llama-tokenize aborts where two spaces follow each other

SPACES = [" ", " ", " ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u2003",
          "\u0085", "\u000b", "\u1680", "\u202f", "\u205f", " \n", "\n ", "\u180e", "\u200b"]
MARKS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2026\u3002\uff0c\u3001\uff01\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b"
             "\u3008\u066a\u0964\u00bf\u00ab\u00b4\u00a8\u00a9\u20ac\u2192\u2603\ufe0f\u203f\u2011\U0001f999")
WORDS = """the and Don't I'm they'LL we'Re it's CamelCase HTTPServer fooBAR na\u00efve Stra\u00dfe \u00c9COLE \u00e9lan
d\u00e9j\u00e0 \u043f\u0440\u0438\u0432\u0435\u0442 \u041c\u041e\u0421\u041a\u0412\u0410 \u0401\u043b\u043a\u0430 \u03b3\u03b5\u03b9\u03ac
\u03a3\u039f\u03a6\u039f\u03a3 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 \u09ad\u09be\u09b7\u09be
\u0e44\u0e17\u0e22 \u1797\u17b6\u179f\u17b6 \u1019\u103c\u1014\u103a\u1019\u102c \u0ea5\u0eb2\u0ea7 \ud55c\uad6d\uc5b4 \u3131\u3134 \u3105\u3106
\u6f22\u5b57 \u65e5\u672c\u8a9e \u3072\u3089\u304c\u306a \u30ab\u30bf\u30ab\u30ca \uff76\uff80 \U00020000\U0002a700 \u8c48\uf900 \u00bd \u216b
\u2460 \u0663\u0664\u0665 \u096b\u096c \uff10\uff11\uff12 x1 a_b __init__ e\u0301 a\u0308o\u0308 \u0301x q\u0323\u0307 \ufb01 \u01c5 \u00aa \u017f
\u212a 's 'S 'T \u2019s l'\u00e9t\u00e9 IMGIMGABCZ <sentinel:12> IMGIMGA <|x|> \u0915\u094d\u200d\u0937 \u0645\u06cc\u200c\u062e \u1820\u1823
\u13a0 \uaa60 \ua9e0 \U0001d49c \U0001d7d8 \u0c66\u0c67""".split()


def code_point(source):
    while True:
        kind = source.random()
        low, high = ((0x20, 0x250) if kind < .4 else (0x250, 0x3000) if kind < .6 else (0x3000, 0x10000)
                     if kind < .85 else (0x10000, 0x32000))
        code = source.randrange(low, high)
        if not 0xd800 <= code < 0xe000 and unicodedata.category(chr(code)) != "Cn":
            return chr(code)


def piece(source):
    kind = source.random()
    if kind < .25:
        return source.choice(WORDS)
    if kind < .45:
        return source.choice(SPACES)
    if kind < .58:
        return source.choice(MARKS) * source.choice([1, 1, 1, 2, 3, 5])
    if kind < .72:
        return "".join(source.choice("0123456789") for _ in range(source.choice([1, 2, 3, 4, 5, 6, 7, 9, 10, 12])))
    if kind < .80:
        return "".join(code_point(source) for _ in range(source.randrange(1, 6)))
    if kind < .86:
        return source.choice(WORDS) + source.choice(["'s", "'T", "'re", "'LL", "'d", "'x", "\u2019s"])
    if kind < .90:
        return source.choice([" ", "\n", "\t", "a", "\u00c9", "\u6f22", "!", "1", "\u0301", "\u3000"]) * \
            source.randrange(2, 70)
    if kind < .95:
        letters = ["a", "B", "\u00e9", "\u00c9", "\u01c5", "\u02b0", "\u6f22", "\u0301", "Z", "1"]
        return "".join(source.choice(letters) for _ in range(3))
    return source.choice(["if (x == 1) {\n\treturn;\n}\n", "http://a.b/c?d=e&f=g#h ", "1,234.56 ", "$x+=~y|z^w`q`<>= ",
                          "def f(x):\n    return x**2\n\n", "2026-11-29T19:00:00Z "])


def make_text(size):
    source, text = random.Random(20261129), ""
    while len(text.encode()) < size:
        text += piece(source)
    return text


def learn(symbols, count):
    """Pairs, most frequent first, each a merge; nothing is cut into words."""
    merges, vocabulary = [], set()
    for _ in range(count):
        pairs = collections.Counter(zip(symbols, symbols[1:]))
        (left, right), _ = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        merges.append((left, right))
        vocabulary.add(left + right)
        joined, i = [], 0
        while i < len(symbols):
            if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == (left, right):
                joined.append(left + right)
                i += 2
            else:
                joined.append(symbols[i])
                i += 1
        symbols = joined
    return merges, sorted(vocabulary, key=lambda text: (len(text), text))


def byte_characters():
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write_vocabulary(path, name, tokens, types, merges):
    entries = {"general.architecture": (8, string("llama")), "tokenizer.ggml.model": (8, string("gpt2")),
               "tokenizer.ggml.pre": (8, string(name)),
               "tokenizer.ggml.tokens": (9, struct.pack("<IQ", 8, len(tokens)) + b"".join(map(string, tokens))),
               "tokenizer.ggml.token_type": (9, struct.pack(f"<IQ{len(types)}i", 5, len(types), *types)),
               "tokenizer.ggml.merges": (9, struct.pack("<IQ", 8, len(merges)) +
                                         b"".join(string(f"{left} {right}") for left, right in merges)),
               "tokenizer.ggml.bos_token_id": (4, struct.pack("<I", 0)),
               "tokenizer.ggml.eos_token_id": (4, struct.pack("<I", 0))}
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) +
                     b"".join(string(key) + struct.pack("<I", kind) + data for key, (kind, data) in entries.items()))


def vocabularies(text):
    names = byte_characters()
    merges, learned = learn([names[byte] for byte in text.encode()], 700)
    of_bytes = (["<s>", *names.values(), *learned], merges)
    marked = text.replace(" ", "\u2581")
    merges, learned = learn(list(marked), 700)
    # Runs of line ends are tokens by themselves; no other one holds any, which llama.cpp takes for granted.
    merges = [pair for pair in merges if "\n" not in pair[0] + pair[1]]
    learned = [token for token in learned if "\n" not in token]
    single = sorted(set(marked) - set("\n"))[::2] + ["\n", "\n\n", "\n\n\n"]
    parts = {part for pair in merges for part in pair}
    single = sorted(set(single) | {part for part in parts if len(part) == 1})
    of_characters = (["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *single, *learned], merges)
    return of_bytes, of_characters


def token_types(tokens):
    return [3 if i == 0 else 6 if token.startswith("<0x") else 1 for i, token in enumerate(tokens)]


def reference(program, vocabulary):
    """The ids of the text, in one line. A hundred and more bytes of one run are no trouble for std::regex."""
    out = subprocess.run([program, "-m", vocabulary, "-f", FOLDER / "text.utf8", "--ids", "--no-bos", "--no-parse-special",
                          "--no-escape", "--log-disable"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = [line for line in out.stdout.decode().splitlines() if line.startswith("[")]
    return lines[-1].strip("[]").replace(",", "")


def main():
    program, names = sys.argv[1], sys.argv[2:]
    FOLDER.mkdir(exist_ok=True)
    text = make_text(12000)
    (FOLDER / "text.utf8").write_bytes(text.encode())
    made = vocabularies(text)
    write_vocabulary(FOLDER / "bytes.vocabulary", "gpt-2", made[0][0], token_types(made[0][0]), made[0][1])
    write_vocabulary(FOLDER / "characters.vocabulary", "gemma4", made[1][0], token_types(made[1][0]), made[1][1])
    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name in NOT_CHECKED:
                continue
            tokens, merges = made[name in OF_CHARACTERS]
            path = pathlib.Path(folder) / "vocabulary.gguf"
            write_vocabulary(path, name, tokens, token_types(tokens), merges)
            ids = reference(program, path)
            digests[name] = f"{len(ids.split())} {xxhash.xxh3_64_hexdigest(ids.encode())}"
    (FOLDER / "tokens.json").write_text(json.dumps({"not_checked": sorted(NOT_CHECKED), "names": digests}, indent=1) + "\n")


if __name__ == "__main__":
    main()
