// The page of `seedling review`: shows one row at a time, and sends what the reviewer answers about it.
//
// - An answer is kept in the browser (IndexedDB) until the server has acknowledged it. It is sent again with the same
//   id, so that a lost network, a reload and a killed browser or server neither lose nor double it.
// - The next rows and images are fetched and decoded ahead, so that a key shows the next one in the same frame.
// - Keys count only for a row that has been painted: `performance` has a measure `answer-to-paint` for each answer.
// - Everything that comes from data is put on the page as text, never as HTML.
"use strict";
(() => {

const FIRST_HELD = 8; // items on the page, with the one on the screen, until the size of the queue is known
const MAX_HELD = 24;
const HELD_SHARE = 0.25; // of the rows that are left, so that other reviewers get rows, too
const MAX_HELD_GRIDS = 2; // or comparisons of duplicates
const MAX_ROWS_PER_REQUEST = 100;
const DECODED_AHEAD = 5; // of six connections to a server, one is left for answers
const KEPT_ELEMENTS = 20; // answered items whose elements stay in memory for undo
const MAX_TEXT_CHARACTERS = 20_000;
const MAX_LABEL_CHARACTERS = 1_000;
const MAX_ANSWERS_PER_REQUEST = 200;
const RETRY_MILLISECONDS = [250, 500, 1_000, 2_000, 4_000];
const REQUEST_TIMEOUT_MILLISECONDS = 20_000;
const NEIGHBORS_MILLISECONDS = 120; // their images do not delay those of the next rows
const IMAGE_RETRY_MILLISECONDS = 2_000;
const BUSY_STATUSES = new Set([408, 429, 502, 503]);
const PANEL_MILLISECONDS = 5_000;
const SLOW_MILLISECONDS = 150; // after which a row that is not ready is replaced by "Loading"
const FLICKER_MILLISECONDS = 450; // 1.1 changes a second each way, below the three that WCAG allows
const SWIPE_PIXELS = 70;
const MAX_TIMINGS = 5_000;
const PIXELATED_BELOW = 128;

const MODES = { verify: "Verify", label: "Label", grid: "Grid", duplicates: "Duplicates" };
const ORDERS = {
  expected_value: "Expected value", label_issues: "Label issues", margin: "Margin", entropy: "Entropy",
  disagreement: "Disagreement", coreset: "Coreset", newest: "Newest", random: "Random", clusters: "Clusters",
};
const ACTIONS = {
  accept: "Yes; in label mode the likeliest class; in a grid the rest", reject: "No; in a grid mark the row",
  skip: "Skip: asked again later", unsure: "Unsure", none_of_these: "None of these classes", bad: "Bad data",
  flag: "Flag with a note", accept_rest: "Accept all rows that are not marked", undo: "Undo", redo: "Redo",
  zoom: "Zoom; drag or pinch to pan", contrast: "Stretch the contrast", flicker: "Flicker with the nearest labeled row",
  panel: "Details", order: "Next order", mode: "Next mode", search: "Type a class", edit_classes: "Change the classes",
  theme: "Colors: light, dark, or as the system", help: "This sheet",
};
const ANSWER_NAMES = {
  label: "accepted", reject: "rejected", none_of_these: "none of these", bad: "bad data", duplicate: "copy", keep: "kept",
  unsure: "unsure", skip: "skipped", flag: "flagged",
};
const MARK_SIGNS = { reject: "✕ not this", bad: "⚠ bad", unsure: "? unsure", none_of_these: "∅ none", flag: "⚑ flagged", skip: "→ skip", duplicate: "≡ copy" };
const STATES = { predicted: "◇ predicted", labeled: "◆ labeled", reviewed: "✔ reviewed" };
const hasModel = item => (item.round !== null && item.round !== undefined) || Boolean(item.suggestions?.length);
const stateOf = item => (item.state === "predicted" && !hasModel(item) ? "○ not predicted yet" : STATES[item.state] || "");
const KEY_NAMES = {
  ControlLeft: "left Ctrl", ControlRight: "right Ctrl", ShiftLeft: "left Shift", ShiftRight: "right Shift",
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", PageUp: "Page Up", PageDown: "Page Down",
};
const MODIFIER_CODES = new Set(["ControlLeft", "ControlRight", "ShiftLeft", "ShiftRight", "AltLeft", "AltRight", "MetaLeft", "MetaRight"]);

const $ = id => document.getElementById(id);
const config = JSON.parse($("config").textContent);
const token = new URLSearchParams(location.search).get("token") || config.token || "";
const storageName = ["seedling-review", config.workspace || config.title, config.reviewer].join(" ");
let { classes, class_change_count: classChangeCount } = config;

// ---------------------------------------------------------------------------------------------------------- elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "onclick") element.onclick = value;
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const count = number => Number(number).toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const shortened = (text, length = 60) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
function setText(element, text) { if (element.textContent !== text) element.textContent = text; }

let toastTimer = 0;
function toast(text) {
  setText($("toast"), text);
  $("toast").classList.toggle("visible", Boolean(text));
  clearTimeout(toastTimer);
  if (text) toastTimer = setTimeout(() => $("toast").classList.remove("visible"), 4_000);
}
function banner(text) { $("banner").hidden = !text; setText($("banner"), text || ""); }
function announce(text) { $("announcer").textContent = text; }

// The cover hides the row when there is none, or when another tab has taken over.
function cover(title, text = "", buttons = []) {
  $("row").hidden = true;
  setText($("cover-title"), title);
  setText($("cover-text"), text);
  $("cover-buttons").replaceChildren(...buttons);
  $("cover").hidden = false;
  $("work").inert = true;
  document.body.dataset.row = "";
}
function uncover() { $("cover").hidden = true; $("row").hidden = false; $("work").inert = false; }

// ---------------------------------------------------------------------------------------------------------------- ids

function newId() { // 32 hex digits; randomUUID exists only on secure origins
  if (crypto.randomUUID) return crypto.randomUUID().replaceAll("-", "");
  return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}

// ------------------------------------------------------------------------------------------------------------ requests

class RefusedRequest extends Error { // the server answered, but not with success
  constructor(status, message) { super(message); this.status = status; }
}

async function request(path, body) {
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "X-Review-Token": token, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MILLISECONDS),
    cache: "no-store",
  });
  let values = {};
  try { values = await response.json(); } catch (error) { if (response.ok) throw error; }
  if (!response.ok) throw new RefusedRequest(response.status, typeof values.error === "string" ? values.error : `The server answered with status ${response.status}.`);
  return values;
}
function withToken(url) {
  const address = new URL(url, `${location.origin}/`);
  if (address.origin !== location.origin) return "data:,"; // only this server's images
  if (!address.searchParams.has("token")) address.searchParams.set("token", token);
  return address.pathname + address.search;
}
// The image in the size of the stage, which is decoded faster; zooming fetches the largest size.
const SIDES = [256, 512, 768, 1_024, 1_280, 1_600];
function sized(url, side) {
  const address = new URL(withToken(url), location.origin);
  if (address.searchParams.has("side")) address.searchParams.set("side", side);
  return address.pathname + address.search;
}
function stageSide() {
  const { width, height } = $("stage").getBoundingClientRect();
  const pixels = Math.min(Math.max(width, height), 1.5 * Math.min(width, height)) * devicePixelRatio;
  return SIDES.find(side => side >= pixels) || SIDES.at(-1);
}
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

// -------------------------------------------------------------------------------------------------------------- outbox

