"""Tests of the Python package, for test_python_package.sh: test_powerinfer2.py MODEL PLAIN POWERINFER2 RECURRENT.

MODEL is a tiny one with a chat template, PLAIN one without, RECURRENT one whose states cannot be taken back."""
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import unittest

import powerinfer2

MODEL, PLAIN, PROGRAM, RECURRENT = sys.argv[1:5]
QUESTION = [{"role": "user", "content": "Why is it so?"}]


def engine(**options):
    return powerinfer2.Engine(MODEL, **{"context": 256, "threads": 1, **options})


class Answers(unittest.TestCase):
    def test_text_is_that_of_run(self):
        def run(*options):
            command = [PROGRAM, "run", "-m", MODEL, "-p", "Why is it so?", "-c", "256", "-n", "20", "-t", "1", "-q",
                       *options]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\n")
        with engine() as opened:
            with opened.session(temperature=0) as session:
                pieces = list(session.chat(QUESTION, max_tokens=20))
                self.assertGreater(len(pieces), 3)
                self.assertEqual("".join(pieces).rstrip("\n"), run("--temp", "0"))
            with opened.session(temperature=1, seed=7) as session:
                self.assertEqual(session.chat(QUESTION, max_tokens=20).text.rstrip("\n"), run("--temp", "1", "-s", "7"))

    def test_ends(self):
        with engine() as opened, opened.session(temperature=0) as session:
            answer = session.generate("a b c", max_tokens=6)
            self.assertIsNone(answer.stop)
            whole = answer.text
            self.assertEqual((answer.stop, answer.token_count), ("limit", 6))
            self.assertEqual(answer.text, "")
            self.assertEqual(session.generate("a b c", max_tokens=0).text, "")
            word = whole[3:5]
            stopped = session.generate("a b c", max_tokens=6, stop=[word])
            self.assertEqual(stopped.text, whole[:whole.index(word)])
            self.assertEqual(stopped.stop, "word")
            full = session.generate("a b c")
            full.text
            self.assertIn(full.stop, ("context", "eos"))

    def test_beginning_that_is_there_is_not_computed_again(self):
        with engine(batch_tokens=8) as opened, opened.session(temperature=0) as session:
            prompt = opened.tokenize("one two three " * 8)

            def ask():
                before = opened.counters["bytes_needed"]
                return session.generate(prompt, max_tokens=4).text, opened.counters["bytes_needed"] - before
            (first, whole), (second, rest) = ask(), ask()
            self.assertEqual(first, second)
            self.assertLess(rest, whole)  # the prompt had taken several passes
            self.assertEqual(session.tokens[:len(prompt)], prompt)
            self.assertEqual(session.position, len(session.tokens))

    def test_states_that_cannot_be_taken_back(self):
        prompts = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 20, 21], [5, 6, 7, 8, 20, 21, 22, 23]]
        with powerinfer2.Engine(RECURRENT, context=64, threads=1) as opened:
            with opened.session(temperature=0) as session:
                kept = []
                for prompt in prompts:
                    session.generate(prompt, max_tokens=6).text
                    kept.append(session.tokens)
            for prompt, tokens in zip(prompts, kept):
                with opened.session(temperature=0) as session:
                    session.generate(prompt, max_tokens=6).text
                    self.assertEqual(session.tokens, tokens)

    def test_sessions_take_turns(self):
        with engine(sessions=2) as opened:
            alone = opened.session(temperature=0).generate("x y z", max_tokens=8).text
            gc.collect()
            one, two = opened.session(temperature=0), opened.session(temperature=0)
            with self.assertRaises(powerinfer2.InvalidArgument):
                opened.session()
            pairs = list(zip(one.generate("x y z", max_tokens=8), two.generate("x y z", max_tokens=8)))
            self.assertEqual([a for a, _ in pairs], [b for _, b in pairs])
            self.assertEqual("".join(a for a, _ in pairs), alone)

    def test_fork_and_steps(self):
        with engine(sessions=2) as opened, opened.session(temperature=0) as session:
            session.append(opened.tokenize("a b c"))
            logits = session.logits()
            self.assertEqual(len(logits), opened.report["vocabulary_size"])
            with session.fork() as other:
                self.assertEqual(other.logits(), logits)
            session.truncate(1)
            self.assertEqual(session.position, 1)
            with self.assertRaises(powerinfer2.InvalidArgument):
                session.logits()


    def test_saved(self):
        path = os.path.join(os.path.dirname(MODEL), "saved.session")
        with engine(identifies_weights=True) as opened, opened.session(temperature=0) as session:
            prompt = opened.tokenize("one two three four")
            session.append(prompt)
            session.save(path)
            expected = session.generate(prompt + opened.tokenize(" five", add_special=False), max_tokens=8).text
        with engine(identifies_weights=True) as opened, opened.session(temperature=0) as session:
            answer = session.generate("something else", max_tokens=8)
            next(answer)
            session.load(path)
            with self.assertRaises(powerinfer2.Closed):
                list(answer)
            self.assertEqual(session.tokens, prompt)
            more = prompt + opened.tokenize(" five", add_special=False)
            self.assertEqual(session.generate(more, max_tokens=8).text, expected)
            with self.assertRaises(powerinfer2.InputOutputError):
                session.load(path + ".none")
            with self.assertRaises(powerinfer2.WrongFormat):
                session.load(MODEL)
            self.assertEqual(session.position, len(session.tokens))
            self.assertNotEqual(session.generate("still there", max_tokens=3).text, "")
        with engine() as opened, opened.session() as session:
            session.append([1])
            with self.assertRaisesRegex(powerinfer2.InvalidArgument, "identify its weights"):
                session.save(path)


