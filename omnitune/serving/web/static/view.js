// The conversation on the page: turns, media, answers.

import { button, clock, copyText, icon, make } from "./dom.js";
import { markdownView } from "./markdown.js";
import { drawWave, peaksOf } from "./media.js";
import { countOf, othersOf } from "./versions.js";

const BARS = 56;
const redraws = new Set();
let playing = null;
addEventListener("resize", () => redraws.forEach((draw) => draw()));

export function redrawAll() { redraws.forEach((draw) => draw()); }

/** A medium with all that can be done with it. `transcript`: called for the words, or null. */
export function showMedium(medium, transcript = null) {
  if (!medium.uri) return fileName(medium, "no longer kept by this browser");
  return medium.kind === "image" ? picture(medium) : sound(medium, transcript);
}

const fileName = (medium, why) => make("span", { class: "file" }, icon(medium.kind),
  make("span", {}, medium.name, make("small", {}, why)));

function picture(medium) {
  const image = make("img", { src: medium.shown ?? medium.uri, alt: `Picture: ${medium.name}`, title: medium.name });
  image.addEventListener("error", () => image.replaceWith(fileName(medium, "cannot be shown here")));
  return image;
}

/** A waveform alone, for small previews. */
export function waveform(medium) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  peaksOf(medium, BARS).then(({ peaks }) => whenSeen(canvas, () => drawWave(canvas, peaks))).catch(() => {});
  return canvas;
}

function whenSeen(canvas, draw) {
  const guarded = () => (canvas.isConnected ? draw() : redraws.delete(guarded));
  requestAnimationFrame(() => { redraws.add(guarded); guarded(); });
}

function sound(medium, transcript) {
  const player = new Audio(medium.shown ?? medium.uri);
  const canvas = make("canvas", { "aria-hidden": "true" });
  const time = make("span", { class: "time" }, "0:00");
  const range = { type: "range", min: "0", max: "1", step: "0.01", "aria-label": `Place in ${medium.name}` };
  const seek = make("input", range);
  seek.value = 0;
  const label = (verb) => ({ "aria-label": `${verb} ${medium.name}`, title: `${verb} ${medium.name}` });
  const play = make("button", { type: "button", class: "play", ...label("Play") }, icon("play"));
  let peaks = [], seconds = 0;
  const draw = () => {
    const at = seconds ? player.currentTime / seconds : 0;
    drawWave(canvas, peaks, (n) => (player.currentTime && n / peaks.length > at ? 0.35 : 1));
    time.textContent = clock(player.currentTime || seconds);
    seek.setAttribute("aria-valuetext", `${clock(player.currentTime)} of ${clock(seconds)}`);
  };
  peaksOf(medium, BARS).then((found) => {
    ({ peaks, seconds } = found);
    whenSeen(canvas, draw);
  }).catch(() => { box.replaceChildren(fileName(medium, "cannot be played here")); });
  const turn = () => {
    play.replaceChildren(icon(player.paused ? "play" : "pause"));
    Object.entries(label(player.paused ? "Play" : "Pause")).forEach(([name, value]) => play.setAttribute(name, value));
  };
  play.addEventListener("click", () => {
    if (!player.paused) { player.pause(); return; }
    playing?.pause(); // one at a time
    playing = player;
    player.play().catch(() => {});
  });
  player.addEventListener("play", () => {
    turn();
    const tick = () => {
      if (!box.isConnected) player.pause(); // its conversation was left
      seek.value = seconds ? player.currentTime / seconds : 0;
      draw();
      if (!player.paused) requestAnimationFrame(tick);
    };
    tick();
  });
  player.addEventListener("pause", turn);
  player.addEventListener("ended", () => {
    player.currentTime = 0;
    seek.value = 0;
    turn();
    draw();
  });
  seek.addEventListener("input", () => {
    player.currentTime = seek.value * seconds;
    draw();
  });
  const box = make("div", { class: "sound", role: "group", "aria-label": `Sound: ${medium.name}` },
    make("div", { class: "player" }, play, make("div", { class: "wave" }, canvas, seek), time));
  if (transcript) box.append(words(medium, transcript));
  return box;
}

function words(medium, transcript) {
  const line = make("div", { class: "transcript", "aria-live": "polite" });
  const show = (text) => line.replaceChildren(make("q", {}, text));
  if (medium.transcript !== undefined) { show(medium.transcript); return line; }
  const ask = button("Transcribe", async () => {
    ask.disabled = true;
    ask.textContent = "Listening…";
    try {
      show(medium.transcript = await transcript(medium));
    } catch (error) {
      line.replaceChildren(make("span", { class: "problem" }, error.message), ask);
      ask.disabled = false;
      ask.textContent = "Try again";
    }
  }, { class: "quiet strong" });
  line.classList.add("row");
  line.append(ask);
  return line;
}

/**
 * A turn on the page: its element, `refresh()` after a change of what can be done with it, and
 * `grown()` while an answer grows.
 */
