// What the page's address may ask of its look: the one list of parameters.
//
// `read` returns the value, or null for one that is wrong: then the page looks as
// without it. `apply` puts it into the style of the page's root element.

const GENERIC = ["serif", "sans-serif", "monospace", "cursive", "system-ui"];

function whole(least, most) {
  return (text) => {
    const number = /^\d{1,4}$/.test(text) ? Number(text) : -1;
    return least <= number && number <= most ? number : null;
  };
}

function oneOf(names) {
  return (text) => (names.includes(text) ? text : null);
}

// A number sign would begin the fragment of an address, so none is needed.
function color(text) {
  const isHex = /^(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})$/i.test(text);
  const value = isHex ? `#${text}` : text;
  return /^#?[a-z0-9(),.%/ ]+$/i.test(value) && CSS.supports("color", value) ? value : null;
}

function font(text) {
  if (GENERIC.includes(text)) return text;
  return /^[\p{L}\p{N} _-]{1,100}$/u.test(text) ? `"${text}", system-ui, sans-serif` : null;
}

const set = (name, unit = "") => (style, value) => style.setProperty(name, `${value}${unit}`);
const COLORS = "a color's name, or digits as in ffcc00 or ffcc0080";

export const PARAMETERS = [
  { name: "lines", values: "1 to 20", about: "lines that are shown; otherwise 2", read: whole(1, 20), apply: set("--lines") },
  { name: "size", values: "8 to 400", about: "size of the text in pixels; otherwise it follows the width", read: whole(8, 400), apply: set("--size", "px") },
  { name: "color", values: COLORS, about: "color of the text; otherwise white", read: color, apply: set("--color") },
  { name: "background", values: COLORS, about: "color behind the text; otherwise none", read: color, apply: set("--background") },
  { name: "page", values: COLORS, about: "color of the whole page; otherwise none", read: color, apply: set("--page") },
  { name: "outline", values: "0 to 20", about: "width of the letters' outline in pixels; otherwise 3", read: whole(0, 20) },
  { name: "outline-color", values: COLORS, about: "color of the outline; otherwise black", read: color },
  { name: "shadow", values: "0 to 50", about: "blur of a shadow below the letters in pixels; otherwise 0, none", read: whole(0, 50) },
  { name: "font", values: "a font of the viewer's machine", about: "otherwise the system's", read: font, apply: set("--font") },
  { name: "weight", values: "100 to 900", about: "weight of the font; otherwise 600", read: whole(100, 900), apply: set("--weight") },
  { name: "align", values: "left, center, right", about: "otherwise left, where growing lines stand still", read: oneOf(["left", "center", "right"]), apply: set("--align") },
  {
    name: "position",
    values: "top, middle, bottom",
    about: "place of the lines on the page; otherwise bottom",
    read: oneOf(["top", "middle", "bottom"]),
    apply: (style, value) => {
      style.setProperty("--position", { top: "flex-start", middle: "center", bottom: "flex-end" }[value]);
    },
  },
  { name: "margin", values: "0 to 500", about: "pixels around the lines; otherwise 24", read: whole(0, 500), apply: set("--margin", "px") },
  { name: "draft", values: "on, off", about: "whether a draft is shown, dim; otherwise on", read: oneOf(["on", "off"]) },
  { name: "hide", values: "0 to 3600", about: "seconds without a new word after which the lines go; otherwise 0, never", read: whole(0, 3600) },
];

// Copies of the letters all around them: every browser draws them alike.
function shadows({ outline = 3, "outline-color": outlineColor = "#000", shadow = 0 }) {
  const found = [];
  for (let i = 0; outline > 0 && i < 16; i++) {
    const [x, y] = [Math.cos, Math.sin].map((f) => (outline * f((i * Math.PI) / 8)).toFixed(2));
    found.push(`${x}px ${y}px 0 ${outlineColor}`);
  }
  if (shadow > 0) found.push(`0 ${Math.ceil(shadow / 3)}px ${shadow}px ${outlineColor}`);
  return found.join(", ") || "none";
}

// The values of an address's parameters, and a sentence about each that is wrong.
export function readLook(search) {
  const values = {};
  const wrong = [];
  for (const [name, text] of new URLSearchParams(search)) {
    const parameter = PARAMETERS.find((one) => one.name === name);
    const value = parameter?.read(text) ?? null;
    if (value !== null) values[name] = value;
    else if (parameter === undefined) wrong.push(`${name} is no parameter; see /help`);
    else wrong.push(`${name}=${text.slice(0, 40)}: expected ${parameter.values}; see /help`);
  }
  return { values, wrong };
}

export function applyLook(root, values) {
  for (const { name, apply } of PARAMETERS) {
    if (name in values) apply?.(root.style, values[name]);
  }
  root.style.setProperty("--shadow", shadows(values));
  root.classList.toggle("has-no-draft", values.draft === "off");
}
