// The Scale tab: φ as a slider, and the network it produces.

import { ServerUnavailable, fetchJson, sentence, serverIsBack } from "./api.js";
import { byId, createElement, fillTable, formatSI, formatSigned } from "./dom.js";

const DIAGRAM_PHI = 3; // up to this φ the diagram's scale stays, and the network grows within it
const DEBOUNCE_MS = 40; // the slider moves faster than anything can be drawn
const COLUMNS = ["network", "input", "params", "MACs", "size", "top-1, published"];
const narrow = matchMedia("(max-width: 40rem)");
let timer = 0;
let controller = null;

const tableRow = (name, network, kind = "") => {
  const top1 = network.top1 ? `${network.top1.toLocaleString("en", { minimumFractionDigits: 1 })} %` : "–";
  const cells = [name, `${network.resolution}²`, formatSI(network.params), formatSI(network.macs), formatSI(network.weight_bytes, "B"), top1];
  return { kind, cells };
};

const showNetwork = (scaled) => {
  const tiles = [
    ["input size", `${scaled.resolution}×${scaled.resolution}`],
    ["parameters", formatSI(scaled.params)],
    ["MACs", formatSI(scaled.macs)],
    ["weights in float32", formatSI(scaled.weight_bytes, "B")],
    ["peak memory", formatSI(scaled.bytes, "B")],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value]) =>
    createElement("div", {}, createElement("dt", {}, name), createElement("dd", {}, value))));
  const isReleased = scaled.released.some((network) => network.name === scaled.arch.name);
  byId("scale-status").className = "status muted";
  byId("scale-status").textContent = `${scaled.arch.name}: ${formatSI(scaled.params)} params, ${formatSI(scaled.macs)} MACs; ` +
    (isReleased ? "as released." : `the nearest released network is ${scaled.nearest}.`);
  byId("diagram").innerHTML = scaled.svg; // made by our own server, of numbers and names of published networks
  const position = scaled.released.filter((network) => network.macs <= scaled.macs).length;
  const rows = scaled.released.map((network) => tableRow(network.name, network));
  if (isReleased) rows[position - 1].kind = "current";
  else rows.splice(position, 0, tableRow(`φ = ${formatSigned(scaled.phi)}`, scaled, "current"));
  fillTable(byId("released"), COLUMNS, rows);
};

const update = async () => {
  controller?.abort();
  controller = new AbortController();
  const { signal } = controller;
  const parameters = { network: byId("base").value, narrow: narrow.matches, beside: DIAGRAM_PHI };
  for (const id of ["phi", "alpha", "beta", "gamma"]) parameters[id] = byId(id).value;
  try {
    showNetwork(await fetchJson(`/v1/scale?${new URLSearchParams(parameters)}`, { signal }));
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("scale-status").className = "status error";
    byId("scale-status").textContent = sentence(error.message);
    if (!(error instanceof ServerUnavailable)) return;
    await serverIsBack();
    if (!signal.aborted) await update();
  }
};

export const scheduleUpdate = () => {
  const phi = formatSigned(Number(byId("phi").value));
  byId("phi-value").textContent = phi;
  byId("phi").setAttribute("aria-valuetext", `φ ${phi}`);
  clearTimeout(timer);
  timer = setTimeout(update, DEBOUNCE_MS);
};

export const initialize = () => {
  for (const id of ["base", "phi", "alpha", "beta", "gamma"]) byId(id).addEventListener("input", scheduleUpdate);
  narrow.addEventListener("change", scheduleUpdate);
};
