// What the page asks of the server besides sound, and why the server cannot be used.

const PATIENCE_MS = 5000;

function bytesOf(text) {
  return new TextEncoder().encode(text);
}

function binary(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

export function base64(bytes) {
  return btoa(binary(bytes));
}

// Base64url: a key may have characters that no subprotocol's name has.
export function keyProtocol(key) {
  const encoded = base64(bytesOf(key));
  const name = encoded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `openai-insecure-api-key.${name}`;
}

// A header's value is Latin-1 for a browser; a key is UTF-8, as elsewhere.
export function keyHeaders(key) {
  return key === "" ? {} : { Authorization: `Bearer ${binary(bytesOf(key))}` };
}

export function address(path) {
  return new URL(path, location.href);
}

// What a status means: to people, and whether it is worth another try.
export function trouble(status, message = "") {
  const says = message === "" ? "" : ` (${message})`;
  switch (status) {
    case 401:
      return { text: "The API key is missing or wrong", isKey: true, mayReturn: false };
    case 403:
      return { text: `The server does not let this page in${says}`, mayReturn: false };
    case 413:
      return { text: `The file is too large for the server${says}`, mayReturn: false };
    case 421:
      return {
        text: `The server does not know itself by the name ${location.host}${says}`,
        mayReturn: false,
      };
    case 429:
    case 502:
    case 503:
    case 504:
      return { text: `The server has no place now${says}`, mayReturn: true };
    default:
      return { text: `The server refuses: HTTP ${status}${says}`, mayReturn: status >= 500 };
  }
}

export function messageIn(text) {
  try {
    return String(JSON.parse(text).error.message).slice(0, 200);
  } catch {
    return "";
  }
}

export const unreachable = () =>
  navigator.onLine === false
    ? { text: "There is no network", mayReturn: true }
    : { text: "The server cannot be reached", mayReturn: true };

// Why the server cannot be used; null if it can. A websocket's handshake tells no status.
export async function diagnosis(key) {
  try {
    const answer = await fetch(address("v1/models"), {
      headers: keyHeaders(key),
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    return answer.ok ? null : trouble(answer.status, messageIn(await answer.text()));
  } catch {
    return unreachable();
  }
}
