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

    def weight_bytes(self):
        """Bytes of weights that one token of a dense model needs."""
        total = sum(size for size, _ in self.tensors.values())
        # A table of embeddings that is not also the head gives a token one row.
        if "output.weight" in self.tensors and "token_embd.weight" in self.tensors:
            size, dims = self.tensors["token_embd.weight"]
            total -= size - size // dims[1]
        return total

    def kv_bytes(self, context):
        """Bytes of an F16 KV cache of `context` positions."""
        get = lambda name, default=None: self.metadata.get(
            f"{self.metadata['general.architecture']}.{name}", default)
        heads = get("attention.head_count")
        width = get("attention.key_length", get("embedding_length") // heads)
        return 2 * 2 * context * get("block_count") * get("attention.head_count_kv", heads) * width
