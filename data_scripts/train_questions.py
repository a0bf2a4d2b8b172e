"""Train `lxmert-questions` and `visualbert-questions` from nothing on generated questions.

    python data_scripts/train_questions.py

A real `LxmertForQuestionAnswering` and a real `VisualBertForQuestionAnswering` on one tokenizer.
Beside whole samples they see ones that lost regions or words: what is left of the objects decides
the answer, and where nothing does any more, all answers that the question allows are to be equally
likely; the first third of the steps does without these. Every region also learns where it lies and
whether the question names it, and a layer before the answer is read whether it decides, through
linear heads that are dropped afterwards. The best check on validation questions is stored; those
that the card measures on are of another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import storing
import torch
import torch.nn.functional as F
import typer
from proofs.questions import (
    measure_questions,
    on_background,
    prove_question_evidence,
    without_words,
)
from torch import Tensor, nn
from training import LOGS, WEIGHTS, Stage, fit
from transformers import (
    BertTokenizerFast,
    LxmertConfig,
    LxmertForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from xai_lib.datasets.worlds.attributes import COLOURS, PLACES, SHAPES, SIZES
from xai_lib.datasets.worlds.question_scenes import DISTRACTORS, FEATURES, OBJECTS
from xai_lib.datasets.worlds.question_wording import ANSWERS, COUNTS, PLURALS
from xai_lib.datasets.worlds.questions import GeneratedQuestion, GeneratedQuestions
from xai_lib.models.loaders.questions import question_processor
from xai_lib.models.processors.question import BOX, QuestionProcessor

BATCH, HELD, LENGTH = 64, 800, 32
TOKENIZER = "questions.tokenizer.json"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FUNCTION_WORDS = tuple(
    word
    for line in (
        "what is the where how many are there a an objects object just left right above below of",
        "colour shape size in it which any does do has have and or not to on at with picture image",
    )
    for word in line.split()
)
# Half of a batch is drawn anew, the other half again from the last ones: generating costs time.
FRESH, RECENT = BATCH // 2, 64 * BATCH
STEPS = {"lxmert-questions": 3400, "visualbert-questions": 4500}
RATE, FINAL = 1e-3, 1e-5
SHARED = {
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}
KWARGS = {
    "lxmert-questions": SHARED
    | {
        "hidden_size": 96,
        "intermediate_size": 192,
        "l_layers": 2,
        "r_layers": 1,
        "x_layers": 4,
        "visual_feat_dim": FEATURES,
        "num_qa_labels": len(ANSWERS),
    },
    "visualbert-questions": SHARED
    | {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 5,
        "visual_embedding_dim": FEATURES + BOX,
    },
}
CLASSES = {
    "lxmert-questions": (LxmertConfig, LxmertForQuestionAnswering),
    "visualbert-questions": (VisualBertConfig, VisualBertForQuestionAnswering),
}


def make_tokenizer() -> BertTokenizerFast:
    """Return a lower-case WordPiece tokenizer: the questions' words, and every ASCII character.

    Characters stand for the words that are not listed, so that hardly one becomes [UNK].
    """
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = [*FUNCTION_WORDS, *COLOURS, *SHAPES, *PLURALS.values(), *SIZES]
    pieces = [*SPECIALS, *words, *characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizerFast(vocab=vocabulary, model_max_length=LENGTH)


def build(name: str, tokenizer: BertTokenizerFast) -> tuple[nn.Module, QuestionProcessor]:
    """Return a model with random weights, and its processor."""
    config, kind = CLASSES[name]
    names = dict(enumerate(ANSWERS))
    model = kind(config(**KWARGS[name], vocab_size=len(tokenizer), id2label=names))
    show_boxes(model)
    return model, question_processor(tokenizer, model, name)


@torch.no_grad()
def show_boxes(model: nn.Module) -> None:
    """Draw the weights of boxes so large that places count as much as features from the start.

    As transformers draws them, the four numbers of a box vanish beside the 64 features (VisualBERT)
    or all boxes on one diagonal are alike after the layer norm (LXMERT): places were not learnt.
    """
    if isinstance(model, LxmertForQuestionAnswering):
        boxes = model.lxmert.encoder.visn_fc.box_fc
        boxes.weight.normal_(std=2.0)
        boxes.bias.normal_(std=1.0)
    else:
        model.visual_bert.embeddings.visual_projection.weight[:, -BOX:].normal_(std=0.5)


def logits_of(output) -> Tensor:
    """Return the scores of the answers, which LXMERT calls by another name."""
    scores = getattr(output, "question_answering_score", None)
    return output.logits if scores is None else scores


def predictor(model: nn.Module, processor: QuestionProcessor):
    """Return a function from samples to the model's logits."""
    return lambda samples: logits_of(model(**processor.of(samples))).float()


