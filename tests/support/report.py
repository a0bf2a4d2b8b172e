"""The support matrix as a page (reports/support.md) and as a table (reports/support.csv)."""

from __future__ import annotations

import csv
import io
from itertools import chain
from pathlib import Path

from support.catalogue import CATALOGUE, Entry
from support.catalogue_streams import STREAMS
from support.catalogue_texts import TEXTS
from support.matrix import Cell, matrix
from support.stream_entry import StreamEntry
from xai_lib.explainers.registry import all_methods

FOLDER = Path(__file__).parents[2] / "reports"
PAGE, TABLE = FOLDER / "support.md", FOLDER / "support.csv"

LEGEND = """\
# Support matrix

Every method on small, randomly initialised models of the real classes: the published architecture
with its width and depth turned down. `make test` computes this page anew and fails where it
differs; `xai methods --write` writes it.

**✓** works: finite, one value per token that the model sees, the same for a batch as for its
samples one by one, the same with fused and with unfused attention where the model has both,
different between classes where the method is class-specific, and read from the rows that the
model's head reads, which the library finds from the pass itself; the model is as it was before. A
**letter** is a refusal: a typed error with the sentence below, which names methods that work for
that model.
"""

IMAGES = """\
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

TEXTS_LEGEND = """\
*reads*: the tokens whose rows of the last attention the prediction comes from: the first ([CLS]),
the last of the text, or all of it. All texts of a batch have other lengths: padded on the right,
and for causal models on the left as well (given `position_ids`, as the models themselves need
them), they get what they get alone, and padding gets exactly 0.

- What gradient and LRP methods reach are the embeddings that the first block takes up, found in
  the pass: words, positions and types together where the model adds them up, normalised where it
  normalises them, and projected where it projects them (ALBERT, ELECTRA).
- Models that read all tokens are explained by the mean of their rows.
- ALBERT uses one layer again and again: each call is a site of its own.
- DeBERTa-v2 with a convolution after its first layer: tokens also mix there, which no attention map
  shows.
- Gemma 2 normalises what its attention adds to the stream, so that the sizes that `bi_token`
  compares are not to be had from the projection alone.
"""

STREAMS_LEGEND = """\
*streams*: what an explanation has a part for. *meet*: how the streams do, which the library reads
off a pass: in a score alone (towers), in one sequence (joint), or by attending to each other
(coupled). Texts have other lengths: padded, they get what they get alone, and padding gets exactly
0, in a decoder that reads them as well.

- Towers: scores are those of every image with every text; the relevance of an image for text j is
  next to that of text j for the image.
- Coupled: methods on attention maps that are defined for several sequences (Chefer et al., ICCV
  2021) follow relevance through all of them together, a decoder's words and a detector's queries
  (in brackets) included. Methods that reach the input explain one stream at a time, the others
  being constant: of T5 and BART the encoder's embeddings, the decoder's copy held fixed.
- DETR and T5ForConditionalGeneration have a row of scores for each query or word: `position=0`.
- What a model returns decides what can be explained: FlavaModel and BlipForQuestionAnswering return
  no scores; with a head of one's own FLAVA is explained. FlavaForPreTraining runs its encoders
  twice, on the words as they are and masked, and the scores come of one of the runs alone.
- SigLIP 2 of a fixed size loads as SiglipModel, which works; its NaFlex variant takes patches.
"""


def page(images: list[Cell], texts: list[Cell], streams: list[Cell]) -> str:
    """Return reports/support.md."""
    first = _rows(CATALOGUE, images, ("tokens", "reads"), lambda e: (_tokens(e), _reads(e)))
    second = _rows(TEXTS, texts, ("reads",), lambda e: (e.reads,))
    third = _rows(STREAMS, streams, ("streams", "meet"), lambda e: (_streams(e), e.meet))
    parts = (
        *("## Images\n", IMAGES, *first, ""),
        *("## Texts\n", TEXTS_LEGEND, *second, ""),
        *("## Several streams\n", STREAMS_LEGEND, *third, ""),
    )
    return "\n".join((LEGEND, *parts))


def _rows(entries, cells: list[Cell], headings, describe) -> list[str]:
    """Return one table and the refusals of its cells, as lines."""
    methods = list(all_methods())
    reasons: dict[str, str] = {}
    for cell in cells:
        if not cell.works:
            reasons.setdefault(cell.reason, chr(ord("a") + len(reasons)))
    by_place = {(c.model, c.method): "✓" if c.works else reasons[c.reason] for c in cells}
    working = sum(c.works for c in cells)
    lines = [
        f"{len(entries)} models, {len(methods)} methods: {working} cells work, "
        f"{len(cells) - working} are refused.\n",
        "| model | " + " | ".join((*headings, *(f"`{m}`" for m in methods))) + " |",
        "|:--|" + ":--|" * len(headings) + ":-:|" * len(methods),
    ]
    for entry in entries:
        marks = (*describe(entry), *(by_place[entry.name, m] for m in methods))
        lines.append(f"| {entry.name} | " + " | ".join(marks) + " |")
    lines.append("\n### Refusals\n")
    return lines + [f"- **{letter}**: {reason}" for reason, letter in reasons.items()]


def table(*parts: list[Cell]) -> str:
    """Return reports/support.csv: one line per cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("model", "method", "status", "reason"))
    for c in chain(*parts):
        writer.writerow((c.model, c.method, "works" if c.works else "refused", c.reason or ""))
    return buffer.getvalue()


def recorded() -> dict[str, tuple[Cell, ...]]:
    """Return the cells that reports/support.csv holds, by model."""
    found: dict[str, tuple[Cell, ...]] = {}
    for line in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()):
        cell = Cell(line["model"], line["method"], line["reason"] or None)
        found[cell.model] = (*found.get(cell.model, ()), cell)
    return found


def write() -> None:
    """Compute the matrix and write both files."""
    cells = [matrix(entries) for entries in (CATALOGUE, TEXTS, STREAMS)]
    FOLDER.mkdir(exist_ok=True)
    PAGE.write_text(page(*cells), encoding="utf-8")
    TABLE.write_text(table(*cells), encoding="utf-8")


def _tokens(entry: Entry) -> str:
    return f"{entry.prefix} + {entry.grid[0]}×{entry.grid[1]}"


def _reads(entry: Entry) -> str:
    if entry.reads is None:
        return "windows"
    return entry.reads if isinstance(entry.reads, str) else ", ".join(map(str, entry.reads))


def _streams(entry: StreamEntry) -> str:
    if entry.meet == "refused":
        return "–"
    return ", ".join((*entry.streams, *(f"({name})" for name in entry.adds)))
