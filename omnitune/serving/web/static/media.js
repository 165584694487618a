// Pictures and sounds: reading files, recording, waveforms. A medium is { kind, name, type, uri }.

import { newId } from "./dom.js";

const PICTURE = /\.(png|jpe?g|gif|webp|bmp|tiff?|avif|heic|heif)$/i;
const SOUND = /\.(wav|mp3|flac|ogg|oga|opus|m4a|aac|aiff?|webm)$/i;
const PLAIN_SOUND = {
  "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
  "audio/mpeg": "mp3", "audio/mp3": "mp3",
};

export const kindOf = (file) =>
  file.type.startsWith("image/") || PICTURE.test(file.name) ? "image"
    : file.type.startsWith("audio/") || SOUND.test(file.name) ? "audio" : "";

/**
 * A file as a medium.  What the browser cannot show or play, `ask(kind, file)` brings from the
 * server in a form that it can; the model gets the file as it is.  A sound that is neither WAV nor
 * MP3 but can be played here becomes WAV, which every server reads.
 */
export async function readFile(file, ask) {
  const kind = kindOf(file), name = file.name || `pasted ${kind}`;
  if (!file.size) throw new Error(`${name} is empty.`);
  let shown;
  try {
    if (kind === "image") (await createImageBitmap(file)).close();
    else {
      const sound = await audio().decodeAudioData(await file.arrayBuffer());
      if (!soundFormat(file)) return await wavOf(sound, name);
    }
  } catch {
    try {
      shown = await toUri(await ask(kind, file));
    } catch (error) {
      throw new Error(error.message.replace(/^the file\b:?/, `${name}:`).replace("::", ":"));
    }
  }
  const type = file.type || `${kind}/${name.slice(name.lastIndexOf(".") + 1).toLowerCase().replace(/\W/g, "")}`;
  const uri = (await toUri(file)).replace(/^data:[^,]*,/, `data:${type.split(";")[0]};base64,`);
  return { id: newId(), kind, name, type, uri, ...(shown ? { shown } : {}) };
}

const toUri = (blob) => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(new Error("The file cannot be read. Was it moved?"));
  reader.readAsDataURL(blob);
});

const soundFormat = ({ name, type }) =>
  PLAIN_SOUND[type] ?? (/\.wav$/i.test(name) ? "wav" : /\.mp3$/i.test(name) ? "mp3" : "");

/** A medium as a content part of the API. */
export function asPart(medium) {
  if (medium.kind === "image") return { type: "image_url", image_url: { url: medium.uri } };
  const data = medium.uri.slice(medium.uri.indexOf(",") + 1);
  return { type: "input_audio", input_audio: { data, format: soundFormat(medium) || "wav" } };
}

export const bytesOf = (medium) => fromUri(medium.uri);

function fromUri(uri) {
  const text = atob(uri.slice(uri.indexOf(",") + 1));
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

let context;
const audio = () => (context ??= new AudioContext());

/** Decoded sound as a WAV medium: mono, 16 bits. */
async function wavOf(buffer, name) {
  const mono = new Float32Array(buffer.length);
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    buffer.getChannelData(c).forEach((value, n) => { mono[n] += value / buffer.numberOfChannels; });
  }
  return encodeWav(mono, buffer.sampleRate, name);
}

async function encodeWav(samples, rate, name) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (place, text) => [...text].forEach((c, n) => view.setUint8(place + n, c.charCodeAt(0)));
  const bytes = 2 * samples.length;
  word(0, "RIFF"); view.setUint32(4, 36 + bytes, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true); // PCM, mono
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, bytes, true);
  samples.forEach((value, n) => {
    view.setInt16(44 + 2 * n, Math.max(-1, Math.min(1, value)) * 32767, true);
  });
  const uri = await toUri(new Blob([view], { type: "audio/wav" }));
  return { id: newId(), kind: "audio", name: `${name.replace(/\.\w+$/, "")}.wav`, type: "audio/wav", uri };
}

/** Records from the microphone; returns a function that ends it and gives the sound. */
export async function record(onLevel) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("No microphone here: the browser gives one to localhost and https pages only.");
  }
  let source;
  try {
    source = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    throw new Error(error.name === "NotAllowedError"
      ? "The browser does not allow the microphone; allow it beside the address."
      : "No microphone was found.");
  }
  await audio().resume();
  await audio().audioWorklet.addModule("recorder.js");
  const input = audio().createMediaStreamSource(source);
  const tap = new AudioWorkletNode(audio(), "recorder");
  const pieces = [];
  tap.port.onmessage = ({ data }) => {
    pieces.push(data);
    onLevel(pieces.length * data.length / audio().sampleRate);
  };
  input.connect(tap);
  return async () => {
    source.getTracks().forEach((track) => track.stop());
    input.disconnect();
    const all = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    pieces.reduce((place, piece) => { all.set(piece, place); return place + piece.length; }, 0);
    if (!all.length) throw new Error("Nothing was recorded.");
    return encodeWav(all, audio().sampleRate, "recording.wav");
  };
}

/** The loudest moment of each of `count` stretches of a sound, from 0 to 1, and its seconds. */
export async function peaksOf(medium, count) {
  const buffer = await audio().decodeAudioData(fromUri(medium.shown ?? medium.uri).buffer);
  const wave = buffer.getChannelData(0), peaks = new Float32Array(count);
  for (let n = 0; n < wave.length; n++) {
    const at = Math.min(count - 1, Math.floor(n * count / wave.length));
    peaks[at] = Math.max(peaks[at], Math.abs(wave[n]));
  }
  const loudest = Math.max(1e-4, ...peaks);
  return { peaks: Array.from(peaks, (peak) => peak / loudest), seconds: buffer.duration };
}

/** Draws peaks as bars.  `shade(n)` gives each bar's opacity. */
export function drawWave(canvas, peaks, shade) {
  const scale = devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  if (!box.width) return;
  canvas.width = box.width * scale; canvas.height = box.height * scale;
  const pen = canvas.getContext("2d"), step = canvas.width / peaks.length;
  pen.fillStyle = getComputedStyle(canvas).color;
  peaks.forEach((peak, n) => {
    const height = Math.max(2 * scale, peak * canvas.height * 0.94);
    pen.globalAlpha = shade ? shade(n) : 1;
    pen.beginPath();
    pen.roundRect(n * step + step * 0.17, (canvas.height - height) / 2, step * 0.66, height, step / 3);
    pen.fill();
  });
}
