"""What compare says of folders that it cannot compare."""

import pytest

from simfle_jax.commands import compare
from simfle_jax.errors import UserError


@pytest.mark.parametrize(
    "file, said", [("landmarks.safetensors", "is a probe of landmarks"), ("notes.txt", r"holds no predictions\.csv")]
)
def test_a_folder_without_predictions_is_told(file, said, tmp_path):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        compare._read(tmp_path)
