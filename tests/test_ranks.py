"""Ranks of methods: by hand, with ties, gaps and both directions."""

import pandas as pd
import pytest
from scipy.stats import kendalltau

from xai_lib.errors import InputError, OptionError
from xai_lib.statistics.ranks import by_method, ranking


def test_ranks_and_tau_by_hand():
    ours = pd.Series({"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0})
    theirs = pd.Series({"d": 9.0, "a": 1.0, "b": 2.0, "x": 5.0})
    found = ranking({"ours": (ours, "high"), "theirs": (theirs, "low")})
    table = found.table.set_index("method")
    assert table["ours"].dropna().to_dict() == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert table["theirs"].dropna().to_dict() == {"d": 4, "a": 1, "b": 2, "x": 3}
    assert list(table.index) == ["a", "b", "c", "d", "x"]
    assert found.n == 3 and found.tau == pytest.approx(1.0)
    assert "+1.00" in str(found) and "3 methods" in str(found)


def test_tau_is_scipy_s_and_turns_with_the_direction():
    ours = pd.Series([0.3, 0.1, 0.8, 0.5, 0.5], index=[*"abcde"])
    theirs = pd.Series([4.0, 9.0, 1.0, 2.0, 6.0], index=[*"abcde"])
    same = ranking({"ours": (ours, "high"), "theirs": (theirs, "low")})
    turned = ranking({"ours": (ours, "high"), "theirs": (theirs, "high")})
    assert same.tau == pytest.approx(kendalltau(-ours, theirs)[0]) == pytest.approx(-turned.tau)


def test_by_method_names_the_published_method_and_refuses_mixed_settings():
    summary = pd.DataFrame(
        {
            "method": ["rollout:start_layer=1", "lrp"] * 2,
            "order": ["positive"] * 2 + ["negative"] * 2,
            "metric": "auc_cvpr21",
            "value": [1.0, 2.0, 3.0, 4.0],
        }
    )
    found = by_method(summary, "auc_cvpr21", order="negative")
    assert found.to_dict() == {"rollout:start_layer=1": 3.0, "lrp": 4.0}
    with pytest.raises(InputError):
        by_method(summary, "auc_cvpr21")
    with pytest.raises(InputError):
        ranking({"ours": (found, "high")})
    with pytest.raises(InputError, match=r"'higher'.*expected 'high' or 'low'"):
        ranking({"a": (found, "low"), "b": (found, "higher")})
    with pytest.raises(OptionError, match="Unknown metric 'auc'"):
        by_method(summary, "auc")
    with pytest.raises(OptionError, match="Did you mean 'negative'"):
        by_method(summary, "auc_cvpr21", order="negativ")
    with pytest.raises(OptionError, match="Unknown explained 'target'"):
        by_method(summary, "auc_cvpr21", explained="target")
