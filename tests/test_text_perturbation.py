"""Text perturbation: the published loop, and the evaluator's own schedule."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden_berts import FOLDER, golden_bert
from small_berts import small_bert
from text_samples import REVIEWS

from xai_lib.errors import OptionError
from xai_lib.evaluators import Subject, TextBatch, create, parse_methods
from xai_lib.evaluators.measures import area
from xai_lib.evaluators.packing import RowEdits, packed
from xai_lib.evaluators.text_perturbation import SCHEDULES, perturbed

GOLDEN = json.loads((FOLDER / "perturbation.json").read_text())
# Weights of the other models are not part of the golden files.
HERE = [run for run in GOLDEN["runs"] if run["model"].endswith("_seed0")]


def name_of(run):
    order = "negative" if run["neg"] else "positive"
    return f"{run['procedure']}-{run['model']}-{run['method']}-{order}"


def scores_of(run, entry):
    """Return the clamped scores; the golden file holds them negated for the negative order."""
    return torch.tensor(entry["score"], dtype=torch.float64) * (-1 if run["neg"] else 1)


def test_published_steps():
    assert SCHEDULES["movies"].steps == pytest.approx(GOLDEN["steps"]["movie"], abs=1e-9)
    assert SCHEDULES["20ng"].steps == pytest.approx(GOLDEN["steps"]["20ng"], abs=1e-9)


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=name_of)
def test_counts_and_first_tokens_are_the_published_ones(run):
    name = {"movie": "movies"}.get(run["procedure"], run["procedure"])
    steps = SCHEDULES[name].steps
    for entry in run["inputs"]:
        scores = scores_of(run, entry)
        counts = [int(len(scores) * step) for step in steps]
        assert counts == entry["num_token_perb"]
        gone = perturbed(scores, steps, run["neg"])
        assert gone.sum(1).tolist() == counts
        for lost, count, listed in zip(gone, counts, entry["topk"], strict=True):
            # Which of several equal scores goes first is all that may differ.
            assert torch.equal(scores[lost].sort().values, scores[listed].sort().values)
            assert len(listed) == count


@pytest.mark.parametrize("run", HERE, ids=name_of)
def test_accuracy_is_the_published_one(run):
    """Ids, masks, logits and accuracies, given the published scores and their choice of ties."""
    model = golden_bert(run["model"])
    hits = []
    for entry in run["inputs"]:
        ids, mask = (torch.tensor(entry[name]) for name in ("input_ids", "attention_mask"))
        lost = torch.zeros(len(ids), dtype=torch.bool)
        rows = []
        for listed in entry["topk"]:
            lost[listed] = True
            rows.append({
                "input_ids": ids.masked_fill(lost, 0), "attention_mask": mask.masked_fill(lost, 0),
            })  # fmt: skip
        masked = [int((row["attention_mask"] == 0).sum()) for row in rows]
        assert masked == entry["masked_total"]
        subject = Subject(model, small_bert()[1], batch_size=4)
        logits = packed(subject, [RowEdits(rows, range(len(rows)))])[0]
        np.testing.assert_allclose(logits, entry["logits"], rtol=0, atol=1e-10)
        hits.append((logits.argmax(1) == entry["label"]).tolist())
    assert hits == [[bool(c) for c in entry["correct"]] for entry in run["inputs"]]
    accuracy = [round(100 * value, 2) for value in np.mean(hits, 0)]
    assert accuracy == run["accuracy_percent"]


def test_what_is_gone_stays_gone_where_ties_change_with_the_count():
    scores = torch.zeros(40, dtype=torch.float64)
    steps = tuple(i / 10 for i in range(1, 10))
    plain, published = (perturbed(scores, steps, reference=flag) for flag in (False, True))
    assert plain.sum(1).tolist() == [int(40 * step) for step in steps]
    assert torch.equal(plain[0].nonzero().flatten(), torch.arange(4))
    assert (published.sum(1) >= plain.sum(1)).all()
    for before, after in pairwise(published):
        assert (after | ~before).all()


def test_area_is_the_trapezoid():
    assert area([1, 0.5, 0.5], [0, 0.5, 1]) == pytest.approx(0.625)
    assert area([1, 1], [0.52, 0.68]) == pytest.approx(0.16)


def batch_of(count=5):
    texts = tuple((text,) for text, _, _ in REVIEWS[:count])
    labels = torch.tensor([label for _, label, _ in REVIEWS[:count]])
    places = tuple(range(count))
    return TextBatch(places, tuple(map(str, places)), texts, labels)


def rows_of(batch, model=None, methods="gradient_x_input", size=3, **options):
    model, processor = model or small_bert()
    subject = Subject(model, processor, batch_size=size)
    rows = list(create("text_perturbation", **options).rows(subject, batch, parse_methods(methods)))
    return {(row["key"], row["method"], row["order"]): row for row in rows}


def test_rows_equal_a_plain_loop():
    model, processor = small_bert()
    batch = batch_of()
    rows = rows_of(batch, (model, processor))
    from xai_lib.api import explain

    for i, ((text,), label) in enumerate(zip(batch.texts, batch.labels.tolist(), strict=True)):
        inputs = processor(text)
        scores = explain(model, inputs, "gradient_x_input", target=label).relevance[0].clamp(min=0)
        n = len(scores) - 2
        for order in ("positive", "negative"):
            values = (scores if order == "positive" else -scores)[1:-1].tolist()
            places = sorted(range(n), key=lambda p: (-values[p], p))
            found = []
            for step in range(10):
                ids, mask = inputs["input_ids"].clone(), inputs["attention_mask"].clone()
                chosen = [p + 1 for p in places[: n * step // 10]]
                ids[0, chosen] = mask[0, chosen] = 0
                with torch.no_grad():
                    kinds = inputs["token_type_ids"]
                    logits = model(ids, attention_mask=mask, token_type_ids=kinds).logits[0]
                found.append(float(logits.softmax(-1)[label]))
            row = rows[str(i), "gradient_x_input", order]
            assert row["probabilities"] == pytest.approx(found)
            assert row["removed"] == [n * step // 10 for step in range(10)]
            steps = [step / 10 for step in range(10)]
            assert row["auc_probability"] == pytest.approx(np.trapezoid(found, steps))
            assert row["auc"] == pytest.approx(np.trapezoid(row["hits"], steps))


def test_a_batch_equals_its_samples_and_the_model_is_untouched():
    model, processor = small_bert()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = rows_of(batch_of(), (model, processor))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    for i in range(5):
        for key, row in rows_of(batch_of()[i : i + 1], (model, processor), size=1).items():
            assert row["probabilities"] == pytest.approx(together[key]["probabilities"], abs=1e-9)
            assert row["removed"] == together[key]["removed"]


def test_published_schedules_count_what_they_say():
    batch = batch_of(1)
    model = small_bert(max_length=40)
    tokens = len(model[1](REVIEWS[0][0])["input_ids"][0])
    movies = rows_of(batch, model, schedule="movies")["0", "gradient_x_input", "positive"]
    assert movies["removed"] == [int(tokens * s) for s in SCHEDULES["movies"].steps]
    news = rows_of(batch, model, schedule="20ng")["0", "gradient_x_input", "positive"]
    assert news["removed"] == [int(40 * s) for s in SCHEDULES["20ng"].steps]
    news = rows_of(batch, model, schedule="20ng", max_length=30)
    assert news["0", "gradient_x_input", "positive"]["removed"][-1] == 30


def test_long_and_empty_texts_are_error_rows():
    long = " ".join(["good"] * 50)
    batch = TextBatch((0, 1), ("long", "empty"), ((long,), ("  ",)), torch.tensor([0, 1]))
    rows = rows_of(batch, small_bert(max_length=32))
    assert "52 tokens" in rows["long", "gradient_x_input", "positive"]["error"]
    assert "empty" in rows["empty", "gradient_x_input", "negative"]["error"]
    cut = rows_of(batch, small_bert(max_length=32), max_length=32)
    assert cut["long", "gradient_x_input", "positive"]["error"] is None


@pytest.mark.parametrize(
    "options",
    [{"schedule": "books"}, {"steps": [0.5]}, {"steps": [0.2, 0.1]}, {"explain": "all"},
     {"compat": "x"}, {"max_length": 1}],
)  # fmt: skip
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError):
        create("text_perturbation", **options)


def test_padding_token_and_labels_are_needed():
    model, processor = small_bert()
    processor.tokenizer.pad_token = None
    with pytest.raises(OptionError, match="no padding token"):
        rows_of(batch_of(1), (model, processor))
    unlabelled = TextBatch((0,), ("a",), (("good",),))
    with pytest.raises(OptionError, match="labels"):
        rows_of(unlabelled)
