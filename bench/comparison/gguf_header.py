"""Just enough of GGUF to know how many bytes of weights a token needs, and its KV cache."""
import struct

FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Header:
    """The metadata and tensor sizes of one GGUF file."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self._file = file
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError(f"{path} is no GGUF file of version 2 or 3")
            self.metadata = {}
            for _ in range(pairs):
                key = self._string()
                self.metadata[key] = self._value(self._read("I"))
            entries = []
            for _ in range(tensors):
                name = self._string()
                dims = [self._read("Q") for _ in range(self._read("I"))]
                type_id, offset = self._read("I"), self._read("Q")
                entries.append((offset, name, dims, type_id))
            alignment = self.metadata.get("general.alignment", 32)
            data = -(-file.tell() // alignment) * alignment
            file.seek(0, 2)
            end = file.tell() - data
            del self._file
        entries.sort()
        ends = [entry[0] for entry in entries[1:]] + [end]
        self.types = {name: type_id for _, name, _, type_id in entries}
        self.tensors = {name: (stop - offset, dims) for (offset, name, dims, _), stop
                        in zip(entries, ends)}

    def _read(self, code):
        return struct.unpack("<" + code, self._file.read(struct.calcsize(code)))[0]

    def _string(self):
        return self._file.read(self._read("Q")).decode("utf-8", "replace")

    def _value(self, kind):
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            item, count = self._read("I"), self._read("Q")
            if item in FIXED:
                self._file.seek(struct.calcsize(FIXED[item]) * count, 1)
                return None
            for _ in range(count):
                self._value(item)
            return None
        return self._read(FIXED[kind])

    def _get(self, name, default=None):
        return self.metadata.get(f"{self.metadata['general.architecture']}.{name}", default)

    def weights(self, context):
        """Sizes that the limits are made of, in bytes, of a token unless said:

        fixed_bytes  what every token uses: all but experts and the other rows of the embedding
        expert_bytes (of one expert), experts (in all layers), experts_used (in all layers)
        pass_bytes   what one token of decode computes with
        prompt_operations  multiplications and additions of a prompt's token, head left out
        kv_bytes     of an F16 cache of `context` positions"""
        count, used = self._get("expert_count", 0), self._get("expert_used_count", 0)
        fixed = stacked = experts = operations = 0
        is_tied = "output.weight" not in self.tensors
        for name, (size, dims) in self.tensors.items():
            cells = 1
            for dim in dims:
                cells *= dim
            if "_exps." in name:
                stacked += size
                experts = experts + count if "down" in name else experts
                operations += 2 * cells * used // count
                continue
            # A table of embeddings that is not also the head gives a token one row.
            is_rows = name == "token_embd.weight" and not is_tied
            fixed += size // dims[1] if is_rows else size
            if len(dims) > 1 and name not in ("token_embd.weight", "output.weight"):
                operations += 2 * cells
        expert = stacked // experts if experts else 0
        in_use = experts * used // count if count else 0
        return {"fixed_bytes": fixed, "expert_bytes": expert, "experts": experts,
                "experts_used": in_use, "pass_bytes": fixed + in_use * expert,
                "prompt_operations": operations, "kv_bytes": self.kv_bytes(context)}

    def bytes_of_types(self, types):
        """Bytes of the tensors that have one of these GGUF type numbers."""
        return sum(size for name, (size, _) in self.tensors.items() if self.types[name] in types)

    def kv_bytes(self, context):
        """Bytes of an F16 KV cache of `context` positions."""
        get = self._get
        heads = get("attention.head_count")
        width = get("attention.key_length") or get("embedding_length") // heads
        return 2 * 2 * context * get("block_count") * get("attention.head_count_kv", heads) * width
