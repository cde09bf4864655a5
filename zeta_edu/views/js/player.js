// A control that plays through a number of pictures.
import { h } from "./runtime.js";
import { button, slider } from "./controls.js";

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
