// @ts-check
/* Where the input comes from: samples, a drawing, sounds, a light, spikes at random. */

import { generator, make, short, sizeOf } from "./common.js";
import { paint } from "./pictures.js";

/** @typedef {import("./common.js").Packed} Packed */
/** @typedef {import("./common.js").Description} Description */

/**
 * Where the input comes from.
 *
 * A source with a length is shown for so many steps, and starts afresh with the states; without one it
 * goes on for ever.
 */
export class Source {
  /** @param {string} id @param {string} name @param {Description} about */
  constructor(id, name, about) {
    this.id = id;
    this.name = name;
    this.about = about;
    this.length = 0;
    /** @type {() => void} */
    this.changed = () => {};
  }

  /** Build what the reader sets. @param {HTMLElement} host */
  panel(host) {}

  /** Begin, or begin again. */
  begin() {}

  /** Values of every input at a step. @param {number} t @returns {Float32Array[]} */
  at(t) {
    return this.about.inputs.map((end) => new Float32Array(sizeOf(end.shape)));
  }

  /** Go on to the next of what there is to choose. */
  next() {}

  /** What is shown just now. */
  get caption() {
    return this.name;
  }
}

/**
 * Buttons, one of which is pressed; a list where there are many.
 * @param {HTMLElement} host @param {string} label @param {string[]} names
 * @param {(index: number) => void} choose
 * @returns {(index: number) => void} what marks the chosen one
 */
function choices(host, label, names, choose) {
  if (names.length > 24) {
    const select = make("select", {}, ...names.map((name, i) => make("option", { value: i, textContent: name })));
    select.addEventListener("change", () => choose(select.selectedIndex));
    host.append(make("label", {}, label, select));
    return (index) => (select.selectedIndex = index);
  }
  const buttons = names.map((name, i) => {
    const button = make("button", { type: "button", textContent: name });
    button.addEventListener("click", () => choose(i));
    return button;
  });
  host.append(make("div", { className: "choices", role: "group", "aria-label": label }, ...buttons));
  return (index) => buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
}

/**
 * A slider with its value beside it.
 * @param {HTMLElement} host @param {string} label @param {number[]} range least, most, step, value
 * @param {(value: number) => void} set
 */
function slider(host, label, [min, max, step, value], set) {
  const shown = make("output", { textContent: short(value) });
  const input = make("input", { type: "range", min, max, step });
  input.value = value;
  input.addEventListener("input", () => {
    shown.textContent = short(Number(input.value));
    set(Number(input.value));
  });
  host.append(make("label", {}, label, input, shown));
}

/** Samples that the model brings, or that were given to the command. */
export class Samples extends Source {
  /** @param {Description} about @param {Float32Array[][]} values for each sample, of every input */
  constructor(about, values) {
    super("samples", "Samples", about);
    this.values = values;
    this.chosen = 0;
    this.mark = (/** @type {number} */ index) => {};
    this.measure();
  }

  measure() {
    const lengths = this.about.inputs.map((end, i) => (end.timed ? this.values[this.chosen][i].length / sizeOf(end.shape) : Infinity));
    this.length = Math.min(...lengths);
    if (!Number.isFinite(this.length)) this.length = this.about.period;
  }

  /** @param {HTMLElement} host */
  panel(host) {
    this.mark = choices(host, "Sample", this.about.samples.map((sample) => sample.name), (index) => this.choose(index));
    this.mark(this.chosen);
  }

  /** @param {number} index */
  choose(index) {
    this.chosen = index;
    this.measure();
    this.mark(index);
    this.changed();
  }

  next() {
    this.chosen = (this.chosen + 1) % this.values.length;
    this.measure();
    this.mark(this.chosen);
  }

  /** @param {number} t @returns {Float32Array[]} */
  at(t) {
    return this.about.inputs.map((end, i) => {
      const all = this.values[this.chosen][i], size = sizeOf(end.shape);
      if (!end.timed) return all;
      const steps = all.length / size;
      return Float32Array.from({ length: size }, (_, n) => (t < steps ? all[n * steps + t] : 0));
    });
  }

  get caption() {
    return this.about.samples[this.chosen].name;
  }
}

