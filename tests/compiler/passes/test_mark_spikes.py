"""mark_spikes: through which operators spikes stay spikes."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import parsed

from synapse_onnx.compiler.passes import (
    mark_spikes,
)

#: operators that hand on the elements of their first input
MOVES = [
    "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "marked"),
    [
        ("Identity(s)", True),
        ("Transpose<perm = [1, 0, 2]>(s)", True),
        ("Relu(s)", False),
        ("Add(s, s)", False),
        ("Concat<axis = 0>(s, s)", True),
        ("Concat<axis = 0>(s, x)", False),
        ("Gather(, s)", False),
        ("other.Identity(s)", False),
        ("other.Concat(s, s)", False),
        *((f"{kind}(s, x)", True) for kind in MOVES),
        *((f"{kind}(x, s)", False) for kind in MOVES),
        ("Identity(last)", False),
        ("Identity(x)", False),
    ],
)
@pytest.mark.parametrize("graded", [0, 1])
def test_what_reads_spikes_is_told_so(between: str, marked: bool, graded: int) -> None:
    model = ir.from_proto(
        parsed(f"""
    g (float[T, N, 2] x, float[1] d, int64[N, 2] u) => (float[T, N, 2] y)
    <int8[2, 2, 1, 1, 1] w = {{1, 2, 3, 4}}, float[1] step = {{1}}> {{
      s, last, other = ai.synapse.Cuba<scale = 64, threshold = 64, graded = {graded}>(x, d, d, u, u)
      z = {between}
      y = ai.synapse.QuantizedDense<integers = 1, spikes = 0>(z, w, step)
    }}""")
    )
    marked = marked and not graded
    assert mark_spikes.run(model) == marked
    assert [n.attributes["spikes"].as_int() for n in model.graph if "spikes" in n.attributes] == [
        int(marked)
    ]
    assert mark_spikes.run(model) == 0
