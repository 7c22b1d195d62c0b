// Files to the server, one after the other, and their words back.

import { address, keyHeaders, messageIn, trouble, unreachable } from "./server.js";

const FIRST_WAIT_MS = 1000;
const MAX_WAIT_MS = 15_000;
const MAX_FILES = 100;

export class Files {
  // `on` has key, say, progress (0 to 1, or null while the server transcribes, or
  // undefined once nothing is sent) and transcribed.
  constructor(on) {
    this.on = on;
    this.waiting = [];
    this.isBusy = false;
  }

  async add(files) {
    this.waiting.push(...[...files].slice(0, MAX_FILES - this.waiting.length));
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.waiting.length > 0) await this.#transcribe(this.waiting.shift());
    this.isBusy = false;
    this.on.progress(undefined);
  }

  cancel() {
    this.waiting = [];
    this.isCancelled = true;
    this.request?.abort();
    this.wake?.();
  }

  async #transcribe(file) {
    this.isCancelled = false;
    let waitMs = FIRST_WAIT_MS;
    for (;;) {
      this.on.say(`Sending ${file.name}`);
      const { status, text } = await this.#send(file);
      if (this.isCancelled) {
        this.on.say(`${file.name} was cancelled`);
        return;
      }
      if (status === 200) {
        this.#take(file, text);
        return;
      }
      const said = status === 0 ? unreachable() : trouble(status, messageIn(text));
      if (!said.mayReturn) {
        this.on.say(`${file.name}: ${said.text}`, { isWrong: true, isKey: said.isKey });
        return;
      }
      this.on.say(`${said.text}. ${file.name} waits`, { isWrong: true });
      await this.#wait(waitMs);
      waitMs = Math.min(2 * waitMs, MAX_WAIT_MS);
    }
  }

  #wait(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #send(file) {
    const form = new FormData();
    form.append("response_format", "verbose_json");
    form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    this.request = request;
    request.open("POST", address("v1/audio/transcriptions"));
    for (const [name, value] of Object.entries(keyHeaders(this.on.key()))) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => this.on.progress(loaded / total);
    request.upload.onload = () => {
      this.on.progress(null);
      this.on.say(`The server transcribes ${file.name}`);
    };
    this.on.progress(0);
    return new Promise((resolve) => {
      request.onloadend = () => {
        resolve({ status: request.status, text: request.responseText });
      };
      request.send(form);
    });
  }

  #take(file, text) {
    try {
      const { words, segments, text: whole, duration } = JSON.parse(text);
      this.on.transcribed(file.name, utterancesOf(words, segments, whole), 1000 * duration);
      this.on.say(`${file.name} is transcribed`);
    } catch {
      this.on.say(`${file.name}: the server's answer is not understood`, { isWrong: true });
    }
  }
}

// Words with what stands before each in the text, in the server's segments.
export function utterancesOf(words, segments, text) {
  const utterances = [];
  let at = 0;
  let nSegments = 0;
  for (const { word, start, end } of words) {
    const place = text.indexOf(word, at);
    const lead = place < 0 ? " " : text.slice(at, place);
    at = place < 0 ? at : place + word.length;
    while (nSegments < segments.length && start >= segments[nSegments].start) {
      utterances.push([]);
      nSegments++;
    }
    if (utterances.length === 0) utterances.push([]);
    const times = { start_ms: Math.round(1000 * start), end_ms: Math.round(1000 * end) };
    utterances.at(-1).push({ text: word, lead, ...times });
  }
  return utterances.filter((one) => one.length > 0);
}
