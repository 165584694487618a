// The page: what is asked, of which models, and what becomes of the answers.

import { getJson, postJson, streamAnswer, transcribe, useKey } from "./api.js";
import { $, icon, make } from "./dom.js";
import { asPart, bytesOf, kindOf, readFile, record } from "./media.js";
import { bindSettings, closeOnBackdrop, DEFAULTS, showCard, showSaw } from "./panels.js";
import { redrawAll, showAnswer, showMedium, showQuestion, waveform } from "./view.js";

const state = {
  models: [], turns: [], attached: [], chosen: [0], running: null, stopRecording: null,
  settings: { ...DEFAULTS, ...stored("omnitune-settings") },
};
const FORMAT = "omnitune conversation 1";

function stored(name) {
  try { return JSON.parse(localStorage.getItem(name)) ?? {}; } catch { return {}; }
}
function store(name, value) {
  try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private window */ }
}

// Words to the user

function refuse(text) {
  $("notice").hidden = !text;
  $("notice").replaceChildren(make("span", {}, text), text ? make("button", { type: "button", "aria-label": "Dismiss", onclick: () => refuse("") }, "✕") : "");
}
function hint(text) { $("hint").hidden = !text; $("hint").textContent = text; }
/** On a phone the keyboard would cover the page. */
function focusText() { if (matchMedia("(pointer: fine)").matches) $("text").focus(); }
function announce(text) { $("live").textContent = text; }

// Models

const used = () => state.chosen.map((n) => state.models[n]);
const reads = (kind) => used().some((model) => model.media.some((m) => m.name === kind));
const kindsRead = () => [...new Set(used().flatMap((model) => model.media.map((m) => m.name)))];
const nounOf = (kind) => used().flatMap((m) => m.media).find((m) => m.name === kind)?.noun ?? kind;

async function loadModels() {
  state.models = (await getJson("/web/models")).models;
  for (const id of ["model", "model2"]) {
    $(id).replaceChildren(...state.models.map((model, n) => make("option", { value: String(n) }, model.title)));
  }
  const several = state.models.length > 1;
  $("compare").hidden = !several;
  $("model2").value = several ? "1" : "0";
  await choose();
}

async function choose() {
  const pair = $("compare").getAttribute("aria-pressed") === "true";
  state.chosen = [Number($("model").value), ...(pair ? [Number($("model2").value)] : [])];
  $("second").hidden = !pair;
  document.body.classList.toggle("two", pair);
  const [first] = used();
  document.title = `${first.title} · omnitune`;
  $("hello").textContent = first.media.length ? "Show it something" : "Ask it something";
  $("about").textContent = first.about;
  $("text").placeholder = `Ask ${pair ? "both" : first.title}`;
  drawMediaButtons();
  await drawExamples(first);
}

function drawMediaButtons() {
  const buttons = kindsRead().flatMap((kind) => {
    const picker = make("input", { type: "file", accept: `${kind}/*`, multiple: true, hidden: true, tabIndex: -1, "data-kind": kind });
    picker.addEventListener("change", () => { attachFiles([...picker.files]); picker.value = ""; });
    const label = `Attach a ${nounOf(kind)}`;
    const found = [picker, make("button", { type: "button", title: label, "aria-label": label, onclick: () => picker.click() }, icon(kind))];
    if (kind === "audio") {
      found.push(make("button", { type: "button", id: "record", title: "Record", "aria-label": "Record from the microphone", "aria-pressed": "false", onclick: toggleRecording }, icon("microphone")));
    }
    return found;
  });
  $("media-buttons").replaceChildren(...buttons);
}

async function drawExamples(model) {
  $("examples").replaceChildren();
  $("examples-note").hidden = true;
  let found = [];
  try { found = (await getJson(`/web/models/${model.number}/examples`)).examples; } catch { /* none */ }
  if (model !== used()[0]) return;
  $("examples").replaceChildren(...found.map((example) => make("li", {}, make("button", {
    type: "button", onclick: () => ask(example.question, example.media, example.reference),
  }, make("span", { class: "shown" }, example.media.map((m) => (m.kind === "image" ? make("img", { src: m.uri, alt: `Picture: ${m.name}` }) : waveform(m)))),
  make("b", {}, example.question || `(${[...new Set(example.media.map((m) => nounOf(m.kind)))].join(" and ")}, without words)`)))));
  $("examples-note").hidden = !found.length;
  if (found.length) $("about").textContent = `${model.about} Or try one of these:`;
  $("examples-note").textContent = "Kept from training: the model has never seen these.";
}

