"""A tiny set of labelled sentences, shared by the tests of fine-tuning and by killed processes."""

import random

from xai_lib.datasets.base import TextDataset, TextSample

CLASSES = ("negative", "positive")
KIND = {"positive": ("good", "great", "fine", "best"), "negative": ("bad", "sad", "worst")}
FILLER = ("this", "movie", "was", "the", "film", "is", "a", "story", "plot", "of", "and", "it")
SETTINGS = {
    "epochs": 3,
    "lr": 3e-3,
    "batch_size": 8,
    "limit": 192,
    "seed": 5,
    "device": "cpu",
}


class Sentiment(TextDataset):
    """Sentences of filler with one word that decides the label."""

    class_names = CLASSES

    def __init__(self, name="train", count=240, seed=0, longest=5):
        self.name = name
        draw = random.Random(seed)
        self.samples = []
        for i in range(count):
            words = draw.choices(FILLER, k=draw.randrange(2, longest))
            words.insert(draw.randrange(len(words)), draw.choice(KIND[CLASSES[i % 2]]))
            self.samples.append(TextSample(f"{name}-{i}", " ".join(words), label=i % 2))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def fingerprint(self):
        texts = " ".join(sample.text for sample in self.samples)
        return {"name": self.name, "samples": len(self), "characters": len(texts)}
