// The camera panel: start, one image, a live loop that always sends the newest frame, stop.

import { $, sleep } from "./dom.js";
import { Webcam } from "./webcam.js";

const HIDDEN_MS = 300; // how often a loop whose page nobody sees looks whether somebody does
const RECENT = 10; // answers whose pace and delay are told

export class CameraPanel {
  #feed = null; // of the live loop
  #starting = false;

  /**
   * `predict(blob, name, feed)` resolves to whether the image (a Blob or a promise of one) was answered;
   * `query()` is what frames are asked for, `feed()` a Feed, `fail(error)` and `refuse(message, hint)` say what is wrong.
   */
  constructor({ predict, query, feed, fail, refuse }) {
    Object.assign(this, { predict, query, newFeed: feed, fail, refuse });
    this.webcam = new Webcam($("video"), () => {
      this.stop();
      refuse("The camera is gone.", "See whether it is connected and still allowed, then use it again.");
    });
    $("camera-start").addEventListener("click", () => this.#start());
    $("camera-take").addEventListener("click", () => this.#take());
    $("camera-live").addEventListener("click", () => (this.live ? this.endLive() : this.#live()));
    $("camera-stop").addEventListener("click", () => this.stop());
  }

  get live() {
    return this.#feed !== null;
  }

  stop() {
    this.endLive();
    this.webcam.stop();
    $("camera").hidden = true;
    $("camera-start").hidden = false;
    $("camera-start").focus();
  }

  endLive() {
    this.#feed?.controller.abort();
    this.#feed = null;
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
    this.predict(this.webcam.frame(), "camera.jpg");
  }

  async #live() {
    const feed = (this.#feed = this.newFeed());
    const done = []; // when the last frames were answered
    $("camera-live").setAttribute("aria-pressed", "true");
    try {
      while (this.#feed === feed) {
        await feed.room(this.query());
        if (document.hidden) {
          await sleep(HIDDEN_MS);
          continue;
        }
        const frame = await this.webcam.frame();
        if (this.#feed === feed) this.#show(feed, frame, done);
      }
    } catch (error) {
      if (this.#feed !== feed) return;
      this.endLive();
      this.fail(error);
    }
  }

  async #show(feed, frame, done) {
    const start = performance.now();
    const answered = await this.predict(frame, "camera.jpg", feed);
    if (this.#feed !== feed) return;
    if (!answered) {
      this.endLive();
      return;
    }
    const now = performance.now();
    done.push(now);
    done.splice(0, done.length - RECENT - 1);
    const pace = done.length > 1 ? (done.length - 1) / (now - done[0]) : 1 / (now - start);
    const behind = ((now - start) / 1000).toFixed(1);
    $("camera-rate").textContent = `${(1000 * pace).toFixed(1)} images per second, ${behind} s behind`;
  }
}
