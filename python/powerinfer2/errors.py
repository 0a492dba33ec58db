"""What the library's failures are in Python. str() of each is its one line: what was wrong, where, and what to do."""
from __future__ import annotations

from .library import lib, text


class Error(Exception):
    """A failure of the library."""


class InvalidArgument(Error, ValueError):
    """An argument is out of range."""


class WrongFormat(Error, ValueError):
    """A file, template or conversation does not follow its format."""


class Unsupported(Error, NotImplementedError):
    """Well-formed, but of a kind that this version does not run."""


class OutOfMemory(Error, MemoryError):
    """The budget, or the machine, cannot give the memory; the line says how much is needed."""


class InputOutputError(Error, OSError):
    """The operating system refused to read, write or lock."""


class ContextFull(Error):
    """The context has no room for so many tokens."""


class Interrupted(Error):
    """Session.stop() ended the call."""


class Closed(Error, ValueError):
    """The object was closed, or belongs to another process."""


_KINDS = {
    lib.PI2_ERR_INVALID: InvalidArgument, lib.PI2_ERR_FORMAT: WrongFormat, lib.PI2_ERR_UNSUPPORTED: Unsupported,
    lib.PI2_ERR_MEMORY: OutOfMemory, lib.PI2_ERR_IO: InputOutputError, lib.PI2_ERR_CONTEXT: ContextFull,
    lib.PI2_ERR_INTERRUPTED: Interrupted,
}


def check(status: int) -> None:
    """Raises what a status other than OK means. On the thread that made the call: the text is its own."""
    if status != lib.PI2_OK:
        raise _KINDS.get(status, Error)(text(lib.pi2_error_text()))
