"""powerinfer2 runs language models that are larger than the memory they may use.

    import powerinfer2
    with powerinfer2.Engine("model.gguf", memory="4G") as engine, engine.session() as session:
        for text in session.chat([{"role": "user", "content": "Why is the sky blue?"}]):
            print(text, end="", flush=True)

Every object may be used from any thread, one call at a time for one engine; calls give other Python threads way. What
goes wrong is an Error, with the library's own words.
"""
from .engine import Answer, Engine, Plan, Session, plan
from .errors import (
    Closed,
    ContextFull,
    Error,
    InputOutputError,
    Interrupted,
    InvalidArgument,
    OutOfMemory,
    Unsupported,
    WrongFormat,
)

__all__ = [
    "Answer", "Closed", "ContextFull", "Engine", "Error", "InputOutputError", "Interrupted", "InvalidArgument",
    "OutOfMemory", "Plan", "Session", "Unsupported", "WrongFormat", "plan",
]
