"""Prove that objects and words are the evidence for `clip-scenes`, on its stored weights.

    python data_scripts/prove_clip_evidence.py --n 2000

Zero-shot accuracy must fall to chance when the object's pixels are replaced by what lies behind
them, and the retrieval of a caption when the words of its attributes are masked; both must stay
when nothing else is kept. The numbers go to the card under "evidence".
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from proofs.captions import prove_clip_evidence
from training import read_card, write_card

from xai_lib.models import load

NAME = "clip-scenes"


def main(
    n: Annotated[int, typer.Option(help="scenes of each kind")] = 2000,
    seed: int = 1_000_002,
    threads: int = 2,
):
    """Measure necessity and sufficiency of objects and words and write them to the card."""
    torch.set_num_threads(threads)
    card = read_card(NAME)
    card["evidence"] = prove_clip_evidence(*load(NAME), n, seed)
    write_card(NAME, card)
    print(NAME, *(f"{key} {value:.4g}" for key, value in card["evidence"].items()), sep="  ")


if __name__ == "__main__":
    typer.run(main)
