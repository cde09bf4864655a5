// One clock for each pair: the query's hand, the key's hand, and the angle between them.
import { h } from "./runtime.js";
import { bearing, pointerBearing, wrapAngle } from "./rotary_turns.js";
import { digits } from "./words.js";

const MOST_WORDED_CLOCKS = 16;
const CLOCK_REACH = 44; // of the longest hand; a clock's face has a radius of 48
const CLOCK_HELP =
  "A clock for each pair. Left and right arrow keys choose one, up and down move the query, with Shift the key.";

// Listeners by which `part` has its cursor follow the pointer (`over`) until `grab` has put something
// into `part.held`; then the pointer pulls that, and lets it go.
export function handling(part, grab, over) {
  const letGo = () => (part.held = null);
  return {
    onpointerdown: (event) => {
      grab(event);
      if (!part.held) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      event.preventDefault();
      part.focus();
    },
    onpointermove: (event) => (part.held ? part.pull(event) : over(event)),
    onpointerup: letGo,
    onpointercancel: letGo,
    onpointerleave: () => part.held || part.view.point(null),
  };
}

// What makes an element one stop of the keyboard; `type(key, shift)` says whether it knew the key.
export function typing(view, role, help, type) {
  const onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !type(event.key, event.shiftKey)) return;
    event.preventDefault();
  };
  const names = { role: "application", "aria-roledescription": role, "aria-label": help };
  return { tabindex: 0, ...names, onkeydown, onblur: () => view.point(null) };
}

export class Clocks {
  constructor(view) {
    this.view = view;
    this.held = null;
    const worded = view.turns.half <= MOST_WORDED_CLOCKS;
    this.all = view.turns.speeds.map((_, pair) => this.clock(pair, worded));
    const nodes = this.all.map(({ node }) => node);
    const keys = typing(view, "clocks", CLOCK_HELP, (key, shift) => this.type(key, shift));
    const row = (most) => Math.min(nodes.length, worded ? most : 2 * most);
    this.node = h("div", { class: "clocks", style: `--wide: ${row(8)}; --narrow: ${row(4)}`, ...keys }, ...nodes);
    const key = (role, text) => h("span", {}, h("i", { class: `dash ${role}` }), text);
    this.legend = h("p", { class: "keys" }, key("query", "query at m"), key("key", "key at n"));
    if (worded) this.legend.append(h("span", {}, "below: turn per position, share of q·k"));
    this.legend.append(h("span", {}, "Drag a hand; the first feature points up, the second right."));
  }

  clock(pair, worded) {
    const parts = { wedge: h("path"), key: h("path", { class: "key" }), query: h("path", { class: "query" }) };
    const { wedge, key, query } = parts;
    const hear = handling(this, (event) => this.grab(event, pair), () => this.point(pair));
    const face = h("svg", { viewBox: "-50 -50 100 100", ...hear }, h("circle", { r: 48 }), wedge, key, query);
    face.append(h("path", { class: "tick", d: "M0 -48V-42" }), h("circle", { class: "axle", r: 4 }));
    const [above, speed, share] = [0, 1, 2].map(() => h("span", {}));
    const node = h("div", { class: "clock" }, ...(worded ? [above, face, speed, share] : [face]));
    return { ...parts, face, node, above, speed, share };
  }

  draw() {
    const { turns, shown, colours } = this.view;
    this.all.forEach(({ wedge, key, query, node, above, speed, share }, pair) => {
      key.setAttribute("d", handPath(shown.keys[pair], turns.longest));
      query.setAttribute("d", handPath(shown.queries[pair], turns.longest));
      wedge.setAttribute("d", wedgePath(shown.queries[pair], shown.keys[pair], turns.longest));
      // Green where the cosine of the angle adds to the product, brown where it takes.
      const shade = colours.signed_shades[Math.round(127.5 * (1 + Math.cos(shown.between[pair])))];
      wedge.setAttribute("fill", `rgb(${shade.join()})`);
      node.classList.toggle("chosen", pair === this.view.pair());
      above.textContent = `features ${turns.members(pair).join(", ")}`;
      speed.textContent = `${digits(turns.speeds[pair])} rad`;
      const part = Math.abs(shown.parts[pair]) < 1e-12 ? 0 : shown.parts[pair];
      share.textContent = `${part > 0 ? "+" : ""}${digits(part)}`;
    });
  }

  point(pair) {
    this.view.point({ on: "clock", pair });
  }

  // The hand nearer to the pointer is taken, and turns with it as far as the positions go.
  grab(event, pair) {
    const { shown, now } = this.view;
    const at = pointerBearing(event, this.all[pair].face);
    const off = (hand) => Math.abs(wrapAngle(bearing(hand) - at));
    const name = off(shown.queries[pair]) <= off(shown.keys[pair]) ? "m" : "n";
    this.held = { pair, name, at, turn: 0, from: now[name] };
  }

  focus() {
    this.node.focus();
  }

  pull(event) {
    const { held, view } = this;
    const at = pointerBearing(event, this.all[held.pair].face);
    held.turn += wrapAngle(at - held.at);
    held.at = at;
    view.set({ [held.name]: held.from + Math.round(held.turn / view.turns.speeds[held.pair]) });
  }

  type(key, shift) {
    const { cursor, turns } = this.view;
    const last = turns.half - 1;
    const across = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[key];
    const turn = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[key];
    if (across) this.point(cursor?.on === "clock" ? Math.max(0, Math.min(last, cursor.pair + across)) : 0);
    else if (turn) this.view.move(shift ? "n" : "m", turn);
    return across || turn;
  }
}

// The first feature points up, the second to the right.
function handPath([first, second], longest) {
  const reach = CLOCK_REACH / longest;
  return `M0 0L${(second * reach).toFixed(2)} ${(-first * reach).toFixed(2)}`;
}

// The angle between two hands, the short way round.
function wedgePath(query, key, longest) {
  const longer = Math.max(Math.hypot(...query), Math.hypot(...key)) / longest;
  if (!Math.hypot(...query) || !Math.hypot(...key)) return "";
  const radius = Math.min(30, Math.max(10, 34 * longer));
  const on = (angle) => `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
  const clockwise = wrapAngle(bearing(query) - bearing(key)) > 0 ? 1 : 0;
  return `M0 0L${on(bearing(key))}A${radius} ${radius} 0 0 ${clockwise} ${on(bearing(query))}Z`;
}
