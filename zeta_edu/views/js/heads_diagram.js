// The diagram: query heads in a row, the key and value heads they read beneath them, brackets
// between. Every box stands for as many numbers of a token as any other.
import { h } from "./runtime.js";

// In pixels: the margin holds the names of the rows, the gap beneath the queries the brackets.
const HEADS = { margin: 92, box: 38, queries: 6, keys: 104, values: 150, height: 222 };

export class HeadsDiagram {
  constructor(view) {
    this.view = view;
    this.svg = h("svg", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "diagram",
      "aria-label": "Heads and the keys and values they read. Arrow keys move between them.",
    });
    this.node = h("div", { class: "diagram" }, this.svg);
    this.svg.addEventListener("pointerleave", () => view.point(null));
    this.svg.addEventListener("blur", () => view.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  draw() {
    const { heads } = this.view.state;
    const room = Math.max(160, this.node.clientWidth || 600);
    const cell = Math.min(96, (room - HEADS.margin - 10) / heads);
    this.at = { cell, box: cell - Math.min(10, 0.2 * cell), width: HEADS.margin + cell * heads + 10 };
    this.svg.setAttribute("width", this.at.width);
    this.svg.setAttribute("height", HEADS.height);
    this.svg.replaceChildren(this.frame(), ...this.names(), ...this.groups());
    this.mark();
  }

  // The middle of a query head, and of the key/value head that a group of them reads.
  middle(query) {
    return HEADS.margin + (query + 0.5) * this.at.cell;
  }

  kvMiddle(kv) {
    const { group } = this.view;
    return this.middle(kv * group + (group - 1) / 2);
  }

  frame() {
    const { heads } = this.view.state;
    const box = { x: HEADS.margin - 5, y: HEADS.keys - 8, width: this.at.cell * heads + 10, rx: 8 };
    const height = 2 * HEADS.box + 24;
    const below = { x: HEADS.margin, y: HEADS.keys + height + 8, class: "cached" };
    return h("g", {}, h("rect", { ...box, height, class: "kept" }), h("text", below, this.cached()));
  }

  cached() {
    const { now, state } = this.view;
    const numbers = `${now.kv_heads} × (${state.dim_head} + ${state.dim_head}) numbers`;
    return this.at.width < 420 ? `cached: ${numbers}` : `kept in the cache, of each token: ${numbers}`;
  }

  names() {
    const { heads } = this.view.state;
    const { kv_heads } = this.view.now;
    const name = (role, top, count, word) => [
      h("text", { x: 0, y: top + 17, class: `${role} name` }, String(count)),
      h("text", { x: 0, y: top + 33, class: `${role} name small` }, `${word} head${count === 1 ? "" : "s"}`),
    ];
    return [
      ...name("query", HEADS.queries, heads, "query"),
      ...name("key", HEADS.keys, kv_heads, "key"),
      ...name("value", HEADS.values, kv_heads, "value"),
    ];
  }

  groups() {
    const { kv_heads } = this.view.now;
    return Array.from({ length: kv_heads }, (_, kv) => this.group(kv));
  }

  group(kv) {
    const { group } = this.view;
    const middle = this.kvMiddle(kv);
    const members = Array.from({ length: group }, (_, i) => kv * group + i);
    return h(
      "g",
      { class: "group" },
      ...members.map((query) => this.wire(query, middle)),
      ...members.map((query) => this.query(query)),
      this.pair(kv, middle),
    );
  }

  // A query head's own path down to its keys; together those of a group make a bracket.
  wire(query, middle) {
    const top = HEADS.queries + HEADS.box;
    const d = `M${this.middle(query)} ${top}V${top + 24}H${middle}V${HEADS.keys - 9}`;
    return h("path", { class: "wire", d, "data-wire": query });
  }

  query(query) {
    const hear = { "data-query": query, onpointerenter: () => this.view.point({ query }) };
    const middle = this.middle(query);
    const room = this.ground(middle, HEADS.queries, this.at.cell, HEADS.box);
    return h("g", hear, room, ...this.box("query", query, middle, HEADS.queries));
  }

  pair(kv, middle) {
    const hear = { "data-kv": kv, onpointerenter: () => this.view.point({ kv }) };
    const height = HEADS.values + HEADS.box - HEADS.keys;
    const room = this.ground(middle, HEADS.keys, this.at.cell * this.view.group, height);
    const boxes = [["key", HEADS.keys], ["value", HEADS.values]];
    return h("g", hear, room, ...boxes.flatMap(([role, top]) => this.box(role, kv, middle, top)));
  }

  // Nothing to see, but room for the cursor: between the boxes too.
  ground(middle, y, width, height) {
    return h("rect", { class: "ground", x: middle - width / 2, y, width, height });
  }

  box(role, number, middle, y) {
    const { box } = this.at;
    const rect = { class: role, x: middle - box / 2, y, width: box, height: HEADS.box, rx: Math.min(6, box / 4) };
    const text = { class: `${role} number`, x: middle, y: y + HEADS.box / 2 + 5 };
    return [h("rect", rect), ...(box >= 20 ? [h("text", text, String(number))] : [])];
  }

  // Lights what the cursor is on together with what it reads or serves, and dims the rest.
  mark() {
    const { cursor, group } = this.view;
    const inside = cursor && cursor.option === undefined;
    const kv = inside ? (cursor.kv ?? Math.floor(cursor.query / group)) : null;
    const lit = (query) => (cursor.query === undefined ? Math.floor(query / group) === kv : query === cursor.query);
    for (const node of this.svg.querySelectorAll("[data-query], [data-kv], [data-wire]")) {
      const { query, wire, kv: own } = node.dataset;
      const on = inside && (own === undefined ? lit(Number(query ?? wire)) : Number(own) === kv);
      node.classList.toggle("lit", Boolean(on));
      node.classList.toggle("dim", Boolean(inside && !on));
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = this.next(event.key);
    if (!next) return;
    event.preventDefault();
    this.view.point(next);
  }

  next(key) {
    const { state, now, group, cursor } = this.view;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[key];
    const within = (at, count) => Math.max(0, Math.min(count - 1, at));
    if (!/^(Arrow|Home|End)/.test(key)) return null;
    if (!cursor || cursor.option !== undefined) return { query: 0 };
    if (step && cursor.kv === undefined) return { query: within(cursor.query + step, state.heads) };
    if (step) return { kv: within(cursor.kv + step, now.kv_heads) };
    if (key === "ArrowDown") return { kv: cursor.kv ?? Math.floor(cursor.query / group) };
    return { query: cursor.query ?? cursor.kv * group };
  }
}
