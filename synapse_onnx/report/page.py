"""The report of a comparison as one self-contained page: no script, no font, no link elsewhere.

Pictures are SVG within the page, in colours that follow the reader's light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from synapse_onnx.report.result import Membrane, Raster, Report, Row, writes_html

__all__ = ["render", "theme"]

#: kind of a mark in a raster -> what it means
_MARKS = {"same": "both", "torch": "torch alone", "runtime": "ONNX Runtime alone"}


@writes_html
def render(report: Report, whole: bool = True) -> str:
    """Write the page; or, for a notebook, only what its body holds.

    Args:
        report: what ``verify`` returned.
        whole: a whole HTML document, else one ``div``.
    """
    sign = "ok" if report.ok else "bad"
    parts = [
        f'<h1 class="{sign}">{"✓" if report.ok else "✗"} {report.outcome}</h1>',
        f"<p>torch against ONNX Runtime, {escape(report.facts.get('model', ''))}, "
        f"on inputs of shape {escape(report.ran)}</p>",
        *_said("by-run-alone", "By the run alone", report.by_run_alone),
        *_said("not-exercised", "Not exercised", report.not_exercised),
        *_said("not-compared", "Not compared", report.not_compared),
        *_divergence(report),
        *_listed("Problems", report.problems),
        "<h2>Layers and outputs</h2>",
        _rows([*report.layers, *report.outputs]),
        *_coverage(report),
        *_listed("Inside the layers", report.inside),
        *_rasters(report),
        *_listed("Notes", report.notes),
        "<h2>What was run</h2>",
        _facts(report.facts),
    ]
    body = f'<div class="synapse-onnx">\n<style>{_STYLE}</style>\n' + "\n".join(parts) + "\n</div>"
    if not whole:
        return body
    title = f"{report.outcome}: {report.facts.get('model', 'model')}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>body {{ margin: 0 }}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _said(name: str, title: str, text: str) -> list[str]:
    return [f'<p class="first" id="{name}">{title}: {escape(text)}</p>'] if text else []


def _divergence(report: Report) -> list[str]:
    first = report.first_divergence
    if first is None:
        return []
    parts = [
        "<h2>First divergence</h2>",
        f'<p class="first" id="first-divergence">{escape(str(first))}</p>',
    ]
    if report.membrane is not None and first.t is not None:
        parts.append(_membrane(report.membrane, first.t))
    return parts


def _coverage(report: Report) -> list[str]:
    """Tell how much of every input, spiking layer and output was active at some step."""
    if not report.coverage:
        return []
    head = "".join(f"<th>{title}</th>" for title in ("name", "kind", "active", "of", ""))
    lines = "".join(
        f'<tr class="{"bad" if entry.gap else "ok"}"><td>{escape(entry.name)}</td>'
        f'<td>{escape(entry.kind)}</td><td class="number">{entry.active:,}</td>'
        f'<td class="number">{entry.neurons:,}</td><td>{entry.gap}</td></tr>'
        for entry in report.coverage
    )
    table = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return ["<h2>Active at some step</h2>", f'<div class="wide"><table>{table}</table></div>']


def _listed(title: str, sentences: Iterable[str]) -> list[str]:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return [f"<h2>{title}</h2>", f"<ul>{items}</ul>"] if items else []


def _facts(facts: dict[str, str]) -> str:
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{pairs}</dl>"


def _rows(rows: Sequence[Row]) -> str:
    head = ("", "layer", "kind", "demand", "max|diff|", "flips", "values", "rate", "first at")
    cells = "".join(f"<th>{title}</th>" for title in head)
    lines = "".join(_row(row) for row in rows)
    table = f"<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="wide"><table>{table}</table></div>'


def _row(row: Row) -> str:
    first = ""
    if row.first is not None:
        first = row.first.place
        if row.first.margin is not None:
            first += f", membrane {row.first.margin:+.3g}"
    cells = [
        ("", "✓" if row.ok else "✗"),
        ("", row.name),
        ("", row.kind),
        ("", row.demand),
        ("number", f"{row.max_abs_diff:.3g}"),
        ("number", "" if row.spike_flips is None else f"{row.spike_flips:,}"),
        ("number", f"{row.values:,}"),
        ("rate", _rate(row)),
        ("place", first),
    ]
    text = "".join(
        f'<td class="{kind}">{value if kind == "rate" else escape(value)}</td>'
        for kind, value in cells
    )
    return f'<tr class="{"ok" if row.ok else "bad"}">{text}</tr>'


def _rate(row: Row) -> str:
    """Spikes per value in torch, with a bar; then ONNX Runtime's if it differs."""
    if row.spikes is None or not row.values:
        return ""
    rates = [count / row.values for count in row.spikes]
    text = f"{rates[0]:.2%}" + (f" / {rates[1]:.2%}" if row.spikes[0] != row.spikes[1] else "")
    return f'<i style="width:{rates[0] * 4:.3f}rem"></i>{text}'


