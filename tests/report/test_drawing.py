"""The SVG of a drawing: its texts, what a browser makes of it, and the command that writes it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from drawings import MODELS, Drawing, drawn, foreign
from networks import spikes
from onnx import helper

from synapse_onnx.cli import main
from synapse_onnx.report.activity import count_activity
from synapse_onnx.report.drawing import to_svg


def test_names_cannot_become_markup() -> None:
    bad = "<b> & \"quoted\" 'too' \x01"
    node = helper.make_node("Relu", ["x"], [bad], name=bad)
    text = to_svg(foreign([node], [bad]))
    drawing = Drawing(text)
    drawing.check()
    shown = bad.replace("\x01", "\ufffd")
    assert drawing.boxes["node:0"].name == shown
    assert [line.value for line in drawing.lines] == ["x", shown]
    assert "".join(drawing.boxes[f"output:{shown}"].texts[:-1]) == shown
    assert "<b>" not in text


def test_long_names_are_wrapped_and_wide_letters_have_room() -> None:
    long = ".".join(f"block{i}" for i in range(30)) + "." + "y" * 90
    node = helper.make_node("Relu", ["x"], [long])
    box = drawn(foreign([node], [long])).boxes[f"output:{long}"]
    assert "".join(box.texts[:-1]) == long
    assert max(map(len, box.texts)) <= 40
    wide, narrow = (
        Drawing(to_svg(foreign([helper.make_node("Relu", ["x"], [name])], [name])))
        for name in ("神経細胞" * 4, "nerv" * 4)
    )
    widths = [d.boxes[f"output:{d.lines[-1].value}"] for d in (wide, narrow)]
    assert widths[0].right - widths[0].left > 1.8 * (widths[1].right - widths[1].left)


def test_the_drawing_needs_nothing_from_elsewhere() -> None:
    text = to_svg(onnx.load(MODELS[0]))
    bare = text.replace('xmlns="http://www.w3.org/2000/svg"', "", 1)
    for word in ("http", "url(", "href", "@import", "<script", "@font-face", "<image", "<use"):
        assert word not in bare
    assert "prefers-color-scheme: dark" in bare


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_every_text_within_its_box(browser, tmp_path: Path, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    path = tmp_path / "graph.svg"
    path.write_text(to_svg(onnx.load(next(p for p in MODELS if p.stem == "tones_stream"))))
    browser.get(path.as_uri())
    found = json.loads(
        browser.execute_script(
            """
            const groups = [...document.querySelectorAll('g.box')].map(g => {
              const r = g.querySelector('rect').getBBox();
              return [...g.querySelectorAll('text')].map(t => {
                const b = t.getBBox();
                return [b.x - r.x, r.x + r.width - b.x - b.width,
                        b.y - r.y, r.y + r.height - b.y - b.height];
              });
            });
            const fill = e => getComputedStyle(document.querySelector(e)).fill;
            return JSON.stringify([groups.flat(), fill('rect.paper'), fill('text.title')]);
            """
        )
    )
    margins, paper, ink = found
    assert len(margins) > 30
    assert min(itertools.chain(*margins)) > 0
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (light[0] > light[1]) == (theme == "light")


# -- the command ---------------------------------------------------------------------------------


def _invoke(*args: str) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(main, ["inspect", *args])
    return outcome.exit_code, outcome.stdout, outcome.stderr


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", spikes(2, 1, 8, 8, 6).numpy())
    return str(next(path for path in MODELS if path.stem == "digits_q8"))


def test_the_command_writes_the_drawing(digits: str) -> None:
    code, text, said = _invoke(digits, "--svg", "graph.svg")
    assert (code, said) == (0, "")
    assert text.splitlines()[-1] == "wrote  graph.svg"
    assert Path("graph.svg").read_text() == to_svg(onnx.load(digits))


def test_the_command_writes_rates_and_json(digits: str) -> None:
    code, text, _ = _invoke(digits, "--svg", "graph.svg", "--json", "-i", "x.npy")
    assert code == 0
    assert json.loads(text)["file"] == digits
    model = onnx.load(digits)
    activity = count_activity(model, [np.load("x.npy")])
    assert Path("graph.svg").read_text() == to_svg(model, activity)
    assert Path("graph.svg").read_text().count("spikes out") == 4


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("graph.png", "graph.png cannot be written: its name must end in .svg"),
        ("nowhere/graph.svg", "nowhere/graph.svg cannot be written: there is no folder nowhere"),
    ],
)
def test_where_the_command_cannot_write(digits: str, target: str, expected: str) -> None:
    assert _invoke(digits, "--svg", target) == (2, "", f"error: {expected}\n")
    assert sorted(path.name for path in Path().iterdir()) == ["x.npy"]


def test_no_torch_and_no_runtime_for_a_drawing(digits: str) -> None:
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        f"try:\n    main(['inspect', {digits!r}, '--svg', 'graph.svg'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'synapse_onnx.report.drawing' in sys.modules\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("graph.svg").stat().st_size > 5000
