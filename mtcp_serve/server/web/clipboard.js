// To the clipboard, where the browser lets a page: from https or from this machine.

const SHOWN_MS = 2000;

/** Copy `text`, and say so on `button`. */
export function copyText(text, button) {
  return done(navigator.clipboard?.writeText(text), button);
}

/** Copy a PNG (a Blob), and say so on `button`. */
export function copyPicture(blob, button) {
  const able = navigator.clipboard?.write && window.ClipboardItem;
  return done(able ? navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]) : undefined, button);
}

async function done(copying, button) {
  const before = (button.dataset.text ??= button.textContent);
  try {
    if (copying === undefined) throw new Error("this page may not write to the clipboard");
    await copying;
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser refused";
  }
  setTimeout(() => (button.textContent = before), SHOWN_MS);
}
