"""Engine, Session, Answer and plan()."""
from __future__ import annotations

import ctypes
import json
import logging
import os
import struct
import threading
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, TypeVar, Union

from .errors import Closed, InvalidArgument, WrongFormat, check
from .library import Value, ffi, fields_of, lib, text

Progress = Callable[[str, int, int], None]
Message = Mapping[str, Any]
_Result = TypeVar("_Result")
_NOTE = b"powerinfer2 tokens 1\n"  # what a file of save() carries besides: the timeline's tokens
_log = logging.getLogger("powerinfer2")


class _Native:
    """A session of the library's and its answer, without a way back to the objects that use them: an engine that is
    closed, or collected together with them in whichever order, frees what it finds here."""

    def __init__(self, session: Any):
        self.session = session
        self.answer: Any = ffi.NULL
        self.held_by_answer: Any = None  # callbacks and texts that the answer uses

    def free_answer(self) -> None:
        lib.pi2_answer_free(self.answer)
        self.answer, self.held_by_answer = ffi.NULL, None

    def free(self) -> None:
        self.free_answer()
        lib.pi2_session_free(self.session)
        self.session = ffi.NULL


class _Callbacks:
    """What the library asks and tells while it works. An exception in one ends the call, and comes out of it."""

    def __init__(self, progress: Optional[Progress]):
        self.raised: Optional[BaseException] = None
        self.session: Optional[Session] = None  # which one computes
        self._progress = progress
        self.log = ffi.callback("void(void *, char *)", self._take_log, onerror=self._note)
        self.progress = ffi.callback("void(void *, char *, uint64_t, uint64_t)", self._take_progress,
                                     onerror=self._note)
        self.cancelled = ffi.callback("bool(void *)", self._is_cancelled, error=True, onerror=self._note)

    def _note(self, _kind: Any, exception: BaseException, _trace: Any) -> None:
        self.raised = exception

    def _take_log(self, _user: Any, line: Any) -> None:
        _log.info("%s", text(line))

    def _take_progress(self, _user: Any, what: Any, done: int, total: int) -> None:
        if self._progress:
            self._progress(text(what), done, total)

    def _is_cancelled(self, _user: Any) -> bool:
        # Python's signal handlers run here too, so that Ctrl-C ends a prompt that takes minutes.
        return self.raised is not None or (self.session is not None and self.session._is_stopped)

    def fill(self, callbacks: Any) -> None:
        callbacks.log, callbacks.progress, callbacks.cancelled = self.log, self.progress, self.cancelled

    def check(self, status: int) -> None:
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised
        check(status)


def _bytes(value: Union[str, "os.PathLike[str]"], what: str) -> bytes:
    data = os.fsencode(value) if isinstance(value, os.PathLike) else value.encode()
    if b"\0" in data:
        raise InvalidArgument(f"{what} has a NUL character")
    return data


def _size(size: Union[int, str]) -> int:
    if isinstance(size, int):
        return size
    found = ffi.new("uint64_t *")
    check(lib.pi2_parse_size(_bytes(size, "memory"), found))
    return int(found[0])


class _Options:
    """pi2_engine_options, and the texts that it points to."""

    def __init__(self, model: Union[str, "os.PathLike[str]"], memory: Union[int, str], progress: Optional[Progress],
                 named: Mapping[str, Any]):
        self.callbacks = _Callbacks(progress)
        self.struct = ffi.new("pi2_engine_options *")
        lib.pi2_engine_options_init(self.struct)
        self._texts: List[Any] = []
        self._set_text("model_path", model)
        self.struct.memory_bytes = _size(memory)
        self.callbacks.fill(self.struct.callbacks)
        kinds = {name: field.type for name, field in ffi.typeof("pi2_engine_options").fields}
        for name, value in named.items():
            kind = kinds.get(name)
            if kind is None or name in ("callbacks", "input_paths", "machine", "model_path", "memory_bytes"):
                raise TypeError(f"an engine has no option '{name}'")
            if value is None:
                continue
            if kind.kind == "pointer":
                self._set_text(name, value)
            elif kind.kind == "enum":
                words = {"f16": lib.PI2_CACHE_F16, "q8_0": lib.PI2_CACHE_Q8_0, "f32": lib.PI2_CACHE_F32}
                if value not in words:
                    raise InvalidArgument(f"{name}: '{value}' is none of {', '.join(words)}")
                setattr(self.struct, name, words[value])
            else:
                setattr(self.struct, name, value)

    def _set_text(self, name: str, value: Any) -> None:
        self._texts.append(ffi.new("char[]", _bytes(value if isinstance(value, os.PathLike) else str(value), name)))
        setattr(self.struct, name, self._texts[-1])


