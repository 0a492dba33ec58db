"""The layer that guesses (EAGLE-3, as src/blocks/block_attention_features.c computes it), in torch.

Row j of a text is made of token j and of what the model gave for token j - 1 (its direction: the layer norms it, so
how long it is says nothing). The row's output guesses what the model will give for token j, and so token j + 1.
Guess s > 1 has in place of the model's output the layer's own for the row before, and reads keys and values as the
engine has them then: of true rows up to where the guessing began, and of the guesses since."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

EPSILON = 1e-5


def normed(x):
    x = x.float()
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPSILON)


def rotate(x, base):
    """[rows, heads, length], row i at position i; neighbours are a pair."""
    rows, _, length = x.shape
    angles = torch.arange(rows)[:, None] * base ** (-torch.arange(0, length, 2) / length)
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def moved(x, rows):
    """Row i is what row i - rows was; the first ones are zero."""
    return x if rows == 0 else torch.cat((torch.zeros_like(x[:rows]), x[:-rows]))


class DraftLayer(nn.Module):
    def __init__(self, width, heads, head_length, neurons, rope_base):
        super().__init__()
        self.width, self.heads, self.head_length, self.rope_base = width, heads, head_length, rope_base
        inner = heads * head_length
        shapes = {"fc": (width, width), "q": (inner, 2 * width), "k": (inner, 2 * width), "v": (inner, 2 * width),
                  "o": (width, inner), "gate": (neurons, width), "up": (neurons, width), "down": (width, neurons)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))
        for name in ("token_norm", "hidden_norm", "ffn_norm", "output_norm"):
            setattr(self, name, nn.Parameter(torch.ones(width)))

    def attend(self, q, keys, values):
        """Of one text. keys[0] are those of true rows, keys[i] those of the i-th guess after."""
        rows, ahead = q.shape[0], len(keys) - 1
        q = q.transpose(0, 1)
        scores = q @ keys[0].permute(1, 2, 0)
        at = torch.arange(rows)
        scores = scores.masked_fill(at[None, :] > at[:, None] - ahead, -1e9)
        parts = [scores]
        for i in range(1, ahead + 1):
            parts.append((q * moved(keys[i], ahead - i).transpose(0, 1)).sum(-1, keepdim=True))
        weights = (torch.cat(parts, -1).float() / math.sqrt(self.head_length)).softmax(-1).to(q.dtype)
        out = weights[..., :rows] @ values[0].transpose(0, 1)
        for i in range(1, ahead + 1):
            out = out + weights[..., rows + i - 1:rows + i] * moved(values[i], ahead - i).transpose(0, 1)
        return out.transpose(0, 1).flatten(1)

    def forward(self, tokens, given, lengths, steps):
        """Of texts one behind another: tokens' rows of the embedding, and what the model gave for the tokens before.
        What each step gives, before the last norm."""
        outputs, cache = [], [([], []) for _ in lengths]
        token = normed(tokens) * self.token_norm
        feature = F.linear(given, self.fc)
        for _ in range(steps):
            x = normed(feature) * self.hidden_norm
            joined = torch.cat((token, x), -1)
            q, k, v = (F.linear(joined, w).view(-1, self.heads, self.head_length) for w in (self.q, self.k, self.v))
            attended, at = [], 0
            for length, (keys, values) in zip(lengths, cache):
                part = slice(at, at + length)
                keys.append(rotate(k[part], self.rope_base))
                values.append(v[part])
                attended.append(self.attend(rotate(q[part], self.rope_base), keys, values))
                at += length
            x = x + F.linear(torch.cat(attended), self.o)
            h = normed(x) * self.ffn_norm
            x = x + F.linear(F.silu(F.linear(h, self.gate)) * F.linear(h, self.up), self.down)
            outputs.append(x)
            at, shifted = 0, []
            for length in lengths:
                shifted.append(moved(x[at:at + length], 1))
                at += length
            feature = torch.cat(shifted)
        return outputs
