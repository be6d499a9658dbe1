// Number formatting and DOM elements.

/** 5288548 -> "5.29 M". */
export const formatSI = (number, unit = "") => {
  for (const [size, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (number >= 0.9995 * size) return `${(number / size).toPrecision(3)} ${prefix}${unit}`;
  return `${Number(number.toPrecision(3))} ${unit}`.trimEnd();
};

export const formatPercent = (fraction) =>
  `${(100 * fraction).toFixed(fraction > 0.9895 || fraction < 0.0995 ? 1 : 0)} %`;

export const formatMilliseconds = (seconds) => `${(1e3 * seconds).toFixed(seconds < 0.01 ? 1 : 0)}\u00a0ms`;

export const formatSigned = (number) => (number < 0 ? `−${-number}` : `${number}`);

/** Creates an element with attributes and children; strings become text nodes, never markup. */
export const createElement = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

export const byId = (id) => document.getElementById(id);

/** A text that may break after a slash, rather than within a number. */
const breakable = (text) =>
  text.split(/(?<=\/)/).flatMap((part, index) => (index ? [createElement("wbr"), part] : [part]));

/** Fills a table with rows of texts; the first cell of each row is its heading. */
export const fillTable = (table, head, rows) => {
  const tableRow = (row, tag) => createElement("tr", row.kind ? { class: row.kind } : {},
    ...row.cells.map((cell, index) => {
      const attributes = tag === "th" ? { scope: "col" } : index ? {} : { scope: "row" };
      return createElement(index && tag === "td" ? "td" : "th", attributes, ...breakable(cell));
    }));
  table.replaceChildren(
    createElement("thead", {}, tableRow({ cells: head }, "th")),
    createElement("tbody", {}, ...rows.map((row) => tableRow(row, "td"))));
};

/** The labels of a prediction as bars; with `onChoose` each is a button. */
export const labelBars = (prediction, onChoose) => prediction.labels.map(({ label, index, probability }) => {
  const fill = createElement("i");
  fill.style.width = `${100 * probability}%`;
  const parts = [
    createElement("span", {}, label),
    createElement("span", {}, formatPercent(probability)),
    createElement("span", { class: "bar", "aria-hidden": "true" }, fill),
  ];
  const row = createElement(onChoose ? "button" : "div", onChoose ? { type: "button", "aria-pressed": "false" } : {}, ...parts);
  row.dataset.index = index;
  if (onChoose) row.addEventListener("click", () => onChoose(index));
  return createElement("li", {}, row);
});
