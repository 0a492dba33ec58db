"""One step of training, written for a CPU: few passes over memory, large tensors nowhere, each thread on its own.

The forward pass is story_model.Llama's, with gradients by hand where torch's own would go over memory too often. It is
for training only: text is written, and results are measured, by Llama itself.
"""
import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F

from story_model import EPSILON

PART = 128  # tokens whose probabilities are compared at once: what stays in a core's cache


def keep_freed_memory():
    """Has glibc keep what is freed: else it gives back large tensors, and each new one costs a fault a page."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        one_arena, largest_in_heap, never_trim = (-8, 1), (-3, 32 << 20), (-1, 2 ** 31 - 1)
        for name, value in (one_arena, largest_in_heap, never_trim):
            library.mallopt(name, value)


def in_threads(function, parts):
    """[function(part) for each part], each in a thread of its own, whose operations use one core. Operations that
    share their work between cores wait for each other some hundred times a step, and very long on a machine that
    does other work besides; parts of a batch wait once."""
    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(function, parts))


class Norm(torch.autograd.Function):
    """RMS norm of float rows; the result in another type."""

    @staticmethod
    def forward(ctx, x, weight, dtype):
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse = squares.mul_(1 / x.shape[-1]).add_(EPSILON).rsqrt_()
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(ctx, gradient):
        normed, inverse, weight = ctx.saved_tensors
        gradient = gradient.float()
        of_weight = (gradient * normed).sum(0)
        gradient = gradient * weight
        mean = (gradient * normed).mean(-1, keepdim=True)
        return torch.addcmul(gradient, normed, mean, value=-1).mul_(inverse), of_weight, None


class Firing(torch.autograd.Function):
    """relu(gate) * up, and a penalty on what fires, whose gradient is added to Gate's.

    The penalty is a smooth count: the mean of x / (x + t), with t a fifth of the mean of the layer's positive
    part, is near 1 for what clearly fires and steep near 0: it pushes the faint ones under the threshold and
    leaves the others alone. It does not change when gates shrink and ups grow, so it cannot be cheated by scale."""

    @staticmethod
    def forward(ctx, gate, up, pressure, fired):
        positive = F.relu(gate)
        fires = positive.sign()
        count = max(1.0, float(fires.sum(dtype=torch.float32)))
        threshold = max(0.2 * float(positive.sum(dtype=torch.float32)) / count, 1e-6)
        faintness = torch.add(positive, threshold).reciprocal_().mul_(threshold)
        fired.append((fires * up.sign()).abs_().mean(dtype=torch.float32))
        ctx.save_for_backward(positive, fires, up, faintness)
        ctx.slope = pressure / (threshold * gate.numel())
        return positive * up

    @staticmethod
    def backward(ctx, gradient):
        positive, fires, up, faintness = ctx.saved_tensors
        of_gate = (gradient * up).addcmul_(faintness, faintness, value=ctx.slope).mul_(fires)
        return of_gate, gradient * positive, None, None


class Pass:
    """A forward pass over whole sequences, in dtype, by weights that are converted once.

    pressure: the penalty's weight. fired: of each FFN the share of neurons that fired is appended to it."""

    def __init__(self, model, dtype, pressure=0.0):
        self.model, self.dtype, self.pressure, self.fired = model, dtype, pressure / model.shape["layers"], []
        for name in ("q", "k", "v", "o", "gate", "up", "down"):
            setattr(self, name, getattr(model, name).to(dtype).unbind(0))
        # Q's and K's pairs for RoPE, neighbours in the model, lie in halves here: scores are the same.
        self.q, self.k = ([self.halves(w) for w in matrices] for matrices in (self.q, self.k))
        self.attention_norm, self.ffn_norm = model.attention_norm.unbind(0), model.ffn_norm.unbind(0)

    def halves(self, matrix):
        return matrix.view(self.model.shape["heads"], -1, 2, matrix.shape[-1]).transpose(1, 2).reshape(matrix.shape)

    def attention(self, layer, normed, count, length):
        heads, width = self.model.shape["heads"], self.model.shape["width"]
        cos, sin = (self.model.rotation[i, :length, None, :].to(self.dtype) for i in (0, 1))

        def rotate(x):
            first, second = x.view(count, length, heads, 2, -1).unbind(-2)
            return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)

        def by_head(x):
            return x.view(count, length, heads, -1).transpose(1, 2).reshape(count * heads, length, -1)
        q, k = (by_head(rotate(F.linear(normed, w[layer]))) for w in (self.q, self.k))
        v = by_head(F.linear(normed, self.v[layer]))
        later = torch.full((length, length), float("-inf"), dtype=self.dtype).triu(1)
        scores = torch.baddbmm(later.expand(len(q), length, length), q, k.transpose(1, 2),
                               alpha=(width // heads) ** -0.5)
        seen = torch.bmm(torch.softmax(scores, -1), v).view(count, heads, length, -1)
        return F.linear(seen.transpose(1, 2).reshape(count * length, width), self.o[layer])

    def ffn(self, layer, normed):
        gate, up = F.linear(normed, self.gate[layer]), F.linear(normed, self.up[layer])
        if self.model.activation == "silu":
            return F.linear(F.silu(gate) * up, self.down[layer])
        up = F.relu(up) if self.model.activation == "drelu" else up
        return F.linear(Firing.apply(gate, up, self.pressure, self.fired), self.down[layer])

    def hidden(self, tokens, record=None):
        """The normed hidden state of each token, [tokens, width]; record: of each FFN (input, output)."""
        count, length = tokens.shape
        x = F.embedding(tokens, self.model.embedding).view(count * length, -1)
        for layer in range(self.model.shape["layers"]):
            normed = Norm.apply(x, self.attention_norm[layer], self.dtype)
            x = x + self.attention(layer, normed, count, length)
            normed = Norm.apply(x, self.ffn_norm[layer], self.dtype)
            out = self.ffn(layer, normed)
            x = x + out
            if record is not None:
                record.append((normed, out))
        return Norm.apply(x, self.model.output_norm, self.dtype)


@torch.no_grad()
def divergence(hidden, wanted, head):
    """(mean Kullback-Leibler divergence of the next token's probabilities, its gradient by hidden). wanted: the
    teacher's hidden states, [tokens, width]; head: of the tokens that are compared."""
    total, gradient = 0.0, torch.empty_like(hidden)
    for first in range(0, len(hidden), PART):
        theirs, mine = (F.linear(x[first:first + PART], head) for x in (wanted, hidden))
        theirs -= theirs.amax(-1, keepdim=True)
        mine -= mine.amax(-1, keepdim=True)
        p, q = theirs.exp(), mine.exp()
        p_sum, q_sum = (x.sum(-1, keepdim=True, dtype=torch.float32) for x in (p, q))
        p.mul_(1 / p_sum)
        q.mul_(1 / q_sum)
        total += float((p * theirs.sub_(mine)).sum(dtype=torch.float32) + (q_sum / p_sum).log().sum())
        gradient[first:first + PART] = q.sub_(p) @ head
    return total / len(hidden), gradient.mul_(1 / len(hidden))


def model_step(student, parameters, batch, wanted, head, pressure):
    """(loss, shares that fired, gradients) of the whole model on the teacher's hidden states."""
    forward = Pass(student, head.dtype, pressure)
    hidden = forward.hidden(batch)
    loss, gradient = divergence(hidden.detach(), wanted.flatten(0, 1).to(head.dtype), head)
    return loss, forward.fired, torch.autograd.grad(hidden, parameters, gradient)


def layer_step(teacher, student, parameters, batch, dtype, pressure):
    """The same of each layer's FFN by itself: on the teacher's input of it against the teacher's output."""
    record = []
    with torch.no_grad():
        Pass(teacher, dtype).hidden(batch, record)
    forward, loss = Pass(student, dtype, pressure), 0.0
    for layer, (normed, out) in enumerate(record):
        out = out.float()
        loss = loss + ((forward.ffn(layer, normed).float() - out) ** 2).mean() / (out ** 2).mean() / len(record)
    return float(loss.detach()), forward.fired, torch.autograd.grad(loss, parameters, allow_unused=True)
