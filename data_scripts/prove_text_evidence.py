"""Prove that the rationale is the evidence, for every embedded text model, on its stored weights.

    python data_scripts/prove_text_evidence.py --n 2000

Accuracy must fall to chance when the rationale's words are deleted or masked, and stay when nothing
else is kept. The numbers go to the cards under "evidence".
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from proofs.texts import prove_text_evidence
from train_texts import WORLDS, predictor
from training import read_card, write_card

from xai_lib.models import load


def main(
    model: Annotated[str, typer.Option(help="one of the models, or all")] = "all",
    n: Annotated[int, typer.Option(help="texts of each kind")] = 2000,
    seed: int = 1_000_002,
    threads: int = 2,
):
    """Measure necessity and sufficiency of the planted rationales and write them to the cards."""
    torch.set_num_threads(threads)
    for name in [m for m in WORLDS if model in ("all", m)]:
        network, processor = load(name)
        card, predict = read_card(name), predictor(network, processor.tokenizer)
        card["evidence"] = prove_text_evidence(predict, WORLDS[name], n, seed)
        write_card(name, card)
        print(name, *(f"{key} {value:.4g}" for key, value in card["evidence"].items()), sep="  ")


if __name__ == "__main__":
    typer.run(main)
