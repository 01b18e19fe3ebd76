// How sure the model is of its maps: asked for, and drawn, while the switch is on.

import { $ } from "./dom.js";

const GREY = 128;
const STRIPE = [64, 192]; // greys that take turns where a map is more likely wrong than right
const PERIOD = 1 / 48; // from stripe to stripe, of the picture's longer side
const VEIL = 200; // opacity of what is wholly unsure, over the image

/** Fires "change" when it is turned on or off. */
export class Sureness extends EventTarget {
  #offers = { models: [], tasks: {} };

  constructor(element) {
    super();
    this.element = element;
    this.box = element.querySelector("input");
    this.box.addEventListener("change", () => {
      this.#explain();
      this.dispatchEvent(new Event("change"));
    });
    $("model").addEventListener("change", () => this.show());
  }

  get on() {
    return this.box.checked && this.offered;
  }

  /** Whether the models that are asked say it of any map. */
  get offered() {
    const { models, tasks } = this.#offers;
    const chosen = $("model").value;
    return models.some(({ name, tasks: its }) =>
      its.some((task) => task.confidence && (chosen ? name === chosen : tasks[task.name] === name)));
  }

  /** Take what GET /models says. */
  offer(found) {
    this.#offers = found;
    this.show();
  }

  /** The switch is there where there is something to ask for, in the `view` that draws it. */
  show(view = this.view) {
    this.view = view;
    this.element.hidden = !this.offered || view === "cutout";
    this.#explain();
  }

  /** Parameters of a request for the maps that `answer` has; a `kind` is the only one that the format heeds. */
  query(answer = null, kind = null) {
    const heeded = (map) => map.info.confidence && (kind === null || map.info.kind === kind);
    return this.on && (answer === null || answer.maps.some(heeded)) ? { confidence: true } : {};
  }

  #explain() {
    this.element.querySelector(".about").hidden = !this.box.checked;
  }
}

/**
 * Change the RGBA `data` of a picture, `width` pixels wide: colours fade to grey as `confidence` (0 to 1, one a pixel)
 * falls; below one half grey is striped. With a `veil` what is unsure is seen where the picture is clear, too.
 */
export function fade(data, confidence, width, veil) {
  const period = Math.max(4, Math.round(PERIOD * Math.max(width, confidence.length / width)));
  for (let at = 0; at < confidence.length; at++) {
    const share = Math.min(Math.max(confidence[at], 0), 1);
    if (share === 1) continue;
    const place = ((at % width) + Math.floor(at / width)) % period;
    const grey = confidence[at] < 0.5 ? STRIPE[Number(2 * place < period)] : GREY;
    for (let channel = 4 * at; channel < 4 * at + 3; channel++) {
      data[channel] = grey + share * (data[channel] - grey);
    }
    if (veil) data[4 * at + 3] = Math.max(data[4 * at + 3], VEIL * (1 - share));
  }
}
