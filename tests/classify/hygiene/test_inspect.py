import json

import numpy as np
import pytest
from tiny_photos import encoded, photo

from classify.dataset import read_dataset
from classify.hygiene import find_duplicates, inspect, open_images, write_findings
from classify.hygiene.tables import FIELDS

PER_CLASS = 40


@pytest.fixture
def looked_over(make_set):
    """Two classes in two splits; one training image is also a test image, under the other label; one is there twice."""
    files = {
        f"{split}/{label}/{n:02}.jpg": encoded(photo(1000 * at + n, (48, 40)))
        for at, (split, label) in enumerate([("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")])
        for n in range(PER_CLASS // (1 if split == "train" else 4))
    }
    files["test/dog/00.jpg"], files["train/dog/07.jpg"] = files["train/cat/03.jpg"], files["train/dog/06.jpg"]
    ids = sorted(files)
    rng = np.random.default_rng(0)
    is_dog = np.array(["dog" in name for name in ids])
    X = (is_dog[:, None] * 2.0 + rng.normal(size=(len(ids), 12))).astype(np.float32)
    X[:, 5] = 0
    X[ids.index("test/dog/00.jpg")] = X[ids.index("train/cat/03.jpg")]
    return make_set(files, X, [name.split("/")[0] for name in ids])


def test_a_data_set_is_looked_over_in_a_few_lines(looked_over, tmp_path) -> None:
    features = looked_over
    images, _ = open_images(features)
    data = read_dataset(features)
    rows = np.concatenate([data.train.rows, data.test.rows])
    duplicates = find_duplicates(features, "penultimate", np.sort(rows), images)
    shares = np.where(np.arange(2) == data.train.y[:, None], 0.9, 0.1)
    shares[4] = shares[4, ::-1]

    hygiene, findings, notes = inspect(features, data, duplicates, shares, layer="penultimate", layers=["penultimate"])

    assert (hygiene["duplicates"]["n_pairs"], hygiene["duplicates"]["n_cross_split"]) == (2, 1)
    assert hygiene["duplicates"]["n_leaked"] == hygiene["conflicts"]["n"] == 1
    assert "1 of 20 test images are training images too" in hygiene["duplicates"]["words"]
    assert hygiene["duplicates"]["confirmed_by"] == "pixels"
    assert (hygiene["label_issues"]["n"], hygiene["label_issues"]["n_checked"]) == (1, 2 * PER_CLASS)
    assert hygiene["dead_features"] == {"n": 1, "of": 12, "n_nearly": 0}
    assert hygiene["outliers"]["n"] == len(findings["outliers"])
    assert notes == []
    suspect = findings["suspect_labels"][0]
    assert (suspect["id"], suspect["label"], suspect["suggested"]) == ("train/cat/04.jpg", "cat", "dog")
    assert (suspect["split"], suspect["probability_of_label"], suspect["score"]) == ("train", 0.1, 0.1)
    assert findings["conflicts"] == [
        {
            "id_a": "test/dog/00.jpg",
            "id_b": "train/cat/03.jpg",
            "label_a": "dog",
            "label_b": "cat",
            "kind": "exact",
        }
    ]
    assert findings["dead_features"] == [{"layer": "penultimate", "feature": 5, "value": 0.0}]
    assert {name: set(rows[0]) for name, rows in findings.items() if rows}.items() <= {
        name: set(columns) for name, columns in FIELDS.items()
    }.items()
    json.dumps([hygiene, findings], allow_nan=False)
    write_findings(tmp_path / "findings", findings)
    assert len(list((tmp_path / "findings").iterdir())) == len(FIELDS)


def test_what_was_not_searched_is_said(looked_over) -> None:
    features = looked_over
    data = read_dataset(features)
    rows = np.concatenate([data.train.rows, data.test.rows])
    duplicates = find_duplicates(features, "penultimate", rows, max_seconds=0)
    shares = np.full((len(data.train), 2), np.nan)
    hygiene, findings, notes = inspect(features, data, duplicates, shares, layer="penultimate", layers=["penultimate"])
    assert not hygiene["duplicates"]["searched"]
    assert "not looked for" in hygiene["duplicates"]["words"]
    assert hygiene["label_issues"]["n_checked"] == 0
    assert findings["suspect_labels"] == []
    assert notes == duplicates.notes
    assert len(notes) == 1
