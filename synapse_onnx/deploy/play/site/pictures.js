// @ts-check
/* Pictures on canvases: rasters, curves, images. */

import { COLUMNS, make, ROWS, short, sizeOf, theme, words } from "./common.js";

/** @typedef {import("./common.js").End} End */
/** @typedef {import("./common.js").Frame} Frame */

/** The column that time has come to, the same in all pictures; and the columns behind a reset. */
export const time = { column: 0, resets: new Uint8Array(COLUMNS) };

/** Values over time of some neurons, the last COLUMNS steps. */
export class Past {
  /** @param {number} neurons @param {number} unit what a value is multiplied by when it is shown */
  constructor(neurons, unit = 1) {
    this.neurons = neurons;
    this.unit = unit;
    this.values = new Float64Array(neurons * COLUMNS).fill(NaN); // a step is a row: it is written at once
  }

  /**
   * Take in a step; without values, as within a bin of time, the last ones stay.
   * @param {ArrayLike<number> | undefined} values
   */
  push(values) {
    const { column } = time, { neurons } = this, before = (column + COLUMNS - 1) % COLUMNS;
    if (values) this.values.set(values, column * neurons);
    else this.values.copyWithin(column * neurons, before * neurons, (before + 1) * neurons);
  }

  /** Values of one neuron, the oldest first. @param {number} neuron */
  of(neuron) {
    const out = new Float32Array(COLUMNS);
    for (let i = 0; i < COLUMNS; i++) out[i] = this.values[((time.column + 1 + i) % COLUMNS) * this.neurons + neuron] * this.unit;
    return out;
  }
}

/** A raster: a row is a neuron, or a group of them, and time goes to the right. */
export class Raster {
  /**
   * @param {HTMLElement} host @param {string} title @param {number} neurons
   * @param {((neuron: number) => void) | null} choose called with the neuron that is clicked; null where
   *   there is none to choose, as of an input
   */
  constructor(host, title, neurons, choose) {
    this.title = title;
    this.neurons = neurons;
    this.group = Math.ceil(neurons / ROWS);
    this.rows = Math.ceil(neurons / this.group);
    this.levels = new Float32Array(this.rows * COLUMNS);
    this.counts = new Uint32Array(neurons);
    this.largest = 1;
    this.spikes = 0;
    this.cursor = -1;
    this.at = 0;
    const height = this.rows <= 12 ? 8 : this.rows <= 36 ? 4 : this.rows <= 64 ? 3 : 2;
    this.canvas = make("canvas", { width: COLUMNS, height: this.rows, className: "cells" });
    this.canvas.style.height = `${Math.max(this.rows * height, 12)}px`;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(COLUMNS, this.rows);
    this.count = make("span");
    this.below = make("span", { hidden: true, textContent: ", second colour: below zero" });
    const many = `${words(neurons)} ${choose ? "neuron" : "value"}${neurons === 1 ? "" : "s"}`;
    const grouped = this.group > 1 ? `, ${this.group} in a row, brighter the more of them spike` : "";
    host.append(
      make("figure", { className: "raster" },
        make("figcaption", {}, make("span", {}, make("b", { textContent: title }), ` ${many}${grouped}`, this.below), this.count),
        this.canvas));
    if (choose) this.listen(choose);
    else this.label("img");
  }

  /** @param {string} role */
  label(role) {
    this.canvas.setAttribute("role", role);
    this.canvas.setAttribute("aria-label", role === "img" ? `${this.title} over time` : `Neuron of ${this.title}`);
  }

