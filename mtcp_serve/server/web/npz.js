// numpy's npz as the gateway writes it: a zip of stored .npy members, C order, little-endian.

import { members } from "./zip.js";

/** Members by name without ".npy": `{shape, data}`, or a string for a scalar of text. */
export function readNpz(buffer) {
  const found = new Map();
  for (const { name, method, bytes } of members(buffer)) {
    if (method !== 0) throw new Error("the answer is not a stored npz");
    found.set(name.replace(/\.npy$/, ""), readNpy(buffer, bytes.byteOffset, bytes.length));
  }
  return found;
}

function readNpy(buffer, start, size) {
  const view = new DataView(buffer, start, size);
  const long = view.getUint8(6) > 1; // version 1 has a short header
  const headerStart = long ? 12 : 10;
  const headerLength = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, start + headerStart, headerLength));
  const type = /'descr': '([^']+)'/.exec(header)?.[1] ?? "";
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((part) => part.trim()).map(Number);
  const first = start + headerStart + headerLength;
  const count = shape.reduce((product, length) => product * length, 1);
  if (type === "|u1") return { shape, data: new Uint8Array(buffer, first, count) };
  if (type === "<f4") return { shape, data: new Float32Array(aligned(buffer, first, 4 * count), 0, count) };
  if (type.startsWith("<U")) return readText(new DataView(buffer, first, start + size - first));
  throw new Error(`the answer has values of type ${type}, which this page does not read`);
}

/** The bytes in a buffer of their own: a member starts anywhere, a Float32Array at multiples of 4. */
function aligned(buffer, first, length) {
  return buffer.slice(first, first + length);
}

function readText(view) {
  const parts = [];
  for (let at = 0; at < view.byteLength; at += 4) {
    const point = view.getUint32(at, true);
    if (point !== 0) parts.push(String.fromCodePoint(point)); // zeros fill the array up
  }
  return parts.join("");
}
