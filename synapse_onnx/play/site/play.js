// @ts-check
/*
 * The page of a streaming model: feeds it step by step, and draws what it does.
 *
 * model.json says what there is to know of the model (written by synapse_onnx/play), model.onnx is the
 * graph, with the spikes of every layer as further outputs, and onnxruntime-web runs it in WebAssembly,
 * on one thread: integers of 64 bits and doubles are the exported graph's own, so the spikes are those
 * of ONNX Runtime on any other machine.
 *
 * From the outside: `await window.synapse.ready`, then `await window.synapse.step(n)` gives what was
 * fed and what came out at each step, `await window.synapse.reset()` starts afresh. With #paused behind
 * the address the page does not play by itself.
 */

// @ts-ignore: the package's types are not beside it
import * as ort from "./ort.wasm.bundle.min.mjs";

/** @typedef {{name: string, type: string, shape: number[], timed: boolean}} End */
/** @typedef {{input: string, output: string, type: string, shape: number[], start: number}} State */
/** @typedef {{name: string, output: string, neurons: number, unit: number}} Kept */
/** @typedef {{shape: number[], type: string, step: number, data: string}} Packed */
/**
 * @typedef {{path: string, kind: string, threshold: number | null, values: string | null,
 *   shape: number[], states: Kept[]}} Layer
 */
/**
 * @typedef {{name: string, title: string, text: string, file: string, bytes: number, version: string,
 *   runtime: string, regime: string, exact: boolean, layout: string, batch: number, steps: number,
 *   inputs: End[], outputs: End[], states: State[], layers: Layer[], labels: string[], decode: string,
 *   window: number, period: number, bump: number,
 *   wave: null | {sounds: {name: string, begin: number, end: number}[], steps: number, grid: number,
 *     limit: number},
 *   samples: {name: string, values: Packed[]}[]}} Description
 */
/** What one time step fed and gave: arrays in the order of inputs, by layer, by output, by state.
 * @typedef {{inputs: Float32Array[], spikes: Map<string, Float64Array>,
 *   outputs: Map<string, Float64Array>, states: Map<string, Float64Array>}} Frame
 */

/** time steps that rasters and charts show */
const COLUMNS = 240;
/** most rows of a raster: with more neurons a row is a group of them */
const ROWS = 96;
/** bytes of past states and spikes that are kept, so that a neuron chosen late has a past */
const KEPT = 32 << 20;
/** classes that have a bar, and membranes that are shown at once */
const BARS = 16, TRACES = 4;
/** steps a second of each place of the slider; the last is as fast as it goes */
const SPEEDS = [1, 2, 4, 8, 15, 30, 60, 120, 240, Infinity];
/** ms of a drawn frame that steps may take, and ms for which the end of a sample stands still */
const BUDGET = 12, REST = 700;

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} properties properties; those with a dash are attributes
 * @param {(Node | string)[]} children
 * @returns {any}
 */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else /** @type {any} */ (element)[key] = value;
  }
  element.append(...children);
  return element;
}

/** @param {number[]} shape */
const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

/** @param {number} value */
const words = (value) => value.toLocaleString("en");

/** Write a number with few digits. @param {number} value */
const short = (value) => (Number.isInteger(value) ? words(value) : value.toPrecision(3));

/**
 * Random numbers that are the same after every reset.
 * @param {number} seed
 */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** The colours of the present theme, as numbers for canvases. */
const theme = {
  /** @type {Map<string, string>} */
  texts: new Map(),
  /** @type {Map<string, number[]>} */
  parts: new Map(),
  read() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["field", "line", "soft", "ink", "spike", "minus", "mark", "trace-0", "trace-1", "trace-2", "trace-3"]) {
      const text = style.getPropertyValue(`--${name}`).trim();
      this.texts.set(name, text);
      this.parts.set(name, [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
    }
  },
  /** @param {string} name */
  text(name) {
    return this.texts.get(name) ?? "#888888";
  },
  /** @param {string} name */
  rgb(name) {
    return this.parts.get(name) ?? [128, 128, 128];
  },
};

// -- the network -----------------------------------------------------------------------------------

/** @type {Record<string, any>} */
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array,
  int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};

