"""Fetch `gtsegs_ijcv.mat`, the ImageNet segmentation data of the papers' segmentation tables.

    python data_scripts/fetch_gtsegs.py --out data/gtsegs_ijcv.mat

Interrupted, the same command goes on. Nobody publishes a checksum, and the address has no TLS: the
script checks that the file opens with its 4,276 images and masks, and prints its sha256, which
`--sha256` holds a later download to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from fetching import FetchError, checksum, download

from xai_lib.datasets.images.gtsegs import GTSEGS
from xai_lib.datasets.opening import open_dataset
from xai_lib.errors import XAIError


def main(
    out: Annotated[Path, typer.Option(help="where the file goes")] = Path("data/gtsegs_ijcv.mat"),
    url: Annotated[str, typer.Option(help="where it comes from")] = GTSEGS.place,
    sha256: Annotated[str, typer.Option(help="expected checksum; default: none is known")] = "",
    samples: Annotated[int, typer.Option(help="expected number of images")] = GTSEGS.samples,
):
    """Fetch the file, open it, and say how to point at it."""
    try:
        if out.exists():
            print(f"{out} exists already; checking it")
        else:
            download(url, out, sha256=sha256 or None)
        if sha256 and checksum(out, "sha256") != sha256:
            raise FetchError(f"{out} has another sha256 than {sha256}.")
        found = len(open_dataset("gtsegs", path=out))
        if found != samples:
            raise FetchError(f"{out} has {found} images, expected {samples}.")
    except (FetchError, XAIError, OSError) as error:
        print(f"fetch_gtsegs: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{out}: {found:,} images, sha256 {checksum(out, 'sha256')}")
    print(f"export {GTSEGS.variable}={out.resolve()}")


if __name__ == "__main__":
    typer.run(main)
