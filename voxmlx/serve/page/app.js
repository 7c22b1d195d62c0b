// The page: what a person does and sees, and what does it.

import { Captions } from "./captions.js";
import { Files } from "./files.js";
import { blocks, choice, choose, clearBlocks, dropBlock, flush, keepBlock } from "./kept.js";
import { address, diagnosis } from "./server.js";
import { Stream } from "./stream.js";
import { srt, txt, vtt } from "./subtitles.js";

const DELAYS_MS = [...Array(15).keys()].map((i) => 80 * (i + 1)).concat(2400);
const DEFAULT_DELAY_MS = 480;
const SIZES = [60, 80, 100, 125, 150, 200, 250, 300];
const LANGUAGES = {
  ar: "العربية", de: "Deutsch", en: "English", es: "Español", fr: "Français",
  hi: "हिन्दी", it: "Italiano", ja: "日本語", ko: "한국어", nl: "Nederlands",
  pt: "Português", ru: "Русский", zh: "中文",
};
const KINDS = {
  txt: ["text/plain", txt],
  srt: ["application/x-subrip", srt],
  vtt: ["text/vtt", vtt],
};

const byId = (id) => document.getElementById(id);

let stream = null;
let timelineMs = 0; // where the next sound begins

const captions = new Captions(byId("captions"), {
  keep: keepBlock,
  drop: dropBlock,
  change: show,
});

const files = new Files({
  key: () => byId("key").value,
  say: (text, { isWrong = false, isKey = false } = {}) => {
    say(text, isWrong);
    if (isKey) askForKey();
  },
  progress: showProgress,
  transcribed: showFile,
});

function say(text, isWrong = false) {
  byId("state").textContent = text;
  byId("figures").classList.toggle("is-wrong", isWrong);
}

function show() {
  const isListening = stream !== null;
  byId("listen").textContent = isListening ? "Stop listening" : "Start listening";
  byId("delay").disabled = isListening;
  byId("draft").disabled = isListening;
  byId("key").disabled = isListening;
  const hasWords = captions.nChars > 0;
  for (const kind of Object.keys(KINDS)) byId(`save-${kind}`).disabled = !hasWords;
  byId("copy").disabled = !hasWords;
  byId("clear").disabled = captions.blocks.length === 0;
}

function askForKey() {
  byId("key-field").hidden = false;
  byId("key").focus();
}

// ---- The microphone.

async function toggle(event) {
  event.preventDefault();
  if (stream !== null) {
    stream.finish();
    return;
  }
  timelineMs = Math.max(timelineMs, captions.endMs);
  const opening = new Stream({
    captions,
    key: byId("key").value,
    delayMs: Number(byId("delay").value),
    hasDraft: byId("draft").checked,
    baseMs: timelineMs,
    on: {
      say,
      lag: (text) => (byId("lag").textContent = text),
      level: (db) => (byId("level").value = db),
      closed,
    },
  });
  stream = opening;
  say("Asking for the microphone");
  show();
  try {
    await opening.open(byId("microphone").value);
    listMicrophones(); // they have names now
  } catch (error) {
    opening.close(`No sound: ${error.message}`, { isWrong: true });
  }
}

function closed(ended, text, { isWrong, isKey }) {
  timelineMs = ended.baseMs + Math.round(ended.heardMs);
  if (stream === ended) stream = null;
  say(text, isWrong);
  show();
  if (isKey) askForKey();
}

async function listMicrophones() {
  const wanted = choice("microphone") ?? "";
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const found = devices.filter(
    ({ kind, deviceId }) => kind === "audioinput" && !["", "default"].includes(deviceId),
  );
  const options = found.map(
    ({ deviceId, label }, i) => new Option(label || `Microphone ${i + 1}`, deviceId),
  );
  byId("microphone").replaceChildren(new Option("Default microphone", ""), ...options);
  byId("microphone").value = found.some(({ deviceId }) => deviceId === wanted) ? wanted : "";
}

async function chooseMicrophone() {
  const { value } = byId("microphone");
  choose("microphone", value);
  try {
    await stream?.listenTo(value);
  } catch (error) {
    say(`No sound of that microphone: ${error.message}`, true);
  }
}

// ---- Files.

function showProgress(part) {
  byId("sending").hidden = part === undefined;
  if (part === null) byId("sent").removeAttribute("value");
  else if (part !== undefined) byId("sent").value = part;
}

