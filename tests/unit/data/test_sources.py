import errno
import hashlib
import os
import pickle
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from images import encode, smooth, write_classes, write_folder

from simfle_jax.data import files, listing
from simfle_jax.data.files import BadImage, is_image, is_service, patiently, read_file
from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import FolderSource, check_same_classes
from simfle_jax.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.JPG", "b/1.jpeg", "a/x/deep.PNG", "top.WebP", "z.JpEg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    for name in ("notes.txt", "b/.hidden.jpg", ".cache/3.jpg", "b/jpg", "landmarks.npz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    return tmp_path


def names(source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def test_lists_images_of_every_extension_sorted_by_relative_path(tree):
    assert names(FolderSource(tree)) == ["a/x/deep.PNG", "b/1.jpeg", "b/2.JPG", "top.WebP", "z.JpEg"]


def test_records_hold_the_bytes_of_the_named_file(tree):
    source = FolderSource(tree)
    assert [source[i].data.decode() for i in range(5)] == names(source)
    assert source[1] == ("b/1.jpeg", b"b/1.jpeg", None)
    assert source.classes is None and source.labels is None


def test_classes_are_the_sorted_folders_of_the_split(tmp_path):
    write_classes(tmp_path / "train", {"sad": 2, "happy": 3})
    nested = tmp_path / "train" / "happy" / "from" / "web" / "9.jpg"
    nested.parent.mkdir(parents=True)
    nested.write_bytes(b"x")
    (tmp_path / "train" / "stray.jpg").write_bytes(b"beside the classes")
    source = FolderSource(tmp_path, labelled=True, split="train")
    assert source.classes == ("happy", "sad")
    assert names(source) == [f"happy/00{i}.jpg" for i in range(3)] + [
        "happy/from/web/9.jpg",
        "sad/000.jpg",
        "sad/001.jpg",
    ]
    np.testing.assert_array_equal(source.labels, [0, 0, 0, 0, 1, 1])
    assert source[4].label == 1


def test_class_order_is_that_of_names_even_where_paths_sort_otherwise(tmp_path):
    write_classes(tmp_path, {"a": 1, "a-b": 1})  # "a-b/" sorts before "a/" as a path, after it as a name
    source = FolderSource(tmp_path, labelled=True)
    assert source.classes == ("a", "a-b")
    assert [source.name(i).split("/")[0] for i in range(2)] == [source.classes[label] for label in source.labels]


def test_fingerprint_is_a_hash_of_names_and_sizes_and_nothing_else(tree):
    expected = hashlib.sha256()
    for name in names(FolderSource(tree)):
        expected.update(f"{name}\0{len(name)}\n".encode())
    assert FolderSource(tree).fingerprint == expected.hexdigest()
    (tree / "z.JpEg").write_bytes(b"Z.jPeG")
    assert FolderSource(tree).fingerprint == expected.hexdigest()
    (tree / "z.JpEg").write_bytes(b"longer than before")
    assert FolderSource(tree).fingerprint != expected.hexdigest()


def test_pickles_small_and_equal(tmp_path):
    write_folder(tmp_path, 50)
    source = FolderSource(tmp_path)
    data = pickle.dumps(source)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert names(copy) == names(source) and copy[3] == source[3]


def test_names_outside_ascii_and_utf8_are_read(tmp_path):
    (tmp_path / "Ärger – 1.jpg").write_bytes(b"1")
    with open(bytes(tmp_path) + b"/\xff.jpg", "wb") as file:
        file.write(b"2")
    source = FolderSource(tmp_path)
    assert sorted(source[i].data for i in range(2)) == [b"1", b"2"]
    assert len(source.fingerprint) == 64


def test_follows_links_to_folders_once_and_ends_in_a_loop(tree):
    (tree / "a" / "loop").symlink_to(tree, target_is_directory=True)
    elsewhere = tree.parent / f"{tree.name}-elsewhere"
    write_folder(elsewhere, 2)
    (tree / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert names(FolderSource(tree)) == [
        "a/x/deep.PNG", "b/1.jpeg", "b/2.JPG", "linked/000.jpg", "linked/001.jpg", "top.WebP", "z.JpEg",
    ]  # fmt: skip


def test_a_link_to_nowhere_is_listed_and_fails_only_when_read(tree):
    (tree / "gone.jpg").symlink_to(tree / "nowhere.jpg")
    source = FolderSource(tree)
    index = names(source).index("gone.jpg")
    assert len(source.fingerprint) == 64
    with pytest.raises(BadImage, match="a link to nowhere"):
        source[index]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*absent.*--config.data.path"):
        FolderSource(tmp_path / "absent")


def test_no_path_at_all():
    with pytest.raises(UserError, match=r"data.path is empty"):
        FolderSource("")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"faces.zip is a file"):
        FolderSource(tmp_path / "faces.zip")


def test_missing_split_tells_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*val .*val/CLASS/IMAGE"):
        FolderSource(tmp_path, labelled=True, split="val")


def test_empty_folder_says_what_is_looked_for(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no image in .*\.jpg \.jpeg \.png \.webp"):
        FolderSource(tmp_path)


def test_labelled_needs_class_folders(tmp_path):
    write_folder(tmp_path, 3)
    with pytest.raises(UserError, match=r"at least two class folders and has none"):
        FolderSource(tmp_path, labelled=True)


def test_one_class_is_named(tmp_path):
    write_classes(tmp_path, {"happy": 3})
    with pytest.raises(UserError, match=r"has only 'happy'"):
        FolderSource(tmp_path, labelled=True)


def test_a_class_without_images_is_named(tmp_path):
    write_classes(tmp_path, {"happy": 3, "sad": 0, "angry": 1})
    with pytest.raises(UserError, match=r"no image in the class folder sad"):
        FolderSource(tmp_path, labelled=True)


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listing.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be listed: Permission denied"):
        FolderSource(tree)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("anger", "fear"), "lacks joy;"),
        (("anger", "fear", "joy", "awe"), "has awe besides;"),
        (("anger", "fear", "happy"), "lacks joy and has happy besides;"),
    ],
)
def test_differing_classes_are_named(other, message):
    with pytest.raises(UserError, match=message):
        check_same_classes(("anger", "fear", "joy"), other, "DIR/val")


