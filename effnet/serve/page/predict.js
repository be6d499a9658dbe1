// The first tab: a picture comes in, its classes come out, and where in it each is seen.

import { Away, Refused, back, send, sentence } from "./server.js";
import { bars, byId, milliseconds, percent } from "./words.js";

export const state = { picture: null, models: [], limits: {} };

let asked = 0; // answers to all but the latest question are thrown away
let waiting = null;
let address = "";

const say = (text, kind = "") => {
  const said = byId("said");
  said.textContent = text;
  said.className = `said ${kind}`;
};

const model = () => state.models.find((one) => one.name === byId("model").value);

const question = () => {
  waiting?.abort();
  waiting = new AbortController();
  return [++asked, waiting.signal];
};

const clearMap = () => {
  byId("map").hidden = true;
  byId("photo").classList.remove("hot");
  for (const button of byId("labels").querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", "false");
};

const clear = () => {
  clearMap();
  byId("labels").replaceChildren();
  byId("took").textContent = "";
  byId("hint").hidden = true;
  byId("heat").disabled = true;
};

/** Says what went wrong; if nobody was there, asks once more when somebody is. */
const failed = async (error, number, again) => {
  if (number !== asked || error.name === "AbortError") return;
  if (!(error instanceof Refused || error instanceof Away)) throw error;
  say(error instanceof Refused ? sentence(error.message) : error.message, "wrong");
  if (error instanceof Away) {
    await back();
    if (number === asked) await again();
  }
};

const showMap = async (index) => {
  if (!model()?.explains) return;
  const [number, signal] = question();
  try {
    const found = await send("/v1/explain", state.picture, { model: model().name, class: index, format: "json" }, signal);
    if (number !== asked) return;
    const [left, top, right, bottom] = found.box.map((share) => 100 * share);
    const map = byId("map");
    map.src = found.layer;
    map.alt = `Where “${found.label}” is seen`;
    Object.assign(map.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    map.hidden = false;
    byId("photo").classList.add("hot");
    byId("heat").checked = true;
    for (const button of byId("labels").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.index === String(index)));
    byId("hint").textContent = `The map shows where “${found.label}” is seen; the dashed frame is what the network sees.`;
  } catch (error) {
    byId("heat").checked = false;
    clearMap();
    await failed(error, number, () => showMap(index));
  }
};

const told = (found, seconds) => {
  const values = Object.entries(found.values);
  const first = found.labels[0];
  if (first) say(`${first.label}, ${percent(first.probability)}`);
  else say(values.length ? values.map(([name, value]) => `${name} ${value}`).join(", ") : "None of its labels.");
  const shown = bars(found, model().explains ? showMap : null);
  byId("labels").replaceChildren(...shown);
  shown.forEach((row, place) => (row.firstChild.dataset.index = found.labels[place].index));
  const { decoding, waiting: idle, network, whole } = found.seconds;
  const remark = found.picture.remark ? `${sentence(found.picture.remark)} ` : "";
  byId("took").textContent =
    `${remark}${milliseconds(seconds)} in all, ${milliseconds(whole)} of them on the server: decoding ` +
    `${milliseconds(decoding)}, waiting ${milliseconds(idle)}, network ${milliseconds(network)}.`;
  byId("heat").disabled = !(model().explains && first);
  byId("hint").hidden = byId("heat").disabled;
  byId("hint").textContent = "Choose a class to see where in the picture it is seen.";
};

export const predict = async () => {
  if (!state.picture || !model()) return;
  const heated = byId("heat").checked;
  clear();
  if (state.picture.size > state.limits.bytes_most) {
    question();
    say(`The file has ${(state.picture.size / 1e6).toFixed(0)} MB, and ${state.limits.bytes_most / 1e6} MB is the most here.`, "wrong");
    return;
  }
  const [number, signal] = question();
  say("Looking …", "soft");
  const start = performance.now();
  try {
    const found = await send("/v1/predict", state.picture, { model: model().name }, signal);
    if (number !== asked) return;
    told(found, (performance.now() - start) / 1e3);
    if (heated && found.labels.length) await showMap(found.labels[0].index);
  } catch (error) {
    await failed(error, number, predict);
  }
};

const take = (picture) => {
  state.picture = picture;
  byId("heat").checked = false;
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(picture);
  const shown = byId("shown");
  byId("invitation").hidden = byId("unseen").hidden = true;
  byId("photo").hidden = false;
  byId("place").classList.add("full");
  shown.onload = () => byId("photo").style.setProperty("--shape", shown.naturalWidth / shown.naturalHeight); // small ones grow
  shown.onerror = () => {
    byId("photo").hidden = true;
    byId("unseen").hidden = false;
    byId("unseen").textContent = `${picture.name || "This file"}: your browser cannot show it.`;
  };
  shown.alt = `Your picture${picture.name ? `, ${picture.name}` : ""}`;
  shown.src = address;
  predict();
};

const files = (list) => [...(list ?? [])][0];

export const start = () => {
  const place = document.documentElement;
  for (const id of ["file", "camera"])
    byId(id).addEventListener("change", ({ target }) => {
      const picture = files(target.files);
      if (picture) take(picture);
      target.value = ""; // the same file may be chosen again
    });
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("place").classList.add("over");
  });
  place.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("place").classList.remove("over");
  });
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("place").classList.remove("over");
    const picture = files(event.dataTransfer.files);
    if (picture) take(picture);
    else say("That was no file: save the picture first, then drop the file.", "wrong");
  });
  document.addEventListener("paste", (event) => {
    const picture = files(event.clipboardData?.files);
    if (picture) take(picture);
  });
  byId("heat").addEventListener("change", ({ target }) => {
    const first = byId("labels").querySelector("button");
    if (target.checked && first) showMap(first.dataset.index);
    else {
      question();
      clearMap();
    }
  });
  byId("model").addEventListener("change", predict);
};
