// Class maps for the eye: an enlarged map has stairs, which a vote among the pixels around takes off.

/**
 * `values` (one class a pixel) where every pixel near another class takes the class most frequent within
 * `radius`; what lies further inside a class, and thin things that win the vote, stay.
 */
export function smoothClasses(values, width, height, radius) {
  const found = values.slice();
  const votes = new Uint16Array(256);
  for (let y = 0; y < height; y++) {
    const [top, bottom] = [Math.max(y - radius, 0), Math.min(y + radius, height - 1)];
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const [left, right] = [Math.max(x - radius, 0), Math.min(x + radius, width - 1)];
      const own = values[at];
      const inside =
        values[top * width + left] === own && values[top * width + right] === own &&
        values[bottom * width + left] === own && values[bottom * width + right] === own &&
        values[top * width + x] === own && values[bottom * width + x] === own &&
        values[y * width + left] === own && values[y * width + right] === own;
      if (inside) continue;
      votes.fill(0);
      let best = own;
      for (let row = top; row <= bottom; row++) {
        for (let column = left; column <= right; column++) {
          const id = values[row * width + column];
          if (++votes[id] > votes[best] || (votes[id] === votes[best] && id === own)) best = id;
        }
      }
      found[at] = best;
    }
  }
  return found;
}
