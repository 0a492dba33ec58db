"""What a layer begins from: ridge regression's answer, and parts of the model's last layer.

Regression says what the model gives for a token, of the token's embedding and of what it gave for the one before. Of
what it adds to the latter the first singular vectors are values and outputs of heads that see nothing but their own
row: rotation makes the score of a constant direction fall with the distance. The other heads and the FFN's gates are
the model's last layer's; their outputs are zero at first."""
import torch

from draft_layer import DraftLayer, normed


def own_direction(directions):
    """The direction that all have most in common, and how far they go in it at least, but for one of ten."""
    mean = directions.mean(0)
    mean = mean / mean.norm()
    return mean, torch.quantile(directions[:4096] @ mean, 0.1).clamp(min=1.0)


def regression(rows, results, damping):
    gram, product = rows.T @ rows, rows.T @ results
    return torch.linalg.solve(gram + damping * torch.eye(len(gram)), product)


def begin(model, texts, embedding, heads, own_heads, neurons, damping=1000.0):
    length = model.width // model.heads
    layer = DraftLayer(model.width, heads, length, neurons, model.rope_base)
    rows = torch.cat([torch.cat((normed(embedding[text.tokens[1:]]), text.given[:-1].float()), 1) for text in texts])
    results = torch.cat([text.given[1:].float() for text in texts])
    change = regression(rows, results, damping)
    change[model.width:] -= torch.eye(model.width)
    left, values, right = torch.svd_lowrank(change, q=own_heads * length, niter=3)
    mean, least = own_direction(rows[:, model.width:])
    group = model.heads // model.kv_heads
    with torch.no_grad():
        layer.fc.copy_(torch.eye(model.width))
        part = slice(0, own_heads * length)
        layer.v[part] = (left * values.sqrt()).T
        layer.o[:, part] = (right * values.sqrt())
        scale = (8.0 * 6.0) ** 0.5 / least
        for head in range(own_heads):
            for pair in range(length // 4):
                for matrix in (layer.q, layer.k):
                    matrix[head * length + 2 * pair, model.width:] = scale * mean
        last = model.layers - 1
        norm = model.of_layer(last, "attn_norm")
        q, k, v = (model.of_layer(last, name) * norm for name in ("attn_q", "attn_k", "attn_v"))
        for i, head in enumerate(range(own_heads, heads)):
            of_q = (i * model.heads // max(1, heads - own_heads)) % model.heads
            to, source = slice(head * length, (head + 1) * length), slice(of_q * length, (of_q + 1) * length)
            of_kv = slice(of_q // group * length, (of_q // group + 1) * length)
            layer.q[to, model.width:], layer.k[to, model.width:] = q[source], k[of_kv]
            layer.v[to, model.width:] = v[of_kv]
        down = model.of_layer(last, "ffn_down")
        most = down.norm(dim=0).topk(min(neurons, model.neurons)).indices.sort().values
        layer.gate[:len(most)] = model.of_layer(last, "ffn_gate")[most]
        layer.up[:len(most)] = model.of_layer(last, "ffn_up")[most]
        layer.ffn_norm.copy_(model.of_layer(last, "ffn_norm"))
        layer.output_norm.copy_(model.tensor("output_norm.weight"))
    return layer
