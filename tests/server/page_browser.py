"""The server's page in Chromium, for test_page.sh: page_browser.py POWERINFER2 FOLDER
[--screenshots FOLDER [OPTIONS]].

FOLDER has m.gguf. Chromium is driven over the pipe of its DevTools protocol (JSON between NULs), so nothing else is
needed. With --screenshots the page is shown wide and narrow, light and dark, in four PNG files instead; the server gets
the options."""
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

program, folder = sys.argv[1:3]
SHOTS = sys.argv[4] if sys.argv[3:4] == ["--screenshots"] else None
HOSTILE = ("<img src=x onerror='window.hacked=1'> <script>window.hacked=2</script>\n\n[a](javascript:window.hacked=3) "
           "[b](https://example.org/\"onmouseover=\"window.hacked=4) ![c](https://example.org/c.png) "
           "<svg onload=hacked=5>\n\n```html\n<script>window.hacked=6</script>\n```\n\n"
           "| <b>x</b> | y |\n|---|---|\n| `<i>` | **z** |\n\n"
           "- one\n  - two\n    1. three\n\n")
DEEP = "> " * 3000 + "deep"  # more tokens than the server's context has
failures = []


def check(is_true, what):
    if not is_true:
        failures.append(what)
        print("FAILED:", what)


class Browser:
    """Chromium without a window, with a profile of its own."""

    def __init__(self):
        name = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        read_end, self.commands = os.pipe()
        self.replies, write_end = os.pipe()
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
                     "--disable-dev-shm-usage", "--disable-background-networking", "--user-data-dir=" +
                     os.path.join(folder, "profile"), "about:blank"]
        # The protocol's descriptors are 3 and 4, whatever numbers the pipes have here.
        shell = 'exec 3<&%d 4>&%d; exec "$@"' % (read_end, write_end)
        self.process = subprocess.Popen(["bash", "-c", shell, "bash", name, *arguments],
                                        pass_fds=(read_end, write_end), stderr=subprocess.DEVNULL)
        os.close(read_end)
        os.close(write_end)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def message(self):
        while b"\0" not in self.rest:
            data = os.read(self.replies, 1 << 20)
            if not data:
                raise EOFError("Chromium has ended")
            self.rest += data
        data, self.rest = self.rest.split(b"\0", 1)
        return json.loads(data)

    def send(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.commands, json.dumps(request).encode() + b"\0")
        return self.number

    def call(self, method, **params):
        number = self.send(method, **params)
        while True:
            reply = self.message()
            if reply.get("id") == number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                return reply["result"]
            self.events.append(reply)
            if reply.get("method") == "Page.javascriptDialogOpening":  # "Delete?"
                self.send("Page.handleJavaScriptDialog", accept=True)

    def run(self, script):
        """The value of an expression; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True,
                           userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def until(self, script, what, seconds=20):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.run(script):
                return True
            time.sleep(0.02)
        check(False, f"never: {what} ({script})")
        return False

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      text=text if kind == "keyDown" else "")

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && typeof look === 'function' && !!document.title", "the page")

    def show(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
        except (EOFError, OSError):
            pass
        self.process.wait(20)


class Server:
    def __init__(self, *options, of=("-m", "m.gguf")):
        errors = os.path.join(folder, "page.err")
        with open(errors, "w") as log:
            command = [program, "serve", of[0], os.path.join(folder, of[1]), "--port", "0", "-c", "2048", "-t", "1"]
            self.process = subprocess.Popen([*command, *options], stderr=log, stdin=subprocess.DEVNULL)
        found = None
        while self.process.poll() is None and not found:
            found = re.search(r"listening on (http://\S+?:\d+) ", open(errors).read())
            time.sleep(0.01)
        self.url = found.group(1) + "/"

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(60) == 0, "the server ends")


IDLE = "!document.getElementById('send').hidden"
BUSY = "document.getElementById('send').hidden"
LAST = "document.querySelector('#talk article:last-child')"


def say(browser, text):
    browser.run("document.getElementById('message').focus()")
    browser.call("Input.insertText", text=text)
    browser.press("Enter", 13, "\r")


def click(browser, name, within="document"):
    browser.run(f"[...{within}.querySelectorAll('button')].find((b) => b.textContent === {json.dumps(name)}).click()")


def kept(browser):
    return json.loads(browser.run("localStorage.getItem('powerinfer2.conversations') ?? '[]'"))


def test_talk(browser):
    """Send, stream, stop, again, edit."""
    browser.run("document.getElementById('max_tokens').value = 40")
    say(browser, "Why is it so?")
    browser.until(f"{LAST}?.className === 'assistant' && {LAST}.textContent.length > 20", "text of an answer")
    browser.until(IDLE, "the answer's end")
    first = browser.run(LAST + ".textContent")
    check(kept(browser)[0]["messages"][0] == {"role": "user", "content": "Why is it so?"}, f"kept: {kept(browser)}")
    check(len(kept(browser)[0]["messages"]) == 2, "the answer is kept")
    check("tokens/s" in browser.run("document.getElementById('speed').textContent"), "the speed is told")
    spoken = browser.run("document.getElementById('spoken').textContent")
    check(spoken and spoken == kept(browser)[0]["messages"][1]["content"], "a screen reader hears the answer")

    # An answer that only its reader ends, of some two thousand tokens.
    browser.run("document.getElementById('max_tokens').value = ''; fetch = ((own) => (url, how) => "
                "own(url, how?.body ? {...how, body: JSON.stringify({...JSON.parse(how.body), ignore_eos: true})} : how))(fetch)")
    click(browser, "Again")
    browser.until(f"{BUSY} && {LAST}.textContent.length > 20", "another answer")
    browser.press("Escape", 27)
    browser.until(IDLE, "an answer that was stopped")
    check(browser.run("document.getElementById('status').textContent") == "Stopped.", "that it was stopped is told")
    check(len(kept(browser)[0]["messages"]) == 2, "what there was of a stopped answer is kept")
    browser.run("document.getElementById('max_tokens').value = 5")
    click(browser, "Edit")
    check(browser.run("document.getElementById('message').value") == "Why is it so?", "a message can be edited")
    browser.press("Escape", 27)
    check(browser.run("document.querySelectorAll('article').length") == 2, "editing can be left")
    click(browser, "Edit")
    browser.run("document.getElementById('message').value = ''")
    say(browser, "Is it?")
    browser.until(f"{IDLE} && document.querySelectorAll('article').length === 2", "the answer to what was edited")
    check(kept(browser)[0]["messages"][0]["content"] == "Is it?", "what was edited takes the old one's place")
    return first


def test_refused(browser):
    """What is too long for the context is said, and the question stays, once, to be edited."""
    click(browser, "New conversation")
    say(browser, DEEP)
    browser.until(f"{IDLE} && document.getElementById('status').textContent.includes('tokens')", "a refusal")
    shown = browser.run("[...document.querySelectorAll('article')].map((a) => a.className)")
    check(shown == ["user"], f"shown after a refusal: {shown}")
    check([len(one["messages"]) for one in kept(browser)] == [1, 2], f"kept after a refusal: {kept(browser)}")
    browser.run("document.querySelector('[aria-label^=\"Delete: > >\"]').click()")


def test_kept(browser, url):
    """A reload keeps conversations, also in the middle of an answer; hostile text is inert, damage is survived."""
    browser.run("document.getElementById('max_tokens').value = ''")
    click(browser, "New conversation")
    say(browser, HOSTILE)
    browser.until(f"{BUSY} && {LAST}?.className === 'assistant'", "an answer")
    browser.open(url)
    check([one["messages"][0]["content"][:4] for one in kept(browser)] == ["<img", "Is i"], "kept over a reload")
    check(browser.run("document.querySelector('article.user p').textContent").startswith("<img"), "text is text")
    browser.run("conversations[0].messages = [{role: 'user', content: 'x'}, {role: 'assistant', content: " +
                json.dumps(HOSTILE + DEEP) + ", thought: '<script>hacked=7</script>'}]; keepAll(); show()")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    check(browser.run("window.hacked === undefined"), "hostile text is run")
    check(browser.run("document.querySelectorAll('article :is(img, script, svg, iframe, b, i)').length") == 0,
          "hostile text became elements")
    links = browser.run("[...document.querySelectorAll('article a')].map((a) => a.getAttribute('href'))")
    check(all(link.startswith("https://example.org/") for link in links) and len(links) == 2, f"links: {links}")
    check(browser.run("document.querySelectorAll('article a[onmouseover]').length") == 0, "an attribute was added")
    check(browser.run("document.querySelector('article td code').textContent") == "<i>", "a table is one")
    check(browser.run("document.querySelectorAll('article li li li').length") == 1, "lists lie in lists")
    check(browser.run("document.querySelector('article pre code').textContent") == "<script>window.hacked=6</script>",
          "a block of code is one")
    for damaged in ("{}", "[1, null, {\"messages\": 3}, {\"messages\": [null, {\"role\": \"x\"}]}]", "no JSON"):
        browser.run(f"localStorage.setItem('powerinfer2.conversations', {json.dumps(damaged)})")
        browser.run("localStorage.setItem('powerinfer2.current', '\"7\"')")
        browser.open(url)
        check(browser.run("talk().messages.length") == 0 and browser.run(IDLE), f"the page lives with {damaged}")


def test_use(browser):
    """Names for a screen reader, focus, a phone's width, dark colours, the engine's figures, deletion."""
    nameless = browser.run("""[...document.querySelectorAll("button, input, select, textarea")].filter((e) =>
        !(e.textContent.trim() && e.localName === "button") && !e.labels?.length && !e.ariaLabel).map((e) => e.id)""")
    check(nameless == [], f"controls without a name: {nameless}")
    check(browser.run("document.activeElement.id") == "message", "the message has the focus")
    browser.show(360, 640, "dark")
    check(browser.run("document.documentElement.scrollWidth <= 360"), "a phone's width is enough")
    check(browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)", "dark where wanted")
    side = "getComputedStyle(document.getElementById('side')).display"
    check(browser.run(side) == "none", "the list is away")
    click(browser, "Conversations")
    check(browser.run(side) == "block", "the list comes")
    browser.press("Escape", 27)
    check(browser.run(side) == "none", "Escape closes the list")
    browser.show(1200, 800, "light")
    browser.run("document.getElementById('engine').open = true; look()")
    browser.until("document.querySelectorAll('#figures dd').length > 10", "the engine's figures")
    check(browser.run("document.getElementById('regions').ariaLabel").startswith("Memory of "), "regions are told")
    figures = browser.run("document.getElementById('figures').textContent")
    check("NaN" not in figures and "undefined" not in figures, f"figures: {figures}")
    browser.run("conversations = [{messages: [{role: 'user', content: 'a'}]}, {messages: []}]; current = 0; show()")
    browser.run("document.querySelector('[aria-label=\"Delete: a\"]').click()")
    check([len(one["messages"]) for one in kept(browser)] == [0], f"deleted: {kept(browser)}")


def test_models(browser, url):
    """Of a folder's models the one that is chosen answers, also after another; where none is loaded the page says so."""
    browser.open(url)
    browser.until("document.getElementById('models').options.length === 2", "the models' list")
    check(not browser.run("document.getElementById('models-label').hidden"), "several models can be chosen")
    browser.run("document.getElementById('engine').open = true; look()")
    browser.until("document.getElementById('figures').textContent.includes('none is loaded')", "no model is loaded")
    for name in ("two", "one"):
        browser.run(f"document.getElementById('models').value = '{name}'; document.getElementById('max_tokens').value = 5; "
                    "document.getElementById('models').dispatchEvent(new Event('change'))")
        click(browser, "New conversation")
        say(browser, "Which one are you?")
        browser.until(f"{IDLE} && {LAST}?.className === 'assistant'", "an answer")
        loaded = browser.run("fetch('v1/models').then((r) => r.json()).then((all) => all.data.filter((m) => "
                             "m.status.value === 'loaded').map((m) => m.id))")
        check(loaded == [name], f"{name} is chosen, {loaded} loaded: {browser.run(LAST + '.textContent')[:200]}")
    browser.open(url)
    browser.until("document.getElementById('models').value === 'one'", "the choice is kept")


