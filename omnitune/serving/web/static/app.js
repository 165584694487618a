// The page: models, the conversation on it, and what its buttons do.

import { getJson, useKey } from "./api.js";
import { attachFiles, drawAttached, drawMediaButtons, followDown, wireDropping } from "./attach.js";
import { answerTurn, lookBack, newAnswer, transcriptOf } from "./chat.js";
import { asFile, ofFile, titleOf } from "./conversation.js";
import { $, make, newId } from "./dom.js";
import * as history from "./history.js";
import { announce, focusText, hint, refuse, tell } from "./notice.js";
import { closeOnBackdrop, showCard, showSaw } from "./panels.js";
import { bindSettings, bindSystem } from "./settings.js";
import { close as closeSidebar, refresh as refreshSidebar, wireSidebar } from "./sidebar.js";
import { nounOf, state, store, used } from "./state.js";
import { countOf, leave, turnTo } from "./versions.js";
import { redrawAll, turnView, waveform } from "./view.js";

// Models

async function loadModels() {
  const found = await getJson("/web/models");
  [state.models, state.mostBytes] = [found.models, found.most_bytes];
  for (const id of ["model", "model2"]) {
    const options = state.models.map((model, n) => make("option", { value: String(n) }, model.title));
    $(id).replaceChildren(...options);
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

async function drawExamples(model) {
  $("examples").replaceChildren();
  $("examples-note").hidden = true;
  let found = [];
  try {
    found = (await getJson(`/web/models/${model.number}/examples`)).examples;
  } catch { /* there are none */ }
  if (model !== used()[0]) return;
  $("examples").replaceChildren(...found.map((example) => make("li", {}, exampleButton(example))));
  $("examples-note").hidden = !found.length;
  if (found.length) $("about").textContent = `${model.about} Or try one of these:`;
  $("examples-note").textContent = "Kept from training: the model has never seen these.";
}

function exampleButton({ question, media, reference }) {
  const show = (m) => (m.kind === "image" ? make("img", { src: m.uri, alt: `Picture: ${m.name}` }) : waveform(m));
  const nouns = [...new Set(media.map((m) => nounOf(m.kind)))].join(" and ");
  const copies = () => media.map((m) => ({ ...m, id: newId() }));
  return make("button", { type: "button", onclick: () => ask(question, copies(), reference) },
    make("span", { class: "shown" }, media.map(show)), make("b", {}, question || `(${nouns}, without words)`));
}

/** Work that begins again only once it has ended, however often it is asked for; told if it fails. */
function once(work) {
  let busy = false;
  return async (...values) => {
    if (busy) return;
    busy = true;
    try {
      await work(...values);
    } catch (error) {
      refuse(error.message);
    } finally {
      busy = false;
    }
  };
}

// Asking and answering

function ask(text, media, reference) {
  if (state.running || !state.models.length || (!text && !media.length)) return;
  refuse("");
  visit++;
  const turn = { text, media, answers: [], ...(reference === undefined ? {} : { reference }) };
  if (!state.turns.length) {
    state.id = newId();
    state.title = titleOf([turn]);
    sessionStorage.setItem("omnitune-conversation", state.id);
  }
  state.turns.push(turn);
  answer(turn);
}

async function answer(turn) {
  const stopper = new AbortController(), models = used();
  state.running = stopper;
  turn.answers = models.map(newAnswer);
  draw();
  scrollDown();
  announce("The model is answering");
  keepSoon(0);
  const grown = () => {
    if (state.running !== stopper) return; // another conversation is shown
    views.get(turn)?.grown();
    keepSoon(1000);
  };
  await Promise.all(turn.answers.map((one, n) => answerTurn(turn, one, models[n], stopper.signal, grown)));
  if (state.running !== stopper) return;
  state.running = null;
  draw();
  followDown();
  keepSoon(0);
  const named = (one) => (turn.answers.length > 1 ? `${one.title}: ` : "") + (one.problem ?? one.text);
  announce(turn.answers.map(named).join("\n"));
}

const actions = {
  busy: () => Boolean(state.running),
  isLast: (turn) => turn === state.turns.at(-1),
  isNamed: (turn) => turn.answers.length > 1 || state.models.length > 1,
  markdown: () => state.settings.markdown,
  get canTranscribe() { return used().some((model) => model.transcribes); },
  async transcript(medium) {
    const words = await transcriptOf(medium);
    keepSoon(100);
    return words;
  },
  followDown,
  regenerate(turn) {
    if (state.running) return;
    leave(turn, []);
    answer(turn);
    focusText();
  },
  edited(turn, text) {
    if (state.running || (!text && !turn.media.length)) return;
    leave(turn, state.turns.splice(state.turns.indexOf(turn) + 1));
    turn.text = text;
    delete turn.reference;
    answer(turn);
    focusText();
  },
  version(turn, number) {
    if (state.running) return;
    state.turns.push(...turnTo(turn, number, state.turns.splice(state.turns.indexOf(turn) + 1)));
    draw();
    keepSoon(0);
    const said = turn.answers.map((one) => one.text);
    announce([`Version ${number + 1} of ${countOf(turn)}: ${turn.text}`, ...said].join("\n"));
  },
  saw: once(async (turn, one) => showSaw(...await lookBack(turn, one))),
};

let views = new WeakMap(); // of each turn on the page

function draw() {
  const started = state.turns.length > 0;
  $("welcome").hidden = started;
  $("save").disabled = !started;
  $("send").hidden = Boolean(state.running);
  $("stop").hidden = !state.running;
  const elements = state.turns.map((turn) => {
    if (!views.has(turn)) views.set(turn, turnView(turn, actions));
    views.get(turn).refresh();
    return views.get(turn).element;
  });
  [...$("turns").children].filter((child) => !elements.includes(child)).forEach((child) => child.remove());
  elements.filter((element) => !element.isConnected).forEach((element) => $("turns").append(element));
}

function scrollDown() { $("main").scrollTop = $("main").scrollHeight; }

// What is kept of conversations

let timer = 0, keeping = Promise.resolve(), told = false;

/** Keeps the conversation, after so many milliseconds at the latest. */
function keepSoon(delay) {
  if (delay && timer) return;
  clearTimeout(timer);
  timer = setTimeout(keepNow, delay);
}

function keepNow() {
  clearTimeout(timer);
  timer = 0;
  const { id, title, turns, system } = state;
  if (!id || !turns.length) return keeping;
  keeping = keeping.then(() => history.keep({ id, title, turns, system })).then((problem) => {
    if (problem) tell(problem);
    return refreshSidebar();
  }).catch((error) => {
    if (!told) tell(`This browser does not keep the conversation (${error?.message ?? error}). Save it to a file.`);
    told = true;
  });
  return keeping;
}

let showSystem = () => {};
let visit = 0; // counts what is asked for: what comes later than something newer is not shown

/** Leaves the conversation and shows another, or none; ends when the left one is kept. */
function show(id, title, turns, system) {
  visit++;
  if (state.running || timer) keepNow();
  state.running?.abort();
  state.running = null;
  Object.assign(state, { id, title, turns, system });
  showSystem();
  sessionStorage.setItem("omnitune-conversation", id);
  views = new WeakMap();
  refuse("");
  hint("");
  draw();
  scrollDown();
  closeSidebar();
  refreshSidebar();
  focusText();
  return keeping;
}

const begin = () => show("", "", [], state.settings.system);

async function openKept(id, title) {
  if (id === state.id) { closeSidebar(); return; }
  const mine = ++visit;
  try {
    await keeping;
    const found = await history.load(id);
    if (!found) throw new Error("it was deleted elsewhere");
    // One of before had no system prompt of its own.
    if (visit === mine) show(id, title, found.turns, found.system ?? state.settings.system);
  } catch (error) {
    refuse(`“${title}” cannot be opened: ${error?.message ?? error}.`);
    refreshSidebar();
  }
}

/** After a reload, the conversation that was open in this tab. */
async function openAgain() {
  const id = sessionStorage.getItem("omnitune-conversation");
  const row = id && (await history.list()).find((one) => one.id === id);
  if (row && !state.turns.length) await openKept(id, row.title);
}

function save() {
  const name = `conversation-${new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-")}.json`;
  const href = URL.createObjectURL(asFile(state, state.settings));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

async function openFile(file) {
  try {
    const { title, turns, system } = ofFile(await file.text());
    show(newId(), title, turns, system);
    keepSoon(0);
  } catch { refuse(`${file.name}: is no conversation that this page saved.`); }
}

// Wiring

function start() {
  refuse("");
  loadModels().catch((error) => refuse(error.message));
}

function wireComposer() {
  const text = $("text");
  const grow = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  };
  text.addEventListener("input", grow);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  let waiting = false;
  $("composer").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (state.running || waiting) return;
    waiting = true;
    await Promise.all(state.reading); // a file that was chosen goes along
    waiting = false;
    const words = text.value.trim(), media = state.attached;
    if (!words && !media.length) { text.focus(); return; }
    if (!state.models.length) { refuse("There is no model yet. Is omnitune web still running?"); start(); return; }
    state.attached = [];
    text.value = "";
    hint("");
    grow();
    drawAttached();
    ask(words, media);
  });
  $("stop").addEventListener("click", () => { state.running?.abort(); text.focus(); });
}