// What goes with the next question

async function attachFiles(files) {
  refuse("");
  for (const file of files) {
    const kind = kindOf(file);
    if (!kind || !reads(kind)) {
      const taken = kindsRead().map((k) => `${nounOf(k)}s`).join(" and ");
      refuse(`${file.name}: ${kind ? `this model reads no ${kind}` : "is neither picture nor sound"}; ${taken ? `it takes ${taken}` : "it takes text only"}.`);
      continue;
    }
    try {
      attach(await readFile(file));
    } catch (error) { refuse(error.message); }
  }
}

function attach(medium) {
  const most = Math.max(1, ...used().flatMap((m) => m.media).filter((m) => m.name === medium.kind).map((m) => m.most));
  const same = state.attached.filter((m) => m.kind === medium.kind);
  hint("");
  if (same.length >= most) {
    state.attached.splice(state.attached.indexOf(same[0]), 1);
    hint(`In place of ${same[0].name}: this model was taught with ${most === 1 ? "one" : most} ${nounOf(medium.kind)}${most === 1 ? "" : "s"} at a time.`);
  }
  state.attached.push(medium);
  drawAttached();
  followDown(240);
  announce(`${medium.name} is attached`);
  focusText();
}

function drawAttached() {
  $("attached").replaceChildren(...state.attached.map((medium) => make("li", {}, showMedium(medium),
    make("button", { type: "button", class: "remove", "aria-label": `Remove ${medium.name}`, onclick: () => {
      state.attached.splice(state.attached.indexOf(medium), 1);
      drawAttached();
      $("text").focus();
    } }, "✕"))));
}

async function toggleRecording() {
  const recorder = $("record");
  try {
    if (state.stopRecording) {
      const stop = state.stopRecording;
      state.stopRecording = null;
      recorder.setAttribute("aria-pressed", "false");
      recorder.setAttribute("aria-label", "Record from the microphone");
      hint("");
      attach(await stop());
      return;
    }
    state.stopRecording = await record((seconds) => hint(`Recording, ${seconds.toFixed(0)} s. Press the microphone again to end.`));
    recorder.setAttribute("aria-pressed", "true");
    recorder.setAttribute("aria-label", "End the recording");
  } catch (error) { hint(""); refuse(error.message); }
}

// Asking and answering

const answerOf = (turn, model) => turn.answers.find((a) => a.model === model.name) ?? turn.answers[0];
const readBy = (model, media) => media.filter((medium) => model.media.some((m) => m.name === medium.kind));

/** The turns up to one, without those that a model could not answer: it would fail at them again. */
const turnsUntil = (model, last) => state.turns.slice(0, state.turns.indexOf(last) + 1)
  .filter((turn) => turn === last || answerOf(turn, model)?.text);

/** What the model is shown of the turns before, in words, where that is less than all: see `as_taught`. */
function shownOfBefore(model, last) {
  let read = [], note = "";
  for (const turn of turnsUntil(model, last)) {
    const media = readBy(model, turn.media), before = read.flatMap((t) => t.media);
    const most = (kind) => model.media.find((m) => m.name === kind).most;
    const count = (list, kind) => list.filter((m) => m.kind === kind).length;
    let kept = [];
    note = "";
    if (media.some((m) => count(before, m.kind) + count(media, m.kind) > most(m.kind))) {
      if (read.length) note = "A new conversation for the model: it was taught with no more media at a time.";
      read = [];
    } else if (media.length && read.length && !model.media_after_text) {
      kept = before.filter((m) => model.media_together || media.some((other) => other.kind === m.kind));
      note = `The model reads from here on${kept.length ? `, with ${kept.map((m) => m.name).join(", ")}` : ""}: it was not taught with media after other turns.`;
      read = [];
    }
    read.push({ media: [...kept, ...media] });
  }
  return note;
}

/** The conversation up to a turn as the API takes it, with the answers of one model. */
function messagesFor(model, last) {
  const messages = state.settings.system.trim() ? [{ role: "system", content: state.settings.system }] : [];
  for (const turn of turnsUntil(model, last)) {
    const parts = readBy(model, turn.media).map(asPart);
    if (turn.text) parts.push({ type: "text", text: turn.text });
    messages.push({ role: "user", content: parts });
    if (turn !== last) messages.push({ role: "assistant", content: answerOf(turn, model).text });
  }
  return messages;
}

function ask(text, media, reference) {
  if (state.running || !state.models.length || (!text && !media.length)) return;
  refuse("");
  const turn = { text, media, answers: [], ...(reference === undefined ? {} : { reference }) };
  state.turns.push(turn);
  answer(turn);
}

