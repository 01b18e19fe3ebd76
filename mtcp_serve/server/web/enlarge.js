// One picture as large as the window, in a dialog; Escape closes it.

import { copyPicture } from "./clipboard.js";
import { paint } from "./dom.js";
import { readout } from "./probe.js";

export class Enlarged {
  #name = "";

  /**
   * `dialog` holds a `.frame` with a canvas, a `.readout`, a live region and buttons; `closed(name)` takes the focus
   * back.
   */
  constructor(dialog, probe, { picture, closed }) {
    this.dialog = dialog;
    this.probe = probe;
    this.picture = picture;
    this.frame = dialog.querySelector(".frame");
    this.canvas = dialog.querySelector("canvas");
    probe.attach(this.frame, dialog.querySelector("[aria-live]")); // all else is inert meanwhile
    readout(dialog.querySelector(".readout"), probe);
    dialog.querySelector("[data-step='-1']").addEventListener("click", () => this.#step(-1));
    dialog.querySelector("[data-step='1']").addEventListener("click", () => this.#step(1));
    dialog.querySelector("[data-copy]").addEventListener("click", (event) => {
      const { target } = event;
      this.canvas.toBlob((blob) => copyPicture(blob, target));
    });
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
    dialog.addEventListener("close", () => closed(this.#name));
  }

  open(answer, name) {
    this.#name = name;
    this.show(answer);
    this.dialog.showModal();
    this.frame.focus();
  }

  show(answer) {
    this.answer = answer;
    const map = answer.map(this.#name);
    const source = map ? this.picture(map) : answer.input.canvas;
    this.dialog.querySelector("h2").textContent = map ? map.title : "Image";
    this.dialog.querySelector(".about").textContent = map
      ? [map.describe(), map.describeSureness()].filter(Boolean).join(". ")
      : answer.input.name;
    this.canvas.hidden = !source; // nor show what was here before
    if (source) paint(this.canvas, source);
  }

  #step(by) {
    const names = [...(this.answer.input.canvas ? [""] : []), ...this.answer.maps.map((map) => map.name)];
    this.#name = names[(names.indexOf(this.#name) + by + names.length) % names.length];
    this.show(this.answer);
  }
}
