"""The cases: which model, under which limit, with which tests."""
import os
import re

MB, GB = 1_000_000, 1_000_000_000

# limit: bytes of the cgroup and of --memory; None is "in memory". A test is KIND-TOKENS, or
# KIND-TOKENS@DEPTH where DEPTH tokens are in the context before. Lengths are short where
# llama.cpp gives a fraction of a token per second, and the same for all engines.
CASES = {
    "smollm2-memory": {"model": "smollm2", "limit": None, "tests": ["decode-128", "prefill-512"]},
    "smollm2-88M": {"model": "smollm2", "limit": 88 * MB, "tests": ["decode-128", "prefill-64"]},
    "smollm2-64M": {"model": "smollm2", "limit": 64 * MB,
                    "tests": ["decode-128", "prefill-64", "prefill-512"]},
    "smollm2-48M": {"model": "smollm2", "limit": 48 * MB,
                    "tests": ["decode-128", "prefill-64", "prefill-512"]},
    "tinyllama-memory": {"model": "tinyllama", "limit": None,
                         "tests": ["decode-128", "prefill-512"]},
    "tinyllama-320M": {"model": "tinyllama", "limit": 320 * MB,
                       "tests": ["decode-128", "prefill-64"]},
    "mistral-7b-memory": {"model": "mistral-7b", "limit": None,
                          "tests": ["decode-32", "prefill-512"]},
    "mistral-7b-3G": {"model": "mistral-7b", "limit": 3 * GB, "tests": ["decode-8", "prefill-512"]},
    "mistral-7b-2G": {"model": "mistral-7b", "limit": 2 * GB, "tests": ["decode-8", "prefill-512"]},
    "mistral-7b-1G": {"model": "mistral-7b", "limit": 1 * GB, "tests": ["decode-8", "prefill-512"]},
    "qwen3-30b-memory": {"model": "qwen3-30b-a3b", "limit": None,
                         "tests": ["decode-32", "prefill-128"]},
    "qwen3-30b-8G": {"model": "qwen3-30b-a3b", "limit": 8 * GB,
                     "tests": ["decode-16@64", "prefill-128"]},
    "qwen3-30b-4G": {"model": "qwen3-30b-a3b", "limit": 4 * GB,
                     "tests": ["decode-16@64", "prefill-128"]},
    # A few tokens before decode, so that both engines' caches are full when the clock starts.
    "mixtral-8x7b-20G": {"model": "mixtral-8x7b", "limit": 20 * GB, "tests": ["decode-6@16"]},
    "mixtral-8x7b-16G": {"model": "mixtral-8x7b", "limit": 16 * GB,
                         "tests": ["decode-6@16", "prefill-128"]},
    "mixtral-8x7b-8G": {"model": "mixtral-8x7b", "limit": 8 * GB, "tests": ["decode-6@16"]},
    "mixtral-8x7b-4G": {"model": "mixtral-8x7b", "limit": 4 * GB, "tests": ["decode-6@16"]},
    # Half: of the FFN's 3.2 GB that half is in memory; all else (attention, head, context) is.
    "turbosparse-mistral-7b-memory": {"model": "turbosparse-mistral-7b", "limit": None, "tests": ["decode-32"]},
    "turbosparse-mistral-7b-half": {"model": "turbosparse-mistral-7b", "limit": 2760 * MB, "tests": ["decode-16@16"]},
    # The paper's: 19 GB is its phone's; needs 75 GB of disk.
    "turbosparse-mixtral-47b-19G": {"model": "turbosparse-mixtral-47b", "limit": 19 * GB, "tests": ["decode-16@16"]},
    "turbosparse-mixtral-47b-12G": {"model": "turbosparse-mixtral-47b", "limit": 12 * GB, "tests": ["decode-16@16"]},
    "turbosparse-mixtral-47b-7G": {"model": "turbosparse-mixtral-47b", "limit": 7 * GB, "tests": ["decode-16@16"]},
    "smallthinker-21b-8G": {"model": "smallthinker-21b", "limit": 8 * GB, "tests": ["decode-16@64"]},
    # The same real weights in other types; half: of the file's bytes.
    "tinyllama-q4_k_m-memory": {"model": "tinyllama-q4_k_m", "limit": None, "tests": ["decode-32", "prefill-128"]},
    "tinyllama-q4_k_m-half": {"model": "tinyllama-q4_k_m", "limit": 334 * MB, "tests": ["decode-16"]},
    "tinyllama-q5_k_m-memory": {"model": "tinyllama-q5_k_m", "limit": None, "tests": ["decode-32", "prefill-128"]},
    "tinyllama-q5_k_m-half": {"model": "tinyllama-q5_k_m", "limit": 391 * MB, "tests": ["decode-16"]},
    "tinyllama-iq4_xs-memory": {"model": "tinyllama-iq4_xs", "limit": None, "tests": ["decode-32", "prefill-128"]},
    "tinyllama-iq4_xs-half": {"model": "tinyllama-iq4_xs", "limit": 305 * MB, "tests": ["decode-16"]},
    "tinyllama-iq2_xxs-memory": {"model": "tinyllama-iq2_xxs", "limit": None, "tests": ["decode-32", "prefill-128"]},
    "tinyllama-iq2_xxs-half": {"model": "tinyllama-iq2_xxs", "limit": 161 * MB, "tests": ["decode-16"]},
    "qwen3.6-35b-8G": {"model": "qwen3.6-35b-a3b", "limit": 8 * GB, "tests": ["decode-16@64"]},
    # A tenth of its layers, and as large a part of the file.
    "qwen3.6-4-layers-780M": {"model": "qwen3.6-4-layers", "limit": 780 * MB, "tests": ["decode-16@64"]},
    # To try this command with, in seconds.
    "sparse-tiny-memory": {"model": "sparse-tiny", "limit": None, "tests": ["decode-32"]},
    "sparse-tiny-half": {"model": "sparse-tiny", "limit": 26 * MB, "tests": ["decode-16@16"]},
}
BIG_FILE = 1 * GB