async function answer(turn) {
  const stopper = new AbortController();
  state.running = stopper;
  turn.answers = used().map((model) => ({ model: model.name, title: model.title, number: model.number, base: model.base, text: "", state: "running" }));
  draw();
  announce("The model is answering");
  const views = turn.views;
  await Promise.all(turn.answers.map((one, n) => answerOne(turn, one, used()[n], views[n], stopper.signal)));
  state.running = null;
  draw();
  announce(turn.answers.map((one) => `${turn.answers.length > 1 ? `${one.title}: ` : ""}${one.problem ?? one.text}`).join("\n"));
}

async function answerOne(turn, one, model, view, signal) {
  one.note = shownOfBefore(model, turn);
  const start = performance.now(), { max_tokens, temperature, top_p, seed } = state.settings;
  const request = { model: model.name, messages: messagesFor(model, turn), max_tokens: Math.min(max_tokens, model.max_tokens ?? max_tokens), temperature, top_p, ...(seed === "" ? {} : { seed: Number(seed) }) };
  try {
    for await (const event of streamAnswer(model.base, request, signal)) {
      const choice = event.choices?.[0];
      one.text += choice?.delta?.content ?? "";
      one.finish = choice?.finish_reason ?? one.finish;
      one.tokens = event.usage?.completion_tokens ?? one.tokens;
      view.update();
      followDown();
    }
    one.state = "done";
  } catch (error) {
    one.state = error.name === "AbortError" ? "stopped" : "failed";
    if (one.state === "failed") one.problem = error.message;
  }
  one.seconds = (performance.now() - start) / 1000;
  view.finish();
}

function followDown(within = 160) {
  const main = $("main");
  if (main.scrollHeight - main.scrollTop - main.clientHeight < within) main.scrollTop = main.scrollHeight;
}

const actions = (turn) => ({
  busy: Boolean(state.running), isLast: turn === state.turns.at(-1) && !state.running, redraw: draw,
  transcript: used().some((m) => m.transcribes) ? transcriptOf : null,
  regenerate(which) { if (!state.running) answer(which); },
  edited(which, text) {
    if (state.running || (!text && !which.media.length)) return;
    state.turns.length = state.turns.indexOf(which) + 1;
    which.text = text;
    delete which.reference;
    answer(which);
  },
  async copy(text, pressed) {
    try { await navigator.clipboard.writeText(text); pressed.textContent = "Copied"; } catch { pressed.textContent = "Not allowed here"; }
  },
  async saw(which, one) {
    try {
      const model = state.models.find((m) => m.name === one.model);
      if (!model) throw new Error(`${one.title} is not among the models here.`);
      const messages = [...messagesFor(model, which), { role: "assistant", content: one.text }];
      const media = turnsUntil(model, which).flatMap((turn) => readBy(model, turn.media));
      showSaw(await postJson(`/web/models/${model.number}/saw`, { messages }), media);
    } catch (error) { refuse(error.message); }
  },
});

function transcriptOf(medium) {
  const model = used().find((m) => m.transcribes);
  return transcribe(model.base, model.name, new Blob([bytesOf(medium)], { type: medium.type || "audio/wav" }), medium.name);
}

function draw() {
  const started = state.turns.length > 0;
  $("welcome").hidden = started;
  $("save").disabled = !started;
  $("send").hidden = Boolean(state.running);
  $("stop").hidden = !state.running;
  $("turns").replaceChildren(...state.turns.map((turn) => {
    const named = turn.answers.length > 1 || state.models.length > 1;
    turn.views = turn.answers.map((one) => showAnswer(turn, one, actions(turn), named));
    return make("li", { class: "turn" }, showQuestion(turn, actions(turn)),
      make("div", { class: turn.answers.length > 1 ? "answers pair" : "answers" }, turn.views.map((view) => view.box)));
  }));
  $("main").scrollTop = $("main").scrollHeight;
}

// Conversations as files

