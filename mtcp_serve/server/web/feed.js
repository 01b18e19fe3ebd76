// Work that a newer wish ends, and one such: the camera's frames, over a stream or by a request each.

import { sleep } from "./dom.js";

const AHEAD = 2; // frames under way over a stream: one is worked on, the next comes as it is done
const SLOW_MS = 200; // of work on one: beyond that, what the next one's way takes counts less than its age
const LEAD_MS = 50; // how long before the last is done the next is taken: its own way there
const RETRY_MS = 1000;

/** Requests that belong together; `controller` ends them. */
export class Work {
  controller = new AbortController();
  pending = 0;

  begin() {
    this.pending++;
  }

  finish() {
    this.pending--;
  }
}

/** The frames of one time that the camera goes live. */
export class Feed extends Work {
  #stream = null; // a promise of it, or of null where there is none
  #query = null; // what it was opened for
  #again = true; // whether a connection that is lost is opened once more; after an answer it is again
  #woken = () => {};
  #since = 0; // when the server began with the frame that it works on: as it came, or when the one before was done
  #busy = 0; // milliseconds that the server works on one

  constructor(api) {
    super();
    this.api = api;
    this.controller.signal.addEventListener("abort", () => {
      this.#woken();
      this.#stream?.then((stream) => stream?.close(), () => {});
    });
  }

  finish(busy = 0) {
    super.finish();
    if (busy > 0) this.#busy = busy;
    this.#woken();
  }

  /** Resolves when the next frame should be taken, for the parameters in `query`: so that it is a new one. */
  async room(query) {
    const stream = await this.#open(query);
    const { signal } = this.controller;
    while (!signal.aborted && this.pending >= (stream && this.#busy < SLOW_MS ? AHEAD : 1)) await this.#change();
    const early = () => this.#since + this.#busy - LEAD_MS - performance.now();
    while (!signal.aborted && this.pending > 0 && early() > 0) {
      await Promise.race([this.#change(), sleep(early())]);
    }
  }

  /** Resolves to the answer (an ArrayBuffer), or to null where the frame is lost and the next may do better. */
  async send(frame, query) {
    if (this.pending === 1) this.#since = performance.now();
    const { signal } = this.controller;
    const stream = await this.#open(query);
    signal.throwIfAborted();
    if (stream === null) return this.api.predict(frame, query, "arrayBuffer", signal);
    try {
      const answer = await stream.send(frame);
      this.#since = performance.now();
      signal.throwIfAborted();
      this.#again = true;
      return answer;
    } catch (error) {
      const passes = error.code === "overloaded" || (error.code === "stream_lost" && this.#reopens(stream));
      if (!passes) throw error;
      await sleep(RETRY_MS, signal);
      return null;
    }
  }

  #change() {
    return new Promise((resolve) => (this.#woken = resolve));
  }

  /** The stream for `query`: the parameters of one stay as they are, so others need another. */
  #open(query) {
    const wanted = JSON.stringify(query);
    if (this.#query !== wanted) {
      this.#stream = this.#next(this.#stream, query);
      this.#query = wanted;
    }
    return this.#stream;
  }

  async #next(before, query) {
    const last = await before;
    if (before !== null && last === null) return null; // the server has none
    last?.close();
    const stream = await this.api.stream(query);
    if (this.controller.signal.aborted) stream?.close();
    return stream;
  }

  /** Whether another connection takes the place of `stream`, which was lost. */
  #reopens(stream) {
    if (stream.replaced) return true;
    if (!this.#again) return false;
    stream.replaced = true;
    this.#again = false;
    this.#stream = this.#query = null;
    return true;
  }
}
