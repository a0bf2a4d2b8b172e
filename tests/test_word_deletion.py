"""Word deletion: Wu & Ong's loop, the choice of sentences, and the random control."""

import json

import pytest
import torch
from golden_berts import FOLDER, golden_bert
from small_berts import small_bert
from text_samples import REVIEWS

from xai_lib.api import explain
from xai_lib.errors import OptionError
from xai_lib.evaluators import Subject, TextBatch, create, parse_methods
from xai_lib.evaluators.packing import packed
from xai_lib.evaluators.removal import blanked
from xai_lib.evaluators.word_deletion import deleted

GOLDEN = json.loads((FOLDER / "wuong_experiments.json").read_text())["word_deletion"]
CASES = [
    (experiment, name) for experiment in GOLDEN for name in experiment["results"]
]  # fmt: skip
METHODS = {
    "gs": ("gradient_sensitivity", {}),
    "gi": ("gradient_x_input", {"reduce": "l2sq"}),
    "lrp": ("lrp_alpha_beta", {}),
    "lat": ("lat", {}),
}


def case_name(case):
    return f"{case[0]['model']}-{case[1]}" if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_given_scores_delete_the_published_tokens(case):
    experiment, name = case
    for drop in experiment["results"][name]["drops_k1_k6"]:
        for scores, expected in zip(drop["scores"], drop["dropped_input_ids"], strict=True):
            length = len(scores)
            original = next(
                row[:length]
                for row, n in zip(experiment["input_ids"], experiment["seq_lens"], strict=True)
                if n == length and _fits(row[:length], expected)
            )
            special = torch.zeros(length, dtype=torch.bool)
            special[[0, -1]] = True
            ids, values = torch.tensor(original), torch.tensor(scores, dtype=torch.float64)
            gone = deleted(values, special, drop["k"], reference=True)[-1]
            assert ids.masked_fill(gone, 0).tolist() == expected[:length]


def _fits(row, expected):
    return all(new in (0, old) for old, new in zip(row, expected, strict=False))


def sentences(experiment, model, correct):
    """Return the inputs that the experiment chose: long enough, predicted right (or wrong)."""
    chosen = []
    lines = zip(experiment["input_ids"], experiment["seq_lens"], experiment["labels"], strict=True)
    for ids, length, label in lines:
        inputs = torch.tensor([ids[:length]])
        with torch.no_grad():
            right = int(model(inputs).logits.argmax()) == label
        if length >= experiment["min_len"] and right == correct:
            chosen.append((inputs, label))
    return chosen


@pytest.mark.parametrize(
    "case", [c for c in CASES if c[0]["model"].endswith("seed0")], ids=case_name
)
def test_accuracies_are_the_published_ones(case):
    """From the golden model's weights: scores of our methods, deletions and accuracy."""
    experiment, name = case
    short, _, correct = name.partition(",original_correct=")
    method, options = METHODS[short]
    if short == "lrp":
        options = {"compat": "reference"}
    model = golden_bert(experiment["model"])
    subject = Subject(model, small_bert()[1], batch_size=experiment["batch_size"])
    deletions = experiment["max_k"]
    hits = []
    for inputs, label in sentences(experiment, model, correct == "True"):
        given = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
        last = experiment["sensitivity_class"]
        scores = explain(model, given, method, target=last, **options).relevance[0]
        special = torch.zeros(inputs.shape[1], dtype=torch.bool)
        special[[0, -1]] = True
        row = {name: values[0] for name, values in given.items()}
        edits = blanked(row, deleted(scores, special, deletions, reference=True), 0, "")
        hits.append((packed(subject, [edits])[0].argmax(1) == label).double())
    expected = experiment["results"][name]["accuracy_by_k"]
    assert torch.stack(hits).mean(0).tolist() == pytest.approx(expected, abs=1e-9)


def test_deletions_by_hand():
    ids = torch.tensor([2, 10, 11, 12, 3])
    scores = torch.tensor([9.0, 0.5, 0.5, 0.7, 9.0])
    special = torch.tensor([True, False, False, False, True])
    found = ids.masked_fill(deleted(scores, special, 5), 0)
    assert found.tolist() == [
        [2, 10, 11, 0, 3], [2, 0, 11, 0, 3], [2, 0, 0, 0, 3], [2, 0, 0, 0, 3], [2, 0, 0, 0, 3],
    ]  # fmt: skip
    assert deleted(scores, special, 4, reference=True)[3].all()
    blanks = blanked({"input_ids": ids}, deleted(scores, special, 1), 4, "").rows
    assert blanks[0]["input_ids"].tolist() == [2, 10, 11, 4, 3]


