// Markdown of answers as elements.  Text goes in as text: nothing that a model writes becomes HTML,
// and nothing is loaded for it.  A block that has not changed keeps its element while more comes.

import { button, copyText, make } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: (.*))?$/;
const DIVIDER = /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)*[ \t]*:?-+:?[ \t]*\|?[ \t]*$/;
const DEEPEST = 8; // lists and quotes within each other

/** Shows Markdown in an element.  `update(text, open)`: open while more of the text may come. */
export function markdownView(element) {
  let shown = [];
  return {
    update(text, open = false) {
      const blocks = blocksOf(text.replaceAll("\r\n", "\n").split("\n"), 0);
      shown = blocks.map((block, n) => {
        const last = open && n === blocks.length - 1, before = shown[n], key = `${last}\n${block.source}`;
        if (before?.key === key) return before;
        if (before?.code && block.code) changeCode(before.element, block);
        const kept = before?.code && block.code;
        return { key, code: block.code, element: kept ? before.element : block.build(last) };
      });
      sync(element, shown.map((block) => block.element));
    },
  };
}

/** Makes `wanted` the children, touching only those that differ: a selection in the others stays. */
function sync(parent, wanted) {
  wanted.forEach((child, n) => {
    if (parent.childNodes[n] !== child) parent.insertBefore(child, parent.childNodes[n] ?? null);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

// Blocks: each with its source and a function that builds its element

function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at++; continue; }
    const start = at, block = blockAt(lines, at, depth);
    at = block.end;
    blocks.push({ ...block, source: lines.slice(start, at).join("\n") });
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return codeAt(lines, at);
  if (HEADING.test(line)) return headingAt(lines, at);
  if (RULE.test(line)) return { end: at + 1, build: () => make("hr") };
  if (depth < DEEPEST && QUOTE.test(line)) return quoteAt(lines, at, depth);
  if (depth < DEEPEST && itemOf(line)) return listAt(lines, at, depth);
  if (isTable(lines, at)) return tableAt(lines, at);
  return paragraphAt(lines, at, depth);
}

const elementsOf = (lines, depth, open) => {
  const blocks = blocksOf(lines, depth);
  return blocks.map((block, n) => block.build(open && n === blocks.length - 1));
};

function codeAt(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const closes = (line) => {
    const bare = line.trim();
    return bare.length >= fence.length && bare === fence[0].repeat(bare.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end++;
  const text = lines.slice(at + 1, end).join("\n");
  const build = () => {
    const code = make("code", {}, text);
    const copy = button("Copy", (event) => copyText(code.textContent, event.currentTarget),
      { "aria-label": "Copy this code" });
    return make("div", { class: "code" },
      make("div", { class: "code-top" }, make("span", {}, language || "text"), copy),
      make("pre", { tabIndex: 0, role: "region", "aria-label": labelOf(language) }, code));
  };
  return { end: Math.min(lines.length, end + 1), build, code: true, text, language };
}

const labelOf = (language) => (language ? `Code, ${language}` : "Code");

/** Changes a block of code in place, so that it keeps where it was scrolled to. */
function changeCode(element, block) {
  element.querySelector("code").textContent = block.text;
  element.querySelector("pre").setAttribute("aria-label", labelOf(block.language));
  element.querySelector(".code-top span").textContent = block.language || "text";
}

function headingAt(lines, at) {
  const [, marks, found = ""] = HEADING.exec(lines[at]);
  let text = found.trim(), end = text.length;
  while (text[end - 1] === "#") end--;
  if (end < text.length && (!end || text[end - 1] === " ")) text = text.slice(0, end).trim();
  const tag = `h${Math.min(6, marks.length + 3)}`; // the page's own headings stand above
  return { end: at + 1, build: (open) => make(tag, { class: `level${marks.length}` }, inline(text, open)) };
}

function quoteAt(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return { end, build: (open) => make("blockquote", {}, elementsOf(inner, depth + 1, open)) };
}

const untabbed = (line) => line.replace(/^[ \t]+/, (space) => space.replaceAll("\t", "    "));

const indentOf = (line) => line.length - line.trimStart().length;

function itemOf(line) {
  const found = ITEM.exec(untabbed(line));
  if (!found) return null;
  const [, indent, mark, text = ""] = found;
  return { indent: indent.length, mark, ordered: mark.length > 1, text };
}

function listAt(lines, at, depth) {
  const first = itemOf(lines[at]), items = [];
  let end = at, width = 0, loose = false;
  while (end < lines.length) {
    const line = untabbed(lines[end]), item = itemOf(line), indent = indentOf(line);
    if (!line.trim()) {
      while (end < lines.length && !lines[end].trim()) end++;
      const after = end < lines.length ? untabbed(lines[end]) : "", found = itemOf(after);
      const isItem = found && found.ordered === first.ordered && !RULE.test(after);
      if (!isItem && indentOf(after) <= first.indent) break;
      loose ||= !found;
      items.at(-1).push("");
      continue;
    }
    if (item && item.indent <= first.indent + 1) {
      if (item.ordered !== first.ordered || RULE.test(line)) break;
      width = item.indent + item.mark.length + 1;
      items.push([item.text]);
    } else if (indent > first.indent || (items.at(-1).at(-1) && !startsBlock(line))) {
      items.at(-1).push(line.slice(Math.min(width, indent)));
    } else break;
    end++;
  }
  const [tag, values] = first.ordered ? ["ol", { start: Number.parseInt(first.mark, 10) }] : ["ul", {}];
  const build = (open) => make(tag, values, items.map((item, n) =>
    make("li", {}, itemElements(item, depth, open && n === items.length - 1, loose))));
  return { end, build };
}

function itemElements(lines, depth, open, loose) {
  const box = /^\[([ xX])\] /.exec(lines[0]);
  const own = box ? [`${box[1] === " " ? "☐" : "☑"} ${lines[0].slice(4)}`, ...lines.slice(1)] : lines;
  return elementsOf(own, depth + 1, open).flatMap((element) => (
    element.tagName === "P" && !loose ? [...element.childNodes] : [element]));
}

/** The cells of a row.  A bar that is escaped, or stands in code, is none. */
function cellsOf(line) {
  const cells = [""];
  let code = false;
  const bare = line.trim().replace(/^\|/, "");
  for (let at = 0; at < bare.length; at++) {
    if (bare[at] === "`") code = !code;
    if (bare[at] === "\\" && bare[at + 1] === "|") { cells[cells.length - 1] += "|"; at++; }
    else if (bare[at] === "|" && !code) cells.push("");
    else cells[cells.length - 1] += bare[at];
  }
  if (cells.length > 1 && !cells.at(-1).trim()) cells.pop();
  return cells.map((cell) => cell.trim());
}

function isTable(lines, at) {
  const next = lines[at + 1];
  return lines[at].includes("|") && next?.includes("-") && next.length < 2000 && DIVIDER.test(next)
    && cellsOf(lines[at]).length === cellsOf(next).length;
}

function tableAt(lines, at) {
  const sideOf = (cell) => (!cell.endsWith(":") ? null : cell.startsWith(":") ? "middle" : "right");
  const sides = cellsOf(lines[at + 1]).map(sideOf);
  let end = at + 2;
  while (end < lines.length && lines[end].trim() && lines[end].includes("|")) end++;
  const row = (line, tag) => {
    const cells = cellsOf(line);
    const scope = tag === "th" ? "col" : null;
    return make("tr", {}, sides.map((side, n) => make(tag, { class: side, scope }, inline(cells[n] ?? ""))));
  };
  const build = () => make("div", { class: "table", tabIndex: 0, role: "region", "aria-label": "Table" },
    make("table", {}, make("thead", {}, row(lines[at], "th")),
      make("tbody", {}, lines.slice(at + 2, end).map((line) => row(line, "td")))));
  return { end, build };
}

/** Whether a line ends the paragraph before it.  A sentence may begin with a number. */
function startsBlock(line) {
  const item = itemOf(line);
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line)
    || (item && item.text && (!item.ordered || Number.parseInt(item.mark, 10) === 1));
}

function paragraphAt(lines, at, depth) {
  let end = at + 1;
  const ends = (n) => !lines[n].trim() || (depth < DEEPEST && startsBlock(lines[n])) || isTable(lines, n);
  while (end < lines.length && !ends(end)) end++;
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return { end, build: (open) => make("p", {}, inline(text, open)) };
}

// Words within a block

const TARGET = /<?([^\s()<>]{1,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?(?: "[^"\n]{0,500}")?/;
const LINK = new RegExp(`!?\\[([^[\\]\\n]{0,500})\\]\\([ ]?${TARGET.source}[ ]?\\)`, "y");
const ADDRESS = /https?:\/\/[^\s<>"`[\]{}|\\^]{1,2000}/y;
const MARKS = ["**", "__", "~~", "*", "_"];
const TAGS = { "**": "strong", __: "strong", "~~": "del", "*": "em", _: "em" };
const WORD = /[\p{L}\p{N}_]/u;
const PLAIN = /[^\\`*_~[!h\n]+/y;

/** Elements and texts of a line of words; `open`: what has no end yet reaches to the end. */
function inline(text, open = false, depth = 0) {
  const found = [], hopeless = new Set(); // marks that have no end from here on
  let plain = "", at = 0;
  const add = (element, end) => {
    if (plain) found.push(plain);
    plain = "";
    found.push(element);
    at = end;
  };
  while (at < text.length) {
    PLAIN.lastIndex = at;
    const run = PLAIN.exec(text);
    if (run) { plain += run[0]; at += run[0].length; continue; }
    const element = depth < DEEPEST && elementAt(text, at, open, depth, hopeless);
    if (element) add(element.made, element.end);
    else if (text[at] === "\n") add(make("br"), at + 1);
    else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) { plain += text[at + 1]; at += 2; }
    else plain += text[at++];
  }
  if (plain) found.push(plain);
  return found;
}

function elementAt(text, at, open, depth, hopeless) {
  const letter = text[at];
  if (letter === "`") return codeSpan(text, at, open, hopeless);
  if (letter === "[" || letter === "!") return linkAt(text, at);
  if (letter === "h" && !WORD.test(text[at - 1] ?? " ")) return addressAt(text, at);
  const mark = MARKS.find((one) => text.startsWith(one, at));
  return mark ? emphasis(text, at, mark, open, depth, hopeless) : null;
}

function codeSpan(text, at, open, hopeless) {
  let length = 1;
  while (text[at + length] === "`") length++;
  const mark = "`".repeat(length), start = at + length;
  let end = hopeless.has(mark) ? -1 : text.indexOf(mark, start);
  while (end >= 0 && text[end + length] === "`") {
    let next = end;
    while (text[next] === "`") next++;
    end = text.indexOf(mark, next);
  }
  if (end < 0) {
    hopeless.add(mark);
    const rest = text.slice(start);
    if (open && length === 1 && rest.trim()) return { made: make("code", {}, rest), end: text.length };
    return { made: mark, end: start };
  }
  const inner = text.slice(start, end).replaceAll("\n", " ");
  return { made: make("code", {}, /^ .*\S.* $/.test(inner) ? inner.slice(1, -1) : inner), end: end + length };
}

function emphasis(text, at, mark, open, depth, hopeless) {
  const start = at + mark.length, next = text[start], letter = mark[0];
  if (next === undefined || /\s/.test(next)) return null;
  if (letter === "_" && WORD.test(text[at - 1] ?? " ")) return null; // snake_case
  const end = hopeless.has(mark) ? -1 : closing(text, start, mark);
  const over = (to, isOpen) => make(TAGS[mark], {}, inline(text.slice(start, to), isOpen, depth + 1));
  if (end >= 0) return { made: over(end, false), end: end + mark.length };
  hopeless.add(mark);
  const reaches = open && mark.length === 2 && next !== letter;
  return reaches ? { made: over(text.length, true), end: text.length } : null;
}

function closing(text, start, mark) {
  const letter = mark[0];
  for (let end = text.indexOf(mark, start + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
    if (mark.length === 2 && text[end + 2] === letter) continue; // of three the last two
    const alone = mark.length === 2 || (text[end + 1] !== letter && text[end - 1] !== letter);
    const inWord = letter === "_" && WORD.test(text[end + mark.length] ?? " ");
    if (alone && !inWord && !/[\s\\]/.test(text[end - 1])) return end;
  }
  return -1;
}

/** The address as a browser reads it, if it leads to a page or to somebody's mail. */
function safe(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : "";
  } catch { return ""; }
}

const anchor = (href, label) =>
  make("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);

/** A link; a picture is one too, for nothing is loaded from elsewhere. */
function linkAt(text, at) {
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  if (!found) return null;
  const [whole, label, address] = found, href = safe(address);
  return { made: href ? anchor(href, label.replace(/[*`]/g, "") || href) : whole, end: at + whole.length };
}

function addressAt(text, at) {
  ADDRESS.lastIndex = at;
  const found = ADDRESS.exec(text)?.[0].replace(/[.,;:!?'*_~)]{1,100}$/, "");
  const href = found ? safe(found) : "";
  return href ? { made: anchor(href, found), end: at + found.length } : null;
}
