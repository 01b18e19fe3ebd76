// How long each stage took, as the server says, and the rest of the round trip, as the browser measured it.

import { h } from "./dom.js";

const REST = "transfer"; // what is no stage of the server's: the network, the browser

export function showTimings(element, answer) {
  const stages = { ...answer.timings };
  const known = Object.values(stages).reduce((sum, ms) => sum + ms, 0);
  stages[REST] = Math.max(0, answer.roundTrip - known);
  const bar = h("div", { class: "bar", "aria-hidden": "true" });
  const list = h("dl", { class: "timings" });
  Object.entries(stages).forEach(([name, ms], index) => {
    const part = h("span", { class: `stage stage-${index % 5}` });
    part.style.flexGrow = String(ms);
    bar.append(part);
    const mark = h("span", { class: `mark stage-${index % 5}`, "aria-hidden": "true" });
    list.append(h("div", {}, h("dt", {}, mark, name), h("dd", { "data-stage": name }, milliseconds(ms))));
  });
  list.append(h("div", { class: "total" }, h("dt", {}, "round trip"), h("dd", {}, milliseconds(answer.roundTrip))));
  element.replaceChildren(bar, list);
}

export function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}
