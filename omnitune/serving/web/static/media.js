// Pictures and sounds: reading files, recording, waveforms. A medium is { kind, name, type, uri }.

const PICTURE = /\.(png|jpe?g|gif|webp|bmp|tiff?|avif|heic|heif)$/i;
const SOUND = /\.(wav|mp3|flac|ogg|oga|opus|m4a|aac|webm)$/i;
const PLAIN_SOUND = { "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3" };

export const kindOf = (file) =>
  file.type.startsWith("image/") || PICTURE.test(file.name) ? "image"
    : file.type.startsWith("audio/") || SOUND.test(file.name) ? "audio" : "";

/** A file as a medium.  A sound that is neither WAV nor MP3 becomes WAV, which every server reads. */
export async function readFile(file) {
  const kind = kindOf(file);
  if (kind === "audio" && !soundFormat(file)) {
    return wavOf(await decode(await file.arrayBuffer(), file.name), file.name);
  }
  return { kind, name: file.name || `pasted ${kind}`, type: file.type, uri: await toUri(file) };
}

const toUri = (blob) => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(new Error("The file cannot be read."));
  reader.readAsDataURL(blob);
});

const soundFormat = (file) =>
  PLAIN_SOUND[file.type] ?? (/\.wav$/i.test(file.name) ? "wav" : /\.mp3$/i.test(file.name) ? "mp3" : "");

/** A medium as a content part of the API. */
export function asPart(medium) {
  if (medium.kind === "image") return { type: "image_url", image_url: { url: medium.uri } };
  const format = soundFormat(medium) || "wav";
  return { type: "input_audio", input_audio: { data: medium.uri.slice(medium.uri.indexOf(",") + 1), format } };
}

export function bytesOf(medium) {
  const text = atob(medium.uri.slice(medium.uri.indexOf(",") + 1));
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

let context;
const audio = () => (context ??= new AudioContext());

async function decode(buffer, name) {
  try {
    return await audio().decodeAudioData(buffer);
  } catch {
    throw new Error(`${name || "This sound"} cannot be played here; save it as WAV or MP3.`);
  }
}

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
  word(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, n) => view.setInt16(44 + 2 * n, Math.max(-1, Math.min(1, value)) * 32767, true));
  const uri = await toUri(new Blob([view], { type: "audio/wav" }));
  return { kind: "audio", name: `${name.replace(/\.\w+$/, "")}.wav`, type: "audio/wav", uri };
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
  const buffer = await decode(bytesOf(medium).buffer, medium.name);
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