def test_open_source_by_its_name(tmp_path):
    (tmp_path / "1.png").write_bytes(encode(smooth(8, 8), "PNG"))
    assert names(open_source("folder", str(tmp_path))) == ["1.png"]
    with pytest.raises(UserError, match=r"data.source='floder'"):
        open_source("floder", str(tmp_path))


SERVICE = [
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "__MACOSX",
    "lost+found",
    ".ipynb_checkpoints",
    "System Volume Information",
]


@pytest.mark.parametrize("service", SERVICE)
def test_service_folders_are_no_data_and_no_class(tmp_path, service):
    write_classes(tmp_path, {"happy": 2, "sad": 1})
    for folder in (tmp_path / service, tmp_path / "happy" / service / "000.jpg"):
        write_folder(folder, 2)
    (tmp_path / "sad" / "._000.jpg").write_bytes(b"of a Mac")
    source = FolderSource(tmp_path, labelled=True)
    assert source.classes == ("happy", "sad")
    assert names(source) == names(FolderSource(tmp_path)) == ["happy/000.jpg", "happy/001.jpg", "sad/000.jpg"]


def test_a_service_folder_that_may_not_be_read_stops_nothing(tmp_path, monkeypatch):
    write_folder(tmp_path, 2)
    (tmp_path / "lost+found").mkdir()
    original = listing.os.scandir

    def scandir(path):
        if b"lost+found" in path:
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    assert len(FolderSource(tmp_path)) == 2


def test_one_rule_names_services_and_images():
    assert all(map(is_service, [*SERVICE, b"Thumbs.db", ".DS_Store", "@EADIR"]))
    assert not any(map(is_service, ["happy", "eaDir", "@home", "#1", b"a.jpg"]))
    assert is_image("a.JPG") and is_image(b"\xff.png") and is_image("a.bmp", (".bmp",))
    assert not is_image("._a.jpg") and not is_image("a.txt")


