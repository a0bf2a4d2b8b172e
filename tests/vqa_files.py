"""Small VQA sets and region features in the formats in which the originals are published."""

import io
import json
import pickle
from base64 import b64encode

import h5py
import lmdb
import numpy as np
from PIL import Image
from safetensors.numpy import save as save_tensors

ANSWERS = ("", "yes", "no", "2", "red")
IMAGES = (42, 73, 74)
# Question, image, text, what ten people said, LXMERT's scores of it.
QUESTIONS = (
    (42000, 42, "Is it red?", ["yes"] * 2 + ["no"] * 7 + ["a bit"], {"yes": 0.6, "no": 1}),
    (42001, 42, "How many cats?", ["2"] * 10, {"2": 1}),
    (73000, 73, "What colour, naïve?", ["red", "rot"] + ["crimson"] * 8, {"red": 0.3}),
    (74000, 74, "Why?", ["because"] * 10, {}),
)
HEIGHT, WIDTH = 30, 40


def coco(number, split="val2014"):
    return f"COCO_{split}_{number:012d}"


def regions(number, count=5, dim=6):
    """Return the features and the boxes, in pixels, of one image."""
    draw = np.random.default_rng(number)
    features = draw.standard_normal((count, dim)).astype(np.float32)
    corners = np.sort(draw.random((count, 2, 2)), 1).reshape(count, 4)
    boxes = corners * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    boxes[0] = [0, 0, WIDTH, HEIGHT]
    return features, boxes.astype(np.float32)


def lxmert_records():
    return [
        {
            "answer_type": "other",
            "img_id": coco(image),
            "label": scores,
            "question_id": key,
            "question_type": "what",
            "sent": text,
        }
        for key, image, text, _, scores in QUESTIONS
    ]


def vqa2_records():
    """Return the contents of VQA v2's two files."""
    info = {"info": {"version": "2.0"}, "data_subtype": "val2014"}
    asked = [{"image_id": i, "question": t, "question_id": k} for k, i, t, _, _ in QUESTIONS]
    told = [
        {
            "question_type": "what",
            "multiple_choice_answer": max(said, key=said.count),
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": number}
                for number, text in enumerate(said, 1)
            ],
            "image_id": image,
            "answer_type": "other",
            "question_id": key,
        }
        for key, image, _, said, _ in reversed(QUESTIONS)
    ]
    return {**info, "questions": asked}, {**info, "annotations": told}


def write_json(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_questions(root, form="lxmert"):
    """Write the questions, as LXMERT or VQA v2 has them, and the list of answers."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "trainval_label2ans.json", list(ANSWERS))
    if form == "lxmert":
        write_json(root / "valid.json", lxmert_records())
    else:
        asked, told = vqa2_records()
        write_json(root / "v2_OpenEnded_mscoco_val2014_questions.json", asked)
        write_json(root / "v2_mscoco_val2014_annotations.json", told)
    return root


def write_images(root, images=IMAGES, split="val2014"):
    """Write a folder of COCO's images, each of one colour that its number makes."""
    folder = root / split
    folder.mkdir(parents=True)
    for number in images:
        picture = Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 255 - number))
        picture.save(folder / f"{coco(number, split)}.jpg", quality=95)
    return folder


def write_vqa(root, form="lxmert"):
    """Write a whole set: questions, answers, images and LXMERT's tsv."""
    write_questions(root, form)
    write_images(root)
    write_tsv(root / "val2014_obj36.tsv")
    return root


def tsv_line(number, drawn=None, **fields):
    """Return one line, of the features and boxes in drawn; fields replace what would be written."""
    features, boxes = drawn or regions(number)
    count = len(boxes)

    def packed(array, dtype):
        return b64encode(np.asarray(array, dtype).tobytes()).decode()

    line = {
        "img_id": coco(number),
        "img_h": HEIGHT,
        "img_w": WIDTH,
        "objects_id": packed(np.arange(count), "<i8"),
        "objects_conf": packed(np.ones(count), "<f4"),
        "attrs_id": packed(np.arange(count), "<i8"),
        "attrs_conf": packed(np.ones(count), "<f4"),
        "num_boxes": count,
        "boxes": packed(boxes, "<f4"),
        "features": packed(features, "<f4"),
    }
    return "\t".join(str(value) for value in (line | fields).values())


def write_tsv(path, lines=None, end="\n", last="\n"):
    lines = [tsv_line(number) for number in IMAGES] if lines is None else lines
    path.write_bytes((end.join(lines) + last).encode())
    return path


def arrays(number, **more):
    """Return the arrays of one image as .npz files hold them; None takes one away."""
    features, boxes = regions(number)
    size = np.array([HEIGHT, WIDTH])
    found = {"features": features, "boxes": boxes, "size": size} | more
    return {name: value for name, value in found.items() if value is not None}


def npz_bytes(number, **more):
    file = io.BytesIO()
    np.savez(file, **arrays(number, **more))
    return file.getvalue()


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tensor_bytes(number, **more):
    return save_tensors(arrays(number, **more))


def mmf_value(number):
    """Return what MMF's script stores in LMDB: a pickled dictionary."""
    features, boxes = regions(number)
    info = {"image_id": number, "image_height": HEIGHT, "image_width": WIDTH, "bbox": boxes}
    return pickle.dumps({"features": features} | info)


def write_npz(folder, images=IMAGES, **more):
    folder.mkdir()
    for number in images:
        (folder / f"{coco(number)}.npz").write_bytes(npz_bytes(number, **more))
    return folder


def write_npy(folder, info="boxes", images=IMAGES):
    """Write MMF's folder; info: "boxes" (a plain array), "pickle" (as MMF does) or None."""
    folder.mkdir()
    for number in images:
        features, boxes = regions(number)
        np.save(folder / f"{coco(number)}.npy", features)
        if info == "boxes":
            parts = boxes / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
            np.save(folder / f"{coco(number)}_info.npy", parts)
        elif info == "pickle":
            np.save(folder / f"{coco(number)}_info.npy", np.array({"bbox": boxes}, object))
    return folder


def write_h5(path, **more):
    """Write the stacked arrays; the second image has two regions of padding after its five."""
    drawn = [regions(number) for number in IMAGES]
    padding = np.zeros((len(IMAGES), 2, 1), np.float32)
    stacked = {
        "image_ids": np.array(IMAGES),
        "features": np.concatenate([np.stack([f for f, _ in drawn]), padding.repeat(6, 2)], 1),
        "boxes": np.concatenate([np.stack([b for _, b in drawn]), padding.repeat(4, 2)], 1),
        "sizes": np.array([[HEIGHT, WIDTH]] * len(IMAGES)),
        "num_boxes": np.full(len(IMAGES), 5),
    } | more
    with h5py.File(path, "w") as file:
        for name, value in stacked.items():
            if value is not None:
                file[name] = value
    return path


def write_lmdb(path, values, subdir=True):
    """Write a database of `values` by key."""
    with (
        lmdb.open(str(path), subdir=subdir, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(str(key).encode(), value)
    return path
