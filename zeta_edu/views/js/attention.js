// The attention view: text, one head large, all heads small, and a sentence about the cursor.
import { choice, drop, h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { Matrices } from "./attention_data.js";
import { HeatMap } from "./attention_map.js";
import { HeadGrid } from "./attention_heads.js";
import { TokenText } from "./attention_text.js";
import { Legend } from "./attention_legend.js";
import { cellSentence, lineSentence } from "./attention_words.js";

class AttentionView extends Frame {
  prepare() {
    this.token = null; // the cursor may stand on a token of the text instead of a cell of the map
    this.data = new Matrices(this.state, this.arrays);
    this.keyLabels = this.state.key_labels;
    this.queryLabels = this.state.query_labels ?? this.keyLabels;
    this.sameTokens = !this.state.query_labels;
  }

  build() {
    const pick = (name) => (value) => this.set({ [name]: value });
    const { now, data, state } = this;
    // One head alone leaves nothing to choose.
    this.alone = data.layers * data.heads === 1;
    const controls = {
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
      controls.stage = choice("Step", options, now.stage, pick("stage"));
    }
    this.text = new TokenText(this);
    this.map = new HeatMap(this);
    this.grid = new HeadGrid(this);
    this.legend = new Legend(this);
    const body = h(
      "div",
      { class: "panels" },
      h("div", { class: "reading" }, this.text.node, this.readout),
      this.map.node,
      h("div", { class: "overview" }, this.grid.node, this.legend.node),
    );
    return { controls, body: [body] };
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

  draw(changed) {
    if (changed.includes("direction")) this.token = null;
    if (changed.includes("stage") || changed.includes("scale")) this.grid.draw();
    if (changed.every((name) => name === "query")) this.map.paint();
    else this.map.draw();
    this.grid.mark();
    this.text.draw();
    this.legend.draw();
  }

  heading() {
    const { layer, head } = this.now;
    const finding = this.state.findings[layer][head];
    if (this.alone) return finding[0].toUpperCase() + finding.slice(1);
    return `Layer ${layer}, head ${head}: ${finding}`;
  }

  // The cursor stands on a cell of the map, on a token of the text, or nowhere.
  point(cell) {
    if (cell?.query === this.cursor?.query && cell?.key === this.cursor?.key && this.token === null)
      return;
    this.token = null;
    super.point(cell);
  }

  pointToken(token) {
    this.token = token;
    super.point(null);
  }

  pointed() {
    this.map.paint();
    this.text.mark();
  }

  resized() {
    this.map.resize();
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

  sentence() {
    if (this.cursor) return cellSentence(this, this.cursor);
    return lineSentence(this, this.hovered() ?? this.now.query);
  }

  drawn() {
    const { map, text, now } = this;
    return {
      window: { ...map.window },
      rows: map.rows,
      columns: map.columns,
      values: Array.from(map.values),
      plot: map.at,
      line: Array.from(text.weights),
      lines: text.lines,
      range: this.data.scale(now),
    };
  }
}

const widget = { render: mount(AttentionView) };
export default widget;
