"use strict";
/* page.js: a chat with the model that this server holds. Conversations stay in this browser; nothing is asked of any
   other server. Text of models and people is put into the page as text, never as HTML. */
const $ = (id) => document.getElementById(id);
const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "max_tokens"];
const SETTINGS = ["system", "key", ...NUMBERS];
let conversations = valid(read("conversations", [])), current = read("current", 0), running = null;
let editing = null; /* which message of the current conversation the next one replaces */

function read(name, fallback) {
  try { return JSON.parse(localStorage.getItem("powerinfer2." + name)) ?? fallback; } catch { return fallback; }
}
function keep(name, value) {
  try {
    localStorage.setItem("powerinfer2." + name, JSON.stringify(value));
  } catch {
    tell("This browser keeps nothing more: save conversations as a file and delete some.");
  }
}
function keepAll() {
  keep("conversations", conversations);
  keep("current", current);
}
/* Of what a browser or a file has kept, what is a conversation: neither is trusted to be one. */
function valid(list) {
  if (!Array.isArray(list)) return [];
  return list.filter((one) => Array.isArray(one?.messages)).map((one) => ({ messages: one.messages
    .filter((m) => (m?.role === "user" || m?.role === "assistant") && typeof m.content === "string")
    .map(({ role, content, thought }) => ({ role, content, ...(typeof thought === "string" && { thought }) })) }));
}
function tell(text) { $("status").textContent = text; }
function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
function action(text, run) {
  const button = element("button", text);
  button.type = "button";
  button.addEventListener("click", run);
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { /* pages of another machine without TLS have no clipboard */
    const field = document.body.appendChild(element("textarea"));
    field.value = text;
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  tell("Copied.");
}

/* ---- Markdown: what answers commonly have, as elements; text stays text, links are of the web alone ---- */

const PATTERN = new RegExp(["``(.+?)``|`([^`]+)`", "\\*\\*([^*]+)\\*\\*", "\\*([^*\\s][^*]*)\\*", "~~([^~]+)~~",
  "\\[([^\\]]+)\\]\\((https?://[^\\s)]+)\\)"].join("|"), "g");
const DEEPEST = 8; /* quotes and lists in each other */
function inline(parent, text) {
  let at = 0;
  for (const found of text.matchAll(PATTERN)) {
    parent.append(text.slice(at, found.index));
    const code = found[1] ?? found[2];
    if (code !== undefined) parent.append(element("code", code.trim() || code));
    else if (found[3] !== undefined) parent.append(element("strong", found[3]));
    else if (found[4] !== undefined) parent.append(element("em", found[4]));
    else if (found[5] !== undefined) parent.append(element("s", found[5]));
    else {
      const link = element("a", found[6]);
      link.href = found[7];
      link.rel = "noreferrer noopener";
      link.target = "_blank";
      parent.append(link);
    }
    at = found.index + found[0].length;
  }
  parent.append(text.slice(at));
}
function withText(name, text) {
  const made = element(name);
  inline(made, text);
  return made;
}
function codeBlock(parent, language, code) {
  const head = element("div", undefined, "code-head"), block = element("pre");
  head.append(element("span", language), action("Copy code", () => copy(code)));
  block.append(element("code", code));
  block.tabIndex = 0;
  parent.append(head, block);
}
const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
const isRule = (line) => line?.includes("|") && line.includes("-") && /^[\s:|-]+$/.test(line);
function table(parent, lines, start) {
  const made = element("table"), head = element("thead"), body = element("tbody");
  let at = start;
  const row = (name, line) => {
    const one = element("tr");
    one.append(...cells(line).map((cell) => withText(name, cell)));
    return one;
  };
  head.append(row("th", lines[at]));
  for (at += 2; at < lines.length && lines[at].includes("|"); at++) body.append(row("td", lines[at]));
  made.append(head, body);
  parent.append(made);
  return at - 1;
}
/* Lists by their indentation: lists[k] is the one at depth k. */
function listItem(parent, lists, found) {
  const indent = found[1].replace(/\t/g, "    ").length, kind = /\d/.test(found[2]) ? "ol" : "ul";
  while (lists.length && lists[lists.length - 1].indent > indent) lists.pop();
  let last = lists[lists.length - 1];
  if (!last || (last.indent < indent && lists.length < DEEPEST) || last.list.localName !== kind) {
    if (last && (last.indent === indent || lists.length === DEEPEST)) lists.pop();
    const list = element(kind), above = lists[lists.length - 1];
    if (kind === "ol") list.start = parseInt(found[2], 10);
    (above?.list.lastElementChild ?? parent).append(list);
    lists.push(last = { indent, list });
  }
  last.list.append(withText("li", found[3]));
}
function markdown(parent, text, depth = 0) {
  const lines = text.split("\n");
  let lists = [];
  for (let i = 0; i < lines.length; i++) {
    const fence = lines[i].match(/^\s*(```+|~~~+)\s*([\w+#.-]*)/);
    const item = lines[i].match(/^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)/);
    const heading = lines[i].match(/^(#{1,6})\s+(.*)/);
    if (!item && lines[i].trim()) lists = [];
    if (fence) {
      const code = [];
      while (++i < lines.length && !lines[i].trim().startsWith(fence[1])) code.push(lines[i]);
      codeBlock(parent, fence[2], code.join("\n"));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(lines[i])) {
      parent.append(element("hr"));
    } else if (item) {
      listItem(parent, lists, item);
    } else if (heading) {
      parent.append(withText("h" + Math.min(6, heading[1].length + 2), heading[2]));
    } else if (lines[i].includes("|") && isRule(lines[i + 1])) {
      i = table(parent, lines, i);
    } else if (depth < DEEPEST && /^\s*>/.test(lines[i])) {
      const quoted = [];
      for (; i < lines.length && /^\s*>/.test(lines[i]); i++) quoted.push(lines[i].replace(/^\s*>+ ?/, ""));
      i--;
      const quote = element("blockquote");
      markdown(quote, quoted.join("\n"), depth + 1);
      parent.append(quote);
    } else if (lines[i].trim()) {
      const paragraph = [lines[i]];
      while (i + 1 < lines.length && lines[i + 1].trim() && !/^\s*(```|~~~|[-*+]\s|\d+[.)]\s|#|>)/.test(lines[i + 1]) &&
        !isRule(lines[i + 2])) paragraph.push(lines[++i]);
      const made = element("p");
      paragraph.forEach((line, k) => { if (k) made.append(element("br")); inline(made, line); });
      parent.append(made);
    }
  }
}

