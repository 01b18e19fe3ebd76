// The request for the image that is shown, as a command and as a program.

import { $ } from "./dom.js";
import { copyText } from "./clipboard.js";

const SNIPPETS = {
  curl: (url, name, switches) =>
    `curl -F image=@${quoted(name)} \\\n  '${url}predict?format=npz${switches.map((on) => `&${on}=true`).join("")}' -o maps.npz`,
  python: (url, name, switches) =>
    `from mtcp_serve.clients import GatewayClient\n\nwith GatewayClient("${url}") as gateway:\n` +
    `    maps = gateway.predict(${JSON.stringify(name)}${switches.map((on) => `, ${on}=True`).join("")})\nfor name, values in maps.items():\n    print(name, values.shape)`,
};

/** Show the request for `input` with what is switched on (`confidence`, `refine`), and let buttons copy it. */
export function showSnippets(input, switches) {
  const url = new URL(".", location.href).href;
  for (const [name, write] of Object.entries(SNIPPETS)) $(`snippet-${name}`).textContent = write(url, input.name, switches);
}

export function listenForCopies() {
  for (const button of document.querySelectorAll("[data-snippet]")) {
    button.addEventListener("click", () => copyText($(`snippet-${button.dataset.snippet}`).textContent, button));
  }
}

function quoted(name) {
  return `'${name.replaceAll("'", "'\\''")}'`;
}
