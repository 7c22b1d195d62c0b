// Lists the parameters of look.js.

import { PARAMETERS } from "./look.js";

const rows = PARAMETERS.map(({ name, values, about }) => {
  const row = document.createElement("tr");
  for (const text of [name, values, about]) row.insertCell().textContent = text;
  return row;
});
document.getElementById("parameters").append(...rows);
const example = document.getElementById("example");
example.textContent = example.href;