def shown(
    sample: GeneratedQuestion, rng: np.random.Generator, decided: bool = False
) -> tuple[GeneratedQuestion, tuple[str, ...]]:
    """Return what to learn from, and the answers that shall be equally likely.

    A half is whole. A quarter loses some or all regions that do not decide, to the background or
    altogether. A tenth loses regions that do, another one the words that do; the rest words that
    do not. decided: only such as keep all that decides, in words and regions.
    """
    answer = ANSWERS[sample.label]
    what, mask = (
        rng.random() * (0.75 if decided else 1),
        ("[MASK]", "[MASK]", "[UNK]", "")[rng.integers(4)],
    )
    if what < 0.5:
        return sample, (answer,)
    part = (0.3, 0.6, 1.0)[rng.integers(3)]
    lost = torch.from_numpy(rng.random(len(sample.regions)) < part)
    if what < 0.75:
        lost = lost & ~sample.regions
        return _lose(sample, lost, rng), (answer,)
    if what < 0.85:
        lost = lost & sample.regions
        answers = (answer,)
        if lost.any():
            left = int(sample.regions.sum() - lost.sum())
            answers = {"count": (COUNTS[left],), "existence": ("no",)}.get(
                sample.kind, sample.domain
            )
        rest = {"regions": sample.regions & ~lost, "roles": sample.roles * ~lost}
        return _lose(replace(sample, **rest), lost, rng), answers
    if what < 0.95:
        changed = without_words(sample, mask)
        none = torch.zeros_like(sample.regions)
        return replace(changed, regions=none, roles=none.long()), sample.domain
    return _fewer_words(sample, mask, rng), (answer,)


def _lose(sample: GeneratedQuestion, lost: Tensor, rng: np.random.Generator) -> GeneratedQuestion:
    """Put the lost regions on the background, or half of the time leave them out if any is left."""
    if rng.random() < 0.5 or lost.all():
        return on_background(sample, lost, rng)
    kept = ~lost
    names = ("features", "boxes", "regions", "roles")
    return replace(sample, **{name: getattr(sample, name)[kept] for name in names})


def _fewer_words(
    sample: GeneratedQuestion, mask: str, rng: np.random.Generator
) -> GeneratedQuestion:
    pieces, end = [], 0
    for start, stop in (*sample.rationale, (len(sample.question),) * 2):
        gap = sample.question[end:start].split(" ")
        pieces.append(" ".join(mask if w and rng.random() < 0.3 else w for w in gap))
        pieces.append(sample.question[start:stop])
        end = stop
    return replace(sample, question=" ".join("".join(pieces).split()))


def wanted(answers: Sequence[tuple[str, ...]]) -> Tensor:
    """Return the distribution over all answers that makes each of these equally likely."""
    target = torch.zeros(len(answers), len(ANSWERS))
    for row, names in zip(target, answers, strict=True):
        row[[ANSWERS.index(name) for name in names]] = 1 / len(names)
    return target


def cells(samples: Sequence[GeneratedQuestion]) -> Tensor:
    """Return the number of the cell of the grid for every region of all samples."""
    boxes = torch.cat([sample.boxes for sample in samples])
    column, row = ((boxes[:, :2] + boxes[:, 2:]) * 1.5).long().clamp(0, 2).unbind(1)
    return column + 3 * row


def region_states(output, regions: int) -> tuple[Tensor, Tensor]:
    """Return hidden states of the regions: in the middle, and the last that have a say.

    The answer is read by the last layer, from the states before it.
    """
    states = getattr(output, "vision_hidden_states", None)
    if states is None:
        states = [state[:, -regions:] for state in output.hidden_states]
    return states[-3], states[-2]


