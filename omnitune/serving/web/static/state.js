// What the page knows at a moment, and what it asks of the models that are chosen.

import { DEFAULTS } from "./settings.js";

/** A setting of another kind than expected is none. */
function settingsOf(found) {
  const known = Object.entries(DEFAULTS).filter(([name, value]) => typeof found[name] === typeof value);
  return { ...DEFAULTS, ...Object.fromEntries(known.map(([name]) => [name, found[name]])) };
}

export function stored(name) {
  try { return JSON.parse(localStorage.getItem(name)) ?? {}; } catch { return {}; }
}
export function store(name, value) {
  try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private window */ }
}

/**
 * turns: { text, media, answers, reference? } each, and its other versions.  attached: media of the
 * next question.  reading: promises of files that are being read.  id, title, system: of the
 * conversation, the first two "" before its first question.  running: what stops the answer that is
 * being written.  settings.system: that a new conversation begins with.
 */
export const state = {
  models: [], mostBytes: Infinity, chosen: [0], turns: [], attached: [], reading: new Set(),
  id: "", title: "", system: "", running: null, stopRecording: null,
  settings: settingsOf(stored("omnitune-settings")),
};
state.system = state.settings.system;

export const used = () => state.chosen.map((n) => state.models[n]).filter(Boolean);
export const mediaRead = () => used().flatMap((model) => model.media);
export const reads = (kind) => mediaRead().some((medium) => medium.name === kind);
export const kindsRead = () => [...new Set(mediaRead().map((medium) => medium.name))];
export const nounOf = (kind) => mediaRead().find((medium) => medium.name === kind)?.noun ?? kind;
