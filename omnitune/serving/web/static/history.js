// Past conversations, kept in this browser and nowhere else.
//
// Three stores: what the list shows, the turns, and the media, which are large and never change.
// All media together are bounded: the oldest conversations keep their words only.

import { plain, turnsOf, wordsOf } from "./conversation.js";
import { allTurns } from "./versions.js";

const BUDGET = 200_000_000; // bytes of media
const STORES = ["titles", "turns", "media"];

let opening;
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("omnitune") : null;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const database = () => (opening ??= new Promise((resolve, reject) => {
  const request = indexedDB.open("omnitune", 1);
  request.onupgradeneeded = () =>
    STORES.forEach((name) => request.result.createObjectStore(name, { keyPath: "id" }));
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
}));

/** Runs `work(stores)` in one transaction: all of it is kept, or nothing. */
async function within(mode, work) {
  const change = (await database()).transaction(STORES, mode);
  const ended = new Promise((resolve, reject) => {
    change.oncomplete = resolve;
    change.onabort = () => reject(change.error ?? new DOMException("given up", "AbortError"));
  });
  ended.catch(() => {}); // told below
  const stores = Object.fromEntries(STORES.map((name) => [name, change.objectStore(name)]));
  const result = await work(stores);
  await ended;
  return result;
}

const told = () => channel?.postMessage("changed");

/** Calls back when another tab has changed what is kept. */
export function onChange(callback) { channel?.addEventListener("message", callback); }

/** Those that are kept, the newest first: { id, title, changed, words, media }. */
export async function list() {
  const found = await within("readonly", ({ titles }) => done(titles.getAll()));
  return found.sort((one, other) => other.changed - one.changed);
}

/** One of them, { turns, system }; media that are no longer kept have no `uri`. */
export async function load(id) {
  const found = await within("readonly", async ({ turns, media }) => {
    const row = await done(turns.get(id));
    const all = allTurns(row?.turns ?? []).flatMap((turn) => turn.media ?? []);
    for (const medium of all) Object.assign(medium, await done(media.get(medium.id)));
    return row;
  });
  return found && { turns: turnsOf(found.turns), system: found.system };
}

/**
 * Keeps a conversation, { id, title, turns, system }; says in words what could not be kept of it,
 * else "".
 */
export async function keep(conversation, changed = Date.now(), budget = BUDGET) {
  const own = allTurns(conversation.turns).flatMap((turn) => turn.media).filter((medium) => medium.uri);
  let size = 0, fits = true;
  for (const medium of own) size += sizeOf(medium);
  if (size > budget) fits = false;
  try {
    await write(conversation, changed, fits ? own : []);
    await makeRoom(conversation.id, budget);
  } catch (error) {
    if (error?.name !== "QuotaExceededError") throw error;
    await makeRoom(conversation.id, 0); // the browser gives less than is asked for
    try {
      await write(conversation, changed, fits ? own : []);
    } catch {
      fits = false;
      await write(conversation, changed, []);
    }
  }
  told();
  const problem = "The browser keeps only the words of this conversation: its media are too large.";
  return fits ? "" : `${problem} Save it to a file.`;
}

const sizeOf = (medium) => medium.uri.length + (medium.shown?.length ?? 0);

const withoutData = ({ id, kind, name, type, transcript }) => ({ id, kind, name, type, transcript });

const write = ({ id, title, turns, system }, changed, media) => within("readwrite", async (stores) => {
  const before = await done(stores.titles.get(id));
  const there = new Map((before?.media ?? []).map((one) => [one.id, one]));
  const wanted = new Map(media.map((medium) => [medium.id, medium]));
  for (const gone of there.keys()) if (!wanted.has(gone)) stores.media.delete(gone);
  for (const [name, { uri, shown }] of wanted) {
    if (!there.has(name)) stores.media.put({ id: name, uri, ...(shown ? { shown } : {}) });
  }
  const sizes = [...wanted.values()].map((medium) => ({ id: medium.id, size: sizeOf(medium) }));
  stores.titles.put({ id, title, changed, words: wordsOf(turns), media: sizes });
  stores.turns.put({ id, system, turns: plain(turns, withoutData) });
});

/** Takes the media of the oldest conversations until all together fit; never those of `id`. */
const makeRoom = (id, most) => within("readwrite", async ({ titles, media }) => {
  const all = (await done(titles.getAll())).sort((one, other) => one.changed - other.changed);
  const sizeOfAll = (row) => row.media.reduce((sum, one) => sum + one.size, 0);
  let sum = all.reduce((so_far, row) => so_far + sizeOfAll(row), 0);
  for (const row of all) {
    if (sum <= most) return;
    if (row.id === id || !row.media.length) continue;
    sum -= sizeOfAll(row);
    row.media.forEach((one) => media.delete(one.id));
    titles.put({ ...row, media: [] });
  }
});

export async function rename(id, title) {
  await within("readwrite", async ({ titles }) => {
    const row = await done(titles.get(id));
    if (row) titles.put({ ...row, title });
  });
  told();
}

/** Forgets one; gives what `keep` needs to take that back. */
export async function remove(id) {
  const kept = await load(id);
  const row = await within("readwrite", async (stores) => {
    const found = await done(stores.titles.get(id));
    found?.media.forEach((one) => stores.media.delete(one.id));
    stores.titles.delete(id);
    stores.turns.delete(id);
    return found;
  });
  told();
  return row && kept ? [{ id, title: row.title, ...kept }, row.changed] : null;
}

export async function clear() {
  await within("readwrite", async (stores) => STORES.forEach((name) => stores[name].clear()));
  told();
}
