// The attention view: text, one head large, all heads small, and a sentence about the cursor.
import { choice, decodeArray, dress, drop, h, stage, theme, watchTheme } from "./runtime.js";
import { Matrices } from "./attention_data.js";
import { HeatMap } from "./attention_map.js";
import { HeadGrid } from "./attention_heads.js";
import { TokenText } from "./attention_text.js";
import { Legend } from "./attention_legend.js";
import { cellSentence, lineSentence } from "./attention_words.js";

const SHARED = ["layer", "head", "query", "stage", "direction", "scale"]; // with the kernel

class AttentionView {
  constructor(model, arrays) {
    Object.assign(this, { model, state: model.get("state"), cursor: null, token: null });
    this.data = new Matrices(this.state, arrays);
    this.keyLabels = this.state.key_labels;
    this.queryLabels = this.state.query_labels ?? this.keyLabels;
    this.sameTokens = !this.state.query_labels;
    this.now = this.legal(Object.fromEntries(SHARED.map((name) => [name, model.get(name)])));
    this.build();
  }

  // Follows the kernel; returns a function that stops.
  listen() {
    const { model } = this;
    const heard = SHARED.map((name) => {
      const hear = () => this.set({ [name]: model.get(name) });
      model.on(`change:${name}`, hear);
      return () => model.off(`change:${name}`, hear);
    });
    return () => heard.forEach((stop) => stop());
  }

  build() {
    const pick = (name) => (value) => this.set({ [name]: value });
    const { now, data, state } = this;
    // One head alone leaves nothing to choose.
    this.alone = data.layers * data.heads === 1;
    this.controls = {
      ...(!this.alone && {
        layer: drop("Layer", data.layers, now.layer, pick("layer")),
        head: drop("Head", data.heads, now.head, pick("head")),
      }),
      direction: choice(
        "The picked token",
        [["query", "looks at"], ["key", "is looked at by"]],
        now.direction,
        pick("direction"),
      ),
      scale: choice("Scale", [["linear", "linear"], ["log", "log"]], now.scale, pick("scale")),
    };
    if (state.stages.length > 1) {
      const options = state.stages.map(({ name, title }) => [name, title]);
      this.controls.stage = choice("Step", options, now.stage, pick("stage"));
    }
    this.title = h("h3", {});
    this.readout = h("p", { class: "readout", role: "status", "aria-live": "polite" });
    this.text = new TokenText(this);
    this.map = new HeatMap(this);
    this.grid = new HeadGrid(this);
    this.legend = new Legend(this);
    const controls = Object.values(this.controls).map(({ node }) => node);
    this.node = h(
      "section",
      { class: "view attention", "aria-label": "attention view" },
      this.title,
      h("div", { class: "controls" }, ...controls),
      h(
        "div",
        { class: "panels" },
        h("div", { class: "reading" }, this.text.node, this.readout),
        this.map.node,
        h("div", { class: "overview" }, this.grid.node, this.legend.node),
      ),
    );
  }

  // Whatever is asked for, from Python or by hand, ends inside the data.
  legal(wanted) {
    const { layers, heads, queries, keys } = this.data;
    const within = (value, count) => Math.max(0, Math.min(count - 1, value));
    return {
      ...wanted,
      layer: within(wanted.layer, layers),
      head: within(wanted.head, heads),
      query: within(wanted.query, wanted.direction === "query" ? queries : keys),
    };
  }

  set(changes) {
    const before = this.now;
    this.now = this.legal({ ...before, ...changes });
    const changed = SHARED.filter((name) => this.now[name] !== before[name]);
    for (const name of SHARED) {
      if (this.model.get(name) !== this.now[name]) this.model.set(name, this.now[name]);
    }
    this.model.save_changes();
    if (!changed.length) return;
    if (changed.includes("direction")) this.token = null;
    if (changed.some((name) => name === "stage" || name === "scale")) this.grid.draw();
    if (changed.every((name) => name === "query")) this.map.paint();
    else this.map.draw();
    this.drawRest();
  }

  draw() {
    this.grid.draw();
    this.map.draw();
    this.drawRest();
  }

  drawRest() {
    this.grid.mark();
    this.text.draw();
    this.legend.draw();
    this.title.textContent = this.heading();
    for (const [name, control] of Object.entries(this.controls)) control.show(this.now[name]);
    this.say();
  }

  heading() {
    const { layer, head } = this.now;
    const finding = this.state.findings[layer][head];
    if (this.alone) return finding[0].toUpperCase() + finding.slice(1);
    return `Layer ${layer}, head ${head}: ${finding}`;
  }

  wear(dark) {
    const colours = theme(dark);
    this.colours = { ...colours, asks: colours.query_text, answers: colours.key_text };
    dress(this.node, this.colours);
    if (this.drawn) this.draw();
  }

  // The cursor stands on a cell of the map, on a token of the text, or nowhere.
  point(cell) {
    if (cell?.query === this.cursor?.query && cell?.key === this.cursor?.key && this.token === null)
      return;
    this.cursor = cell;
    this.token = null;
    this.pointed();
  }

  pointToken(token) {
    this.cursor = null;
    this.token = token;
    this.pointed();
  }

  pointed() {
    this.map.paint();
    this.text.mark();
    this.say();
  }

  hovered() {
    return this.cursor ? this.cursor[this.now.direction] : this.token;
  }

  step() {
    return this.state.stages.find(({ name }) => name === this.now.stage);
  }

  // Where the keyboard's cursor starts: the pinned token and what matters most to it.
  home() {
    const line = this.data.line(this.now, this.now.query, this.now.direction);
    const most = line.reduce((best, value, i) => (value > line[best] ? i : best), 0);
    const { query } = this.now;
    return this.now.direction === "query" ? { query, key: most } : { query: most, key: query };
  }

  say(text) {
    const sentence = this.cursor
      ? cellSentence(this, this.cursor)
      : lineSentence(this, this.hovered() ?? this.now.query);
    this.readout.replaceChildren(...(text ? [text] : sentence));
  }

  // What is on the screen, for tests: numbers as drawn, not as meant.
  report() {
    const { map, text, now, title, readout, cursor } = this;
    return {
      ...now,
      cursor,
      dark: this.colours.dark,
      title: title.textContent,
      readout: readout.textContent,
      window: { ...map.window },
      rows: map.rows,
      columns: map.columns,
      values: Array.from(map.values),
      plot: map.at,
      line: Array.from(text.weights),
      lines: text.lines,
      scale: this.data.scale(now),
      firstDraw: this.firstDraw,
    };
  }
}

async function render({ model, el }) {
  const began = performance.now();
  const { shape, stages, arrays } = model.get("state");
  if (shape.includes(0)) {
    const words = "Nothing to look at yet: the text has no tokens.";
    const empty = h("section", { class: "view empty" }, h("p", { role: "status" }, words));
    stage(el, empty);
    return watchTheme(el, (dark) => dress(empty, theme(dark)));
  }
  const decoded = await Promise.all(stages.map(({ name }) => decodeArray(arrays[name])));
  const view = new AttentionView(model, Object.fromEntries(stages.map(({ name }, i) => [name, decoded[i]])));
  stage(el, view.node);
  const stops = [watchTheme(el, (dark) => view.wear(dark)), view.listen()];
  view.draw();
  view.drawn = true;
  view.firstDraw = performance.now() - began;
  el.view = view;
  const resized = new ResizeObserver(() => view.map.resize());
  resized.observe(view.map.node);
  return () => {
    stops.forEach((stop) => stop());
    resized.disconnect();
  };
}

const widget = { render };
export default widget;
