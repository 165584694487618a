// A conversation as data: for a file, and for what this browser keeps of it.

import { newId } from "./dom.js";
import { allTurns, countOf, othersOf } from "./versions.js";

const FORMAT = "omnitune conversation 1";
const LONGEST_TITLE = 60;
const DEEPEST = 200; // versions within versions

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

const bareMedium = ({ id, kind, name, type, uri, shown, transcript }) => (
  { id, kind, name, type, uri, shown, transcript });

const plainVersion = ({ text, reference, answers }) => ({
  text, ...(reference === undefined ? {} : { reference }),
  answers: answers.map((answer) => pick(answer, ANSWER)),
});

/**
 * The turns without what belongs to the page; `medium` makes what is kept of one.  Of a turn with
 * several versions, `versions` holds the others, each in its place, and null in the turn's own.
 */
export const plain = (turns, medium = bareMedium) => turns.map((turn) => {
  const others = new Map(othersOf(turn));
  const version = (found) => found && { ...plainVersion(found), after: plain(found.after, medium) };
  const versions = Array.from({ length: countOf(turn) }, (_, n) => version(others.get(n)) ?? null);
  const { text, ...rest } = plainVersion(turn);
  return {
    text, media: turn.media.map(medium), ...rest,
    ...(versions.length > 1 ? { version: turn.version, versions } : {}),
  };
});

/** A conversation, { title, turns, system }, as a file. */
export function asFile({ title, turns, system }, settings) {
  const values = {
    format: FORMAT, title, saved: new Date().toISOString(),
    settings: { ...settings, system, key: undefined },
  };
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

/** What is said in a turn or in one of its versions. */
function saidIn(found) {
  const { text, reference } = found ?? {};
  const answers = (found?.answers ?? []).filter((answer) => answer && typeof answer === "object");
  return {
    text: typeof text === "string" ? text : "", answers: answers.map(answerOf),
    ...(["string", "number"].includes(typeof reference) ? { reference: String(reference) } : {}),
  };
}

/** The versions of a turn of unknown origin; none where they are not what `plain` makes. */
function versionsOf(found, depth) {
  const { version, versions } = found ?? {};
  const own = Array.isArray(versions) ? versions.flatMap((one, n) => (one === null ? [n] : [])) : [];
  if (own.length !== 1 || own[0] !== version || versions.length < 2) return {};
  const read = (one) => one && { ...saidIn(one), after: turnsOf(one.after ?? [], depth + 1) };
  return { version, versions: versions.map(read) };
}

/** Turns of unknown origin, checked; throws an error if they are none. */
export function turnsOf(found, depth = 0) {
  if (!Array.isArray(found) || depth > DEEPEST) throw new Error("holds no turns");
  return found.map((turn) => {
    const { text, ...rest } = saidIn(turn);
    return { text, media: (turn?.media ?? []).map(mediumOf), ...rest, ...versionsOf(turn, depth) };
  });
}

/** What a file holds: { title, turns, system }; its media get new names, for another copy may be kept. */
export function ofFile(text) {
  const found = JSON.parse(text);
  if (found?.format !== FORMAT) throw new Error("is of another format");
  const turns = turnsOf(found.turns);
  allTurns(turns).forEach((turn) => turn.media.forEach((medium) => { medium.id = newId(); }));
  const title = typeof found.title === "string" ? found.title.slice(0, LONGEST_TITLE) : "";
  const system = typeof found.settings?.system === "string" ? found.settings.system : "";
  return { title: title || titleOf(turns), turns, system };
}

/** What a conversation is called until somebody gives it a name. */
export function titleOf(turns) {
  const asked = turns.find((turn) => turn.text.trim())?.text.trim().replace(/\s+/g, " ");
  const name = asked || turns[0]?.media.map((medium) => medium.name).join(", ") || "Conversation";
  return name.length > LONGEST_TITLE ? `${name.slice(0, LONGEST_TITLE - 1)}…` : name;
}

const spokenIn = ({ text, answers }) => [text, ...answers.map((answer) => answer.text)];

/** All words of a conversation, to search in. */
export const wordsOf = (turns) => allTurns(turns).flatMap((turn) => [
  ...turn.media.flatMap((m) => [m.name, m.transcript ?? ""]),
  ...[turn, ...othersOf(turn).map(([, other]) => other)].flatMap(spokenIn),
]).join("\n").toLowerCase().slice(0, 50_000);