/* ---- the talk ---- */

const talk = () => conversations[current] ?? conversations[current = 0] ?? (conversations[0] = { messages: [] });
function article(message, index) {
  const made = element("article", undefined, message.role);
  made.dir = "auto";
  made.append(element("h2", message.role === "user" ? "You" : "Model"));
  if (message.thought) {
    const details = element("details");
    details.append(element("summary", "Thinking"), element("div", message.thought, "thought"));
    details.open = !message.content;
    made.append(details);
  }
  if (message.role === "user") made.append(element("p", message.content));
  else markdown(made, message.content);
  const actions = element("div", undefined, "actions");
  if (message.role === "user") actions.append(action("Edit", () => edit(index)));
  else if (index === talk().messages.length - 1) actions.append(action("Again", again));
  actions.append(action("Copy", () => copy(message.content)));
  made.append(actions);
  if (index === editing) made.classList.add("editing");
  return made;
}
function show() {
  $("talk").replaceChildren(...talk().messages.map(article));
  $("talk").scrollTop = $("talk").scrollHeight;
  $("conversations").replaceChildren(...conversations.map((one, index) => {
    const line = element("li"), first = one.messages[0]?.content || "Empty";
    const choose = action(first.slice(0, 60), () => turnTo(index));
    choose.setAttribute("aria-current", String(index === current));
    const remove = action("\u00d7", () => {
      if (!confirm("Delete this conversation?")) return;
      stop();
      conversations.splice(index, 1);
      turnTo(Math.max(0, Math.min(current - (index < current ? 1 : 0), conversations.length - 1)));
    });
    remove.setAttribute("aria-label", "Delete: " + first.slice(0, 60));
    line.append(choose, remove);
    return line;
  }));
}
function turnTo(index) {
  stop();
  editing = null;
  current = index;
  keepAll();
  show();
  openSide(false);
  $("message").focus();
}
function edit(index) {
  stop();
  editing = index;
  $("message").value = talk().messages[index].content;
  show();
  tell("Sending replaces this message and what follows it; Escape leaves all as it is.");
  $("message").focus();
}
function again() {
  stop();
  talk().messages.pop();
  answer();
}
function stop() { running?.abort(); }
function openSide(opens) {
  $("side").classList.toggle("open", opens);
  $("show-side").setAttribute("aria-expanded", String(opens));
}
function headers() { return $("key").value ? { Authorization: "Bearer " + $("key").value } : {}; }

