// The list of past conversations beside the page.

import { $, icon, make } from "./dom.js";
import * as history from "./history.js";
import { refuse, tell } from "./notice.js";
import { state, store } from "./state.js";

const DAY = 86_400_000;
let kept = [], renaming = "", page;
const narrow = matchMedia("(max-width: 899px)");

/** `given`: { open(id, title), begin(), renamed(title) } of the page. */
export function wireSidebar(given) {
  page = given;
  const wanted = localStorage.getItem("omnitune-sidebar") !== "false";
  show(wanted && !narrow.matches);
  $("history").addEventListener("click", () => {
    show($("sidebar").hidden);
    if (!narrow.matches) store("omnitune-sidebar", !$("sidebar").hidden);
  });
  narrow.addEventListener("change", () => show(!narrow.matches));
  $("scrim").addEventListener("click", close);
  $("sidebar").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && narrow.matches && !renaming) { close(); $("history").focus(); }
  });
  $("search").addEventListener("input", draw);
  $("forget").addEventListener("click", forgetAll);
  $("settings-panel").addEventListener("close", () => askToForget(false));
  history.onChange(refresh);
}

/** On a narrow screen the list lies over the page, which then cannot be reached. */
function show(open) {
  const over = open && narrow.matches;
  $("sidebar").hidden = !open;
  $("scrim").hidden = !over;
  $("history").setAttribute("aria-expanded", String(open));
  for (const id of ["main", "composer"]) $(id).inert = over;
  if (over) $("sidebar").querySelector("button").focus();
}

/** Leaves the page alone on a narrow screen. */
export function close() { if (narrow.matches) show(false); }

/** Reads and shows again what is kept. */
export async function refresh() {
  try {
    kept = await history.list();
  } catch {
    kept = [];
    $("kept-note").textContent = "This browser keeps no conversations here (a private window?). Save them to files.";
  }
  if (!renaming) draw();
}

function draw() {
  const words = $("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) => words.every((word) => row.title.toLowerCase().includes(word) || row.words.includes(word));
  const found = kept.filter(fits), groups = new Map();
  for (const row of found) {
    const name = groupOf(row.changed);
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const entry = (row) => make("li", { class: "kept" }, renaming === row.id ? fieldOf(row) : itemOf(row));
  $("kept").replaceChildren(...[...groups].map(([name, rows]) =>
    make("li", {}, make("h2", {}, name), make("ul", {}, rows.map(entry)))));
  $("nothing").hidden = found.length > 0;
  $("nothing").textContent = words.length ? "Nothing found." : "Your conversations will stand here.";
  $("forget").disabled = !kept.length;
}

function groupOf(moment) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (moment >= midnight) return "Today";
  if (moment >= midnight - DAY) return "Yesterday";
  if (moment >= midnight - 7 * DAY) return "Last 7 days";
  return new Date(moment).toLocaleDateString("en", { month: "long", year: "numeric" });
}

function itemOf(row) {
  const current = row.id === state.id ? { "aria-current": "true" } : {};
  const open = () => page.open(row.id, row.title);
  const rename = () => {
    renaming = row.id;
    draw();
    $("kept").querySelector("input").select();
  };
  const small = (name, label, onclick) => make("button",
    { type: "button", class: "small", title: label, "aria-label": `${label} “${row.title}”`, onclick }, icon(name));
  return [
    make("button", { type: "button", class: "title", title: row.title, ...current, onclick: open }, row.title),
    small("pen", "Rename", rename),
    small("bin", "Delete", () => forget(row)),
  ];
}

function fieldOf(row) {
  const field = make("input", { type: "text", maxLength: 100, "aria-label": "Name of the conversation" });
  field.value = row.title;
  const end = async (keeps) => {
    if (renaming !== row.id) return;
    renaming = "";
    const title = field.value.trim();
    if (keeps && title && title !== row.title) {
      row.title = title;
      if (row.id === state.id) page.renamed(title);
      await history.rename(row.id, title).catch((error) => refuse(sentence(error)));
    }
    draw();
    focusOn(row.id);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) end(true);
    if (event.key === "Escape") { event.stopPropagation(); end(false); }
  });
  field.addEventListener("blur", () => end(true));
  return field;
}

function focusOn(id) {
  const place = kept.findIndex((row) => row.id === id);
  if (document.activeElement === document.body) $("kept").querySelectorAll(".title")[place]?.focus();
}

const sentence = (error) => `The browser cannot keep this (${error?.message ?? error}).`;

async function forget(row) {
  try {
    if (row.id === state.id) await page.begin();
    const gone = await history.remove(row.id);
    await refresh();
    const back = async () => { if (gone) await history.keep(...gone); await refresh(); };
    tell(`Deleted “${row.title}”.`, ["Undo", back]);
  } catch (error) { refuse(sentence(error)); }
}

function askToForget(sure) {
  $("forget").textContent = sure ? `Really delete ${kept.length}? This cannot be undone.` : "Delete all conversations";
  $("forget").dataset.sure = String(sure);
}

async function forgetAll() {
  if ($("forget").dataset.sure !== "true") { askToForget(true); return; }
  try {
    await page.begin();
    await history.clear();
    await refresh();
  } catch (error) { refuse(sentence(error)); }
  $("settings-panel").close();
}