def _encode(value: Any, what: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except TypeError as error:
        raise InvalidArgument(f"{what}: {error}") from None


class Engine:
    """A model, opened within a memory budget.

    memory   of the whole process, Python included: bytes, or text as "4G"; 0: what the machine has free
    context  tokens of each session; 0: what the memory affords
    sessions that there is room for at the same time
    options  any other of pi2_engine_options (engine.h) by its name: cluster_path, sparsity, cache_type="q8_0", ...
    progress told (what, done, total) while the engine works; must not use the engine
    Log lines go to logging's "powerinfer2".
    """

    def __init__(self, model: Union[str, "os.PathLike[str]"], memory: Union[int, str] = 0, *, context: int = 0,
                 threads: int = 0, sessions: int = 1, progress: Optional[Progress] = None, **options: Any):
        self._handle: Any = ffi.NULL
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._owner: Optional[int] = None
        self._sessions: Set[_Native] = set()
        self._dropped: List[_Native] = []  # whose objects are gone; the next call frees them
        named = {"context_tokens": context, "thread_count": threads, "sequences": sessions, **options}
        made = _Options(model, memory, progress, named)
        self._callbacks = made.callbacks
        out = ffi.new("pi2_engine **")
        self._callbacks.check(lib.pi2_engine_open(made.struct, out))
        self._handle = out[0]

    # ---- what keeps threads apart ----

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_exception: Any) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody else has it any more, so that nobody holds the lock.
        if getattr(self, "_handle", ffi.NULL) != ffi.NULL and self._process == os.getpid():
            self._close(self._handle)

    def _call(self, run: Callable[[Any], _Result]) -> _Result:
        """Runs with the engine's handle, while no other thread does."""
        if self._process != os.getpid():
            raise Closed("the engine belongs to the process that opened it")
        if self._owner == threading.get_ident():
            raise Closed("the engine is used by a callback of its own")
        with self._lock:
            self._owner = threading.get_ident()
            try:
                if self._handle == ffi.NULL:
                    raise Closed("the engine is closed")
                while self._dropped:
                    self._free(self._dropped.pop())
                return run(self._handle)
            finally:
                self._owner = None

    def _free(self, native: _Native) -> None:
        self._sessions.discard(native)
        native.free()

    def _close(self, handle: Any) -> None:
        for native in list(self._sessions):
            self._free(native)
        self._dropped.clear()
        lib.pi2_engine_close(handle)
        self._handle = ffi.NULL

    def close(self) -> None:
        """Closes its sessions and itself; again: nothing."""
        try:
            self._call(self._close)
        except Closed:
            if self._owner == threading.get_ident():
                raise  # from a callback: the engine is in use

    # ---- what it is ----

    @property
    def report(self) -> Dict[str, Value]:
        """pi2_engine_report: what was planned, by the names of engine.h."""
        return self._call(lambda handle: fields_of(lib.pi2_engine_get_report(handle)))

    @property
    def counters(self) -> Dict[str, int]:
        """What was counted since it was opened, by the names of counters.inc."""
        def count(handle: Any) -> Dict[str, int]:
            counters = ffi.new("pi2_engine_counters *")
            lib.pi2_engine_count(handle, counters)
            return fields_of(counters)
        return self._call(count)

    @property
    def is_exact(self) -> bool:
        return self._call(lambda handle: bool(lib.pi2_engine_is_exact(handle)))

    # ---- text ----

    def _tokens(self, make: Callable[[Any, Any, Any], int]) -> List[int]:
        def run(handle: Any) -> List[int]:
            tokens, count = ffi.new("int32_t **"), ffi.new("size_t *")
            self._callbacks.check(make(handle, tokens, count))
            try:
                return list(ffi.unpack(tokens[0], count[0])) if count[0] else []
            finally:
                _free(tokens[0])
        return self._call(run)

    def tokenize(self, content: str, *, add_special: bool = True, parse_special: bool = False) -> List[int]:
        """The text's tokens, with the model's token of a beginning where it has one."""
        data = content.encode()
        return self._tokens(lambda handle, tokens, count: lib.pi2_engine_tokenize(
            handle, ffi.from_buffer(data), len(data), add_special, parse_special, tokens, count))

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        given = ffi.new("int32_t[]", list(tokens))

        def run(handle: Any) -> str:
            out, length = ffi.new("char **"), ffi.new("size_t *")
            self._callbacks.check(lib.pi2_engine_detokenize(handle, given, len(given), special, out, length))
            return _take_text(out[0], length[0])
        return self._call(run)

    def _converse(self, messages: Sequence[Message], tools: Optional[Sequence[Any]],
                  variables: Optional[Mapping[str, Any]], add_generation_prompt: bool, handle: Any, *out: Any) -> int:
        held = [_encode(list(messages), "messages"), _encode(list(tools), "tools") if tools else b"",
                _encode(dict(variables), "variables") if variables else b""]
        buffers = [ffi.new("char[]", data) for data in held]
        conversation = ffi.new("pi2_conversation *")
        conversation.messages, conversation.messages_length = buffers[0], len(held[0])
        if tools:
            conversation.tools, conversation.tools_length = buffers[1], len(held[1])
        if variables:
            conversation.variables = buffers[2]
        conversation.add_generation_prompt = add_generation_prompt
        return int(lib.pi2_engine_conversation_tokens(handle, conversation, *out))

    def chat_tokens(self, messages: Sequence[Message], *, tools: Optional[Sequence[Any]] = None,
                    variables: Optional[Mapping[str, Any]] = None, add_generation_prompt: bool = True) -> List[int]:
        """The tokens that the model's chat template makes of messages in OpenAI's form."""
        return self._tokens(lambda handle, tokens, count: self._converse(
            messages, tools, variables, add_generation_prompt, handle, ffi.NULL, ffi.NULL, tokens, count))

    def chat_prompt(self, messages: Sequence[Message], *, tools: Optional[Sequence[Any]] = None,
                    variables: Optional[Mapping[str, Any]] = None, add_generation_prompt: bool = True) -> str:
        """The text that the model's chat template makes of them."""
        def run(handle: Any) -> str:
            out, length = ffi.new("char **"), ffi.new("size_t *")
            self._callbacks.check(self._converse(messages, tools, variables, add_generation_prompt, handle, out, length,
                                                 ffi.NULL, ffi.NULL))
            return _take_text(out[0], length[0])
        return self._call(run)

    # ---- sessions ----

    def session(self, **sampling: Any) -> "Session":
        """A timeline of its own. sampling: temperature, top_k, top_p, min_p, seed, ...: pi2_sampling of session.h;
        what is not named is as the model's file advises (general.sampling.*), or pi2_sampling_init()'s."""
        return Session(self, sampling)


