// The cut-out: the image without its background, as the gateway makes it; over a colour, as the browser shows it.

import { copyPicture } from "./clipboard.js";
import { save } from "./downloads.js";

export const TRANSPARENT = "transparent"; // no background

export class Cutout {
  #blob = null; // the transparent cut-out of `answer`
  #work = new AbortController(); // of the request for it

  /**
   * `fetch(answer, signal)` resolves to the transparent PNG (a Blob) of an image's cut-out to look at, or to null, and
   * `keep(answer, background, blob)` to the one to download and copy.
   */
  constructor(element, fetch, keep) {
    this.fetch = fetch;
    this.keep = keep;
    this.frame = element.querySelector(".frame");
    this.canvas = element.querySelector("canvas");
    this.message = element.querySelector(".missing");
    this.color = element.querySelector("input[type=color]");
    this.colored = element.querySelector("input[type=checkbox]");
    this.buttons = element.querySelectorAll("button");
    for (const input of [this.color, this.colored]) input.addEventListener("input", () => this.#paintGround());
    element.querySelector("[data-save]").addEventListener("click", async () => {
      const { stem } = this.answer.input;
      const blob = await this.#kept();
      if (blob !== null) save(blob, `${stem}-cutout.png`);
    });
    element.querySelector("[data-copy]").addEventListener("click", (event) => copyPicture(this.#kept(), event.target));
  }

  /** The background (`#rrggbb`), or `TRANSPARENT`. */
  get background() {
    return this.colored.checked ? this.color.value : TRANSPARENT;
  }

  async show(answer) {
    if (answer === this.answer && this.#blob !== null) return;
    this.answer = answer;
    this.#blob = null;
    this.#work.abort();
    const { signal } = (this.#work = new AbortController());
    this.#enable(false);
    this.#paintGround();
    this.canvas.hidden = true;
    this.frame.setAttribute("aria-busy", "true");
    this.message.hidden = !answer.maps.find((map) => map.info.kind === "probability")?.nothing;
    const blob = await this.fetch(answer, signal);
    if (signal.aborted) return;
    this.frame.setAttribute("aria-busy", "false");
    if (blob === null) return;
    const picture = await createImageBitmap(blob);
    if (signal.aborted) return;
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    this.canvas.hidden = false;
    this.#blob = blob;
    this.#enable(true);
  }

  async #kept() {
    const { signal } = this.#work;
    this.#enable(false);
    const blob = await this.keep(this.answer, this.background, this.#blob);
    if (!signal.aborted) this.#enable(true);
    return blob;
  }

  #enable(on) {
    for (const button of this.buttons) button.disabled = !on;
  }

  #paintGround() {
    this.color.disabled = !this.colored.checked;
    this.canvas.style.background = this.background;
  }
}
