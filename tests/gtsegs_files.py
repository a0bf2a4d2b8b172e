"""Small files in the format of `gtsegs_ijcv.mat`, as MATLAB v7.3 writes them."""

import h5py
import numpy as np

HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 06 2014 HDF5 schema 1.00 ."
WNIDS = ("n01440764", "n02123045", "n15075141")


def pictures(n, seed=0):
    """Return n pairs of an (h, w, 3) uint8 image and an (h, w) mask, of differing sizes."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(n):
        shape = (20 + index % 5, 31 + index % 3)
        mask = np.zeros(shape, np.uint8)
        mask[4 : 12 + index % 4, 6:20] = 1
        pairs.append((rng.integers(0, 256, (*shape, 3), np.uint8), mask))
    return pairs


def write_gtsegs(path, pairs, *, cells=True, row=False, names=True, masks=None):
    """Write the struct array `value`: a 512-byte MATLAB block, then HDF5 with references.

    cells: each gt is a cell holding the mask, as published, else the mask itself. row: references
    as (1, n) instead of (n, 1). names: also the fields id and target. masks: number of gt entries.
    """
    with h5py.File(path, "w", userblock_size=512) as file:
        hidden = file.create_group("#refs#")
        value = file.create_group("value")
        value.attrs["MATLAB_class"] = np.bytes_("struct")

        def store(array, kind, **options):
            data = hidden.create_dataset(f"r{len(hidden)}", data=array, **options)
            data.attrs["MATLAB_class"] = np.bytes_(kind)
            return data.ref

        def text(words):
            return store(np.frombuffer(words.encode("utf-16-le"), "<u2")[:, None], "char")

        def cell(reference):
            data = hidden.create_dataset(f"r{len(hidden)}", (1, 1), h5py.ref_dtype)
            data[0, 0] = reference
            data.attrs["MATLAB_class"] = np.bytes_("cell")
            return data.ref

        fields = {"img": [], "gt": []} | ({"id": [], "target": []} if names else {})
        for index, (image, mask) in enumerate(pairs):
            packed = {"chunks": True, "compression": "gzip"}
            fields["img"].append(store(image.transpose(2, 1, 0), "uint8", **packed))
            reference = store(np.ascontiguousarray(mask.T), "uint8", **packed)
            fields["gt"].append(cell(reference) if cells else reference)
            if names:
                fields["id"].append(text(f"{WNIDS[index % 2]}_{index}"))
                fields["target"].append(text(WNIDS[index % 2]))
        fields["gt"] = fields["gt"][:masks]
        for field, references in fields.items():
            shape = (1, len(references)) if row else (len(references), 1)
            data = value.create_dataset(field, shape, h5py.ref_dtype)
            for index, reference in enumerate(references):
                data[(0, index) if row else (index, 0)] = reference
    with open(path, "r+b") as file:
        # A MATLAB header: 116 bytes of text, 8 of offset, version 0x0200, endian mark.
        file.write(HEADER.ljust(116)[:116] + bytes(8) + b"\x00\x02IM")
    return path