/** The graph with its states, in ONNX Runtime. */
class Network {
  /** @param {any} session @param {Description} about */
  constructor(session, about) {
    this.session = session;
    this.about = about;
    this.reset();
  }

  /** Let every state start afresh. */
  reset() {
    /** @type {Record<string, any>} */
    this.states = {};
    for (const state of this.about.states) {
      const dims = [this.about.batch, ...state.shape];
      const data = new ARRAYS[state.type](sizeOf(dims));
      data.fill(state.type === "int64" ? BigInt(state.start) : state.start);
      this.states[state.input] = new ort.Tensor(state.type, data, dims);
    }
  }

  /**
   * Run so many time steps as the graph takes at once; the states go on.
   * @param {Float32Array[][]} steps for each time step, the values of every input
   * @returns {Promise<Frame[]>}
   */
  async run(steps) {
    /** @type {Record<string, any>} */
    const feeds = { ...this.states };
    this.about.inputs.forEach((end, i) => (feeds[end.name] = this.feed(end, steps.map((step) => step[i]))));
    const results = await this.session.run(feeds);
    for (const state of this.about.states) this.states[state.input] = results[state.output];
    /** @type {Frame[]} */
    const frames = steps.map((inputs) => ({ inputs, spikes: new Map(), outputs: new Map(), states: new Map() }));
    const last = frames[frames.length - 1];
    for (const layer of this.about.layers) {
      if (layer.values) this.spread(frames, "spikes", layer.path, results[layer.values], true);
      for (const state of layer.states) last.states.set(state.output, first(results[state.output], this.about.batch));
    }
    for (const end of this.about.outputs) {
      if (end.timed) this.spread(frames, "outputs", end.name, results[end.name], this.about.layout === "TNC");
      else last.outputs.set(end.name, first(results[end.name], this.about.batch));
    }
    return frames;
  }

  /** @param {End} end @param {Float32Array[]} steps */
  feed(end, steps) {
    const { batch, layout } = this.about;
    const size = sizeOf(end.shape), times = end.timed ? steps.length : 1;
    const data = new ARRAYS[end.type](batch * size * times);
    const cast = end.type === "int64" ? BigInt : Number;
    for (let t = 0; t < times; t++)
      for (let b = 0; b < batch; b++)
        for (let i = 0; i < size; i++) {
          const at = layout === "TNC" ? (t * batch + b) * size + i : (b * size + i) * times + t;
          data[at] = cast(steps[t][i]);
        }
    const inner = [batch, ...end.shape];
    const dims = !end.timed ? inner : layout === "TNC" ? [times, ...inner] : [...inner, times];
    return new ort.Tensor(end.type, data, dims);
  }

  /**
   * Give each step its values of the first sample; of a layer with longer steps, the step that ends one.
   * @param {Frame[]} frames @param {"spikes" | "outputs"} kind @param {string} name @param {any} tensor
   * @param {boolean} timeFirst
   */
  spread(frames, kind, name, tensor, timeFirst) {
    const { dims, data } = tensor, { batch } = this.about;
    const times = timeFirst ? dims[0] : dims[dims.length - 1];
    const size = data.length / (times * batch);
    for (let t = 0; t < times; t++) {
      const values = new Float64Array(size);
      for (let i = 0; i < size; i++) values[i] = Number(data[timeFirst ? t * batch * size + i : i * times + t]);
      frames[Math.ceil(((t + 1) * frames.length) / times) - 1][kind].set(name, values);
    }
  }
}

/** The values of the first sample. @param {any} tensor @param {number} batch */
function first(tensor, batch) {
  return Float64Array.from(tensor.data.subarray(0, tensor.data.length / batch), Number);
}

// -- pictures --------------------------------------------------------------------------------------

/** The column that time has come to, the same in all pictures; and the columns behind a reset. */
const time = { column: 0, resets: new Uint8Array(COLUMNS) };

/** Values over time of some neurons, the last COLUMNS steps. */
class Past {
  /** @param {number} neurons */
  constructor(neurons) {
    this.values = new Float32Array(neurons * COLUMNS).fill(NaN);
  }