# -- pictures --------------------------------------------------------------------------------


def _rasters(report: Report) -> list[str]:
    shown = report.shown_rasters
    if not shown:
        return []
    keys = "".join(f'<span class="key {kind}">{text}</span>' for kind, text in _MARKS.items())
    return ["<h2>Spikes</h2>", f'<p class="keys">{keys}</p>', *map(_raster, shown)]


def _raster(raster: Raster) -> str:
    rows, columns = raster.torch.shape
    if not rows or not columns:
        return ""
    high = max(2, min(6, 240 // rows))
    wide = 800 / columns
    marks = []
    for kind, shown in (
        ("same", raster.torch & raster.runtime),
        ("torch", raster.torch & ~raster.runtime),
        ("runtime", raster.runtime & ~raster.torch),
    ):
        places = np.argwhere(shown)
        path = "".join(f"M{(t + 0.5) * wide:.1f} {n * high}v{high}" for n, t in places)
        stroke = max(1.0, min(wide * 0.8, 4.0)) * (1 if kind == "same" else 1.6)
        marks.append(f'<path class="{kind}" d="{path}" stroke-width="{stroke:.1f}"/>')
    neurons, steps = raster.size
    part = f"{rows} of {neurons:,} neurons" if rows < neurons else f"{neurons:,} neurons"
    time = f"t = {raster.start} … {raster.start + columns - 1} of {steps:,}"
    flips = int((raster.torch != raster.runtime).sum())
    text = f"{part}, {time}, sample {raster.sample}" + (f", {flips} differ" if flips else "")
    name = escape(raster.name)
    return (
        f'<figure class="raster{" differ" * bool(flips)}" data-layer="{name}" data-flips="{flips}">'
        f"<figcaption><b>{name}</b> {text}</figcaption>"
        f'<svg viewBox="0 0 800 {rows * high}" role="img" aria-label="spikes of {name}: {text}">'
        f"{''.join(marks)}</svg></figure>"
    )


def _membrane(membrane: Membrane, t: int) -> str:
    """Draw both curves, the threshold and the time of the divergence."""
    curves = {"runtime": membrane.on_runtime, "torch": membrane.on_torch}
    values = [value for curve in curves.values() for value in curve if np.isfinite(value)]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    span = (high - low) or 1.0
    columns = max(len(membrane.on_torch), 1)

    def x(step: float) -> float:
        return 10 + 780 * (step + 0.5) / columns

    def y(value: float) -> float:
        return 10 + 180 * (high - value) / span

    lines = []
    for kind, curve in curves.items():
        points = " ".join(
            f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(curve) if np.isfinite(value)
        )
        lines.append(f'<polyline class="{kind}" points="{points}"/>')
    at = x(t - membrane.start)
    text = (
        f"membrane above threshold, t = {membrane.start} … {membrane.start + columns - 1}, "
        f"from {low:.3g} to {high:.3g}"
    )
    keys = (
        '<span class="key torch">torch, on its own currents</span>'
        '<span class="key runtime">torch, on the currents that ONNX Runtime had</span>'
    )
    return (
        f'<figure class="membrane"><figcaption>{text}<br>{keys}</figcaption>'
        f'<svg viewBox="0 0 800 200" role="img" aria-label="{text}">'
        f'<line class="threshold" x1="10" x2="790" y1="{y(0):.1f}" y2="{y(0):.1f}"/>'
        f'<line class="when" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="200"/>'
        f"{''.join(lines)}</svg></figure>"
    )


#: colours by name, in light and in dark
_COLOURS = {
    "ink": ("#1c1e21", "#e4e6ea"),
    "paper": ("#ffffff", "#15181c"),
    "faint": ("#d9dce1", "#363c44"),
    "soft": ("#5d6672", "#9aa4b1"),
    "ok": ("#1a7f37", "#4ac26b"),
    "bad": ("#c4291c", "#ff7b72"),
    "torch": ("#b35900", "#ffa657"),
    "runtime": ("#7a3ec8", "#c297ff"),
    "other": ("#0b62a8", "#6cb6ff"),
}


def theme(selector: str) -> str:
    """Return CSS that gives an element the colours as variables, as the reader's theme has them."""
    light, dark = (
        " ".join(f"--{name}: {shades[i]};" for name, shades in _COLOURS.items()) for i in range(2)
    )
    return (
        f"{selector} {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ {selector} {{ {dark} }} }}\n"
    )


_STYLE = (
    theme(".synapse-onnx")
    + """
.synapse-onnx { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif;
  padding: 1.5rem max(1rem, calc(50vw - 34rem)); min-height: calc(100vh - 3rem); }
.synapse-onnx h1 { font-size: 1.8rem; margin: 0; }
.synapse-onnx h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.synapse-onnx h1.ok, .synapse-onnx tr.ok td:first-child { color: var(--ok); }
.synapse-onnx h1.bad, .synapse-onnx tr.bad td:first-child { color: var(--bad); }
.synapse-onnx p, .synapse-onnx li, .synapse-onnx dd { overflow-wrap: anywhere; }
.synapse-onnx .first { border-left: 4px solid var(--bad); padding-left: .75rem; font-weight: 600; }
.synapse-onnx .wide { overflow-x: auto; }
.synapse-onnx table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
.synapse-onnx th { color: var(--soft); font-weight: 500; text-align: left; }
.synapse-onnx th, .synapse-onnx td { padding: .2rem .7rem .2rem 0; white-space: nowrap;
  border-bottom: 1px solid var(--faint); background: none; }
.synapse-onnx td.number { text-align: right; }
.synapse-onnx td i { display: inline-block; height: .6em; background: var(--soft);
  margin-right: .4em; max-width: 4rem; }
.synapse-onnx tr.bad { font-weight: 600; }
.synapse-onnx figure { margin: .5rem 0 1.2rem; }
.synapse-onnx figcaption { color: var(--soft); }
.synapse-onnx figcaption b { color: var(--ink); }
.synapse-onnx svg { width: 100%; height: auto; border: 1px solid var(--faint); display: block; }
.synapse-onnx path, .synapse-onnx polyline { fill: none; stroke-width: 2; }
.synapse-onnx .same { stroke: var(--soft); }
.synapse-onnx .torch { stroke: var(--torch); }
.synapse-onnx .runtime { stroke: var(--runtime); }
.synapse-onnx polyline.torch { stroke-dasharray: 5 4; }
.synapse-onnx .threshold { stroke: var(--soft); stroke-dasharray: 2 4; }
.synapse-onnx .when { stroke: var(--bad); }
.synapse-onnx td.place { white-space: normal; min-width: 14rem; }
.synapse-onnx .differ .same { opacity: .35; }
.synapse-onnx .key { margin-right: 1.2rem; display: inline-block; }
.synapse-onnx .key::before { content: ""; display: inline-block; width: .3rem; height: .9rem;
  margin-right: .4rem; vertical-align: -.1rem; background: var(--soft); }
.synapse-onnx .key.torch::before { background: var(--torch); }
.synapse-onnx .key.runtime::before { background: var(--runtime); }
.synapse-onnx dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
.synapse-onnx dt { color: var(--soft); }
.synapse-onnx dd { margin: 0; }
@media (max-width: 36rem) { .synapse-onnx dl { grid-template-columns: 1fr; }
  .synapse-onnx dd { margin-bottom: .4rem; } }
"""
)