_libc = ctypes.CDLL(None)  # whose malloc() the library's texts and tokens are from


def _free(pointer: Any) -> None:
    _libc.free(ctypes.c_void_p(int(ffi.cast("uintptr_t", pointer))))


def _take_text(pointer: Any, length: int) -> str:
    try:
        return str(ffi.buffer(pointer, length)[:], "utf-8", "replace") if length else ""
    finally:
        _free(pointer)


def _sampling(named: Mapping[str, Any], advisor: Any = None) -> Any:
    made = ffi.new("pi2_sampling *")
    lib.pi2_sampling_init(made)
    if advisor is not None:
        lib.pi2_engine_advise_sampling(advisor, made)
    known = {name for name, _ in ffi.typeof("pi2_sampling").fields}
    for name, value in named.items():
        if name not in known:
            raise TypeError(f"sampling has no '{name}': it has {', '.join(sorted(known))}")
        setattr(made, name, value)
    return made


class Session:
    """A timeline of tokens over an engine, with a sampler. Made by Engine.session()."""

    def __init__(self, engine: Engine, sampling: Mapping[str, Any], origin: Optional["Session"] = None):
        self._engine = engine
        self._held: List[int] = []  # tokens of the timeline
        self._is_stopped = False
        out = ffi.new("pi2_session **")

        def make(handle: Any) -> None:
            chosen = _sampling(sampling, handle)
            if origin is None:
                check(lib.pi2_session_create(handle, chosen, out))
            else:
                check(lib.pi2_session_fork(origin._alive(), chosen if sampling else ffi.NULL, out))
                self._held = list(origin._held)
            self._native = _Native(out[0])
            engine._sessions.add(self._native)
        engine._call(make)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_exception: Any) -> None:
        self.close()

    def __del__(self) -> None:
        # Collected at any moment, also while this thread computes: freed by the engine's next call.
        if hasattr(self, "_native"):
            self._engine._dropped.append(self._native)

    def _alive(self) -> Any:
        if self._native.session == ffi.NULL:
            raise Closed("the session is closed")
        return self._native.session

    def _call(self, run: Callable[[Any], _Result]) -> _Result:
        def with_handle(_engine: Any) -> _Result:
            handle = self._alive()
            self._engine._callbacks.session = self
            try:
                return run(handle)
            finally:
                self._engine._callbacks.session = None
        return self._engine._call(with_handle)

    def close(self) -> None:
        """Its room in the engine becomes free; again: nothing."""
        try:
            self._call(lambda _handle: self._engine._free(self._native))
        except Closed:
            if self._engine._owner == threading.get_ident():
                raise

    def fork(self, **sampling: Any) -> "Session":
        """Another session that goes on from here; without `sampling` it draws as this one would."""
        return Session(self._engine, sampling, self)

    @property
    def position(self) -> int:
        """Tokens in the timeline."""
        return self._call(lambda handle: int(lib.pi2_session_position(handle)))

    @property
    def tokens(self) -> List[int]:
        """The timeline's tokens."""
        return self._call(lambda _handle: list(self._held))

    def _append(self, handle: Any, tokens: Sequence[int]) -> None:
        given = ffi.new("int32_t[]", list(tokens))
        try:
            self._engine._callbacks.check(lib.pi2_session_append(handle, given, len(given), lib.PI2_LOGITS_LAST))
        finally:
            done = lib.pi2_session_position(handle) - len(self._held)
            self._held.extend(tokens[:max(0, done)])

    def _truncate(self, handle: Any, position: int) -> None:
        check(lib.pi2_session_truncate(handle, position))
        del self._held[lib.pi2_session_position(handle):]

    def append(self, tokens: Sequence[int]) -> None:
        """Computes tokens behind the timeline; logits() are those of the last."""
        self._is_stopped = False
        self._call(lambda handle: self._append(handle, tokens))

    def truncate(self, position: int) -> None:
        self._call(lambda handle: self._truncate(handle, position))

    def logits(self) -> List[float]:
        """Of the last token that was computed; [vocabulary_size]."""
        def read(handle: Any) -> List[float]:
            found = lib.pi2_session_logits(handle, 0)
            if found == ffi.NULL:
                raise InvalidArgument("the session has no logits: append() tokens first")
            size = lib.pi2_engine_get_report(self._engine._handle).vocabulary_size
            return list(ffi.unpack(found, size))
        return self._call(read)

    def save(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes the timeline with its states into a file, for load(). The engine wants identifies_weights=True."""
        given = _bytes(path, "path")

        def write(handle: Any) -> None:
            note = _NOTE + struct.pack(f"<{len(self._held)}i", *self._held)
            self._engine._callbacks.check(lib.pi2_session_save(handle, given, note, len(note)))
        self._call(write)

    def load(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Makes this session what save() wrote, in this or another process; nothing is computed again."""
        given = _bytes(path, "path")

        def read(handle: Any) -> None:
            note, length = ffi.new("char **"), ffi.new("size_t *")
            self._native.free_answer()
            try:
                self._engine._callbacks.check(lib.pi2_session_load(handle, given, note, length))
                data = bytes(ffi.buffer(note[0], length[0])) if length[0] else b""
            finally:
                _free(note[0])
                del self._held[lib.pi2_session_position(handle):]  # refused: as it was, or empty
            self._held = []
            count = int(lib.pi2_session_position(handle))
            if not data.startswith(_NOTE) or len(data) != len(_NOTE) + 4 * count:
                check(lib.pi2_session_truncate(handle, 0))
                raise WrongFormat(f"{os.fsdecode(given)}: was not saved by Session.save()")
            self._held = list(struct.unpack(f"<{count}i", data[len(_NOTE):]))
        self._call(read)

    def stop(self) -> None:
        """Ends the call that computes this session's tokens, from another thread: it raises Interrupted."""
        self._is_stopped = True

    def set_sampling(self, **sampling: Any) -> None:
        """Of the answers that begin from now on; what is not named has its default."""
        self._call(lambda handle: check(lib.pi2_session_set_sampling(
            handle, _sampling(sampling, self._engine._handle))))

    def generate(self, prompt: Union[str, Sequence[int]], *, max_tokens: Optional[int] = None,
                 stop: Sequence[str] = (), special: bool = False) -> "Answer":
        """The text that follows a prompt: iterate over it, or take .text. Of a text that the timeline begins with
        already, what is common to both is not computed again."""
        tokens = self._engine.tokenize(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        return Answer(self, tokens, max_tokens, [stop] if isinstance(stop, str) else stop, special)

    def chat(self, messages: Sequence[Message], *, tools: Optional[Sequence[Any]] = None,
             variables: Optional[Mapping[str, Any]] = None, max_tokens: Optional[int] = None,
             stop: Sequence[str] = (), special: bool = False) -> "Answer":
        """The model's reply to a conversation in OpenAI's form, through its chat template."""
        return self.generate(self._engine.chat_tokens(messages, tools=tools, variables=variables),
                             max_tokens=max_tokens, stop=stop, special=special)


class Answer(Iterator[str]):
    """An answer as it grows: an iterator over pieces of its text, each computed when it is asked for."""

    def __init__(self, session: Session, prompt: List[int], max_tokens: Optional[int], stop: Sequence[str],
                 special: bool):
        self._session, self._prompt = session, prompt
        self._handle: Any = ffi.NULL
        self._result: Dict[str, Any] = {}
        self._pieces: List[str] = []
        self._pending = -1  # a token that was picked and is not computed
        self._is_begun = False
        pieces = self._pieces

        def take(_user: Any, pointer: Any, length: int) -> bool:
            pieces.append(ffi.buffer(pointer, length)[:].decode("utf-8", "replace"))
            return True
        words = [ffi.new("char[]", _bytes(word, "a stop word")) for word in stop]
        self._options = ffi.new("pi2_answer_options *")
        self._options.limit = -1 if max_tokens is None else max_tokens
        self._options.special = special
        word_list, taker = ffi.new("char *[]", words), ffi.callback("bool(void *, char *, size_t)", take)
        self._used = [self._options, words, word_list, taker]
        self._options.stop_words, self._options.stop_word_count = word_list, len(words)
        self._options.text = taker

    def _begin(self, handle: Any) -> None:
        session, prompt = self._session, self._prompt
        session._native.free_answer()
        session._is_stopped = False
        common = 0
        for held, wanted in zip(session._held, prompt[:-1]):
            if held != wanted:
                break
            common += 1
        session._truncate(handle, common)
        lib.pi2_session_begin_answer(handle, ffi.new("int32_t[]", prompt), len(prompt))
        session._append(handle, prompt[common:])
        out = ffi.new("pi2_answer **")
        check(lib.pi2_answer_create(handle, self._options, out))
        self._handle = session._native.answer = out[0]
        session._native.held_by_answer = self._used

    def _step(self, handle: Any) -> None:
        session = self._session
        if self._result:
            raise StopIteration
        if not self._is_begun:
            self._is_begun = True
            self._begin(handle)
        if not self._is_current():
            self._handle = ffi.NULL
            raise Closed("the answer is no longer the session's: it was ended, or another one began")
        if self._pending >= 0:
            token, self._pending = self._pending, -1
            session._append(handle, [token])
        found = ffi.new("int32_t *")
        session._engine._callbacks.check(lib.pi2_answer_next(self._handle, found))
        self._pending = found[0]
        if self._pending < 0:
            self._result = fields_of(lib.pi2_answer_result_of(self._handle))
            self._end()

    def _is_current(self) -> bool:
        # By what it holds: the next answer may have this one's address.
        return self._handle != ffi.NULL and self._session._native.held_by_answer is self._used

    def _end(self) -> None:
        if self._is_current():
            self._session._native.free_answer()
        self._handle = ffi.NULL

    def __iter__(self) -> "Answer":
        return self

    def __next__(self) -> str:
        while not self._pieces:  # another session's token may be computed between two of these
            self._session._call(self._step)
        return self._pieces.pop(0)

    @property
    def text(self) -> str:
        """All of the text that has not been taken yet, up to the answer's end."""
        return "".join(self)

    @property
    def stop(self) -> Optional[str]:
        """What ended it: "eos", "limit", "word", "context", "interrupted"; None: it has not ended."""
        return text(lib.pi2_stop_name(self._result["stop"])) if self._result else None

    @property
    def token_count(self) -> Optional[int]:
        """Tokens that were picked, the end token too; None: it has not ended."""
        return self._result["token_count"] if self._result else None

    def close(self) -> None:
        """Ends it early; the session can go on."""
        try:
            self._session._call(lambda _handle: self._end())
        except Closed:
            pass
        self._is_begun = True


class Plan:
    """What a run would keep in memory, and how fast it would be."""

    report: Dict[str, Value]             # pi2_engine_report
    lines: List[Dict[str, Value]]        # what the memory is spent on
    prediction: Optional[Dict[str, Value]]  # None: this machine was not measured ('powerinfer2 machine')
    advice: List[Dict[str, Value]]

    def __init__(self, made: Any, is_predicted: bool):
        count = ffi.new("size_t *")
        self.report = fields_of(lib.pi2_plan_report(made))
        lines = lib.pi2_plan_lines(made, count)
        self.lines = [fields_of(lines[i]) for i in range(count[0])]
        advice = lib.pi2_plan_advice(made, count)
        self.advice = [fields_of(advice[i]) for i in range(count[0])]
        prediction = lib.pi2_plan_prediction(made)
        self.prediction = fields_of(prediction) if is_predicted else None
        for name in ("decode", "prefill"):
            if self.prediction is not None:
                self.prediction[name] = fields_of(getattr(prediction, name))


def plan(model: Union[str, "os.PathLike[str]"], memory: Union[int, str] = 0, *, context: int = 0, threads: int = 0,
         sessions: int = 1, **options: Any) -> Plan:
    """Plans a run without loading weights. The arguments are those of Engine."""
    named = {"context_tokens": context, "thread_count": threads, "sequences": sessions, **options}
    made = _Options(model, memory, None, named)
    profile, out = ffi.new("pi2_machine_profile **"), ffi.new("pi2_plan **")
    is_predicted = lib.pi2_machine_load(ffi.NULL, profile) == lib.PI2_OK
    try:
        made.callbacks.check(lib.pi2_plan_make(made.struct, profile[0], ffi.NULL, out))
        try:
            return Plan(out[0], is_predicted)
        finally:
            lib.pi2_plan_free(out[0])
    finally:
        lib.pi2_machine_free(profile[0])
