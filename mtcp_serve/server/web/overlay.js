// One map over the photo, with a slider for its opacity.

import { h, paint } from "./dom.js";
import { readout } from "./probe.js";

export class Overlay {
  #name = null;

  constructor(element, probe, picture) {
    this.picture = picture;
    this.frame = element.querySelector(".frame");
    [this.under, this.over] = this.frame.querySelectorAll("canvas");
    this.choice = element.querySelector(".choice");
    this.slider = element.querySelector("input[type=range]");
    this.percent = element.querySelector("output");
    this.slider.addEventListener("input", () => this.#fade());
    this.choice.addEventListener("change", (event) => {
      this.#name = event.target.value;
      this.draw();
    });
    probe.attach(this.frame);
    readout(element.querySelector(".readout"), probe);
    this.#fade();
  }

  show(answer) {
    const names = answer.maps.map((map) => map.name);
    if (names.join() !== this.answer?.maps.map((map) => map.name).join()) {
      if (!names.includes(this.#name)) [this.#name] = names;
      this.choice.replaceChildren(...names.map((name) => this.#option(name)));
    }
    this.answer = answer;
    this.draw();
  }

  draw() {
    const { photo } = this.answer;
    const map = this.answer.map(this.#name);
    this.under.hidden = photo.canvas === null;
    if (photo.canvas !== null) paint(this.under, photo.canvas);
    paint(this.over, this.picture(map));
    this.over.classList.toggle("crisp", map.info.kind === "labels");
  }

  #option(name) {
    const attributes = { type: "radio", name: "overlay-map", value: name, checked: name === this.#name };
    return h("label", {}, h("input", attributes), h("span", {}, name));
  }

  #fade() {
    this.over.style.opacity = String(this.slider.value / 100);
    this.percent.textContent = `${this.slider.value} %`;
  }
}
