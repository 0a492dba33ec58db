"""The Llama of llama2.c: its checkpoint (version 0), its forward pass in torch, and the GGUF file of the result."""
import struct

import numpy
import torch
import torch.nn as nn
import torch.nn.functional as F

EPSILON = 1e-5


def read_checkpoint(path):
    """(shape, weights by name) of a checkpoint, which a tokenizer may follow in the same file."""
    with open(path, "rb") as file:
        width, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", file.read(28))
        if not (0 < width <= 4096 and 0 < layers <= 64 and heads == kv_heads and width % heads == 0 and vocabulary > 0):
            raise SystemExit(f"{path}: no checkpoint of llama2.c, version 0, with tied head and as many K as Q heads")
        sizes = [("embedding", (vocabulary, width)), ("attention_norm", (layers, width)),
                 ("q", (layers, width, width)), ("k", (layers, width, width)), ("v", (layers, width, width)),
                 ("o", (layers, width, width)), ("ffn_norm", (layers, width)), ("gate", (layers, hidden, width)),
                 ("down", (layers, width, hidden)), ("up", (layers, hidden, width)), ("output_norm", (width,)),
                 ("rotation", (2, context, width // heads // 2))]
        weights = {}
        for name, size in sizes:
            count = int(numpy.prod(size))
            values = numpy.fromfile(file, dtype="<f4", count=count)
            if len(values) != count:
                raise SystemExit(f"{path}: ends within {name}")
            weights[name] = torch.from_numpy(values.reshape(size))
        shape = {"width": width, "hidden": hidden, "layers": layers, "heads": heads, "vocabulary": vocabulary,
                 "context": context, "weight_end": file.tell()}
    return shape, weights


def read_vocabulary(path, shape):
    """(text, score, type) of each token, from the tokenizer behind the weights."""
    tokens = []
    with open(path, "rb") as file:
        file.seek(shape["weight_end"] + 4)
        for token in range(shape["vocabulary"]):
            score, size = struct.unpack("<fi", file.read(8))
            text = file.read(size)
            if token < 3:
                tokens.append((("<unk>", "<s>", "</s>")[token].encode(), 0.0, 2 if token == 0 else 3))
            elif token < 259:
                tokens.append((b"<0x%02X>" % (token - 3), 0.0, 6))
            else:
                tokens.append((text.replace(b" ", "\u2581".encode()), score, 1))
    return tokens


class Llama(nn.Module):
    """A decoder; embedding (and the head, which is the same table), norms and attention as they came. The
    FFN's weights are parameters of their own; make_trainable adds the norms and attention to what is learned."""

    def __init__(self, shape, weights, activation):
        super().__init__()
        self.shape, self.activation = shape, activation
        for name, value in weights.items():
            setattr(self, name, nn.Parameter(value.clone(), requires_grad=False))

    def make_trainable(self):
        names = ("attention_norm", "q", "k", "v", "o", "ffn_norm", "gate", "down", "up", "output_norm")
        for name in names:
            getattr(self, name).requires_grad_(True)
        return [getattr(self, name) for name in names]

    def new_cache(self, batch, length):
        heads, layers = self.shape["heads"], self.shape["layers"]
        return torch.zeros(layers, 2, batch, heads, length, self.shape["width"] // heads, dtype=self.q.dtype)

    def ffn(self, layer, normed):
        """(gate, activation, output) of one FFN."""
        gate, up = F.linear(normed, self.gate[layer]), F.linear(normed, self.up[layer])
        if self.activation == "drelu":
            activation = F.relu(gate) * F.relu(up)
        else:
            activation = (F.relu(gate) if self.activation == "relu" else F.silu(gate)) * up
        return gate, activation, F.linear(activation, self.down[layer])

    def rotate(self, x, first):
        """RoPE over neighbouring pairs."""
        length = x.shape[2]
        cos, sin = self.rotation[0, first:first + length], self.rotation[1, first:first + length]
        pairs = x.float().unflatten(-1, (-1, 2))
        even, odd = pairs[..., 0], pairs[..., 1]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)

    def attention(self, layer, normed, cache, first):
        batch, length, width = normed.shape
        split = (batch, length, self.shape["heads"], -1)
        q, k, v = (F.linear(normed, w[layer]).view(split).transpose(1, 2) for w in (self.q, self.k, self.v))
        q, k = self.rotate(q, first), self.rotate(k, first)
        if cache is not None:
            cache[layer, 0, :, :, first:first + length] = k
            cache[layer, 1, :, :, first:first + length] = v
            k, v = cache[layer, :, :, :, :first + length].to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return F.linear(out.transpose(1, 2).reshape(batch, length, width), self.o[layer])

    def norm(self, x, weight):
        return F.rms_norm(x, x.shape[-1:], weight, EPSILON)

    def hidden(self, tokens, cache=None, first=0, record=None, gates=None, activations=None):
        """The normed hidden state of each token; what each FFN saw and gave is appended to the lists."""
        x = F.embedding(tokens, self.embedding)
        for layer in range(self.shape["layers"]):
            x = x + self.attention(layer, self.norm(x, self.attention_norm[layer]), cache, first)
            normed = self.norm(x, self.ffn_norm[layer])
            gate, activation, out = self.ffn(layer, normed)
            x = x + out
            if record is not None:
                record.append((normed, out))
            if gates is not None:
                gates.append(gate)
            if activations is not None:
                activations.append(activation)
        return self.norm(x, self.output_norm)

    def head(self, hidden, vocabulary=None):
        return F.linear(hidden, self.embedding if vocabulary is None else self.embedding[vocabulary])


# ---------------------------------------------------------------------------------------------- GGUF

def quantize(values, kind):
    """(GGUF type number, bytes) of a matrix, in blocks of 32 along its rows."""
    values = values.astype("<f4")
    if kind == "f32" or values.ndim == 1:
        return 0, values.tobytes()
    if kind == "f16":
        return 1, values.astype("<f2").tobytes()
    blocks = values.reshape(-1, 32)
    if kind == "q8_0":
        scale = numpy.abs(blocks).max(1, keepdims=True) / 127
        number, payload = 8, lambda q: q.astype(numpy.int8)
    else:  # q4_0: the value of largest magnitude becomes -8
        scale = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(1)[:, None], 1) / -8
        number, payload = 2, lambda q: ((q[:, :16] + 8) | (q[:, 16:] + 8) << 4).astype(numpy.uint8)
    inverse = numpy.divide(1, scale, out=numpy.zeros_like(scale), where=scale != 0)
    limits = (-127, 127) if kind == "q8_0" else (-8, 7)
    integers = numpy.clip(numpy.rint(blocks * inverse), *limits).astype(numpy.int32)
    halves = scale.astype("<f2").view(numpy.uint8).reshape(-1, 2)
    return number, numpy.concatenate((halves, payload(integers).view(numpy.uint8)), 1).tobytes()


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, kind, value):
    forms = {"u32": (4, lambda v: struct.pack("<I", v)), "f32": (6, lambda v: struct.pack("<f", v)), "str": (8, text)}
    if isinstance(kind, tuple):
        number, pack = {"str": forms["str"], "f32": forms["f32"], "i32": (5, lambda v: struct.pack("<i", v))}[kind[0]]
        return text(name) + struct.pack("<IIQ", 9, number, len(value)) + b"".join(map(pack, value))
    number, pack = forms[kind]
    return text(name) + struct.pack("<I", number) + pack(value)


def metadata(shape, tokens, activation):
    head = shape["width"] // shape["heads"]
    return [key("general.architecture", "str", "llama"), key("general.name", "str", f"stories15M {activation}"),
            key("llama.context_length", "u32", shape["context"]), key("llama.embedding_length", "u32", shape["width"]),
            key("llama.block_count", "u32", shape["layers"]), key("llama.feed_forward_length", "u32", shape["hidden"]),
            key("llama.attention.head_count", "u32", shape["heads"]),
            key("llama.attention.head_count_kv", "u32", shape["heads"]),
            key("llama.attention.layer_norm_rms_epsilon", "f32", EPSILON),
            key("llama.rope.dimension_count", "u32", head), key("llama.vocab_size", "u32", shape["vocabulary"]),
            key("powerinfer2.ffn_activation", "str", activation),
            key("tokenizer.ggml.model", "str", "llama"),
            key("tokenizer.ggml.tokens", ("str",), [token[0] for token in tokens]),
            key("tokenizer.ggml.scores", ("f32",), [token[1] for token in tokens]),
            key("tokenizer.ggml.token_type", ("i32",), [token[2] for token in tokens]),
            key("tokenizer.ggml.bos_token_id", "u32", 1), key("tokenizer.ggml.eos_token_id", "u32", 2),
            key("tokenizer.ggml.unknown_token_id", "u32", 0)]


def write_gguf(path, checkpoint, model, activation, kind):
    """Writes the model as a GGUF file, matrices in the type named, tables in F32."""
    names = {"attention_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
             "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    tensors = [("token_embd.weight", model.embedding)]
    for layer in range(model.shape["layers"]):
        tensors += [(f"blk.{layer}.{theirs}.weight", getattr(model, ours)[layer]) for ours, theirs in names.items()]
    tensors.append(("output_norm.weight", model.output_norm))
    keys = metadata(model.shape, read_vocabulary(checkpoint, model.shape), activation)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    offset, payloads = 0, []
    for name, tensor in tensors:
        values = tensor.detach().numpy()
        number, data = quantize(values, kind)
        header += text(name) + struct.pack("<I", values.ndim)
        header += struct.pack(f"<{values.ndim}Q", *reversed(values.shape)) + struct.pack("<IQ", number, offset)
        payloads.append(data + bytes(-len(data) % 32))
        offset += len(payloads[-1])
    with open(path, "wb") as file:
        file.write(header + bytes(-len(header) % 32))
        file.writelines(payloads)
