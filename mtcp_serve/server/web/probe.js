// The probe: one point of the image, shared by all pictures, and what every map says there.

import { $, h } from "./dom.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STRIDE = 10; // pixels a key press with Shift

/** Fires "move" when the point, or the answer it reads, has changed. */
export class Probe extends EventTarget {
  answer = null;
  point = null; // {u, v}, from 0 to 1

  show(answer) {
    this.answer = answer;
    this.#changed();
  }

  move(u, v) {
    const inside = (value) => Math.min(Math.max(value, 0), 1 - 1e-9);
    this.point = { u: inside(u), v: inside(v) };
    this.#changed();
  }

  clear() {
    this.point = null;
    this.#changed();
  }

  /** The pixel of the image, or null. */
  get pixel() {
    if (this.point === null || this.answer === null) return null;
    const { width, height } = this.answer.image;
    return { x: Math.floor(this.point.u * width), y: Math.floor(this.point.v * height) };
  }

  /**
   * Let pointer and arrow keys over `frame`, which shows the whole image, move the point, and mark it there. The live
   * region `spoken` says what keys have found.
   */
  attach(frame, spoken = $("spoken")) {
    const cross = h("span", { class: "cross", hidden: true });
    frame.append(cross);
    const follow = (event) => {
      const box = frame.getBoundingClientRect();
      this.move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    frame.addEventListener("pointermove", follow);
    frame.addEventListener("pointerdown", follow); // a finger that taps does not move
    frame.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.clear();
    });
    frame.addEventListener("keydown", (event) => this.#key(event, spoken));
    this.addEventListener("move", () => {
      cross.hidden = this.point === null;
      if (this.point === null) return;
      cross.style.left = `${100 * this.point.u}%`;
      cross.style.top = `${100 * this.point.v}%`;
    });
  }

  #key(event, spoken) {
    const step = KEYS[event.key];
    if (step === undefined || this.answer === null || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { width, height } = this.answer.image;
    const { x, y } = this.pixel ?? { x: Math.floor(width / 2), y: Math.floor(height / 2) };
    const stride = event.shiftKey ? STRIDE : 1;
    this.move((x + stride * step[0] + 0.5) / width, (y + stride * step[1] + 0.5) / height);
    spoken.textContent = this.sentence();
  }

  /** The point and its values in words, for screen readers. */
  sentence() {
    const { u, v } = this.point;
    const values = this.answer.maps.map((map) => `${map.title} ${map.say(u, v)}`);
    return `x ${this.pixel.x}, y ${this.pixel.y}: ${values.join("; ")}`;
  }

  #changed() {
    this.dispatchEvent(new Event("move"));
  }
}

/** A list of the values at the probe, in `element` (a dl), and of how sure the model is of them where it says so. */
export function readout(element, probe) {
  let shown = "";
  const cell = (name, map) => {
    const sure = map?.confidence ? [h("dd", { class: "quiet", "data-sure": name })] : [];
    return h("div", {}, h("dt", {}, map?.title ?? name), h("dd", { "data-value": name }, "\u2013"), ...sure);
  };
  const fill = () => {
    const { answer, point } = probe;
    if (answer === null) return;
    const wanted = answer.maps.map((map) => `${map.name} ${map.confidence !== null}`).join();
    if (wanted !== shown) {
      shown = wanted;
      element.replaceChildren(cell("pixel"), ...answer.maps.map((map) => cell(map.name, map)));
    }
    const [pixel, ...values] = element.querySelectorAll("[data-value]");
    pixel.textContent = point === null ? "\u2013" : `${probe.pixel.x}, ${probe.pixel.y}`;
    values.forEach((value, index) => {
      value.textContent = point === null ? "\u2013" : answer.maps[index].read(point.u, point.v);
    });
    for (const sure of element.querySelectorAll("[data-sure]")) {
      sure.textContent = point === null ? "" : answer.map(sure.dataset.sure).sure(point.u, point.v);
    }
  };
  probe.addEventListener("move", fill);
}
