// What the view says in words: one sentence about one weight, or about one token. A sentence is a
// list of strings and of elements that hold a token's text.
import { h } from "./runtime.js";

const asks = (view, query) => h("code", { class: "asks" }, view.queryLabels[query]);
const answers = (view, key) => h("code", { class: "answers" }, view.keyLabels[key]);

const signed = (value) =>
  value === -Infinity ? "minus infinity" : value.toFixed(2).replace("-", "−");

// No more digits than the coding kept.
function amount(view, value) {
  if (view.now.stage !== "softmax") return signed(value);
  if (value > 0 && value < 0.001) return "less than 0.1\u00a0%";
  if (view.step().error < 0.001) return `${(100 * value).toFixed(1)}\u00a0%`;
  return `about ${Math.round(100 * value)}\u00a0%`;
}

export function cellSentence(view, { query, key }) {
  const value = view.data.at(view.now, query, key);
  const [from, to] = [asks(view, query), answers(view, key)];
  const [at, on] = [` (token ${query}) `, ` (token ${key})`];
  if (Number.isNaN(value)) return ["From ", from, at, "to ", to, on, ": not a number."];
  if (view.now.stage !== "softmax") {
    const masked = value === -Infinity ? ": masked, so its weight will be zero." : ".";
    return [from, at, "and ", to, on, `: ${view.step().title} ${amount(view, value)}${masked}`];
  }
  if (value === 0 && view.state.causal && key > query) {
    return [from, at, "cannot see ", to, on, ", which comes later."];
  }
  if (value === 0) return [from, at, "gives none of its attention to ", to, on, "."];
  return [from, at, `gives ${amount(view, value)} of its attention to `, to, on, "."];
}

export function lineSentence(view, token) {
  const { direction, stage } = view.now;
  const asking = direction === "query";
  const line = view.data.line(view.now, token, direction);
  const name = [asking ? asks(view, token) : answers(view, token), ` (token ${token})`];
  if (line.some(Number.isNaN)) return [...name, " has values that are not numbers."];
  const best = Array.from(line, (value, i) => ({ value, i }))
    .filter(({ value }) => !view.data.blank(stage, value))
    .sort((a, b) => b.value - a.value)
    .slice(0, 3);
  if (!best.length) {
    return asking ? [...name, " has nothing to look at."] : ["No token looks at ", ...name, "."];
  }
  const list = best.flatMap(({ value, i }, at) => [
    at === 0 ? "" : at === best.length - 1 ? " and " : ", ",
    asking ? answers(view, i) : asks(view, i),
    ` (${amount(view, value)})`,
  ]);
  if (stage !== "softmax") return [...name, `, ${view.step().title}: highest for `, ...list, "."];
  const most = best.length > 1 ? "most " : "";
  if (asking) return [...name, ` looks ${most}at `, ...list, "."];
  return [...name, ` is looked at ${most}by `, ...list, " of their attention."];
}