def train(
    name: str,
    tokenizer: BertTokenizerFast,
    seed: int,
    steps: int,
    precision: torch.dtype = torch.bfloat16,
    every: int = 200,
):
    """Train one model; return it as it was at its best check, its processor, and the log."""
    torch.manual_seed(seed)
    data = GeneratedQuestions(steps * FRESH + BATCH, (seed, 10), images=False)
    recent = [data[steps * FRESH + i] for i in range(BATCH)]
    held = GeneratedQuestions(HELD, (seed, 11), images=False)
    held = [held[i] for i in range(HELD)]
    model, processor = build(name, tokenizer)
    width = KWARGS[name]["hidden_size"]
    names, places, decides = (nn.Linear(width, count) for count in (2, len(PLACES), 4))
    predict, best = predictor(model, processor), storing.Best()

    def losses(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 12, step))
        fresh = [data[step * FRESH + i] for i in range(FRESH)]
        again = [recent[i] for i in rng.integers(len(recent), size=BATCH - FRESH)]
        recent[:] = (recent + fresh)[-RECENT:]
        pairs = [shown(sample, rng, 3 * step < steps) for sample in fresh + again]
        samples, answers = zip(*pairs, strict=True)
        inputs = processor.of(samples)
        output = model(**inputs, output_hidden_states=True)
        mask = inputs["visual_attention_mask"].bool()
        middle, last = region_states(output, mask.size(1))

        roles = torch.cat([sample.roles for sample in samples])
        return {
            "answer": F.cross_entropy(logits_of(output), wanted(answers)),
            "named": F.cross_entropy(names(middle[mask]), ((roles == 1) | (roles == 2)).long()),
            "place": F.cross_entropy(places(middle[mask]), cells(samples)),
            "decides": F.cross_entropy(decides(last[mask]), roles),
        }

    @torch.no_grad()
    def check() -> dict[str, float]:
        parts = [held[i : i + 200] for i in range(0, HELD, 200)]
        found = torch.cat([predict(part).argmax(1) for part in parts])
        right = found == torch.tensor([sample.label for sample in held])
        row = {"held_out": right.double().mean().item()}
        for kind in ("attribute", "count", "existence", "relation"):
            here = torch.tensor([sample.kind == kind for sample in held])
            row[kind] = right[here].double().mean().item()
        best.keep(row["held_out"], model)
        return row

    most = OBJECTS + max(DISTRACTORS)
    stage = Stage(steps=steps, size=most, zoom=1.0, rate=RATE, final=FINAL)
    log = fit([model, names, places, decides], stage, losses, check, every, precision)
    model.load_state_dict(best.state)
    return model.eval(), processor, log


def main(
    model: storing.Model = "all",
    out: storing.Out = WEIGHTS,
    logs: storing.Logs = LOGS,
    seed: int = 0,
    scale: storing.Scale = 1.0,
    precision: storing.Precision = "bfloat16",
    threads: int = 1,
    n: Annotated[int, typer.Option(help="questions to measure on")] = 4000,
):
    """Train the models and store weights (float16), cards and logs, and their tokenizer."""
    names, dtype = storing.names_of(CLASSES, model), storing.on_threads(threads, precision)
    tokenizer = make_tokenizer()

    def trained(name: str) -> storing.Trained:
        steps = max(2, round(STEPS[name] * scale))
        network, processor, log = train(name, tokenizer, seed, steps, dtype)
        inside = "" if name.startswith("lxmert") else ", at the end of each feature vector"
        card = {
            "class": f"transformers.{CLASSES[name][1].__name__}",
            "kwargs": KWARGS[name] | {"vocab_size": len(tokenizer)},
            "class_names": list(ANSWERS),
            "input": {
                "kind": "question",
                "max_length": LENGTH,
                "features": FEATURES,
                "boxes": f"x0, y0, x1, y1 in parts of the image{inside}",
            },
        }
        return storing.Trained(network, log, card, predictor(network, processor))

    measures = measure_questions, prove_question_evidence
    command = "train_questions.py", seed, threads
    plain = TOKENIZER, tokenizer
    storing.train_language(names, plain, trained, measures, command, n, (out, logs))


if __name__ == "__main__":
    typer.run(main)
