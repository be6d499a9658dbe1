// The second tab: φ as a dial, and the network that it makes.

import { Away, ask, back, sentence } from "./server.js";
import { byId, fill, made, short, signed } from "./words.js";

const ROOM = 3; // φ that the diagram has room for: up to it the scale stays, and the network grows in it
const narrow = matchMedia("(max-width: 40rem)");
const PAUSE = 40; // ms: the dial moves faster than anything can be drawn
let timer = 0;
let waiting = null;

const columns = ["network", "picture", "params", "MACs", "size", "top-1, published"];
const row = (name, one, kind = "") => ({
  kind,
  cells: [name, `${one.resolution}²`, short(one.params), short(one.macs), short(one.weight_bytes, "B"), one.top1 ? `${one.top1.toLocaleString("en", { minimumFractionDigits: 1 })} %` : "–"],
});

const show = (found) => {
  const tiles = [
    ["picture", `${found.resolution}×${found.resolution}`],
    ["params", short(found.params)],
    ["MACs", short(found.macs)],
    ["size in float32", short(found.weight_bytes, "B")],
    ["peak of its maps", short(found.bytes, "B")],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value]) => made("div", {}, made("dt", {}, name), made("dd", {}, value))));
  byId("scale-said").className = "said soft";
  const itself = found.released.some((one) => one.name === found.arch.name);
  byId("scale-said").textContent = `${found.arch.name}: ${short(found.params)} params, ${short(found.macs)} MACs; ` +
    (itself ? "as it was released." : `the nearest released network is ${found.nearest}.`);
  byId("diagram").innerHTML = found.svg; // made by our own server, of numbers and of the names of published networks
  const after = found.released.filter((one) => one.macs <= found.macs).length;
  const rows = found.released.map((one) => row(one.name, one));
  if (itself) rows[after - 1].kind = "here";
  else rows.splice(after, 0, row(`φ = ${signed(found.phi)}`, found, "here"));
  fill(byId("released"), columns, rows);
};

const update = async () => {
  waiting?.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  const parameters = { network: byId("base").value };
  for (const id of ["phi", "alpha", "beta", "gamma"]) parameters[id] = byId(id).value;
  parameters.narrow = narrow.matches;
  parameters.beside = ROOM;
  try {
    show(await ask(`/v1/scale?${new URLSearchParams(parameters)}`, { signal }));
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("scale-said").className = "said wrong";
    byId("scale-said").textContent = sentence(error.message);
    if (!(error instanceof Away)) return;
    await back();
    if (!signal.aborted) await update();
  }
};

const moved = () => {
  const phi = signed(Number(byId("phi").value));
  byId("phi-said").textContent = phi;
  byId("phi").setAttribute("aria-valuetext", `φ ${phi}`);
  clearTimeout(timer);
  timer = setTimeout(update, PAUSE);
};

export const start = () => {
  for (const id of ["base", "phi", "alpha", "beta", "gamma"]) byId(id).addEventListener("input", moved);
  narrow.addEventListener("change", moved);
};

export const open = moved;
