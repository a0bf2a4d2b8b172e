"""Kill a run at random moments, again and again: `python interrupted_runs.py FOLDER KILLS SEED`.

A program of its own, since it forks before any library has started threads. Each child resumes the
run and is killed with SIGKILL after a random time; the last may finish. Prints how many children
were killed while they worked, and how many of them while a file was half written.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

RUN = {
    "evaluator": "localisation",
    "model": "vit-scenes",
    "dataset": "scenes",
    "methods": "raw_attention,generic_attention",
    "limit": 96,
    "batch_size": 4,
    "shards": 24,
    "keep_maps": True,
    "device": "cpu",
}


def slow_write(self, data):
    """Write in pieces with pauses, so that kills also meet half-written files."""
    with open(self, "wb") as handle:
        for i in range(0, len(data), max(1, len(data) // 4)):
            handle.write(data[i : i + max(1, len(data) // 4)])
            handle.flush()
            time.sleep(0.03)


def child(folder, slow):
    import torch

    from xai_lib.runs import evaluate

    torch.set_num_threads(1)
    if slow:
        Path.write_bytes = slow_write
    evaluate(out=folder, progress=False, **RUN)


def fork(folder, slow):
    pid = os.fork()
    if pid:
        return pid
    try:
        child(folder, slow)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def count_starts(folder):
    log = Path(folder) / "run.log"
    return log.read_text().count('"event": "start"') if log.is_file() else 0


def half_written(folder):
    return any(Path(folder).glob("*/.part-*"))


def main(folder, kills, seed):
    import xai_lib.runs  # imported once, so that a child starts in no time

    assert xai_lib.runs
    draw = random.Random(seed)
    killed, halves, resumed = 0, 0, []
    # Whether a kill meets a half-written file is chance, and rarer the busier the machine is.
    while killed < kills or (not halves and killed < 3 * kills):
        starts = count_starts(folder)
        pid = fork(folder, slow=True)
        # Loading takes longer than the work: most kills are to meet the work, some of them a file
        # that is being written, however busy the machine is.
        working, writing = draw.random() < 0.8, draw.random() < 0.3
        deadline = time.monotonic() + 60
        while working and time.monotonic() < deadline:
            if count_starts(folder) > starts and (not writing or half_written(folder)):
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.01 if working and writing else 0.9))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            halves += half_written(folder)
        elif os.WEXITSTATUS(status):
            sys.exit("a child failed")
        else:
            # It finished before the kill: start over, so that every kill meets work to do.
            files = sorted(Path(folder).glob("*/0*"))
            for file in draw.sample(files, max(1, len(files) // 2)):
                file.unlink()
        resumed.append(len(list(Path(folder).glob("records/0*.parquet"))))
    _, status = os.waitpid(fork(folder, slow=False), 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
    print(json.dumps({"killed": killed, "half_written": halves, "shards_after": resumed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
