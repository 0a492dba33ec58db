"""Which experts a run used: the recorded trace, and Belady's optimum on it."""
import json
import os
import struct

from .machine import CommandFailed, call

PASS = 0x80000000


def read_trace(path):
    """A recorded trace: a list of passes, each (tokens, set of keys, uses)."""
    with open(path, "rb") as file:
        content = file.read()
    if content[:8] != b"PI2TRACE" or len(content) < 32:
        raise ValueError(f"{os.path.basename(path)} is no trace")
    words = struct.unpack(f"<{(len(content) - 32) // 4}I", content[32:])
    passes, at = [], 0
    while at < len(words):
        word = words[at]
        at += 1
        if word & PASS:
            passes.append((word - PASS, set(), 0))
            continue
        tokens, keys, uses = passes[-1]
        keys.update(words[at:at + word])
        passes[-1] = (tokens, keys, uses + word)
        at += word
    return passes


def experts_of_prompt(passes, tokens):
    """Experts, of all layers, that the last `tokens` tokens used together: a prompt may have gone
    through in several batches, which is the engine's choice and not the limit's."""
    keys, left = set(), tokens
    for count, used, _ in reversed(passes):
        if left <= 0:
            break
        keys |= used
        left -= count
    return len(keys)


def record(program, file, threads, memory, depth, tokens, target, timeout):
    """Records a decode after `depth` tokens once; returns the path of the trace."""
    if os.path.exists(target) and os.path.getmtime(target) > os.path.getmtime(file):
        return target
    call("timeout", str(int(timeout)), program, "bench", "-m", file, "-t", str(threads), "-r", "1",
         "--no-warmup", "-o", "json", "-p", "0", "-n", str(tokens), "-d", str(depth),
         "-c", str(max(256, depth + tokens)), "--memory", str(memory),
         "--record-trace", target + ".partial")
    os.replace(target + ".partial", target)
    return target


def belady(program, trace, slots, skip):
    """{"slots", "belady_hit_rate" (of experts), "belady_misses" (per token), "uses" (per token),
    "repeat_share", "tokens"} of a recorded trace; the first `skip` passes fill the cache."""
    wanted = max(slots, 1)
    answer = json.loads(call(program, "cache-replay", "--trace", trace, "--sizes", str(wanted),
                             "--skip", str(skip), "--json"))
    row, info = answer["sizes"][0], answer["trace"]
    if not row["passes"]:
        raise CommandFailed(f"{os.path.basename(trace)} has no passes after the first {skip}")
    uses = row["uses"] / row["passes"]
    hit_rate = row["hit_rate"]["belady"] if slots else 0.0
    return {"slots": slots, "belady_hit_rate": hit_rate, "belady_misses": (1 - hit_rate) * uses,
            "uses": uses, "repeat_share": info["repeat_share"], "recorded_tokens": row["passes"]}
