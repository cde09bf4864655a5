// Every head at once, small: one row for each layer. Click, or move with the arrow keys.
import { h } from "./runtime.js";
import { pixels } from "./attention_data.js";

export class HeadGrid {
  constructor(view) {
    this.view = view;
    const { layers, heads } = view.data;
    this.pooled = new Map();
    this.buttons = [];
    const names = Array.from({ length: heads }, (_, head) => h("span", { class: "name" }, String(head)));
    const rows = [h("div", { class: "row top", "aria-hidden": "true" }, h("span", {}), ...names)];
    if (view.state.kv_heads < heads) rows.unshift(this.sharedKeys());
    for (let layer = 0; layer < layers; layer++) {
      const row = h("div", { class: "row", role: "row" });
      row.append(h("span", { class: "name", role: "rowheader" }, String(layer)));
      for (let head = 0; head < heads; head++) row.append(this.button(layer, head));
      rows.push(row);
    }
    this.grid = h("div", { class: "grid", role: "grid", "aria-label": "all heads" }, ...rows);
    this.grid.style.setProperty("--heads", heads);
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("pointerleave", () => view.say());
    const title = h("h4", {}, "All heads: a row for each layer");
    this.node = h("div", { class: "heads", hidden: view.alone }, title, this.grid);
  }

  // Brackets over the query heads that read the same key/value head.
  sharedKeys() {
    const { kv_heads } = this.view.state;
    const group = this.view.data.heads / kv_heads;
    const brackets = Array.from({ length: kv_heads }, (_, kv) => {
      const text = group > 1 ? (kv_heads > 1 ? `K/V ${kv}` : "one K/V head for all") : "";
      return h("span", { class: "shared", style: `grid-column: span ${group}` }, text);
    });
    return h("div", { class: "row top", "aria-hidden": "true" }, h("span", {}), ...brackets);
  }

  button(layer, head) {
    const { view } = this;
    const { kv_heads } = view.state;
    const kv = Math.floor((head * kv_heads) / view.data.heads);
    const reads = kv_heads < view.data.heads ? ` It reads key/value head ${kv}.` : "";
    const finding = view.state.findings[layer][head];
    const node = h(
      "button",
      {
        type: "button",
        role: "gridcell",
        "aria-label": `layer ${layer}, head ${head}: ${finding}.${reads}`,
        onclick: () => view.set({ layer, head }),
        onpointerenter: () => view.say(`Layer ${layer}, head ${head}: ${finding}.${reads}`),
      },
      h("canvas", { "aria-hidden": "true" }),
    );
    this.buttons.push(node);
    return node;
  }

  draw() {
    const { view } = this;
    const { layers, heads, queries, keys } = view.data;
    const side = Math.max(24, Math.min(64, Math.ceil(640 / heads)));
    const [rows, columns] = [Math.min(queries, side), Math.min(keys, side)];
    const window = { q0: 0, q1: queries, k0: 0, k1: keys };
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const where = { ...view.now, layer, head };
        const name = [view.now.stage, layer, head].join();
        if (!this.pooled.has(name)) {
          this.pooled.set(name, view.data.pool(where, window, rows, columns));
        }
        const image = pixels(view.data, where, this.pooled.get(name), columns, view.colours);
        const canvas = this.buttons[layer * heads + head].firstChild;
        canvas.width = columns;
        canvas.height = rows;
        canvas.getContext("2d").putImageData(image, 0, 0);
      }
    }
    this.mark();
  }

  // The chosen head, which alone takes part in the tab order.
  mark() {
    const { layer, head } = this.view.now;
    this.buttons.forEach((button, i) => {
      const chosen = i === layer * this.view.data.heads + head;
      button.setAttribute("aria-selected", chosen);
      button.tabIndex = chosen ? 0 : -1;
    });
  }

  key(event) {
    const { layers, heads } = this.view.data;
    const { layer, head } = this.view.now;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!steps[event.key]) return;
    event.preventDefault();
    const [down, right] = steps[event.key];
    const next = {
      layer: Math.max(0, Math.min(layers - 1, layer + down)),
      head: Math.max(0, Math.min(heads - 1, head + right)),
    };
    this.view.set(next);
    this.buttons[next.layer * heads + next.head].focus();
  }
}
