"""README: its commands are the ones that CI runs, its figures those of the model card."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    first, second, *_ = blocks("bash")
    for command in (*first.split(" && ")[2:], *second.split(" && ")[1:]):
        assert command.strip() in ci, f".ci/run does not run {command.strip()!r}"


def test_figures_are_those_of_the_model_card() -> None:
    card = (ROOT / "models" / "digits.md").read_text()
    shown = re.search(r"accuracy in torch(.*)", README)
    assert shown is not None
    kept = re.findall(r"^\| `digits_\w+\.onnx` \| ([\d.]+%)", card, re.MULTILINE)
    assert re.findall(r"[\d.]+%", shown[1]) == kept
