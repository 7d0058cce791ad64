// @ts-check
/* Layers, with the past of their states, and the membranes of chosen neurons. */

import { $, make, sizeOf, TRACES, words } from "./common.js";
import { Chart, Past, Raster } from "./pictures.js";

/** @typedef {import("./common.js").Layer} Layer */
/** @typedef {import("./common.js").Frame} Frame */

/** @typedef {{layer: LayerView, state: number, neuron: number, past: Past, spikes: Past | null, at: number}} Trace */

/** A layer: its raster, and the past of its states. */
export class LayerView {
  /** @param {Layer} layer @param {HTMLElement} host @param {boolean} keeps @param {(layer: LayerView, neuron: number) => void} choose */
  constructor(layer, host, keeps, choose) {
    this.layer = layer;
    const neurons = sizeOf(layer.shape);
    this.raster = layer.values ? new Raster(host, layer.path || "the model", neurons, (neuron) => choose(this, neuron)) : null;
    this.spikes = keeps && layer.values ? new Past(neurons) : null;
    this.silence = new Float32Array(neurons);
    this.pasts = layer.states.map((state) => (keeps ? new Past(state.neurons, state.unit) : null));
  }

  /** @param {Frame} frame */
  push(frame) {
    const spikes = frame.spikes.get(this.layer.path);
    this.raster?.push(spikes);
    this.spikes?.push(spikes ?? this.silence);
    this.layer.states.forEach((state, i) => this.pasts[i]?.push(frame.states.get(state.output)));
  }
}

/** The membranes of chosen neurons. */
export class Membranes {
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
    this.traces.push({ layer: view, state, neuron, past: whole ?? new Past(1, kept.unit), spikes: view.spikes, at: whole ? neuron : 0 });
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
    const parts = [`${name} of ${layer.path} after each step` + (unit === 1 ? "." : `; the integer in the graph is ${words(Math.round(1 / unit))} times as large.`)];
    if (thresholdOf(layer, state) !== null) parts.push("Dashed: the threshold.");
    if (layer.values) parts.push("Marks above: its spikes.");
    if (!pasts[state]) parts.push("So many neurons keep no past: a curve begins where its neuron is chosen.");
    return parts.join(" ");
  }

  /** Keep what the chosen neurons of large layers do. @param {Frame} frame */
  push(frame) {
    for (const trace of this.traces) {
      const { output } = trace.layer.layer.states[trace.state];
      if (trace.layer.pasts[trace.state]) continue;
      const values = frame.states.get(output);
      trace.past.push(values && [values[trace.neuron]]);
    }
  }

  draw() {
    this.chart.draw(this.traces.map((trace, i) => ({
      values: trace.past.of(trace.at),
      // a delay line keeps several values a neuron, and belongs to none by its number
      spikes: trace.spikes?.neurons === trace.layer.layer.states[trace.state].neurons ? trace.spikes.of(trace.neuron) : null,
      colour: `trace-${i}`,
      threshold: thresholdOf(trace.layer.layer, trace.state),
    })));
  }
}

/** The state that is a layer's membrane, as far as its name says. @param {Layer} layer */
export function main(layer) {
  const names = layer.states.map((state) => state.name);
  for (const name of ["voltage", "imag", "pre", "total"]) if (names.includes(name)) return names.indexOf(name);
  return 0;
}

/** The threshold that a state is compared with; one that adapts is a state itself. @param {Layer} layer @param {number} state */
function thresholdOf(layer, state) {
  const names = layer.states.map((one) => one.name);
  return names[state] === "voltage" && !names.includes("threshold") ? layer.threshold : null;
}
