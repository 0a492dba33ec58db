"""chat_terminal.py PROGRAM FOLDER: the chat on a terminal of its own (test_cli_chat.sh calls it).

Goal:   what is typed, pasted or interrupted becomes the right message, with libedit and without, and the
        terminal is as it was whenever the program does not read from it.
Method: a shell with job control on a pseudo terminal. Its answers go to a file, and are compared with
        those of `run -p` for the same message; termios and the paste marks tell the terminal's state.
"""
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

PROGRAM, FOLDER = sys.argv[1:3]
OUT = os.path.join(FOLDER, "answers")
PATIENCE = 60 if os.environ.get("PI2_TEST_PRESET", "release") == "release" else 400  # seconds; a sanitizer is slow
checks = failures = 0


def check(good, text):
    global checks, failures
    checks += 1
    if not good:
        failures += 1
        print("FAILED: " + text)


class Shell:
    """sh -i on a terminal; it restores no terminal state of stopped jobs, so the program has to."""

    def __init__(self):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            environment = dict(os.environ, TERM="xterm", PS1="SHELL% ", LC_ALL="C.UTF-8", HOME=FOLDER, ENV="")
            os.execvpe("sh", ["sh", "-i"], environment)
        self.seen = b""
        self.all = b""
        self.wait_for(b"SHELL% ")
        self.send("ulimit -c 0; set -m\r")
        self.wait_for(b"SHELL% ")
        self.state = termios.tcgetattr(self.master)

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data
        self.all += data
        return bool(data)

    def wait_for(self, text, seconds=PATIENCE):
        """Output up to the text, which is used up; fails when it does not come."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end or not self.read(min(1.0, seconds)) and not self.is_alive():
                check(False, "no %r came, but %r" % (text, self.seen[-600:]))
                raise SystemExit(1)
        before, self.seen = self.seen.split(text, 1)
        return before

    def is_alive(self):
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        while data:  # the terminal takes what it has room for
            self.read(0)
            if select.select([], [self.master], [], 0.05)[1]:
                data = data[os.write(self.master, data[:1024]):]

    def is_as_before(self, what):
        check(termios.tcgetattr(self.master) == self.state, what + ": the terminal's state has changed")
        check(self.all.rfind(b"\x1b[?2004l") >= self.all.rfind(b"\x1b[?2004h"), what + ": pastes are still marked")

    def close(self):
        self.send("exit\r")
        while self.read(1.0):
            pass
        os.close(self.master)
        os.waitpid(self.pid, 0)


def arguments(model, options):
    return ["run", "-m", os.path.join(FOLDER, model), "-n", "5", "--ignore-eos"] + options


def right_answer(message, model, options):
    result = subprocess.run([PROGRAM] + arguments(model, options) + ["-p", message], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, check=True)
    return result.stdout


def start(shell, model, options, editor):
    line = " ".join("'%s'" % word for word in [PROGRAM] + arguments(model, options) + editor)
    shell.send(line + " >'" + OUT + "'\r")
    shell.wait_for(b"/help tells of commands")
    shell.wait_for(b"> ")


def end_well(shell, what):
    shell.send("\x04")
    shell.wait_for(b"SHELL% ")
    shell.is_as_before(what)
    shell.send("echo code $?.\r")
    shell.wait_for(b"code 0.")
    shell.wait_for(b"SHELL% ")


def converse(shell, turns, options, editor, model="chat.gguf", wanted=None):
    """turns: (what is typed, the message that it is). Each is the first message of its conversation."""
    start(shell, model, options, editor)
    for typed, _ in turns:
        shell.send(typed)
        shell.wait_for(b"context  ")  # the report's last line
        shell.wait_for(b"> ")
        shell.send("/clear\r")
        shell.wait_for(b"> ")
    end_well(shell, str(editor))
    with open(OUT, "rb") as file:
        got = file.read()
    wanted = b"".join(right_answer(message, model, options) for _, message in turns)
    check(got == wanted, "%s: the answers %r are not %r" % (editor, got, wanted))


def messages(shell, editor):
    arrows = "abc" if editor else "cab"
    words = " ".join("word%d" % i for i in range(552))
    lines = "\n".join("line %d" % i for i in range(60))  # more than the screen has
    turns = [("XYZ\r", "XYZ"),
             (words + "\r", words),  # beyond the 4095 bytes of a terminal's own line
             ("\x1b[200~one\rtwo\r\n\tthree\n\x1b[201~\r", "one\ntwo\n\tthree"),
             ("see \x1b[200~a\nb\x1b[201~ there\r", "see a\nb there"),
             ("\x1b[200~" + lines + "\x1b[201~\r", lines),
             ("one\\\rtwo\\\rthree\r", "one\ntwo\nthree"),
             ("one\x1b\rtwo\r", "one\ntwo"),
             ("ab\x1b[D\x1b[Dc\r", arrows),
             ("ab\u00e9\x7f\x7fc\r", "ac"),
             ("gone\x15kept \u20ac\r", "kept \u20ac"),
             ("XYZ\r", "XYZ")]
    converse(shell, turns, ["--temp", "0"], editor)


def states(shell, editor):
    """Penalties and random numbers begin anew with each answer."""
    for options in (["--temp", "0", "--repeat-penalty", "1.7", "--repeat-last-n", "-1"],
                    ["--temp", "2", "--top-k", "0", "--min-p", "0", "--top-p", "1", "-s", "7"]):
        converse(shell, [("the hand\r", "the hand"), ("other\r", "other"), ("the hand\r", "the hand")], options, editor)


def stop_and_go_on(shell, editor):
    start(shell, "chat.gguf", ["--temp", "0"], editor)
    shell.send("ab")
    shell.wait_for(b"ab")
    for _ in range(2):
        shell.send("\x1a")
        shell.wait_for(b"Stopped")
        shell.wait_for(b"SHELL% ")
        shell.is_as_before("Ctrl-Z %s" % editor)
        shell.send("fg\r")
        shell.wait_for(b"\x1b[?2004h")
        shell.wait_for(b"> ab")
        check(termios.tcgetattr(shell.master) != shell.state, "%s: fg does not take the terminal again" % editor)
    shell.send("cd\r")
    shell.wait_for(b"context  ")
    shell.wait_for(b"> ")
    end_well(shell, "after fg %s" % editor)
    with open(OUT, "rb") as file:
        got = file.read()
    check(got == right_answer("abcd", "chat.gguf", ["--temp", "0"]), "after fg the message is another: %r" % got)


def ends(shell, editor):
    """However the program ends, the terminal is as before."""
    for key in ("\x03", "\x1c"):
        start(shell, "chat.gguf", [], editor)
        shell.send("abc" + key)
        shell.wait_for(b"SHELL% ")
        shell.is_as_before("%r %s" % (key, editor))
    for number in (signal.SIGTERM, signal.SIGHUP):
        start(shell, "chat.gguf", [], editor)
        group = os.tcgetpgrp(shell.master)
        check(group != shell.pid, "the program is no job of its own")
        os.killpg(group, number)
        shell.wait_for(b"SHELL% ")
        shell.is_as_before("signal %d %s" % (number, editor))


def refused(shell, editor):
    """A message that the template refuses, and one that is interrupted, are forgotten; the chat goes on."""
    start(shell, "refuses.gguf", ["--temp", "0"], editor)
    shell.send("bad\r")
    shell.wait_for(b"no bad words")
    shell.wait_for(b"> ")
    shell.send("good\r")
    shell.wait_for(b"context  ")
    shell.wait_for(b"> ")
    end_well(shell, "refused %s" % editor)
    with open(OUT, "rb") as file:
        got = file.read()
    check(got == right_answer("good", "refuses.gguf", ["--temp", "0"]), "after a refused message: %r" % got)


def interrupted(shell, editor):
    start(shell, "slow.gguf", ["--temp", "0", "-c", "20000", "-b", "16"], editor)
    shell.send("x" * 15000 + "\r")
    shell.wait_for(b"prompt: ")  # progress
    shell.send("\x03")
    shell.wait_for(b"of 150")
    shell.wait_for(b"(interrupted)")
    shell.wait_for(b"is forgotten")
    shell.wait_for(b"> ")
    shell.send("XYZ\r")
    shell.wait_for(b"context  ")
    shell.wait_for(b"> ")
    counts = []
    for message in ("", "x" * 15000):  # what was not read to its end is not saved, though the session has tokens of it
        if message:
            shell.send(message + "\r")
            shell.wait_for(b"prompt: ")
            shell.send("\x03")
            shell.wait_for(b"is forgotten")
            shell.wait_for(b"> ")
        shell.send("/save %s\r" % os.path.join(FOLDER, "stopped.session"))
        shell.wait_for(b"has 2 messages, ")
        counts.append(int(shell.wait_for(b" tokens")))
        shell.wait_for(b"> ")
    check(counts[1] < counts[0] + 20, "a forgotten message was saved: %r tokens" % counts)  # with what ends the answer
    end_well(shell, "interrupted %s" % editor)
    with open(OUT, "rb") as file:
        got = file.read()
    right = b"\n" + right_answer("XYZ", "slow.gguf", ["--temp", "0", "-c", "20000", "-b", "16"]) + b"\n"
    check(got == right, "after an interrupted message: %r, not %r" % (got, right))


def typed_ahead(shell, editor):
    """What is typed while an answer is made is taken after it: a message, and Ctrl-D, which ends the chat."""
    options = ["--temp", "0", "-c", "20000", "-b", "16"]
    start(shell, "slow.gguf", options, editor)
    shell.send("x" * 500 + "\r")
    shell.wait_for(b"\x1b[?2004l")  # the terminal makes lines again
    shell.send("/clear\rXYZ\r\x04")
    shell.wait_for(b"context  ")
    shell.wait_for(b"context  ")
    shell.wait_for(b"SHELL% ")
    shell.is_as_before("typed ahead %s" % editor)
    with open(OUT, "rb") as file:
        got = file.read()
    right = b"".join(right_answer(message, "slow.gguf", options) for message in ("x" * 500, "XYZ"))
    check(got == right, "what was typed ahead: %r, not %r" % (got, right))


def long_file(shell):
    """A prompt that is read from the terminal as from a file: it cuts long lines, which is told."""
    command = " ".join("'%s'" % word for word in [PROGRAM] + arguments("chat.gguf", ["--temp", "0", "-q", "-f", "-"]))
    for length, code in ((4000, 0), (4095, 2), (6000, 2)):
        shell.send(command + " >'" + OUT + "'; echo code $?.\r")
        shell.wait_for(b"echo code")
        time.sleep(0.3)  # the shell has given the terminal away
        shell.send("y" * length + "\r\x04")
        shell.wait_for(b"code %d." % code)
        shell.wait_for(b"SHELL% ")


shell = Shell()
long_file(shell)
for choice in ([], ["--simple-io"]):
    for part in (messages, states, stop_and_go_on, ends, refused, interrupted, typed_ahead):
        begun = time.monotonic()
        part(shell, choice)
        print("%s %s: %.1f s" % (part.__name__, choice, time.monotonic() - begun), flush=True)
shell.close()
print("%d checks, %d failures" % (checks, failures))
sys.exit(1 if failures else 0)
