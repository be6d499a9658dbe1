// Tabs, and what is asked of the server first.

import * as models from "./models.js";
import * as picture from "./picture.js";
import * as scale from "./scale.js";
import { Away, ask, back, sentence } from "./server.js";
import { byId } from "./words.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const opened = { scale: scale.open, models: models.open };

const choose = (tab, focus) => {
  for (const one of tabs) {
    const here = one === tab;
    one.setAttribute("aria-selected", String(here));
    one.tabIndex = here ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !here;
  }
  if (focus) tab.focus();
  const name = tab.getAttribute("aria-controls");
  history.replaceState(null, "", name === "picture" ? location.pathname : `#${name}`);
  opened[name]?.();
};

tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(tabs[(to + tabs.length) % tabs.length], true);
  });
});

const begin = async () => {
  try {
    Object.assign(picture.state, await ask("/v1/models"));
  } catch (error) {
    byId("said").className = "said wrong";
    byId("said").textContent = sentence(error.message);
    if (!(error instanceof Away)) throw error;
    await back();
    return begin();
  }
  models.fillChoices();
  const tab = tabs.find((one) => `#${one.getAttribute("aria-controls")}` === location.hash);
  if (tab) choose(tab);
};

picture.start();
scale.start();
models.start();
begin();
