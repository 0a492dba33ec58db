"use strict";
/* page.js: a chat with the model that this server holds. Conversations stay in this browser; nothing is asked of any
   other server. Text of models and people is put into the page as text, never as HTML. */
const $ = (id) => document.getElementById(id);
const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "max_tokens"];
const SETTINGS = ["system", "key", ...NUMBERS];
let conversations = read("conversations", []), current = read("current", 0), running = null;

function read(name, fallback) {
  try { return JSON.parse(localStorage.getItem("powerinfer2." + name)) ?? fallback; } catch { return fallback; }
}
function keep(name, value) {
  try {
    localStorage.setItem("powerinfer2." + name, JSON.stringify(value));
  } catch {
    tell("This browser keeps nothing more.");
  }
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

/* ---- Markdown: what answers commonly have, as elements ---- */

function inline(parent, text) {
  const pattern = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    parent.append(text.slice(at, found.index));
    if (found[1] !== undefined) parent.append(element("code", found[1]));
    else if (found[2] !== undefined) parent.append(element("strong", found[2]));
    else if (found[3] !== undefined) parent.append(element("em", found[3]));
    else {
      const link = element("a", found[4]);
      link.href = found[5];
      link.rel = "noreferrer noopener";
      parent.append(link);
    }
    at = found.index + found[0].length;
  }
  parent.append(text.slice(at));
}
function markdown(parent, text) {
  const lines = text.split("\n");
  let list = null;
  for (let i = 0; i < lines.length; i++) {
    const fence = lines[i].match(/^\s*(```+|~~~+)/);
    const item = lines[i].match(/^\s*([-*+]|\d+[.)])\s+(.*)/);
    const heading = lines[i].match(/^(#{1,6})\s+(.*)/);
    if (!item) list = null;
    if (fence) {
      const code = [];
      while (++i < lines.length && !lines[i].trim().startsWith(fence[1])) code.push(lines[i]);
      const block = element("pre");
      block.append(element("code", code.join("\n")));
      block.tabIndex = 0;
      parent.append(block, action("Copy", () => navigator.clipboard?.writeText(code.join("\n"))));
    } else if (item) {
      const kind = /\d/.test(item[1]) ? "ol" : "ul";
      if (!list || list.localName !== kind) {
        parent.append(list = element(kind));
        if (kind === "ol") list.start = parseInt(item[1], 10);
      }
      const made = element("li");
      inline(made, item[2]);
      list.append(made);
    } else if (heading) {
      const made = element("h" + Math.min(6, heading[1].length + 2));
      inline(made, heading[2]);
      parent.append(made);
    } else if (lines[i].trim()) {
      const paragraph = [lines[i]];
      while (i + 1 < lines.length && lines[i + 1].trim() && !/^\s*(```|~~~|[-*+]\s|\d+[.)]\s|#)/.test(lines[i + 1])) {
        paragraph.push(lines[++i]);
      }
      const made = element("p");
      paragraph.forEach((line, k) => { if (k) made.append(element("br")); inline(made, line); });
      parent.append(made);
    }
  }
}

/* ---- the talk ---- */

const talk = () => conversations[current] ?? (conversations[current = 0] = { messages: [] });
function article(message, index) {
  const made = element("article", undefined, message.role);
  made.append(element("h2", message.role === "user" ? "You" : "Model"));
  if (message.thought) {
    const details = element("details");
    details.append(element("summary", "Thinking"), element("div", message.thought, "thought"));
    details.open = !message.content;
    made.append(details);
  }
  if (message.role === "user") {
    message.content.split("\n").forEach((line) => made.append(element("p", line)));
  } else {
    markdown(made, message.content);
  }
  const actions = element("div", undefined, "actions");
  if (message.role === "user") actions.append(action("Edit", () => edit(index)));
  else if (index === talk().messages.length - 1) actions.append(action("Again", again));
  actions.append(action("Copy", () => navigator.clipboard?.writeText(message.content)));
  made.append(actions);
  return made;
}
function show() {
  $("talk").replaceChildren(...talk().messages.map(article));
  $("talk").scrollTop = $("talk").scrollHeight;
  $("conversations").replaceChildren(...conversations.map((one, index) => {
    const line = element("li"), first = one.messages[0]?.content || "Empty";
    const choose = action(first.slice(0, 60), () => { stop(); current = index; keep("current", current); show(); });
    choose.setAttribute("aria-current", String(index === current));
    const remove = action("\u00d7", () => {
      stop();
      conversations.splice(index, 1);
      current = Math.max(0, Math.min(current, conversations.length - 1));
      keep("conversations", conversations);
      show();
    });
    remove.setAttribute("aria-label", "Delete: " + first.slice(0, 60));
    line.append(choose, remove);
    return line;
  }));
}
function edit(index) {
  stop();
  $("message").value = talk().messages[index].content;
  talk().messages.length = index;
  show();
  $("message").focus();
}
function again() {
  stop();
  talk().messages.pop();
  answer();
}
function stop() { running?.abort(); }
function headers() { return $("key").value ? { Authorization: "Bearer " + $("key").value } : {}; }

