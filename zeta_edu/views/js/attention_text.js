// The text itself: tokens coloured by what the pinned one looks at, lines for the hovered one.
import { h, ink } from "./runtime.js";
import { shade } from "./attention_data.js";

const MOST_LINES = 16;
const LEAST_WEIGHT = 0.02; // thinner lines than this only clutter

export class TokenText {
  constructor(view) {
    this.view = view;
    this.lines = [];
    this.marked = {};
    this.drawing = h("svg", { class: "lines", "aria-hidden": "true" });
    this.heading = h("p", { class: "note" });
    this.keys = this.strip("tokens", view.keyLabels);
    this.queries = view.sameTokens ? this.keys : this.strip("tokens that look", view.queryLabels);
    const named = (strip, kind, text) => h("div", {}, h("b", { class: kind }, text), strip.node);
    const strips = view.sameTokens
      ? [this.keys.node]
      : [named(this.queries, "asks", "queries"), named(this.keys, "answers", "keys")];
    this.page = h("div", { class: "strips" }, ...strips, this.drawing);
    this.node = h("div", { class: "text" }, this.heading, this.page);
  }

  strip(name, labels) {
    const node = h("div", { class: "strip", role: "listbox", tabindex: 0, "aria-label": name });
    const tokens = labels.map((label) => h("span", { class: "token", role: "option" }, ...parts(label)));
    tokens.forEach((token, i) => (token.dataset.index = i));
    // A line ends behind its last token, not within: an empty piece of it would start the next.
    tokens.forEach((token, i) => node.append(token, labels[i].endsWith("⏎") ? "\n" : ""));
    const strip = { node, tokens };
    const index = (event) => event.target.closest?.(".token")?.dataset.index;
    node.addEventListener("pointerover", (event) => {
      if (index(event) !== undefined) this.hover(strip, Number(index(event)));
    });
    node.addEventListener("pointerleave", () => this.view.point(null));
    node.addEventListener("click", (event) => {
      if (index(event) !== undefined) this.pin(strip, Number(index(event)));
    });
    node.addEventListener("keydown", (event) => this.key(event, strip));
    node.addEventListener("blur", () => this.view.point(null));
    node.addEventListener("scroll", () => this.drawLines());
    return strip;
  }

  // The strip a token is pinned in: the queries', or the keys' when asking who looks at a key.
  active() {
    return this.view.now.direction === "query" ? this.queries : this.keys;
  }

  coloured() {
    return this.view.now.direction === "query" ? this.keys : this.queries;
  }

  hover(strip, token) {
    if (strip === this.active()) this.view.pointToken(token);
  }

  pin(strip, token) {
    if (strip === this.active()) this.view.set({ query: token });
  }

