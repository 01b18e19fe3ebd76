// The request for the image that is shown, as a command and as a program.

import { $ } from "./dom.js";
import { copyText } from "./clipboard.js";

const KEY = "MTCP_API_KEY"; // the environment's variable that has it

const SNIPPETS = {
  curl: (url, name, parameters, keyed) => {
    const address = `${url}predict?${new URLSearchParams({ format: "npz", ...parameters })}`;
    const key = keyed ? `-H "X-API-Key: $${KEY}" ` : "";
    return `curl -f ${key}-F ${forShell(`image=@${forCurl(name)}`)} \\\n  ${forShell(address)} -o maps.npz`;
  },
  python: (url, name, parameters, keyed) => {
    const given = Object.entries(parameters).map(([each, value]) => `, ${each}=${each === "distances" ? forTriples(value) : forPython(value)}`);
    const key = keyed ? `, api_key=os.environ["${KEY}"]` : "";
    return (
      `${keyed ? "import os\n\n" : ""}from mtcp_serve.clients import GatewayClient\n\n` +
      `with GatewayClient(${forPython(url)}${key}) as gateway:\n` +
      `    maps = gateway.predict(${forPython(name)}${given.join("")})\n` +
      "for name, values in maps.items():\n    print(name, values.shape)"
    );
  },
};

/**
 * Show the request for `input` with `parameters` (their values strings, or true), to a server that wants a key if
 * `keyed`; buttons copy it.
 */
export function showSnippets(input, parameters, keyed) {
  const url = new URL(".", location.href).href;
  for (const [name, write] of Object.entries(SNIPPETS)) {
    $(`snippet-${name}`).textContent = write(url, input.name, parameters, keyed);
  }
}

export function listenForCopies() {
  for (const button of document.querySelectorAll("[data-snippet]")) {
    button.addEventListener("click", () => copyText($(`snippet-${button.dataset.snippet}`).textContent, button));
  }
}

function forShell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A file's name for -F of curl, which ends one that is not in quotes at a comma or semicolon. */
function forCurl(name) {
  return `"${name.replace(/["\\]/g, "\\$&")}"`;
}

function forPython(value) {
  return value === true ? "True" : JSON.stringify(value);
}

/** The parameter `distances`, x,y,metres of each, as Python's list. */
function forTriples(text) {
  const triples = text.match(/[^,]+,[^,]+,[^,]+/g).map((triple) => `(${triple.replaceAll(",", ", ")})`);
  return `[${triples.join(", ")}]`;
}
