// Asking and answering: what a model is sent, and its answer as it comes.

import { postJson, streamAnswer, transcribe } from "./api.js";
import { asPart, bytesOf } from "./media.js";
import { state, used } from "./state.js";

const answerOf = (turn, model) => turn.answers.find((a) => a.model === model.name) ?? turn.answers[0];

/** The media of a turn that a model reads; those that the browser no longer keeps are gone. */
const readBy = (model, media) =>
  media.filter((medium) => medium.uri && model.media.some((m) => m.name === medium.kind));

/** The turns up to one, without those that a model could not answer: it would fail at them again. */
const turnsUntil = (model, last) => state.turns.slice(0, state.turns.indexOf(last) + 1)
  .filter((turn) => turn === last || answerOf(turn, model)?.text);

/** What the model is shown of the turns before, in words, where that is less than all: see `as_taught`. */
function shownOfBefore(model, last) {
  let read = [], note = "";
  const most = (kind) => model.media.find((m) => m.name === kind).most;
  const count = (list, kind) => list.filter((m) => m.kind === kind).length;
  for (const turn of turnsUntil(model, last)) {
    const media = readBy(model, turn.media), before = read.flatMap((t) => t.media);
    let kept = [];
    note = "";
    if (media.some((m) => count(before, m.kind) + count(media, m.kind) > most(m.kind))) {
      if (read.length) note = "A new conversation for the model: it was taught with no more media at a time.";
      read = [];
    } else if (media.length && read.length && !model.media_after_text) {
      kept = before.filter((m) => model.media_together || media.some((other) => other.kind === m.kind));
      const names = kept.length ? `, with ${kept.map((m) => m.name).join(", ")}` : "";
      note = `The model reads from here on${names}: it was not taught with media after other turns.`;
      read = [];
    }
    read.push({ media: [...kept, ...media] });
  }
  return note;
}

/** The conversation up to a turn as the API takes it, with the answers of one model. */
function messagesFor(model, last) {
  const { system } = state;
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const turn of turnsUntil(model, last)) {
    const parts = readBy(model, turn.media).map(asPart);
    if (turn.text) parts.push({ type: "text", text: turn.text });
    if (!parts.length) continue; // nothing of it is left, or can be read
    messages.push({ role: "user", content: parts });
    if (turn !== last) messages.push({ role: "assistant", content: answerOf(turn, model).text });
  }
  return messages;
}

export const newAnswer = ({ name, title }) => ({ model: name, title, text: "", state: "running" });

function requestFor(model, turn) {
  const { max_tokens, temperature, top_p, seed } = state.settings;
  return {
    model: model.name, messages: messagesFor(model, turn), temperature, top_p,
    max_tokens: Math.min(max_tokens, model.max_tokens ?? max_tokens),
    ...(seed === "" ? {} : { seed: Number(seed) }),
  };
}

/** Streams a model's answer to a turn into `answer`; calls `grown` whenever there is more of it. */
export async function answerTurn(turn, answer, model, signal, grown) {
  const start = performance.now(), since = () => (performance.now() - start) / 1000;
  let last = 0;
  answer.note = shownOfBefore(model, turn);
  try {
    const request = requestFor(model, turn);
    if (!request.messages.some((message) => message.role === "user")) {
      throw new Error("Nothing of this question can be read by this model. Add words, or choose another model.");
    }
    for await (const event of streamAnswer(model.base, request, signal)) {
      const choice = event.choices?.[0], more = choice?.delta?.content ?? "";
      if (more) {
        answer.text += more;
        last = since();
        answer.first ??= last;
      }
      answer.finish = choice?.finish_reason ?? answer.finish;
      answer.tokens = event.usage?.completion_tokens ?? answer.tokens;
      grown();
    }
    answer.state = "done";
  } catch (error) {
    answer.state = error.name === "AbortError" ? "stopped" : "failed";
    if (answer.state === "failed") answer.problem = error.message;
  }
  answer.seconds = since();
  if (answer.tokens > 1 && last > answer.first) answer.rate = (answer.tokens - 1) / (last - answer.first);
}

/** What the model saw of a turn and its answer, and the media that this tells of. */
export async function lookBack(turn, answer) {
  const model = state.models.find((m) => m.name === answer.model);
  if (!model) throw new Error(`${answer.title} is not among the models here.`);
  const messages = [...messagesFor(model, turn), { role: "assistant", content: answer.text }];
  const media = turnsUntil(model, turn).flatMap((one) => readBy(model, one.media));
  return [await postJson(`/web/models/${state.models.indexOf(model)}/saw`, { messages }), media];
}

export function transcriptOf(medium) {
  const model = used().find((m) => m.transcribes);
  const sound = new Blob([bytesOf(medium)], { type: medium.type || "audio/wav" });
  return transcribe(model.base, model.name, sound, medium.name);
}
