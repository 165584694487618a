// Words to the user.

import { $, button, make } from "./dom.js";

/** Says what went wrong, above the question; "" takes it back. */
export function refuse(text) { show("notice wrong", text); }

/** Says what was done; `action`: [name, function] of a button that takes it back. */
export function tell(text, action) { show("notice", text, action); }

function show(kind, text, action) {
  const notice = $("notice");
  notice.className = kind;
  notice.hidden = !text;
  const act = () => { refuse(""); action[1](); };
  const dismiss = { type: "button", class: "dismiss", "aria-label": "Dismiss", onclick: () => refuse("") };
  notice.replaceChildren(make("span", {}, text), ...(action ? [button(action[0], act, { class: "quiet strong" })] : []),
    ...(text ? [make("button", dismiss, "✕")] : []));
}

export function hint(text) {
  $("hint").hidden = !text;
  $("hint").textContent = text;
}

/** Tells those who hear the page. */
export function announce(text) { $("live").textContent = text; }

/** On a phone the keyboard would cover the page. */
export function focusText() { if (matchMedia("(pointer: fine)").matches) $("text").focus(); }
