// The 3-D view: the image or a map on the surface that its depth describes; mouse, touch and keys turn it.

import { h } from "./dom.js";
import { buildMesh } from "./mesh.js";
import { Measure } from "./measure.js";
import { cameraMatrix, Renderer } from "./renderer.js";

const START = { yaw: -0.06, pitch: 0.03, zoom: 0.95 }; // facing what the camera faced; a little aside, so that depth shows
const SOURCES = {
  request: "as you set it",
  exif: "the image's EXIF says so",
  manifest: "the model assumes it",
  assumed: "assumed: nobody says how wide the camera saw",
};
const POINT_SIZE = 2; // pixels of the page
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.08; // radians a key press
const ZOOM = 1.15; // a key press
const PER_PIXEL = 0.008; // radians a pixel of dragging
const IMAGE = "image";

export class Scene {
  #pointers = new Map();
  #still = null; // the pointer that is down and has not moved
  #source = null; // of the image that was shown last
  #chosen = false; // whether the person set the field of view of that
  #asked = 0;

  constructor(element, picture) {
    this.picture = picture;
    this.canvas = element.querySelector("canvas");
    this.message = element.querySelector(".missing");
    this.paintWith = element.querySelector("[data-paint]");
    this.shape = element.querySelector("[data-shape]");
    this.angle = element.querySelector("input[type=range]");
    this.degrees = element.querySelector("output");
    this.source = element.querySelector("[data-source]");
    this.points = element.querySelector("[data-points]");
    this.trained = element.querySelector("[data-trained]");
    this.measure = new Measure(element.querySelector("[data-measure]"), this.canvas);
    this.points.addEventListener("change", () => this.#render());
    this.view = { ...START };
    this.paintWith.addEventListener("change", () => this.draw());
    this.shape.addEventListener("change", () => this.draw());
    this.angle.addEventListener("input", () => {
      this.#chosen = true;
      this.#render();
    });
    element.querySelector("[data-reset]").addEventListener("click", () => this.#reset());
    this.#listen();
    new ResizeObserver(() => this.#render()).observe(this.canvas);
  }

  /** The parameters of a request for this view's own camera, where it was set for the image of `answer`. */
  cameraQuery(answer) {
    return this.#chosen && answer.input.source === this.#source ? { fov_x: this.angle.value } : {};
  }

  show(answer) {
    if (answer.input.source !== this.#source) {
      this.#source = answer.input.source;
      this.#chosen = false;
      this.measure.clear();
    }
    if (!this.#chosen) this.angle.value = String(Math.round(answer.fieldOfView.degrees));
    this.answer = answer;
    const names = answer.maps.map((map) => map.name);
    choose(this.paintWith, [...(answer.input.canvas ? [IMAGE] : []), ...names], answer);
    choose(this.shape, answer.maps.filter((map) => map.info.kind === "depth").map((map) => map.name), answer);
    this.shape.closest("label").hidden = this.shape.length < 2;
    this.draw();
  }

  /** Build the surface again, and paint it. */
  draw() {
    try {
      this.renderer ??= new Renderer(this.canvas);
    } catch {
      this.message.hidden = false;
      this.canvas.hidden = true;
      return;
    }
    const depth = this.answer.map(this.shape.value);
    this.mesh = buildMesh(depth);
    this.measure.use(this.mesh, depth.info.metric);
    this.trained.textContent = depth.info.trained_on ? `The model learnt distance from ${depth.info.trained_on}: elsewhere, outdoors for instance, metres are an order of magnitude.` : "";
    this.renderer.setMesh(this.mesh);
    const map = this.answer.map(this.paintWith.value);
    this.renderer.setPicture(map ? this.picture(map) : this.answer.input.canvas);
    this.#render();
  }

  #render() {
    this.degrees.textContent = `${this.angle.value}°`;
    this.source.textContent = SOURCES[this.#chosen ? "request" : this.answer?.fieldOfView.source] ?? "";
    cancelAnimationFrame(this.#asked);
    this.#asked = requestAnimationFrame(() => this.#renderNow());
  }

  #renderNow() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!this.mesh || clientWidth === 0) return;
    const ratio = Math.min(devicePixelRatio, 2);
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    const across = Math.tan((Number(this.angle.value) * Math.PI) / 360);
    const down = across / this.answer.aspect;
    const { middle, nearest, farthest } = this.mesh;
    const fit = Math.max(down, (across * clientHeight) / clientWidth); // the whole image is in sight
    const distance = middle / this.view.zoom;
    const camera = cameraMatrix({
      yaw: this.view.yaw,
      pitch: this.view.pitch,
      pivot: middle,
      distance,
      tangents: [(fit * clientWidth) / clientHeight, fit],
      near: nearest / 50,
      far: 4 * (distance + farthest * (1 + across)),
    });
    this.renderer.draw([across, down], camera, this.points.checked ? POINT_SIZE * ratio : 0);
    this.measure.draw([across, down], camera);
  }

  #turn(yaw, pitch) {
    this.view.yaw += yaw;
    this.view.pitch = Math.min(Math.max(this.view.pitch + pitch, -1.5), 1.5);
    this.#render();
  }

  #zoom(by) {
    this.view.zoom = Math.min(Math.max(this.view.zoom * by, 0.2), 8);
    this.#render();
  }

  #reset() {
    this.view = { ...START };
    this.#render();
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (KEYS[event.key]) this.#turn(STEP * KEYS[event.key][0], STEP * KEYS[event.key][1]);
      else if (event.key === "+" || event.key === "=") this.#zoom(ZOOM);
      else if (event.key === "-") this.#zoom(1 / ZOOM);
      else if (event.key === "Home" || event.key === "0") this.#reset();
      else if (event.key === "m") this.measure.mark(canvas.clientWidth / 2, canvas.clientHeight / 2);
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return; // else the page scrolls
      event.preventDefault();
      this.#zoom(ZOOM ** (-event.deltaY / 100));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      this.#still = this.#pointers.size === 1 ? event : null;
    });
    canvas.addEventListener("click", (event) => {
      const still = this.#still;
      if (still === null || Math.hypot(event.clientX - still.clientX, event.clientY - still.clientY) > 4) return;
      const box = canvas.getBoundingClientRect();
      this.measure.mark(event.clientX - box.left, event.clientY - box.top);
    });
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    canvas.addEventListener("restored", () => this.draw());
  }

  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) return;
    if (this.#pointers.size === 1) {
      this.#turn(PER_PIXEL * (event.clientX - before.clientX), PER_PIXEL * (event.clientY - before.clientY));
    } else {
      const other = [...this.#pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
      this.#zoom(apart(event) / Math.max(apart(before), 1));
    }
    this.#pointers.set(event.pointerId, event);
  }
}

/** Offer `names` in `select`, keeping what was chosen if it is still there. */
function choose(select, names, answer) {
  if (names.join() === [...select.options].map((option) => option.value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, answer.map(name)?.title ?? name)));
}
