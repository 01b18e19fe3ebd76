// A bar with the colours of a depth map and the distances they stand for, read from the map itself.

import { h } from "./dom.js";

const STEPS = 64;
const SAMPLES = 20_000;
const SHARES = [0.02, 0.98]; // the gateway spreads its colours between these quantiles

/** The bar of `map` (a DenseMap of kind depth), or null where nothing is valid. */
export function colorBar(map) {
  const pixels = sample(map);
  if (pixels.length === 0) return null;
  const [near, far] = SHARES.map((share) => map.values[pixels[Math.round(share * (pixels.length - 1))]]);
  const canvas = h("canvas", { width: STEPS, height: 1, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let step = 0; step < STEPS; step++) {
    context.fillStyle = `rgb(${colorAt(map, pixels, near + ((far - near) * step) / (STEPS - 1)).join(" ")})`;
    context.fillRect(step, 0, 1, 1);
  }
  const unit = map.info.metric ? " m" : "";
  const ticks = [near, (near + far) / 2, far].map((value) => h("span", {}, `${value.toFixed(1)}${unit}`));
  return h("div", { class: "colorbar", title: "Colours are spread over these distances" }, canvas, h("div", {}, ...ticks));
}

/** Indices of valid pixels, by rising depth. */
function sample(map) {
  const stride = Math.max(1, Math.floor(map.values.length / SAMPLES));
  const found = [];
  for (let at = 0; at < map.values.length; at += stride) if (map.values[at] > 0) found.push(at);
  return found.sort((a, b) => map.values[a] - map.values[b]);
}

/** The colour of `depth`, between those of the pixels that come next to it. */
function colorAt(map, pixels, depth) {
  let [low, high] = [0, pixels.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (map.values[pixels[middle]] <= depth) low = middle;
    else high = middle;
  }
  const [below, above] = [map.values[pixels[low]], map.values[pixels[high]]];
  const share = above > below ? Math.min(Math.max((depth - below) / (above - below), 0), 1) : 0;
  return [0, 1, 2].map((part) =>
    Math.round((1 - share) * map.picture[3 * pixels[low] + part] + share * map.picture[3 * pixels[high] + part]));
}
