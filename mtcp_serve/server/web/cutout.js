// The cut-out: the image without its background, as the gateway makes it.

import { copyPicture } from "./clipboard.js";
import { save } from "./downloads.js";

export class Cutout {
  #blob = null;
  #asked = 0;

  /**
   * `fetch(answer, background)` resolves to the PNG (a Blob) of an image's cut-out to look at, or to null, and
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

  /** The background (`#rrggbb`), or `transparent`. */
  get background() {
    return this.colored.checked ? this.color.value : "transparent";
  }

  show(answer) {
    if (answer !== this.answer) this.#blob = null;
    this.answer = answer;
    this.draw();
  }

  async draw() {
    const mine = ++this.#asked;
    this.#enable(false);
    this.#paintGround(false);
    this.canvas.hidden = true;
    this.frame.setAttribute("aria-busy", "true");
    this.message.hidden = !this.answer.maps.find((map) => map.info.kind === "probability")?.nothing;
    const blob = await this.fetch(this.answer, this.background);
    if (mine !== this.#asked) return;
    this.frame.setAttribute("aria-busy", "false");
    if (blob === null) return;
    const picture = await createImageBitmap(blob);
    if (mine !== this.#asked) return;
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    this.canvas.hidden = false;
    this.#blob = blob;
    this.#enable(true);
  }

  async #kept() {
    const asked = this.#asked;
    this.#enable(false);
    const blob = await this.keep(this.answer, this.background, this.#blob);
    if (asked === this.#asked) this.#enable(true);
    return blob;
  }

  #enable(on) {
    for (const button of this.buttons) button.disabled = !on;
  }

  #paintGround(again = true) {
    this.color.disabled = !this.colored.checked;
    if (again && this.answer) this.draw();
  }
}
