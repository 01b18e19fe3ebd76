// Several images: a strip of them with small pictures of their maps; one is shown, the rest are worked on meanwhile.

import { ApiError } from "./api.js";
import { $, h } from "./dom.js";
import { save } from "./downloads.js";
import { InputImage } from "./input_image.js";
import { ZipMerger } from "./zip.js";

const SIDE = 112; // pixels of the page: an image in the strip
const KEPT = 3; // answers in memory; those of other images are asked for again when they are chosen
export const MOST_IMAGES = 100;
const KEYS = { ArrowLeft: -1, ArrowRight: 1 };
const MOST_NAMES = 3; // of files that are missing from the zip

export class Roll {
  items = []; // {blob, name, state, answer, button, input, maps}; state is waiting, done or failed
  shown = null;
  #recent = []; // items that have their answer, the last one last
  #saving = false;

  /** `choose(item)` shows one; `fetch(item)` resolves to the zip (an ArrayBuffer) of its files; `say` and `fail` tell. */
  constructor({ choose, fetch, say, fail }) {
    Object.assign(this, { choose, fetch, say, fail });
    $("roll-save").addEventListener("click", () => this.#save());
    $("roll-items").addEventListener("keydown", (event) => this.#key(event));
  }

  /** Take `images` (`{blob, name}`) instead of those that are here; fewer than two need no strip. */
  start(images) {
    if (images.length < 2 && this.items.length === 0) return;
    this.items = images.length < 2 ? [] : images.map((input) => this.#item(input));
    this.shown = this.items[0] ?? null;
    this.#recent = [];
    $("roll-items").replaceChildren(...this.items.map((item) => h("li", {}, item.button)));
    $("roll").hidden = this.items.length === 0;
    this.#mark();
  }

  /** The next to be worked on, or null. */
  get waiting() {
    return this.items.find((item) => item.state === "waiting") ?? null;
  }

  get done() {
    return this.items.filter((item) => item.state !== "waiting").length;
  }

  /** Every image is to be asked for again. */
  reset() {
    for (const item of this.items) this.#set(item, "waiting");
    for (const item of this.#recent.splice(0)) item.answer = null;
  }

  show(item) {
    this.shown = item;
    this.#mark();
  }

  /** `answer` is that of `item`. */
  fill(item, answer) {
    this.#set(item, "done");
    this.#recent = [...this.#recent.filter((other) => other !== item), item];
    item.answer = answer;
    while (this.#recent.length > KEPT) this.#recent.shift().answer = null;
    if (answer.input.canvas) shrink(item.input, answer.input.canvas);
    item.maps.replaceChildren(...answer.maps.map((map) => shrink(h("canvas"), map.canvas(), SIDE / answer.maps.length)));
    this.#mark();
  }

  /** `item` has no answer; where any other would meet the same (`general`), none of those that wait is asked for. */
  failed(item, why, general) {
    for (const each of general ? this.items.filter(({ state }) => state === "waiting") : [item]) {
      this.#set(each, "failed", why);
    }
    this.#mark();
  }

  #item({ blob, name }) {
    const input = h("canvas", { width: 1, height: 1 });
    const maps = h("span", { class: "minis", "aria-hidden": "true" });
    const state = h("span", { class: "state" });
    const button = h("button", { type: "button" }, input, maps, h("span", { class: "unseen" }, name), state);
    const item = { blob, name, state: "waiting", answer: null, button, input, maps, said: state };
    button.addEventListener("click", () => this.choose(item));
    this.#set(item, "waiting");
    return item;
  }

  #set(item, state, why = item.name) {
    item.state = state;
    item.button.title = why;
    item.button.classList.toggle("failed", state === "failed");
    item.said.textContent = { waiting: "waiting", done: "", failed: "failed" }[state];
  }

  #mark() {
    for (const item of this.items) {
      if (item === this.shown) item.button.setAttribute("aria-current", "true");
      else item.button.removeAttribute("aria-current");
    }
    const count = this.items.length;
    $("roll-count").textContent = this.waiting ? `${this.done} of ${count} images` : `${count} images`;
    $("roll-save").disabled = this.items.every(({ state }) => state === "failed");
  }

  #key(event) {
    if (!(event.key in KEYS) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const at = this.items.findIndex((item) => item.button === document.activeElement);
    this.items[(at + KEYS[event.key] + this.items.length) % this.items.length].button.focus();
  }

  async #save() {
    if (this.#saving) return;
    this.#saving = true;
    const items = [...this.items];
    const merger = new ZipMerger();
    const missing = [];
    let saved = 0;
    try {
      for (const item of items) {
        this.say(`Making maps.zip: ${saved} of ${items.length} images…`);
        const zip = item.state === "failed" ? null : await this.#zip(item);
        if (zip === null) missing.push(item.name);
        else merger.add(`${String(++saved).padStart(3, "0")}-${new InputImage(null, item.name).stem}`, zip);
      }
      if (saved > 0) save(merger.finish(), "maps.zip");
      this.say(said(saved, missing));
    } catch (error) {
      this.fail(error);
    } finally {
      this.#saving = false;
    }
  }

  /** The zip of `item`, or null where this one has none. */
  async #zip(item) {
    try {
      return await this.fetch(item);
    } catch (error) {
      if (!(error instanceof ApiError) || error.general) throw error;
      return null;
    }
  }
}

/** What came of the zip of `saved` images, for people, with the names of those that are `missing`. */
function said(saved, missing) {
  if (saved === 0) return "There is no maps.zip: no image has maps.";
  if (missing.length === 0) return `maps.zip is ready: ${saved} images.`;
  const names = missing.length > MOST_NAMES ? `${missing.length} others` : missing.join(", ");
  return `maps.zip is ready: ${saved} of ${saved + missing.length} images; ${names} failed.`;
}

/** `canvas` with a picture of `source`, `side` wide on the page. */
function shrink(canvas, source, side = SIDE) {
  const scale = Math.min(1, (side * devicePixelRatio) / Math.max(source.width, source.height));
  canvas.width = Math.max(1, Math.round(source.width * scale));
  canvas.height = Math.max(1, Math.round(source.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