class Text(unittest.TestCase):
    def test_tokens(self):
        with engine() as opened:
            for content in ("", "Why? \u00e4\u00f6 \U0001f600", "nul \0 inside", "<|im_start|>"):
                tokens = opened.tokenize(content, add_special=False)
                self.assertEqual(opened.detokenize(tokens, special=True).lstrip(" "), content)
            self.assertEqual(opened.detokenize([]), "")
            with self.assertRaises(powerinfer2.InvalidArgument):
                opened.detokenize([10 ** 6])
            with self.assertRaises(OverflowError):
                opened.detokenize([2 ** 40])
            with self.assertRaises(UnicodeEncodeError):
                opened.tokenize("\ud800")

    def test_conversation(self):
        with engine() as opened:
            prompt = opened.chat_prompt(QUESTION)
            self.assertIn("Why is it so?", prompt)
            tokens = opened.tokenize(prompt, add_special=False, parse_special=True)
            self.assertEqual(opened.chat_tokens(QUESTION), tokens)
            for bad in ([{"content": "no role"}], ["text"], [{"role": "user", "content": object()}]):
                with self.assertRaises(powerinfer2.Error, msg=str(bad)):
                    opened.chat_tokens(bad)
        with powerinfer2.Engine(PLAIN, context=64, threads=1) as opened:
            with self.assertRaisesRegex(powerinfer2.Unsupported, "template"):
                opened.chat_tokens(QUESTION)


