// What an answer holds: maps with their exact values and the gateway's own colour pictures of them.

import { readNpz } from "./npz.js";

/** How values of each kind read; `at` is the index of the pixel in the map. */
const READ = {
  labels: (map, at) => {
    const id = map.values[at];
    return id === map.info.ignore_index ? "no class" : (map.label(id)?.name ?? `class ${id}`);
  },
  depth: (map, at) => {
    const value = map.values[at];
    if (!(value > 0)) return "invalid";
    return map.info.metric ? `${value.toFixed(2)} m` : value.toPrecision(3);
  },
  normals: (map, at) => {
    return Array.from(map.values.subarray(3 * at, 3 * at + 3), signed).join(" ");
  },
  probability: (map, at) => `${(100 * map.values[at]).toFixed(1)} %`,
};

const DESCRIBE = {
  labels: (info) => `${info.present.length} of ${info.labels.length} classes (${info.dataset})`,
  depth: (info) => {
    if (info.min === undefined) return "nothing valid";
    const unit = info.metric ? " m" : ", no unit";
    return `${info.min.toFixed(2)} to ${info.max.toFixed(2)}${unit}, near is bright`;
  },
  normals: (info) => info.frame,
  probability: () => "0 black to 100 % white",
};

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return (value < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
}

export class DenseMap {
  #canvas = null;

  constructor(name, info, values, picture) {
    this.name = name;
    this.info = info;
    this.values = values;
    this.picture = picture; // uint8, three a pixel
    this.width = info.width;
    this.height = info.height;
  }

  label(id) {
    return this.info.labels.find((label) => label.id === id);
  }

  /** Index of the pixel at (u, v), both from 0 to 1, of the photo. */
  index(u, v) {
    const x = Math.min(Math.floor(u * this.width), this.width - 1);
    const y = Math.min(Math.floor(v * this.height), this.height - 1);
    return y * this.width + x;
  }

  /** The value at (u, v), for people. */
  read(u, v) {
    return (READ[this.info.kind] ?? ((map, at) => String(map.values[at])))(this, this.index(u, v));
  }

  /** A line about the whole map. */
  describe() {
    return DESCRIBE[this.info.kind]?.(this.info) ?? this.info.kind;
  }

  /** How many pixels each class id has. */
  counts() {
    const counts = new Array(256).fill(0);
    for (const id of this.values) counts[id]++;
    return counts;
  }

  /** The picture as a canvas; with a class id `only`, every other class is all but transparent. */
  canvas(only = null) {
    if (only !== null) return this.#draw((at) => (this.values[at] === only ? 255 : 24));
    this.#canvas ??= this.#draw(() => 255);
    return this.#canvas;
  }

  #draw(alpha) {
    const image = new ImageData(this.width, this.height);
    for (let at = 0; at < this.width * this.height; at++) {
      image.data[4 * at] = this.picture[3 * at];
      image.data[4 * at + 1] = this.picture[3 * at + 1];
      image.data[4 * at + 2] = this.picture[3 * at + 2];
      image.data[4 * at + 3] = alpha(at);
    }
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}

/** A photo and what the gateway found in it. */
export class Answer {
  /** `body` is the npz with pictures; `roundTrip` is in milliseconds. */
  constructor(photo, body, roundTrip) {
    const members = readNpz(body);
    const metadata = JSON.parse(members.get("metadata"));
    this.photo = photo;
    this.roundTrip = roundTrip;
    this.image = metadata.image;
    this.models = metadata.models;
    this.timings = metadata.timings_ms;
    this.maps = Object.entries(metadata.maps).map(
      ([name, info]) =>
        new DenseMap(name, info, members.get(name).data, members.get(`${name}.visualization`).data),
    );
  }

  get aspect() {
    return this.image.width / this.image.height;
  }

  map(name) {
    return this.maps.find((map) => map.name === name);
  }
}