  /** @param {(neuron: number) => void} choose */
  listen(choose) {
    const canvas = this.canvas;
    this.label("slider");
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-valuemin", "0");
    canvas.setAttribute("aria-valuemax", String(this.neurons - 1));
    this.move(0, false);
    canvas.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      const row = Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * this.rows), 0), this.rows - 1);
      const neuron = this.busiest(row);
      this.move(neuron, true);
      choose(neuron);
    });
    canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      /** @type {Record<string, number>} */
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -this.neurons, End: this.neurons };
      if (event.key in moves) this.move(this.at + moves[event.key], true);
      else if (event.key === "Enter") choose(this.at);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    canvas.addEventListener("blur", () => {
      this.cursor = -1;
      this.draw();
    });
  }

  /** Of the neurons of a row, the one with the most spikes since the reset. @param {number} row */
  busiest(row) {
    let best = row * this.group;
    for (let i = best; i < Math.min((row + 1) * this.group, this.neurons); i++)
      if (this.counts[i] > this.counts[best]) best = i;
    return best;
  }

  /** @param {number} neuron @param {boolean} shown */
  move(neuron, shown) {
    this.at = Math.min(Math.max(neuron, 0), this.neurons - 1);
    this.canvas.setAttribute("aria-valuenow", String(this.at));
    this.canvas.setAttribute("aria-valuetext", `neuron ${this.at} of ${this.neurons}`);
    if (!shown) return;
    this.cursor = Math.floor(this.at / this.group);
    this.draw();
  }

  /** @param {ArrayLike<number> | undefined} values */
  push(values) {
    let spikes = 0;
    for (let row = 0; row < this.rows; row++) {
      let sum = 0, sign = 0;
      const end = Math.min((row + 1) * this.group, this.neurons);
      for (let i = row * this.group; values && i < end; i++) {
        const size = Math.abs(values[i]);
        if (size === 0) continue;
        spikes++;
        this.counts[i]++;
        this.largest = Math.max(this.largest, size);
        sum += size;
        sign += values[i];
        if (values[i] < 0) this.below.hidden = false;
      }
      this.levels[row * COLUMNS + time.column] = (Math.sign(sign) || 1) * sum;
    }
    this.spikes = spikes;
  }

  reset() {
    this.counts.fill(0);
  }

  draw() {
    const [ground, mark, plus, minus] = ["field", "line", "spike", "minus"].map((name) => theme.rgb(name));
    const full = this.largest * this.group, pixels = this.image.data;
    for (let row = 0; row < this.rows; row++)
      for (let x = 0; x < COLUMNS; x++) {
        const column = (time.column + 1 + x) % COLUMNS;
        const level = this.levels[row * COLUMNS + column], share = Math.abs(level) / full;
        const below = time.resets[column] || row === this.cursor ? mark : ground;
        const above = level > 0 ? plus : minus, weight = share ? 0.3 + 0.7 * Math.min(share, 1) : 0;
        const at = 4 * (row * COLUMNS + x);
        for (let c = 0; c < 3; c++) pixels[at + c] = below[c] + (above[c] - below[c]) * weight;
        pixels[at + 3] = 255;
      }
    this.context.putImageData(this.image, 0, 0);
    this.count.textContent = `${words(this.spikes)} now`;
  }
}

/** Curves over time. */
export class Chart {
  /** @param {HTMLElement} host @param {string} label @param {number} height */
  constructor(host, label, height) {
    this.canvas = make("canvas", { role: "img", "aria-label": label });
    this.canvas.style.height = `${height}px`;
    this.context = this.canvas.getContext("2d");
    this.height = height;
    host.append(this.canvas);
  }

  /**
   * @param {{values: Float32Array, spikes: Float32Array | null, colour: string, threshold: number | null}[]} curves
   */
  draw(curves) {
    const ratio = window.devicePixelRatio || 1, { context, height } = this;
    const width = this.canvas.clientWidth;
    if (!width) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    let low = 0, high = 0;
    for (const { values, threshold } of curves) {
      for (const value of values) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
      if (threshold !== null) high = Math.max(high, threshold);
    }
    const top = 16, left = 46;
    if (high === low) high = low + 1;
    const x = (/** @type {number} */ i) => left + ((i + 0.5) / COLUMNS) * (width - left - 6);
    const y = (/** @type {number} */ v) => top + (1 - (v - low) / (high - low)) * (height - top - 10);
    context.lineWidth = 1;
    context.strokeStyle = theme.text("line");
    for (let i = 0; i < COLUMNS; i++)
      if (time.resets[(time.column + 1 + i) % COLUMNS]) line(context, x(i), top, x(i), height - 10);
    line(context, left, y(0), width - 6, y(0));
    context.fillStyle = theme.text("soft");
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of new Set([low, high])) context.fillText(short(value), left - 6, y(value));
    const apart = (/** @type {number} */ value) => Math.abs(y(0) - y(value)) > 13;
    if (apart(low) && apart(high)) context.fillText("0", left - 6, y(0));
    const thresholds = new Set(curves.map((curve) => curve.threshold).filter((value) => value !== null));
    for (const value of /** @type {Set<number>} */ (thresholds)) {
      context.strokeStyle = theme.text("mark");
      context.setLineDash([5, 4]);
      line(context, left, y(value), width - 6, y(value));
      context.setLineDash([]);
    }
    curves.forEach(({ values, spikes, colour }, number) => {
      context.strokeStyle = theme.text(colour);
      context.lineWidth = 1.6;
      context.beginPath();
      let drawing = false;
      values.forEach((value, i) => {
        if (Number.isNaN(value)) drawing = false;
        else if (drawing) context.lineTo(x(i), y(value));
        else {
          context.moveTo(x(i), y(value));
          drawing = true;
        }
      });
      context.stroke();
      context.fillStyle = theme.text(colour);
      spikes?.forEach((value, i) => {
        if (value) context.fillRect(x(i) - 1, 1 + number * 3.5, 2, 3);
      });
    });
  }
}

