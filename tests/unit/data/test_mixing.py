import collections

import numpy as np
import pytest
from images import write_classes, write_folder

from simfle_jax.data.decode import decode
from simfle_jax.data.mixing import MixedSource, Part, open_mixed
from simfle_jax.data.packing import pack
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import FolderSource, fingerprint
from simfle_jax.errors import UserError


@pytest.fixture
def parts(tmp_path):
    large, small = write_folder(tmp_path / "large", 24), write_folder(tmp_path / "small", 6, size=30)
    return FolderSource(large), FolderSource(small)


def names(source):
    return [source.name(index) for index in range(len(source))]


def test_the_listing_has_the_shares_and_every_image(parts):
    mixed = MixedSource([Part(parts[0], 3), Part(parts[1], 1)])
    counts = collections.Counter(names(mixed))
    assert len(mixed) == 32
    assert [counts[f"0:{n:03d}.jpg"] for n in range(24)] == [1] * 24
    assert [counts[f"1:{n:03d}.jpg"] for n in range(6)] == [2, 1, 1, 2, 1, 1]
    even = MixedSource([Part(parts[0], 4), Part(parts[1], 1)])
    as_before = fingerprint([(part.fingerprint, count) for part, count in zip(parts, (24, 6))])
    assert even.fingerprint == as_before, "a run of before goes on where every image has as many places as then"
    assert mixed.fingerprint != fingerprint([(part.fingerprint, count) for part, count in zip(parts, (24, 8))])


@pytest.mark.parametrize(
    ("weights", "length"), [((1, 1), 48), ((0.8, 0.2), 30), ((8, 2), 30), ((1, 9), 240), ((9, 1), 60)]
)
def test_weights_are_relative_and_no_image_is_left_out(parts, weights, length):
    mixed = MixedSource([Part(source, weight) for source, weight in zip(parts, weights)])
    of_first = sum(name.startswith("0:") for name in names(mixed))
    assert len(mixed) == length and of_first == pytest.approx(weights[0] / sum(weights) * length, abs=1)
    assert len(set(names(mixed))) == 30


def test_records_are_those_of_the_parts(parts):
    mixed = MixedSource([Part(parts[0], 1), Part(parts[1], 1)])
    assert mixed[23] == ("0:023.jpg", parts[0][23].data, None)
    assert mixed[24 + 8] == ("1:002.jpg", parts[1][2].data, None)
    assert mixed.labels is None and mixed.classes is None


def test_every_epoch_has_the_shares_and_repeats_from_any_step(parts):
    mixed = MixedSource([Part(parts[0], 3), Part(parts[1], 1)])
    settings = {"seed": 2, "batch_size": 8, "canvas": 12, "threads": 2}
    with TrainBatches(mixed, **settings) as batches:
        seen = [next(batches) for _ in range(8)]
    for epoch in (seen[:4], seen[4:]):
        assert sum(mixed.name(i).startswith("1:") for b in epoch for i in b["index"].tolist()) == 8
    with TrainBatches(mixed, **settings, start_step=5) as batches:
        np.testing.assert_array_equal(next(batches)["image"], seen[5]["image"])
    np.testing.assert_array_equal(seen[0]["image"][0], decode(mixed[int(seen[0]["index"][0])].data, 12))


def test_the_fingerprint_knows_parts_and_weights(parts):
    prints = {
        MixedSource([Part(parts[0], a), Part(parts[b], 1)]).fingerprint for a, b in ((3, 1), (1, 1), (3, 0), (6, 1))
    }
    assert len(prints) == 4


def test_sources_of_different_kinds_by_name(tmp_path):
    write_classes(tmp_path / "a=b" / "train", {"happy": 2, "sad": 2})
    write_folder(tmp_path / "flat", 4)
    pack(str(tmp_path / "flat"), str(tmp_path / "pack"))
    mixed = open_mixed((f"folder@{tmp_path}/a=b/train=0.5", f"array_record@{tmp_path}/pack=0.5"))
    assert names(mixed)[::3] == ["0:happy/000.jpg", "0:sad/001.jpg", "1:002.jpg"]


@pytest.mark.parametrize("entry", ["folder", "folder@/data", "folder@/data=", "folder@/data=0", "@", "folder@/a=nan"])
def test_other_forms_are_refused(entry):
    with pytest.raises(UserError, match=r"data.sources: .* SOURCE@PATH=WEIGHT"):
        open_mixed((entry,))


def test_a_part_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data.sources: 'folder@.*absent=1': no folder .*absent"):
        open_mixed((f"folder@{tmp_path}/absent=1",))
