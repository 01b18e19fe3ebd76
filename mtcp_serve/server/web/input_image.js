// An image as the person gave it, which is what is sent, and a picture of it for the screen.

import { turned, webpOrientation } from "./upright.js";

const SCREEN_SIDE = 2048; // longest side drawn; some phones refuse larger canvases

export class InputImage {
  constructor(blob, name, source, canvas, pixels) {
    this.blob = blob;
    this.name = name;
    this.source = source; // the same whenever one image is asked for, and for all frames of a feed
    this.canvas = canvas; // null where the browser cannot show the format, TIFF for instance
    this.pixels = pixels; // null likewise
  }

  /** The name without its ending, for the names of downloads. */
  get stem() {
    return this.name.replace(/\.[^.]*$/, "") || "image";
  }

  static async of(blob, name, source) {
    let bitmap;
    try {
      const webp = await webpOrientation(blob);
      bitmap = await createImageBitmap(webp?.plain ?? blob, { imageOrientation: "from-image" });
      if (webp) bitmap = await createImageBitmap(turned(bitmap, webp.orientation));
    } catch {
      return new InputImage(blob, name, source, null, null);
    }
    const scale = Math.min(1, SCREEN_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // as the gateway does with transparent images
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const pixels = bitmap.width * bitmap.height;
    bitmap.close();
    return new InputImage(blob, name, source, canvas, pixels);
  }
}