# What documents and plots call the models; "synthetic" is added to those of models.SYNTHETIC.
MODEL_NAMES = {"smollm2": "SmolLM2-135M Q4_1", "tinyllama": "TinyLlama-1.1B Q4_0", "mistral-7b": "Mistral-7B Q4_0",
               "qwen3-30b-a3b": "Qwen3-30B-A3B Q4_0", "mixtral-8x7b": "Mixtral-8x7B Q4_0",
               "turbosparse-mistral-7b": "TurboSparse-Mistral-7B Q4_0 (90 % zeros)",
               "turbosparse-mixtral-47b": "TurboSparse-Mixtral-47B Q4_0 (88 % zeros)",
               "smallthinker-21b": "SmallThinker-21B-A3B Q4_0 (60 % zeros)",
               "tinyllama-q4_k_m": "TinyLlama-1.1B Q4_K_M", "tinyllama-q5_k_m": "TinyLlama-1.1B Q5_K_M",
               "tinyllama-iq4_xs": "TinyLlama-1.1B IQ4_XS", "tinyllama-iq2_xxs": "TinyLlama-1.1B IQ2_XXS",
               "qwen3.6-35b-a3b": "Qwen3.6-35B-A3B Q4_K", "qwen3.6-4-layers": "Qwen3.6-35B-A3B, 4 layers, Q4_K",
               "sparse-tiny": "tiny llama Q4_0 (90 % zeros)"}

