#!/usr/bin/env python3
"""A second reader of cluster files, written from docs/cluster_file_format.md alone.

usage: read_cluster_file.py MODEL.gguf MODEL.pi2

Rebuilds every tensor of the model from the cluster file and compares it with the model, byte for
byte. Exit status 0: equal; 1: not. Needs nothing but Python 3.
"""
import struct
import sys

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# type id: (columns of a block, bytes of a block)
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
          12: (256, 144), 14: (256, 210), 24: (1, 1), 30: (1, 2)}
ROWS = 16  # of a tile
LOW = bytes(i & 15 for i in range(256))
HIGH = bytes(i >> 4 for i in range(256))


class Gguf:
    """The header of one GGUF file, and its bytes."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.at = 0
        magic, self.version, tensor_count, key_count = self.take("<4sIQQ")
        assert magic == b"GGUF" and self.version in (2, 3), path
        self.keys = {}
        for _ in range(key_count):
            name = self.string()
            self.keys[name] = self.value(self.take("<I")[0])
        self.tensors = {}
        for _ in range(tensor_count):
            name = self.string()
            dimensions = self.take("<%dQ" % self.take("<I")[0])
            self.tensors[name] = (dimensions,) + self.take("<IQ")
        alignment = self.keys.get("general.alignment", 32)
        self.data = -(-self.at // alignment) * alignment

    def take(self, layout):
        values = struct.unpack_from(layout, self.bytes, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self):
        length = self.take("<Q")[0]
        self.at += length
        return self.bytes[self.at - length:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.take("<IQ")
            if element in NUMBERS:
                return list(self.take("<%d%s" % (count, NUMBERS[element])))
            return [self.value(element) for _ in range(count)]
        return self.take("<" + NUMBERS[kind])[0]

    def tensor_bytes(self, name):
        dimensions, kind, offset = self.tensors[name]
        columns, block = BLOCKS[kind]
        count = dimensions[0] // columns * block
        for dimension in dimensions[1:]:
            count *= dimension
        start = self.data + offset
        return self.bytes[start:start + count]


# ---- blocks out of tiles. scales, values: this block's part of the two areas of the tile. ----

def nibbles(area, row):
    """32 values of 4 bits: 4 x 64 bytes; a row's 4 bytes hold 8 columns."""
    out = b""
    for pair in range(4):
        four = area[64 * pair + 4 * row:64 * pair + 4 * row + 4]
        out += four.translate(LOW) + four.translate(HIGH)
    return out


