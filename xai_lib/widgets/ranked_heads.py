"""Attention heads by their scores: which a model does without, by fraction or by hand."""

from __future__ import annotations

from collections import OrderedDict

import torch

from xai_lib.heads import HeadScores, head_scores
from xai_lib.tracing import HeadMask
from xai_lib.widgets.choice import Choice, Head
from xai_lib.widgets.session import Session, kept


class RankedHeads:
    """The scores of all heads of a session's model, each computed once."""

    def __init__(self, session: Session):
        self.session = session
        self._scores: OrderedDict[tuple, HeadScores] = OrderedDict()

    def scores(self, choice: Choice) -> HeadScores:
        """Return the scores of all heads, for the class that is shown."""
        session, target = self.session, self.session.target(choice)

        def make() -> HeadScores:
            return head_scores(session.model, session.inputs(choice.source), choice.score, target)

        return kept(self._scores, (choice.source, choice.score, target), make)

    def heads(self, choice: Choice) -> frozenset[Head]:
        """Return every head that can be pruned."""
        sites = self.scores(choice).sites
        return frozenset((s.call, h) for s in sites if s.reached for h in range(s.heads))

    def by_fraction(self, choice: Choice) -> frozenset[Head]:
        """Return the heads that `HeadScores.mask` prunes of this sample."""
        mask = self.scores(choice).mask(choice.fraction, choice.order, per_sample=True)
        gone = {call: (row[0] == 0).nonzero()[:, 0] for call, row in mask.keep.items()}
        return frozenset((call, head) for call, row in gone.items() for head in row.tolist())

    def mask(self, choice: Choice) -> HeadMask:
        """Return the mask that prunes the heads of a choice."""
        rows = {s.call: torch.ones(s.heads) for s in self.scores(choice).sites}
        for call, head in choice.pruned:
            rows[call][head] = 0
        return HeadMask(rows)
