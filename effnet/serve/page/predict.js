// The Predict tab: an image, its classes, and where in the image each of them is seen.

import { RequestError, ServerUnavailable, postImage, sentence, serverIsBack } from "./api.js";
import { byId, formatMilliseconds, formatPercent, labelBars } from "./dom.js";

export const state = { image: null, models: [], limits: {} };

let latest = 0; // responses to all but the latest request are discarded
let controller = null;
let imageUrl = "";

const setStatus = (text, kind = "") => {
  byId("status").textContent = text;
  byId("status").className = `status ${kind}`;
};

const selectedModel = () => state.models.find((model) => model.name === byId("model").value);

const newRequest = () => {
  controller?.abort();
  controller = new AbortController();
  return [++latest, controller.signal];
};

const clearMap = () => {
  byId("map").hidden = true;
  byId("photo").classList.remove("explained");
  for (const button of byId("labels").querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", "false");
};

const clear = () => {
  clearMap();
  byId("labels").replaceChildren();
  byId("timing").textContent = "";
  byId("hint").hidden = true;
  byId("heatmap").disabled = true;
};

/** Shows an error; if the server did not respond, retries when it is back. */
const handleError = async (error, number, retry) => {
  if (number !== latest || error.name === "AbortError") return;
  if (!(error instanceof RequestError || error instanceof ServerUnavailable)) throw error;
  setStatus(sentence(error.message), "error");
  if (error instanceof ServerUnavailable) {
    await serverIsBack();
    if (number === latest) await retry();
  }
};

const showMap = async (index) => {
  const model = selectedModel();
  if (!model?.can_explain) return;
  const [number, signal] = newRequest();
  try {
    const parameters = { model: model.name, class: index, format: "json" };
    const explanation = await postImage("/v1/explain", state.image, parameters, signal);
    if (number !== latest) return;
    const [left, top, right, bottom] = explanation.box.map((fraction) => 100 * fraction);
    const map = byId("map");
    map.src = explanation.layer;
    map.alt = `Where “${explanation.label}” is seen`;
    Object.assign(map.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    map.hidden = false;
    byId("photo").classList.add("explained");
    byId("heatmap").checked = true;
    for (const button of byId("labels").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.index === String(index)));
    byId("hint").textContent = `The map shows where “${explanation.label}” is seen; the dashed frame is what the network sees.`;
  } catch (error) {
    byId("heatmap").checked = false;
    clearMap();
    await handleError(error, number, () => showMap(index));
  }
};

const showPrediction = (prediction, seconds) => {
  const values = Object.entries(prediction.values);
  const canExplain = selectedModel().can_explain;
  const first = prediction.labels[0];
  if (first) setStatus(`${first.label}, ${formatPercent(first.probability)}`);
  else setStatus(values.map(([name, value]) => `${name} ${value}`).join(", ") || "None of its labels.");
  byId("labels").replaceChildren(...labelBars(prediction, canExplain ? showMap : null));
  const { decoding, waiting, network, total } = prediction.seconds;
  const remark = prediction.image.remark ? `${sentence(prediction.image.remark)} ` : "";
  byId("timing").textContent =
    `${remark}${formatMilliseconds(seconds)} in total, ${formatMilliseconds(total)} on the server: decoding ` +
    `${formatMilliseconds(decoding)}, waiting ${formatMilliseconds(waiting)}, network ${formatMilliseconds(network)}.`;
  byId("heatmap").disabled = !(canExplain && first);
  byId("hint").hidden = byId("heatmap").disabled;
  byId("hint").textContent = "Choose a class to see where in the image it is seen.";
};

export const predict = async () => {
  if (!state.image || !selectedModel()) return;
  const showsMap = byId("heatmap").checked;
  clear();
  const [number, signal] = newRequest();
  if (state.image.size > state.limits.max_bytes) {
    const [size, limit] = [state.image.size, state.limits.max_bytes].map((bytes) => `${Math.round(bytes / 1e5) / 10} MB`);
    setStatus(`The file is ${size}; the limit is ${limit}.`, "error");
    return;
  }
  setStatus("Predicting …", "muted");
  const start = performance.now();
  try {
    const prediction = await postImage("/v1/predict", state.image, { model: selectedModel().name }, signal);
    if (number !== latest) return;
    showPrediction(prediction, (performance.now() - start) / 1e3);
    if (showsMap && prediction.labels.length) await showMap(prediction.labels[0].index);
  } catch (error) {
    await handleError(error, number, predict);
  }
};

const setImage = (image) => {
  state.image = image;
  byId("heatmap").checked = false;
  if (imageUrl) URL.revokeObjectURL(imageUrl);
  imageUrl = URL.createObjectURL(image);
  const preview = byId("preview");
  byId("placeholder").hidden = byId("no-preview").hidden = true;
  byId("photo").hidden = false;
  byId("drop-zone").classList.add("full");
  preview.onload = () => byId("photo").style.setProperty("--shape", preview.naturalWidth / preview.naturalHeight); // small ones grow
  preview.onerror = () => {
    byId("photo").hidden = true;
    byId("no-preview").hidden = false;
    byId("no-preview").textContent = `${image.name || "This file"}: your browser cannot display it.`;
  };
  preview.alt = `Your image${image.name ? `, ${image.name}` : ""}`;
  preview.src = imageUrl;
  predict();
};

const firstFile = (list) => [...(list ?? [])][0];

export const initialize = () => {
  const root = document.documentElement;
  for (const id of ["file", "camera"])
    byId(id).addEventListener("change", ({ target }) => {
      const image = firstFile(target.files);
      if (image) setImage(image);
      target.value = ""; // the same file may be chosen again
    });
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop-zone").classList.add("over");
  });
  root.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop-zone").classList.remove("over");
  });
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop-zone").classList.remove("over");
    const image = firstFile(event.dataTransfer.files);
    if (image) setImage(image);
    else setStatus("That is not a file: save the image first, then drop the file.", "error");
  });
  document.addEventListener("paste", (event) => {
    const image = firstFile(event.clipboardData?.files);
    if (image) setImage(image);
  });
  byId("heatmap").addEventListener("change", ({ target }) => {
    const first = byId("labels").querySelector("button");
    if (target.checked && first) showMap(first.dataset.index);
    else {
      newRequest();
      clearMap();
    }
  });
  byId("model").addEventListener("change", predict);
};
