// The settings: how answers are chosen and shown.

import { $ } from "./dom.js";

export const DEFAULTS = {
  system: "", max_tokens: 256, temperature: 0, top_p: 1, seed: "", markdown: true, key: "",
};

export function bindSettings(settings, changed) {
  const fill = () => {
    for (const name of Object.keys(DEFAULTS)) {
      if (typeof DEFAULTS[name] === "boolean") $(name).checked = settings[name];
      else $(name).value = settings[name];
      tell(name);
    }
  };
  const tell = (name) => {
    const output = document.querySelector(`output[for=${name}]`);
    if (output) output.textContent = Number($(name).value).toFixed(2);
  };
  for (const [name, value] of Object.entries(DEFAULTS)) {
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
    fill();
    changed("markdown");
  });
  $("settings").addEventListener("click", () => { fill(); $("settings-panel").showModal(); });
  fill();
}
