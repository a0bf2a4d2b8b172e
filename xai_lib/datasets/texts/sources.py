"""Text data that a user must bring: what it is, where it comes from, where it is looked for."""

from __future__ import annotations

from xai_lib.datasets.missing import Source

_GLUE = "GLUE: Wang et al., ICLR 2019"
_GLUE_FILES = "https://dl.fbaipublicfiles.com/glue/data/{}.zip"
_TREES = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
_SST = "Socher et al., EMNLP 2013"
_YELP = "https://s3.amazonaws.com/fast-ai-nlp/{}.tgz"
_ZHANG = "Zhang, Zhao and LeCun, NeurIPS 2015"


def _text(name: str, title: str, place: str, samples: int, split: str = "test", **more) -> Source:
    archive = more.pop("archive", place.rpartition("/")[2])
    return Source(
        name=name,
        title=title,
        place=place,
        archive=archive,
        variable=f"XAI_{name.upper()}",
        kind="folder",
        samples=samples,
        split=split,
        modality="text",
        **more,
    )


# samples: in the split that is opened where none is named, the labelled one the papers report on.
TEXT_SOURCES = {
    source.name: source
    for source in (
        _text(
            "movies",
            "Movie Reviews with rationales, ERASER: DeYoung et al., ACL 2020",
            "https://www.eraserbenchmark.com/zipped/movies.tar.gz",
            199,
            evidence="rationales",
        ),
        _text(
            "20newsgroups",
            "20 Newsgroups, sorted by date",
            "http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz",
            7532,
            # As scikit-learn states it; not measured by us.
            sha256="8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
        ),
        _text("sst2", f"SST-2, {_GLUE}", _GLUE_FILES.format("SST-2"), 872, "validation"),
        _text("sst3", f"SST in three classes, {_SST}", _TREES, 2210),
        _text("sst5", f"SST in five classes, {_SST}", _TREES, 2210),
        _text(
            "imdb",
            "IMDb reviews: Maas et al., ACL 2011",
            "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            25_000,
        ),
        _text(
            "semeval",
            "Tweets, SemEval-2017 task 4 A: Rosenthal et al., 2017",
            "https://alt.qcri.org/semeval2017/task4/",
            12_284,
            archive="the English files of subtask A",
        ),
        _text("qnli", f"QNLI, {_GLUE}", _GLUE_FILES.format("QNLIv2"), 5463, "validation"),
        _text(
            "mrpc",
            f"MRPC: Dolan and Brockett 2005, in {_GLUE}",
            "https://www.microsoft.com/en-us/download/details.aspx?id=52398",
            408,
            "validation",
            archive="the paraphrase corpus (msr_paraphrase_test.txt, split 'test', or GLUE's TSV)",
        ),
        _text(
            "yelp2",
            f"Yelp in two classes, {_ZHANG}",
            _YELP.format("yelp_review_polarity_csv"),
            38_000,
        ),
        _text(
            "yelp5", f"Yelp in five classes, {_ZHANG}", _YELP.format("yelp_review_full_csv"), 50_000
        ),
    )
}
