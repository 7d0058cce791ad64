// @ts-check
/* The decoded output: scores of the classes, and curves of outputs that are no spikes. */

import { $, BARS, make, short, TRACES, words } from "./common.js";
import { Chart, Past } from "./pictures.js";

/** @typedef {import("./common.js").Description} Description */
/** @typedef {import("./common.js").Frame} Frame */

/** Scores of the classes, and the outputs as curves where they are no spikes. */
export class Decoder {
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
    if (!this.about.window) {
      values.forEach((value, i) => (this.sums[i] += value));
      return;
    }
    this.window.push(values);
    if (this.window.length > this.about.window) this.window.shift();
    // summed anew, so that no rounding is left of what has gone
    this.sums.fill(0);
    for (const past of this.window) past.forEach((value, i) => (this.sums[i] += value));
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
    // bars begin at zero, or at the least where there are scores below
    const shown = order.map((i) => scores[i]), least = Math.min(0, ...shown);
    const most = Math.max(1e-9, ...shown.map((score) => score - least));
    const any = scores.some((score) => score !== 0);
    const drawn = this.past ? order.slice().sort((a, b) => scores[b] - scores[a]).slice(0, TRACES) : [];
    this.rows.forEach((row, at) => {
      const i = order[at], leads = any && i === best, colour = drawn.indexOf(i);
      row.name.className = colour < 0 ? "name" : `name t${colour}`;
      row.name.replaceChildren(this.label(i), ...(colour < 0 ? [] : [make("i")]));
      row.name.classList.toggle("best", leads);
      row.bar.classList.toggle("best", leads);
      row.fill.style.width = any ? `${(100 * (scores[i] - least)) / most}%` : "0";
      row.number.textContent = short(scores[i]);
    });
    if (this.past) {
      const past = this.past;
      this.chart?.draw(drawn.map((i, rank) => ({ values: past.of(i), spikes: null, colour: `trace-${rank}`, threshold: null })));
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
