// Where one surface ends before another, and the depth without the ramp between them that a network draws there.
// The rule is that of mtcp_serve/outputs/depth_edges.py; a test holds the two together.

const RAMPS = 96; // the longer side over this is how far a ramp reaches to either side of its middle
const STEP = 0.05; // of the nearer depth: a smaller step is relief
const FRINGE = 0.25; // of a step, where the ramp beside an edge ends
const TEAR = 0.8 * STEP; // of the nearer depth: two vertices that are no further apart stay joined
const SMOOTHINGS = 4; // of the depths along a rim
const AROUND = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];

/**
 * `depths` (Float32Array, 0 is invalid) with every pixel of a ramp on one of its two surfaces, and `middles`, the
 * depth between the two for the pixels of ramps, 0 for all others.
 */
export function sharpen(depths, columns, rows) {
  const reach = Math.max(2, Math.ceil(Math.max(columns, rows) / RAMPS));
  const found = { depths: depths.slice(), middles: new Float32Array(depths.length) };
  const steps = measureSteps(depths, columns, rows, reach);
  const edges = findEdges(steps, columns, rows, reach);
  if (edges === null) return found;
  const marks = Uint8Array.from(steps, (step, at) => (step > FRINGE && edges.around(at, reach) > 0 ? 1 : 0));
  const begun = new Sums(marks, columns, rows); // gently: so some more belong to the ramps
  const logs = new Sums(depths.map((depth) => (depth > 0 ? Math.log(depth) : 0)), columns, rows);
  const valid = new Sums(depths.map((depth) => (depth > 0 ? 1 : 0)), columns, rows);
  const ramps = [];
  for (let at = 0; at < depths.length; at++) {
    if (!(depths[at] > 0) || begun.around(at, Math.floor(reach / 2)) === 0) continue;
    ramps.push(at);
    found.middles[at] = Math.exp(logs.around(at, 2 * reach) / valid.around(at, 2 * reach));
  }
  fill(found, ramps, columns, rows);
  return found;
}

/** True if a surface joins the two pixels: both have a depth, and no edge runs between them. */
export function areJoined({ depths, middles }, a, b) {
  const [one, other] = [depths[a], depths[b]];
  if (!(one > 0 && other > 0)) return false;
  if (Math.abs(one - other) <= TEAR * Math.min(one, other)) return true;
  const between = (middle) => middle > 0 && one < middle !== other < middle;
  return !between(middles[a]) && !between(middles[b]);
}

/**
 * How far the depth steps around each pixel, as a multiple of the least step that is an edge: in 1 / depth, where
 * planes are straight however they slant, what the slopes before and behind a window do not account for. In a wider
 * window more is needed: the steepness is the same.
 */
function measureSteps(depths, columns, rows, reach) {
  const near = depths.map((depth) => (depth > 0 ? 1 / depth : 0));
  const steps = new Float32Array(near.length);
  for (const [half, least] of [[reach, STEP], [2 * reach, 2 * STEP]]) {
    for (const [length, stride, lines, next] of [[columns, 1, rows, columns], [rows, columns, columns, 1]]) {
      for (let line = 0; line < lines; line++) {
        for (let place = half + 1; place + half + 1 < length; place++) {
          const here = line * next + place * stride;
          const first = near[here - half * stride];
          const last = near[here + half * stride];
          const [room, left] = [Math.min(place - half, half), Math.min(length - 1 - place - half, half)]; // up to the border
          const before = near[here - (half + room) * stride];
          const after = near[here + (half + left) * stride];
          if (!(near[here] > 0 && first > 0 && last > 0 && before > 0 && after > 0)) continue;
          const rise = Math.abs(last - first);
          const sign = last < first ? -1 : 1;
          const slope = half * Math.max(sign * (first - before) / room, sign * (after - last) / left);
          const step = (rise - 2 * Math.min(Math.max(slope, 0), rise)) / (least * Math.min(first, last));
          if (step > steps[here]) steps[here] = step;
        }
      }
    }
  }
  return steps;
}

/** Sums over the pixels of edges, or null where there is none: specks that form no line are none. */
function findEdges(steps, columns, rows, reach) {
  const marks = Uint8Array.from(steps, (step) => (step > 1 ? 1 : 0));
  if (!marks.includes(1)) return null;
  const sums = new Sums(marks, columns, rows);
  return new Sums(marks.map((mark, at) => (mark && sums.around(at, 2 * reach) >= 4 * reach ? 1 : 0)), columns, rows);
}

/** Carry the depths beside the ramps over them, each to its side of the middle, and smooth them there. */
function fill({ depths, middles }, ramps, columns, rows) {
  const open = new Uint8Array(depths.length);
  const nearer = new Uint8Array(depths.length);
  for (const at of ramps) {
    open[at] = 1;
    nearer[at] = depths[at] < middles[at] ? 1 : 0;
  }
  const neighbours = (at) => {
    const column = at % columns;
    const row = (at - column) / columns;
    const within = ([x, y]) => column + x >= 0 && column + x < columns && row + y >= 0 && row + y < rows;
    return AROUND.filter(within).map(([x, y]) => at + y * columns + x);
  };
  const around = (at, use) => {
    const side = nearer[at] === 1;
    for (const other of neighbours(at)) {
      if (depths[other] > 0 && depths[other] < middles[at] === side) use(other);
    }
  };
  const carry = (list) => {
    const values = list.map((at) => {
      let [sum, count] = [0, 0];
      around(at, (other) => {
        if (open[other]) return;
        sum += depths[other];
        count++;
      });
      return count > 0 ? sum / count : 0;
    });
    const done = list.filter((_, index) => values[index] > 0);
    list.forEach((at, index) => {
      if (values[index] > 0) depths[at] = values[index];
    });
    return done;
  };
  const innermost = (at) => {
    let within = true;
    around(at, (other) => {
      if (nearer[at] ? depths[other] < depths[at] : depths[other] > depths[at]) within = false;
    });
    return within;
  };
  for (let beside = ramps; ;) {
    let done = carry(beside);
    if (done.length === 0) done = ramps.filter((at) => open[at] && innermost(at)); // what is thin has its middle's depth
    if (done.length === 0) break; // all is done, or of noise, that has no sides
    for (const at of done) open[at] = 0;
    const near = done.flatMap((at) => neighbours(at));
    beside = [...new Set(near.filter((at) => open[at]))]; // only there is something new to carry
  }
  for (let round = 0; round < SMOOTHINGS; round++) carry(ramps);
}

/** Sums of values over squares of pixels, as far as they are in the picture. */
class Sums {
  constructor(values, columns, rows) {
    [this.columns, this.rows] = [columns, rows];
    this.sums = new Float64Array((columns + 1) * (rows + 1)); // of all that is above and to the left
    for (let row = 0, at = 0, to = columns + 2; row < rows; row++, to++) {
      for (let column = 0, sum = 0; column < columns; column++, at++, to++) {
        sum += values[at];
        this.sums[to] = this.sums[to - columns - 1] + sum;
      }
    }
  }

  /** Over the pixels that are no further than `reach` from that at `at`, across and down. */
  around(at, reach) {
    const column = at % this.columns;
    const row = (at - column) / this.columns;
    const [left, right] = [Math.max(column - reach, 0), Math.min(column + reach + 1, this.columns)];
    const above = Math.max(row - reach, 0) * (this.columns + 1);
    const below = Math.min(row + reach + 1, this.rows) * (this.columns + 1);
    return this.sums[below + right] - this.sums[above + right] - this.sums[below + left] + this.sums[above + left];
  }
}
