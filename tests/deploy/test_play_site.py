"""The page of a streaming model in a real browser: its spikes are those of ONNX Runtime here."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import NEURON, spikes
from play_calls import DIGITS, MODELS, SITE, TONES
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.deploy.play import _page
from synapse_onnx.model.graph import with_outputs
from synapse_onnx.model.metadata import Metadata

DRIFT = MODELS / "drift_stream.onnx"


class Odd(nn.Module):
    """What other models have: bins of time, two channels, graded output: (N, 2, 3, 4, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = so.block.cuba.Conv(NEURON, 2, 3, 3, padding=1, weight_scale=3)
        self.bins = so.block.cuba.TimeDecimation(2)
        self.flat = so.block.cuba.Flatten()
        self.again = so.block.alif.Recurrent(
            NEURON | {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.2},
            36, 5, weight_scale=20,
        )  # fmt: skip
        self.readout = so.block.cuba.Affine(NEURON, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.again(self.flat(self.bins(self.first(x)))))


@functools.cache
def odd() -> onnx.ModelProto:
    torch.manual_seed(0)
    network, x = Odd().eval(), spikes(2, 2, 3, 4, 8)
    network(x)
    return so.export(
        network, x, streaming=True, layout="TNC", input_type="uint8", dynamic=False
    )  # fmt: skip


@pytest.fixture(scope="module")
def runtime() -> Path:
    try:
        return so.play.find_runtime()
    except so.InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def page(browser: Any, runtime: Path) -> Iterator[Callable[..., Any]]:
    """``page(model)``: the browser, with the page of a model; the same one is not loaded twice."""
    servers: dict[str, so.play.Server] = {}

    def opened(model: Path | onnx.ModelProto) -> Any:
        name = model.stem if isinstance(model, Path) else "odd"
        if name not in servers:
            proto = onnx.load(model) if isinstance(model, Path) else model
            servers[name] = so.play.Server(so.play.page_files(proto, name))
            threading.Thread(target=servers[name].run, daemon=True).start()
        url = servers[name].url
        if not browser.current_url.startswith(url):
            _width(browser, 1200)
            browser.get_log("browser")
            browser.get(url + "#paused")
            browser.set_script_timeout(60)
            _do(browser, "")
        return browser

    yield opened
    browser.get("about:blank")
    for server in servers.values():
        server.close()


def _do(browser: Any, script: str) -> Any:
    """Run a script that may wait, behind what loads the page; return what it returns."""
    found = browser.execute_async_script(
        "const done = arguments[0]; window.synapse.ready.then(async (about) => {"
        + script
        + "}).then(done, (error) => done('failed: ' + error));"
    )
    assert not str(found).startswith("failed: "), found
    return found


def _width(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _text(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


@pytest.fixture
def equal(session_of: Callable[[onnx.ModelProto], so.Session]) -> Callable[..., Any]:
    """``equal(model, frames)``: compare them; see below."""
    return functools.partial(_equal, session_of)


def _equal(
    session_of: Callable[[onnx.ModelProto], so.Session],
    model: Path | onnx.ModelProto,
    frames: list[dict[str, Any]],
) -> dict[str, np.ndarray]:
    """Run in ONNX Runtime what a browser was fed with, and compare every value of every step.

    Returns:
        The spikes of every layer, (T, ...).
    """
    proto = onnx.load(model) if isinstance(model, Path) else model
    about = _page.Description(proto, Metadata.read(proto))
    document = about.document("name", so.play.Show(), (), ())
    steps, (end,) = document["steps"], document["inputs"]
    fed = np.array([frame["inputs"][end["name"]] for frame in frames])
    fed = fed.reshape(len(fed), 1, *end["shape"])  # (T, N, C[, H, W])
    fed = np.repeat(fed, document["batch"], axis=1)
    if document["layout"] == "NCT":
        fed = np.moveaxis(fed, 0, -1)
    # path of a layer -> name of its spikes, and that name -> another one
    spiking = {
        layer["path"]: layer["values"].removesuffix("/shown")
        for layer in document["layers"]
        if layer["values"]
    }
    shown = {value: f"{value}!" for value in spiking.values()}
    stream = session_of(proto).stream(batch=document["batch"])
    # a stream of the graph with its spikes: another copy than the page has
    inner = session_of(with_outputs(proto, shown))
    states = inner.fresh_states(document["batch"])
    parts: dict[str, list[np.ndarray]] = {path: [] for path in spiking}
    chunks = []
    axis = 0 if document["layout"] == "TNC" else -1
    for begin in range(0, len(frames), steps):
        chunk = np.take(fed, range(begin, begin + steps), axis=axis).astype(end["type"])
        chunks.append(stream.run(chunk))
        names = [*shown.values(), *(state["output"] for state in document["states"])]
        found = inner.session.run(names, {end["name"]: chunk, **states})
        for path, value in zip(spiking, found, strict=False):
            parts[path] += [step[0].ravel() for step in value]
        after = found[len(shown) :]
        states = {s["input"]: v for s, v in zip(document["states"], after, strict=True)}
        last = frames[begin + steps - 1]["states"]
        for state in document["states"]:
            np.testing.assert_array_equal(
                np.array(last[state["output"]]), states[state["input"]][0].ravel(), state["output"]
            )
    for path, expected in parts.items():
        values = [frame["spikes"][path] for frame in frames if path in frame["spikes"]]
        np.testing.assert_array_equal(np.array(values), np.array(expected), path)
    (name,) = (description["name"] for description in document["outputs"])
    values = np.array([frame["outputs"][name] for frame in frames if name in frame["outputs"]])
    whole = np.concatenate(chunks, axis=axis)
    whole = np.moveaxis(whole, axis, 0)[:, 0]
    np.testing.assert_array_equal(values, whole.reshape(len(whole), -1), name)
    return {path: np.array(values) for path, values in parts.items()}


@pytest.mark.parametrize("sample", [0, 7])
def test_the_digits_are_equal_at_every_step(page, equal, sample) -> None:
    browser = page(DIGITS)
    script = f"await window.synapse.choose('samples', {sample}); return window.synapse.step(16)"
    frames = _do(browser, script)
    found = equal(DIGITS, frames)
    assert list(found) == ["conv1_neuron", "pool_neuron", "conv2_neuron", "dense_neuron"]
    assert all(values.any() for values in found.values())
    # what was fed is the test image, and what is said is what it shows
    image = so.play.Show.read(onnx.load(DIGITS)).samples[str(sample)]
    fed = np.array([frame["inputs"]["spikes"] for frame in frames])
    np.testing.assert_array_equal(fed, np.moveaxis(image, -1, 0).reshape(16, 64))
    assert _text(browser, "#said").split()[0] == str(sample)
    counts = sum(np.array(frame["outputs"]["output"]) for frame in frames)
    assert _do(browser, "return window.synapse.scores()") == counts.tolist()
    # the comparison can fail
    frames[9]["spikes"]["conv2_neuron"][100] = 1 - frames[9]["spikes"]["conv2_neuron"][100]
    with pytest.raises(AssertionError, match="conv2_neuron"):
        equal(DIGITS, frames)


def test_a_digit_drawn_by_hand_is_read_and_equal(page, equal) -> None:
    from selenium.webdriver import ActionChains

    browser = page(DIGITS)
    _do(browser, "await window.synapse.choose('drawing')")
    pad = browser.find_element("css selector", ".pad canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
    side = pad.size["width"]
    draw = ActionChains(browser, duration=0)
    draw.move_to_element_with_offset(pad, 0, int(-0.42 * side)).click_and_hold()
    draw.move_by_offset(0, int(0.84 * side)).release().perform()
    frames = _do(browser, "return window.synapse.step(16)")
    fed = np.array([frame["inputs"]["spikes"] for frame in frames]).reshape(16, 8, 8)
    assert fed.sum() > 16 * 6
    assert not fed[:, :, 0].any()
    assert equal(DIGITS, frames)["dense_neuron"].any()
    assert _text(browser, "#said").split()[0] == "1"
    # and by the keyboard: the pixel of the cursor, over the whole presentation
    browser.find_element("css selector", "#source-panel button").click()  # Clear
    pad.send_keys(*"\ue012\ue012\ue013", " ")  # left, left, up, space
    frames = _do(browser, "return window.synapse.step(16)")
    fed = np.array([frame["inputs"]["spikes"] for frame in frames]).reshape(16, 8, 8)
    assert np.argwhere(fed.all(0)).tolist() == [[3, 2]]
    assert fed.sum() == 16


def test_keys_and_pointer(page) -> None:
    browser = page(DIGITS)
    _do(browser, "await window.synapse.choose('samples', 3)")
    body = browser.find_element("css selector", "body")
    browser.execute_script("document.activeElement.blur()")

    def pressed(key: str) -> None:
        body.send_keys(key)
        _do(browser, "await new Promise((go) => setTimeout(go, 60))")

    pressed("\ue014")  # right: a step
    pressed("\ue014")
    assert _text(browser, "#clock") == "2 of 16, 3"
    pressed("r")
    assert _text(browser, "#clock") == "0 of 16, 3"
    pressed("n")
    assert _text(browser, "#clock") == "0 of 16, 4"
    speed = _text(browser, "#speed-word")
    pressed("\ue013")  # up: faster
    assert speed == "15 steps/s" != _text(browser, "#speed-word")
    assert _text(browser, "#play") == "▶Play"
    pressed(" ")
    assert _text(browser, "#play").endswith("Pause")
    # it plays: the steps go on by themselves, and behind the end comes the next sample
    _do(
        browser,
        "const clock = document.getElementById('clock');"
        "while (!clock.textContent.endsWith(', 5')) await new Promise((go) => setTimeout(go, 20));",
    )
    pressed(" ")
    assert _text(browser, "#play") == "▶Play"
    # every control is reached by the keyboard, and has a name
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, canvas')].filter((one) =>"
        " !(one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label')))"
        ".map((one) => one.outerHTML)"
    )
    assert nameless == []
    # a neuron that is clicked in a raster shows its membrane, and so does one chosen by keys
    _do(browser, "await window.synapse.step(8)")
    raster = browser.find_elements("css selector", ".raster canvas")[-1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", raster)
    raster.click()
    clicked = int(raster.get_attribute("aria-valuenow"))
    assert clicked in (4, 5)  # the middle of ten rows
    assert f"neuron {clicked}" in _text(browser, "#traces")
    raster.send_keys("\ue015", "\ue007")  # down, Enter
    assert f"neuron {clicked + 1}" in _text(browser, "#traces")
    assert browser.find_element("id", "trace-layer").get_attribute("value") == "3"


def test_what_is_drawn_is_what_happened(page) -> None:
    browser = page(DIGITS)
    frames = _do(
        browser, "await window.synapse.choose('samples', 5); return window.synapse.step(16)"
    )
    pixels = browser.execute_script(
        "return [...document.querySelectorAll('.raster canvas')].map((one) =>"
        " [...one.getContext('2d').getImageData(one.width - 16, 0, 16, one.height).data])"
    )
    colours = browser.execute_script(
        "const style = getComputedStyle(document.documentElement);"
        "return ['--field', '--line'].map((name) => style.getPropertyValue(name).trim())"
    )
    empty = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours]
    captions = browser.find_elements("css selector", ".raster figcaption")
    groups = {"conv1_neuron": 11, "pool_neuron": 3, "conv2_neuron": 6, "dense_neuron": 1}
    for picture, caption, (path, group) in zip(pixels, captions, groups.items(), strict=True):
        spikes = np.array([frame["spikes"][path] for frame in frames])
        assert f"{spikes.shape[1]:,} neurons" in caption.text
        assert (f"{group} in a row" in caption.text) == (group > 1)
        assert f"{int(spikes[-1].sum())} now" in caption.text.splitlines()
        lit = np.array(picture).reshape(-1, 16, 4)[..., :3]
        lit = np.logical_and.reduce([(lit != colour).any(-1) for colour in empty])
        padded = np.pad(spikes, ((0, 0), (0, -spikes.shape[1] % group)))
        expected = padded.reshape(16, -1, group).any(-1).T
        np.testing.assert_array_equal(lit, expected, path)
    for curve in _do(browser, "return window.synapse.membranes()"):
        assert curve["state"] == "voltage"
        name = f"{curve['layer']}.voltage.next"
        states = [frame["states"][name][curve["neuron"]] / 4096 for frame in frames]
        np.testing.assert_array_equal(np.float32(curve["values"][-16:]), np.float32(states))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_all(page, theme) -> None:
    browser = page(DIGITS)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    _width(browser, 390)
    for source in ("samples", "drawing", "random"):
        _do(browser, f"await window.synapse.choose('{source}')")
        root = "document.documentElement"
        assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    ground, ink = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
    assert (light[0] > light[1]) == (theme == "light")
    _width(browser, 1200)


def test_the_page_says_nothing_in_the_console(page) -> None:
    browser = page(DIGITS)
    assert browser.get_log("browser") == []
    # the log would show it: what the page's policy forbids, does not happen
    _do(browser, "await fetch('data:text/plain,x').catch(() => 0)")
    assert "Content Security Policy" in str(browser.get_log("browser"))


def test_the_resonators_are_equal_at_every_step(page, equal) -> None:
    browser = page(TONES)
    frames = _do(browser, "return window.synapse.step(96)")
    found = equal(TONES, frames)
    assert list(found) == ["ear.neuron", "mix.neuron"]
    assert all(values.any() for values in found.values())
    assert _text(browser, "#said").startswith("period 6")
    mean = np.mean([frame["outputs"]["output"] for frame in frames[-16:]], axis=0)
    np.testing.assert_allclose(_do(browser, "return window.synapse.scores()"), mean, atol=1e-12)
    # a sound that is put together here, on the grid on which sums are exact
    script = "await window.synapse.choose('waves'); await window.synapse.step(10);"
    browser.find_element("css selector", "body").send_keys("n")  # the next sound
    frames = _do(browser, script + "await window.synapse.reset(); return window.synapse.step(96)")
    assert equal(TONES, frames)["mix.neuron"].any()
    sound = np.array([frame["inputs"]["sound"] for frame in frames])
    assert (sound * 8 == np.round(sound * 8)).all()
    assert np.abs(sound).max() <= 4
    assert browser.get_log("browser") == []


def test_a_light_is_followed_and_equal(page, equal) -> None:
    browser = page(DRIFT)
    script = "await window.synapse.choose('bump'); return window.synapse.step(30)"
    frames = _do(browser, script)
    found = equal(DRIFT, frames)
    assert list(found) == ["eye.neuron", "first.neuron", "second.neuron"]
    assert all(values.any() for values in found.values())
    assert abs(float(_text(browser, "#said").split()[0]) - 0.5) < 0.05
    assert browser.get_log("browser") == []


def test_any_streaming_model_plays(page, equal) -> None:
    model = odd()
    browser = page(model)
    script = (
        "await window.synapse.choose('random');"
        "const rate = document.querySelector('#source-panel input'); rate.value = 0.5;"
        "rate.dispatchEvent(new Event('input')); return window.synapse.step(4)"
    )
    frames = _do(browser, script)
    assert 0.4 < np.mean([frame["inputs"]["x"] for frame in frames]) < 0.6
    assert len(frames) == 32  # the model is fixed to 8 steps a call
    found = equal(model, frames)
    assert len(found) == 2
    first, again = found
    # behind bins of two steps a layer has a step where a bin ends
    assert all(first in frame["spikes"] for frame in frames)
    late = [t for t, frame in enumerate(frames) if again in frame["spikes"]]
    assert late == [t for t, frame in enumerate(frames) if "output" in frame["outputs"]]
    assert late == list(range(1, 32, 2))
    assert all(values.any() for values in found.values())
    assert browser.get_log("browser") == []


def test_text_is_legible() -> None:
    """Contrast of text as WCAG AA wants it, 4.5, and 3 for what only frames a control."""
    style = (SITE / "play.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media", 2)[:2]
    )
    assert set(light) == set(dark)

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    curves = [name for name in light if name.startswith("trace-")]
    for colours in (light, dark):
        for ink, ground, least in [
            *((ink, on, 4.5) for ink in ("ink", "soft") for on in ("ground", "card", "field")),
            ("on-accent", "accent", 4.5), ("accent", "card", 4.5), ("mark", "card", 3.0),
            *((curve, "field", 3.0) for curve in ("spike", "minus", *curves)),
        ]:  # fmt: skip
            one, other = sorted(luminance(colours[name]) for name in (ink, ground))
            assert (other + 0.05) / (one + 0.05) >= least, f"{ink} on {ground}"


def test_the_page_asks_nobody_else() -> None:
    html = (SITE / "index.html").read_text()
    policy = re.search('Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1]
    text = html + "".join(path.read_text() for path in SITE.iterdir() if path.suffix != ".txt")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")", text)
    assert not re.search(r"<script(?! type=\"module\" src=\"play\.js\")|\son\w+=|style=", html)
