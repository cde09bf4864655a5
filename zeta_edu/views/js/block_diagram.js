// The diagram of the block view: parts as boxes, wires with their shape and range beside them.
// Every part and every wire is a place that can be pointed at, picked, and reached by arrow keys.
import { h } from "./runtime.js";
import { digits } from "./words.js";

const BLOCK_WAYS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
const BLOCK_CORNER = 6;
const BLOCK_DOOR = 9;

export class BlockDiagram {
  constructor(view) {
    this.view = view;
    this.places = new Map(); // name: { node, at: [x, y], path or outline, texts }
    const { layout } = view.state;
    this.layout = layout;
    this.node = h("svg", {
      class: "diagram",
      viewBox: `0 0 ${layout.width} ${layout.height}`,
      role: "group",
      "aria-label": "The block, from x above to block(x) below. Arrow keys move between parts and wires.",
      onkeydown: (event) => this.steer(event),
      onpointerleave: () => view.point(null),
    });
    this.node.append(...this.backdrop());
    for (const wire of layout.wires) this.node.append(this.wire(wire));
    this.node.append(this.bar());
    for (const box of layout.boxes) this.node.append(this.box(box));
    this.node.append(this.sum());
  }

  backdrop() {
    const [left, top, width, height] = this.layout.frame;
    const [x, y, wide, high] = this.layout.panel;
    const wire = (wanted) => this.layout.wires.find(({ name }) => name === wanted);
    const [input, end] = [wire("x").points[0], wire("out").points.at(-1)];
    return [
      h("rect", { class: "frame", x: left, y: top, width, height, rx: BLOCK_CORNER }),
      h("text", { class: "quiet", x: left + 12, y: top + 20 }, "TransformerBlock"),
      blockDoor(left + width, top, "11"),
      h("rect", { class: "panel", x, y, width: wide, height: high, rx: BLOCK_CORNER }),
      h("text", { class: "name", x: input[0], y: input[1] - 5 }, "x"),
      h("text", { class: "quiet", x: end[0] + 10, y: end[1] }, "block(x); the model adds x back"),
    ];
  }

  // What all places share: they hear the pointer, clicks, focus, and tell what they are.
  place(name, at, label, ...children) {
    const { view } = this;
    const node = h(
      "g",
      {
        class: "place",
        role: "button",
        tabindex: -1,
        "aria-label": label,
        onpointerenter: () => view.point({ place: name }),
        onclick: () => view.set({ place: name }),
        onfocus: () => view.set({ place: name }),
      },
      ...children,
    );
    this.places.set(name, { node, at });
    return node;
  }

  wire({ name, points, label, role }) {
    const line = `M${points.map((point) => point.join(" ")).join("L")}`;
    const [x, y] = label;
    const texts = [h("text", { x, y: y - 4 }), h("text", { class: "range", x, y: y + 10 })];
    const { title } = this.view.wire(name);
    const node = this.place(
      name,
      [x - 7, y],
      title,
      h("path", { class: "hit", d: line }),
      h("path", { class: `line ${role ?? ""}`, d: line }),
      h("path", { class: `head ${role ?? ""}`, d: blockArrow(points.at(-2), points.at(-1)) }),
      ...texts,
    );
    this.places.get(name).texts = texts;
    return node;
  }

  bar() {
    const { x, y, width, height, segments } = this.layout.bar;
    const slices = segments.map((slice) =>
      h("rect", { class: `slice ${slice.role ?? ""}`, x: slice.x, y, width: slice.width, height }),
    );
    const outline = h("rect", { class: "outline", x, y, width, height });
    return this.place("part:split", [x + width / 2, y + height / 2], "split into slices", ...slices, outline);
  }

  box({ name, label, lesson, x, y, width, height }) {
    const centre = [x + width / 2, y + height / 2];
    return this.place(
      `part:${name}`,
      centre,
      `${label}, lesson ${lesson}`,
      h("rect", { class: "outline", x, y, width, height, rx: BLOCK_CORNER }),
      h("text", { class: "label", x: centre[0], y: centre[1] + 4.5 }, label),
      blockDoor(x + width, y, lesson),
    );
  }

  sum() {
    const [x, y, radius] = this.layout.sum;
    return this.place(
      "part:sum",
      [x, y],
      "sum of the two halves, lesson 07",
      h("circle", { class: "outline", cx: x, cy: y, r: radius }),
      h("text", { class: "label", x, y: y + 5 }, "+"),
    );
  }

  draw() {
    for (const { name, shape } of this.view.state.wires) {
      const { node, texts } = this.places.get(name);
      texts[0].textContent = shape.join(" × ");
      texts[1].textContent = this.view.range(name);
      node.classList.toggle("bad", this.view.statistics(name).bad > 0);
    }
    this.mark();
  }

  mark() {
    const { now, cursor } = this.view;
    for (const [name, { node }] of this.places) {
      const picked = name === now.place;
      node.classList.toggle("picked", picked);
      node.classList.toggle("hovered", name === cursor?.place);
      node.setAttribute("aria-pressed", picked);
      node.setAttribute("tabindex", picked ? 0 : -1);
    }
  }

  labels() {
    return Object.fromEntries(
      this.view.state.wires.map(({ name }) => [name, this.places.get(name).texts.map((t) => t.textContent)]),
    );
  }

  // The nearest place in a direction; what lies aside counts as farther.
  neighbour(name, [right, down]) {
    const [x, y] = this.places.get(name).at;
    let [best, least] = [null, Infinity];
    for (const [other, { at }] of this.places) {
      const [across, along] = right ? [at[1] - y, (at[0] - x) * right] : [at[0] - x, (at[1] - y) * down];
      const cost = along + 2.5 * Math.abs(across);
      if (along > 1 && cost < least) [best, least] = [other, cost];
    }
    return best;
  }

  steer(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { place } = this.view.now;
    const ends = { Home: "x", End: "out" };
    const next = BLOCK_WAYS[event.key] ? this.neighbour(place, BLOCK_WAYS[event.key]) : ends[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (next) this.places.get(next).node.focus();
  }
}

function blockDoor(cx, cy, lesson) {
  const disc = h("circle", { cx, cy, r: BLOCK_DOOR });
  return h("g", { class: "door" }, disc, h("text", { x: cx, y: cy + 3.5 }, lesson));
}

function blockArrow([fromX, fromY], [x, y]) {
  const length = Math.hypot(x - fromX, y - fromY) || 1;
  const [right, down] = [(x - fromX) / length, (y - fromY) / length];
  const [backX, backY] = [x - 8 * right, y - 8 * down];
  const [sideX, sideY] = [4 * down, -4 * right];
  return `M${x} ${y}L${backX + sideX} ${backY + sideY}L${backX - sideX} ${backY - sideY}Z`;
}

// A wire's numbers, short enough to stand beside it.
export function blockRange({ least, largest, rms, bad }, numbers) {
  if (bad) return `${bad} not finite`;
  if (Number.isNaN(rms)) return "no numbers";
  if (numbers === "rms") return `rms ${digits(rms)}`;
  return `${digits(least, 2)} to ${digits(largest, 2)}`;
}
