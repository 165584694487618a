// What opens beside the conversation: the model's card, what it saw, the settings.

import { $, button, make, percent } from "./dom.js";
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

export function showCard(card) {
  const body = [facts(card.facts)];
  if (card.scores.length) {
    body.push(...section(`Scores on the split “${card.split}”`, make("p", { class: "note" }, "Questions that training never showed; with 95 % intervals."),
      make("table", { class: "scores" },
        make("thead", {}, make("tr", {}, ["score", "value", "interval"].map((h) => make("th", { scope: "col" }, h)))),
        make("tbody", {}, card.scores.map((row) => make("tr", {},
          make("th", { scope: "row" }, row.label, row.share === null ? null : meter(row.share, row.low, row.high)),
          make("td", {}, make("b", {}, row.value)), make("td", {}, row.interval || "–")))))));
  } else body.push(make("p", { class: "note" }, "No scores are known of this model."));
  if (card.mix.length) {
    body.push(...section("What it was trained on", make("table", { class: "scores" },
      make("thead", {}, make("tr", {}, card.mix_columns.map((h) => make("th", { scope: "col" }, h)))),
      make("tbody", {}, card.mix.map(([first, ...cells]) => make("tr", {}, make("th", { scope: "row" }, first), cells.map((c) => make("td", {}, c))))))));
  }
  if (card.parts.length) body.push(...section("What it began with", facts(card.parts)));
  if (card.recipe.length) body.push(make("details", {}, make("summary", {}, "All settings of its run"), facts(card.recipe)));
  openPanel(card.title, ...body);
}

const ROLES = ["context", "trained", "control", "placeholder"];
const ROLE_WORDS = { context: "read", trained: "written (trained)", control: "control token", placeholder: "slots of a medium" };

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
      make("dt", {}, readable(text)), make("dd", {}, meter(share)), make("dd", { class: "share" }, percent(share, share < 0.1 ? 1 : 0)),
    ]));
    maps.forEach((map) => map.show(n));
    about.textContent = `Before it wrote “${readable(step.text)}”, these were the likeliest next tokens:`;
  };
  found.steps.forEach((step, n) => {
    const one = make("button", { type: "button", "aria-pressed": "false", "aria-label": `${readable(step.text)}, ${percent(step.p)}`, onclick: () => choose(n) }, readable(step.text));
    one.style.setProperty("--p", step.p);
    steps.append(one);
  });
  const layout = make("div", { class: "tokens", role: "group", "aria-label": "Token layout", tabIndex: 0 }, found.pieces.map((piece) =>
    make("span", { class: piece.role, title: `${ROLE_WORDS[piece.role.split(" ")[0]]}, ${piece.count} token${piece.count === 1 ? "" : "s"}` },
      piece.count > 1 && piece.role === "placeholder" ? `${piece.text} × ${piece.count}` : piece.text)));
  const key = make("div", { class: "tokens key", "aria-label": "Colours", role: "group" }, ROLES.map((role) => make("span", { class: role }, ROLE_WORDS[role])));
  openPanel("What it saw",
    ...section("The answer, token by token", make("p", { class: "note" }, "The stronger the colour, the surer the model was. Choose a token."), steps, about, candidates),
    ...maps.flatMap((map) => section(map.title, map.note, map.box)),
    ...section(`The row that it read: ${found.tokens.toLocaleString("en")} tokens`, key, layout));
  if (found.steps.length) choose(0);
  maps.forEach((map) => map.draw());
}

function attentionMap(seen, medium) {
  const note = make("p", { class: "note", "aria-live": "polite" });
  const peak = Math.max(1e-9, ...seen.attention.flat());
  const say = (n) => { note.textContent = `At this token ${percent(seen.share[n], 1)} of its attention lay here, over ${seen.slots} slots.`; };
  if (seen.columns) {
    const patches = make("div", { class: "patches", "aria-hidden": "true" }, Array.from({ length: seen.slots }, () => make("i")));
    patches.style.gridTemplate = `repeat(${seen.slots / seen.columns}, 1fr) / repeat(${seen.columns}, 1fr)`;
    const image = make("img", { src: medium?.uri ?? "", alt: `The picture ${medium?.name ?? ""} under the places that were looked at` });
    const box = make("div", { class: "looked" }, image, patches);
    return {
      title: "Where it looked", note, box, draw() {},
      show(n) {
        say(n);
        const most = Math.max(peak * 0.25, ...seen.attention[n]);
        [...patches.children].forEach((patch, k) => { patch.style.opacity = 0.72 * seen.attention[n][k] / most; });
      },
    };
  }
  const canvas = make("canvas", { role: "img", "aria-label": "Attention over time" });
  let peaks = [], at = 0;
  const draw = () => {
    const row = seen.attention[at], most = Math.max(peak * 0.25, ...row);
    const bars = peaks.length ? peaks : row.map(() => 0.6);
    drawWave(canvas, bars, (n) => 0.14 + 0.86 * row[Math.min(row.length - 1, Math.floor(n * row.length / bars.length))] / most);
  };
  if (medium) peaksOf(medium, Math.min(160, Math.max(48, seen.slots))).then((found) => { peaks = found.peaks; draw(); }).catch(() => {});
  return { title: "When it listened", note, box: make("div", { class: "heard" }, canvas), draw, show(n) { at = n; say(n); draw(); } };
}

// Settings

export const DEFAULTS = { max_tokens: 256, temperature: 0, top_p: 1, seed: "", system: "", key: "" };

export function bindSettings(settings, changed) {
  const fill = () => {
    for (const name of Object.keys(DEFAULTS)) {
      $(name).value = settings[name];
      tell(name);
    }
  };
  const tell = (name) => {
    const output = document.querySelector(`output[for=${name}]`);
    if (output) output.textContent = Number($(name).value).toFixed(2);
  };
  for (const name of Object.keys(DEFAULTS)) {
    $(name).addEventListener("input", () => {
      const field = $(name);
      if (!field.checkValidity()) return;
      settings[name] = typeof DEFAULTS[name] === "number" ? Number(field.value || DEFAULTS[name]) : field.value;
      tell(name);
      changed();
    });
  }
  $("defaults").addEventListener("click", () => { Object.assign(settings, DEFAULTS); fill(); changed(); });
  $("settings").addEventListener("click", () => { fill(); $("settings-panel").showModal(); });
  fill();
}
