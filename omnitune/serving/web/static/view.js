// The conversation on the page: turns, media, answers.

import { button, clock, icon, make } from "./dom.js";
import { drawWave, peaksOf } from "./media.js";

const BARS = 56;
const redraws = new Set();
addEventListener("resize", () => redraws.forEach((draw) => draw()));

export function redrawAll() { redraws.forEach((draw) => draw()); }

/** A medium with all that can be done with it. `transcript`: called for the words, or null. */
export function showMedium(medium, transcript = null) {
  if (medium.kind === "image") return picture(medium);
  return sound(medium, transcript);
}

function picture(medium) {
  const image = make("img", { src: medium.uri, alt: `Picture: ${medium.name}` });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "bubble" }, `🖼 ${medium.name}`)));
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
  const player = new Audio(medium.uri);
  const canvas = make("canvas", { "aria-hidden": "true" });
  const time = make("time", {}, "0:00");
  const seek = make("input", { type: "range", min: "0", max: "1", step: "0.01", "aria-label": `Place in ${medium.name}` });
  seek.value = 0;
  const play = make("button", { type: "button", class: "play", "aria-label": `Play ${medium.name}` }, icon("play"));
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
  }).catch(() => { time.textContent = medium.name; });
  const turn = () => {
    play.replaceChildren(icon(player.paused ? "play" : "pause"));
    play.setAttribute("aria-label", `${player.paused ? "Play" : "Pause"} ${medium.name}`);
  };
  play.addEventListener("click", () => (player.paused ? player.play().catch(() => {}) : player.pause()));
  player.addEventListener("play", () => {
    turn();
    const tick = () => { seek.value = seconds ? player.currentTime / seconds : 0; draw(); if (!player.paused) requestAnimationFrame(tick); };
    tick();
  });
  player.addEventListener("pause", turn);
  player.addEventListener("ended", () => { player.currentTime = 0; seek.value = 0; turn(); draw(); });
  seek.addEventListener("input", () => { player.currentTime = seek.value * seconds; draw(); });
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

/** The user's side of a turn. */
export function showQuestion(turn, actions) {
  const box = make("div", { class: "mine", role: "group", "aria-label": "You" });
  if (turn.media.length) {
    box.append(make("div", { class: "shown-media" }, turn.media.map((m) => showMedium(m, actions.transcript))));
  }
  if (turn.text) box.append(make("p", { class: "bubble" }, turn.text));
  box.append(make("div", { class: "row" }, button("Edit", () => edit(box, turn, actions), { "aria-label": "Edit this question", disabled: actions.busy })));
  return box;
}

function edit(box, turn, actions) {
  const field = make("textarea", { class: "edit", rows: "2", "aria-label": "The question" });
  field.value = turn.text;
  const done = () => actions.edited(turn, field.value.trim());
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
    if (event.key === "Escape") actions.redraw();
  });
  box.querySelector(".bubble")?.remove();
  box.querySelector(".row").replaceChildren(button("Ask again", done, { class: "quiet strong" }), button("Cancel", actions.redraw));
  box.insertBefore(field, box.querySelector(".row"));
  field.focus();
}

/** An answer; returns the element and functions that change it while it grows. */
export function showAnswer(turn, answer, actions, named) {
  const said = make("p", { class: "said" }, answer.text);
  const row = make("div", { class: "row" });
  const box = make("section", { class: "answer", "aria-label": `Answer of ${answer.title}` },
    named ? make("h3", {}, answer.title) : null, said);
  if (turn.reference !== undefined) box.append(make("p", { class: "reference" }, "Reference: ", make("b", {}, turn.reference)));
  const note = make("p", { class: "note" });
  box.append(note);
  const problem = make("p", { class: "problem", role: "alert", hidden: true });
  box.append(problem, row);
  const update = () => {
    said.textContent = answer.text;
    box.classList.toggle("running", answer.state === "running");
    said.hidden = answer.state !== "running" && !answer.text && Boolean(answer.problem);
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    problem.hidden = !answer.problem;
    problem.textContent = answer.problem ?? "";
  };
  const finish = () => {
    update();
    if (answer.state === "running") { row.replaceChildren(); return; }
    const buttons = [];
    if (actions.isLast) buttons.push(button("Regenerate", () => actions.regenerate(turn)));
    if (answer.text) {
      buttons.push(button("Copy", (event) => actions.copy(answer.text, event.currentTarget)));
      buttons.push(button("What it saw", () => actions.saw(turn, answer)));
    }
    row.replaceChildren(...buttons, make("small", {}, facts(answer)));
  };
  finish();
  return { box, update, finish };
}

function facts(answer) {
  const found = [];
  if (answer.state === "stopped") found.push("stopped");
  if (answer.finish === "length") found.push("cut at the longest answer");
  if (answer.tokens) found.push(`${answer.tokens} token${answer.tokens === 1 ? "" : "s"}`);
  if (answer.seconds) found.push(`${answer.seconds.toFixed(answer.seconds < 10 ? 2 : 0)} s`);
  return found.join(" · ");
}
