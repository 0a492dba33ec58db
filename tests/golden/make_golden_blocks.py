#!/usr/bin/env python3
"""Makes tests/weight_formats/golden_blocks.inc: random blocks of weight types and what the reference decodes them to.

    python3 -m venv v && v/bin/pip install gguf==0.19.0 && v/bin/python tests/golden/make_golden_blocks.py

The reference is the Python package gguf. Equal versions give equal files. Halves are kept finite; other bits are random.
"""
import pathlib
import random

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where a block has halves, by type; the others have scales of one byte, for which any bits will do.
HALVES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q5_K": (0, 2), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ3_XXS": (0,),
          "IQ4_NL": (0,), "IQ3_S": (0,), "IQ2_S": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
          "MXFP4": (), "NVFP4": ()}
OUTPUT = pathlib.Path(__file__).parents[1] / "weight_formats" / "golden_blocks.inc"


def lines_of(text):
    return "\n".join(f'       "{text[i:i + 104]}"' for i in range(0, len(text), 104))


def main():
    out = ["/* golden_blocks.inc: a type, blocks as bytes and their weights as floats, both in hexadecimal;",
           " * made by tests/golden/make_golden_blocks.py. */"]
    for name, halves in HALVES.items():
        kind = GGMLQuantizationType[name]
        columns, size = GGML_QUANT_SIZES[kind]
        blocks = bytearray()
        generator = random.Random(name)
        for _ in range(max(1, 128 // columns)):
            block = bytearray(generator.randbytes(size))
            for at in halves:
                block[at:at + 2] = numpy.float16(generator.uniform(-0.1, 0.1)).tobytes()
            blocks += block
        weights = dequantize(numpy.frombuffer(bytes(blocks), dtype=numpy.uint8), kind)
        assert numpy.isfinite(weights).all()
        out += [f'GOLDEN("{name}",', lines_of(blocks.hex()) + ",", lines_of(weights.astype("<f4").tobytes().hex()) + ")"]
    OUTPUT.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
