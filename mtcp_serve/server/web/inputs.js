// The ways an image comes in from the person's machine: chosen, taken, dropped, pasted, or the example.

import { ApiError } from "./api.js";
import { $ } from "./dom.js";
import { MOST_IMAGES } from "./roll.js";

const EXAMPLE = "web/example.jpg";

/**
 * Calls `take(images)` with what was given at a time (`{blob, name}` each, the Blob or a promise of one), and
 * `refuse(message, hint)` for what is none.
 */
export function listenForImages(take, refuse) {
  const takeFiles = (files) => {
    if (files.length <= MOST_IMAGES) take([...files].map((file) => ({ blob: file, name: file.name })));
    else refuse(`Those are ${files.length} files.`, `Give ${MOST_IMAGES} at a time; the command line takes whole folders.`);
  };
  for (const input of document.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      if (input.files.length > 0) takeFiles(input.files);
      input.value = ""; // the same file again is news again
    });
  }
  $("example").addEventListener("click", (event) => {
    if (event.detail < 2) take([{ blob: example(), name: "example.jpg" }]); // else of a double click, on this or on what stood here
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    const name = button.dataset.example;
    button.addEventListener("click", () => take([{ blob: example(`web/${name}`), name }]));
  }
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length > 0) takeFiles(files);
  });
  listenForDrops(takeFiles, refuse);
}

async function example(address = EXAMPLE) {
  const blob = await fetch(address).then((response) => (response.ok ? response.blob() : null)).catch(() => null);
  if (blob !== null) return blob;
  throw new ApiError(0, {
    code: "unreachable",
    message: "The example image could not be loaded.",
    hint: "See whether the server still runs.",
  });
}

function listenForDrops(takeFiles, refuse) {
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // else the browser opens the file itself
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    const files = event.dataTransfer.files;
    if (files.length > 0) takeFiles(files);
    else refuse("That is not a file.", "Save the picture first, then drop the file here.");
  });
}
