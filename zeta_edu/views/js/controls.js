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

// Steps through `count` pictures: back, play or pause, forward, and a slider to scrub with.
export function player(label, count, chosen, pick, { milliseconds = 700, show = String } = {}) {
  let now = chosen;
  let timer = null;
  const go = (step) => pick(Math.max(0, Math.min(count - 1, step)));
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶";
    play.setAttribute("aria-label", "play");
  };
  const tick = () => {
    if (now >= count - 1 || !node.isConnected) return pause();
    go(now + 1);
  };
  const start = () => {
    if (now >= count - 1) go(0);
    timer = setInterval(tick, milliseconds);
    play.textContent = "❚❚";
    play.setAttribute("aria-label", "pause");
  };
  const byHand = (step) => () => {
    pause();
    go(now + step);
  };
  const play = button("▶", "play", () => (timer === null ? start() : pause()));
  const pull = (step) => {
    pause();
    go(step);
  };
  const scrub = slider(label, { low: 0, high: count - 1, step: 1, show }, chosen, pull);
  const back = button("◀", "one step back", byHand(-1));
  const forward = button("▶|", "one step on", byHand(1));
  const node = h("span", { class: "player", role: "group", "aria-label": label });
  node.append(back, play, forward, scrub.node);
  const present = (value) => {
    now = value;
    scrub.show(value);
  };
  return { node, show: present, stop: pause };
}