// Unsent operations: {kind: "answers", answers}, or {kind: "undo" | "redo", id, answer_ids}, in the order of the keys.
const outbox = {
  database: null, waiting: [], isSending: false, failures: 0, refused: 0, wake: null, problem: "",

  async open() {
    try {
      this.database = await new Promise((resolve, reject) => {
        const opening = indexedDB.open(storageName, 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore("operations", { autoIncrement: true });
        opening.onsuccess = () => resolve(opening.result);
        opening.onerror = opening.onblocked = () => reject(opening.error);
      });
    } catch {
      this.database = null; // storage is switched off; leaving the page with unsent answers asks first
    }
    const stored = await this.read();
    this.waiting = [...stored, ...this.waiting];
    this.showState();
  },
  read() {
    if (!this.database) return [];
    return new Promise(resolve => {
      const operations = [], cursor = this.database.transaction("operations").objectStore("operations").openCursor();
      cursor.onerror = () => resolve(operations);
      cursor.onsuccess = () => {
        if (!cursor.result) return resolve(operations);
        operations.push({ operation: cursor.result.value, key: Promise.resolve(cursor.result.key) });
        cursor.result.continue();
      };
    });
  },
  add(operation) {
    this.waiting.push({ operation, key: this.store(operation) });
    this.showState();
    this.send();
  },
  store(operation) { // resolves to the key under which it is stored; undefined if it cannot be stored
    if (!this.database) return Promise.resolve(undefined);
    return new Promise(resolve => {
      try {
        const transaction = this.database.transaction("operations", "readwrite");
        const adding = transaction.objectStore("operations").add(operation);
        transaction.oncomplete = () => resolve(adding.result);
        transaction.onabort = transaction.onerror = () => resolve(undefined);
        transaction.commit?.();
      } catch { resolve(undefined); }
    });
  },
  async remove(entries) {
    const keys = (await Promise.all(entries.map(entry => entry.key))).filter(key => key !== undefined);
    if (!this.database || !keys.length) return;
    try {
      const store = this.database.transaction("operations", "readwrite").objectStore("operations");
      for (const key of keys) store.delete(key);
    } catch { /* they are sent again, with the same ids */ }
  },
  get unsent() { return this.waiting.reduce((sum, { operation }) => sum + (operation.answers || [1]).length, 0); },
  get rowIds() { return new Set(this.waiting.flatMap(({ operation }) => (operation.answers || []).map(answer => answer.row_id))); },

  async send() {
    if (this.isSending) return this.wake?.();
    this.isSending = true;
    while (this.waiting.length) {
      const entries = this.nextEntries();
      try {
        const panel = await this.post(entries);
        this.waiting.splice(0, entries.length);
        this.remove(entries);
        this.failures = 0;
        this.problem = "";
        if (panel) showPanel(panel);
      } catch (error) {
        if (!(await this.afterFailure(error, entries))) break;
      }
      this.showState();
    }
    this.isSending = false;
    this.showState();
  },
  nextEntries() {
    const entries = [];
    let answers = 0;
    for (const entry of this.waiting) {
      if (entry.operation.kind !== "answers") { if (!entries.length) entries.push(entry); break; }
      if (entries.length && (entry.alone || answers + entry.operation.answers.length > MAX_ANSWERS_PER_REQUEST)) break;
      entries.push(entry);
      answers += entry.operation.answers.length;
      if (entry.alone) break;
    }
    return entries;
  },
  async post(entries) {
    const { kind, ...values } = entries[0].operation;
    if (kind !== "answers") return (await request(`/api/${kind}`, values)).panel;
    const answers = entries.flatMap(entry => entry.operation.answers), result = await request("/api/answers", { answers });
    const saved = new Set(result.saved);
    if (answers.some(answer => !saved.has(answer.id))) throw new RefusedRequest(500, "The server has not stored all answers.");
    return result.panel;
  },
  // Returns whether to go on. Answers that the server can never store are kept, so that none is lost without a word.
  async afterFailure(error, entries) {
    const status = error instanceof RefusedRequest ? error.status : 0;
    if (status === 401 || status === 403) {
      this.problem = "This link is no longer valid. Open the link that `seedling review` prints now, in this browser: the unsent answers are kept and sent then.";
      return false;
    }
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      if (entries.length > 1) { for (const entry of entries) entry.alone = true; return true; }
      this.waiting.splice(0, 1);
      this.refused += 1;
      this.problem = `The server refused an answer: ${error.message}`;
      if (entries[0].operation.kind !== "answers") this.remove(entries);
      return true;
    }
    this.failures += 1;
    this.problem = status ? error.message : "";
    this.showState();
    const delay = RETRY_MILLISECONDS[Math.min(this.failures, RETRY_MILLISECONDS.length) - 1];
    await Promise.race([pause(delay), new Promise(resolve => { this.wake = this.failures < 2 ? null : resolve; })]);
    this.wake = null;
    return true;
  },
  showState() {
    const unsent = this.unsent;
    document.body.dataset.unsent = unsent;
    const isLate = this.failures > 0 || this.problem;
    setText($("saved"), this.refused ? `⚠ ${plural(this.refused, "answer")} refused` : isLate && unsent ? `⟳ ${plural(unsent, "answer")} not yet saved` : unsent > 3 ? "⟳ saving" : "✓ saved");
    $("saved").classList.toggle("warn", Boolean(this.refused || (isLate && unsent)));
    if (this.problem) banner(this.problem);
    else banner(this.failures > 1 ? `The server cannot be reached. ${this.database ? "Your answers are kept in this browser" : "Keep this page open"} and sent as soon as it answers; you can go on.` : "");
  },
};
addEventListener("online", () => outbox.send());
addEventListener("pagehide", () => { // a request that outlives the page; what is sent twice is stored once
  const answers = outbox.waiting.flatMap(({ operation }) => operation.answers || []).slice(0, 100);
  if (answers.length) fetch("/api/answers", { method: "POST", keepalive: true, headers: { "X-Review-Token": token, "Content-Type": "application/json" }, body: JSON.stringify({ answers }) }).catch(() => {});
});
addEventListener("beforeunload", event => { if (!outbox.database && outbox.unsent) event.preventDefault(); });

// --------------------------------------------------------------------------------------------------------------- state

const settings = {
  read(name) { try { return localStorage.getItem(`${storageName} ${name}`); } catch { return null; } },
  write(name, value) { try { localStorage.setItem(`${storageName} ${name}`, value); } catch { /* it is asked again */ } },
};
const state = {
  mode: config.mode || config.modes[0], order: config.order || config.orders[0],
  current: null, queue: [], past: [], future: [],
  generation: 0, // rises when the mode changes, so that late responses are not used
  isPainted: false, isFetching: false, remaining: null, isActive: false,
  historyCursor: undefined, historyEnded: false,
  contrast: false, flicker: 0, typing: false,
};
const held = () => (state.current ? [state.current, ...state.queue] : state.queue);
const rowsOf = item => item.rows || [item];

// A card is an item with its element, which is made before it is shown.
function makeCard(item) {
  return { item, element: null, ready: null, isReady: false, marks: new Map(), visibleFor: 0, shownAt: 0, shownSince: 0 };
}
function prepare(card) {
  if (card.element) return card.ready;
  const build = { grid: gridElement, duplicates: duplicatesElement }[card.item.question] || singleElement;
  const images = [];
  card.element = build(card, images);
  card.isReady = images.length === 0;
  card.ready = Promise.all(images).then(() => { card.isReady = true; });
  return card.ready;
}
function release(card) { if (card) { card.element = null; card.ready = null; card.isReady = false; } }

