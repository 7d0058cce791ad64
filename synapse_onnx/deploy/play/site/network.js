// @ts-check
/* The graph with its states, in ONNX Runtime. */

// @ts-ignore: the package's types are not beside it
import * as ort from "./ort.wasm.bundle.min.mjs";
import { sizeOf } from "./common.js";

/** @typedef {import("./common.js").End} End */
/** @typedef {import("./common.js").Description} Description */
/** @typedef {import("./common.js").Frame} Frame */

/** @type {Record<string, any>} */
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array,
  int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};

/** The graph with its states, in ONNX Runtime. */
export class Network {
  /** @param {any} session @param {Description} about */
  constructor(session, about) {
    this.session = session;
    this.about = about;
    /** @type {Record<string, any>} */
    this.states = {};
    this.reset();
  }

  /** Let every state start afresh. */
  reset() {
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
      if (layer.values) this.spread(frames, "spikes", layer.path, results[layer.values], "TNC");
      for (const state of layer.states) last.states.set(state.output, first(results[state.output], this.about.batch));
    }
    for (const end of this.about.outputs) {
      if (end.timed) this.spread(frames, "outputs", end.name, results[end.name], this.about.layout);
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
          const step = layout === "TNC" ? t * batch + b : b * times + t;
          const at = layout === "NCT" ? (b * size + i) * times + t : step * size + i;
          data[at] = cast(steps[t][i]);
        }
    const dims = [batch, ...end.shape];
    if (end.timed) dims.splice(timeAxis(layout, dims.length + 1), 0, times);
    return new ort.Tensor(end.type, data, dims);
  }

  /**
   * Give each step its values of the first sample; of a layer with longer steps, the step that ends one.
   * @param {Frame[]} frames @param {"spikes" | "outputs"} kind @param {string} name @param {any} tensor
   * @param {string} layout
   */
  spread(frames, kind, name, tensor, layout) {
    const { dims, data } = tensor, { batch } = this.about;
    const times = dims[timeAxis(layout, dims.length)];
    const size = data.length / (times * batch);
    for (let t = 0; t < times; t++) {
      const start = layout === "TNC" ? t * batch * size : t * size;
      const values = layout === "NCT" ? numbers(data, t, size, times) : numbers(data, start, size, 1);
      frames[Math.ceil(((t + 1) * frames.length) / times) - 1][kind].set(name, values);
    }
  }
}

/** Where time is among the axes of a layout. @param {string} layout @param {number} rank */
function timeAxis(layout, rank) {
  return layout === "TNC" ? 0 : layout === "NTC" ? 1 : rank - 1;
}

/** The values of the first sample. @param {any} tensor @param {number} batch */
function first(tensor, batch) {
  return numbers(tensor.data, 0, tensor.data.length / batch, 1);
}

/**
 * Every so-manieth value as a number; integers of 64 bits are far below 2**53 in any state.
 * @param {any} data @param {number} begin @param {number} size @param {number} stride
 */
function numbers(data, begin, size, stride) {
  const out = new Float64Array(size);
  for (let i = 0, at = begin; i < size; i++, at += stride) out[i] = Number(data[at]);
  return out;
}
