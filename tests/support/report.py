"""The support matrix as a page (reports/support.md) and as a table (reports/support.csv)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from support.catalogue import CATALOGUE, Entry
from support.matrix import Cell, matrix
from xai_lib.registry import all_methods

FOLDER = Path(__file__).parents[2] / "reports"
PAGE, TABLE = FOLDER / "support.md", FOLDER / "support.csv"

LEGEND = """\
# Support matrix

Every method on small, randomly initialised models of the real classes: the published architecture
with its width and depth turned down. `make test` computes this page anew and fails where it
differs; `cd tests && python -m support` writes it.

**✓** works: finite, one value per token that the model sees, the same for a batch as for its
samples one by one, the same with fused and with unfused attention where the model has both,
different between classes where the method is class-specific, and read from the rows that the
model's head reads, which the library finds from the pass itself. A **letter** is a refusal: a typed
error with the sentence below, which names methods that work for that model.

*tokens*: prefix tokens (class, distillation, register) + patch grid. *reads*: the rows of the last
attention that the prediction comes from: class token(s) by number, all patches, both, or the query
of a pooling probe.

- Models that read several rows (mean pooling, two readouts) are explained by the mean of the rows,
  each counting the same; so where a class token stands next to pooled patches (HF Dinov2), it
  weighs as much as one patch. `readout=0` asks for its row alone.
- CaiT: class tokens join after the trunk. They have a row of their own from there on; as they have
  no input embedding, LRP methods give them zero.
- SigLIP: where a pooling probe leads to the logits, its map is the last one and adds no identity;
  where the probe is computed but not used, it is left out.
- Windows (Swin): no attention map spans the image, so attention methods refuse. Gradient and LRP
  methods reach the pixels, and a token is a patch of the first grid: the sum of its pixels.
- Tokens of gradient methods are sums of pixels; prefix tokens have none and are zero.
"""


def page(cells: list[Cell]) -> str:
    """Return reports/support.md."""
    methods = list(all_methods())
    reasons: dict[str, str] = {}
    for cell in cells:
        if not cell.works:
            reasons.setdefault(cell.reason, chr(ord("a") + len(reasons)))
    by_place = {(c.model, c.method): "✓" if c.works else reasons[c.reason] for c in cells}
    working = sum(c.works for c in cells)
    lines = [LEGEND, f"{len(CATALOGUE)} models, {len(methods)} methods: "]
    lines[-1] += f"{working} cells work, {len(cells) - working} are refused.\n"
    lines.append("| model | tokens | reads | " + " | ".join(f"`{m}`" for m in methods) + " |")
    lines.append("|:--|:--|:--|" + ":-:|" * len(methods))
    for entry in CATALOGUE:
        marks = " | ".join(by_place[entry.name, m] for m in methods)
        lines.append(f"| {entry.name} | {_tokens(entry)} | {_reads(entry)} | {marks} |")
    lines.append("\n## Refusals\n")
    lines += [f"- **{letter}**: {reason}" for reason, letter in reasons.items()]
    return "\n".join(lines) + "\n"


def table(cells: list[Cell]) -> str:
    """Return reports/support.csv: one line per cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("model", "method", "status", "reason"))
    for c in cells:
        writer.writerow((c.model, c.method, "works" if c.works else "refused", c.reason or ""))
    return buffer.getvalue()


def write() -> None:
    """Compute the matrix and write both files."""
    cells = matrix()
    FOLDER.mkdir(exist_ok=True)
    PAGE.write_text(page(cells), encoding="utf-8")
    TABLE.write_text(table(cells), encoding="utf-8")


def _tokens(entry: Entry) -> str:
    return f"{entry.prefix} + {entry.grid[0]}×{entry.grid[1]}"


def _reads(entry: Entry) -> str:
    if entry.reads is None:
        return "windows"
    return entry.reads if isinstance(entry.reads, str) else ", ".join(map(str, entry.reads))