function wire() {
  wireComposer();
  wireDropping();
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) state.running?.abort();
    if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      begin();
    }
  });
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("text").focus(); });
  $("model").addEventListener("change", choose);
  $("model2").addEventListener("change", choose);
  $("compare").addEventListener("click", () => {
    const pressed = $("compare").getAttribute("aria-pressed") === "true";
    $("compare").setAttribute("aria-pressed", String(!pressed));
    choose();
  });
  $("card").addEventListener("click", once(async () => {
    const [model] = used();
    if (model) showCard(await getJson(`/web/models/${model.number}/card`));
  }));
  $("new").addEventListener("click", begin);
  $("save").addEventListener("click", save);
  $("open").addEventListener("click", () => $("opener").click());
  $("opener").addEventListener("change", () => {
    const [file] = $("opener").files;
    if (file) openFile(file);
    $("opener").value = "";
  });
  $("theme").addEventListener("click", switchTheme);
  document.querySelectorAll("dialog").forEach(closeOnBackdrop);
  const keptSettings = () => store("omnitune-settings", { ...state.settings, key: "" });
  showSystem = bindSystem(state.settings, {
    of: () => state.system, set: (text) => { state.system = text; keepSoon(1000); }, kept: keptSettings,
  });
  bindSettings(state.settings, (name) => {
    useKey(state.settings.key);
    keptSettings();
    if (name === "system" && !state.turns.length) state.system = state.settings.system;
    showSystem();
    if (name !== "markdown") return;
    views = new WeakMap();
    draw();
  });
  // A key that was missing: the models are asked for again.
  $("settings-panel").addEventListener("close", () => { if (!state.models.length) start(); });
  wireSidebar({ open: openKept, begin, renamed: (title) => { state.title = title; } });
  wireMenu();
  addEventListener("pagehide", () => { if (timer) keepNow(); });
}

