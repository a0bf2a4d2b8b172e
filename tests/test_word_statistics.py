"""Word statistics: Wu & Ong's means and correlations, rank tables, the random model."""

import json

import numpy as np
import pytest
import torch
from golden_berts import FOLDER, golden_bert
from pandas import DataFrame
from scipy.stats import pearsonr
from small_berts import small_bert
from text_samples import REVIEWS

from xai_lib.api import explain
from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators import Subject, TextBatch, create, parse_methods
from xai_lib.evaluators import word_statistics as statistics
from xai_lib.statistics.correlation import pearson

GOLDEN = json.loads((FOLDER / "wuong_experiments.json").read_text())["correlation"]
METHODS = {
    "gs": ("gradient_sensitivity", {}),
    "gi": ("gradient_x_input", {"reduce": "l2sq"}),
    "lrp": ("lrp_alpha_beta", {"compat": "reference"}),
    "lat": ("lat", {}),
}


@pytest.mark.parametrize("method", GOLDEN["methods"])
def test_correlations_are_the_published_ones(method):
    golden = GOLDEN["methods"][method]
    order = golden["pearson_order"]
    words = sorted(set.intersection(*(set(golden["word_means"][name]) for name in order)))
    assert words == sorted(golden["common_vocab"])
    table = DataFrame({n: [golden["word_means"][n][w] for w in words] for n in order}, index=words)
    found = statistics.correlations(table, resamples=50)
    for _, row in found.iterrows():
        expected = golden["pearson"][order.index(row["run_a"])][order.index(row["run_b"])]
        # The golden means are rounded to 12 digits.
        assert row["r"] == pytest.approx(expected, abs=1e-10)
        assert row["low"] <= row["r"] <= row["high"] and row["n"] == len(words)


@pytest.mark.parametrize("method", GOLDEN["methods"])
@pytest.mark.parametrize("name", ["m0_A", "m0_B"])
def test_word_means_are_the_published_ones(name, method):
    """From the golden model's weights to the means of each word; models of seed 1 have none."""
    world, golden = GOLDEN["inputs"][name], GOLDEN["methods"][method]
    model, (explainer, options) = golden_bert(world["model"]), METHODS[method]
    sentences = []
    for batch in world["batches"]:
        for ids, length in zip(batch["input_ids"], batch["seq_lens"], strict=True):
            # Ten tokens of their own, without [CLS] and [SEP].
            if length - 2 < GOLDEN["min_length"]:
                continue
            inputs = {"input_ids": torch.tensor([ids[:length]])}
            last = model.config.num_labels - 1
            scores = explain(model, inputs, explainer, target=last, **options).relevance[0]
            words = [GOLDEN["vocab"][i] for i in ids[1 : length - 1]]
            sentences.append((words, scores[1:-1].tolist()))
    words, scores = sentences[0]
    first = [[w, pytest.approx(s, abs=1e-6)] for w, s in golden["first_sentence"][name]]
    assert [[w, float(s)] for w, s in zip(words, statistics.relative(scores), strict=True)] == first
    means = statistics.mean_scores(sentences, GOLDEN["min_freq"])
    expected = golden["word_means"][name]
    assert {w: mean for w, (mean, _) in means.items()} == pytest.approx(expected, abs=1e-6)
    assert list(means) == list(expected)


def records_of(*sentences, method="a", weights="trained", tokens=12):
    return DataFrame(
        {
            "method": method, "weights": weights, "words": list(words), "scores": list(scores),
            "tokens": tokens, "error": None,
        }
        for words, scores in sentences
    )  # fmt: skip


