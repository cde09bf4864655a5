// LoRA: a weight, its low-rank update, their sum, and the singular values of all three.
import { h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { slider } from "./controls.js";
import { digits, grouped, percent } from "./words.js";
import { Plot } from "./plot.js";
import { Matrix, swatch } from "./matrix.js";
import { singularValues } from "./singular.js";

const MOST_SHOWN = 48; // singular values
const NAMES = { weight: "weight W", update: "update (α/r)·A·B", sum: "sum" };

class LoRAView extends Frame {
  legal({ rank, alpha }) {
    const within = (value, high) => Math.max(0, Math.min(high, value));
    return { rank: Math.round(within(rank, this.state.rank)), alpha: within(alpha, this.state.high) };
  }

  build() {
    const { state, now } = this;
    const rank = { low: 0, high: state.rank, step: 1 };
    const alpha = { low: 0, high: state.high, step: state.high / 64, show: digits };
    const controls = {
      rank: slider("Rank kept", rank, now.rank, (value) => this.set({ rank: value })),
      alpha: slider("Strength α", alpha, now.alpha, (value) => this.set({ alpha: value })),
    };
    this.tables = Object.fromEntries(
      Object.entries(NAMES).map(([name, title]) => [name, this.table(name, title)]),
    );
    this.plot = new Plot(this, {
      title: "Singular values, the largest first: how much each direction is stretched",
      onpoint: (index) => this.point(index === null ? null : { index }),
    });
    const nodes = Object.values(this.tables).map(({ node }) => node);
    const legend = h("p", { class: "keys" }, swatch("lora-below", "below zero"), swatch("lora-above", "above zero"));
    return {
      controls,
      body: [h("div", { class: "columns lora-three" }, ...nodes), legend, this.plot.node],
    };
  }

  table(name, title) {
    const onpoint = (cell) => {
      for (const other of Object.values(this.tables)) other.mark(cell);
      this.point(cell && { name, ...cell });
    };
    return new Matrix(this, { title, cell: 22, room: 300, onpoint });
  }

  // The parts of the update that are kept, added up and scaled, as Python's `update` does.
  compute() {
    const { rows, columns, rank } = this.state;
    const { weight, u, s, v } = this.arrays;
    const update = new Float64Array(rows * columns);
    const factor = this.now.alpha / rank;
    for (let part = 0; part < this.now.rank; part++) {
      for (let row = 0; row < rows; row++) {
        const scale = factor * u[row * rank + part] * s[part];
        for (let column = 0; column < columns; column++) {
          update[row * columns + column] += scale * v[part * columns + column];
        }
      }
    }
    const sum = update.map((value, i) => value + weight[i]);
    const own = s.slice(0, this.now.rank).map((value) => value * factor);
    const values = { weight: Array.from(this.arrays.own), update: Array.from(own) };
    values.sum = singularValues(sum, rows, columns);
    return { matrices: { weight, update, sum }, values };
  }

  draw(changed) {
    if (changed.length || !this.numbers) this.numbers = this.compute();
    const { matrices } = this.numbers;
    const most = Math.max(...["weight", "sum"].map((name) => largest(matrices[name])), 1e-12);
    for (const [name, table] of Object.entries(this.tables)) {
      table.draw({
        rows: this.state.rows,
        columns: this.state.columns,
        values: matrices[name],
        low: -most,
        high: most,
        signed: true,
        plain: true,
        columnTitle: "features out →",
        rowTitle: "features in",
      });
    }
    this.drawPlot();
  }

  drawPlot() {
    const { values } = this.numbers;
    const { output, query, mask } = this.colours.roles;
    const looks = { weight: mask, update: output, sum: query };
    const shown = Math.min(MOST_SHOWN, values.sum.length);
    const places = Array.from({ length: shown }, (_, i) => i + 1);
    const series = Object.entries(looks).map(([name, colour]) => ({
      name: NAMES[name],
      kind: "dots",
      radius: name === "sum" ? 2.5 : 4.5,
      hollow: name === "update",
      colour,
      x: places,
      y: places.map((_, i) => values[name][i] ?? 0),
    }));
    const high = 1.05 * Math.max(values.sum[0], values.weight[0], 1e-12);
    this.plot.draw({
      x: { label: "singular value, the largest first", low: 0.5, high: shown + 0.5 },
      y: { label: "size", low: 0, high },
      series,
    });
  }

  pointed() {} // tables and plot have marked the cursor themselves

  // Sizes are root sums of squares (Frobenius norms), of the update against the weight.
  relative() {
    const size = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    return size(this.numbers.values.update) / (size(this.numbers.values.weight) || 1);
  }

  heading() {
    const { rows, columns } = this.state;
    const { rank, alpha } = this.now;
    if (!rank || !alpha) return "No update: the sum is the weight itself";
    const share = (rank * (rows + columns)) / (rows * columns);
    const sizes = `${percent(share, 0)} of the numbers, ${percent(this.relative(), 0)} of the weight's size`;
    return `An update of rank ${rank}: ${sizes}`;
  }

  sentence() {
    const { cursor } = this;
    if (cursor?.name) {
      const at = cursor.row * this.state.columns + cursor.column;
      const { weight, update, sum } = this.numbers.matrices;
      const place = `From feature ${cursor.row} to feature ${cursor.column}: `;
      const sign = update[at] < 0 ? "−" : "+";
      return `${place}${digits(weight[at])} ${sign} ${digits(Math.abs(update[at]))} = ${digits(sum[at])}.`;
    }
    if (cursor) {
      const { weight, update, sum } = this.numbers.values;
      const at = cursor.index;
      const parts = `weight ${digits(weight[at])}, update ${digits(update[at] ?? 0)}, sum ${digits(sum[at])}`;
      return `Singular value ${at + 1}: ${parts}.`;
    }
    const { rows, columns, rank } = this.state;
    const kept = this.now.rank;
    const thin = `${rows} × ${kept} and ${kept} × ${columns}`;
    const count = grouped(kept * (rows + columns));
    const dropped = ` The adapter was made with rank ${rank}; its ${rank - kept} smallest parts are dropped.`;
    const lowered = kept < rank ? dropped : "";
    return (
      `Two thin matrices, ${thin}: ${count} numbers are trained in place of ${grouped(rows * columns)}. ` +
      `The update stretches at most ${kept} ${kept === 1 ? "direction" : "directions"}.${lowered}`
    );
  }

  drawn() {
    const { matrices, values } = this.numbers;
    return {
      update: Array.from(matrices.update),
      sum: Array.from(matrices.sum),
      singular: values.sum,
      singularOfUpdate: values.update,
      share: this.relative(),
    };
  }
}

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

const widget = { render: mount(LoRAView) };
export default widget;