def screenshots(browser):
    browser.run("conversations = [{messages: [{role: 'user', content: 'Show me a loop and a table.'}, "
                "{role: 'assistant', content: 'A loop in **C**:\\n\\n```c\\nfor (int i = 0; i < 3; i++) puts(\"hello\");\\n```\\n\\n"
                "| Word | Meaning |\\n|---|---|\\n| `for` | begins a loop |\\n| `puts` | prints a line |\\n\\n"
                "1. First\\n2. Then\\n   - a detail'}]}]; current = 0; show();"
                "document.getElementById('engine').open = true; look()")
    browser.until("document.querySelectorAll('#figures dd').length > 10", "the engine's figures")
    os.makedirs(SHOTS, exist_ok=True)
    for name, width, height in (("wide", 1200, 800), ("narrow", 390, 780)):
        for scheme in ("light", "dark"):
            browser.show(width, height, scheme)
            data = browser.call("Page.captureScreenshot", format="png")["data"]
            with open(os.path.join(SHOTS, f"page-{name}-{scheme}.png"), "wb") as picture:
                picture.write(base64.b64decode(data))


def main():
    server, browser = Server(*sys.argv[5:]), Browser()
    own = (server.url, "data:")
    try:
        browser.show(1200, 800, "light")
        browser.open(server.url)
        if SHOTS:
            screenshots(browser)
        else:
            test_talk(browser)
            test_refused(browser)
            test_kept(browser, server.url)
            test_use(browser)
            folder_server = Server(of=("--models", "models"))
            own += (folder_server.url,)
            try:
                test_models(browser, folder_server.url)
            finally:
                folder_server.close()
        asked = [event["params"]["request"]["url"] for event in browser.events
                 if event.get("method") == "Network.requestWillBeSent"]
        check(len(asked) > 5 and all(url.startswith(own) for url in asked),
              f"asked of others: {[url for url in asked if not url.startswith(own)]}")
        for event in browser.events:
            if event.get("method") == "Runtime.exceptionThrown":
                check(False, f"an exception: {event['params']['exceptionDetails']}")
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["source"] == "security":
                check(False, f"against the policy: {event['params']['entry']['text']}")
    finally:
        browser.close()
        server.close()
    print(f"{len(failures)} failures")
    return 1 if failures else 0


sys.exit(main())
