// The settings: how answers are chosen and shown, and the conversation's system prompt.

import { $ } from "./dom.js";

export const DEFAULTS = {
  system: "", max_tokens: 256, temperature: 0, top_p: 1, seed: "", markdown: true, key: "",
};

const FIELDS = Object.keys(DEFAULTS).filter((name) => name !== "system"); // that is the conversation's

export function bindSettings(settings, changed) {
  const fill = () => {
    for (const name of FIELDS) {
      if (typeof DEFAULTS[name] === "boolean") $(name).checked = settings[name];
      else $(name).value = settings[name];
      tell(name);
    }
  };
  const tell = (name) => {
    const output = document.querySelector(`output[for=${name}]`);
    if (output) output.textContent = Number($(name).value).toFixed(2);
  };
  for (const name of FIELDS) {
    const value = DEFAULTS[name];
    $(name).addEventListener("input", () => {
      const field = $(name);
      if (!field.checkValidity()) return;
      if (typeof value === "boolean") settings[name] = field.checked;
      else settings[name] = typeof value === "number" ? Number(field.value || value) : field.value;
      tell(name);
      changed(name);
    });
  }
  $("defaults").addEventListener("click", () => {
    Object.assign(settings, DEFAULTS, { key: settings.key });
    changed("system");
    fill();
    changed("markdown");
  });
  $("settings").addEventListener("click", () => { fill(); $("settings-panel").showModal(); });
  fill();
}

/**
 * The system prompt: each conversation has its own, and new ones begin with that of the settings.
 * `given`: { of(), set(text) } of the conversation, and `kept()`, called when the settings changed.
 * Returns what shows them as they are.
 */
export function bindSystem(settings, given) {
  const show = () => {
    const own = given.of(), usual = settings.system;
    $("system").value = own;
    $("system-usual").hidden = own === usual;
    const short = usual.length > 60 ? `${usual.slice(0, 59)}…` : usual;
    const begin = own === usual ? "the same" : short.trim() ? `“${short}”` : "none";
    $("system-note").textContent = `New conversations begin with ${begin}.`;
    $("system-line").hidden = !own.trim();
    $("system-words").textContent = own;
  };
  $("system").addEventListener("input", () => { given.set($("system").value); show(); });
  $("system-usual").addEventListener("click", () => {
    settings.system = given.of();
    given.kept();
    show();
    $("system").focus();
  });
  $("system-line").addEventListener("click", () => { $("settings").click(); $("system").focus(); });
  show();
  return show;
}