def test_means_choose_sentences_and_words():
    long = records_of((("good", "film"), (-2.0, 1.0)), (("good", "plot"), (1.0, 4.0)))
    short = records_of((("good", "bad"), (1.0, 1.0)), tokens=9)
    failed = records_of((("good", "bad"), (1.0, 1.0))).assign(error="no")
    import pandas as pd

    records = pd.concat([long, short, failed], ignore_index=True)
    means = statistics.word_means(records, "a", min_count=1)
    assert means == {"good": (pytest.approx(0.625), 2)}
    means = statistics.word_means(records, "a", min_count=0)
    assert list(means) == ["plot", "good", "film"]
    assert statistics.word_means(records, "a", min_count=0, min_length=9)["bad"] == (1.0, 1)
    table = statistics.rank_table(records, top=2, min_count=0)
    assert table["a"].tolist() == ["plot", "good"] and table["rank"].tolist() == [1, 2]
    with pytest.raises(InputError, match="only a"):
        statistics.word_means(records, "b")
    assert statistics.relative([0.0, 0.0]).tolist() == [0.0, 0.0]


def test_pearson_equals_scipy_and_its_interval_covers_it():
    rng = np.random.default_rng(0)
    a = 1e3 + rng.normal(size=40)
    b = a + rng.normal(size=40)
    r, low, high = pearson(a, b)
    assert r == pytest.approx(pearsonr(a, b).statistic, abs=1e-12)
    assert low < r < high < 1
    assert np.isnan(pearson(a[:2], b[:2])).all()
    assert np.isnan(pearson(np.ones(5), np.arange(5.0))[0])


def test_runs_correlate_over_the_words_they_share():
    words = ("good", "bad", "plot", "film")
    a = records_of((words, (1.0, 2.0, 3.0, 4.0)))
    b = records_of((("film", *words[:3]), (8.0, 2.0, 4.0, 6.0)), (("other",), (1.0,)))
    found = statistics.correlation(a, b, min_count=0)
    assert found["r"].tolist() == [pytest.approx(1)] and found["n"].tolist() == [4]
    table = statistics.pair_table({"A": a, "B": b}, "a", min_count=0)
    assert table.index.tolist() == sorted(words) and list(table.columns) == ["A", "B"]


def rows_of(methods="gradient_x_input,rollout", **options):
    model, processor = small_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = tuple(range(len(REVIEWS)))
    batch = TextBatch(
        places, tuple(map(str, places)), tuple((text,) for text, _, _ in REVIEWS)
    )  # fmt: skip
    evaluator = create("word_scores", **options)
    rows = list(evaluator.rows(Subject(model, processor), batch, parse_methods(methods)))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return rows


def test_rows_hold_words_and_tokens_with_their_scores():
    model, processor = small_bert()
    row = rows_of()[0]
    att = explain(model, processor(REVIEWS[0][0]), "gradient_x_input")
    assert row["words"] == REVIEWS[0][0].split() and row["units"] == len(row["words"])
    assert row["scores"] == pytest.approx(att.words()[0].scores.tolist(), abs=1e-9)
    assert row["tokens"] == att.relevance.shape[1] - 2
    row = rows_of(unit="token")[0]
    assert len(row["words"]) == row["tokens"]
    assert row["scores"] == pytest.approx(att.relevance[0, 1:-1].tolist(), abs=1e-9)
    for options in ({"unit": "letter"}, {"reduce": "min"}, {"explain": "gold"}):
        with pytest.raises(OptionError):
            create("word_scores", **options)


def test_a_random_model_is_explained_for_the_same_class():
    rows = rows_of(randomise=True)
    records = DataFrame(rows)
    assert records.groupby("weights").size().to_dict() == {"randomised": 12, "trained": 12}
    found = statistics.correlation(
        records, weights=("trained", "randomised"), min_count=1, min_length=3
    )
    assert found["method"].tolist() == ["gradient_x_input", "rollout"]
    assert (found["r"].abs() < 0.999).all() and (found["n"] > 5).all()
    both = records.set_index(["index", "method", "weights"])["explained"].unstack()
    assert (both["trained"] == both["randomised"]).all()
    assert DataFrame(rows_of(randomise=True, seed=1))["scores"].tolist() != [
        row["scores"] for row in rows
    ]
