"""What compare says of folders that it cannot compare."""

import pytest

from simfle_jax.commands import compare
from simfle_jax.errors import UserError
from simfle_jax.evaluation.records import write_predictions


@pytest.mark.parametrize(
    "file, said", [("landmarks.safetensors", "is a probe of landmarks"), ("notes.txt", r"holds no predictions\.csv")]
)
def test_a_folder_without_predictions_is_told(file, said, tmp_path):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        compare._read(tmp_path)


def test_what_was_evaluated_later_is_compared_when_asked_for(tmp_path, capsys):
    for folder, given in (("a", "happy"), ("b", "sad")):
        (tmp_path / folder).mkdir()
        for file, names in zip(compare.FILES, (("1.jpg", "2.jpg"), ("3.jpg", "4.jpg", "5.jpg"))):
            rows = [(name, label, given, 0.5) for name, label in zip(names, ("happy", "sad", "sad"))]
            write_predictions(tmp_path / folder / file, rows)
    assert compare.compare(tmp_path / "a", tmp_path / "b")["count"] == 2
    assert compare.compare(tmp_path / "a", tmp_path / "b", evaluation=True)["count"] == 3
    compare.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "--evaluation compares what was evaluated later" in capsys.readouterr().err