function image(url, description, images, size = {}) {
  const element = new Image();
  element.alt = description;
  element.decoding = "sync"; // the frame that shows the question also shows the image
  element.draggable = false;
  element.setAttribute("elementtiming", "row");
  if (size.width && size.height) { element.width = size.width; element.height = size.height; }
  element.src = withToken(url);
  images.push(loaded(element));
  return element;
}
// Waits for the image, also while the server is away: the file is gone only if the server has answered twice.
async function loaded(element) {
  for (let answered = 0; answered < 2;) {
    try {
      await element.decode();
      return element.classList.toggle("tiny", Math.max(element.naturalWidth, element.naturalHeight) < PIXELATED_BELOW);
    } catch { /* the file is gone, or the server is away */ }
    const response = await fetch(element.src).catch(() => null);
    response?.body?.cancel();
    const isAnswered = response && !BUSY_STATUSES.has(response.status);
    answered += isAnswered ? 1 : 0;
    await pause(isAnswered ? IMAGE_RETRY_MILLISECONDS / 10 : IMAGE_RETRY_MILLISECONDS);
    element.src = element.getAttribute("src");
  }
  return element.replaceWith(make("p", { class: "missing", role: "img", "aria-label": "missing image", text: "⚠ The file of this row is gone or cannot be read. Answer “bad data” or “skip”." }));
}
function description(item) {
  return item.kind === "text" ? "Text" : `Image${item.origin ? ` from ${shortened(item.origin, 80)}` : ""}`;
}
function singleElement(card, images) {
  const { item } = card;
  if (item.kind === "text" || (!item.image && item.text !== null && item.text !== undefined)) return textElement(item);
  const frame = make("div", { class: "frame" }), canvas = make("div", { class: "canvas" });
  canvas.append(item.image ? image(sized(item.image, stageSide()), description(item), images, item) : make("p", { class: "missing", text: "⚠ This row has no file." }));
  frame.append(canvas);
  return frame;
}
function textElement(item, limit = MAX_TEXT_CHARACTERS) {
  const text = String(item.text ?? ""), cut = text.length > limit || item.text_cut;
  const article = make("article", { class: text.length > 400 ? "text long" : "text", tabindex: 0, role: "document", "aria-label": "The text" });
  const paragraph = make("p", { elementtiming: "row", dir: "auto" });
  paragraph.append(...highlighted(text.slice(0, limit), item.suggestion_shown === false ? [] : item.words || []));
  article.append(paragraph);
  if (!text.trim()) article.append(make("p", { class: "soft", text: "(This text is empty.)" }));
  if (cut) article.append(make("p", { class: "note", text: `✂ Cut: only the first ${count(Math.min(text.length, limit))} characters are shown.` }));
  return article;
}
// The text with the words that moved the model: a solid line for the class, a dashed line against it.
function highlighted(text, words) {
  const weights = new Map(words.filter(entry => entry.word).map(entry => [String(entry.word).toLowerCase(), entry.weight]));
  if (!weights.size) return [text];
  const escaped = [...weights.keys()].sort((one, other) => other.length - one.length).map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])(?:${escaped.join("|")})(?![\\p{L}\\p{N}_])`, "giu");
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    const weight = weights.get(match[0].toLowerCase()) ?? 0;
    parts.push(text.slice(end, match.index), make("mark", { class: weight < 0 ? "against" : "for", title: weight < 0 ? "speaks against the suggested class" : "speaks for the suggested class", text: match[0] }));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}
function cell(card, row, index, images) {
  const button = make("button", { type: "button", class: "cell", "data-id": row.row_id, "aria-pressed": "false", tabindex: index ? -1 : 0, "aria-label": `Row ${index + 1}` });
  const url = card.item.question === "duplicates" ? row.image || row.thumbnail : row.thumbnail || row.image;
  if (url) button.append(image(url, "", images, row)); else button.append(make("span", { class: "snippet", dir: "auto", text: shortened(String(row.text ?? "").trim(), 300) || "(empty)" }));
  const key = config.keys.classes[index];
  if (key) button.append(make("kbd", { text: keyName(key) }));
  button.append(make("span", { class: "sign" }));
  return button;
}
function gridElement(card, images) {
  const isText = !card.item.rows.some(row => row.thumbnail);
  const grid = make("div", { class: isText ? "grid texts" : "grid" });
  card.item.rows.forEach((row, index) => {
    const button = cell(card, row, index, images);
    button.onclick = () => toggleMark(card, row, "reject", button);
    grid.append(button);
  });
  return grid;
}
function duplicatesElement(card, images) {
  const isText = !card.item.rows.some(row => row.thumbnail || row.image);
  const grid = make("div", { class: isText ? "grid copies texts" : "grid copies" });
  card.item.rows.forEach((row, index) => {
    const button = cell(card, row, index, images);
    button.onclick = event => answerDuplicates(row, event.timeStamp);
    const facts = [row.width && row.height ? `${row.width} × ${row.height}` : "", row.previous_label ? `◆ ${shortened(row.previous_label)}` : "", shortened(row.origin || "", 60)];
    button.append(make("span", { class: "facts", text: facts.filter(Boolean).join(" · ") }));
    button.setAttribute("aria-label", `Keep row ${index + 1}: ${facts.filter(Boolean).join(", ")}`);
    grid.append(button);
  });
  return grid;
}

// ------------------------------------------------------------------------------------------------------------ showing

// Shows the card; `start` is the time of the key, `name` that of the measure.
function show(card, start = performance.now(), name = "first-paint-of-row") {
  state.current = card;
  state.isPainted = false;
  document.body.dataset.painted = "";
  resetView();
  prepare(card);
  if (card.isReady) return place(card, start, name);
  const slow = setTimeout(() => { if (state.current === card && !state.isPainted) blank("Loading the next row …"); }, SLOW_MILLISECONDS);
  card.ready.then(() => { clearTimeout(slow); if (state.current === card && !state.isPainted) place(card, start, name); });
}
function blank(text) { $("stage").replaceChildren(make("p", { class: "soft wait", text })); }

function place(card, start, name) {
  uncover();
  const { item } = card;
  showQuestion(item);
  $("stage").replaceChildren(card.element);
  showGuesses(item);
  if (state.contrast) stretchContrast();
  if (isMany(item)) { fitGrid(); showMarks(card); cells()[0]?.focus({ preventScroll: true }); }
  requestAnimationFrame(() => { // the message is handled after the frame has been painted
    const channel = new MessageChannel();
    channel.port1.onmessage = () => painted(card, start, name);
    channel.port2.postMessage(null);
  });
}
let timings = 0;
function painted(card, start, name) {
  if (state.current !== card) return;
  const end = performance.now();
  state.isPainted = true;
  card.shownAt ||= Date.now();
  card.shownSince = end;
  document.body.dataset.row = card.item.row_id;
  document.body.dataset.painted = card.item.row_id;
  timings += 1;
  if (timings % MAX_TIMINGS === 0) performance.clearMeasures();
  performance.measure(name, { start: Math.min(start, end), end, detail: { row_id: card.item.row_id, question: card.item.question } });
  announce(spoken(card.item));
  showDetails(card.item);
  for (const next of state.queue.slice(0, DECODED_AHEAD)) prepare(next);
  $("stage").scrollTop = 0;
}
// The time on the screen, without the time in which the tab was hidden. A clock that is set back does not matter.
document.addEventListener("visibilitychange", () => {
  const card = state.current;
  modifier = null;
  if (!card || !state.isPainted) return;
  if (document.hidden) card.visibleFor += performance.now() - card.shownSince;
  card.shownSince = performance.now();
});
const isMany = item => item.question === "grid" || item.question === "duplicates";
const cells = () => [...$("stage").querySelectorAll("button.cell")];

function showQuestion(item) {
  const asked = $("asked"), about = [];
  if (item.question === "verify") asked.replaceChildren("Is this ", make("b", { text: item.asked_label ?? "" }), "?");
  else if (item.question === "grid") asked.replaceChildren("Are all of these in the class ", make("b", { text: item.asked_label ?? "" }), "?");
  else asked.replaceChildren(item.question === "duplicates" ? "Which of these near-duplicates is kept?" : "Which class is this?");
  asked.title = item.asked_label || "";
  if (item.question === "verify" || (item.question === "label" && item.suggestion_shown)) about.push(stateOf(item));
  if (item.question === "verify" && item.suggestion_shown && item.previous_label && item.previous_label === item.asked_label && item.previous_source) about.push(`by ${item.previous_source}`);
  const guess = item.suggestion_shown && item.suggestions?.find(entry => entry.label === item.asked_label);
  if (guess) about.push(`the model: ${percent(guess.probability)}`);
  if (item.undone) about.push(`↶ your answer was: ${item.undone}`);
  if (item.question === "label" && !item.suggestion_shown) about.push(hasModel(item) ? "no suggestion for this row" : "no model yet");
  if (item.question === "grid") about.push(`${count(item.rows.length)} rows; mark the odd ones, then accept the rest`);
  if (item.question === "duplicates") about.push("choose one, or mark those to leave out and keep the rest");
  setText($("about"), about.filter(Boolean).join(" · "));
  document.body.dataset.question = item.question;
  document.body.dataset.kind = item.kind || "";
  showRemaining();
}
function spoken(item) {
  const text = item.kind === "text" && item.text ? ` ${shortened(item.text, 300)}` : "";
  return `${$("asked").textContent} ${$("about").textContent}.${text}`;
}
function showRemaining() {
  setText($("remaining"), state.remaining === null ? "" : `${count(state.remaining)} left`);
}

// ------------------------------------------------------------------------------------------------------------ answering

function answerOf(card, row, values) {
  const now = performance.now(), milliseconds = Math.max(0, Math.round(card.visibleFor + (document.hidden ? 0 : now - card.shownSince)));
  const { item } = card, asked = item.asked_label;
  return {
    id: newId(), row_id: row.row_id, lease_id: row.lease_id || item.lease_id || "", question: item.question,
    ...(asked === null || asked === undefined ? {} : { asked_label: asked }),
    suggestion_shown: Boolean(item.suggestion_shown ?? item.question === "grid"),
    shown_at: card.shownAt, answered_at: Date.now(),
    milliseconds: Math.round(milliseconds / rowsOf(item).length), // a screen's time is shared by its rows
    class_change_count: classChangeCount,
    ...values,
  };
}
// Records the answers about the row on the screen and shows the next one. valuesOf: row → the answer's own values.
function record(valuesOf, start) {
  const card = state.current;
  if (!card || !state.isPainted) return;
  const rows = rowsOf(card.item), batch = rows.length > 1 ? { batch: newId() } : {};
  const answers = rows.map(row => answerOf(card, row, { ...batch, ...valuesOf(row) }));
  state.past.push({ card, answers, row_ids: rows.map(row => row.row_id) });
  state.future = [];
  if (state.remaining !== null) state.remaining = Math.max(0, state.remaining - rows.length);
  outbox.add({ kind: "answers", answers }); // before rows are fetched, so that these are left out
  advance(start, "answer-to-paint");
  setText($("toast"), "");
  $("toast").classList.remove("visible");
  release(state.past.at(-KEPT_ELEMENTS)?.card);
}
function advance(start = performance.now(), name = "first-paint-of-row") {
  const next = state.queue.shift();
  if (next) show(next, start, name);
  else { state.current = null; state.isPainted = false; blank("Loading …"); }
  refill();
}
function answerSingle(kind, start, values = {}) {
  const { item } = state.current || {};
  if (!item) return;
  if (isMany(item)) return answerMany(kind, start, values);
  if (kind === "accept") {
    if (item.question === "verify") return record(() => ({ answer: "label", label: item.asked_label }), start);
    const best = item.suggestion_shown && item.suggestions?.[0];
    return best ? chooseClass(best.label, start) : toast("There is no suggestion for this row: choose a class.");
  }
  if (kind === "reject" && item.question !== "verify") return toast("Choose a class, or “none of these”.");
  record(() => ({ answer: kind, ...values }), start);
}
function chooseClass(label, start) {
  const item = state.current?.item;
  if (!item || isMany(item)) return;
  record(() => ({ answer: "label", label }), start);
}
// In a grid, the answers other than skip are marks of the row that has the cursor.
function answerMany(kind, start, values) {
  const card = state.current;
  if (kind === "accept") return acceptRest(start);
  if (kind === "skip") return record(() => ({ answer: "skip" }), start);
  if (kind === "reject" && card.item.question === "duplicates") return record(() => ({ answer: "keep" }), start);
  const row = rowAtCursor(card);
  if (row) toggleMark(card, row, kind, null, values);
}
function cursorCell() {
  const active = document.activeElement;
  return active?.classList.contains("cell") ? active : $("stage").querySelector('button.cell[tabindex="0"]');
}
const rowAtCursor = card => card.item.rows.find(row => row.row_id === cursorCell()?.dataset.id);
function toggleMark(card, row, kind, button, values = {}) {
  if (card !== state.current || !state.isPainted) return;
  const previous = card.marks.get(row.row_id);
  if (previous?.answer === kind && !values.note) card.marks.delete(row.row_id);
  else card.marks.set(row.row_id, { answer: kind, ...values });
  if (button) moveCursor(button);
  showMarks(card);
  const mark = card.marks.get(row.row_id), number = card.item.rows.indexOf(row) + 1;
  announce(mark ? `Row ${number} is marked: ${ANSWER_NAMES[mark.answer]}` : `Row ${number} is not marked`);
}
function showMarks(card) {
  for (const button of cells()) {
    const mark = card.marks.get(button.dataset.id);
    button.setAttribute("aria-pressed", String(Boolean(mark)));
    setText(button.querySelector(".sign"), mark ? MARK_SIGNS[mark.answer] : "");
  }
  const rest = card.item.rows.length - card.marks.size, button = $("answers").querySelector('[data-action="accept_rest"] span');
  if (button) setText(button, card.item.question === "grid" ? `Accept ${card.marks.size ? "the other " : "all "}${count(rest)}` : `Keep ${card.marks.size ? `the other ${count(rest)}` : "all"}`);
}
function acceptRest(start) {
  const card = state.current;
  if (!card || !isMany(card.item)) return;
  const isGrid = card.item.question === "grid";
  if (!isGrid && card.marks.size === card.item.rows.length) return toast("At least one row is kept: take one mark away.");
  record(row => card.marks.get(row.row_id) || (isGrid ? { answer: "label", label: card.item.asked_label } : { answer: "keep" }), start);
}
function answerDuplicates(kept, start) {
  record(row => ({ answer: row === kept ? "keep" : "duplicate" }), start);
}
// The columns with which the thumbnails are largest.
function fitGrid() {
  const grid = $("stage").querySelector(".grid:not(.texts)");
  if (!grid) return;
  const number = grid.childElementCount, box = $("stage").getBoundingClientRect(), gap = 8, isGrid = !grid.classList.contains("copies");
  let best = { side: 0, columns: 1 };
  for (let columns = 1; columns <= number; columns += 1) {
    const side = Math.min((box.width - 20 + gap) / columns, (box.height - 20 + gap) / Math.ceil(number / columns)) - gap;
    if (side > best.side) best = { side, columns };
  }
  const smallest = isGrid ? 84 : 150; // below, the stage scrolls
  const columns = best.side >= smallest ? best.columns : Math.max(1, Math.floor((box.width - 20 + gap) / (smallest + gap)));
  const side = best.side >= smallest ? best.side : (box.width - 20 + gap) / columns - gap;
  grid.style.gridTemplateColumns = isGrid ? `repeat(${columns}, ${Math.floor(side)}px)` : `repeat(${columns}, minmax(0, 1fr))`;
}
addEventListener("resize", fitGrid);
function moveCursor(button) {
  for (const other of cells()) other.tabIndex = other === button ? 0 : -1;
  button.focus({ preventScroll: false });
}
function moveCursorBy(code) {
  const all = cells(), from = all.indexOf(cursorCell());
  if (from < 0) return;
  const columns = Math.max(1, all.filter(button => button.offsetTop === all[0].offsetTop).length);
  const to = from + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[code];
  if (all[to]) moveCursor(all[to]);
}

// -------------------------------------------------------------------------------------------------------- undo and redo

const idsOf = entry => entry.answers.map(answer => answer.id);
const describe = answers => answers.length > 1 ? plural(answers.length, "answer") : answers[0].answer === "label" ? shortened(answers[0].label ?? "") : ANSWER_NAMES[answers[0].answer] || answers[0].answer;

async function undo() {
  if (state.isFetching || (state.current && !state.isPainted)) return;
  const entry = state.past.pop() || await olderEntry();
  if (!entry) return toast("There is nothing to undo.");
  const start = performance.now(), card = await cardOf(entry);
  outbox.add({ kind: "undo", id: newId(), answer_ids: idsOf(entry) });
  state.future.push(entry);
  if (state.remaining !== null) state.remaining += entry.answers.length;
  if (!card) return toast(`Undone: ${describe(entry.answers)}. The row comes again later.`);
  card.item.undone = describe(entry.answers);
  card.visibleFor = card.shownAt = 0;
  const ids = new Set(entry.row_ids);
  state.queue = state.queue.filter(other => !rowsOf(other.item).some(row => ids.has(row.row_id)));
  if (state.current && state.current !== card) state.queue.unshift(state.current);
  show(card, start, "undo-to-paint");
  toast(`Undone: ${card.item.undone}`);
}
async function redo() {
  if (state.isFetching || (state.current && !state.isPainted)) return;
  await firstHistory();
  const entry = state.future.pop();
  if (!entry) return toast("There is nothing to redo.");
  outbox.add({ kind: "redo", id: newId(), answer_ids: idsOf(entry) });
  state.past.push(entry);
  if (state.remaining !== null) state.remaining = Math.max(0, state.remaining - entry.answers.length);
  const ids = new Set(entry.row_ids), isDone = card => rowsOf(card.item).some(row => ids.has(row.row_id));
  state.queue = state.queue.filter(card => !isDone(card));
  if (state.current && isDone(state.current)) advance();
  toast(`Restored: ${describe(entry.answers)}`);
}
// The answers of earlier sessions, in units of one key: neighbors with the same batch are one entry.
function entriesOf(answers) {
  const entries = [];
  for (const answer of answers) {
    const last = entries.at(-1);
    if (last && answer.batch && last.answers[0].batch === answer.batch) { last.answers.push(answer); last.row_ids.push(answer.row_id); }
    else entries.push({ card: null, answers: [answer], row_ids: [answer.row_id], undone: answer.undone });
  }
  return entries;
}
async function fetchHistory() {
  const before = state.historyCursor ? `&before=${state.historyCursor}` : "";
  const { answers } = await request(`/api/history?count=100${before}`);
  if (answers.length) state.historyCursor = answers.at(-1).id;
  state.historyEnded = answers.length < 100;
  const known = new Set([...state.past, ...state.future].flatMap(idsOf));
  return entriesOf(answers.filter(answer => !known.has(answer.id)));
}
// Undone answers that nothing follows can be redone; the rest is what can be undone.
let loadingHistory = null;
function firstHistory() {
  loadingHistory ||= (async () => {
    const entries = await fetchHistory(), redoable = [], rows = new Set();
    while (entries.length && entries[0].undone) {
      const entry = entries.shift();
      if (!entry.row_ids.some(id => rows.has(id))) redoable.push(entry);
      for (const id of entry.row_ids) rows.add(id);
    }
    if (!state.past.length && !state.future.length) state.future = redoable;
    state.past.unshift(...entries.filter(entry => !entry.undone).reverse());
  })().catch(() => { loadingHistory = null; });
  return loadingHistory;
}
async function olderEntry() {
  state.isFetching = true;
  try {
    await firstHistory();
    while (loadingHistory && !state.past.length && !state.historyEnded) {
      state.past.unshift(...(await fetchHistory()).filter(entry => !entry.undone).reverse());
    }
  } catch { toast("The earlier answers cannot be fetched now."); } finally { state.isFetching = false; }
  return state.past.pop();
}
async function cardOf(entry) {
  if (entry.card) return entry.card;
  state.isFetching = true;
  try {
    const items = await Promise.all(entry.row_ids.map(id => request(`/api/item/${id}`)));
    const question = entry.answers[0].question;
    if (items.length === 1 && question !== "grid" && question !== "duplicates") entry.card = makeCard(items[0]);
    else {
      const label = entry.answers.find(answer => answer.label)?.label ?? entry.answers.find(answer => answer.asked_label)?.asked_label;
      entry.card = makeCard({ ...items[0], question, asked_label: question === "grid" ? label : null, rows: items });
      for (const answer of entry.answers) if (!["label", "keep"].includes(answer.answer)) entry.card.marks.set(answer.row_id, { answer: answer.answer });
    }
  } catch { entry.card = null; } finally { state.isFetching = false; }
  return entry.card;
}

// -------------------------------------------------------------------------------------------------------- fetching rows

let isRefilling = false, retryTimer = 0;
async function refill() {
  const wanted = isManyMode() ? MAX_HELD_GRIDS : state.remaining === null ? FIRST_HELD : Math.min(MAX_HELD, Math.max(2, Math.ceil(HELD_SHARE * state.remaining)));
  if (isRefilling || !state.isActive || held().length > wanted * 0.6) return;
  isRefilling = true;
  clearTimeout(retryTimer);
  const generation = state.generation;
  let isAgain = false;
  try {
    // Rows of unsent answers are left out by the server only once it has these answers.
    const skip = new Set([...held().flatMap(card => rowsOf(card.item).map(row => row.row_id)), ...outbox.rowIds]);
    const number = isManyMode() ? MAX_ROWS_PER_REQUEST : wanted - held().length;
    const values = await request(`/api/items?mode=${state.mode}&order=${encodeURIComponent(state.order)}&count=${number}&skip=${[...skip].join(",")}`);
    if (generation !== state.generation) isAgain = true;
    else {
      const taken = new Set([...skip, ...outbox.rowIds, ...held().flatMap(card => rowsOf(card.item).map(row => row.row_id))]);
      const fresh = values.items.filter(item => !rowsOf(item).some(row => taken.has(row.row_id)));
      state.queue.push(...fresh.map(makeCard));
      state.remaining = values.remaining;
      showRemaining();
      for (const card of state.queue.slice(0, DECODED_AHEAD)) prepare(card);
      isAgain = fresh.length > 0 && isManyMode();
      if (!state.current) {
        if (state.queue.length) advance();
        else nothingLeft(values.remaining);
      }
    }
  } catch (error) {
    const isRefused = error instanceof RefusedRequest;
    if (isRefused && error.status === 403) banner(error.message);
    else {
      if (!state.current) blank(isRefused ? error.message : "Waiting for the server …");
      retryTimer = setTimeout(refill, 1_000);
    }
  } finally { isRefilling = false; }
  if (isAgain) refill();
}
const isManyMode = () => state.mode === "grid" || state.mode === "duplicates";

function nothingLeft(remaining) {
  if (outbox.unsent) { blank("Saving …"); retryTimer = setTimeout(refill, 500); return; }
  const others = remaining > 0 && !isManyMode();
  const choices = [...(config.modes.length > 1 ? [["mode", "Next mode"]] : []), ...(isManyMode() || config.orders.length < 2 ? [] : [["order", "Next order"]])];
  const buttons = [...choices, ["undo", "Undo"]].map(([action, name]) => actionButton(action, name));
  if (others) cover("Other reviewers have the last rows", `${plural(remaining, "row")} are on the screens of others. This page goes on when one is free.`, buttons);
  else if (isManyMode() && remaining > 0) cover(state.mode === "grid" ? "There is nothing for a grid" : "There are no near-duplicates to compare", `${plural(remaining, "row")} can be reviewed in another mode.`, buttons);
  else cover("Nothing left to review", "Every row of this queue has an answer. The next `seedling run` uses them; `seedling review --refresh` adds new files.", buttons);
  announce(`${$("cover-title").textContent}. ${$("cover-text").textContent}`);
  retryTimer = setTimeout(refill, others ? 3_000 : 15_000);
}
function changeMode(mode) {
  if (!config.modes.includes(mode) || mode === state.mode) return;
  state.mode = mode;
  settings.write("mode", mode);
  state.generation += 1;
  state.current = null;
  state.queue = [];
  state.isPainted = false;
  document.body.dataset.painted = "";
  uncover();
  blank("Loading …");
  showControls();
  refill();
}
// The row on the screen stays; only rows that are fetched from now on are in the new order.
function changeOrder(order) {
  if (!config.orders.includes(order) || order === state.order) return;
  state.order = order;
  settings.write("order", order);
  state.generation += 1;
  state.queue = [];
  showControls();
  toast(`Order: ${ORDERS[order] || order}`);
  if (!state.current) uncover();
  refill();
}
const following = (list, value) => list[(list.indexOf(value) + 1) % list.length];

// ------------------------------------------------------------------------------------------------------------ controls

function keyName(key) {
  if (KEY_NAMES[key]) return KEY_NAMES[key];
  return key.startsWith("Key") ? key.slice(3) : key.startsWith("Digit") ? key.slice(5) : key;
}
const keysOf = action => config.keys[action] || [];
const keyElements = (keys, most = 9) => keys.slice(0, most).map(key => make("kbd", { text: keyName(key) }));
function actionButton(action, name, className = "") {
  const keys = keysOf(action).filter(key => key !== "Space" || !isManyMode()); // there, Space marks
  const button = make("button", { type: "button", "data-action": action, class: className, title: ACTIONS[action] }, make("span", { text: name }), ...keyElements(keys, className ? 3 : 1));
  button.setAttribute("aria-keyshortcuts", keysOf(action).map(keyName).join(" "));
  return button;
}
const ANSWERS = {
  verify: [["accept", "✓ Yes", "yes"], ["reject", "✕ No", "no"], ["skip", "Skip"], ["unsure", "Unsure"], ["none_of_these", "None of these"], ["bad", "Bad data"], ["flag", "Flag"]],
  label: [["skip", "Skip"], ["unsure", "Unsure"], ["none_of_these", "None of these"], ["bad", "Bad data"], ["flag", "Flag"]],
  grid: [["accept_rest", "Accept all", "yes"], ["reject", "✕ Mark", "no"], ["skip", "Skip all"], ["unsure", "Unsure"], ["none_of_these", "None of these"], ["bad", "Bad data"], ["flag", "Flag"]],
  duplicates: [["accept_rest", "Keep all", "yes"], ["bad", "Bad data"], ["skip", "Skip"], ["flag", "Flag"]],
};
function showControls() {
  const answers = ANSWERS[state.mode].map(([action, name, className]) => actionButton(action, name, className));
  if (state.mode === "duplicates") answers.splice(1, 0, make("button", { type: "button", "data-action": "mark_copy", title: "Mark as a copy" }, make("span", { text: "≡ Mark as copy" }), make("kbd", { text: "Space" })));
  $("answers").replaceChildren(...answers);
  $("classes").hidden = isManyMode();
  $("view").hidden = isManyMode() || config.modality === "text";
  $("mode").value = state.mode;
  $("order").value = state.order;
  $("order").disabled = isManyMode() || config.split === "test";
  document.body.dataset.mode = state.mode;
}
function fillMenus() {
  $("mode").replaceChildren(...config.modes.map(mode => make("option", { value: mode, text: MODES[mode] || mode })));
  $("order").replaceChildren(...config.orders.map(order => make("option", { value: order, text: ORDERS[order] || order })));
  for (const button of document.querySelectorAll("header [data-action], #view [data-action]")) {
    button.append(" ", ...keyElements(keysOf(button.dataset.action), 1));
    button.title = ACTIONS[button.dataset.action];
  }
}

// The first keys are those of the model's guesses, which change with the row; each class has a key that never changes.
const guessKeys = () => config.keys.classes.slice(0, Math.max(0, Math.min(3, classes.length - 1)));
const classKeys = () => config.keys.classes.slice(guessKeys().length);
let classButtons = new Map(), shownGuesses = [], haveNamesDigits = false; // then digits are typed, too
function fillClasses() {
  const keys = classKeys();
  haveNamesDigits = classes.some(label => /[0-9]/.test(label));
  classButtons = new Map(classes.map((label, index) => {
    const button = make("button", { type: "button", class: "class", title: label, "data-label": label }, make("span", { dir: "auto", text: label }), keys[index] ? make("kbd", { text: keyName(keys[index]) }) : null);
    return [label, button];
  }));
  $("labels").replaceChildren(...classButtons.values());
  $("guesses").replaceChildren(...guessKeys().map((key, index) => make("button", { type: "button", class: "class guess", "data-guess": index }, make("span", { dir: "auto" }), make("small"), make("kbd", { text: keyName(key) }), ...(index ? [] : keyElements(keysOf("accept"), 3)))));
  $("find").placeholder = `Search ${count(classes.length)} ${classes.length === 1 ? "class" : "classes"}`;
  $("classes").classList.toggle("many", classes.length > keys.length);
  setText($("find-hint"), `${keysOf("search").map(keyName).join(" or ")} to type, Enter takes the first`);
}
function showGuesses(item) {
  const guesses = item.suggestion_shown ? item.suggestions || [] : [];
  [...$("guesses").children].forEach((button, index) => {
    const guess = guesses[index];
    button.disabled = !guess;
    setText(button.children[0], guess ? guess.label : "–");
    setText(button.children[1], guess ? percent(guess.probability, 0) : "");
    button.title = guess ? guess.label : "No suggestion";
  });
  $("guesses").hidden = !hasModel(item);
  for (const button of shownGuesses) button.classList.remove("guessed");
  shownGuesses = guesses.map(guess => classButtons.get(guess.label)).filter(Boolean);
  for (const button of shownGuesses) button.classList.add("guessed");
  const best = $("answers").querySelector('[data-action="accept"]');
  if (best) { // a label is asked for in verify mode if the row comes without suggestion
    setAvailable(best, item.question === "verify" || guesses.length > 0);
    setText(best.querySelector("span"), item.question === "verify" || !guesses.length ? "✓ Yes" : `✓ ${shortened(guesses[0].label, 40)}`);
  }
  const no = $("answers").querySelector('[data-action="reject"]');
  if (no) setAvailable(no, item.question !== "label");
  if (state.typing) startTyping();
}
// An answer that a row does not have keeps its room, so that the other buttons stay where they are.
function setAvailable(button, isAvailable) {
  button.disabled = !isAvailable;
  button.classList.toggle("unavailable", !isAvailable);
}
function chooseGuess(index, start) {
  const item = state.current?.item, guess = item?.suggestion_shown && item.suggestions?.[index];
  if (guess) chooseClass(guess.label, start);
  else if (item) toast("There is no suggestion for this row: choose a class by its own key.");
}

// --------------------------------------------------------------------------------------------------------- type-ahead

let matches = [], matchIndex = 0;
const folded = text => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const foldedNames = new Map();
function rankOf(label, query) {
  if (!foldedNames.has(label)) foldedNames.set(label, folded(label));
  const name = foldedNames.get(label), at = name.indexOf(query);
  return at < 0 ? 9 : at === 0 ? 0 : /[\p{L}\p{N}]/u.test(name[at - 1]) ? 2 : 1;
}
function startTyping() {
  state.typing = true;
  $("classes").classList.add("typing"); // the field can be focused only if it is on the screen
  $("find").value = "";
  filterClasses();
  $("find").focus({ preventScroll: true });
}
function stopTyping() {
  state.typing = false;
  $("classes").classList.remove("typing");
  $("find").value = "";
  $("find").blur();
  filterClasses();
}
function filterClasses() {
  const query = folded($("find").value.trim());
  matches = !query ? [] : classes.map(label => [rankOf(label, query), label]).filter(([rank]) => rank < 9).sort((one, other) => one[0] - other[0]).map(([, label]) => label);
  const order = new Map(matches.map((label, index) => [label, index]));
  for (const [label, button] of classButtons) {
    button.hidden = Boolean(query) && !order.has(label);
    button.style.order = order.get(label) ?? 0;
  }
  matchIndex = 0;
  showMatch();
}
function showMatch() {
  for (const [label, button] of classButtons) button.classList.toggle("match", label === matches[matchIndex]);
  const query = $("find").value.trim();
  setText($("find-hint"), !query ? `${keysOf("search").map(keyName).join(" or ")} to type, Enter takes the first` : matches.length ? `Enter takes “${shortened(matches[matchIndex], 40)}”` : "No class has this in its name");
}
// Returns whether the key was one of the type-ahead. With nothing typed, keys that are not letters do what they always do.
function typingKey(event) {
  const isEmpty = !$("find").value;
  if (event.key === "Escape") { stopTyping(); return true; }
  if (event.key === "Enter") {
    if (matches.length) chooseClass(matches[matchIndex], event.timeStamp);
    else if (isEmpty) answerSingle("accept", event.timeStamp);
    else toast("No class has this in its name.");
    return true;
  }
  if (!isEmpty && (event.key === "ArrowDown" || event.key === "ArrowUp") && matches.length) {
    matchIndex = (matchIndex + (event.key === "ArrowDown" ? 1 : -1) + matches.length) % matches.length;
    showMatch();
    classButtons.get(matches[matchIndex]).scrollIntoView({ block: "nearest" });
    return true;
  }
  if (!isEmpty) return true; // text is being typed
  return event.key.length === 1 && event.key !== " " && (!/[0-9]/.test(event.key) || haveNamesDigits);
}

// ---------------------------------------------------------------------------------------------------------------- keys

let bindings = new Map();
function bindKeys() {
  bindings = new Map();
  for (const [action, keys] of Object.entries(config.keys)) {
    keys.forEach((key, index) => bindings.set(key, action === "classes" ? index : action));
  }
}
// The names under which a key can be bound: its character, and its code. Letters go by what is printed on the key.
function namesOf(event) {
  const { key, code } = event, names = [];
  if (key.length === 1 && !/[\p{L}\p{N} ]/u.test(key)) names.push(key);
  if (/^[a-z]$/i.test(key)) names.push(`Key${key.toUpperCase()}`);
  else if (/^[0-9]$/.test(key)) names.push(`Digit${key}`);
  else if (!(code.startsWith("Digit") && event.shiftKey)) names.push(code === "NumpadEnter" ? "Enter" : code);
  return names;
}
// A modifier acts when it is released, if nothing else was pressed, clicked or turned since it was pressed.
let modifier = null;
const spoilModifier = () => { if (modifier !== null) modifier = "used"; };
const areDialogsOpen = () => document.querySelector("dialog[open]") !== null;
const isField = element => element instanceof HTMLElement && element.matches("input, textarea, select");

addEventListener("keydown", event => {
  if (MODIFIER_CODES.has(event.code)) {
    if (!event.repeat) modifier = modifier === null ? event.code : "used";
    return;
  }
  spoilModifier();
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (areDialogsOpen()) { dialogKey(event); return; }
  if (!state.isActive) { if (event.key === "Enter" && !event.repeat) takeOver(); return; }
  const { target } = event;
  if (target === $("find")) { if (typingKey(event)) { if (event.key === "Enter" || event.key.startsWith("Arrow") || event.key === "Escape") event.preventDefault(); return; } }
  else if (isField(target)) return;
  if (target instanceof HTMLButtonElement && !target.classList.contains("cell") && (event.code === "Space" || event.key === "Enter")) return; // the button's own click
  if (isMany(state.current?.item || {}) && gridKey(event)) return event.preventDefault();
  for (const name of namesOf(event)) {
    if (!bindings.has(name)) continue;
    event.preventDefault();
    if (!event.repeat) perform(bindings.get(name), event.timeStamp);
    return;
  }
  scrollKey(event);
});
addEventListener("keyup", event => {
  if (!MODIFIER_CODES.has(event.code)) return;
  const isAlone = modifier === event.code;
  if (isAlone || !(event.ctrlKey || event.shiftKey || event.altKey || event.metaKey)) modifier = null;
  if (!isAlone || areDialogsOpen() || !state.isActive || !bindings.has(event.code)) return;
  if (isField(event.target) && event.target !== $("find")) return;
  perform(bindings.get(event.code), event.timeStamp);
});
addEventListener("pointerdown", spoilModifier, true);
addEventListener("wheel", spoilModifier, { capture: true, passive: true });
addEventListener("blur", () => { modifier = null; });

function gridKey(event) {
  if (event.code === "Space") {
    const card = state.current, row = rowAtCursor(card);
    if (!event.repeat && row) toggleMark(card, row, card.item.question === "grid" ? "reject" : "duplicate");
    return true;
  }
  if (event.key === "Enter") { if (!event.repeat) acceptRest(event.timeStamp); return true; }
  if (/^Arrow/.test(event.code)) { moveCursorBy(event.code); return true; }
  return false;
}
function scrollKey(event) {
  const stage = $("stage").querySelector(".text") || $("stage"), page = stage.clientHeight * 0.85;
  const distance = { ArrowUp: -80, ArrowDown: 80, PageUp: -page, PageDown: page, Home: -1e9, End: 1e9 }[event.code];
  if (!distance || isMany(state.current?.item || {})) return;
  event.preventDefault();
  stage.scrollBy(0, distance);
}
function perform(action, start = performance.now()) {
  if (typeof action === "number") return performClass(action, start);
  const steps = {
    accept: () => answerSingle("accept", start), accept_rest: () => acceptRest(start),
    flag: openNote, undo, redo, zoom: () => setZoom(view.scale > 1 ? 1 : 2.5), contrast: toggleContrast, flicker: toggleFlicker, panel: togglePanel,
    order: () => ($("order").disabled ? toast(config.split === "test" ? "The test split is reviewed in random order." : "A grid has its own order.") : changeOrder(following(config.orders, state.order))),
    mode: () => changeMode(following(config.modes, state.mode)),
    search: () => { if (!isManyMode()) startTyping(); }, edit_classes: openEditor, theme: changeTheme, help: () => $("sheet").showModal(),
    mark_copy: () => { const row = state.current && rowAtCursor(state.current); if (row) toggleMark(state.current, row, "duplicate"); },
  };
  (steps[action] || (() => answerSingle(action, start)))();
}
function performClass(index, start) {
  const item = state.current?.item;
  if (!item) return;
  if (isMany(item)) {
    const row = item.rows[index], button = cells()[index];
    if (!row) return;
    if (item.question === "duplicates") return answerDuplicates(row, start);
    return toggleMark(state.current, row, "reject", button);
  }
  const guesses = guessKeys().length;
  if (index < guesses) return chooseGuess(index, start);
  if (classes[index - guesses] !== undefined) chooseClass(classes[index - guesses], start);
}
addEventListener("mousedown", event => { // a click leaves the keys where they are
  const button = event.target instanceof Element && event.target.closest("button");
  if (button && !button.classList.contains("cell") && !areDialogsOpen()) event.preventDefault();
});
addEventListener("click", event => {
  const button = event.target instanceof Element && event.target.closest("button");
  if (!button || button.disabled || areDialogsOpen()) return;
  if (button.dataset.action) perform(button.dataset.action, event.timeStamp);
  else if (button.dataset.guess) chooseGuess(Number(button.dataset.guess), event.timeStamp);
  else if (button.dataset.label !== undefined) chooseClass(button.dataset.label, event.timeStamp);
});

// ------------------------------------------------------------------------------------------------ zoom, swipe, contrast

const view = { scale: 1, x: 0, y: 0, pointers: new Map(), start: null };
const canvas = () => $("stage").querySelector(".canvas");
function applyView() {
  const element = canvas();
  if (!element) return;
  const box = $("stage").getBoundingClientRect(), limit = (view.scale - 1) / 2;
  view.x = Math.max(-box.width * limit, Math.min(box.width * limit, view.x));
  view.y = Math.max(-box.height * limit, Math.min(box.height * limit, view.y));
  element.style.transform = view.scale === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  $("stage").classList.toggle("zoomed", view.scale > 1);
  $("view").querySelector('[data-action="zoom"]').setAttribute("aria-pressed", String(view.scale > 1));
}
function setZoom(scale, clientX, clientY) {
  if (!canvas()) return;
  const box = $("stage").getBoundingClientRect(), next = Math.max(1, Math.min(16, scale));
  const x = (clientX ?? box.left + box.width / 2) - box.left - box.width / 2, y = (clientY ?? box.top + box.height / 2) - box.top - box.height / 2;
  view.x = x - (x - view.x) * next / view.scale;
  view.y = y - (y - view.y) * next / view.scale;
  view.scale = next;
  applyView();
  if (next > 1) sharpen();
}
async function sharpen() {
  const card = state.current, present = canvas()?.querySelector("img");
  if (!card?.item.image || !present || card.isSharp) return;
  card.isSharp = true;
  const images = [], largest = image(sized(card.item.image, 0), present.alt, images, card.item);
  await images[0];
  if (largest.naturalWidth > present.naturalWidth && present.isConnected) present.replaceWith(largest);
}
function resetView() {
  const element = canvas();
  if (element) element.style.transform = "";
  Object.assign(view, { scale: 1, x: 0, y: 0, start: null });
  view.pointers.clear();
  $("stage").classList.remove("zoomed");
  $("view").querySelector('[data-action="zoom"]').setAttribute("aria-pressed", "false");
  stopFlicker();
}
const spread = () => { const [one, other] = [...view.pointers.values()]; return Math.hypot(one.x - other.x, one.y - other.y); };
function listenToPointers() {
  const stage = $("stage");
  stage.addEventListener("wheel", event => {
    if (!canvas() || event.ctrlKey) return;
    event.preventDefault();
    setZoom(view.scale * Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
  }, { passive: false });
  stage.addEventListener("dblclick", event => { if (canvas()) setZoom(view.scale > 1 ? 1 : 2.5, event.clientX, event.clientY); });
  stage.addEventListener("pointerdown", event => {
    if (event.pointerType === "mouse" && (event.button !== 0 || !canvas())) return;
    view.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    view.start = { x: event.clientX, y: event.clientY, time: event.timeStamp, panX: view.x, panY: view.y, scale: view.scale, spread: view.pointers.size === 2 ? spread() : 0, touches: view.pointers.size };
    if (canvas() && event.pointerType === "mouse") stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", event => {
    if (!view.pointers.has(event.pointerId) || !view.start) return;
    view.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (view.pointers.size === 2 && view.start.spread) return setZoom(view.start.scale * spread() / view.start.spread, event.clientX, event.clientY);
    if (view.scale > 1) {
      view.x = view.start.panX + event.clientX - view.start.x;
      view.y = view.start.panY + event.clientY - view.start.y;
      applyView();
    } else if (event.pointerType === "touch" && !isMany(state.current?.item || {})) showSwipe(event.clientX - view.start.x, event.clientY - view.start.y);
  });
  stage.addEventListener("pointerup", event => endPointer(event, true));
  stage.addEventListener("pointercancel", event => endPointer(event, false));
}
function swipeAction(x, y) { // right: yes; left: no; up: skip
  if (Math.abs(x) > SWIPE_PIXELS && Math.abs(x) > 1.5 * Math.abs(y)) return x > 0 ? "accept" : "reject";
  return y < -SWIPE_PIXELS && -y > 1.5 * Math.abs(x) && canvas() ? "skip" : "";
}
function showSwipe(x, y) { $("stage").dataset.swipe = swipeAction(x, y); }
function endPointer(event, isComplete) {
  const { start } = view;
  if (!view.pointers.delete(event.pointerId)) return;
  $("stage").dataset.swipe = "";
  if (!isComplete || !start || start.touches > 1 || view.pointers.size || view.scale > 1 || event.pointerType === "mouse") return;
  if (isMany(state.current?.item || {})) return;
  const action = swipeAction(event.clientX - start.x, event.clientY - start.y);
  if (action) perform(action, event.timeStamp);
}
// Contrast: brightness from the 1st to the 99th percentile becomes 0 to 1, alike in all three channels.
function stretchContrast() {
  const element = canvas()?.querySelector("img");
  if (!element || !element.naturalWidth) return;
  const side = 64, sample = make("canvas", { width: side, height: side }), context = sample.getContext("2d", { willReadFrequently: true });
  context.drawImage(element, 0, 0, side, side);
  const pixels = context.getImageData(0, 0, side, side).data, values = new Uint8Array(side * side);
  for (let index = 0; index < values.length; index += 1) values[index] = (pixels[4 * index] * 54 + pixels[4 * index + 1] * 183 + pixels[4 * index + 2] * 19) >> 8;
  values.sort();
  const low = values[Math.floor(0.01 * values.length)] / 255, high = values[Math.floor(0.99 * values.length) - 1] / 255, slope = 1 / Math.max(high - low, 1 / 255);
  for (const channel of document.querySelectorAll("#contrast-stretch feFuncR, #contrast-stretch feFuncG, #contrast-stretch feFuncB")) {
    channel.setAttribute("slope", slope.toFixed(4));
    channel.setAttribute("intercept", (-low * slope).toFixed(4));
  }
}
function toggleContrast() {
  if (!canvas()) return;
  state.contrast = !state.contrast;
  if (state.contrast) stretchContrast();
  $("stage").classList.toggle("stretched", state.contrast);
  $("view").querySelector('[data-action="contrast"]').setAttribute("aria-pressed", String(state.contrast));
}
async function toggleFlicker() {
  if (state.flicker) return stopFlicker();
  const card = state.current, item = card?.item, frame = canvas();
  const neighbor = item?.suggestion_shown !== false && item?.neighbors?.find(entry => entry.image);
  if (!neighbor || !frame) return toast(item?.suggestion_shown === false ? "The neighbors are hidden for a row without suggestion." : "There is no labeled neighbor to compare with.");
  const other = make("div", { class: "other", hidden: true }, image(sized(neighbor.image, stageSide()), `Nearest labeled row: ${neighbor.label}`, []), make("p", { text: `◆ nearest labeled row: ${neighbor.label}` }));
  await other.firstChild.decode().catch(() => {});
  if (state.current !== card || state.flicker) return;
  frame.append(other);
  const flip = () => { other.hidden = !other.hidden; };
  flip();
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches; // then it stays until the key is pressed again
  state.flicker = isStill ? -1 : setInterval(flip, FLICKER_MILLISECONDS);
  $("view").querySelector('[data-action="flicker"]').setAttribute("aria-pressed", "true");
}
function stopFlicker() {
  if (!state.flicker) return;
  clearInterval(state.flicker);
  state.flicker = 0;
  for (const other of document.querySelectorAll("#stage .other")) other.remove();
  $("view").querySelector('[data-action="flicker"]').setAttribute("aria-pressed", "false");
}

// -------------------------------------------------------------------------------------------------------------- details

function fact(list, name, value) {
  if (value === null || value === undefined || value === "") return;
  list.append(make("dt", { text: name }), make("dd", { dir: "auto", text: String(value) }));
}
let neighborsTimer = 0;
function showDetails(item) {
  clearTimeout(neighborsTimer);
  const facts = $("provenance"), isBlind = item.suggestion_shown === false;
  facts.replaceChildren();
  if (isMany(item)) { $("suggestions").replaceChildren(); $("neighbors").replaceChildren(); fact(facts, "rows", count(item.rows.length)); return; }
  const isLabelHidden = isBlind && item.question === "label";
  fact(facts, "state", isLabelHidden && hasModel(item) ? "hidden, so that your answer is independent" : stateOf(item));
  if (!isLabelHidden) fact(facts, "label", item.previous_label && `${item.previous_label}${item.previous_source ? ` (${item.previous_source})` : ""}`);
  if (!isBlind && item.p_label_error !== null && item.p_label_error !== undefined) fact(facts, "label error", `${percent(item.p_label_error)} likely`);
  fact(facts, "from", item.origin);
  if (item.width && item.height) fact(facts, "size", `${count(item.width)} × ${count(item.height)}`);
  fact(facts, "license", item.license);
  fact(facts, "by", item.attribution);
  fact(facts, "model", item.round === null || item.round === undefined ? null : `round ${item.round}`);
  fact(facts, "queue", item.position === null || item.position === undefined ? null : `position ${count(item.position + 1)}`);
  fact(facts, "row", item.row_id);
  showSuggestions(item, isBlind ? [] : item.suggestions || [], isBlind);
  $("neighbors").replaceChildren();
  neighborsTimer = setTimeout(showNeighbors, NEIGHBORS_MILLISECONDS, isBlind ? [] : item.neighbors || []);
}
function showSuggestions(item, suggestions, isBlind) {
  const keys = guessKeys(), bars = suggestions.map(({ label, probability }, index) => {
    const bar = make("span", { class: "bar" }, make("i"));
    bar.firstChild.style.width = `${Math.round(100 * Math.max(0, Math.min(1, probability)))}%`;
    return make("li", {}, make("span", { class: "name", dir: "auto", title: label, text: label }), make("span", {}, `${percent(probability)} `, keys[index] ? make("kbd", { text: keyName(keys[index]) }) : null), bar);
  });
  const content = bars.length ? make("ol", {}, ...bars) : make("p", { class: "soft", text: isBlind && hasModel(item) ? "Hidden for this row: a share of rows comes without suggestion, to measure error rates without bias." : "No model has predicted this row yet." });
  $("suggestions").replaceChildren(make("h3", { text: "The model’s classes" }), content);
}
function showNeighbors(neighbors) {
  const figures = neighbors.map(neighbor => {
    const figure = make("figure");
    if (neighbor.image) figure.append(image(neighbor.thumbnail || sized(neighbor.image, 256), "", []));
    else figure.append(make("p", { class: "snippet", dir: "auto", text: shortened(String(neighbor.text ?? ""), 120) }));
    figure.append(make("figcaption", { dir: "auto" }, `◆ ${neighbor.label ?? ""} `, make("span", { class: "soft", text: neighbor.similarity === undefined || neighbor.similarity === null ? "" : Number(neighbor.similarity).toFixed(2) })));
    figure.title = neighbor.label ?? "";
    return figure;
  });
  $("neighbors").replaceChildren(...(figures.length ? [make("h3", { text: "Nearest labeled rows" }), make("div", { class: neighbors.some(neighbor => neighbor.image) ? "figures" : "figures texts" }, ...figures)] : []));
}
function togglePanel() {
  const isOpen = document.body.dataset.panel !== "closed";
  document.body.dataset.panel = isOpen ? "closed" : "open";
  settings.write("panel", document.body.dataset.panel);
  document.querySelector('header [data-action="panel"]').setAttribute("aria-expanded", String(!isOpen));
}

// ----------------------------------------------------------------------------------------------------------- live panel

const interval = estimate => (estimate ? `[${percent(estimate.low)}, ${percent(estimate.high)}]` : "");
function number(name, value, ...more) {
  const notes = more.filter(Boolean).flatMap(text => [" ", make("span", { class: "soft", text })]);
  return [make("dt", { text: name }), make("dd", {}, make("b", { text: value }), ...notes)];
}
// Another reviewer has changed the classes: the page is loaded again, as soon as nothing is lost by that.
function learnClasses(panel) {
  if (panel.class_change_count === undefined || panel.class_change_count <= classChangeCount) return;
  if (!outbox.waiting.length && !areDialogsOpen() && !state.current?.marks.size) location.reload();
}
let panelKey = "";
function showPanel(panel) {
  learnClasses(panel);
  if (typeof panel.remaining === "number" && !outbox.waiting.length) { state.remaining = panel.remaining; showRemaining(); }
  const key = JSON.stringify(panel);
  if (key === panelKey) return;
  panelKey = key;
  const { errors_left: left, error_rate: rate, accuracy } = panel, entries = [];
  entries.push(...number("decisions per hour", panel.answers_per_hour ? count(Math.round(panel.answers_per_hour)) : "–"));
  entries.push(...number("answers", count(panel.answers ?? 0), panel.reversals ? `${count(panel.reversals)} undone or changed` : ""));
  entries.push(...number("accuracy", accuracy ? percent(accuracy.value) : "–", ...(accuracy ? [interval(accuracy), "cross-validated"] : ["after the first fit"])));
  if (left) entries.push(...number("label errors left", count(Math.round(left.value)), `[${count(Math.round(left.low))}, ${count(Math.round(left.high))}]`));
  if (rate) entries.push(...number(rate.of === "labels" ? "wrong labels" : "wrong predictions", percent(rate.value), interval(rate), `of ${plural(rate.rows ?? 0, "random row")}`));
  if (typeof panel.expected_gain === "number") entries.push(...number("next 100 answers", `${panel.expected_gain >= 0 ? "+" : "−"}${Math.abs(panel.expected_gain).toFixed(1)} points`, "expected"));
  $("numbers").replaceChildren(...entries);
  $("enough").replaceChildren(make("b", { class: panel.enough ? "enough" : "", text: panel.enough ? "✔ Enough. " : "→ Go on. " }), panel.reason || "");
  $("live").setAttribute("aria-busy", String(Boolean(panel.refitting)));
  $("live").classList.toggle("refitting", Boolean(panel.refitting));
  drawChart(panel.accuracy_history || []);
}
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function drawChart(history) {
  if (history.length < 2) return $("chart").replaceChildren();
  const width = 280, height = 96, left = 38, right = 10, top = 10, bottom = 20;
  const answers = history.map(point => point[0]), shares = history.map(point => point[1]);
  const lowest = Math.max(0, Math.floor(20 * Math.min(...shares) - 0.2) / 20), highest = Math.min(1, Math.ceil(20 * Math.max(...shares) + 0.2) / 20);
  const first = answers[0], last = Math.max(answers.at(-1), first + 1);
  const x = value => left + (value - first) / (last - first) * (width - left - right);
  const y = share => top + (highest - share) / Math.max(highest - lowest, 0.01) * (height - top - bottom);
  const text = (at, position, anchor, content) => svg("text", { x: at, y: position, "text-anchor": anchor }, content);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Accuracy from ${percent(shares[0])} after ${count(first)} answers to ${percent(shares.at(-1))} after ${count(last)}` },
    ...[lowest, highest].flatMap(share => [svg("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "axis" }), text(left - 5, y(share) + 4, "end", percent(share, 0))]),
    svg("polyline", { points: history.map(point => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(" "), class: "curve" }),
    svg("circle", { cx: x(answers.at(-1)), cy: y(shares.at(-1)), r: 3.5, class: "dot" }),
    text(left, height - 4, "start", count(first)), text(width - right, height - 4, "end", `${count(last)} answers`));
  $("chart").replaceChildren(chart);
}
async function pollPanel() {
  for (;;) {
    if (!document.hidden && state.isActive) { try { showPanel(await request("/api/panel")); } catch { /* the outbox says it */ } }
    await pause(PANEL_MILLISECONDS);
  }
}

// -------------------------------------------------------------------------------------------------------------- dialogs

function fillSheet() {
  const line = (keys, text) => make("li", {}, make("span", {}, ...keys), make("span", { text }));
  const lines = Object.entries(ACTIONS).map(([action, text]) => line(keyElements(keysOf(action)), text));
  const guesses = guessKeys(), fixed = classKeys().slice(0, classes.length), arrows = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown", "Space"];
  lines.unshift(line(keyElements(fixed, 30), "The classes, in alphabetical order. In a grid and among near-duplicates: the rows"));
  if (guesses.length) lines.unshift(line(keyElements(guesses), "The model’s likeliest classes, which change with the row"));
  lines.push(line(keyElements(arrows), "In a grid and among near-duplicates: move, and mark"));
  const swipe = line(["Swipe"], "Right: yes. Left: no. Up: skip. Two fingers: zoom");
  if (matchMedia("(pointer: coarse)").matches) lines.unshift(swipe); else lines.push(swipe);
  $("sheet-body").replaceChildren(make("ul", {}, ...lines), make("p", { class: "soft" }, "Control acts when it is released, if no other key was pressed. Change keys by ", make("code", { text: "review: {keys: …}" }), " in params.yaml."));
}
let noteCard = null;
function openNote() {
  if (!state.current || !state.isPainted) return;
  noteCard = state.current;
  $("note-text").value = "";
  $("note").showModal();
}
function closeNote(isSaved, start) {
  const note = $("note-text").value.trim();
  $("note").close();
  if (isSaved && noteCard && noteCard === state.current) {
    answerSingle("flag", start, note ? { note } : {});
    if (!isMany(noteCard.item)) toast("Flagged. The row is asked again later.");
  }
  noteCard = null;
}
function dialogKey(event) {
  if ($("note").open && event.key === "Enter" && !event.shiftKey && event.target === $("note-text")) { event.preventDefault(); closeNote(true, event.timeStamp); }
  else if ($("sheet").open && namesOf(event).some(name => bindings.get(name) === "help")) { event.preventDefault(); $("sheet").close(); }
}
function openEditor() {
  $("old-classes").replaceChildren(...classes.map(label => make("option", { value: label, text: label })));
  $("new-classes").value = "";
  setText($("editor-error"), "");
  showEditorFields();
  $("editor").showModal();
}
function showEditorFields() {
  const isAdding = $("operation").value === "add";
  $("old-classes").hidden = isAdding;
  document.querySelector('label[for="old-classes"]').hidden = isAdding;
}
async function saveClasses() {
  const operation = $("operation").value, old = operation === "add" ? [] : [...$("old-classes").selectedOptions].map(option => option.value);
  const fresh = [...new Set($("new-classes").value.split("\n").map(line => line.trim()).filter(Boolean))];
  const problem = !fresh.length ? "Enter at least one new class." : fresh.some(label => label.length > MAX_LABEL_CHARACTERS) ? `A class name has at most ${count(MAX_LABEL_CHARACTERS)} characters.`
    : operation === "add" ? "" : operation === "merge" ? (old.length < 2 ? "Select two or more classes." : "") : old.length !== 1 ? "Select one class." : operation === "split" && fresh.length < 2 ? "Enter two or more new classes." : "";
  if (problem || (operation !== "split" && operation !== "add" && fresh.length !== 1)) return setText($("editor-error"), problem || "Enter one new class.");
  try {
    const values = await request("/api/classes", { id: newId(), operation, old, new: fresh });
    $("editor").close();
    if (operation !== "add") return location.reload(); // rows on the page ask about classes that are gone
    ({ classes, class_change_count: classChangeCount } = values);
    fillClasses();
    fillSheet();
    if (state.current && !isMany(state.current.item)) showGuesses(state.current.item);
  } catch (error) { setText($("editor-error"), error instanceof RefusedRequest ? error.message : "The server cannot be reached: try again."); }
  return undefined;
}
const THEMES = ["auto", "light", "dark"];
function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
}
function changeTheme() {
  const theme = following(THEMES, settings.read("theme") || "auto");
  settings.write("theme", theme);
  applyTheme(theme);
  toast(`Colors: ${theme === "auto" ? "as the system" : theme}`);
}

// ----------------------------------------------------------------------------------------------------------- one tab

// Of the tabs of one reviewer in one browser, the latest is active; the others wait, so that no row is answered twice.
function becomeActive() {
  if (!navigator.locks) return Promise.resolve(); // a page that is not on localhost and not encrypted
  return new Promise(resolve => {
    navigator.locks.request(storageName, { steal: true }, () => { resolve(); return new Promise(() => {}); }).catch(() => {
      state.isActive = false;
      state.isPainted = false;
      cover("You go on in another tab", "This tab waits. Your answers are saved.", [make("button", { type: "button", onclick: takeOver }, "Go on here ", make("kbd", { text: "Enter" }))]);
    });
  });
}
function takeOver() { location.reload(); }

async function sendEarlierAnswers() {
  await outbox.open();
  outbox.send();
  const limit = performance.now() + 3_000; // then the server is away, and leaves out these rows by `skip`
  while (outbox.waiting.length && performance.now() < limit) await pause(20);
}
async function firstRow() { // the row of a link from the report
  const id = location.pathname.match(/^\/item\/([0-9a-f]{32})$/)?.[1];
  if (!id) return;
  history.replaceState(null, "", `/${location.search}`); // a reload goes on with the queue
  try { state.queue.push(makeCard(await request(`/api/item/${id}`))); } catch (error) { toast(error.message); }
}
async function start() {
  applyTheme(settings.read("theme") || "auto");
  if (config.modes.includes(settings.read("mode"))) state.mode = settings.read("mode");
  if (config.orders.includes(settings.read("order"))) state.order = settings.read("order");
  document.body.dataset.panel = settings.read("panel") || (matchMedia("(max-width: 800px)").matches ? "closed" : "open");
  document.querySelector('header [data-action="panel"]').setAttribute("aria-expanded", String(document.body.dataset.panel === "open"));
  bindKeys();
  fillMenus();
  fillClasses();
  fillSheet();
  showControls();
  listenToPointers();
  $("mode").onchange = () => { $("mode").blur(); changeMode($("mode").value); };
  $("order").onchange = () => { $("order").blur(); changeOrder($("order").value); };
  $("find").oninput = filterClasses;
  $("find").onfocus = () => { state.typing = true; };
  $("find").onblur = () => { if (!areDialogsOpen() && document.hasFocus()) state.typing = false; };
  $("note").querySelector("form").onsubmit = event => { event.preventDefault(); closeNote(true, event.timeStamp); };
  $("note-cancel").onclick = () => closeNote(false);
  $("operation").onchange = showEditorFields;
  $("editor-save").onclick = saveClasses;
  $("editor-cancel").onclick = () => $("editor").close();
  $("app").hidden = false;
  blank("Loading …");
  await becomeActive();
  state.isActive = true;
  await sendEarlierAnswers();
  await firstRow();
  if (state.queue.length) advance(); else refill();
  firstHistory();
  pollPanel();
}
start();
})();
