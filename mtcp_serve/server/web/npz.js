// numpy's npz as the gateway writes it: a zip of stored .npy members, C order, little-endian.

const DIRECTORY_END = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const UNKNOWN = 0xffffffff; // the size stands elsewhere: a member of 4 GiB, which no page could hold

/** Members by name without ".npy": `{shape, data}`, or a string for a scalar of text. */
export function readNpz(buffer) {
  const view = new DataView(buffer);
  const end = findEnd(view);
  const members = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (view.getUint32(at, true) !== DIRECTORY_ENTRY) throw new Error("the answer's directory is damaged");
    const method = view.getUint16(at + 10, true);
    const size = view.getUint32(at + 24, true);
    const nameLength = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    if (method !== 0 || size === UNKNOWN || local === UNKNOWN) throw new Error("the answer is not a stored npz");
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    members.set(name.replace(/\.npy$/, ""), readNpy(buffer, start, size));
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return members;
}

function findEnd(view) {
  for (let at = view.byteLength - 22; at >= 0; at--) {
    if (view.getUint32(at, true) === DIRECTORY_END) return at;
  }
  throw new Error("the answer is cut short");
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
