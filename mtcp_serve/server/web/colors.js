// Colours of depth by the gateway's own tables, chosen on the page.

import { $ } from "./dom.js";

const AS_SENT = "heat"; // what the gateway's pictures have
const SPREAD = [0.02, 0.98]; // quantiles of the depths between which the colours lie
const INVALID = 128; // grey

/** Fires "change" when another table has been chosen and is here. */
export class Colors extends EventTarget {
  table = null; // 256 colours of three bytes, the farthest first, or null for those that were sent
  #tables = null; // a promise of all, by name
  #asked = 0;

  constructor(select, fail) {
    super();
    this.select = select;
    select.addEventListener("change", () => this.#choose().catch(fail));
  }

  /** Parameters of a request whose pictures have these colours; `depth` is whether one is of depth. */
  query(depth) {
    return depth && this.select.value !== AS_SENT ? { colormap: this.select.value } : {};
  }

  async #choose() {
    const mine = ++this.#asked;
    const name = this.select.value;
    let table = null;
    if (name !== AS_SENT) {
      this.#tables ??= load().catch((error) => {
        this.#tables = null;
        throw error;
      });
      table = bytes((await this.#tables)[name]);
    }
    if (mine !== this.#asked) return;
    this.table = table;
    this.dispatchEvent(new Event("change"));
  }
}

/** The picture of `depths` (Float32Array) in the colours of `table`: near at its upper end, invalid grey. */
export function color(depths, table) {
  const valid = depths.filter((value) => value > 0).sort();
  const [near, far] = SPREAD.map((share) => quantile(valid, share));
  const picture = new Uint8Array(3 * depths.length).fill(INVALID);
  const scale = 255 / Math.max(far - near, 1e-6);
  for (let at = 0; at < depths.length; at++) {
    if (!(depths[at] > 0)) continue;
    const entry = 3 * Math.round(Math.min(Math.max((far - depths[at]) * scale, 0), 255));
    picture[3 * at] = table[entry];
    picture[3 * at + 1] = table[entry + 1];
    picture[3 * at + 2] = table[entry + 2];
  }
  return picture;
}

/** Of sorted values, between neighbours in proportion. */
function quantile(values, share) {
  const place = share * (values.length - 1);
  const [low, high] = [values[Math.floor(place)], values[Math.ceil(place)]];
  return low + (place - Math.floor(place)) * (high - low);
}

async function load() {
  const response = await fetch("web/colormaps.json");
  if (!response.ok) throw new Error("The server did not give its colours");
  return response.json();
}

function bytes(hex) {
  return Uint8Array.from({ length: hex.length / 2 }, (_, at) => Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16));
}