def batch_of():
    texts = tuple((text,) for text, _, _ in REVIEWS)
    labels = torch.tensor([label for _, label, _ in REVIEWS])
    places = tuple(range(len(texts)))
    return TextBatch(places, tuple(map(str, places)), texts, labels)


def rows_of(batch=None, model=None, methods="gradient_x_input", **options):
    model, processor = model or small_bert()
    evaluator = create("word_deletion", **options)
    subject = Subject(model, processor, batch_size=4)
    return list(evaluator.rows(subject, batch or batch_of(), parse_methods(methods)))


def test_only_long_enough_and_rightly_predicted_sentences_count():
    model, processor = small_bert()
    with torch.no_grad():
        predicted = [int(model(**processor(t)).logits.argmax()) for t, _, _ in REVIEWS]
    right = {str(i) for i, (_, label, _) in enumerate(REVIEWS) if predicted[i] == label}
    short = {"5"}
    for sentences, expected in (
        ("correct", right - short),
        ("wrong", set("01234") - right),
        ("all", set("01234")),
    ):
        rows = rows_of(model=(model, processor), sentences=sentences)
        assert {row["key"] for row in rows if row["error"] is None} == expected
        assert len(rows) == len(REVIEWS)
    reasons = {row["key"]: row["error"] for row in rows_of(model=(model, processor))}
    assert "min_length" in reasons["5"]
    rows = rows_of(model=(model, processor), sentences="all", min_length=1)
    assert all(row["error"] is None for row in rows)


@pytest.mark.parametrize(
    ("sentences", "explain", "better"),
    [
        ("correct", "predicted", "low"),
        ("correct", "last", "low"),
        ("wrong", "label", "low"),
        ("wrong", "predicted", "high"),
        ("wrong", "last", None),
        ("all", "predicted", None),
    ],
)
def test_accuracy_should_fall_only_where_the_label_is_explained(sentences, explain, better):
    evaluator = create("word_deletion", sentences=sentences, explain=explain)
    assert {metric.better for metric in evaluator.metrics} == {better}


def test_rows_equal_a_plain_loop_with_the_mask_unchanged():
    model, processor = small_bert()
    rows = rows_of(model=(model, processor), sentences="all", deletions=3)
    for row in rows[:5]:
        text, label, _ = REVIEWS[row["index"]]
        inputs = processor(text)
        scores = explain(model, inputs, "gradient_x_input").relevance[0]
        order = sorted(range(1, len(scores) - 1), key=lambda p: (-float(scores[p]), p))
        found = []
        for k in (1, 2, 3):
            ids = inputs["input_ids"].clone()
            ids[0, order[:k]] = 0
            with torch.no_grad():
                logits = model(ids, attention_mask=inputs["attention_mask"]).logits
            found.append(float(logits.softmax(-1)[0, label]))
        assert row["probabilities"] == pytest.approx(found)
        assert row["probability_mean"] == pytest.approx(sum(found) / 3)
        assert row["accuracy_mean"] == pytest.approx(sum(row["hits"]) / 3)


def test_random_is_a_control_that_repeats_itself():
    methods = "random,random:seed=1"
    first, again = (rows_of(methods=methods, sentences="all") for _ in range(2))
    assert first == again
    by_method = {}
    for row in first:
        by_method.setdefault(row["method"], []).append(row["probabilities"])
    assert by_method["random"] != by_method["random:seed=1"]


def test_mask_token_last_class_and_wrong_options():
    padded, masked = (rows_of(sentences="all", fill=fill) for fill in ("pad", "mask"))
    assert padded[0]["probabilities"] != masked[0]["probabilities"]
    model = small_bert()
    seen = []
    subject = Subject(*model, keep=lambda label, index, scores: seen.append(scores))
    evaluator = create("word_deletion", explain="last", sentences="all")
    list(evaluator.rows(subject, batch_of(), parse_methods("gradient_x_input")))
    expected = explain(model[0], model[1](REVIEWS[0][0]), "gradient_x_input", target=1)
    assert seen[0].tolist() == pytest.approx(expected.relevance[0].tolist(), abs=1e-9)
    for options in (
        {"deletions": 0}, {"min_length": 0}, {"sentences": "some"}, {"fill": "unk"},
        {"explain": "first"}, {"compat": "x"},
    ):  # fmt: skip
        with pytest.raises(OptionError):
            create("word_deletion", **options)