  /** @param {ArrayLike<number> | undefined} values @param {number} unit */
  push(values, unit = 1) {
    const neurons = this.values.length / COLUMNS;
    for (let i = 0; i < neurons; i++) this.values[i * COLUMNS + time.column] = values ? values[i] * unit : NaN;
  }

  /** Values of one neuron, the oldest first. @param {number} neuron */
  of(neuron) {
    const out = new Float32Array(COLUMNS);
    for (let i = 0; i < COLUMNS; i++) out[i] = this.values[neuron * COLUMNS + ((time.column + 1 + i) % COLUMNS)];
    return out;
  }
}

/** A raster: a row is a neuron, or a group of them, and time goes to the right. */
class Raster {
  /**
   * @param {HTMLElement} host @param {string} title @param {number} neurons
   * @param {((neuron: number) => void) | null} choose called with the neuron that is clicked
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
    const height = this.rows <= 12 ? 8 : this.rows <= 36 ? 4 : this.rows <= 64 ? 3 : 2;
    this.canvas = make("canvas", { width: COLUMNS, height: this.rows, className: "cells" });
    this.canvas.style.height = `${Math.max(this.rows * height, 12)}px`;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(COLUMNS, this.rows);
    this.count = make("span");
    const many = neurons === 1 ? "one neuron" : `${words(neurons)} neurons`;
    const grouped = this.group > 1 ? `, ${this.group} in a row, brighter the more of them spike` : "";
    host.append(
      make("figure", { className: "raster" },
        make("figcaption", {}, make("span", {}, make("b", { textContent: title }), ` ${many}${grouped}`), this.count),
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
class Chart {
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
    for (const value of new Set([low, 0, high])) context.fillText(short(value), left - 6, y(value));
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
    [this.channels, this.height, this.width] = end.shape;
    this.canvas = make("canvas", { width: this.width, height: this.height, className: "cells", role: "img", "aria-label": `${end.name}, this step` });
    this.canvas.style.aspectRatio = `${this.width} / ${this.height}`;
    this.context = this.canvas.getContext("2d");
    this.values = new Float32Array(sizeOf(end.shape));
    this.largest = 1;
    host.append(make("figure", { className: "frame" }, make("figcaption", {}, make("b", { textContent: end.name }), "this step"), this.canvas));
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
function paint(pixels, at, colour, share) {
  const below = theme.rgb("field"), above = theme.rgb(colour);
  for (let c = 0; c < 3; c++) pixels[at + c] = below[c] + (above[c] - below[c]) * share;
  pixels[at + 3] = 255;
}

/** The input as it comes: an image, a curve, or a raster. */
class InputView {
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

// -- sources of input ------------------------------------------------------------------------------

/**
 * Where the input comes from.
 *
 * A source with a length is shown for so many steps, and starts afresh with the states; without one it
 * goes on for ever.
 */
class Source {
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
class Samples extends Source {
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
class Drawing extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("drawing", "Draw by hand", about);
    [this.channels, this.height, this.width] = about.inputs[0].shape;
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
class Waves extends Source {
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
class Bump extends Source {
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
class Noise extends Source {
  /** @param {Description} about */
  constructor(about) {
    super("random", "Random spikes", about);
    this.rate = 0.1;
    this.begin();
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
async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).arrayBuffer();
  if (packed.type === "float32") return new Float32Array(data);
  return Float32Array.from(new Int8Array(data), (value) => value * packed.step);
}

// -- the decoded output ----------------------------------------------------------------------------

/** Scores of the classes, and the outputs as curves where they are no spikes. */
class Decoder {
  /** @param {Description} about */
  constructor(about) {
    this.about = about;
    this.end = about.outputs[0];
    this.size = 0;
    /** @type {Float64Array[]} */
    this.window = [];
    this.sums = new Float64Array(0);
    this.steps = 0;
    /** @type {{name: any, bar: any, fill: any, number: any}[]} */
    this.rows = [];
    const over = about.window ? `over the last ${about.window} steps` : "since the reset";
    const rules = {
      count: `The class is the output that spikes most ${over}.`,
      mean: `The class is the output that is largest in the mean ${over}.`,
      last: "The class is the output that is largest at this step.",
    };
    this.rule = rules[/** @type {keyof typeof rules} */ (about.decode)];
  }

