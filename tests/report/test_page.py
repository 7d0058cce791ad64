"""The report as a page and as JSON: what a reader sees, in a real browser too."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import FAULTS
from networks import Convolutional, spikes

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def network() -> Convolutional:
    torch.manual_seed(0)
    return Convolutional().eval()


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return spikes(6, 2, 8, 8, 30)


@pytest.fixture(scope="module")
def equal(network: Convolutional, inputs: torch.Tensor) -> so.Report:
    return so.verify(network, so.export(network, inputs[:2, ..., :5]), inputs, native=False)


@pytest.fixture(scope="module", params=FAULTS)
def faulty(
    request: pytest.FixtureRequest, network: Convolutional, inputs: torch.Tensor
) -> tuple[so.Report, str]:
    """A report of a model with a fault, and the layer that is at fault."""
    fault, layer = FAULTS[request.param]
    model = so.export(network, inputs[:2, ..., :5])
    fault(model)
    return so.verify(network, model, inputs, native=False), layer


# -- what the report holds -----------------------------------------------------------------------


def test_rates_and_rasters_are_those_of_the_network(network, inputs, equal) -> None:
    rows = {row.name: row for row in equal.layers}
    assert rows["conv"].spikes is None
    with torch.no_grad():
        longer = torch.cat([inputs[:1], inputs[:1, ..., :7]], dim=-1)
        more = torch.cat([inputs, inputs[:1]])[..., :1]
        runs = [inputs, longer, more, inputs[:2, ..., :7]]
        hidden = [network.conv_neuron(network.conv(x)) for x in runs]
    count = sum(int(x.count_nonzero()) for x in hidden)
    assert rows["conv_neuron"].spikes == (count, count)
    raster = next(r for r in equal.rasters if r.name == "conv_neuron")
    assert np.array_equal(raster.torch, (hidden[0][0].flatten(0, 2) != 0)[list(raster.neurons)])


def test_json_holds_rows_and_what_was_run(equal, faulty) -> None:
    document = json.loads(equal.to_json())
    assert document["ok"] is True
    assert document["first_divergence"] is None
    assert [row["name"] for row in document["layers"]] == [row.name for row in equal.layers]
    assert document["facts"]["torch"] == torch.__version__
    assert re.fullmatch("[0-9a-f]{64}", document["facts"]["SHA-256"])
    report, _ = faulty
    first = report.first_divergence
    assert first is not None
    found = json.loads(report.to_json())["first_divergence"]
    assert (found["layer"], found["t"], found["neuron"]) == (
        first.layer, first.t, list(first.neuron),
    )  # fmt: skip


def test_reports_show_themselves_in_one_line(equal, faulty) -> None:
    assert repr(equal) == "Report(equal, 6 layers, max_abs_diff=0, spike_flips=0)"
    report, layer = faulty
    assert repr(report).startswith("Report(NOT equal, 6 layers, ")
    assert f"first divergence at {layer}" in repr(report)


def test_the_table_has_the_margin_at_the_first_flip(equal, network, inputs) -> None:
    assert "margin" not in str(equal)
    model = so.export(network, inputs[:2, ..., :5])
    FAULTS["threshold"][0](model)
    report = so.verify(network, model, inputs)
    head, *lines = str(report).splitlines()
    assert head.endswith("values      margin")
    assert report.first_divergence is not None
    (line,) = [line for line in lines if line.startswith("✗ dense_neuron")]
    assert line.endswith(f" {report.first_divergence.margin:+.3g}")
    assert len(line) == len(head)


def test_differences_that_json_has_no_number_for_are_texts(equal) -> None:
    report = dataclasses.replace(equal, max_abs_diff=float("inf"))
    assert json.loads(report.to_json())["max_abs_diff"] == "inf"


def test_the_membrane_is_the_neurons(network, inputs) -> None:
    model = so.export(network, inputs[:2, ..., :5])
    FAULTS["threshold"][0](model)
    report = so.verify(network, model, inputs)
    first, membrane = report.first_divergence, report.membrane
    assert first is not None
    assert first.t is not None
    assert membrane is not None
    # what comes before the neuron is right: both curves are one, and pass the place at its margin
    assert membrane.on_torch == membrane.on_runtime
    assert membrane.on_torch[first.t - membrane.start] == first.margin
    FAULTS["one weight, one step"][0](model := so.export(network, inputs[:2, ..., :5]))
    assert so.verify(network, model, inputs).membrane is None, "a current has no membrane"


# -- the page ------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(equal, faulty) -> None:
    for page in (equal.to_html(), faulty[0].to_html()):
        assert page.startswith("<!doctype html>")
        assert not re.search(r"<script|<link|<img|https?://|url\(|@import", page)
    assert equal._repr_html_().startswith("<div")
    assert equal._repr_html_() in equal.to_html()


def test_names_cannot_become_markup(equal) -> None:
    row = dataclasses.replace(equal.layers[0], name="<b>&x")
    page = dataclasses.replace(equal, layers=(row,), notes=("<i>",)).to_html()
    assert "<b>&x" not in page
    assert "&lt;b&gt;&amp;x" in page
    assert "&lt;i&gt;" in page


def _open(browser: Any, page: str, folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())


def _texts(browser: Any, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def test_a_browser_shows_the_fault(browser, faulty, tmp_path) -> None:
    report, layer = faulty
    first = report.first_divergence
    assert first is not None
    _open(browser, report.to_html(), tmp_path)
    assert _texts(browser, "h1") == ["✗ NOT equal"]
    (shown,) = _texts(browser, "#first-divergence")
    assert shown == str(first)
    assert shown.startswith(layer)
    when = "" if first.t is None else f", t={first.t}"  # a last state has no time
    assert f"neuron {first.neuron}{when}:" in shown
    assert f"neuron {first.neuron}{when}" in _texts(browser, "tr.bad td.place")[0]
    bad = _texts(browser, "tr.bad td:nth-child(2)")
    assert bad == [row.name for row in (*report.layers, *report.outputs) if not row.ok]
    assert bad[0] == layer
    assert len(_texts(browser, "figure.membrane")) == (report.membrane is not None)
    for raster in report.rasters[:-1]:  # the output's is its layer's
        figure = browser.find_element("css selector", f"figure[data-layer={raster.name}]")
        for kind, marks in (
            ("torch", raster.torch & ~raster.runtime),
            ("runtime", raster.runtime & ~raster.torch),
            ("same", raster.runtime & raster.torch),
        ):
            path = figure.find_element("css selector", f"path.{kind}").get_attribute("d")
            assert path.count("M") == int(marks.sum())
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_follows_the_theme(browser, equal, tmp_path, width, theme) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    _open(browser, equal.to_html(), tmp_path)
    assert _texts(browser, "h1") == ["✓ equal"]
    page = browser.find_element("css selector", ".synapse-onnx")
    colours = [page.value_of_css_property(name) for name in ("color", "background-color")]
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]
    assert (light[0] < light[1]) == (theme == "light")
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert _texts(browser, ".raster figcaption b") == [r.name for r in equal.rasters[:-1]]
