"""Prove that the evidence is the evidence, for every embedded image model, on its stored weights.

    python data_scripts/prove_evidence.py --n 2000

Accuracy must fall to chance when the object's pixels (the digit's strokes) are replaced by what
lies behind them, and stay when nothing else is kept. The numbers go to the cards under "evidence".
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from proofs.scenes import prove_digit_evidence, prove_scene_evidence
from training import predictor, read_card, write_card

from xai_lib.models import load

SCENE_MODELS, DIGIT_MODELS = ("vit-scenes", "deit-scenes"), ("vit-digits",)


def main(
    n: Annotated[int, typer.Option(help="scenes of each kind")] = 2000,
    seed: int = 1_000_002,
    threads: int = 2,
):
    """Measure necessity and sufficiency of the planted evidence and write them to the cards."""
    torch.set_num_threads(threads)
    for name in SCENE_MODELS + DIGIT_MODELS:
        model, card = load(name)[0], read_card(name)
        predict = predictor(model, card)
        if name in SCENE_MODELS:
            card["evidence"] = prove_scene_evidence(predict, n, seed)
        else:
            card["evidence"] = prove_digit_evidence(predict, seed)
        write_card(name, card)
        print(name, *(f"{key} {value:.4g}" for key, value in card["evidence"].items()), sep="  ")


if __name__ == "__main__":
    typer.run(main)
