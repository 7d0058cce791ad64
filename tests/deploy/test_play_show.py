"""What a model says of its page, and which values of it are spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from play_calls import MODELS, TONES

import synapse_onnx as so
from synapse_onnx.deploy.play import _page


def test_what_a_model_says_of_its_page_is_kept() -> None:
    model = onnx.load(MODELS / "tones_q8.onnx")
    assert so.play.Show.read(model) == so.play.Show()
    values = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    show = so.play.Show(
        title="a", text="b", labels=("x", "<b>"), decode="mean", window=3, period=7, bump=1.5,
        wave=so.play.Wave({"up": (9.0, 3.0)}, steps=5, grid=0.25, limit=2.0),
        samples={"s": values},
    )  # fmt: skip
    show.write(model)
    show.write(model)
    keys = [prop.key for prop in model.metadata_props]
    assert keys.count("synapse_onnx.show") == 1
    found = so.play.Show.read(model)
    assert {**vars(found), "samples": {}} == {**vars(show), "samples": {}}
    np.testing.assert_array_equal(found.samples["s"], values)
    so.play.Show.remove(model)
    assert so.play.Show.read(model) == so.play.Show()
    assert model == onnx.load(MODELS / "tones_q8.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"title": 1}', "[" * 100_000,
        '{"title":"","text":"","labels":[],"decode":"most","window":0,"period":1,"bump":0,"samples":[]}',
        '{"title":"","text":"","labels":[],"decode":"","window":0,"period":0,"bump":0,"samples":[]}',
        '{"title":"","text":"","labels":[],"decode":"","window":0,"period":1,"bump":0,"samples":'
        '[["x",{"shape":[2],"type":"int8","step":1,"data":"eJwDAAAAAAE="}]]}',
        '{"title":"","text":"","labels":[],"decode":"","window":0,"period":1,"bump":0,"samples":'
        '[["x",{"shape":[99999999,9],"type":"int8","step":1,"data":""}]]}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(text: str) -> None:
    model = onnx.load(TONES)
    (prop,) = (prop for prop in model.metadata_props if prop.key == "synapse_onnx.show")
    prop.value = text
    with pytest.raises(so.ModelError, match=r"synapse_onnx\.show"):
        so.play.Show.read(model)


@pytest.mark.parametrize(
    "arguments", [{"decode": "most"}, {"window": -1}, {"period": 0}, {"bump": float("nan")}]
)
def test_what_no_page_could_show_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(so.InputError, match=next(iter(arguments))):
        so.play.Show(**arguments)


@pytest.mark.parametrize(
    ("kind", "domain", "keeps"),
    [
        ("Transpose", "", True), ("Slice", "", True), ("Cast", "", True), ("Concat", "", False),
        ("Neg", "", False), ("Transpose", "other", False),
    ],
)  # fmt: skip
def test_spikes_are_followed_through_operators_that_copy_them(
    kind: str, domain: str, keeps: bool
) -> None:
    node = onnx.helper.make_node(kind, ["x"], ["y"], domain=domain)
    assert _page._keeps_spikes(node) is keeps