  /** @param {number} size */
  build(size) {
    this.size = size;
    this.sums = new Float64Array(size);
    const bars = Math.min(size, BARS);
    if (size > 1) {
      const host = make("div", { className: "scores" });
      for (let i = 0; i < bars; i++) {
        const fill = make("i"), bar = make("span", { className: "bar" }, fill);
        const name = make("span", { className: "name" }), number = make("span", { className: "number" });
        host.append(name, bar, number);
        this.rows.push({ name, bar, fill, number });
      }
      $("scores").replaceChildren(host);
    }
    $("rule").textContent = size > 1 ? this.rule + (size > bars ? ` The ${bars} largest of ${words(size)} are shown.` : "") : "";
    if (this.about.decode !== "count") {
      this.past = new Past(size);
      this.chart = new Chart($("output-view"), `${this.end.name} over time`, 140);
    }
  }

  reset() {
    this.window = [];
    this.sums.fill(0);
    this.steps = 0;
  }

  /** @param {Frame} frame */
  push(frame) {
    const values = frame.outputs.get(this.end?.name);
    if (values && !this.size) this.build(values.length);
    this.past?.push(values);
    if (!values) return;
    this.steps++;
    if (this.about.decode === "last") {
      this.sums.set(values);
      return;
    }
    // sums of spikes, and of voltages on a grid, are exact: what is added can be taken away again
    values.forEach((value, i) => (this.sums[i] += value));
    if (!this.about.window) return;
    this.window.push(values);
    if (this.window.length > this.about.window) this.window.shift()?.forEach((value, i) => (this.sums[i] -= value));
  }

  /** Scores of the classes just now. */
  get scores() {
    const counted = this.about.window ? this.window.length : this.steps;
    return this.about.decode === "mean" ? this.sums.map((sum) => sum / Math.max(counted, 1)) : this.sums;
  }

  /** @param {number} i */
  label(i) {
    return this.about.labels[i] ?? String(i);
  }

  draw() {
    if (!this.size) return;
    const scores = this.scores, { said } = this.verdict(scores);
    if ($("said").textContent !== said.join(" ")) {
      const [name, why] = said;
      $("said").replaceChildren(make("span", { textContent: name }), " ", make("small", { textContent: why }));
    }
    let order = Array.from(scores.keys());
    if (this.size > BARS) order = order.sort((a, b) => scores[b] - scores[a]).slice(0, BARS);
    const best = order.reduce((a, b) => (scores[b] > scores[a] ? b : a), order[0]);
    const most = Math.max(1e-9, ...order.map((i) => Math.abs(scores[i])));
    const any = scores.some((score) => score !== 0);
    this.rows.forEach((row, at) => {
      const i = order[at], leads = any && i === best;
      row.name.textContent = this.label(i);
      row.name.classList.toggle("best", leads);
      row.bar.classList.toggle("best", leads);
      row.fill.style.width = `${(100 * Math.max(scores[i], 0)) / most}%`;
      row.number.textContent = short(scores[i]);
    });
    if (this.past) {
      const past = this.past, by = order.slice().sort((a, b) => scores[b] - scores[a]).slice(0, TRACES);
      this.chart?.draw(by.map((i, rank) => ({ values: past.of(i), spikes: null, colour: `trace-${rank}`, threshold: null })));
    }
  }

