// What goes with the next question: files that are chosen, dropped or pasted, and recordings.

import { inShownForm } from "./api.js";
import { $, icon, make } from "./dom.js";
import { kindOf, readFile, record } from "./media.js";
import { announce, focusText, hint, refuse } from "./notice.js";
import { kindsRead, mediaRead, nounOf, reads, state } from "./state.js";
import { showMedium } from "./view.js";

/** Reads files and attaches them in their order; says of the others why not. */
export async function attachFiles(files) {
  refuse("");
  const problems = [], reading = [];
  for (const file of files) {
    const problem = problemOf(file);
    if (problem) problems.push(problem);
    else reading.push(readFile(file, inShownForm).catch((error) => { problems.push(error.message); }));
  }
  const all = Promise.all(reading).then((found) => found.filter(Boolean).forEach(attach));
  state.reading.add(all);
  drawAttached();
  await all;
  state.reading.delete(all);
  drawAttached();
  if (!problems.length) return;
  refuse(problems.slice(0, 4).join(" "));
  followDown(240);
}

function problemOf(file) {
  const kind = kindOf(file);
  if (!kind || !reads(kind)) {
    const taken = kindsRead().map((k) => `${nounOf(k)}s`).join(" and ");
    const what = kind ? `this model reads no ${kind}` : "is neither picture nor sound";
    return `${file.name}: ${what}; it takes ${taken || "text only"}.`;
  }
  const most = Math.floor(state.mostBytes * 3 / 4) - 10_000; // base64 is a third longer
  const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0);
  if (file.size <= most) return "";
  return `${file.name} has ${megabytes(file.size)} MB; this server takes ${megabytes(most)} MB. Choose a smaller file.`;
}

export function attach(medium) {
  const most = Math.max(1, ...mediaRead().filter((m) => m.name === medium.kind).map((m) => m.most));
  const same = state.attached.filter((m) => m.kind === medium.kind);
  hint("");
  if (same.length >= most) {
    state.attached.splice(state.attached.indexOf(same[0]), 1);
    const taught = most === 1 ? `one ${nounOf(medium.kind)}` : `${most} ${nounOf(medium.kind)}s`;
    hint(`In place of ${same[0].name}: this model was taught with ${taught} at a time.`);
  }
  state.attached.push(medium);
  drawAttached();
  followDown(240);
  announce(`${medium.name} is attached`);
  focusText();
}

export function followDown(within = 160) {
  const main = $("main");
  if (main.scrollHeight - main.scrollTop - main.clientHeight < within) main.scrollTop = main.scrollHeight;
}

const shown = new WeakMap(); // a player goes on playing while another file is attached

export function drawAttached() {
  const entry = (medium) => {
    const remove = () => {
      state.attached.splice(state.attached.indexOf(medium), 1);
      drawAttached();
      $("text").focus();
    };
    const button = { type: "button", class: "remove", "aria-label": `Remove ${medium.name}`, onclick: remove };
    return make("li", {}, showMedium(medium), make("button", button, "✕"));
  };
  const entries = state.attached.map((medium) => {
    if (!shown.has(medium)) shown.set(medium, entry(medium));
    return shown.get(medium);
  });
  const waits = state.reading.size ? [make("li", { class: "waits" }, "Reading the file…")] : [];
  $("attached").replaceChildren(...entries, ...waits);
}

export function drawMediaButtons() {
  const buttons = kindsRead().flatMap((kind) => {
    const picker = make("input", {
      type: "file", accept: kind === "image" ? "image/*,.heic,.heif,.tif,.tiff" : "audio/*,.aif,.aiff",
      multiple: true, hidden: true, tabIndex: -1, "data-kind": kind,
    });
    picker.addEventListener("change", () => {
      attachFiles([...picker.files]);
      picker.value = "";
    });
    const label = `Attach a ${nounOf(kind)}`, choose = () => picker.click();
    const chooser = make("button", { type: "button", title: label, "aria-label": label, onclick: choose }, icon(kind));
    return kind === "audio" ? [picker, chooser, recordButton()] : [picker, chooser];
  });
  $("media-buttons").replaceChildren(...buttons);
}

const recordButton = () => make("button", {
  type: "button", id: "record", title: "Record", "aria-label": "Record from the microphone",
  "aria-pressed": "false", onclick: toggleRecording,
}, icon("microphone"));

let opening = false;

async function toggleRecording() {
  const recorder = $("record");
  const pressed = (is) => {
    recorder.setAttribute("aria-pressed", String(is));
    recorder.setAttribute("aria-label", is ? "End the recording" : "Record from the microphone");
  };
  if (opening) return; // the browser asks for the microphone
  try {
    if (state.stopRecording) {
      const stop = state.stopRecording;
      state.stopRecording = null;
      pressed(false);
      hint("");
      attach(await stop());
      return;
    }
    opening = true;
    const tell = (seconds) => hint(`Recording, ${seconds.toFixed(0)} s. Press the microphone again to end.`);
    state.stopRecording = await record(tell);
    pressed(true);
  } catch (error) {
    hint("");
    refuse(error.message);
  } finally {
    opening = false;
  }
}

export function wireDropping() {
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) { event.preventDefault(); attachFiles(files); }
  });
  let depth = 0;
  const dragged = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (dragged(event)) { depth++; $("drop").hidden = false; } });
  addEventListener("dragleave", (event) => {
    if (dragged(event) && --depth <= 0) { depth = 0; $("drop").hidden = true; }
  });
  addEventListener("dragover", (event) => { if (dragged(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    attachFiles([...event.dataTransfer.files]);
  });
}
