// The lines between classes, as lines: sharp however large the map is shown.

/** A Path2D, in pixels of the map, between the pixels of `width` x `height` whose `ids` differ. */
export function borders(ids, width, height) {
  const path = new Path2D();
  const line = (x, y, u, v) => {
    path.moveTo(x, y);
    path.lineTo(u, v);
  };
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const at = y * width + x;
      const [a, b, c, d] = [ids[at], ids[at + 1], ids[at + width], ids[at + width + 1]];
      if (a === b && a === c && a === d) continue;
      const crossed = []; // the sides of the square between four pixel centres that a border crosses
      if (a !== b) crossed.push([x + 1, y + 0.5]);
      if (b !== d) crossed.push([x + 1.5, y + 1]);
      if (c !== d) crossed.push([x + 1, y + 1.5]);
      if (a !== c) crossed.push([x + 0.5, y + 1]);
      if (crossed.length === 2) line(...crossed[0], ...crossed[1]);
      else for (const side of crossed) line(x + 1, y + 1, ...side);
    }
  }
  return path;
}
