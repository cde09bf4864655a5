// What the xPos view says: its title, and a sentence about what the cursor is on.
import { digits, grouped, percent } from "./words.js";

export function xposShare(share) {
  return share > 0 && share < 0.005 ? "less than 1\u00a0%" : percent(share, 0).replace("-", "−");
}

export function xposHeading(ceiling, length) {
  const most = ceiling < 0.005 ? "less than 1\u00a0%" : `at most ${percent(ceiling, 0)}`;
  return (
    `With pairs of one length, xPos leaves ${most} of a product at distance ${grouped(length)}; ` +
    "rotation alone can leave all of it"
  );
}

export function xposSentence(view) {
  const { cursor, now, state } = view;
  if (cursor?.bands) return xposBandSentence(view, cursor);
  if (cursor?.distance !== undefined) return xposDistanceSentence(view, cursor);
  if (cursor?.position !== undefined) return xposPositionSentence(view, cursor);
  return `${state.curves[now.curve].about} Point at a plot to read it.`;
}

function xposDistanceSentence(view, { distance, at }) {
  const { rope, xpos } = view.curves;
  const text =
    `At distance ${grouped(distance)}, ${view.state.curves[view.now.curve].keeps} ${xposShare(rope[at])} ` +
    `with rotation alone and ${xposShare(xpos[at])} with xPos.`;
  return view.own ? text + xposHeadSentence(view, distance) : text;
}

function xposHeadSentence(view, distance) {
  const { distances, curves } = view.own;
  if (distance > distances.at(-1)) return " The model's text is not so long.";
  const gaps = distances.map((one) => Math.abs(one - distance));
  const near = gaps.indexOf(Math.min(...gaps));
  return (
    ` The head's own products at distance ${grouped(distances[near])} are on average ` +
    `${xposShare(curves.rope[near])} and ${xposShare(curves.xpos[near])} of the most its lengths allow.`
  );
}

function xposBandSentence({ groups, bands, parts }, { distance, at }) {
  const left = groups.map(([first, last], i) => {
    const share = (bands[i][at] * parts.zetas.length) / (last - first + 1);
    return `${xposShare(share)} of ${xposGroupName([first, last], parts)}`;
  });
  return `At distance ${grouped(distance)}, xPos leaves ${left.join("; ")}.`;
}

// "pairs 0 to 7 (a turn in 6 to 47 positions)"
export function xposGroupName([first, last], { frequencies }) {
  const turns = [first, last].map((pair) => grouped((2 * Math.PI) / frequencies[pair]));
  if (first === last) return `pair ${first} (a turn in ${turns[0]} positions)`;
  return `pairs ${first} to ${last} (a turn in ${turns.join(" to ")} positions)`;
}

function xposPositionSentence(view, { position }) {
  const infinite = view.overflows.filter((one) => position >= one.position).map(({ name }) => name);
  const factor = digits(view.parts.zetas[0] ** (-position / view.now.scale_base), 2);
  const verdict = infinite.length ? `infinite in ${infinite.join(", ")}` : "which every dtype can hold";
  return (
    `A key ${grouped(position)} positions after a fixed origin is multiplied by ${factor} in its fastest pair, ` +
    `${verdict}. The query there is divided by it, so that the product stays as it was.`
  );
}