/** @param {CanvasRenderingContext2D} context @param {number[]} ends */
function line(context, ...ends) {
  context.beginPath();
  context.moveTo(ends[0], ends[1]);
  context.lineTo(ends[2], ends[3]);
  context.stroke();
}

/** One time step of an image; a second channel has the second colour. */
class Picture {
  /** @param {HTMLElement} host @param {End} end */
  constructor(host, end) {
    const [channels, height, width] = end.shape;
    this.channels = channels;
    this.height = height;
    this.width = width;
    this.canvas = make("canvas", { width: this.width, height: this.height, className: "cells", role: "img", "aria-label": `${end.name}, this step` });
    this.canvas.style.aspectRatio = `${this.width} / ${this.height}`;
    this.context = this.canvas.getContext("2d");
    /** @type {ArrayLike<number>} */
    this.values = new Float32Array(sizeOf(end.shape));
    this.largest = 1;
    host.append(make("figure", { className: "frame" }, make("figcaption", {}, make("b", { textContent: end.name }), "this step"), this.canvas));
  }

  reset() {
    this.values = new Float32Array(this.values.length);
  }

  /** @param {Float32Array} values */
  push(values) {
    this.values = values;
    for (const value of values) this.largest = Math.max(this.largest, Math.abs(value));
  }

  draw() {
    const size = this.width * this.height, image = this.context.createImageData(this.width, this.height);
    for (let i = 0; i < size; i++) {
      let plus = 0, minus = 0;
      for (let c = 0; c < this.channels; c++) {
        const value = this.values[c * size + i];
        if (value < 0 || (this.channels === 2 && c === 1)) minus = Math.max(minus, Math.abs(value));
        else plus = Math.max(plus, value);
      }
      paint(image.data, 4 * i, plus >= minus ? "spike" : "minus", Math.max(plus, minus) / this.largest);
    }
    this.context.putImageData(image, 0, 0);
  }
}

/** @param {Uint8ClampedArray} pixels @param {number} at @param {string} colour @param {number} share */
export function paint(pixels, at, colour, share) {
  const below = theme.rgb("field"), above = theme.rgb(colour);
  for (let c = 0; c < 3; c++) pixels[at + c] = below[c] + (above[c] - below[c]) * share;
  pixels[at + 3] = 255;
}

/** The input as it comes: an image, a curve, or a raster. */
export class InputView {
  /** @param {HTMLElement} host @param {End} end @param {number} index */
  constructor(host, end, index) {
    const size = sizeOf(end.shape);
    this.index = index;
    this.kind = end.shape.length === 3 ? new Picture(host, end) : null;
    this.past = !this.kind && size === 1 ? new Past(1) : null;
    this.raster = !this.kind && !this.past ? new Raster(host, end.name, size, null) : null;
    if (this.past) {
      const figure = make("figure", {}, make("figcaption", {}, make("b", { textContent: end.name })));
      host.append(figure);
      this.chart = new Chart(figure, `${end.name} over time`, 120);
    }
  }

  /** @param {Frame} frame */
  push(frame) {
    const values = frame.inputs[this.index];
    (this.kind ?? this.past ?? this.raster)?.push(values);
  }

  draw() {
    this.kind?.draw();
    this.raster?.draw();
    if (this.past) this.chart?.draw([{ values: this.past.of(0), spikes: null, colour: "trace-0", threshold: null }]);
  }
}
