// Shows the latest captions, and comes back by itself when they were away.

import { applyLook, readLook } from "./look.js";

const AGAIN_MS = 2000;
const STALE_MS = 10_000; // captions of a program that has gone are taken down

const captions = document.getElementById("captions");
const said = document.getElementById("said").appendChild(document.createTextNode(""));
const draft = document.getElementById("draft");

const { values, wrong } = readLook(location.search);
applyLook(document.documentElement, values);
for (const sentence of wrong) console.warn(sentence);

let quietTimer = null;
let staleTimer = null;

// What only grows is added to, so that screen readers speak the new words alone.
function show(text, draftText) {
  const isNew = text !== said.data || draftText !== draft.textContent;
  if (text.startsWith(said.data)) said.appendData(text.slice(said.length));
  else said.data = text;
  if (draft.textContent !== draftText) draft.textContent = draftText;
  if (!isNew) return;
  captions.classList.remove("is-quiet");
  clearTimeout(quietTimer);
  if (values.hide > 0) {
    quietTimer = setTimeout(() => captions.classList.add("is-quiet"), 1000 * values.hide);
  }
}

function follow() {
  const source = new EventSource("events");
  source.onmessage = ({ data }) => {
    clearTimeout(staleTimer);
    staleTimer = null;
    const message = JSON.parse(data);
    show(message.text, message.draft);
  };
  source.onerror = () => {
    staleTimer ??= setTimeout(() => show("", ""), STALE_MS);
    // A browser tries again by itself, but for an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MS);
  };
}

follow();
