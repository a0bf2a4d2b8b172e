"""Attention heads and layers: how much each counts, and models without some of them."""

from xai_lib.heads.blocks import without_blocks
from xai_lib.heads.pruning import prune_heads
from xai_lib.heads.ranking import HeadScores, ScoredSite
from xai_lib.heads.scores import head_scores
from xai_lib.heads.smaller import Smaller, smaller

__all__ = [
    "HeadScores",
    "ScoredSite",
    "Smaller",
    "head_scores",
    "prune_heads",
    "smaller",
    "without_blocks",
]
