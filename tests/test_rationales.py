"""Rationales: ERASER's metrics and files against the published scorer, and the evaluator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    precision_recall_fscore_support,
)
from small_berts import small_bert
from text_samples import REVIEWS, Reviews
from tokenizers.processors import ByteLevel

from xai_lib.datasets.texts.eraser import Annotation, Evidence
from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators import Subject, TextBatch, create, parse_methods
from xai_lib.evaluators.eraser import metrics
from xai_lib.evaluators.eraser.results import read_results, write_results
from xai_lib.evaluators.eraser.scores import score_results
from xai_lib.evaluators.eraser.words import (
    evidence_spans,
    reference_selections,
    reference_word_scores,
)

GOLDENS = Path(__file__).parent / "goldens" / "bert"
METRICS = json.loads((GOLDENS / "eraser_metrics.json").read_text())
WORDS = json.loads((GOLDENS / "rationales.json").read_text())
# The published scorer sums over Python sets, so that its own runs differ in the last bits.
EXACT = 1e-12


def annotation(entry):
    groups = [
        tuple(Evidence(e["docid"], e["start_token"], e["end_token"], e["text"]) for e in group)
        for group in entry["evidences"]
    ]
    name = entry["annotation_id"]
    return Annotation(name, name, entry["classification"], tuple(groups))


def annotations(case):
    return [annotation(entry) for entry in case["annotations"]]


def documents(case):
    return {k: v.split() if isinstance(v, str) else v for k, v in case["docs"].items()}


def assert_same(found, expected, where=""):
    """Compare nested scores: the same keys, numbers to 1e-12."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert found == pytest.approx(expected, abs=EXACT), where


@pytest.mark.parametrize("name", METRICS["cases"])
def test_scores_are_those_of_the_published_scorer(name):
    case = METRICS["cases"][name]
    option, *values = case.get("args", ["--iou_thresholds", "0.5"])
    options = {option.removeprefix("--"): [float(value) for value in values]}
    found = score_results(case["results"], annotations(case), documents(case), **options)
    assert_same(found, case["scores"])


def test_functions_are_those_of_the_published_scorer():
    golden = METRICS["functions"]

    def keyed(spans):
        found = {}
        for s in spans:
            span = s["start_token"], s["end_token"]
            found.setdefault((s["ann_id"], s["docid"]), []).append(span)
        return found

    truth, predicted = keyed(golden["truth"]), keyed(golden["pred"])
    for entry in golden["partial_match_score"]:
        found = metrics.iou_scores(truth, predicted, entry["threshold"])
        for name in ("micro", "macro"):
            assert_same(vars(found[name]), entry[name])
    for function, name in (
        (metrics.span_scores, "score_hard_rationale_predictions"),
        (metrics.token_scores, "token_level"),
    ):
        for kind, prf in function(truth, predicted).items():
            assert_same(vars(prf), golden[name][f"instance_{kind}"])
    soft = golden["auprc"]
    found = metrics.soft_scores(*(dict(enumerate(soft[k])) for k in ("truth", "scores")))
    assert found["auprc"] == pytest.approx(soft["value"], abs=EXACT)


def test_soft_scores_are_those_by_hand_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(3, 30))
        truth, scores = rng.random(n) < 0.4, rng.integers(0, 6, n) / 5
        truth[0], truth[1] = True, False
        found = metrics.soft_scores({0: truth}, {0: scores})
        chosen = [scores >= value for value in sorted(set(scores), reverse=True)]
        p = np.array([1.0, *(truth[first].mean() for first in chosen)])
        r = np.array([0.0, *(truth[first].sum() / truth.sum() for first in chosen)])
        assert found["auprc"] == pytest.approx((np.diff(r) * (p[1:] + p[:-1]) / 2).sum(), abs=EXACT)
        assert found["average_precision"] == pytest.approx((np.diff(r) * p[1:]).sum(), abs=EXACT)
        apart = np.subtract.outer(scores[truth], scores[~truth])
        assert found["roc_auc_score"] == pytest.approx((np.sign(apart) / 2 + 0.5).mean())


def test_soft_scores_of_documents_that_are_evidence_throughout_or_nowhere():
    truth = {0: [True, True], 1: [False, False], 2: [True, False]}
    found = metrics.soft_scores(truth, {key: [0.2, 0.1] for key in truth})
    assert found == {"auprc": pytest.approx(2.5 / 3), "average_precision": 1, "roc_auc_score": 1}


