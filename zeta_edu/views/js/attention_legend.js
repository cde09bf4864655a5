// What a colour means, with its numbers, and how exact the numbers are.
import { h } from "./runtime.js";

export class Legend {
  constructor(view) {
    this.view = view;
    this.bar = h("div", { class: "bar", "aria-hidden": "true" });
    this.name = h("p", {});
    this.low = h("span", {});
    this.high = h("span", {});
    this.blank = h("span", {});
    const swatch = (kind, text) => h("p", {}, h("i", { class: `swatch ${kind}` }), text);
    this.node = h(
      "div",
      { class: "legend" },
      this.name,
      this.bar,
      h("p", { class: "ends" }, this.low, this.high),
      swatch("blank", this.blank),
    );
    if (view.state.has_nan) this.node.append(swatch("bad", "not a number"));
    this.precision = h("p", { class: "quiet" });
    this.node.append(this.precision);
  }

  draw() {
    const { view } = this;
    const weights = view.now.stage === "softmax";
    const { low, high, log } = view.data.scale(view.now);
    const digits = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
    this.bar.style.background = `linear-gradient(90deg, ${view.colours.stops})`;
    const { title, precision } = view.step();
    this.name.textContent = weights
      ? `Share of a query's attention${log ? ", on a log scale" : ""}`
      : title;
    this.precision.textContent = precision;
    this.low.textContent = log ? `${digits(low)} and less` : digits(low);
    this.high.textContent = weights && high < 1 ? `${digits(high)} and more` : digits(high);
    this.blank.textContent = weights ? "exactly 0" : "masked: minus infinity";
    view.controls.scale.node.disabled = !weights;
  }
}
