// @ts-check
/* What all parts of the page share: the description of a model, bounds, words, elements, colours. */

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
export const COLUMNS = 240;
/** most rows of a raster: with more neurons a row is a group of them */
export const ROWS = 96;
/** bytes of past states and spikes that are kept, so that a neuron chosen late has a past */
export const KEPT = 64 << 20;
/** classes that have a bar, and membranes that are shown at once */
export const BARS = 16, TRACES = 4;
/** steps a second of each place of the slider; the last is as fast as it goes */
export const SPEEDS = [1, 2, 4, 8, 15, 30, 60, 120, 240, Infinity];
/** ms of a drawn frame that steps may take, and ms for which the end of a sample stands still */
export const BUDGET = 12, REST = 700;

/** @type {(id: string) => any} */
export const $ = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} properties properties; those with a dash are attributes
 * @param {(Node | string)[]} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else /** @type {any} */ (element)[key] = value;
  }
  element.append(...children);
  return element;
}

/** @param {number[]} shape */
export const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

/** @param {number} value */
export const words = (value) => value.toLocaleString("en");

/** Write a number with few digits. @param {number} value */
export const short = (value) => (Number.isInteger(value) ? words(value) : String(Number(value.toPrecision(3))));

/**
 * Random numbers that are the same after every reset.
 * @param {number} seed
 */
export function generator(seed) {
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
export const theme = {
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
