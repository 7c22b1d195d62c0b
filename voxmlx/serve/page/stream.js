// The microphone to the server, and its words back, however often the way breaks off.
//
// States: listening, away (the microphone is heard, and kept, while the server is tried
// again), ending (no more sound, the last words are to come), closed.
// Sound is kept from the restart point on: the last pause, or word of a long utterance.
// The utterance after it is withdrawn when the connection breaks, and heard again.

import { address, base64, diagnosis, keyProtocol } from "./server.js";

const END_PATIENCE_MS = 10_000;
const OPEN_PATIENCE_MS = 10_000;
// A live server says every second how far it lags.
const SILENCE_MS = 20_000;
const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 10_000;
const MAX_KEPT_MS = 120_000; // 11 MB at 48 kHz
const LAG_MARGIN_MS = 20_000;
const MESSAGE_MS = 1000;
const DRAFT_DELAYS_MS = [160, 80]; // the first that is shorter than the delay
const PASSING = ["at_capacity", "idle", "server_error", "shutting_down", "unavailable"];

export class Stream {
  // `captions` are told what is said, `on` has say, show, lag, level, closed.
  constructor({ captions, on, key, delayMs, hasDraft, baseMs }) {
    Object.assign(this, { captions, on, key, delayMs, hasDraft, baseMs });
    this.kept = []; // { startMs, samples }, in order, from the restart point on
    this.heardMs = this.restartMs = this.missedMs = 0;
    this.nAttempts = 0;
    this.isClosed = this.isEnding = false;
  }

  async open(deviceId) {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    this.worklet = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.worklet.port.onmessage = ({ data }) => this.#hear(data);
    await this.listenTo(deviceId);
    if (this.isClosed) return;
    this.tryNow = () => this.#connectNow();
    addEventListener("online", this.tryNow);
    this.watch = setInterval(() => this.#watch(), 1000);
    await this.#connect();
  }

  // Hear this microphone from now on; the default one for "".
  async listenTo(deviceId) {
    const wanted = { echoCancellation: false, noiseSuppression: false };
    if (deviceId) wanted.deviceId = { exact: deviceId };
    const media = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    if (this.isClosed || this.isEnding) {
      media.getTracks().forEach((track) => track.stop());
      this.#release();
      return;
    }
    this.#mute();
    this.media = media;
    this.source = this.context.createMediaStreamSource(media);
    this.source.connect(this.worklet);
    media.getAudioTracks()[0].onended = () => this.#lostMicrophone();
  }

  async #lostMicrophone() {
    this.on.say("The microphone is gone; trying the default one", true);
    try {
      await this.listenTo("");
      this.on.say("Listening to the default microphone");
    } catch {
      this.finish();
    }
  }

  // ---- The connection.

  async #connect() {
    if (this.isClosed || this.socket !== undefined) return;
    clearTimeout(this.retry);
    const url = address("v1/realtime");
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = ["realtime"];
    if (this.key !== "") protocols.push(keyProtocol(this.key));
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    this.refusal = null;
    this.isTold = this.isCut = false;
    const patience = setTimeout(() => this.#lose(socket), OPEN_PATIENCE_MS);
    socket.onmessage = ({ data }) => {
      this.spokeMs = this.sentMs;
      if (this.isEnding) this.#expect();
      if (socket === this.socket) this.#receive(JSON.parse(data), patience);
    };
    socket.onclose = () => {
      clearTimeout(patience);
      this.#lose(socket);
    };
  }