  /** @param {Float64Array} scores */
  verdict(scores) {
    if (this.size === 1) return { best: 0, said: [short(scores[0]), this.label(0) === "0" ? this.end.name : this.label(0)] };
    const best = scores.reduce((a, value, i) => (value > scores[a] ? i : a), 0);
    if (!scores.some((score) => score !== 0)) return { best: -1, said: ["–", "nothing yet"] };
    const why = { count: `${short(scores[best])} spikes`, mean: `mean ${short(scores[best])}`, last: short(scores[best]) };
    return { best, said: [this.label(best), why[/** @type {keyof typeof why} */ (this.about.decode)]] };
  }
}

// -- membranes -------------------------------------------------------------------------------------

/** @typedef {{layer: LayerView, state: number, neuron: number, past: Past, spikes: Past | null, at: number}} Trace */

/** A layer: its raster, and the past of its states. */
class LayerView {
  /** @param {Layer} layer @param {HTMLElement} host @param {boolean} keeps @param {(layer: LayerView, neuron: number) => void} choose */
  constructor(layer, host, keeps, choose) {
    this.layer = layer;
    const neurons = sizeOf(layer.shape);
    this.raster = layer.values ? new Raster(host, layer.path, neurons, layer.states.length ? (neuron) => choose(this, neuron) : null) : null;
    this.spikes = keeps && layer.values ? new Past(neurons) : null;
    this.pasts = layer.states.map((state) => (keeps ? new Past(state.neurons) : null));
  }

  /** @param {Frame} frame */
  push(frame) {
    const spikes = frame.spikes.get(this.layer.path);
    this.raster?.push(spikes);
    this.spikes?.push(spikes);
    this.layer.states.forEach((state, i) => this.pasts[i]?.push(frame.states.get(state.output), state.unit));
  }
}

/** The membranes of chosen neurons. */
class Membranes {
  /** @param {LayerView[]} layers */
  constructor(layers) {
    this.layers = layers.filter(({ layer }) => layer.states.length);
    /** @type {Trace[]} */
    this.traces = [];
    this.chart = new Chart($("trace-view"), "Membranes over time", 200);
    $("trace-layer").replaceChildren(...this.layers.map(({ layer }, i) => make("option", { value: i, textContent: layer.path || "(the model)" })));
    $("trace-layer").addEventListener("change", () => this.list());
    $("trace-add").addEventListener("click", () => this.add(this.layers[$("trace-layer").selectedIndex], Number($("trace-neuron").value), $("trace-state").selectedIndex));
    $("trace-neuron").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter") $("trace-add").click();
    });
    this.list();
  }

  /** Offer the states of the chosen layer. */
  list() {
    const view = this.layers[$("trace-layer").selectedIndex];
    if (!view) return;
    $("trace-state").replaceChildren(...view.layer.states.map((state, i) => make("option", { value: i, textContent: state.name })));
    $("trace-state").selectedIndex = main(view.layer);
    $("trace-neuron").max = String(view.layer.states[0].neurons - 1);
  }

  /** @param {LayerView} view @param {number} neuron @param {number} state */
  add(view, neuron, state = main(view.layer)) {
    const kept = view.layer.states[state];
    // the delay of an axon keeps several values a neuron, other states one
    if (!kept || !Number.isInteger(neuron) || neuron < 0 || neuron >= kept.neurons) {
      $("trace-note").textContent = kept ? `${kept.name} of ${view.layer.path} has the numbers 0 to ${kept.neurons - 1}.` : "";
      return;
    }
    $("trace-layer").selectedIndex = this.layers.indexOf(view);
    this.list();
    $("trace-state").selectedIndex = state;
    $("trace-neuron").value = String(neuron);
    if (this.traces.some((trace) => trace.layer === view && trace.state === state && trace.neuron === neuron)) return;
    // curves in other units would not share an axis
    if (this.traces.some((trace) => trace.layer !== view || trace.state !== state)) this.traces = [];
    if (this.traces.length === TRACES) this.traces.shift();
    const whole = view.pasts[state];
    this.traces.push({ layer: view, state, neuron, past: whole ?? new Past(1), spikes: view.spikes, at: whole ? neuron : 0 });
    this.show();
  }

  show() {
    $("traces").replaceChildren(...this.traces.map((trace, i) => {
      const button = make("button", { type: "button", title: "Take away" }, make("i", { "aria-hidden": "true" }), `neuron ${trace.neuron}`, make("span", { "aria-hidden": "true", textContent: "✕" }));
      button.setAttribute("aria-label", `Take away the membrane of neuron ${trace.neuron}`);
      button.addEventListener("click", () => {
        this.traces.splice(i, 1);
        this.show();
      });
      return make("li", { className: `t${i}` }, button);
    }));
    const [trace] = this.traces;
    $("trace-note").textContent = trace ? this.note(trace) : "No neuron is chosen.";
    this.draw();
  }