def test_token_scores_equal_scikit_learn():
    rng = np.random.default_rng(1)
    truth, found = rng.random((20, 30)) < 0.3, rng.random((20, 30)) < 0.4
    spans = [
        {i: metrics.spans_of(np.flatnonzero(row).tolist()) for i, row in enumerate(side)}
        for side in (truth, found)
    ]
    scores = metrics.token_scores(*spans)
    each = np.array([
        precision_recall_fscore_support(t, f, average="binary", zero_division=0)[:3]
        for t, f in zip(truth, found, strict=True)
    ])  # fmt: skip
    assert [*vars(scores["macro"]).values()] == pytest.approx(each.mean(0))
    pooled = precision_recall_fscore_support(truth.ravel(), found.ravel(), average="binary")[:3]
    assert [*vars(scores["micro"]).values()] == pytest.approx(pooled)


def test_neighbours_share_a_span_and_soft_iou_counts_shares():
    assert metrics.spans_of([5, 1, 2, 2, 6]) == [(1, 3), (5, 7)]
    found = metrics.iou_scores({0: [(0, 4)]}, {0: [(2, 4), (9, 10)]}, None)["macro"]
    assert (found.p, found.r) == (0.25, 0.5)


@pytest.mark.parametrize("case", WORDS["word_scores"], ids=lambda case: case["name"])
def test_word_scores_and_first_words_are_the_published_ones(case):
    found = reference_word_scores(case["words"], case["wordpieces"], case["token_scores"])
    assert found == case["word_scores"]
    ks = [int(k) for k in case["topk"]]
    lists = reference_selections(found, ks)
    sets = [set(words) for words in lists]
    assert len(lists) == len(ks)
    for k, words in zip(ks, sets, strict=True):
        wanted = case["topk"][str(k)]
        # Behind the positive words all scores are 0, and their order is that of the library.
        if k <= case["n_positive"]:
            assert words == set(wanted)


def test_unknown_words_shift_the_published_scores():
    shifted, stopped = WORDS["unk_word_behaviour"]
    arguments = ("words", "wordpieces", "token_scores")
    assert reference_word_scores(*(shifted[name] for name in arguments)) == shifted["result"]
    with pytest.raises(InputError, match="Leave compat out"):
        reference_word_scores(*(stopped[name] for name in arguments))


@pytest.mark.parametrize("seed", WORDS["end_to_end"])
def test_pipeline_from_pieces_to_scores_is_the_published_one(seed):
    world = WORDS["end_to_end"][seed]
    docs, gold = documents(world), annotations(world)
    ks = range(1, 9)
    for method in world["methods"].values():
        lists = {}
        for name, pieces in world["wordpieces"].items():
            given = method["token_scores_clamped"][name]
            scores = [np.nan if score is None else score for score in given]
            words = reference_word_scores(docs[name], pieces, scores)
            expected = np.array(method["word_scores"][name], np.float64)
            np.testing.assert_array_equal(words, expected)
            lists[name] = reference_selections(words, ks)
        for k in ks:
            if k > min(method["n_positive_words"].values()):
                continue
            results = [
                {
                    "annotation_id": name,
                    "rationales": [{
                        "docid": name,
                        "hard_rationale_predictions": [
                            {"start_token": w, "end_token": w + 1} for w in lists[name][k - 1]
                        ],
                    }],
                }
                for name in docs
            ]  # fmt: skip
            if k == 3:
                assert results == method["results_jsonl_k3"]
            assert_same(score_results(results, gold, docs), method["metrics_by_k"][str(k)])


