// The ways a photo comes in from the person's machine: chosen, taken, dropped, pasted, or the example.

import { ApiError } from "./api.js";
import { $ } from "./dom.js";

const EXAMPLE = "web/example.jpg";

/** Calls `take(blob, name)` for every photo (a Blob or a promise of one), `refuse(message, hint)` for what is none. */
export function listenForPhotos(take, refuse) {
  for (const input of document.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      if (input.files.length > 0) take(input.files[0], input.files[0].name);
      input.value = ""; // the same file again is news again
    });
  }
  $("example").addEventListener("click", (event) => {
    if (event.detail < 2) take(example(), "example.jpg"); // else of a double click, on this or on what stood here
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", () => take(example(`web/${button.dataset.example}`), button.dataset.example));
  }
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) take(file, file.name);
  });
  listenForDrops(take, refuse);
}

async function example(address = EXAMPLE) {
  const blob = await fetch(address).then((response) => (response.ok ? response.blob() : null)).catch(() => null);
  if (blob !== null) return blob;
  throw new ApiError(0, {
    code: "unreachable",
    message: "The example photo could not be loaded.",
    hint: "See whether the server still runs.",
  });
}

function listenForDrops(take, refuse) {
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
    if (files.length === 1) take(files[0], files[0].name);
    else if (files.length > 1) refuse("Those are several files.", "Drop one photo at a time.");
    else refuse("That is no file.", "Save the picture first, then drop the file here.");
  });
}
