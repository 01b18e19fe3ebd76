// A surface from a depth map: a grid of vertices, without the triangles that would bridge a jump in depth.

const MOST_COLUMNS = 400; // vertices a side
const REACH = 6; // vertices to each side: of ramps that are sharpened
const ROUNDS = 2; // of sharpening
const SMOOTHINGS = 4; // of the rims
const STEEPEST = 7; // depth change over width, both at that depth: about 82 degrees
const VIEW_AT_60_DEGREES = 2 * Math.tan(Math.PI / 6); // width of the view at depth 1

/**
 * Vertices are (x, y, depth), x and y from -1 to 1 over the image, y up: times depth and the tangent of half
 * the field of view that is the point before the camera. `depth` is a DenseMap. `points` are the vertices
 * that have a depth and hang between no two surfaces.
 */
export function buildMesh(depth) {
  const step = Math.max(1, Math.ceil(Math.max(depth.width, depth.height) / MOST_COLUMNS));
  const columns = Math.floor((depth.width - 1) / step) + 1;
  const rows = Math.floor((depth.height - 1) / step) + 1;
  let depths = new Float32Array(columns * rows);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      depths[at] = depth.values[row * step * depth.width + column * step];
    }
  }
  const jump = (STEEPEST * VIEW_AT_60_DEGREES * step) / Math.max(depth.width, depth.height);
  for (let round = 0; round < ROUNDS; round++) depths = sharpen(depths, columns, rows, 2 * jump);
  const valid = depths.filter((value) => value > 0).sort();
  const quantile = (share) => valid[Math.floor(share * (valid.length - 1))] ?? 1;
  const triangles = connect(depths, columns, rows, jump);
  const vertices = place(depths, depth, columns, step);
  smoothRims(vertices, triangles, columns, rows, 2 * jump);
  return {
    vertices,
    triangles,
    points: Uint32Array.from(new Set(triangles)),
    middle: (quantile(0.05) + quantile(0.95)) / 2,
    nearest: quantile(0),
    farthest: quantile(1),
  };
}

function place(depths, { width, height }, columns, step) {
  const vertices = new Float32Array(3 * depths.length);
  for (let at = 0; at < depths.length; at++) {
    vertices[3 * at] = (2 * ((at % columns) * step + 0.5)) / width - 1;
    vertices[3 * at + 1] = 1 - (2 * (Math.floor(at / columns) * step + 0.5)) / height;
    vertices[3 * at + 2] = depths[at];
  }
  return vertices;
}

/**
 * Depths that lie on the ramp between two surfaces, which the network draws where there is a jump, go to that
 * of the two that they are nearer to: else the ramp, and with it the rim of the nearer surface, would be lost.
 */
function sharpen(depths, columns, rows, jump) {
  const [nearest, farthest] = extremes(depths, columns, rows, 1);
  const [least, most] = extremes(depths, columns, rows, REACH);
  return depths.map((value, at) => {
    const ramp = least[at] > 0 && farthest[at] - nearest[at] > jump * nearest[at];
    if (!ramp) return value;
    return value - least[at] < most[at] - value ? least[at] : most[at];
  });
}

/** Triangles whose corners are valid and no more than `jump` times the nearest (two cells of it) apart. */
function connect(depths, columns, rows, jump) {
  const triangles = new Uint32Array(6 * (columns - 1) * (rows - 1));
  let count = 0;
  const add = (a, b, c) => {
    const least = Math.min(depths[a], depths[b], depths[c]);
    const most = Math.max(depths[a], depths[b], depths[c]);
    if (!(least > 0) || most - least > 2 * jump * least) return;
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

/**
 * Take the stairs off the rims along which the surface is torn, which follow the grid: every vertex of a rim goes
 * half way to the middle of its neighbours on it. Within the picture a vertex that is no rim has six triangles.
 */
function smoothRims(vertices, triangles, columns, rows, jump) {
  const used = new Uint8Array(columns * rows);
  for (const at of triangles) used[at]++;
  const around = [1, -1, columns, -columns, columns - 1, 1 - columns]; // along the edges of triangles
  const rims = [];
  for (let row = 1; row + 1 < rows; row++) {
    for (let column = 1; column + 1 < columns; column++) {
      const at = row * columns + column;
      if (used[at] > 0 && used[at] < 6) rims.push(at);
    }
  }
  const rim = new Uint8Array(columns * rows);
  for (const at of rims) rim[at] = 1;
  const depth = (at) => vertices[3 * at + 2];
  const near = (a, b) => Math.abs(depth(a) - depth(b)) <= jump * Math.min(depth(a), depth(b));
  const neighbours = rims.map((at) => around.map((by) => at + by).filter((other) => rim[other] && near(at, other)));
  for (let round = 0; round < SMOOTHINGS; round++) {
    const moved = rims.map((at, index) => {
      const others = neighbours[index];
      if (others.length < 2) return [vertices[3 * at], vertices[3 * at + 1]];
      return [0, 1].map((axis) => {
        const middle = others.reduce((sum, other) => sum + vertices[3 * other + axis], 0) / others.length;
        return (vertices[3 * at + axis] + middle) / 2;
      });
    });
    rims.forEach((at, index) => vertices.set(moved[index], 3 * at));
  }
}

/** The least and the most depth within `reach` vertices of each, across and down. */
function extremes(depths, columns, rows, reach) {
  return [Math.min, Math.max].map((best) =>
    filter(filter(depths, columns, rows, 1, reach, best), rows, columns, columns, reach, best));
}

/** The `best` of the values up to `reach` before and after along lines of `length`, `stride` apart in memory. */
function filter(values, length, lines, stride, reach, best) {
  const found = new Float32Array(values.length);
  const next = stride === 1 ? length : 1;
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < length; place++) {
      const first = Math.max(0, place - reach);
      const last = Math.min(length - 1, place + reach);
      let value = values[line * next + first * stride];
      for (let at = first + 1; at <= last; at++) value = best(value, values[line * next + at * stride]);
      found[line * next + place * stride] = value;
    }
  }
  return found;
}