function save() {
  const turns = state.turns.map(({ text, media, reference, answers }) => ({ text, media, reference,
    answers: answers.map(({ model, title, text: said, note, finish, tokens, seconds, state: how }) => ({ model, title, text: said, note, finish, tokens, seconds, state: how })) }));
  const file = new Blob([JSON.stringify({ format: FORMAT, saved: new Date().toISOString(), settings: { ...state.settings, key: undefined }, turns }, null, 1)], { type: "application/json" });
  const link = make("a", { href: URL.createObjectURL(file), download: `conversation-${new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-")}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const isMedium = (m) => ["image", "audio"].includes(m?.kind) && typeof m.name === "string" && typeof m.uri === "string" && m.uri.startsWith(`data:${m.kind}/`);

async function open(file) {
  try {
    const found = JSON.parse(await file.text());
    if (found.format !== FORMAT || !Array.isArray(found.turns)) throw new Error();
    state.turns = found.turns.map((turn) => {
      const media = turn.media ?? [];
      if (!media.every(isMedium)) throw new Error();
      return { text: String(turn.text ?? ""), media, ...(turn.reference === undefined || turn.reference === null ? {} : { reference: String(turn.reference) }),
        answers: (turn.answers ?? []).map((one) => ({ ...one, model: String(one.model), title: String(one.title ?? one.model), text: String(one.text ?? ""), state: one.state === "stopped" ? "stopped" : "done" })) };
    });
    refuse("");
    draw();
  } catch { refuse(`${file.name}: is no conversation that this page saved.`); }
}

// Wiring

function start() { refuse(""); loadModels().catch((error) => refuse(error.message)); }

function wire() {
  const text = $("text");
  const grow = () => { text.style.height = "auto"; text.style.height = `${text.scrollHeight}px`; };
  text.addEventListener("input", grow);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("composer").requestSubmit(); }
  });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.running) return;
    const words = text.value.trim(), media = state.attached;
    if (!words && !media.length) { text.focus(); return; }
    state.attached = [];
    text.value = "";
    hint("");
    grow();
    drawAttached();
    ask(words, media);
  });
  $("stop").addEventListener("click", () => { state.running?.abort(); text.focus(); });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.running && !document.querySelector("dialog[open]")) state.running.abort();
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) { event.preventDefault(); attachFiles(files); }
  });
  let depth = 0;
  const dragged = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (dragged(event)) { depth++; $("drop").hidden = false; } });
  addEventListener("dragleave", (event) => { if (dragged(event) && --depth <= 0) { depth = 0; $("drop").hidden = true; } });
  addEventListener("dragover", (event) => { if (dragged(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    attachFiles([...event.dataTransfer.files]);
  });
  $("model").addEventListener("change", choose);
  $("model2").addEventListener("change", choose);
  $("compare").addEventListener("click", () => {
    $("compare").setAttribute("aria-pressed", String($("compare").getAttribute("aria-pressed") !== "true"));
    choose();
  });
  $("card").addEventListener("click", async () => {
    try { showCard(await getJson(`/web/models/${used()[0].number}/card`)); } catch (error) { refuse(error.message); }
  });
  $("new").addEventListener("click", () => { state.running?.abort(); state.turns = []; refuse(""); hint(""); draw(); text.focus(); });
  $("save").addEventListener("click", save);
  $("open").addEventListener("click", () => $("opener").click());
  $("opener").addEventListener("change", () => { if ($("opener").files[0]) open($("opener").files[0]); $("opener").value = ""; });
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    setTheme(dark ? "light" : "dark");
    store("omnitune-theme", document.documentElement.dataset.theme);
  });
  document.querySelectorAll("dialog").forEach(closeOnBackdrop);
  bindSettings(state.settings, () => { useKey(state.settings.key); store("omnitune-settings", { ...state.settings, key: "" }); });
  // A key that was missing: the models are asked for again.
  $("settings-panel").addEventListener("close", () => { if (!state.models.length) start(); });
  wireMenu();
}

function setTheme(theme) {
  if (theme !== "light" && theme !== "dark") return;
  document.documentElement.dataset.theme = theme;
  redrawAll();
}

/** On a phone the header's buttons stand in a menu: each of them presses the real one. */
function wireMenu() {
  const menu = document.querySelector(".menu");
  menu.addEventListener("toggle", () => {
    if (!menu.open) return;
    const names = { new: "New conversation", save: "Save", open: "Open", card: "Model card", compare: "Compare two models", settings: "Settings", theme: "Light or dark" };
    $("menu-items").replaceChildren(...Object.entries(names).filter(([id]) => !$(id).hidden).map(([id, words]) =>
      make("button", { type: "button", disabled: $(id).disabled, onclick: () => { menu.open = false; $(id).click(); } }, words)));
  });
  addEventListener("click", (event) => { if (menu.open && !menu.contains(event.target)) menu.open = false; });
  addEventListener("keydown", (event) => { if (event.key === "Escape") menu.open = false; });
}

setTheme(localStorage.getItem("omnitune-theme"));
wire();
start();
draw();
focusText();
