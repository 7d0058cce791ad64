"""README: its code runs, its commands are the ones that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n")[-2][:30])
def test_python_blocks_run(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert ("equal on inputs of shape (4, 200, 50)" in capsys.readouterr().out) == (
        "print(report)" in block
    )
    written = re.findall(r'export\(.*"(\w+\.onnx)"', block)
    assert written
    assert all((tmp_path / name).exists() for name in written)


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    first, second, *_ = blocks("bash")
    for command in (*first.split(" && ")[2:], *second.split(" && ")[1:]):
        assert command.strip() in ci, f".ci/run does not run {command.strip()!r}"


def test_figures_are_those_of_the_model_card() -> None:
    card = (ROOT / "models" / "digits.md").read_text()
    shown = re.search(r"accuracy in torch\s+│\s+([\d.]+%) │\s+([\d.]+%)", README)
    assert shown is not None
    kept = re.findall(r"^\| `digits_\w+\.onnx` \| ([\d.]+%)", card, re.MULTILINE)
    assert list(shown.groups()) == kept
