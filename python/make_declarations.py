"""Writes the declarations of the public headers as a module of cffi: make_declarations.py INCLUDE MODULE.py

The headers themselves go through the C preprocessor, so that structs in Python are those of the library, always.
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cffi


def declarations(include):
    names = sorted(path.name for path in (include / "powerinfer2").glob("*.h"))
    source = "".join(f"#include <powerinfer2/{name}>\n" for name in names)
    with tempfile.TemporaryDirectory() as empty:
        for name in ("stdbool", "stddef", "stdint"):  # cffi knows their types by itself
            Path(empty, name + ".h").touch()
        command = [os.environ.get("CC", "cc"), "-E", "-P", "-nostdinc", "-U__GNUC__", f"-I{include}", f"-I{empty}",
                   "-x", "c", "-"]
        text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^#.*$", "", text, flags=re.M)


def main(include, module):
    builder = cffi.FFI()
    builder.set_source("powerinfer2._declarations", None)
    builder.cdef(declarations(Path(include)))
    builder.emit_python_code(module)


if __name__ == "__main__":
    main(*sys.argv[1:])
