// Numbers and elements as this page shows them.

export const short = (number, unit = "") => {
  for (const [size, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (number >= 0.9995 * size) return `${(number / size).toPrecision(3)} ${prefix}${unit}`;
  return `${Number(number.toPrecision(3))} ${unit}`.trimEnd();
};

export const percent = (share) => `${(100 * share).toFixed(share > 0.9895 || share < 0.0995 ? 1 : 0)} %`;

export const milliseconds = (seconds) => `${(1e3 * seconds).toFixed(seconds < 0.01 ? 1 : 0)}\u00a0ms`;

export const signed = (number) => (number < 0 ? `−${-number}` : `${number}`);

/** An element with attributes and children; texts stay texts, whatever is in them. */
export const made = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

export const byId = (id) => document.getElementById(id);

/** A text that may break after a slash, rather than within a number. */
const breakable = (text) => text.split(/(?<=\/)/).flatMap((part, place) => (place ? [made("wbr"), part] : [part]));

/** Rows of texts as a table; the first cell of each row is its heading. */
export const fill = (table, head, rows) => {
  const line = (row, kind) => made("tr", row.kind ? { class: row.kind } : {},
    ...row.cells.map((cell, place) => made(place && kind === "td" ? "td" : "th",
      { scope: kind === "th" ? "col" : "row" }, ...breakable(cell))));
  table.replaceChildren(
    made("thead", {}, line({ cells: head }, "th")),
    made("tbody", {}, ...rows.map((row) => line(row, "td"))));
  for (const cell of table.querySelectorAll("td")) cell.removeAttribute("scope");
};

/** An answer's labels as bars; with `chosen` each can be pressed. */
export const bars = (answer, chosen) => answer.labels.map(({ label, index, probability }) => {
  const bar = made("i");
  bar.style.width = `${100 * probability}%`;
  const inside = [made("span", {}, label), made("span", {}, percent(probability)), made("span", { class: "bar", "aria-hidden": "true" }, bar)];
  const shown = made(chosen ? "button" : "div", chosen ? { type: "button", "aria-pressed": "false" } : {}, ...inside);
  if (chosen) shown.addEventListener("click", () => chosen(index, shown));
  return made("li", {}, shown);
});
