// Frames over one connection (WS /stream): each answer says which frame it is of, those left out get none.

import { ApiError } from "./api.js";

const PROTOCOL = "mtcp";
const KEY_PROTOCOL = "mtcp.key."; // and the key: a page can set no header here, and an address is logged

const CLOSED = {
  1001: "The server is stopping.",
  1009: "The camera's pictures are larger than this server takes.",
};
const FOR_GOOD = [1003, 1008, 1009]; // close codes that would come again

/** Resolves to the stream for the parameters in `query`, or to null where the server has none. */
export function openStream(query, key) {
  const address = new URL(`stream?${new URLSearchParams(query)}`, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address, [PROTOCOL, ...(key === null ? [] : [KEY_PROTOCOL + base64url(key)])]);
  socket.binaryType = "arraybuffer";
  return new Promise((resolve) => {
    socket.addEventListener("open", () => resolve(new FrameStream(socket)), { once: true });
    socket.addEventListener("close", () => resolve(null), { once: true });
  });
}

class FrameStream {
  #sent = 0;
  #waiting = []; // {number, resolve, reject} of each frame that is not answered, the oldest first
  #lost = null; // what ended it

  constructor(socket) {
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => this.#receive(data));
    socket.addEventListener("close", (event) => this.#closed(event));
  }

  /**
   * Resolves to the answer to `frame` (a Blob), an ArrayBuffer, or to null where a newer one took its place;
   * rejects with the ApiError that came instead.
   */
  send(frame) {
    if (this.#lost) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ number: this.#sent++, resolve, reject });
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(frame); // else the end is being told
    });
  }

  /** Leave: what is not answered gets null. */
  close() {
    this.socket.close(1000);
    for (const { resolve } of this.#waiting.splice(0)) resolve(null);
  }

  #receive(data) {
    if (typeof data !== "string") {
      this.#waiting.shift()?.resolve(data);
      return;
    }
    const { frame, error } = JSON.parse(data);
    while (this.#waiting.length > 0 && this.#waiting[0].number < frame) this.#waiting.shift().resolve(null);
    if (error) this.#waiting.shift()?.reject(new ApiError(0, error));
  }

  #closed({ code, reason }) {
    this.#lost = new ApiError(0, {
      code: FOR_GOOD.includes(code) ? "stream_refused" : "stream_lost",
      message: reason || CLOSED[code] || "The connection to the server was lost.",
      hint: "See whether the server still runs, then go live again.",
    });
    for (const { reject } of this.#waiting.splice(0)) reject(this.#lost);
  }
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
