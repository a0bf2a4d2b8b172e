"""Measurements that show which regions and words decide for a model that answers questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xai_lib.datasets.worlds.question_scenes import background_features
from xai_lib.datasets.worlds.question_wording import KINDS, Asking
from xai_lib.datasets.worlds.questions import GeneratedQuestion, GeneratedQuestions

# From samples to logits (samples, answers).
Predict = Callable[[Sequence[GeneratedQuestion]], Tensor]


def on_background(
    sample: GeneratedQuestion, regions: Tensor, rng: np.random.Generator
) -> GeneratedQuestion:
    """Return the sample with the features of these regions as on the background; boxes stay."""
    features = sample.features.clone()
    features[regions] = background_features(int(regions.sum()), rng)
    return replace(sample, features=features, image=None)


def without_words(sample: GeneratedQuestion, mask: str = "[MASK]") -> GeneratedQuestion:
    """Return the sample with each word of the rationale replaced by `mask`, "" deletes it."""
    pieces, end = [], 0
    for start, stop in sample.rationale:
        words = sample.question[start:stop].split()
        pieces += [sample.question[end:start], " ".join(mask for _ in words)]
        end = stop
    text = "".join([*pieces, sample.question[end:]])
    return replace(sample, question=" ".join(text.split()), rationale=())


def measure_questions(predict: Predict, n: int, seed: int) -> dict[str, float]:
    """Return the accuracy on n fresh questions: of all, and of each kind on those of that kind."""
    samples = _drawn(n, (seed, 0))
    right = _right(predict, samples)
    found = {"held_out_accuracy": right.mean().item()}
    for kind in KINDS:
        found[kind] = right[[sample.kind == kind for sample in samples]].mean().item()
    return found | {"n": n, "seed": seed}


def prove_question_evidence(
    predict: Predict, n: int, seed: int, mask: str = "[MASK]"
) -> dict[str, float]:
    """Measure that the deciding regions and words decide: accuracy without them, with only them.

    On n questions: `intact`; `regions_lost`, the deciding regions on the background (necessity);
    `only_regions`, all others on the background, and `only_regions_kept`, all others left out
    (sufficiency); `words_masked`, the words of the rationale masked (necessity); each also by kind.
    Questions that no region decides ("no", "0") count in all but `regions_lost`; where no region
    would be left, one of the background stays. What to compare with: `blind_question`, the most
    frequent answer of the question, and `blind_regions`, that of the scene (`blind_accuracy`).
    Objects that are counted or looked for leave "0" or "no" behind, which is never the answer: the
    accuracy of these kinds falls below the blind one, to 0.
    """
    rng = np.random.default_rng((seed, 1))
    samples = _drawn(n, (seed, 2))
    variants = {
        "intact": samples,
        "regions_lost": [on_background(s, s.regions, rng) for s in samples],
        "only_regions": [on_background(s, ~s.regions, rng) for s in samples],
        "only_regions_kept": [only_regions(s, rng) for s in samples],
        "words_masked": [without_words(s, mask) for s in samples],
    }
    found: dict[str, float] = {}
    for name, changed in variants.items():
        right = _right(predict, changed)
        counts = [bool(s.regions.any()) or name != "regions_lost" for s in samples]
        for kind in (None, *KINDS):
            here = [c and kind in (None, s.kind) for c, s in zip(counts, samples, strict=True)]
            found[name if kind is None else f"{name}_{kind}"] = right[here].mean().item()
    return found | blind_accuracy(n, seed) | {"n": n, "seed": seed}


def blind_accuracy(n: int, seed: int, asked: int = 40) -> dict[str, float]:
    """Return the accuracy of who knows the question but not the scene, and the other way round.

    `blind_question`: the most frequent answer of the same words among 10 n other questions, or
    of the same form where these words did not occur. `blind_regions`: who knows the objects and
    which answers are possible, but not what is asked: the most frequent of the answers to `asked`
    other questions of this kind and these possible answers on the same objects. Both also by kind.
    """
    words: dict[str, Counter] = defaultdict(Counter)
    forms: dict[object, Counter] = defaultdict(Counter)
    others = GeneratedQuestions(10 * n, (seed, 3), images=False)
    for i in range(len(others)):
        question = others.question(i)
        words[question.plain][question.answer] += 1
        forms[question.kind, question.domain][question.answer] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    fresh = GeneratedQuestions(n, (seed, 2), images=False)
    for i in range(n):
        question = fresh.question(i)
        known = words.get(question.plain) or forms[question.kind, question.domain]
        right["question", question.kind].append(_most(known) == question.answer)
        asking = Asking(fresh.scenes.objects(i), np.random.default_rng((seed, 4, i)))
        found = Counter()
        while found.total() < asked:
            other = asking.ask(question.kind)
            if other.domain == question.domain:
                found[other.answer] += 1
        right["regions", question.kind].append(_most(found) == question.answer)
    blind: dict[str, float] = {}
    for side in ("question", "regions"):
        rows = {kind: right[side, kind] for kind in KINDS}
        blind[f"blind_{side}"] = float(np.mean([hit for row in rows.values() for hit in row]))
        blind |= {f"blind_{side}_{kind}": float(np.mean(row)) for kind, row in rows.items()}
    return blind


def only_regions(sample: GeneratedQuestion, rng: np.random.Generator) -> GeneratedQuestion:
    """Return the sample without the regions that do not decide; one of the background stays."""
    kept = sample.regions.clone()
    if not kept.any():
        kept[0] = True
        sample = on_background(sample, kept, rng)
    names = ("features", "boxes", "regions", "roles")
    changes = {name: getattr(sample, name)[kept] for name in names}
    return replace(sample, **changes, image=None)


def _most(answers: Counter) -> str:
    # Of equally frequent ones the first in the alphabet, so that the order of counting is nothing.
    return min(answers, key=lambda answer: (-answers[answer], answer))


def _drawn(n: int, seed: tuple[int, ...]) -> list[GeneratedQuestion]:
    data = GeneratedQuestions(n, seed, images=False)
    return [data[i] for i in range(n)]


@torch.no_grad()
def _right(predict: Predict, samples: Sequence[GeneratedQuestion]) -> Tensor:
    parts = (samples[i : i + 200] for i in range(0, len(samples), 200))
    predicted = torch.cat([predict(part).argmax(1) for part in parts])
    return (predicted == torch.tensor([sample.label for sample in samples])).double()
