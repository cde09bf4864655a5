// What the heads view says, and the sums behind it. Sizes of one layer and one token come from
// Python; here they are only multiplied.
import { bytes, grouped, plural } from "./words.js";

export const partsTotal = (parts) => Object.values(parts).reduce((sum, count) => sum + count, 0);

const partsTimes = (parts, factor) =>
  Object.fromEntries(Object.entries(parts).map(([name, count]) => [name, count * factor]));

// The parameters and cache bytes of a way to share, by their roles, for the whole model.
export function sharingSizes({ parameters, cached }, { layers, context, bytes_per_number }) {
  return {
    parameters: partsTimes(parameters, layers),
    token: partsTimes(cached, layers * bytes_per_number),
    cache: partsTimes(cached, layers * bytes_per_number * context),
  };
}

export function sharingTitle(heads, kvHeads) {
  if (heads === 1) return "One query head reads one key/value head: there is nothing to share";
  if (kvHeads === heads) return `Multi-head: each of ${heads} query heads has keys and values of its own`;
  const group = heads / kvHeads;
  const less = `the cache shrinks to 1/${group}`;
  if (kvHeads === 1) return `Multi-query: all ${heads} query heads read one key/value head; ${less}`;
  return `Grouped-query: ${group} query heads share each key/value head; ${less}`;
}

export function sharingName(heads, kvHeads) {
  if (heads === 1) return "";
  return kvHeads === heads ? "multi-head" : kvHeads === 1 ? "multi-query" : "";
}

// "4", "4 and 5", "4 to 7".
function headsRange(first, last) {
  if (first === last) return `${first}`;
  return last === first + 1 ? `${first} and ${last}` : `${first} to ${last}`;
}

export function querySentence(query, group) {
  const kv = Math.floor(query / group);
  const start = `Query head ${query} reads key/value head ${kv}`;
  const own = "Its queries are its own, and so are its weights";
  if (group === 1) return `${start}, which serves no other. ${own}.`;
  const heads = headsRange(kv * group, (kv + 1) * group - 1);
  return `${start}, as heads ${heads} all do. ${own}; the keys and values are common to all ${group}.`;
}

export function kvSentence(kv, group, dimHead, width) {
  const heads = headsRange(kv * group, (kv + 1) * group - 1);
  return (
    `Key/value head ${kv} serves ${group === 1 ? "query head" : "query heads"} ${heads}. In each layer ` +
    `a token leaves ${dimHead} numbers as its key and ${dimHead} as its value here: ` +
    `${bytes(2 * dimHead * width)} of cache.`
  );
}

export function wholeSentence(size, { layers, context }) {
  const where = layers === 1 ? "one layer" : `${layers} layers`;
  return (
    `In ${where}, a token adds ${bytes(partsTotal(size.token))} to the cache; ` +
    `${plural(context, "token")} fill ${bytes(partsTotal(size.cache))}, and every step of writing reads all of ` +
    `it. Attention has ${grouped(partsTotal(size.parameters))} parameters. Point at a head to see what it reads.`
  );
}

export function optionSentence(kvHeads, size, most) {
  const kept = partsTotal(size.cache) / partsTotal(most.cache);
  const learned = partsTotal(size.parameters) / partsTotal(most.parameters);
  const of = (share) => `${Math.round(100 * share)}\u00a0%`;
  const start = `With ${plural(kvHeads, "key/value head")}: ${bytes(partsTotal(size.cache))} of cache`;
  const parameters = `${grouped(partsTotal(size.parameters))} parameters`;
  if (kept === 1) return `${start} and ${parameters}, the most there can be.`;
  return `${start}, ${of(kept)} of multi-head's, and ${parameters}, ${of(learned)} of multi-head's.`;
}