# (case, test): (times llama.cpp's best, share of what the machine allows; of sparse models: of their own speed
# in memory), set before the figures were known; bench/GOALS.md says what is missed, and why.
GOALS = {
    ("smollm2-memory", "decode-128"): (1, None),
    ("smollm2-memory", "prefill-512"): (1, None),
    ("tinyllama-memory", "decode-128"): (1, None),
    ("tinyllama-320M", "decode-128"): (1, None),
    ("tinyllama-320M", "decode-16"): (1, None),
    ("tinyllama-320M", "prefill-64"): (1, None),
    ("mistral-7b-memory", "decode-32"): (1.3, 0.9),
    ("mistral-7b-memory", "prefill-512"): (1.7, None),
    ("mistral-7b-3G", "decode-8"): (2.6, 0.9),
    ("mistral-7b-2G", "decode-8"): (1.8, 0.9),
    ("mistral-7b-1G", "decode-8"): (1.3, 0.9),
    ("mistral-7b-3G", "prefill-512"): (4, 0.9),
    ("mistral-7b-2G", "prefill-512"): (4, 0.9),
    ("mistral-7b-1G", "prefill-512"): (4, 0.9),
    ("qwen3-30b-memory", "decode-32"): (1.3, None),
    ("qwen3-30b-memory", "prefill-128"): (2.5, None),
    ("qwen3-30b-8G", "decode-16@64"): (3.5, 0.75),
    ("qwen3-30b-4G", "decode-16@64"): (3.5, 0.75),
    ("qwen3-30b-8G", "prefill-128"): (4, None),
    ("qwen3-30b-4G", "prefill-128"): (4, None),
    ("mixtral-8x7b-20G", "decode-6@16"): (2.5, 0.75),
    ("mixtral-8x7b-16G", "decode-6@16"): (2, 0.75),
    ("mixtral-8x7b-8G", "decode-6@16"): (2, 0.75),
    ("mixtral-8x7b-4G", "decode-6@16"): (1.8, 0.75),
    ("mixtral-8x7b-16G", "prefill-128"): (3, None),
    **{(f"tinyllama-{kind}-{place}", test): (times, None) for kind in ("q4_k_m", "q5_k_m", "iq4_xs", "iq2_xxs")
       for place, test, times in (("memory", "decode-32", 1), ("memory", "prefill-128", 1.5),
                                  ("half", "decode-16", 4.5))},
    ("qwen3.6-35b-8G", "decode-16@64"): (3.5, None),
    ("turbosparse-mistral-7b-memory", "decode-32"): (1.8, None),
    ("turbosparse-mistral-7b-half", "decode-16@16"): (20, 0.55),
    ("turbosparse-mixtral-47b-19G", "decode-16@16"): (21, None),
}

# The README's table.
HEADLINE = (("smollm2-64M", "decode-128"), ("tinyllama-320M", "decode-128"), ("mistral-7b-2G", "decode-8"),
            ("qwen3-30b-4G", "decode-16@64"), ("mixtral-8x7b-16G", "decode-6@16"))


def parse_test(name):
    """{"name", "kind", "tokens", "depth", "context"} of decode-8, prefill-512, decode-16@64."""
    found = re.fullmatch(r"(decode|prefill)-([1-9]\d*)(?:@(\d+))?", name)
    if not found:
        raise ValueError(f"'{name}' is no test; give one such as decode-8, prefill-512, "
                         "decode-16@64")
    tokens, depth = int(found.group(2)), int(found.group(3) or 0)
    together = tokens + depth
    return {"name": name, "kind": found.group(1), "tokens": tokens, "depth": depth,
            "context": 256 if together <= 256 else together + 256}


def parse_size(text):
    units = {"K": 10**3, "M": 10**6, "G": 10**9}
    unit = units.get(text[-1].upper())
    return int(float(text[:-1]) * unit) if unit else int(text)


def set_up_test(name, file, has_experts=False):
    """A test on one file, with or without the one run that is not counted (in all engines).

    A depth warms up better than a run would. On a large dense file a second prompt would double the
    time: there one token goes before, which brings the weights that stay. Experts that stay come
    with a prompt only."""
    test = parse_test(name)
    if test["kind"] == "prefill" and not test["depth"] and not has_experts \
            and os.path.getsize(file) >= BIG_FILE:
        test["depth"] = 1
        test["context"] += 1 if test["context"] > 256 or test["tokens"] == 256 else 0
    test["warm_up"] = not test["depth"]
    return test


def shorter(test, limited, big):
    """The test that screening runs: long enough to tell apart by a factor of 1.5."""
    short = dict(test)
    if test["kind"] == "decode":
        short["tokens"] = min(test["tokens"], (4 if big else 8) if limited else 16)
    else:
        short["tokens"] = min(test["tokens"], 128)
    return short
