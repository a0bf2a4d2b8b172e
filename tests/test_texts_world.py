"""The generated texts are what they claim: labels by rationales, and nothing of them elsewhere."""

import copy
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from xai_lib.datasets import open_dataset
from xai_lib.datasets.samples.texts import sample_texts
from xai_lib.datasets.worlds import generated_texts
from xai_lib.datasets.worlds.generated_texts import text_world
from xai_lib.datasets.worlds.lexicon import (
    ADJECTIVES,
    EFFECTS,
    FEELINGS,
    FILLER,
    INTENSIFIERS,
    LIKINGS,
    NEGATORS,
    OTHERS,
    PEOPLE,
    PERSONS,
    PLACES,
    SOFTENERS,
    THINGS,
    TIMES,
    VERDICTS,
    WEATHER,
)
from xai_lib.datasets.worlds.reviews import _SIGNS, Reviews, degrees_of, review_label
from xai_lib.datasets.worlds.topics import (
    _ASIDES,
    _FRAMES,
    _ORDINARY,
    TOPIC_CLASSES,
    TOPICS,
    topic_label,
)
from xai_lib.datasets.worlds.wording import joined
from xai_lib.errors import InputError, OptionError

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

from proofs.texts import only, without, without_negators

N = 1500
EMBEDDED_TEXTS = ("reviews", "reviews-5", "topics")
# Lower-case letters with their hyphens: a word without the punctuation around it.
WORD = re.compile(r"[a-z']+")


def drawn(data):
    return [data[i] for i in range(len(data))]


@pytest.fixture(scope="module", params=EMBEDDED_TEXTS)
def world(request):
    return request.param, drawn(text_world(request.param, N, seed=31))


def phrases(sample):
    return [sample.text[start:end] for start, end in sample.rationale]


def label_of(name, words):
    if name == "topics":
        return topic_label(words)
    return review_label(words, 5 if name.endswith("-5") else 2)


def test_label_is_a_function_of_the_rationale_alone(world):
    name, samples = world
    assert [label_of(name, phrases(s)) for s in samples] == [s.label for s in samples]


def test_spans_are_whole_words_in_order(world):
    for sample in world[1]:
        edges = [edge for span in sample.rationale for edge in span]
        assert edges == sorted(edges) and len(set(edges)) == len(edges) and sample.rationale
        for start, end in sample.rationale:
            assert sample.text[start:end] == sample.text[start:end].strip() != ""
            around = sample.text[max(0, start - 1) : start] + sample.text[end : end + 1]
            assert not re.search(r"\w", around)


def test_every_judging_word_of_the_rationale_counts(world):
    name, samples = world
    if name == "topics":
        return
    for sample in samples:
        words = " ".join(phrases(sample)).lower().split()
        assert len(degrees_of(words)) == sum(word in _SIGNS for word in words) >= 1


def test_texts_have_the_promised_length_and_all_classes(world):
    name, samples = world
    words = [len(s.text.split()) for s in samples]
    assert 20 <= min(words) and max(words) <= 75
    assert np.mean([25 <= n <= 60 for n in words]) > 0.95
    sentences = [len(re.findall(r"[.?]\"?(?= |$)", s.text)) for s in samples]
    assert min(sentences) >= 3 and max(sentences) <= 7
    counts = np.bincount([s.label for s in samples])
    expected = N / len(open_dataset(name).class_names)
    assert len(counts) == round(N / expected) and abs(counts - expected).max() < 5 * expected**0.5


def test_text_i_depends_on_seed_and_i_alone(world):
    name, samples = world
    longer = text_world(name, 10 * N, seed=31)
    assert [longer[i] for i in (0, 77, N - 1)] == [samples[i] for i in (0, 77, N - 1)]
    assert samples[-1] == text_world(name, N, seed=31)[-1]
    assert text_world(name, N, seed=32)[0].text != samples[0].text
    assert len({s.text for s in samples}) == N


def test_the_texts_do_not_change_unnoticed():
    """Models are trained on these texts: other words need other weights."""
    digest = hashlib.sha256()
    for name in EMBEDDED_TEXTS:
        data = text_world(name, 200, seed=0)
        digest.update("\n".join(f"{s.text} {s.rationale}" for s in drawn(data)).encode())
    assert digest.hexdigest()[:16] == "4a701750c8af59d5"