  /** @param {Trace} trace */
  note({ layer: { layer, pasts }, state }) {
    const { name, unit } = layer.states[state];
    const parts = [`${name} of ${layer.path} after each step` + (unit === 1 ? "." : `, in units of the threshold's scale (the integer by ${Math.round(1 / unit)}).`)];
    if (thresholdOf(layer, state) !== null) parts.push("Dashed: the threshold.");
    if (layer.values) parts.push("Marks above: its spikes.");
    if (!pasts[state]) parts.push("So many neurons keep no past: a curve begins where its neuron is chosen.");
    return parts.join(" ");
  }

  /** Keep what the chosen neurons of large layers do. @param {Frame} frame */
  push(frame) {
    for (const trace of this.traces) {
      const { output, unit } = trace.layer.layer.states[trace.state];
      if (trace.layer.pasts[trace.state]) continue;
      const values = frame.states.get(output);
      trace.past.push(values && [values[trace.neuron]], unit);
    }
  }

  draw() {
    this.chart.draw(this.traces.map((trace, i) => ({
      values: trace.past.of(trace.at),
      spikes: trace.spikes && trace.neuron * COLUMNS < trace.spikes.values.length ? trace.spikes.of(trace.neuron) : null,
      colour: `trace-${i}`,
      threshold: thresholdOf(trace.layer.layer, trace.state),
    })));
  }
}

/** The state that is a layer's membrane, as far as its name says. @param {Layer} layer */
function main(layer) {
  const names = layer.states.map((state) => state.name);
  for (const name of ["voltage", "imag", "pre", "total"]) if (names.includes(name)) return names.indexOf(name);
  return 0;
}

/** The threshold that a state is compared with; Loihi's has units of its own. @param {Layer} layer @param {number} state */
function thresholdOf(layer, state) {
  return layer.states[state].name === "voltage" ? layer.threshold : null;
}

// -- the page --------------------------------------------------------------------------------------

class Page {
  /** @param {Description} about @param {Network} network @param {Float32Array[][]} samples */
  constructor(about, network, samples) {
    this.about = about;
    this.network = network;
    this.playing = false;
    this.position = 0;
    this.steps = 0;
    this.due = 0;
    this.resting = 0;
    this.last = 0;
    /** @type {Promise<any>} */
    this.busy = Promise.resolve();
    this.sources = this.offered(samples);
    this.source = this.sources[0];
    this.inputs = about.inputs.map((end, i) => new InputView($("input-view"), end, i));
    const bytes = about.layers.map((layer) => 4 * COLUMNS * (sizeOf(layer.shape) * Number(!!layer.values) + layer.states.reduce((sum, state) => sum + state.neurons, 0)));
    let left = KEPT;
    this.layers = about.layers.map((layer, i) => {
      const keeps = bytes[i] <= left;
      if (keeps) left -= bytes[i];
      return new LayerView(layer, $("layers"), keeps, (view, neuron) => this.membranes.add(view, neuron));
    });
    this.decoder = new Decoder(about);
    this.membranes = new Membranes(this.layers);
    const view = this.membranes.layers.at(-1);
    if (view) for (let i = 0; i < Math.min(3, view.layer.states[main(view.layer)].neurons); i++) this.membranes.add(view, i);
    else $("membranes-head").parentElement.hidden = true;
    if (!about.layers.some((layer) => layer.values)) $("spikes-head").parentElement.hidden = true;
    if (!about.outputs.length) $("output-head").parentElement.hidden = true;
    this.controls();
    this.take(this.source);
  }

  /** Sources that fit the model's inputs. @param {Float32Array[][]} samples */
  offered(samples) {
    const { about } = this, [end] = about.inputs, one = about.inputs.length === 1 && end.timed;
    /** @type {Source[]} */
    const sources = [];
    if (samples.length) sources.push(new Samples(about, samples));
    if (one && end.shape.length === 3) sources.push(new Drawing(about));
    if (one && about.wave && sizeOf(end.shape) === 1) sources.push(new Waves(about));
    if (one && about.bump && end.shape.length === 1) sources.push(new Bump(about));
    sources.push(new Noise(about));
    return sources;
  }

