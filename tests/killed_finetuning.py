"""Fine-tune and kill this process while it works: `python killed_finetuning.py BASE OUT SAMPLES`.

A program of its own, since SIGKILL leaves no time to tidy up. It dies when it asks for the training
sample number SAMPLES, counted from the start.
"""

import os
import signal
import sys

import torch
from small_sentiment import SETTINGS, Sentiment

import xai_lib.checkpoints.finetuning.texts as texts
from xai_lib.checkpoints.finetuning import finetune


def main(base, out, samples):
    torch.set_num_threads(1)  # as the tests do
    asked = 0
    read = texts.Encoded.__getitem__

    def deadly(self, index):
        nonlocal asked
        asked += len(self) == SETTINGS["limit"]
        if asked == samples:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    texts.Encoded.__getitem__ = deadly
    validation = Sentiment("validation", 12, seed=1)
    finetune(base, Sentiment("train"), out, validation=validation, progress=False, **SETTINGS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
