// A surface from a depth map: a grid of vertices, torn where one surface ends before another.

import { areJoined, sharpen } from "./depth_edges.js";
import { smoothRims } from "./rims.js";

const MOST_COLUMNS = 400; // vertices a side

/**
 * Vertices are (x, y, depth), x and y from -1 to 1 over the image, y up: times depth and the tangent of half
 * the field of view that is the point before the camera. `depth` is a DenseMap. `points` are the vertices
 * that have a depth and belong to a surface.
 */
export function buildMesh(depth) {
  const step = Math.max(1, Math.ceil(Math.max(depth.width, depth.height) / MOST_COLUMNS));
  const columns = Math.floor((depth.width - 1) / step) + 1;
  const rows = Math.floor((depth.height - 1) / step) + 1;
  const ramps = new Float32Array(columns * rows);
  const places = new Float32Array(2 * columns * rows);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      ramps[at] = depth.values[row * step * depth.width + column * step];
      places.set([column, row], 2 * at);
    }
  }
  const sharp = sharpen(ramps, columns, rows);
  const valid = sharp.depths.filter((value) => value > 0).sort();
  const quantile = (share) => valid[Math.floor(share * (valid.length - 1))] ?? 1;
  const { triangles, points, rims } = connect(sharp, columns, rows);
  smoothRims(places, rims, ramps, sharp, columns, rows);
  return {
    vertices: place(places, sharp.depths, depth, step),
    triangles,
    points,
    middle: (quantile(0.05) + quantile(0.95)) / 2,
    nearest: quantile(0),
    farthest: quantile(1),
  };
}

function place(places, depths, { width, height }, step) {
  const vertices = new Float32Array(3 * depths.length);
  for (let at = 0; at < depths.length; at++) {
    vertices[3 * at] = (2 * (places[2 * at] * step + 0.5)) / width - 1;
    vertices[3 * at + 1] = 1 - (2 * (places[2 * at + 1] * step + 0.5)) / height;
    vertices[3 * at + 2] = depths[at];
  }
  return vertices;
}

/**
 * The triangles whose corners are joined, their corners, and those of them that are corners of a triangle left out.
 * Where one corner of a square is on another surface the other three form a triangle.
 */
function connect(sharp, columns, rows) {
  const triangles = new Uint32Array(6 * (columns - 1) * (rows - 1));
  const used = new Uint8Array(columns * rows);
  const lost = new Uint8Array(columns * rows);
  let count = 0;
  const joined = (a, b) => areJoined(sharp, a, b);
  const add = (a, b, c) => {
    const whole = joined(a, b) && joined(b, c) && joined(c, a);
    const marks = whole ? used : lost;
    marks[a] = marks[b] = marks[c] = 1;
    if (!whole) return;
    triangles[count] = a;
    triangles[count + 1] = b;
    triangles[count + 2] = c;
    count += 3;
  };
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const a = row * columns + column;
      const [b, c, d] = [a + 1, a + columns, a + columns + 1];
      if (joined(b, c) || !joined(a, d)) {
        add(a, c, b);
        add(b, c, d);
      } else {
        add(a, c, d);
        add(a, d, b);
      }
    }
  }
  const points = Uint32Array.from(used.keys()).filter((at) => used[at]);
  return { triangles: triangles.subarray(0, count), points, rims: [...points].filter((at) => lost[at]) };
}