class Failures(unittest.TestCase):
    def test_words_of_the_library(self):
        with self.assertRaisesRegex(powerinfer2.InputOutputError, "no-such.gguf"):
            powerinfer2.Engine("no-such.gguf")
        with self.assertRaises(OSError):
            powerinfer2.Engine("no-such.gguf")
        with self.assertRaisesRegex(powerinfer2.OutOfMemory, "needs"):
            engine(memory="1M")
        with self.assertRaisesRegex(powerinfer2.InvalidArgument, "12Q"):
            engine(memory="12Q")
        with self.assertRaises(OverflowError):
            engine(memory=-1)
        with self.assertRaisesRegex(TypeError, "no option 'colour'"):
            engine(colour="red")
        with self.assertRaisesRegex(powerinfer2.InvalidArgument, "q9"):
            engine(cache_type="q9")
        with self.assertRaises(powerinfer2.InvalidArgument):
            powerinfer2.Engine("a\0b")
        with self.assertRaises(powerinfer2.WrongFormat):
            powerinfer2.Engine(__file__)
        with engine() as opened:
            with self.assertRaisesRegex(TypeError, "no 'heat'"):
                opened.session(heat=1)
            with self.assertRaises(powerinfer2.InvalidArgument):
                opened.session(temperature=float("nan"))
            with opened.session() as session:
                with self.assertRaises(powerinfer2.ContextFull):
                    session.append([1] * 1000)
                with self.assertRaises(powerinfer2.InvalidArgument):
                    session.append([-5])
                with self.assertRaises(powerinfer2.InvalidArgument):
                    session.generate([]).text
                self.assertNotEqual(session.generate("still there", max_tokens=3).text, "")

    def test_after_close(self):
        opened = engine(sessions=2)
        session, other = opened.session(), opened.session()
        answer, begun = session.generate("a b"), other.generate("a b")
        next(begun)
        session.close()
        session.close()
        for use in (lambda: next(answer), lambda: session.position, session.logits, session.fork,
                    lambda: session.append([1])):
            self.assertRaises(powerinfer2.Closed, use)
        opened.close()
        opened.close()
        for use in (lambda: next(begun), lambda: other.position, opened.session, lambda: opened.report,
                    lambda: opened.tokenize("a"), lambda: session.generate("a")):
            self.assertRaises(powerinfer2.Closed, use)
        begun.close()
        other.close()

    def test_answers_of_one_session(self):
        with engine() as opened, opened.session(temperature=0) as session:
            first = session.generate("a b c d")
            next(first)
            second = session.generate("a b c", max_tokens=3)
            next(second)
            with self.assertRaises(powerinfer2.Closed):
                list(first)
            second.close()
            with self.assertRaises(powerinfer2.Closed):
                list(second)

    def test_collected_in_any_order(self):
        for _ in range(3):
            opened = engine()
            session = opened.session()
            answer = session.generate("a b c")
            next(answer)
            opened.circle = [session, answer, opened]  # all of them at once, in whichever order
            del opened, session, answer
            gc.collect()

    def test_callbacks(self):
        class Mine(Exception):
            pass

        def fail(*_):
            raise Mine
        with self.assertRaises(Mine):
            engine(progress=fail)
        seen = []
        with engine(progress=lambda what, done, total: seen.append((what, done, total))) as opened:
            self.assertTrue(seen)
            opened._callbacks._progress = lambda *_: opened.tokenize("a")
            with opened.session() as session, self.assertRaisesRegex(powerinfer2.Closed, "callback"):
                session.append([1] * 200)
                raise powerinfer2.Closed("a callback was never called")

    def test_stopped_from_another_thread(self):
        with engine(context=2048) as opened, opened.session() as session:
            opened._callbacks._progress = lambda *_: session.stop()  # as another thread would, in the middle
            answer = session.generate([1] * 2000)
            if not session._is_stopped:
                with self.assertRaises(powerinfer2.Interrupted):
                    next(answer)
            self.assertLess(session.position, 2000)
            self.assertEqual(session.position, len(session.tokens))

    def test_threads(self):
        with engine(sessions=3) as opened:
            expected = opened.session(temperature=0).generate("x y z", max_tokens=10).text
            got, failures = [], []

            def work():
                try:
                    with opened.session(temperature=0) as session:
                        for _ in range(3):
                            got.append(session.generate("x y z", max_tokens=10).text)
                            opened.tokenize("x y z")
                except Exception as error:  # told by the main thread
                    failures.append(error)
            threads = [threading.Thread(target=work) for _ in range(3)]
            gc.collect()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            self.assertEqual(set(got), {expected})
        opened = engine()
        session = opened.session()

        def answer():
            try:
                session.generate("a b").text
            except powerinfer2.Closed:
                pass
        thread = threading.Thread(target=answer)
        thread.start()
        opened.close()  # while the other computes
        thread.join()

    def test_other_process(self):
        opened = engine()

        def child(pipe):
            try:
                opened.tokenize("a")
            except powerinfer2.Closed as error:
                pipe.send(str(error))
            opened.close()
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
        self.assertTrue(ours.poll(30))
        self.assertIn("process", ours.recv())
        process.join(30)
        self.assertEqual(process.exitcode, 0)
        self.assertTrue(opened.tokenize("a"))
        opened.close()


class Plans(unittest.TestCase):
    def test_is_that_of_the_program(self):
        made = powerinfer2.plan(MODEL, "64M", context=256, threads=1)
        command = [PROGRAM, "plan", "-m", MODEL, "--memory", "64M", "-c", "256", "-t", "1", "--json"]
        told = json.loads(subprocess.run(command, capture_output=True, check=True,
                                         env=dict(os.environ, XDG_CACHE_HOME="/nonexistent")).stdout)
        self.assertEqual(made.report["budget_bytes"], 64000000)
        self.assertIn(str(made.report["resident_bytes"]), json.dumps(told))
        self.assertTrue(all(line["what"] and line["bytes"] >= 0 for line in made.lines))
        self.assertIsNone(made.prediction)
        with self.assertRaises(powerinfer2.OutOfMemory):
            powerinfer2.plan(MODEL, "1M")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
