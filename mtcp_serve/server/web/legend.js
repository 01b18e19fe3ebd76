// The classes that are present, with their colours; one of them can be made to stand out.

import { h } from "./dom.js";

/** Fires "change" with the class that stands out in `task` and `id`, both null if none does. */
export class Legend extends EventTarget {
  task = null;
  id = null;
  #content = "";

  constructor(element) {
    super();
    this.element = element;
  }

  /** The picture of a map, its class standing out if it has one. */
  picture = (map) => map.canvas(map.name === this.task ? this.id : null);

  /** The same, to lay over the image. */
  overlay = (map) => map.overlay(map.name === this.task ? this.id : null);

  /** What stands out of it has a border. */
  outline = (map) => map.outline(map.name === this.task ? this.id : null);

  show(answer) {
    const maps = answer.maps.filter((map) => map.info.kind === "labels");
    const chosen = maps.find((map) => map.name === this.task);
    if (chosen && !chosen.info.present.includes(this.id)) this.#choose(null, null);
    else if (!chosen) this.task = this.id = null;
    const content = JSON.stringify(maps.map((map) => [map.name, order(map), map.info.labels]));
    if (content !== this.#content) {
      this.#content = content;
      const lists = maps.map((map) =>
        h("div", { class: "legend", "data-task": map.name },
          h("h3", {}, map.title),
          h("ul", {}, ...order(map).map((id) => h("li", {}, this.#entry(map, id))))),
      );
      this.element.replaceChildren(...lists);
      this.element.closest("section").hidden = maps.length === 0;
    }
    for (const map of maps) this.#share(map);
    this.#mark();
  }

  #entry(map, id) {
    const label = map.label(id) ?? { name: `class ${id}`, color: "#808080" };
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = label.color;
    const button = h(
      "button",
      { type: "button", "data-task": map.name, "data-id": id, "aria-pressed": "false" },
      swatch,
      h("span", { class: "label" }, label.name),
      h("span", { class: "share" }),
    );
    button.addEventListener("click", () => {
      const on = this.task === map.name && this.id === id;
      this.#choose(on ? null : map.name, on ? null : id);
    });
    return button;
  }

  #share(map) {
    const counts = map.counts();
    for (const id of map.info.present) {
      const share = (100 * counts[id]) / map.values.length;
      this.#button(map.name, id).querySelector(".share").textContent = share < 1 ? "< 1 %" : `${share.toFixed(0)} %`;
    }
  }

  #button(task, id) {
    return this.element.querySelector(`button[data-task="${task}"][data-id="${id}"]`);
  }

  #choose(task, id) {
    this.task = task;
    this.id = id;
    this.#mark();
    this.dispatchEvent(new Event("change"));
  }

  #mark() {
    for (const button of this.element.querySelectorAll("button")) {
      const on = button.dataset.task === this.task && Number(button.dataset.id) === this.id;
      button.setAttribute("aria-pressed", String(on));
    }
  }
}

/** The classes that are present: the largest first, what is no thing last. */
function order(map) {
  const counts = map.counts();
  return [...map.info.present].sort(
    (a, b) => map.background(a) - map.background(b) || counts[b] - counts[a],
  );
}
