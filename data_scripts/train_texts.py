"""Train `bert-reviews`, `bert-reviews-5` and `bert-topics` from nothing on generated texts.

    python data_scripts/train_texts.py

Real `BertForSequenceClassification` models on one WordPiece tokenizer, which is trained first.
Beside whole texts they see texts with words masked or deleted: those that keep the rationale keep
their label, those without it are to give all classes the same probability. Every token also learns
whether it belongs to the rationale, through a linear head that is dropped afterwards. The best
check on validation texts is stored; the texts that the card measures on are of another seed.
`bert-reviews-5` starts with the stored encoder of `bert-reviews`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

import storing
import torch
import torch.nn.functional as F
import typer
from proofs.texts import (
    accuracy,
    measure_texts,
    only,
    prove_text_evidence,
    without,
)
from torch import Tensor, nn
from training import LOGS, WEIGHTS, Stage, fit, read_weights
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.worlds.generated_texts import text_world
from xai_lib.datasets.worlds.wording import Draw

BATCH, HELD, LENGTH, VOCABULARY = 48, 1000, 128, 1200
TOKENIZER = "bert-texts.tokenizer.json"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORLDS = {"bert-reviews": "reviews", "bert-reviews-5": "reviews-5", "bert-topics": "topics"}
STEPS = {"bert-reviews": 3000, "bert-reviews-5": 1200, "bert-topics": 1000}
# Degrees are learnt on top of signs: the encoder starts as another model's stored one.
STARTS = {"bert-reviews-5": "bert-reviews"}
RATE, FINAL = 1e-3, 1e-5
KWARGS = {
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_position_embeddings": LENGTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def train_tokenizer(seed: int, vocabulary: int = VOCABULARY, texts: int = 4000):
    """Train a lower-case WordPiece tokenizer on texts of every world; equal runs give equal ones.

    Every ASCII character is in the vocabulary, so that hardly a word that somebody types becomes
    [UNK].
    """
    characters = [chr(code) for code in range(33, 127)]
    corpus = [f"{c} {c}{c}" for c in characters]
    for world in ("reviews", "topics"):
        data = text_world(world, texts, (seed, "tokenizer"))
        corpus += [data[i].text for i in range(texts)]
    plain = BertTokenizerFast(vocab={piece: i for i, piece in enumerate(SPECIALS)})
    # The trainer numbers continuing characters in the order of a hash map and breaks ties by
    # number; named in advance, as if they were special, their order is ours.
    continuing = [f"##{c}" for c in characters if not c.isupper()]
    trained = plain.train_new_from_iterator(
        corpus, vocabulary, new_special_tokens=continuing, show_progress=False
    )
    return BertTokenizerFast(vocab=trained.get_vocab(), model_max_length=LENGTH)


# Twentieths of the texts: whole, the deciding sentences alone (people type short reviews), without
# the rationale, nothing but the rationale.
SHARES = {"reviews": (9, 3, 3, 2), "reviews-5": (9, 3, 3, 2), "topics": (11, 0, 4, 1)}


def shown(sample: TextSample, draw: Draw, world: str) -> tuple[str, TextSample | None, bool]:
    """Return a text to learn from, the sample if it is whole, and whether its rationale is there.

    By `SHARES`; the rest loses a random part of all but the rationale. What is lost is masked or
    deleted.
    """
    kind, mask = draw.pick(range(20)), draw.pick((None, "[MASK]", "[MASK]", "[UNK]"))
    whole, short, lacking, _ = ends = tuple(accumulate(SHARES[world]))
    if kind < whole:
        return sample.text, sample, True
    if kind < short:
        return deciding(sample), None, True
    if kind < lacking:
        return without(sample, mask), None, False
    if kind < ends[-1]:
        return only(sample, mask), None, True
    part, pieces, end = draw.pick((0.1, 0.3, 0.5, 0.7)), [], 0
    lost = mask or ""
    for start, stop in (*sample.rationale, (len(sample.text),) * 2):
        gap = sample.text[end:start].split(" ")
        pieces.append(" ".join(lost if word and draw.chance(part) else word for word in gap))
        pieces.append(sample.text[start:stop])
        end = stop
    return " ".join("".join(pieces).split()), None, True


def deciding(sample: TextSample) -> str:
    """Return the sentences that hold a part of the rationale."""
    sentences = [match.span() for match in re.finditer(r"[^.]+\.?", sample.text)]
    kept = [
        sample.text[a:b].strip()
        for a, b in sentences
        if any(a < stop and start < b for start, stop in sample.rationale)
    ]
    return " ".join(kept)


def token_targets(encoded, samples: Sequence[TextSample | None]) -> Tensor:
    """Return 1 + label for tokens of the rationale, 0 for others, -100 where it is not asked."""
    target = torch.full(encoded["input_ids"].shape, -100)
    for i, (sample, encoding) in enumerate(zip(samples, encoded.encodings, strict=True)):
        if sample is None:
            continue
        for j, (start, stop) in enumerate(encoding.offsets):
            if stop > start:
                inside = any(a <= start and stop <= b for a, b in sample.rationale)
                target[i, j] = (1 + sample.label) * inside
    return target


def predictor(model: nn.Module, tokenizer):
    """Return a function from texts to the model's logits."""

    def predict(texts: list[str]) -> Tensor:
        encoded = tokenizer(
            texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        return model(**encoded).logits.float()

    return predict


def train(
    name: str,
    tokenizer,
    seed: int,
    steps: int,
    precision: torch.dtype = torch.float32,
    every: int = 100,
    start: dict[str, Tensor] | None = None,
):
    """Train one model; return it as it was at its best check, with the log.

    start: the weights of another model, whose encoder it starts with.
    """
    torch.manual_seed(seed)
    world = WORLDS[name]
    data = text_world(world, steps * BATCH, (seed, "train"))
    held = text_world(world, HELD, (seed, "validation"))
    held = [held[i] for i in range(len(held))]
    classes = len(data.class_names)
    model = BertForSequenceClassification(config_of(tokenizer, data.class_names))
    if start is not None:
        encoder = {key.removeprefix("bert."): value for key, value in start.items()}
        model.bert.load_state_dict({k: v for k, v in encoder.items() if "classifier" not in k})
    tokens = nn.Linear(KWARGS["hidden_size"], 1 + classes)
    predict, best = predictor(model, tokenizer), storing.Best()

    def losses(step: int) -> dict[str, Tensor]:
        samples = [data[step * BATCH + i] for i in range(BATCH)]
        draws = [Draw("shown", seed, step, i) for i in range(BATCH)]
        texts, whole, present = zip(
            *(shown(*pair, world) for pair in zip(samples, draws, strict=True)), strict=True
        )
        encoded = tokenizer(
            list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        wanted = F.one_hot(torch.tensor([s.label for s in samples]), classes).float()
        wanted = torch.where(torch.tensor(present)[:, None], wanted, 1 / classes)
        output = model(**encoded, output_hidden_states=True)
        logits, target = tokens(output.hidden_states[-1]), token_targets(encoded, whole)
        return {
            "class": F.cross_entropy(output.logits, wanted),
            "tokens": F.cross_entropy(logits.flatten(0, 1), target.flatten()),
        }

    def check() -> dict[str, float]:
        texts, labels = [s.text for s in held], [s.label for s in held]
        right = accuracy(predict, texts, labels)
        bare = accuracy(predict, [only(s) for s in held[: HELD // 4]], labels[: HELD // 4])
        best.keep(right, model)
        return {"held_out": right, "only_rationale": bare}

    stage = Stage(steps=steps, size=LENGTH, zoom=1.0, rate=RATE, final=FINAL)
    log = fit([model, tokens], stage, losses, check, every, precision)
    model.load_state_dict(best.state)
    return model.eval(), log


def config_of(tokenizer, class_names: tuple[str, ...]) -> BertConfig:
    return BertConfig(
        **KWARGS,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(class_names)),
        label2id={name: i for i, name in enumerate(class_names)},
    )


def main(
    model: storing.Model = "all",
    out: storing.Out = WEIGHTS,
    logs: storing.Logs = LOGS,
    seed: int = 0,
    scale: storing.Scale = 1.0,
    precision: storing.Precision = "float32",
    threads: int = 1,
    n: Annotated[int, typer.Option(help="texts to measure on")] = 4000,
):
    """Train text models and store weights (float16), cards and logs, and their tokenizer."""
    names, dtype = storing.names_of(WORLDS, model), storing.on_threads(threads, precision)
    tokenizer = train_tokenizer(seed)

    def trained(name: str) -> storing.Trained:
        steps = max(2, round(STEPS[name] * scale))
        start = read_weights(STARTS[name], out) if name in STARTS else None
        network, log = train(name, tokenizer, seed, steps, dtype, start=start)
        classes = list(network.config.id2label.values())
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        card = {
            "class": "transformers.BertForSequenceClassification",
            "kwargs": KWARGS | sizes | {"num_labels": len(classes)},
            "class_names": classes,
            "input": {"kind": "text", "max_length": LENGTH},
        }
        predict = predictor(network, tokenizer)
        return storing.Trained(network, log, card, predict, (WORLDS[name],))

    measures = measure_texts, prove_text_evidence
    command = "train_texts.py", seed, threads
    plain = TOKENIZER, tokenizer
    storing.train_language(names, plain, trained, measures, command, n, (out, logs))


if __name__ == "__main__":
    typer.run(main)
