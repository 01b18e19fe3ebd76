// Files of the photo that is shown, made by the gateway in its own formats.

import { h } from "./dom.js";

/** Parameters and file name of each download; `name` is the map's. */
export const FILES = {
  values: (stem, name) => [{ format: "png", tasks: name }, `${stem}-${name}.png`],
  colour: (stem, name) => [{ format: "png", tasks: name, visualize: true }, `${stem}-${name}-colour.png`],
  zip: (stem) => [{ format: "zip", visualize: true }, `${stem}-maps.zip`],
  npz: (stem) => [{ format: "npz" }, `${stem}-maps.npz`],
  json: (stem) => [{ format: "json" }, `${stem}-maps.json`],
};

/** Give `blob` to the person as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
