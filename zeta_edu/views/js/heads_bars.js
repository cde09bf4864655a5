// A chart with a bar for every way to share: its parts in the colours of their roles, its sum in
// words. Click one, or move with the arrow keys and press Enter, to choose it.
import { h } from "./runtime.js";
import { sharingName, partsTotal } from "./heads_words.js";

// In pixels; left and right are for the names and for the sums.
const BARS = { row: 26, bar: 16, left: 112, right: 98 };

export class SharingBars {
  // `parts(sizes)` are the numbers of one bar, by role; `write` puts their sum into words.
  constructor(view, { parts, write, aim }) {
    Object.assign(this, { view, parts, write });
    this.heading = h("h4", {});
    this.svg = h("svg", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "bar chart",
      "aria-label": `${aim}. Up and down arrow keys move, Enter chooses.`,
    });
    this.node = h("div", { class: "bars" }, this.heading, this.svg);
    this.svg.addEventListener("pointerleave", () => view.point(null));
    this.svg.addEventListener("blur", () => view.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  draw(title) {
    const { view } = this;
    const width = Math.max(240, this.node.clientWidth || 400);
    this.heading.textContent = title;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", BARS.row * view.sizes.length);
    this.drawn = view.sizes.map((size) => this.parts(size));
    const most = Math.max(...this.drawn.map(partsTotal));
    const across = (count) => (count / most) * (width - BARS.left - BARS.right);
    this.svg.replaceChildren(...this.drawn.map((parts, i) => this.row(i, parts, across, width)));
    this.mark();
  }

  row(option, parts, across, width) {
    const { view } = this;
    const { kv_heads } = view.state.sharings[option];
    const y = option * BARS.row;
    const base = { y: y + (BARS.row - BARS.bar) / 2, height: BARS.bar };
    let x = BARS.left;
    const pieces = Object.entries(parts).map(([role, count]) => {
      const piece = h("rect", { ...base, x, width: Math.max(0, across(count)), class: `solid ${role}` });
      x += across(count);
      return piece;
    });
    const name = `${sharingName(view.state.heads, kv_heads)}\u2002${kv_heads}`;
    const hear = { onpointerenter: () => view.point({ option }), onclick: () => view.set({ kv_heads }) };
    return h(
      "g",
      { "data-option": option, class: "option", ...hear },
      h("rect", { x: 0, y, width, height: BARS.row, class: "ground", rx: 4 }),
      h("text", { x: BARS.left - 8, y: y + BARS.row / 2 + 5, class: "label" }, name),
      ...pieces,
      h("text", { x: x + 8, y: y + BARS.row / 2 + 5, class: "sum" }, this.write(partsTotal(parts))),
    );
  }

  mark() {
    const { cursor, state, now } = this.view;
    for (const node of this.svg.querySelectorAll("[data-option]")) {
      const option = Number(node.dataset.option);
      node.classList.toggle("chosen", state.sharings[option].kv_heads === now.kv_heads);
      node.classList.toggle("lit", cursor?.option === option);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { cursor, state } = this.view;
    const last = state.sharings.length - 1;
    const step = { ArrowUp: -1, ArrowDown: 1, Home: -last, End: last }[event.key];
    const { option } = cursor ?? {};
    if (step) this.view.point({ option: this.option(option, step, last) });
    else if (event.key === "Enter" && option !== undefined) {
      this.view.set({ kv_heads: state.sharings[option].kv_heads });
    } else return;
    event.preventDefault();
  }

  // Where the arrow keys lead: first to the way that is chosen, from there by steps.
  option(option, step, last) {
    if (option === undefined) return this.view.chosen();
    return Math.max(0, Math.min(last, option + step));
  }
}
