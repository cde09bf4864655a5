// A plot: lines, dots, bars and bands over two axes, a legend, and a cursor on one x at a time.
import { h } from "./runtime.js";
import { digits } from "./words.js";

const LETTERS = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

// Round numbers across a range; on a logarithmic axis powers of ten.
export function ticks({ low, high, log }, most) {
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const every = Math.max(1, Math.ceil((last - first + 1) / most));
    const found = [];
    for (let power = first; power <= last; power += every) found.push(10 ** power);
    return found;
  }
  const rough = (high - low) / most || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((size) => size >= rough);
  const found = [];
  // Adding 0 turns −0 into 0.
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step + 0);
  return found;
}

export class Plot {
  // `title` stands above, `height` is in pixels; `onpoint(index)` hears which x of the first
  // series the cursor is on, or null. `onpick(index)`, if given, hears clicks and Enter.
  constructor(view, { title, height = 260, onpoint, onpick }) {
    Object.assign(this, { view, height, onpoint, onpick, cursor: null });
    this.canvas = h("canvas", { tabindex: 0, role: "application", "aria-roledescription": "plot" });
    this.canvas.setAttribute("aria-label", `${title}. Left and right arrow keys move the cursor.`);
    this.legend = h("p", { class: "keys" });
    this.node = h("div", { class: "plot" }, h("h4", {}, title), this.canvas, this.legend);
    this.listen();
  }

  // `x`, `y`: { label, low, high, log, ticks, format }. `series`: { name, kind, x, y, colour, dash },
  // kind "line" (default, with `width`), "dots" (with `radius`, and rings if `hollow`), "bars" or
  // "band" (with `from`, its lower edge, and `alpha`). Colour alone must not tell two of them apart.
  // `marks`: { x or y, text, colour }, lines across the plot.
  draw({ x, y, series, marks = [] }) {
    Object.assign(this, { x, y, series, marks });
    this.layout();
    this.paint();
    this.explain();
  }

  layout() {
    const width = Math.max(220, this.node.clientWidth || 520);
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.context = this.canvas.getContext("2d");
    this.context.font = LETTERS;
    const words = this.y.ticks ?? ticks(this.y, 5);
    const widest = Math.max(...words.map((at) => this.context.measureText(this.write(this.y, at)).width));
    this.box = { left: widest + 28, top: 10, right: width - 12, bottom: this.height - 40 };
  }

  write(axis, value) {
    return (axis.format ?? digits)(value);
  }

  across(value) {
    return this.box.left + share(this.x, value) * (this.box.right - this.box.left);
  }

  up(value) {
    const clipped = Math.max(-0.5, Math.min(1.5, share(this.y, value)));
    return this.box.bottom - clipped * (this.box.bottom - this.box.top);
  }

  paint() {
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    this.paintAxes();
    context.save();
    context.beginPath();
    const { left, top, right, bottom } = this.box;
    context.rect(left, top - 4, right - left, bottom - top + 8);
    context.clip();
    for (const mark of this.marks) this.paintMark(mark);
    for (const one of this.series) this.paintSeries(one);
    this.paintCursor();
    context.restore();
  }

