// A conversation as data: for a file, and for what this browser keeps of it.

import { newId } from "./dom.js";

const FORMAT = "omnitune conversation 1";
const LONGEST_TITLE = 60;

const ANSWER = {
  model: "string", title: "string", text: "string", note: "string", finish: "string", problem: "string",
  tokens: "number", seconds: "number", first: "number", rate: "number", state: "string",
};

/** Those of an object's values that are of the expected type; numbers are finite and not negative. */
function pick(found, types) {
  const fits = ([name, type]) => typeof found?.[name] === type
    && (type !== "number" || (found[name] >= 0 && found[name] < 1e12));
  return Object.fromEntries(Object.entries(types).filter(fits).map(([name]) => [name, found[name]]));
}

/** The turns without what belongs to the page. */
export const plain = (turns) => turns.map(({ text, media, reference, answers }) => ({
  text,
  media: media.map(({ id, kind, name, type, uri, shown, transcript }) => (
    { id, kind, name, type, uri, shown, transcript })),
  ...(reference === undefined ? {} : { reference }),
  answers: answers.map((answer) => pick(answer, ANSWER)),
}));

export function asFile(turns, title, settings) {
  const values = { format: FORMAT, title, saved: new Date().toISOString(), settings: { ...settings, key: undefined } };
  const text = JSON.stringify({ ...values, turns: plain(turns) }, null, 1);
  return new Blob([text], { type: "application/json" });
}

const DATA = /^data:(image|audio)\/[\w.+-]{1,60};base64,/;
const isData = (uri, kind) => typeof uri === "string" && DATA.exec(uri)?.[1] === kind;

/** A medium of unknown origin; its data are of its kind, or missing. */
function mediumOf(found) {
  const { kind, name, type, uri, shown, transcript, id } = found ?? {};
  if (!["image", "audio"].includes(kind) || typeof name !== "string") throw new Error("is no medium");
  if (uri !== undefined && !isData(uri, kind)) throw new Error("holds no data");
  return {
    id: typeof id === "string" ? id : newId(), kind, name: name.slice(0, 300),
    type: typeof type === "string" ? type : "",
    ...(uri === undefined ? {} : { uri }), ...(isData(shown, kind) ? { shown } : {}),
    ...(typeof transcript === "string" ? { transcript } : {}),
  };
}

function answerOf(found) {
  const answer = { model: "", text: "", ...pick(found, ANSWER) };
  answer.title ||= answer.model;
  // An answer that was being written when the page went away has ended there.
  if (!["done", "failed"].includes(answer.state)) answer.state = "stopped";
  return answer;
}

/** Turns of unknown origin, checked; throws an error if they are none. */
export function turnsOf(found) {
  if (!Array.isArray(found)) throw new Error("holds no turns");
  return found.map((turn) => {
    const media = (turn?.media ?? []).map(mediumOf);
    const answers = (turn?.answers ?? []).filter((answer) => answer && typeof answer === "object");
    const { text, reference } = turn ?? {};
    return {
      text: typeof text === "string" ? text : "", media, answers: answers.map(answerOf),
      ...(["string", "number"].includes(typeof reference) ? { reference: String(reference) } : {}),
    };
  });
}

/** What a file holds: { title, turns }; its media get new names, for another copy may be kept. */
export function ofFile(text) {
  const found = JSON.parse(text);
  if (found?.format !== FORMAT) throw new Error("is of another format");
  const turns = turnsOf(found.turns);
  turns.forEach((turn) => turn.media.forEach((medium) => { medium.id = newId(); }));
  const title = typeof found.title === "string" ? found.title.slice(0, LONGEST_TITLE) : "";
  return { title: title || titleOf(turns), turns };
}

/** What a conversation is called until somebody gives it a name. */
export function titleOf(turns) {
  const asked = turns.find((turn) => turn.text.trim())?.text.trim().replace(/\s+/g, " ");
  const name = asked || turns[0]?.media.map((medium) => medium.name).join(", ") || "Conversation";
  return name.length > LONGEST_TITLE ? `${name.slice(0, LONGEST_TITLE - 1)}…` : name;
}

/** All words of a conversation, to search in. */
export const wordsOf = (turns) => turns.flatMap((turn) => [
  turn.text, ...turn.media.flatMap((m) => [m.name, m.transcript ?? ""]), ...turn.answers.map((a) => a.text),
]).join("\n").toLowerCase().slice(0, 50_000);
