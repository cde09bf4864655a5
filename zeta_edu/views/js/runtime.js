// What every view needs: numbers out of text, elements without markup, colours, the page's theme.
// No framework and no network. Text from outside reaches the page through text nodes alone.
import { STYLE, CSS } from "./generated.js"; // made from style.py and view.css when a page is built

// An element: attributes by name, listeners by "on...", children as elements or plain text.
export function h(tag, attributes = {}, ...children) {
  const space = "http://www.w3.org/2000/svg";
  const node = /^(svg|path|line|rect|circle|g|text)$/.test(tag)
    ? document.createElementNS(space, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function fromPlanes(bytes, width) {
  const count = bytes.length / width;
  const joined = new Uint8Array(bytes.length);
  for (let plane = 0; plane < width; plane++) {
    for (let i = 0; i < count; i++) joined[i * width + plane] = bytes[plane * count + i];
  }
  if (width === 4) return new Float32Array(joined.buffer);
  return Float32Array.from(new Uint16Array(joined.buffer), fromHalf);
}

// The inverse of codec.py's encoders.
export async function decodeArray(coded) {
  const bytes = await inflate(coded.data);
  if (coded.dtype === "float32") return fromPlanes(bytes, 4);
  if (coded.dtype === "float16") return fromPlanes(bytes, 2);
  const table = Float32Array.from({ length: 256 }, (_, code) =>
    coded.scale === "sqrt" ? (code / coded.levels) ** 2 : coded.low + code * coded.step,
  );
  table[254] = -Infinity;
  table[255] = NaN;
  const values = new Float32Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) values[i] = table[bytes[i]];
  return values;
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// 256 shades between the stops of style.py, as [red, green, blue].
export function shades(stops) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(at), stops.length - 2);
    const [from, to] = [channels(stops[left]), channels(stops[left + 1])];
    return from.map((value, c) => Math.round(value + (to[c] - value) * (at - left)));
  });
}

// Black or white, by which stands out more (WCAG 2.2's relative luminance). On every colour one of
// the two has a contrast above 4.5.
export function ink(colour) {
  const [red, green, blue] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#FFFFFF";
}

function brightness(colour) {
  const [red, green, blue] = colour.match(/[\d.]+/g).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue;
}

// The page behind a view: JupyterLab and VS Code say whether their theme is light; otherwise look
// at the first background that is painted, and last at the empty page's own.
function pageIsDark(host) {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return !vscodeThemeKind.endsWith("light");
  for (let node = host.parentElement; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/^rgba.*, 0\)$/.test(colour)) return brightness(colour) < 110;
  }
  host.style.color = "Canvas"; // the browser's own page colour, in the scheme the page allows
  const canvas = brightness(getComputedStyle(host).color);
  host.style.color = "";
  return canvas < 110;
}

// One observer for all views of a page. It knows them weakly: a view whose cell ran again is gone.
const looks = new WeakMap();
const hosts = new Set();
let observer;

function lookAgain() {
  for (const known of hosts) {
    const host = known.deref();
    if (!looks.has(host)) hosts.delete(known);
    else if (host.isConnected) looks.get(host)();
  }
}

function observe() {
  observer = new MutationObserver(lookAgain);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", lookAgain);
}

// Tells `changed(dark)` now and whenever the page's theme changes; returns a function that stops.
export function watchTheme(host, changed) {
  let last;
  looks.set(host, () => {
    const dark = pageIsDark(host);
    if (dark !== last) changed((last = dark));
  });
  hosts.add(new WeakRef(host));
  if (!observer) observe();
  looks.get(host)();
  return () => looks.delete(host);
}

export function theme(dark) {
  const colours = dark ? STYLE.dark : STYLE.light;
  const [amounts, both] = [shades(colours.stops), shades(colours.signed)];
  return { dark, roles: STYLE.roles, ...colours, shades: amounts, signed_shades: both };
}

// A shadow root for a view, with the shared style sheet; the page's own styles stay outside.
export function stage(host, ...children) {
  // JupyterLab takes keys for its own shortcuts, unless an element asks for them.
  host.setAttribute("data-lm-suppress-shortcuts", "true");
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.replaceChildren(h("style", {}, CSS), ...children);
  return root;
}

export function dress(node, colours) {
  node.classList.toggle("dark", colours.dark);
  for (const [name, value] of Object.entries({ ...colours, ...colours.roles })) {
    if (typeof value === "string") node.style.setProperty(`--${name.replaceAll("_", "-")}`, value);
  }
}

// A choice of one among few, as radio buttons: arrow keys and screen readers know them.
export function choice(label, options, chosen, pick) {
  const buttons = options.map(([value, text]) => {
    const radio = h("input", { type: "radio", name: label, value, onchange: () => pick(value) });
    return { value, radio, label: h("label", {}, radio, h("span", {}, text)) };
  });
  const node = h("fieldset", { class: "choice" }, h("legend", {}, label));
  node.append(...buttons.map((button) => button.label));
  const show = (value) => buttons.forEach((b) => (b.radio.checked = b.value === value));
  show(chosen);
  return { node, show };
}

export function drop(label, count, chosen, pick) {
  const select = h("select", { onchange: () => pick(Number(select.value)) });
  for (let i = 0; i < count; i++) select.append(h("option", { value: i }, String(i)));
  const node = h("label", { class: "drop" }, h("span", {}, label), select);
  const show = (value) => (select.value = String(value));
  show(chosen);
  return { node, show };
}

// Stands in for the kernel's model on a page without a kernel: the same get, set and on.
export function pageModel(state) {
  const values = { ...state.start, state };
  return {
    get: (name) => values[name],
    set: (name, value) => (values[name] = value),
    on: () => {},
    off: () => {},
    save_changes: () => {},
  };
}

// Defines the element that holds a saved view. Its name carries a digest of this very code, so
// that pages made by two versions can be open side by side. Every copy of the element draws
// itself into its own shadow; until then, and without scripts, the picture inside it shows.
export function define(name, view) {
  if (customElements.get(name)) return;
  customElements.define(
    name,
    class extends HTMLElement {
      async connectedCallback() {
        if (this.drawing) return looks.get(this)?.(); // moved, perhaps into another theme
        this.drawing = true;
        const state = JSON.parse(this.querySelector('script[type="application/json"]').textContent);
        await view.render({ model: pageModel(state), el: this });
      }
    },
  );
}
