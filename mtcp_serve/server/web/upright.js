// Which way up a WebP is by its EXIF. Browsers turn JPEG and PNG by it, but not all of them WebP; the gateway
// turns all three.

const TURNS = [0, 0, 0, 2, 2, 3, 1, 1, 3]; // quarter turns to the right, by orientation
const MIRRORED = [2, 4, 5, 7]; // left to right, before they are turned

/** Orientation (1 to 8) of a WebP, and the same picture without it; null if it is none, or has none. */
export async function webpOrientation(blob) {
  const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
  if (text(head, 0) !== "RIFF" || text(head, 8) !== "WEBP") return null;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  for (let at = 12, count = 0; at + 8 <= bytes.length && count < 65536; count++) {
    const size = view.getUint32(at + 4, true);
    if (text(bytes, at) === "EXIF") {
      const orientation = exifOrientation(bytes.subarray(at + 8, at + 8 + size));
      bytes.set([0x4e, 0x4f, 0x4e, 0x45], at); // NONE: no browser turns it
      return orientation > 1 ? { orientation, plain: new Blob([bytes], { type: "image/webp" }) } : null;
    }
    at += 8 + size + (size & 1);
  }
  return null;
}

/** A canvas with `bitmap` as an EXIF `orientation` wants it. */
export function turned(bitmap, orientation) {
  const turns = TURNS[orientation];
  const canvas = document.createElement("canvas");
  const across = turns % 2 === 1;
  canvas.width = across ? bitmap.height : bitmap.width;
  canvas.height = across ? bitmap.width : bitmap.height;
  const context = canvas.getContext("2d");
  context.translate(canvas.width / 2, canvas.height / 2);
  context.rotate((turns * Math.PI) / 2);
  if (MIRRORED.includes(orientation)) context.scale(-1, 1);
  context.drawImage(bitmap, -bitmap.width / 2, -bitmap.height / 2);
  return canvas;
}

function exifOrientation(exif) {
  const start = text(exif, 0) === "Exif" ? 6 : 0;
  const view = new DataView(exif.buffer, exif.byteOffset + start, Math.max(0, exif.length - start));
  try {
    const little = { 0x4949: true, 0x4d4d: false }[view.getUint16(0)];
    if (little === undefined || view.getUint16(2, little) !== 42) return 1;
    const directory = view.getUint32(4, little);
    const count = view.getUint16(directory, little);
    for (let at = directory + 2; at < directory + 2 + 12 * count; at += 12) {
      if (view.getUint16(at, little) !== 0x0112) continue;
      const type = view.getUint16(at + 2, little);
      const value = type === 3 ? view.getUint16(at + 8, little) : type === 4 ? view.getUint32(at + 8, little) : 1;
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch {
    return 1; // damaged
  }
  return 1;
}

function text(bytes, at) {
  return String.fromCharCode(...bytes.subarray(at, at + 4));
}
