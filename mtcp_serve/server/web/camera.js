// The camera panel: start, one photo, a live loop that sends the next frame when the last is answered, stop.

import { $, sleep } from "./dom.js";
import { Webcam } from "./webcam.js";

const HIDDEN_MS = 300; // how often a loop whose page nobody sees looks whether somebody does

export class CameraPanel {
  #loop = null; // of the live loop: its AbortController
  #starting = false;

  /** `predict(blob, name, live)` resolves to whether the photo (a Blob or a promise of one) was answered. */
  constructor(predict, refuse) {
    this.predict = predict;
    this.refuse = refuse;
    this.webcam = new Webcam($("video"), () => {
      this.stop();
      refuse("The camera is gone.", "See whether it is connected and still allowed, then use it again.");
    });
    $("camera-start").addEventListener("click", () => this.#start());
    $("camera-take").addEventListener("click", () => this.#take());
    $("camera-live").addEventListener("click", () => (this.#loop ? this.endLive() : this.#live()));
    $("camera-stop").addEventListener("click", () => this.stop());
  }

  get live() {
    return this.#loop !== null;
  }

  stop() {
    this.endLive();
    this.webcam.stop();
    $("camera").hidden = true;
    $("camera-start").hidden = false;
    $("camera-start").focus();
  }

  endLive() {
    this.#loop?.abort();
    this.#loop = null;
    $("camera-live").setAttribute("aria-pressed", "false");
    $("camera-rate").textContent = "";
  }

  async #start() {
    if (this.#starting) return; // a second stream would never be stopped
    this.#starting = true;
    try {
      await this.webcam.start();
    } catch (error) {
      this.refuse(error.message, "");
      return;
    } finally {
      this.#starting = false;
    }
    $("camera").hidden = false;
    $("camera-start").hidden = true;
    $("camera-take").focus();
  }

  #take() {
    this.endLive();
    this.predict(this.webcam.frame(), "camera.jpg", false);
  }

  async #live() {
    const loop = (this.#loop = new AbortController());
    $("camera-live").setAttribute("aria-pressed", "true");
    while (this.#loop === loop) {
      if (document.hidden) {
        await sleep(HIDDEN_MS);
        continue;
      }
      const start = performance.now();
      const frame = await this.webcam.frame();
      if (this.#loop !== loop) return;
      const answered = await this.predict(frame, "camera.jpg", true);
      if (this.#loop !== loop) return;
      if (!answered) {
        this.endLive();
        return;
      }
      $("camera-rate").textContent = `${(1000 / (performance.now() - start)).toFixed(1)} photos a second`;
    }
  }
}
