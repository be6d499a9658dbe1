// Starts the page: the tabs, and the list of models from the server.

import { ServerUnavailable, fetchJson, sentence, serverIsBack } from "./api.js";
import * as compareTab from "./compare.js";
import { byId } from "./dom.js";
import * as predictTab from "./predict.js";
import * as scaleTab from "./scale.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const onOpen = { scale: scaleTab.scheduleUpdate, models: compareTab.compare };

const selectTab = (selected, focus) => {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === selected));
    tab.tabIndex = tab === selected ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = tab !== selected;
  }
  if (focus) selected.focus();
  const name = selected.getAttribute("aria-controls");
  history.replaceState(null, "", name === "predict" ? location.pathname : `#${name}`);
  onOpen[name]?.();
};

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => selectTab(tab));
  tab.addEventListener("keydown", (event) => {
    const target = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    selectTab(tabs[(target + tabs.length) % tabs.length], true);
  });
});

const loadModels = async () => {
  try {
    Object.assign(predictTab.state, await fetchJson("/v1/models"));
  } catch (error) {
    byId("status").className = "status error";
    byId("status").textContent = sentence(error.message);
    if (!(error instanceof ServerUnavailable)) throw error;
    await serverIsBack();
    return loadModels();
  }
  compareTab.fillModelMenus();
  const tab = tabs.find((each) => `#${each.getAttribute("aria-controls")}` === location.hash);
  if (tab) selectTab(tab);
  predictTab.predict(); // an image may have been chosen before the models were known
};

for (const tab of [predictTab, scaleTab, compareTab]) tab.initialize();
loadModels();
