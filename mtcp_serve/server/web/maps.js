// What an answer holds: maps with their exact values and the gateway's own colour pictures of them.

import { borders } from "./borders.js";
import { color } from "./colors.js";
import { readNpz } from "./npz.js";
import { fade } from "./sureness.js";

const BACKGROUND = /^(background|other|nothing|void|unlabell?ed)$/i; // class names that mean no thing at all
const SUBJECT = 0.5; // a probability that says there is something

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
  labels: (info) => `${info.present.length} of ${info.labels.length} classes`,
  depth: (info) => {
    if (info.min === undefined) return "nothing valid";
    return `${info.min.toFixed(2)} to ${info.max.toFixed(2)}${info.metric ? " m" : ", no unit"}`;
  },
  normals: (info) => info.frame,
  probability: () => "0 black to 100 % white",
};

const NOTHING = {
  labels: "Nothing of these classes in this image",
  depth: "No valid distance in this image",
  probability: "No clear subject in this image",
};

function percent(share) {
  return `${Math.round(100 * share)}\u00a0%`;
}

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return (value < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
}

export class DenseMap {
  #canvas = null;
  #overlay = null;
  #outline = null;
  #sent;
  #table = null;
  #doubting = false;

  /** `confidence` has, where it was asked for and the model says so, how sure that is of each value. */
  constructor(name, info, values, picture, confidence = null) {
    this.name = name;
    this.info = info;
    this.values = values;
    this.confidence = confidence;
    this.picture = this.#sent = picture; // uint8, three a pixel
    this.width = info.width;
    this.height = info.height;
  }

  /** What people call it. */
  get title() {
    return this.info.title ?? this.name;
  }

  /** Whether pixels of class `id` show no thing. */
  background(id) {
    return id === this.info.ignore_index || BACKGROUND.test(this.label(id)?.name ?? "");
  }

