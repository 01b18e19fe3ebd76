// Asks for the API key of a server that wants one.

import { $ } from "./dom.js";

/** Resolves to the key, or to null when the dialog is closed without one. */
export function askKey(wrong) {
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
