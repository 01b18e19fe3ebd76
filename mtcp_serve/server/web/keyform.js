// Asks for the API key of a server that wants one.

import { $ } from "./dom.js";

let asked = null; // the question that is open: every request that waits for a key gets its answer

/** Resolves to the key, or to null when the dialog is closed without one. */
export function askKey(wrong) {
  asked ??= ask(wrong).finally(() => (asked = null));
  return asked;
}

function ask(wrong) {
  const dialog = $("key");
  $("key-wrong").hidden = !wrong;
  $("key-field").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "send" ? $("key-field").value.trim() || null : null),
      { once: true },
    );
  });
}