async function* events(response) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = response.body.getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}
function request() {
  const body = { messages: talk().messages.map(({ role, content }) => ({ role, content })), stream: true,
    stream_options: { include_usage: true }, return_progress: true };
  if ($("system").value.trim()) body.messages.unshift({ role: "system", content: $("system").value });
  for (const name of NUMBERS) if ($(name).value !== "") body[name] = Number($(name).value);
  return body;
}
async function answer() {
  const held = talk(), body = request(), mine = running = new AbortController();
  const message = { role: "assistant", content: "" };
  held.messages.push(message);
  show();
  $("stop").hidden = false;
  $("send").hidden = true;
  tell("Reading the prompt\u2026");
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", signal: mine.signal, headers: headers(),
      body: JSON.stringify(body) });
    if (!response.ok) throw new Error((await response.json()).error.message);
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
        requestAnimationFrame(() => { planned = false; tell("Answering\u2026"); showLast(held); });
      }
    }
    tell("");
  } catch (error) {
    if (running === mine) tell(error.name === "AbortError" ? "Stopped." : error.message);
    const place = held.messages.indexOf(message); /* others may have come since, and this one have gone */
    if (place >= 0 && !message.content && !message.thought) held.messages.splice(place, 1);
  }
  if (running === mine) {
    running = null;
    $("stop").hidden = true;
    $("send").hidden = false;
  }
  keep("conversations", conversations);
  show();
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
  const now = { time: performance.now() };
  for (const line of metrics.split("\n")) {
    const [name, value] = line.split(" ");
    if (!line.startsWith("#") && value) now[name.replace(/^.*:/, "")] = Number(value);
  }
  const last = before ?? now, seconds = Math.max(1e-3, (now.time - last.time) / 1000);
  const since = (name) => (now[name] ?? 0) - (last[name] ?? 0);
  before = now;
  const needed = since("bytes_needed_total"), found = 100 * Math.max(0, 1 - since("bytes_read_total") / needed);
  const rows = [
    ["Tokens/s", (since("tokens_predicted_total") / seconds).toFixed(1)],
    ["Prompt tokens/s", (since("prompt_tokens_total") / seconds).toFixed(1)],
    ["Waiting requests", now.requests_deferred],
    ["Read", size(since("bytes_read_total") / seconds) + "/s"],
    ["Found in memory", needed ? found.toFixed(1) + " %" : "\u2013"],
    ["Waited for reads", (100 * since("stall_ns_total") / 1e9 / seconds).toFixed(0) + " %"],
    ["Peak memory", size(now.peak_memory_bytes)],
    ["Budget", size(props.memory.budget_bytes)],
    ["Weights in memory", `${size(props.memory.resident_bytes)} of ${size(props.memory.weight_bytes)}`],
    ["Keys and values", size(props.memory.cache_bytes)],
    ["Scratch", size(props.memory.scratch_bytes)],
    ["Stream buffer", size(props.memory.stream_buffer_bytes)],
    ["Experts' cache", size(props.memory.expert_cache_bytes)],
    ["Server", size(props.memory.server_bytes)]];
  $("figures").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
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
document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
$("new").addEventListener("click", () => {
  stop();
  conversations.unshift({ messages: [] });
  current = 0;
  show();
  $("message").focus();
});
$("show-side").addEventListener("click", () => {
  $("show-side").setAttribute("aria-expanded", String($("side").classList.toggle("open")));
});
fetch("v1/models").then((response) => response.json()).then((models) => {
  $("model").textContent = document.title = models.data[0].id;
}).catch(() => tell("The model is being opened: load the page again."));
setInterval(look, 1000);
show();
$("message").focus();
