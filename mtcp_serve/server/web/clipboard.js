// To the clipboard, where the browser lets a page: from https or from this machine.

const SHOWN_MS = 2000;

/** Copy `text`, and say so on `button`. */
export function copyText(text, button) {
  return done(navigator.clipboard?.writeText(text), button);
}

/** Copy a PNG that `making` resolves to (a Blob; null where there is none), and say so on `button`. */
export function copyPicture(making, button) {
  const able = navigator.clipboard?.write && window.ClipboardItem;
  if (!able) return done(undefined, button);
  const made = making.then((blob) => blob ?? Promise.reject(new Error("there is no picture")));
  return done(navigator.clipboard.write([new ClipboardItem({ "image/png": made })]), button);
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
