#!/usr/bin/env python3
"""Trains a layer that guesses for a model of the llama family, of nothing but its GGUF and texts that it wrote.

    draft_head.py texts --model M.gguf --prompts P.jsonl --out TEXTS       the model's answers, as tokens
    draft_head.py features --model M.gguf --texts TEXTS --out FEATURES     what it gives for each of these tokens
    draft_head.py train --model M.gguf --features FEATURES --out LAYER     the layer, as torch keeps it
    draft_head.py count --model M.gguf --layer LAYER --features FEATURES   how often it names the next token
    draft_head.py write --model M.gguf --layer LAYER --out LAYER.gguf      the eagle3 GGUF that `run -md` takes
"""
import argparse
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F

from answers import write_texts
from beginning import begin
from draft_layer import DraftLayer, normed
from llama_model import Llama
from model_file import ModelFile, rounded, write_layer


class Text:
    """given[i]: the direction of what the model gave for token i; likely[i]: the likeliest tokens after it."""

    def __init__(self, tokens, given, likely):
        self.tokens, self.given, self.likely = tokens.long(), given, likely.long()


def read_texts(path):
    return [Text(*text) for text in torch.load(path)]


def write_features(options):
    llama = Llama(ModelFile(options.model))
    with open(options.texts, encoding="utf-8") as file:
        texts = [torch.tensor([int(token) for token in line.split()]) for line in file]
    texts = [tokens for tokens in texts if len(tokens) > 2]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.threads) as threads:
        given = list(threads.map(lambda tokens: llama.given(tokens, 16), texts))
    torch.save([(tokens.int(), *of_text) for tokens, of_text in zip(texts, given)], options.out)
    print(f"{options.out}: {len(texts)} texts of {sum(map(len, texts))} tokens")


def frequent(texts, rows):
    """The tokens that texts have, and that are likely in them, the most frequent one first."""
    counts = torch.zeros(1 << 20)
    for text in texts:
        counts.index_add_(0, text.tokens, torch.ones(len(text.tokens)))
        counts.index_add_(0, text.likely[:, :8].flatten(), torch.full((text.likely[:, :8].numel(),), 0.01))
    found = counts.topk(rows)
    return found.indices[found.values > 0]


def inputs(texts, embedding):
    """(rows of the embedding, what the model gave before, lengths, what it gives, what is likely) of rows 1 .. n-1."""
    return (torch.cat([embedding[text.tokens[1:]] for text in texts]),
            torch.cat([text.given[:-1] for text in texts]).float(), [len(text.tokens) - 1 for text in texts],
            torch.cat([text.given[1:] for text in texts]).float(), torch.cat([text.likely[1:] for text in texts]))


def loss_of(layer, texts, shared, steps, generator, noise):
    embedding, head, ids, of_model = shared
    rows, before, lengths, results, likely = inputs(texts, embedding)
    rows = normed(rows) + noise * torch.randn(rows.shape, generator=generator)
    before = before + noise * torch.randn(before.shape, generator=generator)
    more = ids[torch.randint(len(ids), (1024,), generator=generator)]
    weights = head[torch.cat((likely.flatten(), more)).unique()]
    with torch.no_grad():
        wanted = F.softmax((results * of_model) @ weights.T, -1)
    places = torch.cat([torch.arange(1, length + 1) for length in lengths])
    total, said = 0, []
    for step, x in enumerate(layer(rows, before, lengths, steps)):
        keep = places > step
        direction = normed(x[keep])
        logits = (direction * layer.output_norm) @ weights.T
        likelihood = -(wanted[keep] * F.log_softmax(logits, -1)).sum(-1).mean()
        apart = (direction - results[keep]).square().mean()
        total = total + 0.8 ** step * (likelihood + apart)
        said.append((likelihood.item(), apart.item()))
    return total, said


@torch.no_grad()
def count(layer, texts, embedding, head, ids, first=1, depth=4):
    """[guess][0..2]: the shares of places whose next token is among the first 1, 4 and 8. first: the first place."""
    right, places = torch.zeros(depth, 3), torch.zeros(depth, 1)
    for text in texts:
        rows, before, lengths, _, _ = inputs([text], embedding)
        for step, x in enumerate(layer(rows, before, lengths, depth)):
            x = x[max(first - 1, step):-1]
            named = ids[((normed(x) * layer.output_norm) @ head.T).topk(8).indices]
            hits = named == text.tokens[-len(x):, None]
            right[step] += torch.stack([hits[:, :n].any(1).sum() for n in (1, 4, 8)])
            places[step] += len(x)
    return right / places


def told(shares):
    return "; ".join(" ".join(f"{share:.3f}" for share in guess) for guess in shares.tolist())


def save(path, layer, ids):
    torch.save({"heads": layer.heads, "head_length": layer.head_length, "neurons": layer.gate.shape[0],
                "rope_base": layer.rope_base, "ids": ids, "state": layer.state_dict()}, path)


def load_layer(path):
    saved = torch.load(path)
    width = saved["state"]["fc"].shape[0]
    layer = DraftLayer(width, saved["heads"], saved["head_length"], saved["neurons"], saved["rope_base"])
    layer.load_state_dict(saved["state"])
    return layer, saved["ids"]


