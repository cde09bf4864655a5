// A table of numbers as colours: labels on its sides, hatching for what a mask hides, the numbers
// themselves where they fit, frames around parts of it, and a cursor for mouse and keyboard.
import { h, ink } from "./runtime.js";

const SMALL = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
const MONO = "12px ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace";
export const LEAST_LABELLED = 12; // the smallest cell, in pixels, that a label fits beside
const LONGEST_LABEL = 12; // letters
const NOTHING = {
  rowLabels: null,
  columnLabels: null,
  rowTitle: "",
  columnTitle: "",
  hatched: null,
  blank: null,
  write: null,
  signed: false,
  plain: false,
  stretch: false,
  frames: [],
};
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Matrix {
  // `onpoint({ row, column } or null)` hears the cursor, `onpick({ row, column })` clicks and Enter.
  // `room` is the most height, `cell` the most pixels of a cell's side.
  constructor(view, { title, onpoint, onpick, room = 420, cell = 44 }) {
    Object.assign(this, { view, onpoint, onpick, room, most: cell, cursor: null });
    this.canvas = h("canvas", { tabindex: 0, role: "application", "aria-roledescription": "table" });
    this.canvas.setAttribute("aria-label", `${title}. Arrow keys move the cursor, Enter picks.`);
    this.heading = h("h4", {}, title);
    this.node = h("div", { class: "matrix" }, this.heading, this.canvas);
    this.listen();
  }

  // `values` (rows × columns) are coloured from `low` to `high`; with `signed` around zero, from
  // brown for negative to green for positive. `hatched(i)` and `blank(i)` say which cells a mask
  // hides and which hold nothing; `write(value, i)` puts a number into a cell that has room for it.
  // `rowLabels`, `columnLabels` and their `rowTitle`, `columnTitle` may be left out; rows are queries
  // and columns keys in their colours, unless the table is `plain`. With `stretch`
  // cells take all the width there is. `frames`:
  // { row, column, rows, columns, colour, width }.
  draw(table) {
    Object.assign(this, NOTHING, table);
    this.layout();
    this.paint();
  }

  // Cells take the room there is, in whole pixels where they can.
  layout() {
    const context = (this.context = this.canvas.getContext("2d"));
    const room = Math.max(120, this.node.clientWidth || 420);
    context.font = MONO;
    const wide = (text) => context.measureText(shortened(text)).width;
    const widest = (labels) => (labels ? Math.max(0, ...labels.map(wide)) + 8 : 4);
    const fitting = (left) => Math.min(this.most, (room - left - 26) / this.columns, this.room / this.rows);
    const named = fitting(widest(this.rowLabels)) >= LEAST_LABELLED;
    const above = named && this.columnLabels ? widest(this.columnLabels) * 0.87 + 6 : 4;
    const left = (named ? widest(this.rowLabels) : 4) + (this.rowTitle ? 18 : 0);
    const top = above + (this.columnTitle ? 18 : 0);
    const size = fitting(left);
    const cell = size >= 4 ? Math.floor(size) : size;
    const wider = Math.floor(Math.min(this.most, (room - left - 26) / this.columns));
    this.at = { left, top, cell: this.stretch ? Math.max(cell, wider) : cell, high: cell, named };
    const [width, height] = [left + this.at.cell * this.columns + 26, top + cell * this.rows + 4];
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
  }

  // The colour of a number, [red, green, blue].
  shade(value) {
    const { low, high, signed, view } = this;
    const share = signed
      ? 0.5 + value / (2 * (Math.max(-low, high) || 1))
      : (value - low) / (high - low || 1);
    const all = signed ? view.colours.signed_shades : view.colours.shades;
    return all[Math.round(255 * Math.min(1, Math.max(0, share)))];
  }

  paint() {
    const { context, at, rows, columns, view } = this;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image(), at.left, at.top, columns * at.cell, rows * at.high);
    if (this.hatched) this.paintHatching();
    if (this.write && Math.min(at.cell, at.high) >= 26) this.paintNumbers();
    context.strokeStyle = view.colours.line;
    context.lineWidth = 1;
    context.strokeRect(at.left - 0.5, at.top - 0.5, columns * at.cell + 1, rows * at.high + 1);
    this.paintLabels();
    for (const frame of this.frames) this.paintFrame(frame);
    if (this.cursor) {
      this.paintFrame({ ...this.cursor, rows: 1, columns: 1, colour: view.colours.page, width: 5 });
      this.paintFrame({ ...this.cursor, rows: 1, columns: 1, colour: view.colours.text, width: 2 });
    }
  }

  image() {
    const { rows, columns, values } = this;
    const picture = h("canvas", { width: columns, height: rows });
    const image = new ImageData(columns, rows);
    const bad = this.view.colours.roles.not_a_number;
    for (let i = 0; i < rows * columns; i++) {
      if (this.blank?.(i) || this.hatched?.(i)) continue;
      const colour = Number.isNaN(values[i])
        ? [1, 3, 5].map((from) => parseInt(bad.slice(from, from + 2), 16))
        : this.shade(values[i]);
      image.data.set([...colour, 255], 4 * i);
    }
    picture.getContext("2d").putImageData(image, 0, 0);
    return picture;
  }

  // All hidden cells at once, a run of them in a row as one rectangle: cell by cell takes too long.
  paintHatching() {
    const { context, at, rows, columns, view } = this;
    const [wide, high] = [columns * at.cell, rows * at.high];
    context.save();
    context.beginPath();
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const from = column;
        while (column < columns && this.hatched(row * columns + column)) column++;
        const run = (column - from) * at.cell;
        if (run) context.rect(at.left + from * at.cell, at.top + row * at.high, run, at.high);
      }
    }
    context.fillStyle = view.colours.blank;
    context.fill();
    context.clip();
    context.beginPath();
    for (let shift = 0; shift < wide + high; shift += 6) {
      context.moveTo(at.left + shift, at.top);
      context.lineTo(at.left + shift - high, at.top + high);
    }
    context.strokeStyle = view.colours.roles.mask;
    context.lineWidth = 1;
    context.stroke();
    context.restore();
  }

  paintNumbers() {
    const { context, at, rows, columns, values } = this;
    context.font = SMALL;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let i = 0; i < rows * columns; i++) {
      if (this.blank?.(i)) continue;
      const hidden = this.hatched?.(i);
      const text = this.write(values[i], i);
      if (!text || context.measureText(text).width > at.cell - 2) continue;
      const plain = hidden || Number.isNaN(values[i]);
      context.fillStyle = plain ? this.view.colours.quiet : ink(this.shade(values[i]));
      const [row, column] = [Math.floor(i / columns), i % columns];
      context.fillText(text, at.left + (column + 0.5) * at.cell, at.top + (row + 0.5) * at.high);
    }
    context.textBaseline = "alphabetic";
  }

  paintLabels() {
    const { context, at, rows, columns, view, cursor } = this;
    const { query_text, key_text, quiet, text } = view.colours;
    const [rowColour, columnColour] = this.plain ? [text, text] : [query_text, key_text];
    context.font = MONO;
    const every = (cell) => (at.named ? 1 : Math.ceil(14 / cell));
    if (at.named && this.rowLabels) {
      context.textAlign = "right";
      for (let row = 0; row < rows; row += every(at.high)) {
        context.fillStyle = row === cursor?.row ? rowColour : quiet;
        context.fillText(shortened(this.rowLabels[row]), at.left - 5, at.top + (row + 0.5) * at.high + 4);
      }
    }
    if (at.named && this.columnLabels) {
      for (let column = 0; column < columns; column += every(at.cell)) {
        context.save();
        context.translate(at.left + (column + 0.5) * at.cell + 4, at.top - 5);
        context.rotate(-Math.PI / 3);
        context.textAlign = "left";
        context.fillStyle = column === cursor?.column ? columnColour : quiet;
        context.fillText(shortened(this.columnLabels[column]), 0, 0);
        context.restore();
      }
    }
    context.font = SMALL;
    context.textAlign = "left";
    context.fillStyle = columnColour;
    context.fillText(this.columnTitle, at.left, 12);
    context.save();
    context.translate(12, at.top + rows * at.high);
    context.rotate(-Math.PI / 2);
    context.fillStyle = rowColour;
    context.fillText(this.rowTitle, 0, 0);
    context.restore();
  }

  paintFrame({ row, column, rows, columns, colour, width = 2 }) {
    const { context, at } = this;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(at.left + column * at.cell, at.top + row * at.high, columns * at.cell, rows * at.high);
  }

  // Moves the cursor without telling anybody.
  mark(cursor) {
    if (cursor?.row === this.cursor?.row && cursor?.column === this.cursor?.column) return;
    this.cursor = cursor;
    if (this.values) this.paint();
  }

  point(cursor) {
    if (cursor?.row === this.cursor?.row && cursor?.column === this.cursor?.column) return;
    this.mark(cursor);
    this.onpoint?.(cursor);
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.at.left) / this.at.cell);
    const row = Math.floor((event.clientY - box.top - this.at.top) / this.at.high);
    return row < 0 || column < 0 || row >= this.rows || column >= this.columns ? null : { row, column };
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => {
      const cell = this.cellAt(event);
      if (cell) this.onpick?.(cell);
    });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { row, column } = this.cursor ?? { row: 0, column: 0 };
      const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
      const steps = { ...STEPS, Home: [0, -this.columns], End: [0, this.columns] };
      if (steps[event.key]) {
        const [down, right] = this.cursor ? steps[event.key] : [0, 0];
        this.point({ row: clamp(row + down, this.rows), column: clamp(column + right, this.columns) });
      } else if (event.key === "Enter" && this.cursor) this.onpick?.(this.cursor);
      else return;
      event.preventDefault();
    });
  }
}

// One entry of a legend: a small square, by class or by colour, and what it stands for.
export function swatch(kind, text, colour) {
  const sample = h("i", { class: `swatch ${kind}` });
  if (colour) sample.style.background = colour;
  return h("span", {}, sample, text);
}

function shortened(text) {
  const letters = Array.from(text);
  return letters.length > LONGEST_LABEL ? letters.slice(0, LONGEST_LABEL - 1).join("") + "…" : text;
}
