#!/usr/bin/env python3
"""Trains a map that stands for the layers in the middle of a model of the llama family, of nothing but its GGUF and
texts that it wrote (those of ../draft_head/draft_head.py texts).

    shortcut.py features --model M.gguf --texts TEXTS --layers 2,16 --out FEATURES   what both layers read
    shortcut.py train --model M.gguf --features FEATURES --held HELD --out M.shortcut.gguf
"""
import argparse
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import gguf
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "draft_head"))
from llama_model import Llama  # noqa: E402
from model_file import ModelFile  # noqa: E402


class Text:
    """first, end: what these layers read of each token; given: the direction of what the model gave; likely: the
    likeliest tokens after each."""

    def __init__(self, tokens, first, end, given, likely):
        self.tokens, self.first, self.end = tokens.long(), first, end
        self.given, self.likely = given, likely.long()


def read_texts(path):
    saved = torch.load(path)
    return saved["layers"], [Text(*text) for text in saved["texts"]]


@torch.no_grad()
def look(llama, tokens, layers):
    """What the layers read, and what the model gives, of a text."""
    x, read = llama.embedding[tokens], {}
    for number, weights in enumerate(llama.weights):
        if number in layers:
            read[number] = x.half()
        x = llama.layer(x, weights)
    direction = llama.normed(x, 1.0)
    likely = F.linear(direction * llama.output_norm, llama.head).topk(16).indices.int()
    return tokens.int(), read[layers[0]], read[layers[1]], direction.half(), likely


def write_features(options):
    layers = [int(number) for number in options.layers.split(",")]
    llama = Llama(ModelFile(options.model))
    with open(options.texts, encoding="utf-8") as file:
        texts = [torch.tensor([int(token) for token in line.split()]) for line in file]
    texts = [tokens for tokens in texts if len(tokens) > 2]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.threads) as threads:
        seen = list(threads.map(lambda tokens: look(llama, tokens, layers), texts))
    torch.save({"layers": layers, "texts": seen}, options.out)
    print(f"{options.out}: {len(texts)} texts of {sum(map(len, texts))} tokens")


def regress(texts, damping=1e-3):
    """The ridge regression from what the first layer reads to what the others add; the first token is an outlier."""
    rows = torch.cat([text.first[1:] for text in texts]).float()
    added = torch.cat([text.end[1:] for text in texts]).float() - rows
    means, added_means = rows.mean(0), added.mean(0)
    size = rows.square().mean(0).sqrt()
    rows, added = rows - means, added - added_means
    squares = rows.T @ rows
    squares += damping * squares.diagonal().mean() * torch.eye(len(squares))
    weight = torch.linalg.solve(squares, rows.T @ added)
    explained = 1 - (added - rows @ weight).var() / added.var()
    return weight, added_means - means @ weight, size, explained.item()


class Shortcut:
    """x + map(x), then the layers behind the shortcut."""

    def __init__(self, llama, layers, weight, bias, size):
        self.llama, self.layers, self.size = llama, layers, size
        self.scaled = (weight * size[:, None]).requires_grad_(True)  # what it does to numbers of the usual size
        self.bias = bias.clone().requires_grad_(True)

    def given(self, first):
        x = first.float()
        x = x + (x / self.size) @ self.scaled + self.bias
        for weights in self.llama.weights[self.layers[1]:]:
            x = self.llama.layer(x, weights)
        return x

    def write(self, path):
        writer = gguf.GGUFWriter(path, "shortcut")
        writer.add_uint32("shortcut.block_count", len(self.llama.weights))
        writer.add_uint32("shortcut.embedding_length", len(self.size))
        writer.add_uint32("shortcut.first_layer", self.layers[0])
        writer.add_uint32("shortcut.end_layer", self.layers[1])
        weight = (self.scaled.detach() / self.size[:, None]).T.contiguous()
        writer.add_tensor("shortcut.weight", weight.half().numpy())
        writer.add_tensor("shortcut.bias", self.bias.detach().numpy())
        writer.add_tensor("shortcut.scale", self.size.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@torch.no_grad()
def count(shortcut, texts):
    """The shares of places whose next token is among the first 1, 2, 4 and 8."""
    right, places = torch.zeros(4), 0
    for text in texts:
        x = shortcut.llama.normed(shortcut.given(text.first), 1.0) * shortcut.llama.output_norm
        hits = F.linear(x, shortcut.llama.head).topk(8).indices[:-1] == text.tokens[1:, None]
        right += torch.stack([hits[:, :n].any(1).sum() for n in (1, 2, 4, 8)])
        places += len(hits)
    return " ".join(f"{share:.3f}" for share in (right / places).tolist())


def loss_of(shortcut, text, generator):
    """How far its chances are from the model's, of the likely tokens and of some others; summed over the text."""
    llama = shortcut.llama
    others = torch.randint(len(llama.head), (768,), generator=generator)
    weights = llama.head[torch.cat((text.likely[1:].flatten(), others)).unique()] * llama.output_norm
    with torch.no_grad():
        wanted = F.softmax(text.given[1:].float() @ weights.T, -1)
    logits = llama.normed(shortcut.given(text.first)[1:], 1.0) @ weights.T
    return -(wanted * F.log_softmax(logits, -1)).sum()


def train(options):
    llama = Llama(ModelFile(options.model))
    read = [read_texts(path) for path in options.features + options.held]
    layers = read[0][0]
    if any(numbers != layers for numbers, _ in read):
        raise SystemExit(f"features of layers {', '.join(str(numbers) for numbers, _ in read)} do not go together")
    texts = [text for _, some in read[:len(options.features)] for text in some]
    held = [text for _, some in read[len(options.features):] for text in some]
    weight, bias, size, explained = regress(texts)
    shortcut = Shortcut(llama, layers, weight, bias, size)
    print(f"{len(texts)} texts of {sum(len(text.tokens) for text in texts)} tokens; the regression explains "
          f"{explained:.3f}; held out {count(shortcut, held)}", flush=True)
    shortcut.write(options.out)
    optimizer = torch.optim.Adam([shortcut.scaled, shortcut.bias], lr=options.rate, betas=(0.9, 0.98))
    generator, order, left, began = torch.Generator().manual_seed(1), random.Random(2), [], time.time()
    for step in range(1, options.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, step / 10) * (1 - 0.9 * step / options.steps)
        if len(left) < options.batch:
            left = list(texts)
            order.shuffle(left)
        some = [left.pop() for _ in range(min(options.batch, len(left)))]
        tokens, total = sum(len(text.tokens) - 1 for text in some), 0
        optimizer.zero_grad()
        for text in some:
            loss = loss_of(shortcut, text, generator) / tokens
            loss.backward()
            total += loss.item()
        optimizer.step()
        if step % options.every == 0 or step == options.steps:
            shortcut.write(options.out)
            print(f"step {step}: {total:.3f}; held out {count(shortcut, held)}; {time.time() - began:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("features", write_features), ("train", train)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--model", required=True)
        command.add_argument("--out", required=True)
        if name == "features":
            command.add_argument("--texts", required=True)
            command.add_argument("--layers", required=True, help="the first layer left out, and the one behind the last")
            command.add_argument("--threads", type=int, default=2)
            continue
        command.add_argument("--features", action="append", required=True)
        command.add_argument("--held", action="append", required=True)
        command.add_argument("--steps", type=int, default=160)
        command.add_argument("--batch", type=int, default=6, help="texts of a step")
        command.add_argument("--rate", type=float, default=2e-4)
        command.add_argument("--every", type=int, default=40)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