def fifth_bits(area, row):
    """Bit 4 of 32 values, as one number whose bit k belongs to column k."""
    four = area[4 * row:4 * row + 4]
    return sum(((four[k % 4] >> (k // 4)) & 1) << k for k in range(32))


def six_bits(area, row):
    """16 values of 6 bits: 64 bytes of bits 4-5, then 2 x 64 bytes of nibbles."""
    high = area[4 * row:4 * row + 4]
    low = b""
    for pair in range(2):
        four = area[64 + 64 * pair + 4 * row:64 + 64 * pair + 4 * row + 4]
        low += four.translate(LOW) + four.translate(HIGH)
    return [low[k] | ((high[k % 4] >> (2 * (k // 4))) & 3) << 4 for k in range(16)]


def halves(q):
    """How the types of 32 columns store nibbles: column j low, column j + 16 high."""
    return bytes(q[j] | q[j + 16] << 4 for j in range(16))


def two_bytes(scales, place, row):
    return scales[32 * place + 2 * row:32 * place + 2 * row + 2]


def block_q4_0(scales, values, row):
    return two_bytes(scales, 0, row) + halves(nibbles(values, row))


def block_q4_1(scales, values, row):
    return two_bytes(scales, 0, row) + two_bytes(scales, 1, row) + halves(nibbles(values, row))


def block_q5_0(scales, values, row):
    bits = struct.pack("<I", fifth_bits(values[256:320], row))
    return two_bytes(scales, 0, row) + bits + halves(nibbles(values, row))


def block_q5_1(scales, values, row):
    bits = struct.pack("<I", fifth_bits(values[256:320], row))
    return (two_bytes(scales, 0, row) + two_bytes(scales, 1, row) + bits +
            halves(nibbles(values, row)))


def block_q8_0(scales, values, row):
    return two_bytes(scales, 0, row) + b"".join(
        values[64 * g + 4 * row:64 * g + 4 * row + 4] for g in range(8))


def block_q4_k(scales, values, row):
    out = two_bytes(scales, 0, row) + two_bytes(scales, 1, row)
    for word in range(3):
        out += scales[64 + 64 * word + 4 * row:64 + 64 * word + 4 * row + 4]
    for pair in range(4):
        low = nibbles(values[512 * pair:512 * pair + 256], row)
        high = nibbles(values[512 * pair + 256:512 * pair + 512], row)
        out += bytes(a | b << 4 for a, b in zip(low, high))
    return out


def block_q6_k(scales, values, row):
    q = []
    for part in range(16):
        q += six_bits(values[192 * part:192 * part + 192], row)
    low, high = bytearray(128), bytearray(64)
    for column in range(256):
        half, quarter, i = column // 128, column // 32 % 4, column % 32
        low[64 * half + 32 * (quarter % 2) + i] |= (q[column] & 15) << (4 * (quarter // 2))
        high[32 * half + i] |= (q[column] >> 4) << (2 * quarter)
    return (bytes(low + high) + bytes(scales[32 + 16 * part + row] for part in range(16)) +
            two_bytes(scales, 0, row))


# type id: (bytes of a block of 16 rows in the scale area, in the value area, unpacking of a row)
TILES = {
    0: (0, 64, lambda scales, values, row: values[4 * row:4 * row + 4]),
    1: (0, 32, lambda scales, values, row: values[2 * row:2 * row + 2]),
    30: (0, 32, lambda scales, values, row: values[2 * row:2 * row + 2]),
    2: (32, 256, block_q4_0),
    3: (64, 256, block_q4_1),
    6: (32, 320, block_q5_0),
    7: (64, 320, block_q5_1),
    8: (32, 512, block_q8_0),
    12: (256, 2048, block_q4_k),
    14: (288, 3072, block_q6_k),
}


# Types whose tiles are arrays: id: (block's columns, bytes, arrays of the scale area, of the value area), an array as
# (first byte in the block, bytes of an element, elements).
ARRAYS = {
    10: (256, 84, ((80, 2, 2), (0, 4, 4)), ((16, 4, 16),)),
    11: (256, 110, ((108, 2, 1), (96, 4, 3)), ((0, 4, 8), (32, 4, 16))),
    13: (256, 176, ((0, 2, 2), (4, 4, 3)), ((16, 4, 8), (48, 4, 32))),
    16: (256, 66, ((0, 2, 1),), ((2, 4, 16),)),
    17: (256, 74, ((0, 2, 1), (66, 4, 2)), ((2, 4, 16),)),
    18: (256, 98, ((0, 2, 1),), ((2, 4, 16), (66, 4, 8))),
    20: (32, 18, ((0, 2, 1),), ((2, 4, 4),)),
    21: (256, 110, ((0, 2, 1), (106, 4, 1)), ((2, 4, 16), (66, 4, 2), (74, 4, 8))),
    22: (256, 82, ((0, 2, 1), (74, 4, 2)), ((2, 4, 8), (34, 4, 8), (66, 4, 2))),
    23: (256, 136, ((0, 2, 2), (4, 4, 1)), ((8, 4, 32),)),
    34: (256, 54, ((52, 2, 1),), ((0, 4, 13),)),
    35: (256, 66, ((64, 2, 1),), ((0, 4, 16),)),
    39: (32, 17, ((0, 1, 1),), ((1, 4, 4),)),
    40: (64, 36, ((0, 4, 1),), ((4, 4, 8),)),
}


def array_reader(block_bytes, scale_arrays, value_arrays):
    def read(scales, values, row):
        block = bytearray(block_bytes)
        for area, arrays in ((scales, scale_arrays), (values, value_arrays)):
            place = 0
            for first, size, count in arrays:
                for e in range(count):
                    block[first + size * e:first + size * (e + 1)] = area[place + size * row:place + size * (row + 1)]
                    place += ROWS * size
        return bytes(block)
    return read


for kind_, (columns_, bytes_, scales_, values_) in ARRAYS.items():
    BLOCKS[kind_] = (columns_, bytes_)
    TILES[kind_] = (ROWS * sum(size * count for _, size, count in scales_),
                    ROWS * sum(size * count for _, size, count in values_), array_reader(bytes_, scales_, values_))


def padded(count):
    return -(-count // 64) * 64


def tile_row(tile, kind, columns, row):
    """One row of a tile as GGUF blocks."""
    scale_bytes, value_bytes, unpack = TILES[kind]
    blocks = columns // BLOCKS[kind][0]
    values = padded(blocks * scale_bytes)
    return b"".join(
        unpack(tile[b * scale_bytes:(b + 1) * scale_bytes],
               tile[values + b * value_bytes:values + (b + 1) * value_bytes], row)
        for b in range(blocks))


def rebuild(cluster):
    """Every matrix of the layout: name -> bytes as in the model."""
    keys = {name[len("powerinfer2."):]: value for name, value in cluster.keys.items()
            if name.startswith("powerinfer2.")}
    assert keys["version"] == 2 and not keys.get("features")
    assert keys["tile.rows"] == ROWS and keys["tile.alignment"] == 64
    names, kinds = keys["tensor.names"], keys["tensor.types"]
    columns = keys["tensor.columns"]
    row_bytes = [c // BLOCKS[k][0] * BLOCKS[k][1] for c, k in zip(columns, kinds)]
    out = [bytearray(r * rows) for r, rows in zip(row_bytes, keys["tensor.rows"])]
    first_tensors = {}  # of a kind of group: the tensor of its first piece
    extent = piece = 0
    for group, kind, extent_count in zip(keys["group.names"], keys["group.kinds"], keys["group.extent_counts"]):
        group_bytes = cluster.tensor_bytes(group)
        first_tensors.setdefault(kind, keys["piece.tensors"][piece])
        for extent in range(extent, extent + extent_count):
            start = keys["extent.offsets"][extent]
            data = group_bytes[start:start + keys["extent.bytes"][extent]]
            for piece in range(piece, piece + keys["extent.piece_counts"][extent]):
                t = keys["piece.tensors"][piece]
                at = keys["piece.offsets"][piece]
                begin, count = keys["piece.row_begins"][piece], keys["piece.row_counts"][piece]
                first, wide = keys["piece.column_begins"][piece], keys["piece.column_counts"][piece]
                block_columns, block_bytes = BLOCKS[kinds[t]]
                piece_row = wide // block_columns * block_bytes
                scale_bytes, value_bytes, _ = TILES[kinds[t]]
                tile_bytes = (padded(wide // block_columns * scale_bytes) +
                              padded(wide // block_columns * value_bytes))
                for row in range(count):
                    if keys["tensor.is_raw"][t]:
                        blocks = data[at + row * piece_row:at + (row + 1) * piece_row]
                    else:
                        tile = at + row // ROWS * tile_bytes
                        blocks = tile_row(data[tile:tile + tile_bytes], kinds[t], wide, row % ROWS)
                    target = (begin + row) * row_bytes[t] + first // block_columns * block_bytes
                    out[t][target:target + piece_row] = blocks
            piece += 1
        extent += 1
    looked_up = first_tensors.get(4, first_tensors.get(3))
    runs = 0 if looked_up is None else -(-keys["tensor.rows"][looked_up] // ROWS)
    assert len(keys["lookup.checksums"]) == runs
    return dict(zip(names, map(bytes, out)))


def main():
    model, cluster = Gguf(sys.argv[1]), Gguf(sys.argv[2])
    matrices = rebuild(cluster)
    wrong = 0
    for name in model.tensors:
        is_matrix = name in matrices
        found = matrices[name] if is_matrix else cluster.tensor_bytes(name)
        if found != model.tensor_bytes(name):
            print("%s differs" % name)
            wrong += 1
    for name, value in model.keys.items():
        if not name.startswith("split.") and name != "general.alignment":
            if repr(cluster.keys.get(name)) != repr(value):
                print("key %s differs" % name)
                wrong += 1
    print("%d tensors (%d matrices) compared, %d differences" %
          (len(model.tensors), len(matrices), wrong))
    return 1 if wrong or not matrices else 0


if __name__ == "__main__":
    sys.exit(main())