function switchTheme() {
  const root = document.documentElement, chosen = root.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
  try { localStorage.setItem("omnitune-theme", root.dataset.theme); } catch { /* private window */ }
}

function setTheme(theme) {
  if (theme !== "light" && theme !== "dark") return;
  document.documentElement.dataset.theme = theme;
  redrawAll();
}

/** On a phone the header's buttons stand in a menu: each of them presses the real one. */
function wireMenu() {
  const menu = document.querySelector(".menu");
  const names = {
    save: "Save to a file", open: "Open a file", card: "Model card",
    compare: "Compare two models", settings: "Settings", theme: "Light or dark",
  };
  const entry = ([id, words]) => {
    const press = () => { menu.open = false; $(id).click(); };
    return make("button", { type: "button", disabled: $(id).disabled, onclick: press }, words);
  };
  menu.addEventListener("toggle", () => {
    if (menu.open) $("menu-items").replaceChildren(...Object.entries(names).filter(([id]) => !$(id).hidden).map(entry));
  });
  addEventListener("click", (event) => { if (menu.open && !menu.contains(event.target)) menu.open = false; });
  addEventListener("keydown", (event) => { if (event.key === "Escape") menu.open = false; });
}

setTheme(localStorage.getItem("omnitune-theme"));
wire();
start();
draw();
focusText();
refreshSidebar().then(openAgain).catch(() => {});
