// What opens beside the conversation: the model's card, what it saw.

import { $, make, percent } from "./dom.js";
import { drawWave, peaksOf } from "./media.js";

export function openPanel(title, ...content) {
  $("side-title").textContent = title;
  $("side-body").replaceChildren(...content);
  const panel = $("side-panel");
  if (!panel.open) panel.showModal();
  $("side-body").focus();
  $("side-body").scrollTop = 0;
}

export function closeOnBackdrop(dialog) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

const facts = (pairs) => make("dl", { class: "facts" },
  pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));

const section = (title, ...content) => [make("h3", {}, title), ...content];

const length = (share) => `${(100 * share).toFixed(2)}%`;

function meter(share, low, high) {
  const bar = make("i");
  bar.style.width = length(Math.min(1, Math.max(0, share)));
  const box = make("div", { class: "meter", "aria-hidden": "true" }, bar);
  if (low !== undefined && low !== null) {
    const range = make("u");
    range.style.left = length(low);
    range.style.width = length(high - low);
    box.append(range);
  }
  return box;
}

const headings = (names) =>
  make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name))));

function scoreTable(scores) {
  const line = (row) => make("tr", {},
    make("th", { scope: "row" }, row.label, row.share === null ? null : meter(row.share, row.low, row.high)),
    make("td", {}, make("b", {}, row.value)), make("td", {}, row.interval || "–"));
  return make("table", { class: "scores" }, headings(["score", "value", "interval"]),
    make("tbody", {}, scores.map(line)));
}

function mixTable(columns, rows) {
  const line = ([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), cells.map((cell) => make("td", {}, cell)));
  const table = make("table", { class: "scores" }, headings(columns), make("tbody", {}, rows.map(line)));
  return make("div", { class: "wide-table", tabIndex: 0, role: "region", "aria-label": "The mix" }, table);
}

export function showCard(card) {
  const body = [facts(card.facts)];
  if (card.scores.length) {
    const note = "Questions that training never showed; with 95 % intervals.";
    body.push(...section(`Scores on the split “${card.split}”`, make("p", { class: "note" }, note),
      scoreTable(card.scores)));
  } else body.push(make("p", { class: "note" }, "No scores are known of this model."));
  if (card.mix.length) body.push(...section("What it was trained on", mixTable(card.mix_columns, card.mix)));
  if (card.parts.length) body.push(...section("What it began with", facts(card.parts)));
  if (card.recipe.length) {
    body.push(make("details", {}, make("summary", {}, "All settings of its run"), facts(card.recipe)));
  }
  openPanel(card.title, ...body);
}

const ROLES = ["context", "trained", "control", "placeholder"];
const ROLE_WORDS = {
  context: "read", trained: "written (trained)", control: "control token", placeholder: "slots of a medium",
};

const readable = (token) => token.trim() || token.replaceAll("\n", "⏎").replaceAll(" ", "␣");

/** `found`: what the server tells; `media`: those of the conversation, in order. */
export function showSaw(found, media) {
  const steps = make("div", { class: "steps", role: "group", "aria-label": "Tokens of the answer" });
  const candidates = make("dl", { class: "candidates" });
  const maps = found.media.map((seen) => attentionMap(seen, media[seen.index]));
  const about = make("p", { class: "note", "aria-live": "polite" });
  const choose = (n) => {
    [...steps.children].forEach((step, k) => step.setAttribute("aria-pressed", k === n));
    const step = found.steps[n];
    candidates.replaceChildren(...step.candidates.flatMap(([text, share]) => [
      make("dt", {}, readable(text)), make("dd", {}, meter(share)),
      make("dd", { class: "share" }, percent(share, share < 0.1 ? 1 : 0)),
    ]));
    maps.forEach((map) => map.show(n));
    about.textContent = `Before it wrote “${readable(step.text)}”, these were the likeliest next tokens:`;
  };
  found.steps.forEach((step, n) => {
    const label = `${readable(step.text)}, ${percent(step.p)}`;
    const values = { type: "button", "aria-pressed": "false", "aria-label": label, title: percent(step.p) };
    const one = make("button", { ...values, onclick: () => choose(n) }, readable(step.text));
    one.style.setProperty("--p", step.p);
    steps.append(one);
  });
  openPanel("What it saw",
    ...section("The answer, token by token",
      make("p", { class: "note" }, "The stronger the colour, the surer the model was. Choose a token."),
      steps, about, candidates),
    ...maps.flatMap((map) => section(map.title, map.note, map.box)),
    ...section(`The row that it read: ${found.tokens.toLocaleString("en")} tokens`, colourKey(), layoutOf(found)));
  if (found.steps.length) choose(0);
  maps.forEach((map) => map.draw());
}

const colourKey = () => make("div", { class: "tokens key", "aria-label": "Colours", role: "group" },
  ROLES.map((role) => make("span", { class: role }, ROLE_WORDS[role])));

function layoutOf(found) {
  const piece = ({ text, role, count }) => {
    const title = `${ROLE_WORDS[role.split(" ")[0]]}, ${count} token${count === 1 ? "" : "s"}`;
    return make("span", { class: role, title }, count > 1 && role === "placeholder" ? `${text} × ${count}` : text);
  };
  const values = { class: "tokens", role: "group", "aria-label": "Token layout", tabIndex: 0 };
  return make("div", values, found.pieces.map(piece));
}

function attentionMap(seen, medium) {
  const note = make("p", { class: "note", "aria-live": "polite" });
  const peak = Math.max(1e-9, ...seen.attention.map((row) => Math.max(...row)));
  const say = (n) => {
    const share = percent(seen.share[n], 1);
    note.textContent = `At this token ${share} of its attention lay here, over ${seen.slots} slots.`;
  };
  return seen.columns ? overPlaces(seen, medium, peak, note, say) : overTime(seen, medium, peak, note, say);
}

function overPlaces(seen, medium, peak, note, say) {
  const places = Array.from({ length: seen.slots }, () => make("i"));
  const patches = make("div", { class: "patches", "aria-hidden": "true" }, places);
  patches.style.gridTemplate = `repeat(${seen.slots / seen.columns}, 1fr) / repeat(${seen.columns}, 1fr)`;
  const alt = `The picture ${medium?.name ?? ""} under the places that were looked at`;
  const image = make("img", { src: medium?.shown ?? medium?.uri ?? "", alt });
  return {
    title: "Where it looked", note, box: make("div", { class: "looked" }, image, patches), draw() {},
    show(n) {
      say(n);
      const most = Math.max(peak * 0.25, ...seen.attention[n]);
      places.forEach((place, k) => { place.style.opacity = 0.72 * seen.attention[n][k] / most; });
    },
  };
}

function overTime(seen, medium, peak, note, say) {
  const canvas = make("canvas", { role: "img", "aria-label": "Attention over time" });
  let peaks = [], at = 0;
  const draw = () => {
    const row = seen.attention[at], most = Math.max(peak * 0.25, ...row);
    const bars = peaks.length ? peaks : row.map(() => 0.6);
    const place = (n) => Math.min(row.length - 1, Math.floor(n * row.length / bars.length));
    drawWave(canvas, bars, (n) => 0.14 + 0.86 * row[place(n)] / most);
  };
  if (medium) {
    const count = Math.min(160, Math.max(48, seen.slots));
    peaksOf(medium, count).then((found) => { peaks = found.peaks; draw(); }).catch(() => {});
  }
  const show = (n) => { at = n; say(n); draw(); };
  return { title: "When it listened", note, box: make("div", { class: "heard" }, canvas), draw, show };
}