  controls() {
    const { about } = this;
    document.title = `${about.title} – a spiking network at work`;
    $("title").textContent = about.title;
    $("text").textContent = about.text;
    $("facts").textContent = `${about.name}.onnx, ${words(about.bytes)} bytes, written by synapse-onnx ${about.version}; ` +
      `${about.exact ? "exact: every spike equals ONNX Runtime's elsewhere" : "floats: sums may round otherwise on another machine"}. ` +
      `It runs here, in ONNX Runtime Web ${about.runtime} (WebAssembly, one thread); nothing leaves this page.` +
      (about.steps > 1 ? ` A call takes ${about.steps} time steps.` : "");
    $("source").replaceChildren(...this.sources.map((source) => make("option", { value: source.id, textContent: source.name })));
    $("source").addEventListener("change", () => this.take(this.sources[$("source").selectedIndex]));
    $("play").addEventListener("click", () => this.play(!this.playing));
    $("step").addEventListener("click", () => this.press());
    $("reset").addEventListener("click", () => this.reset());
    $("speed").addEventListener("input", () => this.speed(Number($("speed").value)));
    this.speed(Number($("speed").value));
    for (const id of ["play", "step", "reset"]) $(id).disabled = false;
    document.addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      theme.read();
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe($("main"));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = /** @type {HTMLElement} */ (event.target), field = target.closest("input, select, textarea, summary");
    if (field) return;
    const key = event.key;
    if (key === " ") {
      if (target.closest("button")) return; // which the key presses by itself
      this.play(!this.playing);
    } else if (key === "ArrowRight") this.press();
    else if (key === "ArrowUp" || key === "ArrowDown") this.speed(this.pace + (key === "ArrowUp" ? 1 : -1));
    else if (key === "r" || key === "R") this.reset();
    else if (key === "n" || key === "N") this.following();
    else return;
    event.preventDefault();
  }

  /** @param {number} place */
  speed(place) {
    this.pace = Math.min(Math.max(place, 0), SPEEDS.length - 1);
    $("speed").value = String(this.pace);
    const word = Number.isFinite(SPEEDS[this.pace]) ? `${SPEEDS[this.pace]} steps/s` : "full speed";
    $("speed-word").textContent = word;
    $("speed").setAttribute("aria-valuetext", word);
  }

  /** @param {boolean} on */
  play(on) {
    this.playing = on;
    this.due = 1;
    this.resting = 0;
    $("play-word").textContent = on ? "Pause" : "Play";
    $("play").querySelector(".sign").textContent = on ? "❚❚" : "▶";
    $("said").setAttribute("aria-live", on ? "off" : "polite");
  }

  press() {
    this.play(false);
    return this.step(1);
  }

  /** Take input from a source. @param {Source} source */
  take(source) {
    this.source.changed = () => {};
    this.source = source;
    $("source").value = source.id;
    $("source-panel").replaceChildren();
    source.panel($("source-panel"));
    source.changed = () => this.reset();
    $("end-label").hidden = !source.length;
    return this.reset();
  }

  /** Go on to the next sample or sound. */
  following() {
    this.source.next();
    return this.reset();
  }

  /** One thing at a time: a reset waits for the step before it. @param {() => any} action */
  alone(action) {
    const result = this.busy.then(action);
    this.busy = result.catch(fail);
    return result;
  }

  /** Let all states, the source and the scores start afresh. */
  reset() {
    return this.alone(() => {
      this.restart();
      this.draw();
    });
  }

  restart() {
    this.network.reset();
    this.source.begin();
    this.decoder.reset();
    for (const { raster } of this.layers) raster?.reset();
    this.position = 0;
    this.fresh = true;
    $("clock").textContent = "0";
  }

  /** Run so many calls of the graph. @param {number} count @returns {Promise<Frame[]>} */
  step(count) {
    return this.alone(async () => {
      /** @type {Frame[]} */
      const frames = [];
      for (let i = 0; i < count; i++) frames.push(...(await this.advance()));
      this.draw();
      return frames;
    });
  }

  /** Whether the source has come to its end. */
  get ended() {
    return this.source.length > 0 && this.position >= this.source.length;
  }