/** A picture drawn by hand: a pixel of level g spikes g times a presentation, evenly spread. */
export class Drawing extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("drawing", "Draw by hand", about);
    const [channels, height, width] = about.inputs[0].shape;
    this.channels = channels;
    this.height = height;
    this.width = width;
    this.levels = new Float32Array(this.height * this.width);
    this.length = this.full = about.period;
    this.rubber = false;
    /** @type {number[]} */
    this.cursor = [this.width >> 1, this.height >> 1];
    this.focused = false;
  }

  /** @param {HTMLElement} host */
  panel(host) {
    this.canvas = make("canvas", {
      width: this.width, height: this.height, className: "cells", tabIndex: 0, role: "application",
      "aria-label": "Drawing area: arrow keys move, space paints or clears a pixel, Delete clears all",
    });
    this.canvas.style.aspectRatio = `${this.width} / ${this.height}`;
    this.spoken = make("span", { className: "note", "aria-live": "polite" });
    const rubber = make("button", { type: "button", textContent: "Rubber", "aria-pressed": String(this.rubber) });
    rubber.addEventListener("click", () => {
      this.rubber = !this.rubber;
      rubber.setAttribute("aria-pressed", String(this.rubber));
    });
    const clear = make("button", { type: "button", textContent: "Clear" });
    clear.addEventListener("click", () => this.clear());
    host.append(
      make("figure", { className: "pad" }, make("figcaption", {}, "Draw here, with a mouse or a finger"), this.canvas),
      make("div", { className: "choices" }, clear, rubber), this.spoken);
    this.listen(this.canvas);
    this.draw();
  }

  /** @param {any} canvas */
  listen(canvas) {
    let last = /** @type {number[] | null} */ (null);
    const place = (/** @type {PointerEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
    };
    canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      canvas.setPointerCapture(event.pointerId);
      last = place(event);
      this.stroke(last, last);
      this.changed();
    });
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (!last) return;
      const now = place(event);
      this.stroke(last, now);
      last = now;
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
    canvas.addEventListener("focus", () => this.focus(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.focus(false));
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
  }

  /** @param {boolean} focused */
  focus(focused) {
    this.focused = focused;
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const [x, y] = this.cursor;
    /** @type {Record<string, number[]>} */
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      this.cursor = [Math.min(Math.max(x + dx, 0), this.width - 1), Math.min(Math.max(y + dy, 0), this.height - 1)];
    } else if (event.key === " " || event.key === "Enter") {
      const at = y * this.width + x;
      this.levels[at] = this.levels[at] ? 0 : this.full;
      this.changed();
    } else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.focused = true;
    this.spoken.textContent = `column ${this.cursor[0] + 1}, row ${this.cursor[1] + 1}: ${this.levels[this.cursor[1] * this.width + this.cursor[0]] ? "on" : "off"}`;
    this.draw();
  }

  clear() {
    this.levels.fill(0);
    this.draw();
    this.changed();
  }

  /** Paint a line with a soft brush of about a pixel and a half. @param {number[]} from @param {number[]} to */
  stroke(from, to) {
    const reach = 0.105 * Math.min(this.width, this.height) + 0.25;
    const parts = Math.max(1, Math.ceil(4 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let part = 0; part <= parts; part++) {
      const x = from[0] + ((to[0] - from[0]) * part) / parts, y = from[1] + ((to[1] - from[1]) * part) / parts;
      for (let row = 0; row < this.height; row++)
        for (let column = 0; column < this.width; column++) {
          const away = Math.hypot(column + 0.5 - x, row + 0.5 - y);
          const share = Math.min(Math.max(1.35 - (0.85 * away) / reach, 0), 1);
          const at = row * this.width + column, level = Math.round(share * this.full);
          if (!this.rubber) this.levels[at] = Math.max(this.levels[at], level);
          else if (share > 0.4) this.levels[at] = 0;
        }
    }
    this.draw();
  }

  draw() {
    if (!this.canvas) return;
    const context = this.canvas.getContext("2d"), image = context.createImageData(this.width, this.height);
    this.levels.forEach((level, i) => paint(image.data, 4 * i, "ink", level / this.full));
    if (this.focused) {
      const at = this.cursor[1] * this.width + this.cursor[0];
      paint(image.data, 4 * at, this.levels[at] ? "spike" : "mark", this.levels[at] ? 1 : 0.8);
    }
    context.putImageData(image, 0, 0);
  }

  /** @param {number} t @returns {Float32Array[]} */
  at(t) {
    const step = t % this.full, size = this.levels.length;
    const values = new Float32Array(this.channels * size);
    for (let i = 0; i < size; i++) {
      const spikes = Math.floor(((step + 1) * this.levels[i]) / this.full) - Math.floor((step * this.levels[i]) / this.full);
      for (let c = 0; c < this.channels; c++) values[c * size + i] = spikes;
    }
    return [values];
  }

  get caption() {
    return "your drawing";
  }
}

/** Sounds put together from tones and chirps, with noise. */
export class Waves extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("waves", "Make a sound", about);
    this.wave = /** @type {NonNullable<Description["wave"]>} */ (about.wave);
    this.length = this.wave.steps;
    /** @type {Set<number>} */
    this.chosen = new Set([0]);
    this.loud = 1;
    this.noise = 0.3;
    this.shown = 0;
    /** @type {HTMLElement[]} */
    this.buttons = [];
    this.random = generator(0);
    /** @type {number[]} */
    this.phases = [];
    this.begin();
  }

  /** @param {HTMLElement} host */
  panel(host) {
    this.buttons = this.wave.sounds.map((sound, i) => {
      const button = make("button", { type: "button", textContent: sound.name });
      button.addEventListener("click", () => {
        if (!this.chosen.delete(i)) this.chosen.add(i);
        this.mark();
        this.changed();
      });
      return button;
    });
    host.append(make("div", { className: "choices", role: "group", "aria-label": "Sounds; several are mixed" }, ...this.buttons));
    const row = make("div", { className: "row" });
    slider(row, "Loudness", [0, 2, 0.1, this.loud], (value) => (this.loud = value));
    slider(row, "Noise", [0, 1.5, 0.1, this.noise], (value) => (this.noise = value));
    host.append(row);
    this.mark();
  }

  mark() {
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(this.chosen.has(i))));
  }

  begin() {
    this.random = generator(++this.shown);
    this.phases = this.wave.sounds.map(() => this.random());
  }

  next() {
    const last = Math.max(-1, ...this.chosen);
    this.chosen = new Set([(last + 1) % this.wave.sounds.length]);
    this.mark();
  }

  /** @param {number} t @returns {Float32Array[]} */
  at(t) {
    const { grid, limit, steps, sounds } = this.wave;
    let value = 0;
    for (const i of this.chosen) {
      const from = 1 / sounds[i].begin, slope = (1 / sounds[i].end - from) / steps;
      value += this.loud * Math.sin(2 * Math.PI * (from * t + (slope * t * t) / 2 + this.phases[i]));
    }
    const normal = Math.sqrt(-2 * Math.log(1 - this.random())) * Math.cos(2 * Math.PI * this.random());
    value = grid * Math.round((value + this.noise * normal) / grid);
    return [Float32Array.of(Math.min(Math.max(value, -limit), limit))];
  }

  get caption() {
    return [...this.chosen].sort((a, b) => a - b).map((i) => this.wave.sounds[i].name).join(" + ") || "noise";
  }
}

