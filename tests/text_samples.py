"""A small data set of reviews with rationales, and what it has damaged, shared by the tests."""

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.errors import InputError

REVIEWS = (
    ("the movie was bad and the story is sad , never good at all .", 0, ("bad", "sad")),
    ("this film is the best one i loved , great acting and a good plot !", 1, ("best", "loved")),
    ("boring plot , worst acting i watched , but a fine film it is not .", 0, ("boring", "worst")),
    ("a wonderful story and great acting , it is good , fine and never sad .", 1, ("wonderful",)),
    ("not one good scene , it was the worst of all film and a sad story .", 0, ("worst of all",)),
    ("great .", 1, ("great",)),
)


class Reviews(TextDataset):
    """The reviews above, some of them damaged: "none" has no rationale, "error" cannot be read."""

    name = "reviews-of-tests"
    class_names = ("negative", "positive")
    has_rationales = True

    def __init__(self, broken=None, class_names=("negative", "positive")):
        self.broken, self.class_names = dict(broken or {}), class_names

    def __len__(self):
        return len(REVIEWS)

    def __getitem__(self, index):
        text, label, phrases = REVIEWS[index]
        spans = tuple(sorted((text.index(p), text.index(p) + len(p)) for p in phrases))
        damage = self.broken.get(index)
        if damage == "error":
            raise InputError(f"The file of review {index} is damaged.")
        if damage == "none":
            spans = ()
        elif damage is not None:
            text, spans = damage, ()
        return TextSample(f"review-{index}", text, label=label, rationale=spans)

    def fingerprint(self):
        return {"reviews": len(REVIEWS), "broken": str(self.broken)}