function showFile(name, utterances, durationMs) {
  if (stream === null) timelineMs = Math.max(timelineMs, captions.endMs);
  captions.note(name);
  for (const words of utterances) {
    const later = words.map((word) => ({
      ...word,
      start_ms: word.start_ms + timelineMs,
      end_ms: word.end_ms + timelineMs,
    }));
    captions.utterance(later);
  }
  if (utterances.length === 0) captions.note("[no words]");
  if (stream === null) timelineMs += Math.round(durationMs || 0);
}

function acceptDrops() {
  const mark = (isOver) => document.body.classList.toggle("is-drop", isOver);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? mark(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    files.add(event.dataTransfer.files);
  });
  byId("file").onchange = () => {
    files.add(byId("file").files);
    byId("file").value = "";
    byId("more").open = false;
  };
  byId("cancel").onclick = () => files.cancel();
}

// ---- Captions to take away.

function save(kind) {
  const [type, write] = KINDS[kind];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(captions.utterances)], { type }));
  link.download = `captions.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy() {
  const text = txt(captions.utterances);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without encryption there is no clipboard but the selection's.
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    byId("copy").focus();
    if (!isDone) {
      say("The browser does not let the page copy", true);
      return;
    }
  }
  say("Copied");
}

function clear() {
  clearBlocks();
  captions.clear();
  if (stream === null) timelineMs = 0;
}

// ---- How they look.

function resize(step) {
  const at = Math.max(0, SIZES.indexOf(choice("size") ?? 100));
  const size = SIZES[Math.min(SIZES.length - 1, Math.max(0, at + step))];
  if (step !== 0) choose("size", size);
  byId("size").textContent = `${size} %`;
  document.documentElement.style.setProperty("--size", size / 100);
}

function speakIn(language) {
  byId("captions").lang = language;
  byId("language").value = language;
}

// A telephone without full screen gets the window alone.
function setStage(isStage) {
  document.body.classList.toggle("is-stage", isStage);
  byId("stage").ariaPressed = String(isStage);
  byId("stage").textContent = isStage ? "Leave full screen" : "Full screen";
  byId("more").open = false;
  if (isStage) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement !== null) document.exitFullscreen?.();
  byId("captions").scrollTop = byId("captions").scrollHeight;
}

function closeMenu({ target }) {
  if (!byId("more").contains(target)) byId("more").open = false;
}

function onKey({ key }) {
  if (key !== "Escape") return;
  if (byId("more").open) {
    byId("more").open = false;
    byId("more").firstElementChild.focus();
  } else setStage(false);
}

async function start() {
  for (const ms of DELAYS_MS) byId("delay").add(new Option(`${ms} ms`, ms));
  const delayMs = choice("delay");
  byId("delay").value = DELAYS_MS.includes(delayMs) ? delayMs : DEFAULT_DELAY_MS;
  byId("draft").checked = choice("draft") !== false;
  for (const [code, name] of Object.entries(LANGUAGES)) {
    byId("language").add(new Option(name, code));
  }
  const spoken = choice("language") ?? navigator.language.split("-")[0];
  speakIn(spoken in LANGUAGES ? spoken : "en");
  resize(0);

  byId("controls").onsubmit = toggle;
  byId("delay").onchange = () => choose("delay", Number(byId("delay").value));
  byId("draft").onchange = () => choose("draft", byId("draft").checked);
  byId("microphone").onchange = chooseMicrophone;
  byId("language").onchange = ({ target }) => {
    choose("language", target.value);
    speakIn(target.value);
  };
  byId("smaller").onclick = () => resize(-1);
  byId("larger").onclick = () => resize(1);
  byId("stage").onclick = () => setStage(!document.body.classList.contains("is-stage"));
  byId("copy").onclick = copy;
  byId("clear").onclick = clear;
  for (const kind of Object.keys(KINDS)) byId(`save-${kind}`).onclick = () => save(kind);
  document.onfullscreenchange = () => {
    if (document.fullscreenElement === null) setStage(false);
  };
  addEventListener("keydown", onKey);
  addEventListener("pointerdown", closeMenu);
  addEventListener("pagehide", () => {
    captions.end(); // what is shown is kept
    flush();
  });
  acceptDrops();
  captions.restore(blocks());

  if (navigator.mediaDevices === undefined) {
    say("Browsers give the microphone to https and localhost only", true);
    byId("listen").disabled = true;
  } else {
    navigator.mediaDevices.addEventListener("devicechange", listMicrophones);
    await listMicrophones();
  }
  const said = await diagnosis("");
  if (said?.isKey) byId("key-field").hidden = false;
  else if (said !== null) say(said.text, true);
  if (said?.isKey || said === null) {
    const health = await (await fetch(address("health"))).json();
    byId("model").textContent = health.model;
  }
}

start();
