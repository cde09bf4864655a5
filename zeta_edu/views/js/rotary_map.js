// The map of angles: a row for each pair, a column for each position, and two posts at m and n
// that can be taken and moved, alone or by the bar between them.
import { h } from "./runtime.js";
import { ticks } from "./plot.js";
import { handling, typing } from "./rotary_clocks.js";
import { grouped } from "./words.js";

const POST_NEAR = 9; // pixels within which a post is taken
const ANGLE_TITLE = "cos of the angle that each pair has turned by";
const ANGLE_HELP = "Arrow keys move the cursor, Enter puts the query there, Shift and Enter the key.";

export class AngleMap {
  constructor(view) {
    this.view = view;
    this.held = null;
    const { columns, half } = view.turns;
    this.canvas = h("canvas", { width: columns, height: half });
    const posts = ["n", "m"].map((name) => h("div", { class: `post ${name}` }, h("b", {}, name)));
    [this.bar, this.cursor] = [h("div", { class: "bar" }), h("div", { class: "cursor" })];
    [this.n, this.m] = posts;
    const keys = typing(view, "map", `${ANGLE_TITLE}. ${ANGLE_HELP}`, (key, shift) => this.type(key, shift));
    const hear = handling(this, (event) => this.grab(event), (event) => view.point(this.cellAt(event)));
    this.field = h("div", { class: "field", ...keys, ...hear }, this.canvas, this.bar, this.cursor, ...posts);
    this.field.style.height = `${Math.max(72, Math.min(190, 22 * half))}px`;
    this.scale = h("span", { class: "scale" });
    this.blurred = h("span", {});
    const legend = h("span", {}, "−1, upside down", this.scale, "1, as at position 0");
    this.node = h("div", { class: "angles" }, h("h4", {}, ANGLE_TITLE), this.field);
    this.node.append(h("p", { class: "axis" }, "position"), h("p", { class: "keys" }, legend, this.blurred));
    this.label();
  }

  // The numbers along both sides: positions below, pairs on the left.
  label() {
    const { half, length, columns } = this.view.turns;
    const every = Math.ceil(half / 11);
    for (let pair = 0; pair < half; pair += every) {
      const row = h("span", { class: "row-number" }, String(pair));
      row.style.top = `${(100 * (pair + 0.5)) / half}%`;
      this.field.append(row);
    }
    for (const at of ticks({ low: 0, high: Math.max(1, length - 1) }, 4)) {
      if (at % 1 || at >= length) continue;
      const number = h("span", { class: "column-number" }, grouped(at || 0));
      number.style.left = this.across(at);
      this.field.append(number);
    }
    const pooled = `Each column is the mean of about ${grouped(length / columns)} positions.`;
    this.blurred.textContent = columns < length ? pooled : "";
  }

  across(position) {
    return `${(100 * (position + 0.5)) / this.view.turns.length}%`;
  }

  draw() {
    const { turns, colours } = this.view;
    const image = new ImageData(turns.columns, turns.half);
    this.values = turns.cosines();
    this.values.forEach((value, i) => {
      image.data.set([...colours.signed_shades[Math.round(127.5 * (1 + value))], 255], 4 * i);
    });
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.scale.style.background = `linear-gradient(to right, ${colours.signed.join(", ")})`;
    this.paint();
  }

  // The posts and the cursor.
  paint() {
    const { view, cursor } = this;
    const { turns, now } = view;
    this.m.style.left = this.across(now.m);
    this.n.style.left = this.across(now.n);
    // Names side by side where the posts are close: the later one to the right.
    this.m.classList.toggle("before", now.m < now.n);
    this.n.classList.toggle("before", now.n <= now.m);
    this.bar.style.left = this.across(Math.min(now.m, now.n));
    this.bar.style.width = `${(100 * Math.abs(now.m - now.n)) / turns.length}%`;
    this.bar.classList.toggle("linked", now.together);
    const pair = view.pair();
    cursor.hidden = pair === null;
    if (pair === null) return;
    const column = view.cursor.on === "map" ? view.cursor.column : null;
    const wide = column === null ? 100 : 100 / turns.columns;
    const place = { left: (column ?? 0) * wide, width: wide, top: (100 * pair) / turns.half, height: 100 / turns.half };
    for (const [side, share] of Object.entries(place)) cursor.style[side] = `${share}%`;
  }

  // Where the pointer is, as shares of the field.
  share(event) {
    const box = this.field.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box.width];
  }

  cellAt(event) {
    const { columns, half } = this.view.turns;
    const [x, y] = this.share(event);
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
    return { on: "map", pair: Math.floor(y * half), column: Math.floor(x * columns) };
  }

  // What is under the pointer: a post, the bar between the two, or a place to send one to.
  grab(event) {
    const { now, turns } = this.view;
    const [x, , width] = this.share(event);
    const off = (position) => Math.abs(x - (position + 0.5) / turns.length) * width;
    const near = Math.min(off(now.m), off(now.n)) <= POST_NEAR;
    if (near) this.held = { name: off(now.m) <= off(now.n) ? "m" : "n" };
    else if (event.target === this.bar) this.held = { at: Math.floor(x * turns.length) - now.m };
    else if (this.cellAt(event)) this.held = { name: event.shiftKey ? "n" : "m" };
    if (this.held && !near) this.pull(event);
  }

  focus() {
    this.field.focus();
  }

  pull(event) {
    const { held, view } = this;
    const position = Math.floor(this.share(event)[0] * view.turns.length);
    if (held.name) view.set({ [held.name]: position });
    else view.shift(position - held.at - view.now.m);
  }

  type(key, shift) {
    const { turns, cursor } = this.view;
    const { columns, half } = turns;
    const on = cursor?.on === "map" ? cursor : null;
    const down = { ArrowUp: -1, ArrowDown: 1 }[key] ?? 0;
    const right = { ArrowLeft: -1, ArrowRight: 1, Home: -columns, End: columns }[key] ?? 0;
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    if (down || right) {
      const [pair, column] = on ? [on.pair + down, on.column + right] : [0, 0];
      this.view.point({ on: "map", pair: clamp(pair, half), column: clamp(column, columns) });
    } else if (key === "Enter" && on) this.view.set({ [shift ? "n" : "m"]: turns.span(on.column)[0] });
    else return false;
    return true;
  }
}