  /** Let depth have the colours of `table`, or those that were sent (null). */
  color(table) {
    if (this.info.kind !== "depth" || table === this.#table) return;
    this.#table = table;
    this.#canvas = this.#overlay = null;
    this.picture = table === null ? this.#sent : color(this.values, table);
  }

  /** Whether the pictures show how sure the model is. */
  doubt(on) {
    if (on === this.#doubting) return;
    this.#doubting = on;
    this.#canvas = this.#overlay = null;
  }

  /** Why there is nothing to see in this map, or null. */
  get nothing() {
    const { kind } = this.info;
    const empty =
      (kind === "labels" && this.info.present.every((id) => this.background(id))) ||
      (kind === "depth" && this.info.min === undefined) ||
      (kind === "probability" && !this.values.some((value) => value >= SUBJECT));
    return empty ? NOTHING[kind] : null;
  }

  label(id) {
    return this.info.labels.find((label) => label.id === id);
  }

  /** Index of the pixel at (u, v), both from 0 to 1, of the image. */
  index(u, v) {
    const x = Math.min(Math.floor(u * this.width), this.width - 1);
    const y = Math.min(Math.floor(v * this.height), this.height - 1);
    return y * this.width + x;
  }

  /** The value at (u, v), for people. */
  read(u, v) {
    return (READ[this.info.kind] ?? ((map, at) => String(map.values[at])))(this, this.index(u, v));
  }

  /** How sure the model is of the value at (u, v), for people; "" where it does not say or nobody wants to know. */
  sure(u, v) {
    if (!this.#doubting || this.confidence === null) return "";
    return `${percent(this.confidence[this.index(u, v)])} sure`;
  }

  /** Both, for people. */
  say(u, v) {
    return [this.read(u, v), this.sure(u, v)].filter(Boolean).join(", ");
  }

  /** A line about the whole map. */
  describe() {
    return this.nothing ?? DESCRIBE[this.info.kind]?.(this.info) ?? this.info.kind;
  }

  /** A line about how sure the model is of the whole map; "" where nobody wants to know. */
  describeSureness() {
    if (!this.#doubting) return "";
    const { confidence } = this.info;
    if (!confidence) return "The model does not say how sure it is.";
    return `On average ${percent(confidence.mean)} sure that ${confidence.criterion}.`;
  }

  /** How many pixels each class id has. */
  counts() {
    const counts = new Array(256).fill(0);
    for (const id of this.values) counts[id]++;
    return counts;
  }

  /** The picture as a canvas; with a class id `only`, every other class is all but transparent. */
  canvas(only = null) {
    if (only !== null) return this.#draw(false, (at, id) => (id === only ? 255 : 24));
    this.#canvas ??= this.#draw(false, () => 255);
    return this.#canvas;
  }

  /** The picture to lay over the image: no background, which `outline` has the borders of. */
  overlay(only = null) {
    if (only === null && this.#overlay) return this.#overlay;
    const canvas = this.#drawOverlay(only);
    if (only === null) this.#overlay = canvas;
    return canvas;
  }

  #drawOverlay(only) {
    if (this.info.kind === "probability") {
      return this.#draw(true, (at) => 255 * (1 - this.values[at]), () => [0, 0, 0]); // the rest steps back
    }
    if (this.info.kind !== "labels") return this.#draw(true, () => 255);
    const hidden = [...Array(256).keys()].map((id) => (only === null ? this.background(id) : id !== only));
    return this.#draw(only === null, (at, id) => (hidden[id] ? 0 : 215));
  }

  /** The borders of the classes, or of the class id `only`: a Path2D in pixels of the map; null if it has none. */
  outline(only = null) {
    if (this.info.kind !== "labels") return null;
    if (only !== null) return borders(this.values.map((id) => Number(id === only)), this.width, this.height);
    this.#outline ??= borders(this.values, this.width, this.height);
    return this.#outline;
  }

  /** `alpha(at, id)`, and `color(at)` where it is not that of the picture, of every pixel; `veil` is as in `fade`. */
  #draw(veil, alpha, color = () => null) {
    const image = new ImageData(this.width, this.height);
    for (let at = 0; at < this.width * this.height; at++) {
      const [red, green, blue] = color(at) ?? this.picture.subarray(3 * at, 3 * at + 3);
      image.data[4 * at] = red;
      image.data[4 * at + 1] = green;
      image.data[4 * at + 2] = blue;
      image.data[4 * at + 3] = alpha(at, this.values[at]);
    }
    if (this.#doubting && this.confidence !== null) fade(image.data, this.confidence, this.width, veil);
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }
}

/** An image and what the gateway found in it. */
export class Answer {
  /** `body` is the npz with pictures; `roundTrip` is in milliseconds. */
  constructor(input, body, roundTrip) {
    const members = readNpz(body);
    const metadata = JSON.parse(members.get("metadata"));
    this.input = input;
    this.roundTrip = roundTrip;
    this.image = metadata.image;
    this.models = metadata.models;
    this.timings = metadata.timings_ms;
    this.maps = Object.entries(metadata.maps).map(
      ([name, info]) =>
        new DenseMap(
          name,
          info,
          members.get(name).data,
          members.get(`${name}.visualization`).data,
          members.get(`${name}_confidence`)?.data,
        ),
    );
  }

  /** Degrees that the camera sees from left to right, and who says so. */
  get fieldOfView() {
    const { fx, cx, source } = this.image.camera;
    const radians = Math.atan((cx + 0.5) / fx) + Math.atan((this.image.width - 0.5 - cx) / fx);
    return { degrees: (180 * radians) / Math.PI, source };
  }

  /** Milliseconds that the server worked on it. */
  get busy() {
    const { queue, ...work } = this.timings;
    return Object.values(work).reduce((sum, ms) => sum + ms, 0);
  }

  get aspect() {
    return this.image.width / this.image.height;
  }

  map(name) {
    return this.maps.find((map) => map.name === name);
  }
}