def test_results_survive_a_file_and_damaged_ones_are_named(tmp_path):
    case = METRICS["cases"]["full"]
    path = write_results(case["results"], tmp_path / "identifier_results_5.json")
    assert read_results(path) == case["results"]
    damages = {
        "no JSON": "{",
        "annotation_id": '{"rationales": []}',
        "rationales": '{"annotation_id": "a"}',
        "no span": json.dumps({
            "annotation_id": "a",
            "rationales": [{
                "docid": "a", "hard_rationale_predictions": [{"start_token": 3, "end_token": 3}],
            }],
        }),
        "finite": json.dumps({
            "annotation_id": "a",
            "rationales": [{"docid": "a", "soft_rationale_predictions": [1.0, None]}],
        }),
    }  # fmt: skip
    scores = {"classification_scores": {"NEG": 0.6, "POS": 0.4}, "classification": "NEG"}
    for message, change in {
        "expected one of NEG, POS": {"classification": "neg"},
        "finite score of each class": {"comprehensiveness_classification_scores": {"NEG": 1.0}},
        "with a threshold": {"thresholded_scores": [{}]},
    }.items():
        result = {"annotation_id": "a", "rationales": []} | scores | change
        damages[message] = json.dumps(result)
    for message, line in damages.items():
        path.write_text(f"{line}\n")
        with pytest.raises(InputError, match=message) as caught:
            read_results(path)
        assert "line 1" in str(caught.value)
    path.write_text('{"annotation_id": "a", "rationales": []}\n' * 2)
    with pytest.raises(InputError, match="repeats"):
        read_results(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")
    odd = [{"annotation_id": "a\u2028b\x85", "rationales": []}]
    assert read_results(write_results(odd, path)) == odd


def test_results_that_do_not_fit_the_documents_are_refused():
    case = METRICS["cases"]["full"]
    gold, docs = annotations(case), documents(case)
    first = docs["negR_000.txt"]
    with pytest.raises(InputError, match="does not have"):
        score_results(case["results"], gold, {})
    with pytest.raises(InputError, match="one score a word"):
        score_results(case["results"], gold, docs | {"negR_000.txt": [*first, ["more"]]})
    with pytest.raises(InputError, match="which has 3 words"):
        short = METRICS["cases"]["spans_missing_and_extra"]
        words = {name: ["one", "two", "three"] for name in docs}
        score_results(short["results"], annotations(short), words)
    with pytest.raises(InputError, match="two rationales"):
        twice = [r | {"rationales": r["rationales"] * 2} for r in case["results"]]
        score_results(twice, gold, docs)
    with pytest.raises(InputError, match="no scores at the threshold"):
        one, *rest = case["results"]
        fewer = one | {"thresholded_scores": one["thresholded_scores"][1:]}
        score_results([fewer, *rest], gold, docs)
    with pytest.raises(InputError, match=r"no scores at the threshold 0\.3"):
        score_results(case["results"], gold, docs, aopc_thresholds=[0.3])


def test_evidence_is_the_words_that_share_a_character():
    assert evidence_spans("a bad  film , sad", [(3, 8), (14, 17)]) == [(1, 3), (4, 5)]
    assert evidence_spans("a bad film", [(1, 2)]) == []


def batch_of(*texts, rationales, labels):
    keys = tuple(f"r{i}" for i in range(len(texts)))
    places = tuple(range(len(texts)))
    return TextBatch(places, keys, tuple((t,) for t in texts), torch.tensor(labels), rationales)


def rows_of(batch, methods="gradient_x_input", model=None, **options):
    model, processor = model or small_bert()
    evaluator = create("rationales", **options)
    rows = list(evaluator.rows(Subject(model, processor), batch, parse_methods(methods)))
    names = set(rows[0]) if rows else set()
    read = {column for metric in evaluator.metrics for column in metric.columns}
    assert rows[0]["error"] is not None or read <= names
    return rows


def test_rows_hold_what_the_ranking_gives():
    text, label, _ = REVIEWS[0]
    words = text.split()
    spans = tuple(s for s in Reviews()[0].rationale)
    row = rows_of(batch_of(text, rationales=(spans,), labels=[label]), ks=[1, 3, len(words) + 1])[0]
    assert row["error"] is None and len(row["word_scores"]) == len(words)
    order = sorted(range(len(words)), key=lambda i: (-row["word_scores"][i], i))
    assert row["ranking"] == order
    truth = {words.index("bad"), words.index("sad")}
    hits = len(truth & set(order[:3]))
    assert row["token_precision"][1:] == [hits / 3, None]
    assert row["token_recall"][1] == hits / 2 and row["token_f1_k3"] == row["token_f1"][1]
    known = [value for value in row["token_f1"] if value is not None]
    assert row["token_f1_mean"] == pytest.approx(sum(known) / 2)
    expected = metrics.auprc([i in truth for i in range(len(words))], row["word_scores"])
    assert row["auprc"] == expected


def test_faithfulness_takes_the_words_out_of_the_text():
    model, processor = small_bert()
    text, label, _ = REVIEWS[1]
    batch = batch_of(text, rationales=(Reviews()[1].rationale,), labels=[label])
    row = rows_of(batch, model=(model, processor), share=0.2, thresholds=[0.2, 0.5])[0]
    words = text.split()
    first = row["ranking"][: round(0.2 * len(words))]

    def probabilities(kept):
        with torch.no_grad():
            logits = model(**processor(" ".join(kept))).logits
        return logits.softmax(-1)[0]

    whole = probabilities(words)
    chosen = int(whole.argmax())
    without = probabilities([w for i, w in enumerate(words) if i not in first])
    only = probabilities([w for i, w in enumerate(words) if i in first])
    assert row["predicted"] == chosen
    assert row["comprehensiveness"] == pytest.approx(float(whole[chosen] - without[chosen]))
    assert row["sufficiency"] == pytest.approx(float(whole[chosen] - only[chosen]))
    half = round(0.5 * len(words))
    without = probabilities([w for i, w in enumerate(words) if i not in row["ranking"][:half]])
    drops = [row["comprehensiveness"], float(whole[chosen] - without[chosen])]
    assert row["aopc_comprehensiveness"] == pytest.approx(np.mean(drops))


def test_long_texts_are_errors_unless_max_length_cuts_them():
    model = small_bert(max_length=16)
    text = " ".join(["good"] * 30)
    batch = batch_of(text, rationales=(((0, 4), (140, 144)),), labels=[1])
    row = rows_of(batch, model=model)[0]
    assert "32 tokens" in row["error"] and "max_length=16" in row["error"]
    row = rows_of(batch, model=model, max_length=16)[0]
    assert row["error"] is None and row["whole"] is False
    assert len(row["ranking"]) == 14 and len(row["word_scores"]) == 30
    assert row["token_f1"][2:] == [None] * 14 and row["token_f1"][0] is not None


def test_one_bad_text_costs_only_itself():
    good = REVIEWS[0][0]
    spans = Reviews()[0].rationale
    batch = batch_of(good, " ", good, rationales=(spans, (), ()), labels=[0, 0, 0])
    fine, empty, without = rows_of(batch)
    assert fine["error"] is None
    assert "empty" in empty["error"] and "evidence" in without["error"]
    alone = rows_of(batch[:1])[0]
    assert fine["word_scores"] == pytest.approx(alone["word_scores"], abs=1e-9)


def test_unknown_words_keep_their_place_by_default_and_lose_it_as_published():
    text = "good \N{GRINNING FACE} film was great"
    batch = batch_of(text, rationales=(((0, 4),),), labels=[0])
    row = rows_of(batch, ks=[1])[0]
    assert row["error"] is None and len(row["ranking"]) == 5
    assert "lose their place" in rows_of(batch, ks=[1], compat="reference")[0]["error"]


def test_masking_needs_a_mask_token_and_gives_other_numbers():
    text, label, _ = REVIEWS[1]
    batch = batch_of(text, rationales=(Reviews()[1].rationale,), labels=[label])
    deleted, masked = (rows_of(batch, removal=way)[0] for way in ("delete", "mask"))
    assert deleted["comprehensiveness"] != masked["comprehensiveness"]
    model, processor = small_bert()
    processor.tokenizer.mask_token = None
    with pytest.raises(OptionError, match="no mask token"):
        rows_of(batch, model=(model, processor), removal="mask")


def test_a_text_of_which_nothing_is_left_is_an_error_row():
    """A tokenizer without special tokens leaves no token of a text of one word."""
    model, processor = small_bert()
    processor.tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    batch = batch_of("wonderful", "good film", rationales=(((0, 4),), ((0, 4),)), labels=[0, 1])
    for part in (batch, batch[:1]):
        lost, *others = rows_of(part, model=(model, processor), share=0.1, ks=[1])
        assert "no token left" in lost["error"] and "comprehensiveness" not in lost
        assert all(row["error"] is None for row in others)
    masked = rows_of(batch[:1], model=(model, processor), ks=[1], removal="mask")
    assert masked[0]["error"] is None


def test_logits_that_are_not_finite_are_an_error_row():
    model, processor = small_bert()
    masked = processor.tokenizer.mask_token_id
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[masked] = torch.nan
    batch = batch_of("good film", rationales=(((0, 4),),), labels=[1])
    row = rows_of(batch, model=(model, processor), ks=[1], removal="mask")[0]
    assert "NaN or Inf" in row["error"]


@pytest.mark.parametrize(
    "options",
    [
        {"ks": [5, 5]}, {"ks": []}, {"share": 0.0}, {"thresholds": [2.0]}, {"thresholds": []},
        {"removal": "burn"}, {"explain": "gold"}, {"max_length": 2}, {"compat": "paper"},
        {"reduce": "min"},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError):
        create("rationales", **options)
