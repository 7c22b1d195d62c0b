// Words with their times -> files to keep.

const MAX_LINE_CHARS = 42;
const MAX_CUE_CHARS = 2 * MAX_LINE_CHARS;
const MAX_CUE_MS = 7000;

const joined = (words) => words.map(({ lead, text }) => lead + text).join("").trim();

export function txt(utterances) {
  const lines = utterances.filter((words) => words.length > 0).map(joined);
  return lines.map((line) => `${line}\n`).join("");
}

function cues(utterances) {
  const all = [];
  for (const words of utterances) {
    let cue = [];
    for (const word of words) {
      const isFull =
        cue.length > 0 &&
        (joined([...cue, word]).length > MAX_CUE_CHARS ||
          word.end_ms - cue[0].start_ms > MAX_CUE_MS);
      if (isFull) {
        all.push(cue);
        cue = [];
      }
      cue.push(word);
    }
    if (cue.length > 0) all.push(cue);
  }
  return all;
}

function clock(ms, point) {
  const whole = (value, width) => String(Math.floor(value)).padStart(width, "0");
  const seconds = `${whole((ms / 1000) % 60, 2)}${point}${whole(ms % 1000, 3)}`;
  return `${whole(ms / 3_600_000, 2)}:${whole((ms / 60_000) % 60, 2)}:${seconds}`;
}

// Two lines as even as words allow.
function folded(text) {
  if (text.length <= MAX_LINE_CHARS) return text;
  const spaces = [...text.matchAll(/ /g)].map(({ index }) => index);
  if (spaces.length === 0) return text;
  const distance = (at) => Math.abs(at - text.length / 2);
  const at = spaces.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  return `${text.slice(0, at)}\n${text.slice(at + 1)}`;
}

// Cues that never overlap, each at least a millisecond long.
function timed(utterances) {
  let previousEndMs = 0;
  return cues(utterances).map((cue) => {
    const startMs = Math.max(previousEndMs, cue[0].start_ms);
    const endMs = Math.max(startMs + 1, cue.at(-1).end_ms);
    previousEndMs = endMs;
    return { startMs, endMs, text: joined(cue) };
  });
}

export function srt(utterances) {
  const parts = timed(utterances).map(({ startMs, endMs, text }, i) => {
    const body = folded(text.replaceAll("-->", "->"));
    return `${i + 1}\n${clock(startMs, ",")} --> ${clock(endMs, ",")}\n${body}\n\n`;
  });
  return parts.join("");
}

export function vtt(utterances) {
  const parts = timed(utterances).map(({ startMs, endMs, text }) => {
    const folds = folded(text);
    const body = folds.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    return `${clock(startMs, ".")} --> ${clock(endMs, ".")}\n${body}\n\n`;
  });
  return `WEBVTT\n\n${parts.join("")}`;
}