  key(event, strip) {
    if (strip !== this.active() || event.ctrlKey || event.metaKey || event.altKey) return;
    const { view } = this;
    const now = view.hovered() ?? view.now.query;
    const last = strip.tokens.length - 1;
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step) view.pointToken(Math.max(0, Math.min(last, now + step)));
    else if (event.key === "Home") view.pointToken(0);
    else if (event.key === "End") view.pointToken(last);
    else if (event.key === "Enter" || event.key === " ") view.set({ query: now });
    else return;
    reveal(strip, view.hovered() ?? view.now.query);
    event.preventDefault();
  }

  draw() {
    const { view } = this;
    const { now, colours } = view;
    const scale = view.data.scale(now);
    const bad = `background:${colours.roles.not_a_number};color:#fff`;
    this.weights = view.data.line(now, now.query, now.direction);
    this.coloured().tokens.forEach((token, i) => {
      const value = this.weights[i];
      if (view.data.blank(now.stage, value)) this.paint(token, "blank", "");
      else if (Number.isNaN(value)) this.paint(token, "", bad);
      else {
        const colour = colours.shades[shade(value, scale)];
        this.paint(token, "", `background:rgb(${colour});color:${ink(colour)}`);
      }
    });
    if (!view.sameTokens) this.active().tokens.forEach((token) => this.paint(token, "", ""));
    this.heading.textContent = view.data.queries
      ? now.direction === "query"
        ? "Pick a token: the more it looks at another, the more colour that one gets."
        : "Pick a token: the more another looks at it, the more colour that one gets."
      : "";
    this.mark();
    reveal(this.active(), now.query);
  }

  // Only what differs is touched: of thousands of tokens most keep their looks.
  paint(token, kind, style) {
    if (token.looks === kind + style) return;
    token.looks = kind + style;
    token.classList.toggle("blank", kind === "blank");
    token.style.cssText = style;
  }

  mark() {
    const { view } = this;
    const { tokens, node } = this.active();
    for (const strip of [this.queries, this.keys]) strip.node.tabIndex = strip.node === node ? 0 : -1;
    const marks = { pinned: tokens[view.now.query], hovered: tokens[view.hovered()] };
    for (const [name, token] of Object.entries(marks)) {
      if (token === this.marked[name]) continue;
      this.marked[name]?.classList.remove(name);
      token?.classList.add(name);
      if (name === "pinned") {
        this.marked[name]?.removeAttribute("aria-selected");
        token.setAttribute("aria-selected", true);
      }
      this.marked[name] = token;
    }
    this.page.classList.toggle("backwards", view.now.direction === "key");
    this.drawLines();
  }

  // From the hovered token to those that matter to it, as thick as the weight.
  drawLines() {
    const { view } = this;
    this.lines = [];
    this.drawing.replaceChildren();
    const hovered = view.hovered();
    if (hovered === null) return;
    const weights = view.data.line({ ...view.now, stage: "softmax" }, hovered, view.now.direction);
    this.lines = Array.from(weights, (weight, to) => ({ from: hovered, to, weight }))
      .filter(({ weight }) => weight >= LEAST_WEIGHT)
      .sort((a, b) => b.weight - a.weight)
      .slice(0, MOST_LINES);
    const frame = this.page.getBoundingClientRect();
    const centre = (token) => {
      const boxes = Array.from(token.getClientRects()); // one for each line it stands on
      const box = boxes.reduce((widest, next) => (next.width > widest.width ? next : widest));
      return [box.left + box.width / 2 - frame.left, box.top + 3 - frame.top];
    };
    const start = centre(this.active().tokens[hovered]);
    for (const { to, weight } of this.lines) {
      const end = centre(this.coloured().tokens[to]);
      const path = h("path", { d: bow(start, end), "stroke-width": 1 + 4 * weight });
      path.style.opacity = 0.35 + 0.5 * weight;
      this.drawing.append(path);
    }
  }
}

// Scrolls a long text, and nothing but it, to a token.
function reveal({ node, tokens }, token) {
  const [frame, box] = [node.getBoundingClientRect(), tokens[token].getBoundingClientRect()];
  if (box.top < frame.top) node.scrollTop -= frame.top - box.top + 8;
  if (box.bottom > frame.bottom) node.scrollTop += box.bottom - frame.bottom + 8;
}

// A line that rises a little, so that one along a row of text does not strike the words out.
function bow([x0, y0], [x1, y1]) {
  const rise = Math.min(60, 16 + 0.2 * Math.abs(x1 - x0));
  if (x0 === x1 && y0 === y1) return `M${x0 - 4},${y0} c-12,-20 20,-20 8,0`;
  return `M${x0},${y0} Q${(x0 + x1) / 2},${(y0 + y1) / 2 - rise} ${x1},${y1}`;
}

// A newline is shown and taken; the signs that stand for white space are drawn quietly.
function parts(label) {
  const pieces = label.split(/([·⏎→]+)/).filter((piece) => piece);
  const last = pieces.length - 1;
  return pieces.map((piece, i) => {
    if (!/^[·⏎→]/.test(piece)) return piece;
    return h("i", {}, piece.replace(i < last ? /⏎/g : /⏎(?!$)/g, "⏎\n"));
  });
}
