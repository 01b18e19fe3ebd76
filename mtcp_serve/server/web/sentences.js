// What the gateway says to programs, as sentences for people.

const FOR_OPERATORS = /,? or raise MTCP_.*? on the server/g;

/** `text` as a sentence: long numbers in megapixels or MB, a capital letter, a full stop. */
export function sentence(text) {
  const unit = text.includes("pixels") ? "megapixels" : "MB";
  const said = text.replace(/(\d{6,})( pixels| bytes)?/g, (_, digits) => `${(Number(digits) / 1e6).toFixed(1)} ${unit}`).trim();
  if (said === "") return "";
  const start = said[0].toUpperCase() + said.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/** A hint without what only the operator of the server can do. */
export function advice(text) {
  return sentence(text.replace(FOR_OPERATORS, ""));
}