export function turnView(turn, actions) {
  const row = make("div", { class: "row" }), media = make("div", { class: "shown-media" });
  const mine = make("div", { class: "mine", role: "group", "aria-label": "You" });
  const answers = make("div", { class: "answers" });
  const element = make("li", { class: "turn" }, mine, answers);
  let views = [], shownAnswers = null, state = "";
  media.append(...turn.media.map((m) => showMedium(m, actions.canTranscribe ? actions.transcript : null)));
  const refresh = () => {
    const versions = [turn.version, countOf(turn)];
    const states = turn.answers.map((answer) => answer.state);
    const next = JSON.stringify([actions.busy(), actions.isLast(turn), turn.text, versions, states]);
    if (shownAnswers === turn.answers && state === next) return;
    state = next;
    const bubble = turn.text ? make("p", { class: "bubble" }, turn.text) : null;
    const open = { "aria-label": "Edit this question", disabled: actions.busy() };
    row.replaceChildren(...(isOfQuestion(turn) ? [pager(turn, actions, element)] : []),
      button("Edit", () => edit(mine, row, turn, actions, again), open));
    mine.replaceChildren(...[turn.media.length ? media : null, bubble, row].filter(Boolean));
    if (shownAnswers !== turn.answers) {
      shownAnswers = turn.answers;
      answers.classList.toggle("pair", turn.answers.length > 1);
      views = turn.answers.map((answer) => answerView(turn, answer, actions, element));
      answers.replaceChildren(...views.map((view) => view.box));
    }
    views.forEach((view) => view.finish());
  };
  const again = () => { state = ""; refresh(); row.querySelector("button").focus(); };
  refresh();
  return { element, refresh, grown: () => views.forEach((view) => view.update()) };
}

function edit(mine, row, turn, actions, cancel) {
  const field = make("textarea", { class: "edit", rows: "2", "aria-label": "The question" });
  field.value = turn.text;
  const done = () => actions.edited(turn, field.value.trim());
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
    if (event.key === "Escape") cancel();
  });
  mine.querySelector(".bubble")?.remove();
  row.replaceChildren(button("Ask again", done, { class: "quiet strong" }), button("Cancel", cancel));
  mine.insertBefore(field, row);
  field.focus();
}

/** Whether the versions of a turn differ in more than one answer: then they are the question's. */
const isOfQuestion = (turn) => turn.versions && (turn.answers.length > 1
  || othersOf(turn).some(([, other]) => other.text !== turn.text || other.answers.length > 1));

/** Goes through the versions of a turn; the focus stays on its buttons. `element`: of the turn. */
function pager(turn, actions, element) {
  const count = countOf(turn), now = turn.version ?? 0;
  const step = (by, sign, label) => {
    const go = () => {
      actions.version(turn, now + by);
      const steps = [...element.querySelectorAll(".pager button:enabled")];
      (steps.find((one) => one.dataset.by === String(by)) ?? steps[0])?.focus();
    };
    const there = now + by >= 0 && now + by < count && !actions.busy();
    return button(sign, go, { "aria-label": label, title: label, "data-by": String(by), disabled: !there });
  };
  return make("div", { class: "pager", role: "group", "aria-label": "Versions" },
    step(-1, "‹", "Earlier version"), make("span", { "aria-hidden": "true" }, `${now + 1}/${count}`),
    make("span", { class: "sr" }, `Version ${now + 1} of ${count}`), step(1, "›", "Later version"));
}

/** An answer: its element and functions that change it while it grows. */
function answerView(turn, answer, actions, element) {
  const said = make("div", { class: "said" }), row = make("div", { class: "row" });
  const note = make("p", { class: "note" }), problem = make("p", { class: "problem", role: "alert" });
  const markdown = markdownView(said);
  const reference = turn.reference === undefined ? null
    : make("p", { class: "reference" }, "Reference: ", make("b", {}, turn.reference));
  const name = actions.isNamed(turn) ? make("h3", {}, answer.title) : null;
  const box = make("section", { class: "answer", "aria-label": `Answer of ${answer.title}` },
    ...[name, said, reference, note, problem, row].filter(Boolean));
  const draw = () => {
    const isRunning = answer.state === "running";
    box.classList.toggle("running", isRunning);
    said.classList.toggle("plain", !actions.markdown());
    said.classList.toggle("empty", !answer.text);
    if (actions.markdown()) markdown.update(answer.text, isRunning);
    else said.textContent = answer.text;
    said.hidden = !isRunning && !answer.text && Boolean(answer.problem);
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    problem.hidden = !answer.problem;
    problem.textContent = answer.problem ?? "";
  };
  let waiting = false; // what comes within a frame is drawn once
  const update = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); actions.followDown(); });
  };
  const finish = () => {
    draw();
    if (answer.state === "running") { row.replaceChildren(); return; }
    const buttons = turn.versions && !isOfQuestion(turn) ? [pager(turn, actions, element)] : [];
    if (actions.isLast(turn) && !actions.busy()) buttons.push(button("Regenerate", () => actions.regenerate(turn)));
    if (answer.text) {
      buttons.push(button("Copy", (event) => copyText(answer.text, event.currentTarget)));
      buttons.push(button("What it saw", () => actions.saw(turn, answer)));
    } else if (!answer.problem && answer.state === "done") buttons.push(make("small", {}, "The model said nothing."));
    row.replaceChildren(...buttons, make("small", { class: "facts-line" }, facts(answer)));
  };
  return { box, update, finish };
}

function facts({ state, finish, tokens, seconds, first, rate }) {
  const found = [], short = (number) => number.toFixed(number < 10 ? 2 : 0);
  if (state === "stopped") found.push("stopped");
  if (finish === "length") found.push("cut at the longest answer");
  if (tokens && seconds) found.push(`${tokens} token${tokens === 1 ? "" : "s"} in ${short(seconds)}\u00a0s`);
  else if (seconds) found.push(`${short(seconds)}\u00a0s`);
  if (rate) found.push(`${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`);
  if (first) found.push(`first after ${short(first)}\u00a0s`);
  return found.join(" · ");
}