@pytest.mark.parametrize("turned", [False, True])
def test_links_give_the_same_list_in_any_order_of_the_folder(tmp_path, monkeypatch, turned):
    """A folder counts once: at its own place, or under the first of the links to it."""
    elsewhere, root = write_folder(tmp_path / "elsewhere" / "deep", 2).parent, tmp_path / "root"
    write_folder(root / "own", 1)
    for link, target in {
        "z": elsewhere,
        "b": elsewhere,
        "copy": root / "own",
        "up": root,
        "y": elsewhere / "deep",
    }.items():
        (root / link).symlink_to(target, target_is_directory=True)
    original = listing.os.scandir

    class Ordered(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    order = lambda path: Ordered(sorted(original(path), key=lambda entry: entry.name, reverse=turned))  # noqa: E731
    monkeypatch.setattr(listing.os, "scandir", order)
    assert names(FolderSource(root)) == ["b/deep/000.jpg", "b/deep/001.jpg", "own/000.jpg"]


def test_only_regular_files_are_images(tmp_path):
    write_folder(tmp_path, 2)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "linked-pipe.jpg").symlink_to(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        assert names(FolderSource(tmp_path)) == ["000.jpg", "001.jpg"]
        for name in ("pipe.jpg", "linked-pipe.jpg", "socket.jpg"):
            with pytest.raises(BadImage, match="not a regular file"):
                read_file(str(tmp_path / name))


def test_a_link_to_nowhere_stays_one_when_something_appears(tree):
    (tree / "late.jpg").symlink_to(tree / "later")
    source = FolderSource(tree)
    (tree / "later").write_bytes(b"now it is there")
    with pytest.raises(BadImage, match="a link to nowhere"):
        source[names(source).index("late.jpg")]


def test_a_file_that_was_listed_and_is_gone_stops_the_run(tmp_path):
    source = FolderSource(write_folder(tmp_path, 2))
    (tmp_path / "001.jpg").unlink()
    with pytest.raises(UserError, match=r"001.jpg cannot be read: it was there when the folder was listed"):
        patiently(lambda: source[1].data, "001.jpg cannot be read")


def test_sizes_of_many_files_are_asked_for_in_threads_and_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "CHUNK", 3)
    asked = set()
    original = listing.file_size
    monkeypatch.setattr(listing, "file_size", lambda path: asked.add(threading.current_thread()) or original(path))
    expected = hashlib.sha256()
    for number in range(40):
        (tmp_path / f"{number:02d}.jpg").write_bytes(bytes(number))
        expected.update(f"{number:02d}.jpg\0{number}\n".encode())
    assert FolderSource(tmp_path).fingerprint == expected.hexdigest()
    assert threading.main_thread() not in asked


def test_a_size_that_cannot_be_told_now_is_no_other_fingerprint(tmp_path, monkeypatch):
    source, first = FolderSource(write_folder(tmp_path, 3)), [True]
    expected, original = FolderSource(tmp_path).fingerprint, os.stat

    def stat(path, *arguments, **options):
        if str(path).endswith("001.jpg") and first.pop() if first else False:
            raise OSError(errno.ESTALE, "Stale file handle")
        return original(path, *arguments, **options)

    monkeypatch.setattr(files, "PAUSES", (0.0,))
    monkeypatch.setattr(listing.os, "stat", stat)
    assert source.fingerprint == expected and not first


def test_the_quick_fingerprint_sees_other_names_and_other_sizes(tmp_path):
    write_folder(tmp_path, 5)
    first = FolderSource(tmp_path).quick_fingerprint
    assert FolderSource(tmp_path).quick_fingerprint == first
    (tmp_path / "002.jpg").write_bytes(b"another")
    assert FolderSource(tmp_path).quick_fingerprint != first


def test_a_link_that_comes_to_lead_elsewhere_changes_no_image_of_a_run(tmp_path):
    for version in (1, 2):
        write_folder(tmp_path / f"v{version}", 3, 20 + version)
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    source = FolderSource(tmp_path / "current")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "v2")
    before, after = FolderSource(tmp_path / "v1"), FolderSource(tmp_path / "v2")
    assert source.fingerprint == before.fingerprint != after.fingerprint
    assert [source[i].data for i in range(3)] == [before[i].data for i in range(3)]
