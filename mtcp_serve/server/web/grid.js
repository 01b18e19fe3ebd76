// The image and every map side by side, whatever maps the answer has.

import { colorBar } from "./colorbar.js";
import { h, paint } from "./dom.js";

const NO_PICTURE = "This browser cannot show the image's format; the maps are those of the whole image.";

export class Grid {
  #names = null;
  #tiles = new Map(); // by name; the image's is ""

  /** `picture(map)` is a canvas; `enlarge(name)` and `download(name, color)` are the tile's buttons. */
  constructor(element, probe, { picture, enlarge, download }) {
    this.element = element;
    this.probe = probe;
    this.picture = picture;
    this.enlarge = enlarge;
    this.download = download;
    probe.addEventListener("move", () => this.#read());
  }

  show(answer) {
    this.answer = answer;
    const names = answer.maps.map((map) => map.name).join();
    if (names !== this.#names) {
      this.#names = names;
      this.#tiles.clear();
      this.#tiles.set("", this.#tile("", "Image"));
      for (const map of answer.maps) this.#tiles.set(map.name, this.#tile(map.name, map.title));
      this.element.replaceChildren(...[...this.#tiles.values()].map((tile) => tile.figure));
    }
    this.draw();
  }

  /** Paint every picture again. */
  draw() {
    const { image, input, maps } = this.answer;
    const own = this.#tiles.get("");
    own.canvas.hidden = input.canvas === null;
    own.missing.hidden = input.canvas !== null;
    if (input.canvas !== null) paint(own.canvas, input.canvas);
    own.about.textContent = `${image.width} × ${image.height} ${image.format}${image.exif_rotated ? ", turned as its EXIF says" : ""}${image.animated ? ", first frame" : ""}`;
    for (const map of maps) {
      const tile = this.#tiles.get(map.name);
      paint(tile.canvas, this.picture(map));
      tile.about.textContent = map.describe();
      tile.sure.textContent = map.describeSureness();
      tile.figure.classList.toggle("empty", map.nothing !== null);
      tile.bar.replaceChildren(...(map.info.kind === "depth" ? [colorBar(map) ?? ""] : []));
      tile.about.title = map.info.trained_on ? `${map.info.model}, trained on ${map.info.trained_on}` : map.info.model;
    }
    this.#read();
  }

  focus(name) {
    this.#tiles.get(name)?.frame.focus();
  }

  #tile(name, title) {
    const canvas = h("canvas");
    const missing = h("span", { class: "missing", hidden: true }, NO_PICTURE);
    const frame = h(
      "button",
      {
        type: "button",
        class: "frame",
        "data-map": name || "image",
        "aria-label": `Enlarge ${title}; arrow keys read values`,
        onclick: () => this.enlarge(name),
      },
      canvas,
      missing,
    );
    this.probe.attach(frame);
    const value = h("span", { class: "value" });
    const about = h("p", { class: "about" });
    const sure = h("p", { class: "quiet sure" });
    const files = h("span", { class: "files" });
    const bar = h("div");
    if (name) {
      files.append(
        this.#file(name, false, "PNG", `Download the values of ${title} as PNG`),
        this.#file(name, true, "Colour", `Download the colour picture of ${title}`),
      );
    }
    const caption = h(
      "figcaption",
      {},
      h("div", {}, h("span", { class: "name" }, title), value),
      bar,
      h("div", {}, about, files),
      sure,
    );
    const figure = h("figure", { class: name ? "tile" : "tile tile-image" }, frame, caption);
    return { figure, frame, canvas, missing, value, about, sure, bar };
  }

  #file(name, color, text, label) {
    const attributes = { type: "button", class: "small", "aria-label": label, title: label };
    return h("button", { ...attributes, onclick: () => this.download(name, color) }, text);
  }

  #read() {
    if (!this.answer) return;
    const { point, pixel } = this.probe;
    for (const [name, tile] of this.#tiles) {
      if (point === null) tile.value.textContent = "";
      else if (name === "") tile.value.textContent = `${pixel.x}, ${pixel.y}`;
      else tile.value.textContent = this.answer.map(name)?.say(point.u, point.v) ?? "";
    }
  }
}
