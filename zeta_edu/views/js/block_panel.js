// What stands beside the diagram: where the picked part comes from, and the numbers it gives.
import { h, ink } from "./runtime.js";
import { Plot } from "./plot.js";
import { digits } from "./words.js";

const BLOCK_COLUMNS = ["least", "largest", "mean", "rms"];

export class BlockPanel {
  constructor(view) {
    this.view = view;
    this.origin = h("p", { class: "origin" });
    this.telling = h("div", { class: "telling" }, view.readout, this.origin);
    this.table = h("div", { class: "table" });
    this.plot = new Plot(view, {
      title: "How often each value occurs",
      height: 170,
      onpoint: (bin) => view.point(bin === null ? null : { bin }),
    });
    this.strip = h("div", { class: "strip", tabindex: 0, role: "application" });
    this.strip.setAttribute("aria-label", "Tokens. Left and right arrow keys move the cursor.");
    this.strip.addEventListener("keydown", (event) => this.steer(event));
    this.strip.addEventListener("pointerleave", () => view.point(null));
    this.strip.addEventListener("blur", () => view.point(null));
    this.tokens = h("div", {}, h("h4", {}, "rms at each token, more in more colour"), this.strip);
    this.absent = h("p", { class: "note" });
    this.numbers = h("div", { class: "numbers" }, this.table, this.plot.node, this.tokens, this.absent);
  }

  draw() {
    const { view } = this;
    const wires = view.given();
    this.origin.replaceChildren(...this.source());
    this.table.replaceChildren(this.rows(wires));
    // One wire has a histogram and its tokens; of several, only the table can be compared.
    this.plot.node.hidden = this.tokens.hidden = wires.length !== 1;
    if (wires.length === 1) {
      this.histogram(wires[0]);
      this.colour(wires[0]);
    }
    const names = view.state.absent.map(({ title, lesson }) => `${title} (lesson ${lesson})`);
    this.absent.textContent = names.length ? `Not in this block, or not in use here: ${names.join(", ")}.` : "";
  }

  source() {
    const part = this.view.maker();
    if (!part) return ["It comes from outside: the embedding of the tokens, or the block below."];
    const { lesson, lesson_title, file, function: name } = part;
    return [
      h("b", {}, `Lesson ${lesson}, ${lesson_title}`),
      " builds it; the package has it as ",
      h("code", {}, name),
      " in ",
      h("code", {}, `zeta_edu/${file}`),
      ".",
    ];
  }

  rows(wires) {
    const { view } = this;
    const head = h("tr", {}, h("th", {}, "wire"), ...BLOCK_COLUMNS.map((name) => h("th", {}, name)));
    const body = wires.map((name) => {
      const numbers = view.statistics(name);
      const cells = BLOCK_COLUMNS.map((column) => h("td", {}, digits(numbers[column])));
      return h("tr", {}, h("th", { class: view.role(name) ?? "" }, view.wire(name).title), ...cells);
    });
    return h("table", {}, head, ...body);
  }

  histogram(name) {
    const { view } = this;
    const shares = view.bins(name);
    const [low, high] = view.ends(name);
    this.step = (high - low) / shares.length;
    const x = Array.from(shares, (_, bin) => low + (bin + 0.5) * this.step);
    const colour = view.colours.roles[view.role(name)] ?? view.colours.quiet;
    const top = Math.max(...shares) || 1;
    this.plot.draw({
      x: { label: "value", low, high },
      y: { label: "share", low: 0, high: 1.05 * top, format: (share) => `${digits(100 * share)}\u00a0%` },
      series: [{ kind: "bars", x, y: shares, colour }],
    });
  }

  colour(name) {
    const { view } = this;
    const sizes = view.byToken(name);
    const top = Math.max(...sizes.filter((size) => !Number.isNaN(size))) || 1;
    const spans = view.tokens().map((token, at) => {
      const shade = view.colours.shades[Math.round((255 * (sizes[at] || 0)) / top)];
      const style = `background: rgb(${shade}); color: ${ink(shade)}`;
      return h("span", { class: "token", style, onpointerenter: () => view.point({ token: at }) }, token);
    });
    this.strip.replaceChildren(...spans);
    this.mark();
  }

  mark() {
    const { cursor } = this.view;
    Array.from(this.strip.children, (span, at) => span.classList.toggle("hovered", at === cursor?.token));
    this.plot.mark(cursor?.bin ?? null);
  }

  steer(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.strip.children.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const from = this.view.cursor?.token;
    const token = from === undefined ? 0 : Math.max(0, Math.min(last, from + step));
    this.view.point({ token });
    this.strip.children[token].scrollIntoView({ block: "nearest" });
  }
}
