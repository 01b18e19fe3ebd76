// Tabs as the ARIA practices describe them: arrow keys go from one to the next, only the chosen one is a tab stop.

const MOVES = { ArrowLeft: -1, ArrowRight: 1 };

/** `chosen(name)` is called with the `data-view` of the tab whenever another one is chosen. */
export function tabs(list, chosen) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const select = (tab) => {
    for (const other of all) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
    }
    chosen(tab.dataset.view);
  };
  for (const tab of all) tab.addEventListener("click", () => select(tab));
  list.addEventListener("keydown", (event) => {
    if (!(event.key in MOVES) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const usable = all.filter((tab) => !tab.hidden);
    const at = usable.indexOf(document.activeElement) + MOVES[event.key] + usable.length;
    const next = usable[at % usable.length];
    next.focus();
    select(next);
  });
}
