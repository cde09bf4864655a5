// Controls that the browser, the keyboard and screen readers know: each has a node and show(value).
import { h } from "./runtime.js";

// A button with a sign on it and its meaning in words.
export function button(sign, name, act) {
  return h("button", { type: "button", class: "plain", title: name, "aria-label": name, onclick: act }, sign);
}

// A number between low and high. With `log` the slider moves over its logarithm; `show` puts the
// number into words, with its unit.
export function slider(label, { low, high, step, log = false, show = String }, chosen, pick) {
  const [inward, outward] = log ? [Math.log10, (at) => 10 ** at] : [Number, Number];
  const words = h("output", {});
  const input = h("input", {
    type: "range",
    min: inward(low),
    max: inward(high),
    step: step ?? "any",
    oninput: () => pick(outward(Number(input.value))),
  });
  const node = h("label", { class: "slider" }, h("span", {}, label), input, words);
  const present = (value) => {
    input.value = inward(value);
    words.textContent = show(value);
    input.setAttribute("aria-valuetext", show(value));
  };
  present(chosen);
  return { node, show: present };
}

export function toggle(label, chosen, pick) {
  const input = h("input", { type: "checkbox", onchange: () => pick(input.checked) });
  const node = h("label", { class: "toggle" }, input, h("span", {}, label));
  const show = (value) => (input.checked = value);
  show(chosen);
  return { node, show };
}
