// The cut-out: the image without its background, as the gateway makes it.

import { copyPicture } from "./clipboard.js";
import { save } from "./downloads.js";

export class Cutout {
  #blob = null;
  #asked = 0;

  /** `fetch(image)` resolves to the PNG (a Blob) of an image's cut-out, or to null. */
  constructor(element, fetch) {
    this.fetch = fetch;
    this.frame = element.querySelector(".frame");
    this.canvas = element.querySelector("canvas");
    this.message = element.querySelector(".missing");
    this.color = element.querySelector("input[type=color]");
    this.colored = element.querySelector("input[type=checkbox]");
    this.buttons = element.querySelectorAll("button");
    for (const input of [this.color, this.colored]) input.addEventListener("input", () => this.#paintGround());
    element.querySelector("[data-save]").addEventListener("click", () => {
      save(this.#blob, `${this.answer.input.stem}-cutout.png`);
    });
    element.querySelector("[data-copy]").addEventListener("click", (event) => copyPicture(this.#blob, event.target));
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

  #enable(on) {
    for (const button of this.buttons) button.disabled = !on;
  }

  #paintGround(again = true) {
    this.color.disabled = !this.colored.checked;
    if (again && this.answer) this.draw();
  }
}
