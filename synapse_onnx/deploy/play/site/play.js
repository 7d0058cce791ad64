// @ts-check
/*
 * The page of a streaming model: feeds it step by step, and draws what it does.
 *
 * model.json says what there is to know of the model (written by synapse_onnx/deploy/play), model.onnx is the
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
import { $, BUDGET, COLUMNS, KEPT, make, REST, sizeOf, SPEEDS, theme, words } from "./common.js";
import { Network } from "./network.js";
import { InputView, time } from "./pictures.js";
import { Bump, Drawing, Noise, Samples, unpack, Waves } from "./sources.js";
import { Decoder } from "./decoder.js";
import { LayerView, main, Membranes } from "./membranes.js";

/** @typedef {import("./common.js").Description} Description */
/** @typedef {import("./common.js").Frame} Frame */
/** @typedef {import("./sources.js").Source} Source */

class Page {
  /** @param {Description} about @param {Network} network @param {Float32Array[][]} samples */
  constructor(about, network, samples) {
    this.about = about;
    this.network = network;
    this.playing = false;
    this.pace = 0;
    this.position = 0;
    this.fresh = true;
    this.due = 0;
    this.resting = 0;
    this.last = 0;
    /** @type {Promise<any>} */
    this.busy = Promise.resolve();
    this.sources = this.offered(samples);
    this.source = this.sources[0];
    this.inputs = about.inputs.map((end, i) => new InputView($("input-view"), end, i));
    const bytes = about.layers.map((layer) => 8 * COLUMNS * (sizeOf(layer.shape) * Number(!!layer.values) + layer.states.reduce((sum, state) => sum + state.neurons, 0)));
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
    for (const { kind } of this.inputs) kind?.reset();
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
  /** The scores of the classes. */
  async scores() {
    return Array.from((await started).decoder.scores);
  },
  /** The membranes that are shown, the oldest value first; null where there is none yet. */
  async membranes() {
    return (await started).membranes.traces.map(({ layer, state, neuron, past, at }) => ({
      layer: layer.layer.path, state: layer.layer.states[state].name, neuron, values: Array.from(past.of(at)),
    }));
  },
};
