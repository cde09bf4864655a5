// One head, large: a row for every query, a column for every key, a window to zoom with.
import { h } from "./runtime.js";
import { pixels } from "./attention_data.js";

const MOST_CELLS = 512; // more than this on a side, and tiles show the largest weight in them
const MOST_CELL = 56;
const LABEL_CELL = 12; // the smallest cell, in pixels, that a token fits beside
const FONT = "12px ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace";

export class HeatMap {
  constructor(view) {
    this.view = view;
    this.window = this.whole();
    this.canvas = h("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "heat map",
      "aria-label":
        "Attention of one head. Arrow keys move over queries and keys, Enter pins the query, " +
        "plus and minus zoom, 0 shows the whole.",
    });
    const button = (text, name, act) =>
      h("button", { type: "button", title: name, "aria-label": name, onclick: act }, text);
    this.zoomButtons = h(
      "div",
      { class: "zoom" },
      button("+", "zoom in", () => this.zoom(0.5)),
      button("−", "zoom out", () => this.zoom(2)),
      button("whole", "show the whole", () => this.zoom(Infinity)),
    );
    this.note = h("p", { class: "note" });
    const axes = h(
      "p",
      { class: "axes" },
      h("b", { class: "asks" }, "↓ a row for each query: the token that looks"),
      h("b", { class: "answers" }, "→ a column for each key: the token looked at"),
    );
    this.node = h("div", { class: "map" }, axes, this.canvas, this.zoomButtons, this.note);
    this.listen();
  }

  whole() {
    return { q0: 0, q1: this.view.data.queries, k0: 0, k1: this.view.data.keys };
  }

  // How large everything is: the plot takes the room there is, cells stay whole pixels.
  layout() {
    const { queryLabels, keyLabels } = this.view;
    const { q0, q1, k0, k1 } = this.window;
    const [rows, columns] = [q1 - q0, k1 - k0];
    this.width = this.node.clientWidth;
    const room = Math.max(200, Math.min(this.width || 520, 640));
    const context = this.canvas.getContext("2d");
    context.font = FONT;
    const widest = (labels) =>
      Math.min(96, Math.max(...labels.map((label) => context.measureText(label).width)));
    const fitting = (left) => Math.min(MOST_CELL, (room - left - 30) / columns, 520 / rows);
    const wide = widest(queryLabels.slice(q0, q1)) + 10;
    const named = fitting(wide) >= LABEL_CELL;
    const left = named ? wide : 36;
    const top = named ? widest(keyLabels.slice(k0, k1)) * 0.87 + 14 : 22;
    const cell = fitting(left) >= 4 ? Math.floor(fitting(left)) : fitting(left);
    return { left, top, cell, height: rows < 4 ? Math.max(cell, 28) : cell, rows, columns, named };
  }

  resize() {
    if (this.node.clientWidth && this.node.clientWidth !== this.width) this.draw();
  }

  draw() {
    const { view, canvas } = this;
    const at = (this.at = this.layout());
    const [width, tall] = [at.cell * at.columns, at.height * at.rows];
    const ratio = window.devicePixelRatio || 1;
    const [fullWidth, fullHeight] = [at.left + width + 30, at.top + tall + 6];
    canvas.width = Math.round(fullWidth * ratio);
    canvas.height = Math.round(fullHeight * ratio);
    canvas.style.width = `${fullWidth}px`;
    canvas.style.height = `${fullHeight}px`;
    const tiles = (count, size) => Math.max(1, Math.min(count, MOST_CELLS, Math.ceil(size * ratio)));
    this.columns = tiles(at.columns, width);
    this.rows = tiles(at.rows, tall);
    this.values = view.data.pool(view.now, this.window, this.rows, this.columns);
    const image = pixels(view.data, view.now, this.values, this.columns, view.colours);
    const tile = h("canvas", { width: this.columns, height: this.rows });
    tile.getContext("2d").putImageData(image, 0, 0);
    this.tile = tile;
    this.paint();
    this.tell();
  }

  // The tiles, the labels, the pinned query and the cursor: all that moves with the pointer.
  paint() {
    const { canvas, at, view } = this;
    const context = canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    const [width, tall] = [at.cell * at.columns, at.height * at.rows];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = view.colours.blank;
    context.fillRect(at.left, at.top, width, tall);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.tile, at.left, at.top, width, tall);
    context.strokeStyle = view.colours.line;
    context.lineWidth = 1;
    context.strokeRect(at.left - 0.5, at.top - 0.5, width + 1, tall + 1);
    this.paintLabels(context);
    this.paintCursor(context, width, tall);
  }

  paintLabels(context) {
    const { at, view } = this;
    const { q0, q1, k0, k1 } = this.window;
    const { query, key } = view.cursor ?? {};
    const shown = (low, high, size, token) => {
      const step = at.named ? 1 : 2 ** Math.ceil(Math.log2(40 / size));
      const list = [];
      for (let i = low; i < high; i++) if (i % step === 0 || i === token) list.push(i);
      if (at.named || token === undefined) return list;
      return list.filter((i) => i === token || Math.abs(i - token) * size > 16);
    };
    context.font = FONT;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const pinned = view.now.direction === "query" ? view.now.query : undefined;
    for (const i of shown(q0, q1, at.height, query)) {
      const text = at.named ? view.queryLabels[i] : String(i);
      context.fillStyle = i === query || i === pinned ? view.colours.query_text : view.colours.quiet;
      context.fillText(fit(text, 12), at.left - 6, at.top + (i - q0 + 0.5) * at.height);
    }
    context.textAlign = "left";
    for (const i of shown(k0, k1, at.cell, key)) {
      context.save();
      context.translate(at.left + (i - k0 + 0.5) * at.cell, at.top - 6);
      if (at.named) context.rotate(-Math.PI / 3);
      else context.textAlign = "center";
      context.fillStyle = i === key ? view.colours.key_text : view.colours.quiet;
      context.fillText(fit(at.named ? view.keyLabels[i] : String(i), 12), 0, at.named ? 0 : -4);
      context.restore();
    }
  }

  paintCursor(context, width, tall) {
    const { at, view } = this;
    const { q0, q1, k0, k1 } = this.window;
    const box = (colour, x, y, wide, high, line) => {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(x, y, wide, high);
    };
    const { query, direction } = view.now;
    if (direction === "query" && query >= q0 && query < q1) {
      const y = at.top + (query - q0) * at.height;
      box(view.colours.query_text, at.left - 1, y - 1, width + 2, at.height + 2, 2);
    }
    if (direction === "key" && query >= k0 && query < k1) {
      const x = at.left + (query - k0) * at.cell;
      box(view.colours.key_text, x - 1, at.top - 1, at.cell + 2, tall + 2, 2);
    }
    if (!view.cursor) return;
    const x = at.left + (view.cursor.key - k0) * at.cell;
    const y = at.top + (view.cursor.query - q0) * at.height;
    if (x < at.left || y < at.top || x >= at.left + width || y >= at.top + tall) return;
    box(view.colours.page, x - 1, y - 1, at.cell + 2, at.height + 2, 4);
    box(view.colours.text, x - 1, y - 1, at.cell + 2, at.height + 2, 2);
  }

  tell() {
    const { queries, keys } = this.view.data;
    this.zoomButtons.hidden = Math.max(queries, keys) <= 48;
    const [high, wide] = [this.at.rows / this.rows, this.at.columns / this.columns];
    this.note.textContent =
      high > 1 || wide > 1
        ? `Each dot is the largest of ${Math.ceil(high)} × ${Math.ceil(wide)} values. Zoom in to see every one.`
        : "";
  }

  // Zooming keeps the cell under the cursor, or the pinned query, in sight.
  zoom(factor) {
    const { queries, keys } = this.view.data;
    const { q0, q1, k0, k1 } = this.window;
    const focus = this.view.cursor ?? { query: (q0 + q1) >> 1, key: (k0 + k1) >> 1 };
    const narrow = (low, high, token, count) => {
      const size = Math.min(count, Math.max(Math.min(8, count), Math.round((high - low) * factor)));
      const share = (token - low) / (high - low);
      const from = Math.max(0, Math.min(count - size, Math.round(token - share * size)));
      return [from, from + size];
    };
    const [newQ0, newQ1] = narrow(q0, q1, focus.query, queries);
    const [newK0, newK1] = narrow(k0, k1, focus.key, keys);
    this.window = { q0: newQ0, q1: newQ1, k0: newK0, k1: newK1 };
    this.draw();
  }

  move(downwards, rightwards) {
    const { queries, keys } = this.view.data;
    const { q0, q1, k0, k1 } = this.window;
    const from = Math.max(0, Math.min(queries - (q1 - q0), q0 + downwards));
    const left = Math.max(0, Math.min(keys - (k1 - k0), k0 + rightwards));
    if (from === q0 && left === k0) return;
    this.window = { q0: from, q1: from + q1 - q0, k0: left, k1: left + k1 - k0 };
    this.draw();
  }

  // The window follows a cursor that the keyboard moves.
  follow({ query, key }) {
    const { q0, q1, k0, k1 } = this.window;
    const past = (token, low, high) => Math.min(0, token - low) + Math.max(0, token - high + 1);
    this.move(past(query, q0, q1), past(key, k0, k1));
  }

  cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const { left, top, cell, height, rows, columns } = this.at;
    const column = Math.floor((event.clientX - box.left - left) / cell);
    const row = Math.floor((event.clientY - box.top - top) / height);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
    return { query: row + this.window.q0, key: column + this.window.k0 };
  }

  listen() {
    const { canvas, view } = this;
    let grip = null; // where a drag took hold
    canvas.addEventListener("pointerdown", (event) => {
      const cell = this.cell(event);
      if (cell) grip = { cell, moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const cell = this.cell(event);
      if (grip && cell && event.buttons) {
        const [down, right] = [grip.cell.query - cell.query, grip.cell.key - cell.key];
        if (down || right) grip.moved = true;
        this.move(down, right);
      }
      view.point(this.cell(event));
    });
    canvas.addEventListener("pointerup", (event) => {
      const cell = this.cell(event);
      if (grip && !grip.moved && cell) {
        view.set({ query: view.now.direction === "query" ? cell.query : cell.key });
      }
      grip = null;
    });
    canvas.addEventListener("pointerleave", () => view.point((grip = null)));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 0.8 : 1.25);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => view.point(null));
  }

  key(event) {
    const { view } = this;
    const { queries, keys } = view.data;
    const { query, key } = view.cursor ?? view.home();
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    const steps = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      PageUp: [-16, 0],
      PageDown: [16, 0],
      Home: [0, -keys],
      End: [0, keys],
    };
    const zooms = { "+": 0.5, "=": 0.5, "-": 2, 0: Infinity };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) {
      const [down, right] = view.cursor ? steps[event.key] : [0, 0];
      const cell = { query: clamp(query + down, queries), key: clamp(key + right, keys) };
      this.follow(cell);
      view.point(cell);
    } else if (event.key === "Enter" || event.key === " ") {
      view.set({ query: view.now.direction === "query" ? query : key });
    } else if (zooms[event.key]) {
      this.zoom(zooms[event.key]);
    } else return;
    event.preventDefault();
  }
}

export function fit(text, most) {
  const letters = Array.from(text);
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text;
}
