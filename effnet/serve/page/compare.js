// The Models tab: two models side by side, and what each predicts for the image of the Predict tab.

import { ServerUnavailable, postImage, sentence, serverIsBack } from "./api.js";
import { byId, createElement, fillTable, formatMilliseconds, formatSI, labelBars } from "./dom.js";
import { state } from "./predict.js";

const TASKS = { classification: "one class per image", multilabel: "any number of labels", regression: "values" };
const PROPERTIES = [
  ["architecture", (model) => model.arch],
  ["outputs", (model) => `${model.classes.toLocaleString("en")}, ${TASKS[model.task]}`],
  ["input size", (model) => `${model.size[0]}×${model.size[1]}`],
  ["parameters", (model) => formatSI(model.params)],
  ["MACs", (model) => formatSI(model.macs)],
  ["weights in float32", (model) => formatSI(model.weight_bytes, "B")],
  ["peak memory", (model) => formatSI(model.bytes, "B")],
  ["engine", (model) => `${model.engine}, ${model.precision}`],
  ["batch size", (model) => `up to ${model.batch_size}`],
  ["preprocessing", (model) => model.preprocess],
];
let latest = 0;

const selectedModels = () =>
  ["model-a", "model-b"].map((id) => state.models.find((model) => model.name === byId(id).value));

const showPrediction = async (model, column) => {
  const heading = createElement("h2", {}, model.name);
  try {
    const start = performance.now();
    const prediction = await postImage("/v1/predict", state.image, { model: model.name });
    const seconds = (performance.now() - start) / 1e3;
    const values = Object.entries(prediction.values).map(([name, value]) =>
      createElement("li", {}, createElement("div", {}, name, createElement("span", {}, `${value}`))));
    const timing = `${formatMilliseconds(seconds)} in total, network ${formatMilliseconds(prediction.seconds.network)}`;
    column.replaceChildren(
      heading,
      createElement("ol", { class: "labels" }, ...labelBars(prediction, null), ...values),
      createElement("p", { class: "muted" }, timing));
  } catch (error) {
    if (error instanceof ServerUnavailable) throw error;
    column.replaceChildren(heading, createElement("p", { class: "status error" }, sentence(error.message)));
  }
};

export const compare = async () => {
  const number = ++latest;
  const models = selectedModels();
  if (!models.every(Boolean)) return;
  const status = byId("compare-status");
  status.className = "status muted";
  status.textContent = state.models.length < 2
    ? "Only one model is served. Start the server with two to compare them: effnet serve b0 b3."
    : state.image ? "" : "Choose an image in the Predict tab to see what both models predict.";
  fillTable(byId("properties"), ["", ...models.map((model) => model.name)], PROPERTIES.map(([name, format]) => {
    const cells = models.map(format);
    return { kind: cells[0] === cells[1] ? "" : "differs", cells: [name, ...cells] };
  }));
  if (!state.image) return byId("predictions").replaceChildren();
  const columns = models.map(() => createElement("div"));
  byId("predictions").replaceChildren(...columns);
  try {
    for (const [index, model] of models.entries()) if (number === latest) await showPrediction(model, columns[index]);
  } catch (error) {
    if (!(error instanceof ServerUnavailable)) throw error;
    if (number !== latest) return;
    byId("predictions").replaceChildren();
    status.className = "status error";
    status.textContent = error.message;
    await serverIsBack();
    if (number === latest) await compare();
  }
};

export const fillModelMenus = () => {
  const names = state.models.map((model) => model.name);
  for (const [id, index] of [["model", 0], ["model-a", 0], ["model-b", 1]]) {
    const before = byId(id).value;
    byId(id).replaceChildren(...names.map((name) => createElement("option", { value: name }, name)));
    byId(id).value = names.includes(before) ? before : names[Math.min(index, names.length - 1)];
  }
};

export const initialize = () => {
  for (const id of ["model-a", "model-b"]) byId(id).addEventListener("change", compare);
};
