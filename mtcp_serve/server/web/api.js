// The gateway: requests, its errors, its Retry-After, its key. Every address is relative to the page's.

import { sleep } from "./dom.js";
import { openStream } from "./stream.js";

const KEY = "mtcp-api-key"; // of sessionStorage: forgotten with the tab
const TRIES = 5;
const LONGEST_WAIT_S = 30;
const UNREACHABLE = {
  code: "unreachable",
  message: "The server did not answer, or not to the end.",
  hint: "See whether it still runs, then try again.",
};
const UNREADABLE = {
  code: "unreadable",
  message: "The file cannot be read.",
  hint: "Is it a folder, or was it moved?",
};

/** What the gateway (or, with status 0, the network or the file) had against a request. */
export class ApiError extends Error {
  constructor(status, { code, message, hint }, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
    this.retryAfter = retryAfter;
  }

  /** Whether any other image would meet it too. */
  get general() {
    return this.code === "unreachable" || this.status === 401;
  }

  static async of(response) {
    const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    let detail;
    try {
      detail = (await response.json()).error;
    } catch {
      detail = null; // a proxy's own page, for instance
    }
    detail ??= { code: "http_error", message: `The answer was ${response.status} ${response.statusText}`, hint: "" };
    return new ApiError(response.status, detail, Number.isNaN(after) ? null : after);
  }
}

export class Api {
  /**
   * `askKey(wrong)` resolves to an API key, or null where the person has none;
   * `onWait(error, seconds)` is told of every wait for a busy server, and `onWait(null)` of its end.
   */
  constructor({ askKey, onWait }) {
    this.askKey = askKey;
    this.onWait = onWait;
  }

  /** Whether requests have a key. */
  get keyed() {
    return sessionStorage.getItem(KEY) !== null;
  }

  /** What GET /models answers. */
  models() {
    return this.#send("models", {}, "json");
  }

  /** The answer to `input` (a Blob), for the parameters in `query`, as an "arrayBuffer" or a "blob". */
  predict(input, query, as, signal) {
    const type = input.type.startsWith("image/") ? input.type : "application/octet-stream";
    const path = `predict?${new URLSearchParams(query)}`;
    return this.#send(path, { method: "POST", body: input, headers: { "Content-Type": type }, signal }, as);
  }

  /** Resolves to a stream of frames for the parameters in `query`, or to null where the server has none. */
  async stream(query) {
    await this.models(); // asks for a key where one is missing: a stream that is refused says nothing
    return openStream(query, sessionStorage.getItem(KEY));
  }

  async #send(path, options, as) {
    for (let attempt = 1; ; attempt++) {
      const key = sessionStorage.getItem(KEY);
      const { body, error } = await this.#sendOnce(path, options, as, key);
      if (!error) return body;
      if (error.status === 401) {
        if (sessionStorage.getItem(KEY) !== key) continue; // another request brought one meanwhile
        const given = await this.askKey(key !== null);
        if (given === null) throw error;
        sessionStorage.setItem(KEY, given);
      } else if ([429, 503].includes(error.status) && error.retryAfter !== null && attempt < TRIES) {
        const seconds = Math.min(error.retryAfter, LONGEST_WAIT_S);
        this.onWait(error, seconds);
        await sleep(1000 * seconds, options.signal);
        this.onWait(null);
      } else {
        throw error;
      }
    }
  }

  /** The `body` read to its end, or the `error` that came instead. */
  async #sendOnce(path, options, as, key) {
    const headers = { ...options.headers, ...(key === null ? {} : { "X-API-Key": key }) };
    try {
      const response = await fetch(path, { ...options, headers });
      return response.ok ? { body: await response[as]() } : { error: await ApiError.of(response) };
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // of fetch: what is sent, or the network, to the answer's end
      throw new ApiError(0, (await readable(options.body)) ? UNREACHABLE : UNREADABLE);
    }
  }
}

/** Whether `input` (a Blob), if there is any, is no folder and no file that was moved or changed since it was given. */
async function readable(input) {
  if (input === undefined) return true;
  const part = input.size === 0 ? input : input.slice(0, 1); // no slice of nothing fails, even where the file is gone
  return part.arrayBuffer().then(() => true, () => false);
}