def bags(texts, labels, ngrams=(1, 2)):
    """Return the accuracy of a bag-of-words classifier on the last third of the texts."""
    features = CountVectorizer(ngram_range=ngrams, binary=True).fit_transform(texts)
    cut, labels = 2 * len(texts) // 3, np.array(labels)
    model = LogisticRegression(C=0.3, max_iter=300).fit(features[:cut], labels[:cut])
    return model.score(features[cut:], labels[cut:])


@pytest.mark.slow
def test_without_the_rationale_a_bag_of_words_is_at_chance(world):
    name, _ = world
    samples = drawn(text_world(name, 4500, seed=33))
    labels = [s.label for s in samples]
    chance = 1 / len(open_dataset(name).class_names)
    spread = (chance * (1 - chance) / 1500) ** 0.5
    for texts in ([without(s) for s in samples], [without(s, "x") for s in samples]):
        assert abs(bags(texts, labels) - chance) < 4 * spread
    # ... while the same classifier reads most labels off the rationale.
    assert bags([only(s) for s in samples], labels) > chance + 0.3


def test_length_and_number_of_sentences_without_the_rationale_say_nothing(world):
    samples = world[1]
    label = np.array([s.label for s in samples])
    for measure in (
        [len(without(s).split()) for s in samples],
        [s.text.count(".") for s in samples],
        [s.rationale[0][0] for s in samples],
    ):
        bins = np.digitize(measure, np.quantile(measure, [0.25, 0.5, 0.75]))
        table = np.array([np.bincount(bins[label == c], minlength=4) for c in set(label)])
        assert chi2_contingency(table[:, table.any(0)]).pvalue > 0.001


def test_deleting_the_negators_turns_wholly_negated_reviews():
    for sample in drawn(Reviews(300, seed=5, negated=True)):
        assert any(set(phrase.lower().split()) & {*NEGATORS, "far"} for phrase in phrases(sample))
        shorter = without_negators(sample)
        kept = [
            word for phrase in phrases(sample) for word in phrase.lower().split() if word in _SIGNS
        ]
        assert review_label(kept) == 1 - sample.label
        assert len(shorter.split()) < len(sample.text.split())
    plain = drawn(Reviews(300, seed=5, negated=False))
    assert not any(set(" ".join(phrases(s)).lower().split()) & set(NEGATORS) for s in plain)
    assert all(without_negators(s) == s.text for s in plain)


def test_only_what_follows_the_contrast_decides():
    agree = np.zeros((2, 2))
    for sample in drawn(Reviews(800, seed=6, contrast=True, opinions=1)):
        at = re.search(r", (but|yet) ", sample.text).start()
        assert all(start > at for start, _ in sample.rationale)
        start = sample.text.rfind(". ", 0, at) + 1
        ((sign, _),) = degrees_of([sample.text[start:at].replace(",", "")])
        agree[sample.label, int(sign > 0)] += 1
    # What stands before is drawn independently of the label.
    assert agree.min() > 150 and chi2_contingency(agree).pvalue > 0.001
    assert not any(
        re.search(r", (but|yet) ", s.text) for s in drawn(Reviews(200, seed=6, contrast=False))
    )


def test_words_within_quotation_marks_decide_nothing():
    other = 0
    for sample in drawn(text_world("topics", 400, 7, aside=True)):
        start, end = (m.start() for m in re.finditer('"', sample.text))
        assert not any(start < a < end for a, _ in sample.rationale)
        other += topic_label(WORD.findall(sample.text[start:end].lower())) != sample.label
    assert other > 350
    assert not any('"' in s.text for s in drawn(text_world("topics", 200, 7, aside=False)))


def test_five_degrees():
    cases = {
        "not good": 1,
        "not good at all": 0,
        "not terrible": 3,
        "not terrible at all": 4,
        "good": 3,
        "very good": 4,
        "superb": 4,
        "fairly bad": 1,
        "bad wonderful": 2,
        "good nice superb": 4,
        "far from superb": 1,
        "never bored": 3,
    }
    assert {text: review_label([text], 5) for text in cases} == cases
    assert review_label(["not", "enjoy", "at all"], 5) == 0
    with pytest.raises(InputError, match="decide no label"):
        review_label(["good", "bad"])
    with pytest.raises(InputError, match="decide no label"):
        review_label(["the film"], 5)


def test_all_degrees_and_many_words_occur():
    five = drawn(text_world("reviews-5", 400, 8))
    assert {len(degrees_of(phrases(s))) for s in five} == {2, 3}
    assert {len(degrees_of(phrases(s))) for s in drawn(Reviews(400, 8))} == {1, 2, 3}
    words = {w for s in drawn(Reviews(3000, 9)) for w in WORD.findall(s.text.lower())}
    assert len(words) > 600


