// The microphone to the server, and what it says onto the page.

import { srt, txt } from "./subtitles.js";

const DELAYS_MS = [...Array(15).keys()].map((i) => 80 * (i + 1)).concat(2400);
const DEFAULT_DELAY_MS = 480;
const END_PATIENCE_MS = 10_000;

const byId = (id) => document.getElementById(id);
const captions = byId("captions");

// What has been said: words with their times, and where utterances end.
let utterances = [];
let paragraph = null;
let stream = null;
let timeOffsetMs = 0;

function say(text, isWrong = false) {
  byId("state").textContent = text;
  byId("figures").classList.toggle("is-wrong", isWrong);
}

function show() {
  const isListening = stream !== null;
  byId("listen").textContent = isListening ? "Stop listening" : "Start listening";
  byId("delay").disabled = isListening;
  byId("key").disabled = isListening;
  const hasWords = utterances.some((words) => words.length > 0);
  for (const id of ["save-txt", "save-srt"]) byId(id).disabled = !hasWords;
  byId("clear").disabled = captions.childElementCount === 0;
}

function append(text) {
  const isAtEnd =
    captions.scrollHeight - captions.scrollTop - captions.clientHeight < 60;
  if (paragraph === null) {
    text = text.trimStart();
    if (text === "") return;
    paragraph = captions.appendChild(document.createElement("p"));
  }
  paragraph.append(text);
  if (isAtEnd) captions.scrollTop = captions.scrollHeight;
}

function base64(samples) {
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function base64url(text) {
  const encoded = base64(new TextEncoder().encode(text));
  return encoded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const receive = {
  "transcription.delta": (message) => append(message.delta),
  "transcription.word": ({ text, lead, start_ms, end_ms }) => {
    const word = { text, lead };
    word.start_ms = start_ms + timeOffsetMs;
    word.end_ms = end_ms + timeOffsetMs;
    utterances.at(-1).push(word);
    show();
  },
  "transcription.utterance_end": () => {
    paragraph = null;
    utterances.push([]);
  },
  "session.lag": ({ lag_ms }) => {
    byId("lag").textContent = `lag ${(lag_ms / 1000).toFixed(2)} s`;
  },
  "transcription.done": () => stream?.close("Ended"),
  error: ({ error }) => {
    stream?.close(typeof error === "string" ? error : error.message, true);
  },
};

class Stream {
  async open() {
    this.media = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false },
    });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(
      new URL("capture.js", import.meta.url),
    );
    if (this.isClosed) return this.release();
    await this.connect();
    const source = this.context.createMediaStreamSource(this.media);
    this.worklet = new AudioWorkletNode(this.context, "capture", {
      numberOfOutputs: 0,
    });
    this.worklet.port.onmessage = ({ data }) => this.hear(data);
    source.connect(this.worklet);
    this.media.getAudioTracks()[0].onended = () => this.finish();
    this.startedAt = performance.now();
    say("Listening");
  }

  connect() {
    const url = new URL("v1/realtime", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const key = byId("key").value;
    const protocols = ["realtime"];
    // Base64url: a key may have characters that no subprotocol's name has.
    if (key !== "") protocols.push(`openai-insecure-api-key.${base64url(key)}`);
    this.socket = new WebSocket(url, protocols);
    this.socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      receive[message.type]?.(message);
    };
    return new Promise((resolve, reject) => {
      this.socket.onopen = () => {
        this.send({
          type: "session.update",
          delay_ms: Number(byId("delay").value),
          rate: this.context.sampleRate,
          include: ["words", "lag"],
        });
        resolve();
      };
      this.socket.onclose = ({ reason }) => {
        const why = reason || "the server cannot be reached";
        reject(new Error(why));
        this.close(`Not connected: ${why}`, true);
      };
    });
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
    }
  }

  hear({ samples, peak }) {
    if (this.isEnding) return;
    byId("level").value = peak > 0 ? 20 * Math.log10(peak) : -60;
    this.send({ type: "input_audio_buffer.append", audio: base64(samples) });
  }

  // No more sound; the last words are still to come.
  finish() {
    if (this.isEnding) return;
    this.isEnding = true;
    this.release();
    say("Ending");
    this.send({ type: "input_audio_buffer.commit", final: true });
    this.patience = setTimeout(
      () => this.close("The server did not answer", true),
      END_PATIENCE_MS,
    );
  }

  close(text, isWrong = false) {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.patience);
    this.release();
    this.socket?.close();
    if (this.startedAt !== undefined) {
      timeOffsetMs += Math.round(performance.now() - this.startedAt);
    }
    if (stream === this) stream = null;
    receive["transcription.utterance_end"]();
    byId("lag").textContent = "";
    say(text, isWrong);
    show();
  }

  release() {
    byId("level").value = -60;
    this.media?.getTracks().forEach((track) => track.stop());
    if (this.context?.state !== "closed") this.context?.close();
  }
}

async function toggle(event) {
  event.preventDefault();
  if (stream !== null) {
    stream.finish();
    return;
  }
  const opening = new Stream();
  stream = opening;
  say("Asking for the microphone");
  show();
  try {
    await opening.open();
  } catch (error) {
    opening.close(`No sound: ${error.message}`, true);
  }
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function clear() {
  utterances = [[]];
  paragraph = null;
  captions.replaceChildren();
  if (stream === null) timeOffsetMs = 0;
  show();
}

async function start() {
  for (const ms of DELAYS_MS) {
    const option = new Option(`${ms} ms`, ms, false, ms === DEFAULT_DELAY_MS);
    byId("delay").add(option);
  }
  byId("controls").onsubmit = toggle;
  byId("clear").onclick = clear;
  byId("save-txt").onclick = () => save("captions.txt", "text/plain", txt(utterances));
  byId("save-srt").onclick = () =>
    save("captions.srt", "application/x-subrip", srt(utterances));
  clear();
  if (navigator.mediaDevices === undefined) {
    say("Browsers give the microphone to https and localhost only", true);
    byId("listen").disabled = true;
  }
  const answer = await fetch("v1/models");
  byId("key-field").hidden = answer.status !== 401;
  const health = await (await fetch("health")).json();
  byId("model").textContent = health.model;
}

start();
