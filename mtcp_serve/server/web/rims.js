// The rims along which a surface is torn: smooth contours instead of the stairs of the grid.

import { areJoined } from "./depth_edges.js";

const SETBACK = 0.5; // of a pixel: from the contour to the rim of the farther surface, as pixels on it show both
const NEAREST = 0.05; // of the way to the next pixel, that a contour comes to one
const SMOOTHINGS = 4;

/**
 * Move the vertices `rims` in `places` (x, y in pixels) to the contour between the two surfaces, where the depth
 * before sharpening, `ramps`, is the middle of both; then each goes half way to the middle of its neighbours on the rim.
 * Vertices of the picture's own border stay on it.
 */
export function smoothRims(places, rims, ramps, sharp, columns, rows) {
  for (const at of rims) {
    const [x, y] = toContour(at, ramps, sharp, columns, rows);
    const column = at % columns;
    const row = (at - column) / columns;
    if (column > 0 && column + 1 < columns) places[2 * at] += x;
    if (row > 0 && row + 1 < rows) places[2 * at + 1] += y;
  }
  const isRim = new Uint8Array(ramps.length);
  for (const at of rims) isRim[at] = 1;
  const inner = rims.filter((at) => at % columns > 0 && (at + 1) % columns > 0 && at >= columns && at < columns * (rows - 1));
  const around = [1, -1, columns, -columns, columns - 1, 1 - columns, columns + 1, -columns - 1];
  const neighbours = inner.map((at) =>
    around.map((by) => at + by).filter((other) => isRim[other] && areJoined(sharp, at, other)));
  for (let round = 0; round < SMOOTHINGS; round++) {
    const moved = inner.map((at, index) => {
      const others = neighbours[index];
      if (others.length < 2) return [places[2 * at], places[2 * at + 1]];
      return [0, 1].map((axis) => {
        const middle = others.reduce((sum, other) => sum + places[2 * other + axis], 0) / others.length;
        return (places[2 * at + axis] + middle) / 2;
      });
    });
    inner.forEach((at, index) => places.set(moved[index], 2 * at));
  }
}

/** The way from a vertex to the line through the places where edges run between it and its neighbours. */
function toContour(at, ramps, sharp, columns, rows) {
  const column = at % columns;
  const row = (at - column) / columns;
  const normal = [0, 0];
  const look = (other, axis, sign) => {
    if (!(sharp.depths[other] > 0) || areJoined(sharp, at, other)) return;
    const [here, there] = [sharp.middles[at], sharp.middles[other]];
    const middle = here > 0 && there > 0 ? Math.sqrt(here * there) : here || there;
    const [before, behind] = [at, other].map((end) => Math.abs(Math.log(middle / ramps[end])));
    const share = before + behind > 0 ? before / (before + behind) : 0.5;
    normal[axis] += sign / Math.min(Math.max(share, NEAREST), 1 - NEAREST);
  };
  if (column > 0) look(at - 1, 0, -1);
  if (column + 1 < columns) look(at + 1, 0, 1);
  if (row > 0) look(at - columns, 1, -1);
  if (row + 1 < rows) look(at + columns, 1, 1);
  const length = Math.hypot(...normal);
  if (length === 0) return normal;
  const farther = sharp.depths[at] >= sharp.middles[at] && sharp.middles[at] > 0;
  const way = Math.min(1 / length, 1 - NEAREST) - (farther ? SETBACK : 0); // of opposite edges the sum may be small
  return normal.map((part) => (way * part) / length);
}
