// Two points on the surface and how far apart they are.

import { h } from "./dom.js";

const REACH = 14; // pixels around the pointer in which a vertex is looked for
const SAME = 4; // pixels: of vertices that are about as near to the pointer, the one in front counts

/** Fires "change" when there are other marks, or they lie elsewhere. */
export class Measure extends EventTarget {
  #said = "";
  #marks = []; // indices of vertices: none, one or two
  #view = null; // the tangents and the matrix of the last picture

  /** `output` says the distance; the points are marked over `canvas`. */
  constructor(output, canvas) {
    super();
    this.output = output;
    this.canvas = canvas;
    this.dots = [0, 1].map(() => h("span", { class: "dot", hidden: true, "aria-hidden": "true" }));
    canvas.after(...this.dots);
    this.clear();
  }

  /** Measure on `mesh` from now on; its depths are metres if `metric`. Marks stay where its grid is the same. */
  use(mesh, metric) {
    if (mesh.vertices.length !== this.mesh?.vertices.length) this.#marks = [];
    this.mesh = mesh;
    this.metric = metric;
    this.#marks = this.#marks.filter((at) => mesh.vertices[3 * at + 2] > 0);
  }

  clear() {
    this.#marks = [];
    this.#say();
  }

  /** Mark the vertex that is drawn at (x, y), pixels of the canvas; a third mark begins anew. */
  mark(x, y) {
    const at = this.#find(x, y);
    if (at === null) return;
    this.#marks = this.#marks.length === 2 ? [at] : [...this.#marks, at];
    this.#say();
    this.draw(...this.#view);
  }

  /** Put the marks where the picture of `tangents` and `camera` has their vertices. */
  draw(tangents, camera) {
    this.#view = [tangents, camera];
    this.#say();
    this.dots.forEach((dot, index) => {
      const at = this.#marks[index];
      const place = at === undefined ? null : this.#project(at);
      dot.hidden = place === null;
      if (place === null) return;
      dot.style.left = `${this.canvas.offsetLeft + place.x}px`;
      dot.style.top = `${this.canvas.offsetTop + place.y}px`;
    });
  }

  /** Distance between the marks, or null. */
  get distance() {
    if (this.#marks.length < 2) return null;
    const [a, b] = this.#marks.map((at) => this.#point(at));
    return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
  }

  /**
   * The only mark, or null: its vertex `at`, its place `x`, `y` in the image (0 to 1, y down), metres `away` from the
   * camera, and the share of them `along` the camera's axis.
   */
  get only() {
    if (this.#marks.length !== 1 || !this.metric || this.#view === null) return null;
    const [at] = this.#marks;
    const [x, y, depth] = this.mesh.vertices.subarray(3 * at, 3 * at + 3);
    const away = Math.hypot(...this.#point(at));
    return { at, x: (x + 1) / 2, y: (1 - y) / 2, away, along: depth / away };
  }

  #say() {
    const { distance } = this;
    const amount = distance === null ? "" : `${distance.toFixed(2)}${this.metric ? " m" : " (no unit)"}`;
    const text = amount ? `${amount} between the two points` : ["Click two points to measure between them", "Click the second point"][this.#marks.length];
    if (this.output.textContent !== text) this.output.textContent = text;
    const said = `${text} ${this.only?.at} ${this.only?.away}`;
    if (said !== this.#said) this.dispatchEvent(new Event("change"));
    this.#said = said;
  }

  #point(at) {
    const [x, y, depth] = this.mesh.vertices.subarray(3 * at, 3 * at + 3);
    const [tangents] = this.#view;
    return [x * tangents[0] * depth, y * tangents[1] * depth, -depth];
  }

  #project(at) {
    const point = this.#point(at);
    const [, m] = this.#view;
    const [x, y, , w] = [0, 1, 2, 3].map(
      (row) => m[row] * point[0] + m[4 + row] * point[1] + m[8 + row] * point[2] + m[12 + row],
    );
    if (w <= 0) return null;
    const { clientWidth, clientHeight } = this.canvas;
    return { x: ((x / w + 1) * clientWidth) / 2, y: ((1 - y / w) * clientHeight) / 2, far: w };
  }

  #find(x, y) {
    if (!this.mesh || this.#view === null) return null;
    let best = null;
    for (const at of this.mesh.points) {
      const place = this.#project(at);
      if (place === null) continue;
      const off = Math.round(Math.hypot(place.x - x, place.y - y) / SAME);
      if (off * SAME > REACH) continue;
      if (best === null || off < best.off || (off === best.off && place.far < best.far)) best = { at, off, far: place.far };
    }
    return best === null ? null : best.at;
  }
}
