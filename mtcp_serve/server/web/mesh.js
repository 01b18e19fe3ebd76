// A surface from a depth map: a grid of vertices, without the triangles that would bridge a jump in depth.

const MOST_COLUMNS = 400; // vertices a side
const REACH = 2; // vertices to each side among which depth must not jump
const STEEPEST = 7; // depth change over width, both at that depth: about 82 degrees
const VIEW_AT_60_DEGREES = 2 * Math.tan(Math.PI / 6); // width of the view at depth 1

/**
 * Vertices are (x, y, depth), x and y from -1 to 1 over the photo, y up: times depth and the tangent of half
 * the field of view that is the point before the camera. `depth` is a DenseMap.
 */
export function buildMesh(depth) {
  const step = Math.max(1, Math.ceil(Math.max(depth.width, depth.height) / MOST_COLUMNS));
  const columns = Math.floor((depth.width - 1) / step) + 1;
  const rows = Math.floor((depth.height - 1) / step) + 1;
  const vertices = new Float32Array(3 * columns * rows);
  const valid = [];
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at += 3) {
      const value = depth.values[row * step * depth.width + column * step];
      vertices[at] = (2 * (column * step + 0.5)) / depth.width - 1;
      vertices[at + 1] = 1 - (2 * (row * step + 0.5)) / depth.height;
      vertices[at + 2] = value;
      if (value > 0) valid.push(value);
    }
  }
  valid.sort((a, b) => a - b);
  const jump = (2 * REACH * STEEPEST * VIEW_AT_60_DEGREES * step) / Math.max(depth.width, depth.height);
  const quantile = (share) => valid[Math.floor(share * (valid.length - 1))] ?? 1;
  return {
    vertices,
    triangles: connect(vertices, columns, rows, jump),
    middle: (quantile(0.05) + quantile(0.95)) / 2,
    nearest: quantile(0),
    farthest: quantile(1),
  };
}

function connect(vertices, columns, rows, jump) {
  const torn = findTears(vertices, columns, rows, jump);
  const triangles = new Uint32Array(6 * (columns - 1) * (rows - 1));
  let count = 0;
  const add = (a, b, c) => {
    if (torn[a] || torn[b] || torn[c]) return;
    triangles[count] = a;
    triangles[count + 1] = b;
    triangles[count + 2] = c;
    count += 3;
  };
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const corner = row * columns + column;
      add(corner, corner + columns, corner + 1);
      add(corner + 1, corner + columns, corner + columns + 1);
    }
  }
  return triangles.subarray(0, count);
}

/** 1 where depth is invalid, or differs by more than `jump` times the nearest within `REACH` vertices. */
function findTears(vertices, columns, rows, jump) {
  const depths = Float32Array.from({ length: columns * rows }, (_, at) => vertices[3 * at + 2]);
  const least = filter(filter(depths, columns, rows, 1, Math.min), rows, columns, columns, Math.min);
  const most = filter(filter(depths, columns, rows, 1, Math.max), rows, columns, columns, Math.max);
  return Uint8Array.from(depths, (_, at) => Number(!(least[at] > 0) || most[at] - least[at] > jump * least[at]));
}

/** The `best` of the values up to `REACH` before and after along lines of `length`, `stride` apart in memory. */
function filter(values, length, lines, stride, best) {
  const found = new Float32Array(values.length);
  const next = stride === 1 ? length : 1;
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < length; place++) {
      const first = Math.max(0, place - REACH);
      const last = Math.min(length - 1, place + REACH);
      let value = values[line * next + first * stride];
      for (let at = first + 1; at <= last; at++) value = best(value, values[line * next + at * stride]);
      found[line * next + place * stride] = value;
    }
  }
  return found;
}
