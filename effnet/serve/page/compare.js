// The third tab: two models side by side, and what each says of the picture in the first tab.

import { Away, back, send, sentence } from "./server.js";
import { state } from "./picture.js";
import { bars, byId, fill, made, milliseconds, short } from "./words.js";

const TASKS = { classification: "one class per image", multilabel: "any number of labels", regression: "values" };
const FACTS = [
  ["architecture", (one) => one.arch],
  ["answers", (one) => `${one.classes.toLocaleString("en")}, ${TASKS[one.task]}`],
  ["picture", (one) => `${one.size[0]}×${one.size[1]}`],
  ["params", (one) => short(one.params)],
  ["MACs", (one) => short(one.macs)],
  ["size in float32", (one) => short(one.weight_bytes, "B")],
  ["peak of its maps", (one) => short(one.bytes, "B")],
  ["engine", (one) => `${one.engine}, ${one.precision}`],
  ["at once", (one) => `up to ${one.batch}`],
  ["preprocessing", (one) => one.preprocess],
];
let asked = 0;

const chosen = () => ["one", "other"].map((id) => state.models.find((one) => one.name === byId(id).value));

const answer = async (model, place) => {
  try {
    const start = performance.now();
    const found = await send("/v1/predict", state.picture, { model: model.name });
    const values = Object.entries(found.values).map(([name, value]) => made("li", {}, made("div", {}, name, made("span", {}, `${value}`))));
    place.replaceChildren(
      made("h2", {}, model.name),
      made("ol", { class: "labels" }, ...bars(found, null), ...values),
      made("p", { class: "soft" }, `${milliseconds((performance.now() - start) / 1e3)} in all, network ${milliseconds(found.seconds.network)}`));
  } catch (error) {
    if (error instanceof Away) throw error;
    place.replaceChildren(made("h2", {}, model.name), made("p", { class: "said wrong" }, sentence(error.message)));
  }
};

const compare = async () => {
  const number = ++asked;
  const models = chosen();
  if (!models.every(Boolean)) return;
  const said = byId("models-said");
  said.className = "said soft";
  said.textContent = state.models.length < 2
    ? "One model is served. Start the server with two to compare them: effnet serve b0 b3."
    : state.picture ? "" : "Choose a picture in the first tab, and both say here what it shows.";
  fill(byId("compared"), ["", ...models.map((one) => one.name)], FACTS.map(([name, of]) => {
    const cells = models.map(of);
    return { kind: cells[0] === cells[1] ? "" : "differs", cells: [name, ...cells] };
  }));
  if (!state.picture) return byId("both").replaceChildren();
  const places = models.map(() => made("div"));
  byId("both").replaceChildren(...places);
  try {
    for (const [index, model] of models.entries()) if (number === asked) await answer(model, places[index]);
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    if (number !== asked) return;
    byId("both").replaceChildren();
    said.className = "said wrong";
    said.textContent = error.message;
    await back();
    if (number === asked) await compare();
  }
};

export const fillChoices = () => {
  for (const [id, place] of [["model", 0], ["one", 0], ["other", 1]]) {
    const before = byId(id).value;
    byId(id).replaceChildren(...state.models.map((one) => made("option", { value: one.name }, one.name)));
    const names = state.models.map((one) => one.name);
    byId(id).value = names.includes(before) ? before : names[Math.min(place, names.length - 1)];
  }
};

export const start = () => {
  for (const id of ["one", "other"]) byId(id).addEventListener("change", compare);
};

export const open = compare;
