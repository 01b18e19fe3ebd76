// The request for the image that is shown, as a command and as a program.

import { $ } from "./dom.js";
import { copyText } from "./clipboard.js";

const SNIPPETS = {
  curl: (url, name, sure) =>
    `curl -F image=@${quoted(name)} \\\n  '${url}predict?format=npz${sure ? "&confidence=true" : ""}' -o maps.npz`,
  python: (url, name, sure) =>
    `from mtcp_serve.clients import GatewayClient\n\nwith GatewayClient("${url}") as gateway:\n` +
    `    maps = gateway.predict(${JSON.stringify(name)}${sure ? ", confidence=True" : ""})\nfor name, values in maps.items():\n    print(name, values.shape)`,
};

/** Show the request for `input`, and for how sure the model is where that is wanted, and let buttons copy it. */
export function showSnippets(input, sure) {
  const url = new URL(".", location.href).href;
  for (const [name, write] of Object.entries(SNIPPETS)) $(`snippet-${name}`).textContent = write(url, input.name, sure);
}

export function listenForCopies() {
  for (const button of document.querySelectorAll("[data-snippet]")) {
    button.addEventListener("click", () => copyText($(`snippet-${button.dataset.snippet}`).textContent, button));
  }
}

function quoted(name) {
  return `'${name.replaceAll("'", "'\\''")}'`;
}
