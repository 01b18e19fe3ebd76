// Files of the image that is shown, made by the gateway in its own formats.

import { h } from "./dom.js";

/** Parameters and file name of each download; `name` is the map's, `colors` the parameters of its picture. */
export const FILES = {
  values: (stem, name) => [{ format: "png", tasks: name }, `${stem}-${name}.png`],
  color: (stem, name, colors) => [{ format: "png", tasks: name, visualize: true, ...colors }, `${stem}-${name}-colour.png`],
  zip: (stem, name, colors) => [{ format: "zip", visualize: true, ...colors }, `${stem}-maps.zip`],
  npz: (stem) => [{ format: "npz" }, `${stem}-maps.npz`],
  json: (stem) => [{ format: "json" }, `${stem}-maps.json`],
  ply: (stem) => [{ format: "ply" }, `${stem}.ply`],
  glb: (stem) => [{ format: "glb" }, `${stem}.glb`],
  cutout: (stem) => [{ format: "cutout" }, `${stem}-cutout.png`],
};

/** What a download needs a map of, by its name; those that are not here need any. */
export const NEEDS = { ply: "depth", glb: "depth", cutout: "probability" };

/** Give `blob` to the person as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
