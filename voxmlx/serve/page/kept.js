// What this browser keeps: captions and choices, in bounds, until they are cleared.
// A browser that keeps nothing (private windows, a full disk) is no reason to stop.

const CHOICES = "voxmlx.choices";
const BLOCK = "voxmlx.said.";
const MAX_CHARS = 2_000_000;
const SAVE_MS = 500;

let choices = read(CHOICES, {});
const waiting = new Map();
let timer = null;

function read(key, nothing) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? nothing;
  } catch {
    return nothing;
  }
}

function blockKeys() {
  try {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(BLOCK))
      .sort();
  } catch {
    return [];
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function remove(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // Nothing was kept.
  }
}

export function choice(name) {
  return choices[name];
}

export function choose(name, value) {
  // Another page may have chosen meanwhile.
  choices = { ...read(CHOICES, {}), [name]: value };
  write(CHOICES, choices);
}

const isWord = ([lead, text, startMs, endMs]) =>
  typeof lead + typeof text === "stringstring" &&
  Number.isFinite(startMs) &&
  Number.isFinite(endMs);

// Blocks in order; what is no block of ours is left out.
export function blocks() {
  return blockKeys().flatMap((key) => {
    const kept = read(key, null);
    if (!Array.isArray(kept?.words) || !kept.words.every((one) => Array.isArray(one) && isWord(one))) return [];
    const words = kept.words.map(([lead, text, start_ms, end_ms]) => ({ lead, text, start_ms, end_ms }));
    const note = typeof kept.note === "string" ? kept.note : undefined;
    return words.length > 0 || note !== undefined ? [{ id: key.slice(BLOCK.length), words, note }] : [];
  });
}

// Soon, so that a block that grows by a word is not written for each.
export function keepBlock(block) {
  waiting.set(block.id, block);
  timer ??= setTimeout(flush, SAVE_MS);
}

export function flush() {
  clearTimeout(timer);
  timer = null;
  for (const [id, { words, note }] of waiting) {
    const rows = words.map(({ lead, text, start_ms, end_ms }) => [lead, text, start_ms, end_ms]);
    const value = { words: rows, note };
    if (!write(BLOCK + id, value)) {
      trim(MAX_CHARS / 2);
      write(BLOCK + id, value);
    }
  }
  waiting.clear();
  trim(MAX_CHARS);
}

// The oldest blocks go, whichever page they are of.
function trim(maxChars) {
  const keys = blockKeys();
  const lengths = keys.map((key) => key.length + (localStorage.getItem(key)?.length ?? 0));
  let nChars = lengths.reduce((sum, one) => sum + one, 0);
  for (let i = 0; nChars > maxChars && i < keys.length; i++) {
    remove(keys[i]);
    nChars -= lengths[i];
  }
}

export function dropBlock(id) {
  waiting.delete(id);
  remove(BLOCK + id);
}

export function clearBlocks() {
  waiting.clear();
  blockKeys().forEach(remove);
}