  paintAxes() {
    const { context, box, view } = this;
    const { left, top, right, bottom } = box;
    context.font = LETTERS;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const most = Math.max(2, Math.floor((right - left) / 70));
    for (const at of this.x.ticks ?? ticks(this.x, most)) {
      stroke(context, view.colours.line, [[this.across(at), bottom], [this.across(at), bottom + 4]]);
      context.fillStyle = view.colours.quiet;
      context.fillText(this.write(this.x, at), this.across(at), bottom + 17);
    }
    context.textAlign = "right";
    for (const at of this.y.ticks ?? ticks(this.y, 5)) {
      stroke(context, view.colours.line, [[left, this.up(at)], [right, this.up(at)]]);
      context.fillStyle = view.colours.quiet;
      context.fillText(this.write(this.y, at), left - 6, this.up(at) + 4);
    }
    stroke(context, view.colours.quiet, [[left, bottom], [right, bottom]]);
    context.textAlign = "center";
    context.fillStyle = view.colours.text;
    context.fillText(this.x.label, (left + right) / 2, bottom + 34);
    context.save();
    context.translate(12, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(this.y.label, 0, 0);
    context.restore();
  }

  paintMark({ x, y, text, colour = this.view.colours.quiet }) {
    const { context, box } = this;
    const { left, top, right, bottom } = box;
    const [from, to] =
      x === undefined
        ? [[left, this.up(y)], [right, this.up(y)]]
        : [[this.across(x), top], [this.across(x), bottom]];
    stroke(context, colour, [from, to], 1.5, [4, 4]);
    if (!text) return;
    const wide = context.measureText(text).width;
    const after = from[0] + 4 + wide <= right ? from[0] + 4 : from[0] - 4 - wide;
    const at = x === undefined ? right - wide - 2 : after;
    context.textAlign = "left";
    context.fillStyle = colour;
    context.fillText(text, at, x === undefined ? from[1] - 5 : top + 10);
  }

  paintSeries(one) {
    const { context } = this;
    const points = Array.from(one.x, (x, i) => [this.across(x), this.up(one.y[i])]);
    context.fillStyle = one.colour;
    if (one.kind === "bars") {
      const wide = Math.max(1, (points.length > 1 ? points[1][0] - points[0][0] : 40) - 1);
      const floor = Math.min(this.box.bottom, this.up(this.y.log ? this.y.low : 0));
      for (const [x, y] of points) context.fillRect(x - wide / 2, y, wide, floor - y);
    } else if (one.kind === "dots") {
      for (const [x, y] of points) (one.hollow ? ring : dot)(context, x, y, one.radius ?? 3.5);
    } else if (one.kind === "band") {
      const floor = Array.from(one.x, (x, i) => [this.across(x), this.up(one.from[i])]).reverse();
      context.globalAlpha = one.alpha ?? 0.25;
      context.beginPath();
      [...points, ...floor].forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.fill();
      context.globalAlpha = 1;
    } else stroke(context, one.colour, points, one.width ?? 2, one.dash);
  }

  paintCursor() {
    const { context, series, cursor, view } = this;
    if (cursor === null || !series.length || cursor >= series[0].x.length) return;
    const x = series[0].x[cursor];
    const { top, bottom } = this.box;
    stroke(context, view.colours.text, [[this.across(x), top], [this.across(x), bottom]], 1);
    for (const { kind, x: at, y, colour } of series) {
      if (kind === "bars" || kind === "band" || at[cursor] !== x || Number.isNaN(y[cursor])) continue;
      context.fillStyle = view.colours.page;
      dot(context, this.across(x), this.up(y[cursor]), 6);
      context.fillStyle = colour;
      dot(context, this.across(x), this.up(y[cursor]), 4);
    }
  }

  explain() {
    const named = this.series.filter(({ name }) => name);
    this.legend.replaceChildren(...named.map((one) => h("span", {}, sample(one), one.name)));
  }

  // Marks the index-th x of the first series, without telling anybody.
  mark(index) {
    if (index === this.cursor) return;
    this.cursor = index;
    if (this.series) this.paint();
  }

  point(index) {
    if (index === this.cursor) return;
    this.mark(index);
    this.onpoint?.(index);
  }

  nearest(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    if (!this.series?.length || x < this.box.left - 8 || x > this.box.right + 8) return null;
    const distances = Array.from(this.series[0].x, (at) => Math.abs(this.across(at) - x));
    return distances.reduce((best, distance, i) => (distance < distances[best] ? i : best), 0);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => {
      const index = this.nearest(event);
      if (index !== null) this.onpick?.(index);
    });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.series?.length) return;
      const last = this.series[0].x.length - 1;
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -last, End: last }[event.key];
      if (step) this.point(this.cursor === null ? 0 : Math.max(0, Math.min(last, this.cursor + step)));
      else if (event.key === "Enter" && this.cursor !== null) this.onpick?.(this.cursor);
      else return;
      event.preventDefault();
    });
  }
}

// Where a value lies between the ends of an axis, as a share of it.
function share({ low, high, log }, value) {
  if (log) return Math.log(Math.max(value, 1e-300) / low) / Math.log(high / low);
  return (value - low) / (high - low || 1);
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function ring(context, x, y, radius) {
  context.strokeStyle = context.fillStyle;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, radius - 1, 0, 2 * Math.PI);
  context.stroke();
}

// What a series looks like, beside its name.
function sample({ kind = "line", colour, dash, width = 2, radius = 3.5, hollow }) {
  const node = h("i", { class: kind === "line" ? "dash" : kind === "dots" ? "spot" : "swatch" });
  const { style } = node;
  if (kind === "line") {
    style.borderTop = `${width + 1}px ${!dash ? "solid" : dash[0] > 2 ? "dashed" : "dotted"} ${colour}`;
  } else if (kind === "dots") {
    style.width = style.height = `${2 * radius}px`;
    style[hollow ? "border" : "background"] = hollow ? `2px solid ${colour}` : colour;
  } else style.background = colour;
  return node;
}

// A line through points; a point that is not a number leaves a gap.
export function stroke(context, colour, points, width = 1, dash = []) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  let down = false;
  for (const [x, y] of points) {
    if (Number.isNaN(x) || Number.isNaN(y)) down = false;
    else if (down) context.lineTo(x, y);
    else {
      context.moveTo(x, y);
      down = true;
    }
  }
  context.stroke();
  context.setLineDash([]);
}
