// One map over the image: laid over it with a slider for its opacity, or beside it with one for the border.

import { h, paint } from "./dom.js";
import { readout } from "./probe.js";

const LINES = [[3.5, "#0009"], [1.5, "#fff"]]; // pixels of the page wide, below each other

export class Overlay {
  #name = null;
  #wipe = false;

  /**
   * `picture(map)` and `overlay(map)` are canvases: the map itself, and what to lay over the image; `outline(map)` is
   * the path of its borders or null.
   */
  constructor(element, probe, { picture, overlay, outline }) {
    Object.assign(this, { picture, overlay, outline });
    this.frame = element.querySelector(".frame");
    [this.under, this.over, this.lines] = this.frame.querySelectorAll("canvas");
    this.border = h("span", { class: "border", "aria-hidden": "true", hidden: true });
    this.frame.append(this.border);
    this.choice = element.querySelector("[data-choice=map]");
    [this.opacity, this.split] = element.querySelectorAll("input[type=range]");
    this.percent = element.querySelector("output");
    this.opacity.addEventListener("input", () => this.#fade());
    this.split.addEventListener("input", () => this.#fade());
    element.querySelector("[data-choice=mode]").addEventListener("change", (event) => {
      this.#wipe = event.target.value === "wipe";
      this.draw();
    });
    this.choice.addEventListener("change", (event) => {
      this.#name = event.target.value;
      this.draw();
    });
    this.frame.addEventListener("pointermove", (event) => this.#drag(event));
    this.frame.addEventListener("pointerdown", (event) => this.#drag(event, true));
    probe.attach(this.frame);
    readout(element.querySelector(".readout"), probe);
    new ResizeObserver(() => this.#drawLines()).observe(this.frame);
    this.#fade();
  }

  show(answer) {
    const maps = answer.maps;
    const names = maps.map((map) => map.name);
    if (names.join() !== this.answer?.maps.map((map) => map.name).join()) {
      if (!names.includes(this.#name)) this.#name = (maps.find((map) => !map.nothing) ?? maps[0]).name;
      this.choice.replaceChildren(...maps.map((map) => this.#option(map)));
    }
    this.answer = answer;
    this.draw();
  }

  draw() {
    const { input } = this.answer;
    const map = this.answer.map(this.#name);
    this.under.hidden = input.canvas === null;
    if (input.canvas !== null) paint(this.under, input.canvas);
    paint(this.over, this.#wipe ? this.picture(map) : this.overlay(map));
    this.#drawLines();
    this.#fade();
  }

  /** The borders of the classes, at the resolution of the screen. */
  #drawLines() {
    const map = this.answer?.map(this.#name);
    const path = map ? this.outline(map) : null;
    const { clientWidth, clientHeight } = this.frame;
    this.lines.hidden = this.#wipe || path === null;
    if (this.lines.hidden || clientWidth === 0) return;
    this.lines.width = Math.round(clientWidth * devicePixelRatio);
    this.lines.height = Math.round(clientHeight * devicePixelRatio);
    const context = this.lines.getContext("2d");
    context.scale(this.lines.width / map.width, this.lines.height / map.height);
    context.lineCap = "round";
    for (const [width, color] of LINES) {
      context.lineWidth = (width * map.width) / clientWidth;
      context.strokeStyle = color;
      context.stroke(path);
    }
  }

  #option(map) {
    const attributes = { type: "radio", name: "overlay-map", value: map.name, checked: map.name === this.#name };
    return h("label", {}, h("input", attributes), h("span", {}, map.title));
  }

  #drag(event, pressed = event.buttons > 0) {
    if (!this.#wipe || !pressed) return;
    const box = this.frame.getBoundingClientRect();
    this.split.value = String((100 * (event.clientX - box.left)) / box.width);
    this.#fade();
  }

  #fade() {
    const slider = this.#wipe ? this.split : this.opacity;
    this.opacity.hidden = this.#wipe;
    this.split.hidden = this.border.hidden = !this.#wipe;
    this.over.style.opacity = this.#wipe ? "1" : String(this.opacity.value / 100);
    this.over.style.clipPath = this.#wipe ? `inset(0 0 0 ${this.split.value}%)` : "none";
    this.lines.style.opacity = String(Math.min(1, this.opacity.value / 50)); // a line is seen where a veil is not
    this.border.style.left = `${this.split.value}%`;
    this.percent.textContent = `${slider.value} %`;
  }
}