/** A bump of light over a row of sensors, which follows the pointer. */
export class Bump extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("bump", "Move a light", about);
    this.size = sizeOf(about.inputs[0].shape);
    this.place = this.wanted = 0.5;
  }

  /** @param {HTMLElement} host */
  panel(host) {
    const row = make("div", { className: "row" });
    slider(row, "Place of the light", [0, 1, 0.01, this.wanted], (value) => (this.wanted = value));
    host.append(row);
  }

  /** @param {number} t @returns {Float32Array[]} */
  at(t) {
    this.place += Math.min(Math.max(this.wanted - this.place, -0.015), 0.015);
    const middle = this.place * (this.size - 1), width = this.about.bump;
    return [Float32Array.from({ length: this.size }, (_, i) => Math.round(32 * Math.exp(-((i - middle) ** 2) / (2 * width * width))) / 32)];
  }

  get caption() {
    return `a light at ${this.place.toFixed(2)}`;
  }
}

/** Spikes at random, which any model takes. */
export class Noise extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("random", "Random spikes", about);
    this.rate = 0.1;
    this.random = generator(1);
  }

  /** @param {HTMLElement} host */
  panel(host) {
    const row = make("div", { className: "row" });
    slider(row, "Spikes a step", [0, 1, 0.01, this.rate], (value) => (this.rate = value));
    host.append(row);
  }

  begin() {
    this.random = generator(1);
  }

  /** @param {number} t @returns {Float32Array[]} */
  at(t) {
    return this.about.inputs.map((end) => Float32Array.from({ length: sizeOf(end.shape) }, () => Number(this.random() < this.rate)));
  }

  get caption() {
    return "random spikes";
  }
}

/** Unpack an array of model.json. @param {Packed} packed */
export async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).arrayBuffer();
  if (packed.type === "float32") return new Float32Array(data);
  return Float32Array.from(new Int8Array(data), (value) => value * packed.step);
}