async function* events(response) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = response.body.getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The answer broke off: the connection to the server has ended.");
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }
}
function request() {
  const body = { messages: talk().messages.map(({ role, content }) => ({ role, content })), stream: true,
    stream_options: { include_usage: true }, return_progress: true };
  if ($("models").value) body.model = $("models").value;
  if ($("system").value.trim()) body.messages.unshift({ role: "system", content: $("system").value });
  for (const name of NUMBERS) if ($(name).value !== "") body[name] = Number($(name).value);
  return body;
}
async function answer() {
  const held = talk(), body = request(), mine = running = new AbortController();
  const message = { role: "assistant", content: "" };
  let isEmpty = false; /* refused, or stopped before it began: its place is taken away again */
  keepAll(); /* what was asked is not lost with the page */
  held.messages.push(message);
  show();
  const hadFocus = document.activeElement === $("send");
  $("stop").hidden = false;
  $("send").hidden = true;
  if (hadFocus) $("stop").focus();
  tell("Reading the prompt\u2026");
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", signal: mine.signal, headers: headers(),
      body: JSON.stringify(body) });
    if (!response.ok) {
      const told = await response.json().catch(() => null); /* a proxy's page is no JSON */
      throw new Error(told?.error?.message ?? `The server answers ${response.status} ${response.statusText}`);
    }
    let planned = false;
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices?.[0]?.delta;
      if (delta?.content) message.content += delta.content;
      if (delta?.reasoning_content) message.thought = (message.thought ?? "") + delta.reasoning_content;
      if (event.timings) tellSpeed(event.timings);
      if (event.prompt_progress) {
        const { processed, total } = event.prompt_progress;
        tell(`Reading the prompt: ${processed} of ${total} tokens`);
        continue;
      }
      if (delta && !planned && held === conversations[current]) {
        planned = true;
        requestAnimationFrame(() => {
          planned = false;
          if (running !== mine) return; /* it has ended since, and how was told */
          tell("Answering\u2026");
          showLast(held);
        });
      }
    }
    if (running === mine) {
      tell("");
      $("spoken").textContent = message.content;
    }
  } catch (error) {
    if (running === mine) tell(error.name === "AbortError" ? "Stopped." : error.message);
    const place = held.messages.indexOf(message); /* others may have come since, and this one have gone */
    isEmpty = place >= 0 && !message.content && !message.thought;
    if (isEmpty) held.messages.splice(place, 1);
  }
  if (running === mine) {
    running = null;
    const hadFocus = document.activeElement === $("stop");
    $("stop").hidden = true;
    $("send").hidden = false;
    if (hadFocus) $("message").focus();
  }
  keepAll();
  if (held === conversations[current]) isEmpty ? show() : showLast(held);
}
function showLast(held) {
  const main = $("talk"), index = held.messages.length - 1;
  if (held !== conversations[current] || !held.messages[index]) return;
  const follows = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
  main.lastElementChild?.replaceWith(article(held.messages[index], index));
  if (follows) main.scrollTop = main.scrollHeight;
}
function tellSpeed(timings) {
  $("speed").textContent = `${timings.predicted_per_second.toFixed(1)} tokens/s; prompt ${timings.prompt_n} tokens, ` +
    `${timings.cache_n} known`;
}

/* ---- what the engine does ---- */

