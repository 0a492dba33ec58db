"""A model of the llama family in torch, of its GGUF: what it gives for each token of a text."""
import torch
import torch.nn.functional as F

from draft_layer import rotate


class Llama:
    def __init__(self, model):
        self.model, self.embedding, self.head = model, model.tensor("token_embd.weight"), model.head()
        names = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
        self.weights = [{name: model.of_layer(layer, name) for name in names} for layer in range(model.layers)]
        self.output_norm = model.tensor("output_norm.weight")

    def normed(self, x, weight):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.model.epsilon) * weight

    def layer(self, x, w):
        model, rows = self.model, len(x)
        h = self.normed(x, w["attn_norm"])
        q = rotate(F.linear(h, w["attn_q"]).view(rows, model.heads, -1), model.rope_base)
        k = rotate(F.linear(h, w["attn_k"]).view(rows, model.kv_heads, -1), model.rope_base)
        v = F.linear(h, w["attn_v"]).view(rows, model.kv_heads, -1)
        group = model.heads // model.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        attended = F.scaled_dot_product_attention(*(m.transpose(0, 1)[None] for m in (q, k, v)), is_causal=True)[0]
        x = x + F.linear(attended.transpose(0, 1).flatten(1), w["attn_output"])
        h = self.normed(x, w["ffn_norm"])
        return x + F.linear(F.silu(F.linear(h, w["ffn_gate"])) * F.linear(h, w["ffn_up"]), w["ffn_down"])

    @torch.no_grad()
    def given(self, tokens, likely):
        """(the direction of what it gives for each token, the tokens that are likeliest after it)"""
        x = self.embedding[tokens]
        for weights in self.weights:
            x = self.layer(x, weights)
        direction = self.normed(x, 1.0)
        logits = F.linear(direction * self.output_norm, self.head)
        return direction.half(), logits.topk(likely).indices.int()
