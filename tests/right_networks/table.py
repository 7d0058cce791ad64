"""Counts of verdicts, by structure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .draw import Drawn
from .judge import KINDS, Verdict


@dataclass
class Table:
    """Verdicts on many networks."""

    totals: Counter[str] = field(default_factory=Counter)
    structures: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sentences: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Drawn, Verdict]] = field(default_factory=list)

    def add(self, drawn: Drawn, verdict: Verdict) -> None:
        self.totals[verdict.kind] += 1
        for name in dict.fromkeys(drawn.structures):
            self.structures[name][verdict.kind] += 1
        if verdict.kind == "refused":
            self.sentences[re.sub(r"\d+", "#", verdict.why)] += 1
        if verdict.wrong:
            self.wrong.append((drawn, verdict))

    def __str__(self) -> str:
        width = max(map(len, self.structures), default=9)
        lines = [f"{'structure':{width}} " + " ".join(f"{kind:>17}" for kind in KINDS)]
        for name, counts in sorted(self.structures.items()):
            lines.append(f"{name:{width}} " + " ".join(f"{counts[k] or '':>17}" for k in KINDS))
        lines.append(f"{'total':{width}} " + " ".join(f"{self.totals[k]:>17}" for k in KINDS))
        lines += [f"refused {n}: {sentence}" for sentence, n in self.sentences.most_common()]
        return "\n".join(lines)
