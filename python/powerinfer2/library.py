"""The shared library, and how its values become Python's."""
from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Dict

from ._declarations import ffi as ffi

Value = Any  # text, a number, True or False, or None


def _open() -> Any:
    named = os.environ.get("POWERINFER2_LIBRARY")
    if named:
        return ffi.dlopen(named)
    folder = Path(__file__).parent / "lib"
    path = folder / "libpowerinfer2.so"
    # What the library needs lies beside it; what is loaded under its name already is not looked for again.
    for other in sorted(folder.glob("*.so*")):
        if other != path:
            ctypes.CDLL(str(other))
    return ffi.dlopen(str(path))


lib = _open()


def text(pointer: Any) -> str:
    return str(ffi.string(pointer), "utf-8", "replace")


def value_of(field: Any, value: Any) -> Value:
    """A field of a struct as a value of Python's."""
    kind = field.type
    if kind.kind == "pointer":
        return None if value == ffi.NULL else text(value)
    if kind.kind == "array":
        return text(value)
    if kind.kind == "enum":
        return int(value)
    return value


def fields_of(struct: Any) -> Dict[str, Value]:
    """A struct's fields by their names, as its header tells of them."""
    kind = ffi.typeof(struct)
    kind = kind.item if kind.kind == "pointer" else kind
    return {name: value_of(field, getattr(struct, name)) for name, field in kind.fields}
