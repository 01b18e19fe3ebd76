// Zip archives: what is in one, and one made of several without unpacking them.

const DIRECTORY_END = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_ENTRY = 0x04034b50;
const ELSEWHERE = 0xffffffff; // a size of 4 GiB or more, which no page could hold
const UTF_8 = 0x0800; // flag: the name is UTF-8
const VERSION = 20; // of the format: what deflate and folders need

/** Members of the archive in `buffer`, in the order of its directory; their packed `bytes` are a view of it. */
export function members(buffer) {
  const view = new DataView(buffer);
  const end = findEnd(view);
  const found = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (view.getUint32(at, true) !== DIRECTORY_ENTRY) throw new Error("the answer's directory is damaged");
    const packed = view.getUint32(at + 20, true);
    const nameLength = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    if (packed === ELSEWHERE || local === ELSEWHERE) throw new Error("the answer is larger than a page can read");
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    found.push({
      name: new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength)),
      method: view.getUint16(at + 10, true),
      time: view.getUint32(at + 12, true),
      crc: view.getUint32(at + 16, true),
      size: view.getUint32(at + 24, true),
      bytes: new Uint8Array(buffer, start, packed),
    });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

/** One archive of the members of many, each in a folder. */
export class ZipMerger {
  #parts = []; // Blobs, which the browser may keep on disk
  #directory = [];
  #length = 0;

  /** Add what is in the archive `buffer`, below `folder`. */
  add(folder, buffer) {
    for (const member of members(buffer)) {
      const name = new TextEncoder().encode(`${folder}/${member.name}`);
      this.#directory.push(header(member, name, this.#length));
      this.#parts.push(new Blob([header(member, name), member.bytes]));
      this.#length += this.#parts.at(-1).size;
    }
  }

  finish() {
    const end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, DIRECTORY_END, true);
    end.setUint16(8, this.#directory.length, true);
    end.setUint16(10, this.#directory.length, true);
    end.setUint32(12, this.#directory.reduce((sum, entry) => sum + entry.length, 0), true);
    end.setUint32(16, this.#length, true);
    return new Blob([...this.#parts, ...this.#directory, end], { type: "application/zip" });
  }
}

/** The local header of `member`, or, with the `place` of that one, its entry in the directory. */
function header(member, name, place = null) {
  const fixed = place === null ? 30 : 46;
  const bytes = new Uint8Array(fixed + name.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, place === null ? LOCAL_ENTRY : DIRECTORY_ENTRY, true);
  let at = 4;
  if (place !== null) {
    view.setUint16(at, VERSION, true);
    at += 2;
  }
  view.setUint16(at, VERSION, true);
  view.setUint16(at + 2, UTF_8, true);
  view.setUint16(at + 4, member.method, true);
  view.setUint32(at + 6, member.time, true);
  view.setUint32(at + 10, member.crc, true);
  view.setUint32(at + 14, member.bytes.length, true);
  view.setUint32(at + 18, member.size, true);
  view.setUint16(at + 22, name.length, true);
  if (place !== null) view.setUint32(42, place, true);
  bytes.set(name, fixed);
  return bytes;
}

function findEnd(view) {
  for (let at = view.byteLength - 22; at >= 0; at--) {
    if (view.getUint32(at, true) === DIRECTORY_END) return at;
  }
  throw new Error("the answer is cut short");
}
