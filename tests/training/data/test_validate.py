from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.data.trees import SIZE, TASKS, all_maps, folder, write_record, write_split
from training.data import BrokenLabelsError, LabelError, build_source, find_broken_labels, validate
from training.data.encodings import LabelFile, read_image_file
from training.data.errors import DataError
from training.data.maps import LabelMap


def _break(root: Path) -> list[Path]:
    broken = [root / "semseg" / "a.png", root / "depth" / "b.png", root / "images" / "c.png"]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:60])
    broken[2].write_bytes(b"not an image")
    return broken


def test_every_broken_file_is_found_before_training(tmp_path: Path) -> None:
    for name in "abcd":
        write_record(tmp_path, name, all_maps())
    write_split(tmp_path, list("abcd"))
    source = build_source(folder(tmp_path), TASKS, SIZE, None)
    validate([source])

    paths = _break(tmp_path)
    assert [error.path for error in find_broken_labels([source])] == paths
    with pytest.raises(BrokenLabelsError) as caught:
        validate([source])
    assert isinstance(caught.value, DataError)
    for path in paths:
        assert str(path) in str(caught.value)


def test_files_that_are_not_read_are_not_checked(tmp_path: Path) -> None:
    write_record(tmp_path, "a", all_maps())
    write_split(tmp_path, ["a"])
    (tmp_path / "semseg" / "a.png").write_bytes(b"")
    validate([build_source(folder(tmp_path, read=["depth"]), TASKS, SIZE, None)])


def test_a_long_list_is_cut() -> None:
    error = BrokenLabelsError([LabelError(Path(f"{index}.png"), "is broken") for index in range(50)])
    assert "50 file(s)" in str(error)
    assert "and 30 more" in str(error)
    assert len(error.errors) == 50


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut=st.integers(0, 150), at=st.integers(0, 150), byte=st.integers(0, 255))
def test_damaged_bytes_give_a_label_error_or_a_map(tmp_path: Path, cut: int, at: int, byte: int) -> None:
    write_record(tmp_path, "a", {"semseg": all_maps()["semseg"]})
    path = tmp_path / "semseg" / "a.png"
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data[: len(data) - cut])
    try:
        LabelFile(path, LabelMap, 21).read()
        read_image_file(path, SIZE)
    except LabelError as error:
        assert error.path == path  # noqa: PT017