let before = null;
const size = (bytes) => bytes > 1e9 ? (bytes / 1e9).toFixed(2) + " GB" : (bytes / 1e6).toFixed(1) + " MB";
async function look() {
  if (document.hidden || !$("engine").open) return;
  const [metrics, props] = await Promise.all([
    fetch("metrics", { headers: headers() }).then((r) => r.ok ? r.text() : ""),
    fetch("props", { headers: headers() }).then((r) => r.ok ? r.json() : null)]).catch(() => ["", null]);
  if (!metrics || !props) return;
  if (!props.memory) { /* of a folder's models none is loaded */
    before = null;
    $("figures").replaceChildren(element("dt", "Model"), element("dd", "none is loaded"));
    return;
  }
  const now = { time: performance.now() };
  for (const line of metrics.split("\n")) {
    const [name, value] = line.split(" ");
    if (!line.startsWith("#") && value) now[name.replace(/^.*:/, "")] = Number(value);
  }
  const last = before ?? now, seconds = Math.max(1e-3, (now.time - last.time) / 1000);
  const since = (name) => (now[name] ?? 0) - (last[name] ?? 0);
  before = now;
  const needed = since("bytes_needed_total"), found = 100 * Math.max(0, 1 - since("bytes_read_total") / needed);
  const passes = since("passes_total"), tokens = since("tokens_predicted_total") + since("prompt_tokens_total");
  const rows = [
    ["Tokens/s", (since("tokens_predicted_total") / seconds).toFixed(1)],
    ["Prompt tokens/s", (since("prompt_tokens_total") / seconds).toFixed(1)],
    ["Tokens a pass", passes ? (tokens / passes).toFixed(2) : "\u2013"],
    ["Waiting requests", now.requests_deferred],
    ["Read", size(since("bytes_read_total") / seconds) + "/s"],
    ["Found in memory", needed ? found.toFixed(1) + " %" : "\u2013"],
    ["Waited for reads", (100 * since("stall_ns_total") / 1e9 / seconds).toFixed(0) + " %"],
    ["Peak memory", size(now.peak_memory_bytes)],
    ["Budget", size(props.memory.budget_bytes)],
    ["All weights", size(props.memory.weight_bytes)]];
  const made = rows.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]);
  $("figures").replaceChildren(...made, ...regions(props.memory));
}
/* What the budget is spent on: a bar, and its legend with sizes. */
function regions(memory) {
  const parts = [["Weights", memory.resident_bytes + memory.expert_cache_bytes],
    ["Keys and values", memory.cache_bytes], ["Scratch", memory.scratch_bytes],
    ["Stream buffer", memory.stream_buffer_bytes], ["Server", memory.server_bytes]];
  const rest = Math.max(0, memory.budget_bytes - parts.reduce((sum, [, bytes]) => sum + bytes, 0));
  const bar = parts.map(([, bytes], index) => {
    const part = element("span", undefined, "region region-" + index);
    part.style.flexGrow = bytes;
    return part;
  });
  const free = element("span", undefined, "region");
  free.style.flexGrow = rest;
  $("regions").replaceChildren(...bar, free);
  $("regions").setAttribute("aria-label", "Memory of " + size(memory.budget_bytes) + ": " +
    parts.map(([name, bytes]) => name + " " + size(bytes)).join(", "));
  return parts.flatMap(([name, bytes], index) => {
    const term = element("dt");
    term.append(element("span", undefined, "region region-" + index), name);
    return [term, element("dd", size(bytes))];
  });
}

/* ---- begin ---- */

for (const name of SETTINGS) {
  $(name).value = read(name, "");
  $(name).addEventListener("change", () => keep(name, $(name).value));
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("message").value;
  if (running || !text.trim()) return;
  if (editing !== null) talk().messages.length = editing;
  editing = null;
  talk().messages.push({ role: "user", content: text });
  $("message").value = "";
  answer();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  stop();
  openSide(false);
  if (editing === null) return;
  editing = null;
  $("message").value = "";
  tell("");
  show();
});
$("new").addEventListener("click", () => {
  stop();
  if (talk().messages.length) conversations.unshift({ messages: [] });
  turnTo(0);
});
$("show-side").addEventListener("click", () => openSide(!$("side").classList.contains("open")));
$("export").addEventListener("click", () => {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(conversations, null, 1)], { type: "application/json" }));
  link.download = "conversations.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
$("import").addEventListener("change", async () => {
  const file = $("import").files[0];
  if (!file) return;
  try {
    const more = valid(JSON.parse(await file.text()));
    conversations = more.concat(conversations);
    turnTo(0);
    tell(`${more.length} conversations were added.`);
  } catch {
    tell("This file holds no conversations: it is not JSON.");
  }
  $("import").value = "";
});
$("delete-all").addEventListener("click", () => {
  if (!confirm("Delete all conversations? Nothing keeps a copy.")) return;
  stop();
  conversations = [];
  turnTo(0);
});
addEventListener("pagehide", () => { if (running) keepAll(); });
/* Another tab has changed them. */
addEventListener("storage", (event) => {
  if (event.key !== "powerinfer2.conversations" || running) return;
  conversations = valid(read("conversations", []));
  current = Math.max(0, Math.min(current, conversations.length - 1));
  editing = null;
  show();
});
$("models").addEventListener("change", () => keep("model", $("models").value));
async function findModels() {
  try {
    const models = (await (await fetch("v1/models", { headers: headers() })).json()).data.map((model) => model.id);
    $("model").textContent = document.title = models.length === 1 ? models[0] : "powerinfer2";
    $("models-label").hidden = models.length < 2;
    $("models").replaceChildren(...models.map((id) => element("option", id)));
    if (models.includes(read("model", ""))) $("models").value = read("model", "");
    if ($("status").textContent.startsWith("The model is")) tell("");
  } catch { /* it is being opened */
    tell("The model is being opened.");
    setTimeout(findModels, 1000);
  }
}
findModels();
setInterval(look, 1000);
show();
$("message").focus();