def test_filler_and_things_hold_no_word_that_decides():
    told = [*FILLER, *OTHERS, *WEATHER, *LIKINGS, *PEOPLE, *PERSONS, *TIMES, *PLACES]
    told += [text for verb, parts, facts in THINGS.values() for text in (verb, parts, *facts)]
    words = {word for text in told for word in WORD.findall(text.lower())}
    assert not words & {*_SIGNS, *NEGATORS, *INTENSIFIERS, *SOFTENERS, "far"}
    frames = {w for t in (*_FRAMES, *_ASIDES, *_ORDINARY, *FILLER) for w in WORD.findall(t.lower())}
    nouns = [word for entries in TOPICS.values() for entry in entries for word in entry.split()]
    assert not frames & set(nouns) and len(set(nouns)) == len(nouns) and len(TOPIC_CLASSES) == 20


def test_every_judging_word_has_one_degree():
    forms = [
        form
        for lexicon in (ADJECTIVES, FEELINGS, EFFECTS, VERDICTS)
        for entries in lexicon.values()
        for entry in entries
        for form in ([entry] if isinstance(entry, str) else entry)
    ]
    assert len(set(forms)) == len(forms) == len(_SIGNS)
    assert all(noun[0] not in "aeiou" for nouns in VERDICTS.values() for noun in nouns)


@pytest.mark.parametrize("name", EMBEDDED_TEXTS)
def test_evaluation_texts_are_not_training_texts(name):
    evaluation = {s.text for s in (open_dataset(name)[i] for i in range(N))}
    seeds = [(0, "train"), (0, "validation"), (1_000_001, "all"), (1_000_002, "all")]
    for seed in seeds:
        other = {s.text for s in drawn(text_world(name, N, seed))}
        assert not evaluation & other
        evaluation |= other


@pytest.mark.parametrize("name", EMBEDDED_TEXTS)
def test_data_set(name):
    data = open_dataset(name)
    assert (data.modality, data.has_labels, data.has_rationales) == ("text", True, True)
    assert len(data) == generated_texts.TEXTS and data[-1] == data[len(data) - 1]
    assert data.fingerprint() == open_dataset(name).fingerprint()
    assert data.fingerprint()["digest"] != generated_texts.GeneratedTexts(name, 50).fingerprint()
    assert copy.deepcopy(data)[5] == data[5]
    with pytest.raises(IndexError):
        data[len(data)]


def test_bad_requests_are_refused():
    with pytest.raises(OptionError, match="Did you mean"):
        open_dataset("review")
    with pytest.raises(OptionError, match="classes=3"):
        Reviews(3, classes=3)
    with pytest.raises(OptionError, match="opinions=1 is not possible with 5"):
        Reviews(3, classes=5, opinions=1)
    for kind in ("reviews", "topics"):
        with pytest.raises(InputError, match="n=0"):
            text_world(kind, 0, 0)
    with pytest.raises(InputError, match="2 topics"):
        topic_label(["pixels", "goalies"])
    with pytest.raises(InputError, match="count=0"):
        sample_texts("bert-reviews", count=0)


def test_texts_without_and_with_only_the_rationale():
    text, spans = joined(["the plot ⟦not⟧ a ⟦good one⟧, I say.", "fine."])
    assert text == "The plot not a good one, I say. Fine."
    sample = sample_texts("x").samples["negation"]
    sample = type(sample)("k", text, label=0, rationale=spans)
    assert without(sample) == "The plot a , I say. Fine."
    assert without(sample, "_") == "The plot _ a _ _, I say. Fine."
    assert only(sample) == "not good one"
    assert only(sample, "_") == "_ _ not _ good one _ _ _ _"
    assert without_negators(sample) == "The plot a good one, I say. Fine."


@pytest.mark.parametrize("model", ["bert-reviews", "bert-reviews-5", "bert-topics"])
def test_sample_texts(model):
    found = sample_texts(model, count=7)
    name = model.removeprefix("bert-")
    assert len(found.names) == len(found.list()) == 7
    for sample in found.samples.values():
        assert label_of(name, phrases(sample)) == sample.label
    assert sample_texts(model, count=2).names == found.names[:2]
    own = sample_texts(model, "My own text.")
    assert own.list() == ["My own text."] and own.samples["yours"].rationale is None


def test_sample_texts_of_other_models_claim_nothing():
    found = sample_texts("hf:someone/sst2")
    assert {s.rationale for s in found.samples.values()} == {None} and len(found.names) == 4
    assert {"negation", "contrast"} <= set(found.names)
