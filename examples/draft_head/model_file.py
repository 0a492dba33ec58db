"""What is read of a model's GGUF, and the eagle3 GGUF that is written."""
import gguf
import numpy
import torch


class ModelFile:
    def __init__(self, path):
        self.path, self.reader = path, gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        if self.text("general.architecture") != "llama":
            raise SystemExit(f"{path}: its architecture is {self.text('general.architecture')}; llama is read")
        self.width, self.layers = int(self.key("embedding_length")), int(self.key("block_count"))
        self.heads, self.kv_heads = int(self.key("attention.head_count")), int(self.key("attention.head_count_kv"))
        self.neurons, self.context = int(self.key("feed_forward_length")), int(self.key("context_length"))
        self.epsilon = float(self.key("attention.layer_norm_rms_epsilon"))
        self.rope_base = float(self.key("rope.freq_base", 10000.0))

    def text(self, name):
        return bytes(self.reader.fields[name].parts[-1]).decode()

    def key(self, suffix, other=None):
        field = self.reader.fields.get("llama." + suffix)
        return other if field is None else field.parts[-1][0]

    def tensor(self, name):
        tensor = self.tensors[name]
        return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))

    def head(self):
        return self.tensor("output.weight" if "output.weight" in self.tensors else "token_embd.weight")

    def of_layer(self, number, name):
        return self.tensor(f"blk.{number}.{name}.weight")


def rounded(matrix, kind):
    """As a file of that type gives it back."""
    of_type = getattr(gguf.GGMLQuantizationType, kind)
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(matrix.detach().numpy(), of_type), of_type))


def write_layer(path, layer, model, ids, head, types):
    """layer: DraftLayer; ids: the tokens whose rows `head` has; types: of the layer's matrices, and of the head."""
    writer = gguf.GGUFWriter(path, "eagle3")
    writer.add_block_count(1)
    writer.add_context_length(model.context)
    writer.add_embedding_length(layer.width)
    writer.add_feed_forward_length(layer.gate.shape[0])
    writer.add_head_count(layer.heads)
    writer.add_head_count_kv(layer.heads)
    writer.add_key_length(layer.head_length)
    writer.add_value_length(layer.head_length)
    writer.add_rope_dimension_count(layer.head_length)
    writer.add_rope_freq_base(layer.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("eagle3.target_layers", [model.layers])
    writer.add_uint32("eagle3.target_hidden_size", model.width)
    writer.add_uint32("eagle3.vocab_size", model.head().shape[0])
    writer.add_bool("eagle3.norm_before_residual", True)

    def add(name, value, kind=None):
        values = value.detach().float().numpy()
        if kind is None:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    of_layer, of_head = (getattr(gguf.GGMLQuantizationType, kind) for kind in types)
    add("fc.weight", layer.fc, of_layer)
    for name, value in (("attn_norm", layer.token_norm), ("attn_norm_2", layer.hidden_norm),
                        ("ffn_norm", layer.ffn_norm)):
        add(f"blk.0.{name}.weight", value)
    for name, value in (("attn_q", layer.q), ("attn_k", layer.k), ("attn_v", layer.v), ("attn_output", layer.o),
                        ("ffn_gate", layer.gate), ("ffn_up", layer.up), ("ffn_down", layer.down)):
        add(f"blk.0.{name}.weight", value, of_layer)
    add("output_norm.weight", layer.output_norm)
    add("output.weight", head, of_head)
    writer.add_tensor("d2t", numpy.asarray(ids, dtype=numpy.int64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
