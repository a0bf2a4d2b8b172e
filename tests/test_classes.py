"""Labels of a data set and classes of a model: the same, translated by name, or refused."""

import pytest

from xai_lib.datasets.images.imagenet_labels import class_names, wnids
from xai_lib.errors import TargetError
from xai_lib.runs.classes import class_places

PETS = ("cat, Felis catus", "dog", "guinea pig")


@pytest.mark.parametrize(
    ("of_data", "of_model", "expected"),
    [
        (None, PETS, None),
        (PETS, PETS, None),
        (("dog", "Guinea_Pig", "cat"), PETS, (1, 2, 0)),
        (("guinea  pig",), PETS, (2,)),
        (("0", "1", "10", "2"), (), (0, 1, 10, 2)),
        (("00", "01", "02"), PETS, None),
        (("a", "b"), (), None),
        (("a", "b"), ("LABEL_0", "LABEL_1"), None),
        (class_names(), class_names(), None),
        (tuple(wnids()[5:8]), class_names(), (5, 6, 7)),
        (tuple(wnids()), class_names(), None),
        (("drake", "tench", "goldfish"), class_names(), (97, 0, 1)),
    ],
)
def test_labels_are_translated_by_name(of_data, of_model, expected):
    assert class_places(of_data, of_model) == expected


def test_a_few_other_spellings_in_the_same_order_are_the_same_classes():
    spelt = tuple(f"the {name}" if i % 10 == 0 else name for i, name in enumerate(class_names()))
    assert class_places(spelt, class_names()) is None
    moved = (*spelt[:1], spelt[2], spelt[1], *spelt[3:])
    with pytest.raises(TargetError):
        class_places(moved, class_names())


@pytest.mark.parametrize(
    ("of_data", "reason"),
    [(("dog", "mouse"), "'mouse'"), (("zero", "one", "two"), "'zero'")],
)
def test_names_that_the_model_lacks_are_refused(of_data, reason):
    with pytest.raises(TargetError, match=reason):
        class_places(of_data, PETS)


def test_a_split_that_lacks_a_class_of_a_model_without_names_is_refused():
    """Names are numbered by those that are there: 'positive' would be class 0."""
    with pytest.raises(TargetError, match="'neutral', 'positive'"):
        class_places(("neutral", "positive"), ("LABEL_0", "LABEL_1", "LABEL_2"))


def test_a_name_of_two_classes_is_refused():
    with pytest.raises(TargetError, match="crane"):
        class_places(("crane", "tench"), class_names())