def train(options):
    model = ModelFile(options.model)
    embedding, head = model.tensor("token_embd.weight"), model.head()
    texts = [text for path in options.features for text in read_texts(path)]
    generator = torch.Generator().manual_seed(1)
    texts = [texts[i] for i in torch.randperm(len(texts), generator=generator)]
    held, texts = texts[:options.held_out], texts[options.held_out:]
    held += [text for path in options.held for text in read_texts(path)]
    ids = frequent(texts, options.rows)
    if options.begin:
        layer, _ = load_layer(options.begin)
    else:
        layer = begin(model, texts, embedding, options.heads, options.own_heads, options.neurons)
    print(f"{len(texts)} texts of {sum(len(t.tokens) for t in texts)} tokens, {len(held)} held out, {len(ids)} rows in "
          f"the head, {sum(p.numel() for p in layer.parameters()) / 1e6:.1f} M weights")
    print(f"begins with {told(count(layer, held, embedding, head[ids], ids))}", flush=True)
    save(options.out, layer, ids)
    layer.output_norm.requires_grad_(False)
    norms = [p for p in layer.parameters() if p.requires_grad and p.dim() == 1]
    matrices = [p for p in layer.parameters() if p.requires_grad and p.dim() == 2]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": norms}], lr=options.rate, betas=(0.9, 0.98),
                                  weight_decay=0.0)
    shared = (embedding, head, ids, model.tensor("output_norm.weight"))
    began, cpu, best, order, record = time.time(), time.process_time(), 0.0, [], []
    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.threads) as threads:
        def part(chosen, guesses):
            total, said = loss_of(layer, chosen, shared, guesses, generator, options.noise)
            (total / options.threads).backward()
            return said[0]

        for step in range(1, options.steps + 1):
            falling = 0.51 + 0.49 * math.cos(math.pi * step / options.steps)
            for group in optimizer.param_groups:
                group["lr"] = options.rate * min(1.0, step / 20) * falling
            if len(order) < options.threads * options.batch:
                order = torch.randperm(len(texts), generator=generator).tolist()
            chosen = [[texts[order.pop()] for _ in range(options.batch)] for _ in range(options.threads)]
            guesses = options.guesses if step % options.further == 0 else 1
            record += threads.map(part, chosen, [guesses] * options.threads)
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % options.every and step != options.steps:
                continue
            likelihood, apart = torch.tensor(record).mean(0).tolist()
            shares, record = count(layer, held, embedding, head[ids], ids, depth=2), []
            print(f"step {step}: {likelihood:.3f} + {apart:.3f}; held out {told(shares)}; {time.time() - began:.0f} s, "
                  f"{time.process_time() - cpu:.0f} s of CPU", flush=True)
            if shares.mean() > best:
                best = shares.mean().item()
                save(options.out, layer, ids)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["texts", "features", "train", "count", "write"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out")
    parser.add_argument("--program", default="build/powerinfer2", help="what answers (build/powerinfer2)")
    parser.add_argument("--prompts", help="a JSON object with the member 'prompt' a line")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer at most (128)")
    parser.add_argument("--memory", default="3G", help="budget of what answers (3G)")
    parser.add_argument("--texts")
    parser.add_argument("--features", action="append", default=[], help="may be given again")
    parser.add_argument("--threads", type=int, default=2, help="each with a text of its own (2)")
    parser.add_argument("--layer")
    parser.add_argument("--types", default="Q4_0,Q4_0", help="of the layer and of its head (Q4_0,Q4_0)")
    parser.add_argument("--rows", type=int, default=8000, help="of the head, of the most frequent tokens (8000)")
    parser.add_argument("--first", type=int, default=1, help="the first place of a text that counts (1)")
    train_options = parser.add_argument_group("training")
    train_options.add_argument("--begin", help="a layer to go on with")
    train_options.add_argument("--held-out", type=int, default=8, help="texts that are not trained on (8)")
    train_options.add_argument("--held", action="append", default=[], help="a file of texts that are held out, too")
    train_options.add_argument("--noise", type=float, default=0.2, help="on what the layer is given, of 1 (0.2)")
    train_options.add_argument("--heads", type=int, default=24, help="of the layer (24)")
    train_options.add_argument("--own-heads", type=int, default=12, help="of them, begin with their own row (12)")
    train_options.add_argument("--neurons", type=int, default=2816)
    train_options.add_argument("--guesses", type=int, default=2, help="that are learnt, of a chain (2)")
    train_options.add_argument("--further", type=int, default=4, help="so many steps have one with all of them (4)")
    train_options.add_argument("--steps", type=int, default=330)
    train_options.add_argument("--every", type=int, default=33, help="steps from one count to the next (33)")
    train_options.add_argument("--batch", type=int, default=2, help="texts of a thread in a step (2)")
    train_options.add_argument("--rate", type=float, default=4e-4)
    return parser.parse_args()


def main():
    options = read_options()
    torch.manual_seed(1)
    if options.command in ("texts", "features", "train"):
        {"texts": write_texts, "features": write_features, "train": train}[options.command](options)
        return
    model = ModelFile(options.model)
    layer, ids = load_layer(options.layer)
    ids = ids[:options.rows]
    head = model.head()[ids]
    types = options.types.split(",")
    if options.command == "write":
        write_layer(options.out, layer, model, ids.numpy(), head, types)
        print(f"{options.out}: {os.path.getsize(options.out)} bytes")
        return
    head = rounded(head, types[1])
    with torch.no_grad():
        for matrix in (p for p in layer.parameters() if p.dim() == 2):
            matrix.copy_(rounded(matrix, types[0]))
    for path in options.features:
        shares = count(layer, read_texts(path), model.tensor("token_embd.weight"), head, ids, options.first)
        print(f"{path}: {told(shares)}")


if __name__ == "__main__":
    main()
