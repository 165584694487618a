// Small makers of elements.  Text always goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const button = (text, onclick, values = {}) =>
  make("button", { type: "button", class: "quiet", onclick, ...values }, text);

/** Puts a text on the clipboard, and says on the pressed button whether it is there. */
export async function copyText(text, pressed) {
  const was = pressed.textContent;
  let told = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no https, or not allowed
    told = copyTheOldWay(text) ? told : "Not allowed here";
  }
  pressed.textContent = told;
  setTimeout(() => { pressed.textContent = was; }, 2000);
}

function copyTheOldWay(text) {
  const field = make("textarea", { class: "sr", "aria-hidden": "true" });
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}

/** A name that nothing else has. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const PATHS = {
  image: ["M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4", "M15.500 9.500h.01"],
  audio: ["M4 10v4M8 7v10M12 4v16M16 8v8M20 10v4"],
  microphone: ["M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5.500 11a6.500 6.500 0 0 0 13 0M12 17.500V21"],
  pen: ["M4 20h4L19 9l-4-4L4 16zM13 7l4 4"], bin: ["M5 7h14M10 4h4M7 7l1 13h8l1-13M10 11v5M14 11v5"],
  play: ["M8 5v14l11-7z"], pause: ["M8 5v14M16 5v14"], file: ["M6 3h8l4 4v14H6z"],
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const d of PATHS[name] ?? PATHS.file) {
    const path = document.createElementNS(svg.namespaceURI, "path");
    const values = { d, fill: name === "play" ? "currentColor" : "none", stroke: "currentColor",
      "stroke-width": name === "pause" ? 4 : 2, "stroke-linecap": "round", "stroke-linejoin": "round" };
    Object.entries(values).forEach(([key, value]) => path.setAttribute(key, value));
    svg.append(path);
  }
  return svg;
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