  async advance() {
    if (this.ended) {
      if ($("end").value === "next") this.source.next();
      this.restart();
    }
    const inputs = Array.from({ length: this.about.steps }, (_, k) => this.source.at(this.position + k));
    const frames = await this.network.run(inputs);
    for (const frame of frames) {
      time.column = (time.column + 1) % COLUMNS;
      time.resets[time.column] = Number(this.fresh);
      this.fresh = false;
      for (const view of [...this.inputs, ...this.layers, this.membranes, this.decoder]) view.push(frame);
    }
    this.position += frames.length;
    this.steps += frames.length;
    return frames;
  }

  draw() {
    for (const view of [...this.inputs, this.membranes, this.decoder]) view.draw();
    for (const { raster } of this.layers) raster?.draw();
    $("clock").textContent = this.source.length ? `${this.position} of ${this.source.length}, ${this.source.caption}` : `${words(this.position)}, ${this.source.caption}`;
  }

  /** Play: called before every frame that the browser draws. @param {number} now */
  async loop(now) {
    const passed = Math.min(now - this.last, 250);
    this.last = now;
    if (this.playing && now >= this.resting) {
      const speed = SPEEDS[this.pace] / this.about.steps;
      this.due = Number.isFinite(speed) ? Math.min(this.due + (passed * speed) / 1000, speed / 4 + 1) : Infinity;
      await this.alone(async () => {
        const begin = performance.now();
        let ran = false;
        while (this.playing && this.due >= 1 && performance.now() - begin < BUDGET) {
          if (ran && this.ended) break;
          await this.advance();
          this.due -= 1;
          ran = true;
        }
        if (!ran) return;
        this.draw();
        if (!this.ended) return;
        this.resting = performance.now() + REST;
        if ($("end").value === "stop") this.play(false);
      }).catch(() => this.play(false));
    }
    requestAnimationFrame((later) => this.loop(later));
  }
}

/** Say what went wrong where the reader sees it. @param {any} error */
function fail(error) {
  $("notice").hidden = false;
  $("notice").className = "bad";
  $("notice").textContent = `The network cannot run: ${error?.message ?? error}`;
  console.error(error);
}

/** Write a frame as plain lists. @param {Description} about @param {Frame} frame */
function plain(about, frame) {
  const lists = (/** @type {Map<string, Float64Array>} */ map) => Object.fromEntries([...map].map(([name, values]) => [name, Array.from(values)]));
  return {
    inputs: Object.fromEntries(about.inputs.map((end, i) => [end.name, Array.from(frame.inputs[i])])),
    spikes: lists(frame.spikes),
    outputs: lists(frame.outputs),
    states: lists(frame.states),
  };
}

async function start() {
  theme.read();
  /** @type {Description} */
  const about = await (await fetch("model.json")).json();
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL("./ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const [session, samples] = await Promise.all([
    ort.InferenceSession.create(about.file, { executionProviders: ["wasm"], graphOptimizationLevel: "all" }),
    Promise.all(about.samples.map((sample) => Promise.all(sample.values.map(unpack)))),
  ]);
  $("notice").hidden = true;
  $("main").hidden = false;
  const page = new Page(about, new Network(session, about), samples);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches || location.hash === "#paused";
  page.play(!still);
  requestAnimationFrame((now) => page.loop(now));
  return page;
}

const started = start();
started.catch(fail);
/** @type {any} */ (window).synapse = {
  ready: started.then((page) => page.about),
  /** Run so many calls; give what was fed and what came. @param {number} count */
  async step(count = 1) {
    const page = await started;
    page.play(false);
    return (await page.step(count)).map((frame) => plain(page.about, frame));
  },
  async reset() {
    await (await started).reset();
  },
  /** Choose a source by its id, and of samples one by its number. @param {string} id @param {number} index */
  async choose(id, index = 0) {
    const page = await started;
    const source = page.sources.find((one) => one.id === id);
    if (!source) throw new Error(`there is no source ${id}`);
    if (source instanceof Samples) source.choose(index);
    await page.take(source);
  },
  async scores() {
    return Array.from((await started).decoder.scores);
  },
};
