// What the mask view says in words. The title is the same as `finding` in mask.py.
import { h } from "./runtime.js";
import { digits, percent, plural } from "./words.js";
import { isPadding } from "./mask_data.js";

export function maskFinding({ visible, counts, rows, keys }, { causal, padding }) {
  const blind = counts.filter((count) => count === 0).length;
  const open = visible.filter(Boolean).length;
  const besides = padding > 1 ? `, except the ${padding} padded ones` : ", except the padded one";
  const left = blind
    ? `${blind} ${blind > 1 ? "queries" : "query"} can see nothing`
    : `${open} of ${visible.length} cells are open`;
  return `${whoSeesWhom(rows, keys, causal)}${padding ? besides : ""}: ${left}`;
}

function whoSeesWhom(queries, keys, causal) {
  if (causal && queries === 1 && keys > 1) return "A single new token comes last, so causality hides nothing from it";
  if (causal && queries < keys) {
    return `Each of ${queries} new tokens sees the cache, itself, and the new ones before it`;
  }
  if (causal) return "Each token sees itself and the tokens before it";
  if (queries === keys) return "Every token sees every token";
  return queries === 1 ? "The new token sees every token" : "New tokens see every token";
}

// About one cell: whether it is hidden, by what, and what that does to its weight.
export function maskCellSentence(view, { row, column }) {
  const { table, now } = view;
  const i = row * table.keys + column;
  const [score, weight] = [digits(table.scores[i]), table.weights[i]];
  const [from, to] = [queryNamed(view, row), keyNamed(view, column)];
  if (table.visible[i]) {
    return [...from, "sees ", ...to, `: 0 is added to its score, ${score}. Its weight is ${percent(weight)}.`];
  }
  const reasons = [];
  if (now.causal && column > now.past + row) reasons.push("comes later");
  if (isPadding(now, column, table.keys)) reasons.push("is padding");
  const why = [...from, "cannot see ", ...to, `, which ${reasons.join(" and ")}: `];
  const end = table.counts[row] ? "" : ` ${BLIND}`;
  return [...why, `minus infinity is added to its score, ${score}, and its weight is 0.${end}`];
}

const BLIND = "This query can see nothing at all. Softmax would divide 0 by 0; its weights are set to 0.";

// About one query: among how many keys it shares its attention.
export function maskRowSentence(view, row) {
  const { counts, keys } = view.table;
  if (!counts[row]) return [...queryNamed(view, row), `has a row sum of 0. ${BLIND}`];
  const among = counts[row] === keys ? `all ${plural(keys, "key")}` : `${counts[row]} of ${plural(keys, "key")}`;
  return [...queryNamed(view, row), `shares its attention among ${among}: the weights of its row sum to 1.`];
}

export function maskStory({ table, now }) {
  const cached = now.past
    ? ` The ${plural(now.past, "position")} in the cache ${now.past > 1 ? "are keys" : "is a key"} only: ` +
      "their queries had their turn before."
    : "";
  const blind = table.counts.includes(0)
    ? " A row of −∞ alone would give 0 divided by 0; its weights are set to 0, and so is its sum."
    : "";
  return (
    "Read along a row. Adding −∞ to a score hides it: e to the power of −∞ is 0, so its weight is exactly 0, " +
    `and the cells that are left share the whole.${blind}${cached}`
  );
}

const queryNamed = (view, row) => {
  const position = view.now.past + row;
  return [h("code", { class: "asks" }, view.names[position]), ` (token ${position}) `];
};
const keyNamed = (view, column) => [h("code", { class: "answers" }, view.names[column]), ` (token ${column})`];
