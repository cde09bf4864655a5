// What all views share: a title that says the finding, controls, a picture, and a sentence about
// what the cursor is on. The controls' values are shared with the kernel, where there is one.
//
// A view is a class that extends Frame and has
//   build()      makes its parts; returns { controls: { name: control }, body: [elements] }
//   draw()       draws them for `this.now`, in the colours `this.colours`
//   heading()    the title for `this.now`
//   sentence()   about the cursor, or in general: a text, or a list of texts and elements
//   drawn()      what stands on the screen, as numbers, for tests
// and may have prepare() (before anything else), legal(wanted) (what is asked for, brought inside
// the data) and pointed() (the cursor has moved). It has no constructor of its own.
import { decodeArray, dress, h, stage, theme, watchTheme } from "./runtime.js";

export class Frame {
  constructor(model, arrays) {
    Object.assign(this, { model, arrays, state: model.get("state"), cursor: null });
    this.shared = Object.keys(this.state.start);
    this.prepare();
    this.now = this.legal(Object.fromEntries(this.shared.map((name) => [name, model.get(name)])));
    this.title = h("h3", {});
    this.readout = h("p", { class: "readout", role: "status", "aria-live": "polite" });
    const { controls, body } = this.build();
    this.controls = controls;
    for (const [name, { node }] of Object.entries(controls)) node.dataset.control = name;
    const bar = h("div", { class: "controls" }, ...Object.values(controls).map(({ node }) => node));
    const placed = body.some((node) => node.contains(this.readout));
    this.node = h(
      "section",
      { class: `view ${this.state.kind}`, "aria-label": `${this.state.kind} view` },
      this.title,
      bar,
      ...(placed ? body : [...body, this.readout]),
    );
  }

  prepare() {}

  legal(wanted) {
    return wanted;
  }

  // Follows the kernel; returns a function that stops.
  listen() {
    const heard = this.shared.map((name) => {
      const hear = () => this.set({ [name]: this.model.get(name) });
      this.model.on(`change:${name}`, hear);
      return () => this.model.off(`change:${name}`, hear);
    });
    return () => heard.forEach((stop) => stop());
  }

  // What is asked for, by hand or from Python, is drawn and told to the other side.
  set(changes) {
    const before = this.now;
    this.now = this.legal({ ...before, ...changes });
    const changed = this.shared.filter((name) => this.now[name] !== before[name]);
    for (const name of this.shared) {
      if (this.model.get(name) !== this.now[name]) this.model.set(name, this.now[name]);
    }
    this.model.save_changes();
    if (changed.length) this.redraw(changed);
    else this.showControls();
  }

  redraw(changed = this.shared) {
    this.draw(changed);
    this.title.replaceChildren(...[this.heading()].flat());
    this.showControls();
    this.say();
  }

  showControls() {
    for (const [name, control] of Object.entries(this.controls)) control.show(this.now[name]);
  }

  point(cursor) {
    this.cursor = cursor;
    this.pointed();
    this.say();
  }

  pointed() {
    this.draw([]);
  }

  say(text = this.sentence()) {
    this.readout.replaceChildren(...[text].flat());
  }

  wear(dark) {
    this.colours = theme(dark);
    dress(this.node, this.colours);
    if (this.firstDraw !== undefined) this.redraw();
  }

  resized() {
    this.redraw();
  }

  report() {
    return {
      ...this.now,
      ...this.drawn(),
      cursor: this.cursor,
      dark: this.colours.dark,
      title: this.title.textContent,
      readout: this.readout.textContent,
      firstDraw: this.firstDraw,
    };
  }
}

// Redraws a view when its width changes, and once only for each width.
function followWidth(view) {
  let width = view.node.clientWidth;
  const observer = new ResizeObserver(() => {
    if (!view.node.clientWidth || view.node.clientWidth === width) return;
    width = view.node.clientWidth;
    view.resized();
  });
  observer.observe(view.node);
  return () => observer.disconnect();
}

// The render function of a view's class. A state that says it is empty is only a sentence.
export function mount(View) {
  return async ({ model, el }) => {
    const began = performance.now();
    const { empty, arrays: coded = {} } = model.get("state");
    if (empty) {
      const node = h("section", { class: "view empty" }, h("p", { role: "status" }, empty));
      stage(el, node);
      return watchTheme(el, (dark) => dress(node, theme(dark)));
    }
    const decoded = await Promise.all(Object.values(coded).map(decodeArray));
    const arrays = Object.fromEntries(Object.keys(coded).map((name, i) => [name, decoded[i]]));
    const view = new View(model, arrays);
    stage(el, view.node);
    const stops = [watchTheme(el, (dark) => view.wear(dark)), view.listen(), followWidth(view)];
    view.redraw();
    view.firstDraw = performance.now() - began;
    el.view = view;
    for (const { stop } of Object.values(view.controls)) if (stop) stops.push(stop);
    return () => stops.forEach((stop) => stop());
  };
}