  #connectNow() {
    if (this.socket === undefined) this.#connect();
  }

  // The server has greeted us: there is a place, or an error says that there is none.
  #begin() {
    const isAgain = this.awaySince !== undefined;
    if (this.kept[0]?.startMs > this.restartMs + 100) this.captions.end();
    else this.captions.withdraw();
    this.sentMs = this.#restart();
    this.streamMs = this.spokeMs = this.sentMs;
    const draftMs = DRAFT_DELAYS_MS.find((ms) => ms < this.delayMs);
    this.#send({
      type: "session.update",
      delay_ms: this.delayMs,
      rate: this.context.sampleRate,
      include: ["words", "lag"],
      ...(this.hasDraft && draftMs !== undefined && { draft_delay_ms: draftMs }),
    });
    this.isReady = true;
    this.#sendKept();
    if (this.isEnding) this.#sendEnd();
    else if (isAgain) {
      const awayS = Math.round((performance.now() - this.awaySince) / 1000);
      this.on.say(`Listening again after ${awayS} s; ${this.#missed()}`);
    } else this.on.say("Listening");
    this.awaySince = undefined;
    this.missedMs = 0;
  }

  #missed() {
    const seconds = Math.round(this.missedMs / 1000);
    if (seconds === 0) return "nothing was missed";
    this.captions.note(`[${seconds} s were not heard]`);
    return `${seconds} s were missed`;
  }

  async #lose(socket) {
    if (socket !== this.socket || this.isClosed) return;
    this.socket = undefined;
    this.isReady = false;
    socket.onclose = socket.onmessage = null;
    socket.close();
    this.on.lag("");
    this.captions.draft("");
    this.awaySince ??= performance.now();
    const said = this.refusal ?? (await diagnosis(this.key));
    if (this.isClosed || this.socket !== undefined) return;
    const { text, mayReturn = true, isKey = false } = said ?? {
      text: "The connection was lost",
    };
    if (!mayReturn) {
      this.close(text, { isWrong: true, isKey });
      return;
    }
    if (this.isTold) this.nAttempts = 0;
    const waitMs = Math.min(FIRST_WAIT_MS * 2 ** this.nAttempts++, MAX_WAIT_MS);
    const seconds = Math.max(1, Math.round(waitMs / 1000));
    this.on.say(`${text}. Trying again in ${seconds} s; the microphone is still heard`, true);
    this.retry = setTimeout(() => this.#connect(), waitMs * (0.8 + 0.4 * Math.random()));
  }

  // A connection over which nothing comes, as after a change of network.
  #watch() {
    if (this.isReady && this.sentMs - this.spokeMs > SILENCE_MS) this.#lose(this.socket);
  }

  #send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
    }
  }

  // ---- Sound.

  #hear({ samples, peak }) {
    if (this.isEnding || this.isClosed) return;
    this.on.level(peak > 0 ? 20 * Math.log10(peak) : -60);
    this.kept.push({ startMs: this.heardMs, samples });
    this.heardMs += (1000 * samples.length) / this.context.sampleRate;
    while (this.heardMs - this.kept[0].startMs > MAX_KEPT_MS) this.kept.shift();
    this.#sendKept();
  }

  #sendKept() {
    if (!this.isReady) return;
    let block;
    while ((block = this.#nextBlock()) !== null) {
      this.#send({ type: "input_audio_buffer.append", audio: base64(block) });
    }
  }

  // The bytes of up to a second that is still to be sent.
  #nextBlock() {
    const first = this.kept.findLastIndex(({ startMs }) => startMs < this.sentMs - 0.01) + 1;
    if (first === this.kept.length) return null;
    const { startMs } = this.kept[first];
    let last = first;
    while (last < this.kept.length && this.kept[last].startMs < startMs + MESSAGE_MS) last++;
    const parts = this.kept.slice(first, last).map(({ samples }) => samples);
    const joined = new Int16Array(parts.reduce((n, { length }) => n + length, 0));
    let at = 0;
    for (const part of parts) {
      joined.set(part, at);
      at += part.length;
    }
    this.sentMs = startMs + (1000 * joined.length) / this.context.sampleRate;
    return new Uint8Array(joined.buffer);
  }

  // Where the next stream begins; what is older than the kept sound was missed.
  #restart() {
    const oldestMs = this.kept[0]?.startMs ?? this.heardMs;
    if (oldestMs > this.restartMs + 100) this.missedMs += oldestMs - this.restartMs;
    this.restartMs = Math.max(this.restartMs, oldestMs);
    const first = this.kept.findLast(({ startMs }) => startMs <= this.restartMs);
    return first?.startMs ?? oldestMs;
  }

  // Nothing before this time need be heard again.
  #certain(ms) {
    this.restartMs = Math.max(this.restartMs, Math.min(ms, this.heardMs));
    while (this.kept.length > 1 && this.kept[1].startMs <= this.restartMs) this.kept.shift();
  }

  // ---- Messages.

  #receive(message, patience) {
    switch (message.type) {
      case "session.created":
        clearTimeout(patience);
        this.#begin();
        break;
      case "session.ending": // words may be cut from here on; they are heard again
        this.isCut = true;
        break;
      case "session.lag":
        this.isTold = true;
        this.on.lag(`lag ${(message.lag_ms / 1000).toFixed(2)} s`);
        if (this.captions.open === null) {
          this.#certain(this.sentMs - message.lag_ms - LAG_MARGIN_MS);
        }
        break;
      case "error":
        this.#refuse(message);
        break;
      case "transcription.done":
        if (this.isEnding && !this.isCut) this.close("Ended");
        else this.#lose(this.socket);
        break;
      default:
        if (!this.isCut) this.#caption(message);
    }
  }

  #caption(message) {
    const { type, text, lead, start_ms, end_ms } = message;
    const shiftMs = this.baseMs + this.streamMs;
    if (type === "transcription.delta") this.captions.delta(message.delta);
    else if (type === "transcription.draft") this.captions.draft(text);
    else if (type === "transcription.word") {
      this.isTold = true;
      const times = { start_ms: shiftMs + start_ms, end_ms: shiftMs + end_ms };
      const splitMs = this.captions.word({ text, lead, ...rounded(times) });
      if (splitMs !== null) this.#certain(splitMs - this.baseMs);
    } else if (type === "transcription.utterance_end") {
      const { drafted } = this.captions;
      this.captions.end();
      this.captions.draft(drafted); // it is of the next utterance
      this.#certain(this.streamMs + (end_ms + message.time_ms) / 2);
    }
  }

  #refuse({ error, code }) {
    const text = typeof error === "string" ? error : error.message;
    const mayReturn = PASSING.includes(code ?? error.code);
    this.refusal = { text: `The server says: ${text}`, mayReturn };
    this.#lose(this.socket);
  }

  // ---- The end.

  // No more sound; the last words are still to come.
  finish() {
    if (this.isEnding) return;
    if (this.socket === undefined && this.awaySince === undefined) {
      this.close("Ended"); // it had not begun
      return;
    }
    this.isEnding = true;
    this.#release();
    this.on.say("Ending");
    if (this.isReady) this.#sendEnd();
    this.#expect();
  }

  // An end, or news, within a while.
  #expect() {
    clearTimeout(this.patience);
    this.patience = setTimeout(() => {
      const unheardS = Math.round((this.heardMs - this.restartMs) / 1000);
      const isAway = this.socket === undefined;
      if (isAway) this.captions.note(`[${unheardS} s were not heard]`);
      this.close("The server did not answer", { isWrong: true });
    }, END_PATIENCE_MS);
  }

  #sendEnd() {
    this.#send({ type: "input_audio_buffer.commit", final: true });
  }

  close(text, { isWrong = false, isKey = false } = {}) {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.patience);
    clearTimeout(this.retry);
    clearInterval(this.watch);
    removeEventListener("online", this.tryNow);
    this.#release();
    const { socket } = this;
    this.socket = undefined;
    socket?.close();
    this.kept = [];
    this.captions.end();
    this.on.lag("");
    this.on.closed(this, text, { isWrong, isKey });
  }

  #mute() {
    this.source?.disconnect();
    this.media?.getTracks().forEach((track) => {
      track.onended = null;
      track.stop();
    });
  }

  #release() {
    this.on.level(-60);
    this.#mute();
    if (this.context !== undefined && this.context.state !== "closed") this.context.close();
  }
}

function rounded({ start_ms, end_ms }) {
  return { start_ms: Math.round(start_ms), end_ms: Math.round(end_ms) };
}
