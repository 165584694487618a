// Talks to the server: JSON, streamed answers, transcripts.

let key = "";
export const useKey = (value) => { key = value.trim(); };

const headers = (more = {}) => ({ ...(key ? { Authorization: `Bearer ${key}` } : {}), ...more });

/** What the server says is wrong, in one sentence. */
async function refusal(response) {
  const text = await response.text();
  let said = "";
  try {
    const body = JSON.parse(text);
    said = body.error?.message ?? (typeof body.detail === "string" ? body.detail : "");
  } catch { /* not JSON */ }
  if (!said && response.status === 413) said = "This is more than the server takes at once.";
  return new Error(said || `The server answered ${response.status}.`);
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is omnitune web still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export const getJson = async (path) => (await call(path, { headers: headers() })).json();

export const postJson = async (path, body, signal) =>
  (await call(path, {
    method: "POST", signal, body: JSON.stringify(body),
    headers: headers({ "Content-Type": "application/json" }),
  })).json();

/** Yields the events of a streamed answer, parsed. */
export async function* streamAnswer(base, request, signal) {
  const response = await call(`${base}/chat/completions`, {
    method: "POST", signal, headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const broken = () => new Error("The answer broke off: the server has stopped, or the connection to it.");
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : broken();
    });
    const lines = (rest + (value ?? "")).split(/\r?\n/);
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message ?? "The answer broke off.");
      yield event;
    }
    if (done) throw broken(); // a whole answer ends with [DONE]
  }
}

/** A medium in a form that every browser shows, as a blob. */
export async function inShownForm(kind, file, signal) {
  const kinds = headers({ "Content-Type": "application/octet-stream" });
  return (await call(`/web/shown/${kind}`, { method: "POST", body: file, headers: kinds, signal })).blob();
}

export async function transcribe(base, model, blob, name, signal) {
  const form = new FormData();
  form.append("file", blob, name);
  form.append("model", model);
  form.append("response_format", "json");
  const response = await call(`${base}/audio/transcriptions`, {
    method: "POST", body: form, headers: headers(), signal,
  });
  return (await response.json()).text;
}
