"""The decoded cache: the pictures in order, made once, made anew when a file changes."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_folders import SIZE_PIXELS, picture, png, write_image_folder, write_tar

import cogview.data.image_array as image_array
from cogview.data.image_array import ImageArray, splits_of
from cogview.errors import CogViewError


def test_pictures_come_in_order_and_as_they_are(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"], ["c"]])
    images = ImageArray.from_folder(folder, SIZE_PIXELS)
    assert len(images) == 3
    assert images.pixels.shape == (3, SIZE_PIXELS, SIZE_PIXELS, 3)
    assert all(np.array_equal(images[i], np.asarray(picture(i))) for i in range(3))


def test_the_second_call_decodes_nothing(tmp_path, monkeypatch):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    first = ImageArray.from_folder(folder, 8)
    monkeypatch.setattr(image_array, "decode_into", None)
    assert np.array_equal(ImageArray.from_folder(folder, 8).pixels, first.pixels)


def test_a_changed_file_is_decoded_again(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    ImageArray.from_folder(folder, SIZE_PIXELS)
    (folder / "images" / "1.png").write_bytes(png(7))
    assert np.array_equal(ImageArray.from_folder(folder, SIZE_PIXELS)[1], np.asarray(picture(7)))


def test_splits_are_told_apart(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]], split="train")
    with (folder / "metadata.jsonl").open("a") as file:
        (folder / "images" / "held.png").write_bytes(png(5))
        file.write(json.dumps({"file_name": "images/held.png", "text": "c", "split": "held-out"}) + "\n")
    assert splits_of(folder) == {"train", "held-out"}
    assert len(ImageArray.from_folder(folder, 8, "train")) == 2
    held = ImageArray.from_folder(folder, SIZE_PIXELS, "held-out")
    assert len(held) == 1
    assert np.array_equal(held[0], np.asarray(picture(5)))


def test_tars_are_read_too(tmp_path):
    members = {f"{i}.png": png(i) for i in range(3)} | {f"{i}.txt": b"a" for i in range(3)}
    tar = write_tar(tmp_path / "data" / "a.tar", dict(sorted(members.items())))
    for source in (tar, tar.parent):
        images = ImageArray.from_folder(source, SIZE_PIXELS)
        assert all(np.array_equal(images[i], np.asarray(picture(i))) for i in range(3))


def test_what_cannot_be_read_is_left_out_with_one_warning(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"], ["c"], ["d"]])
    (folder / "images" / "0.png").write_bytes(b"broken")
    (folder / "images" / "2.png").unlink()
    for _ in range(2):  # decoded, and found in the cache
        with pytest.warns(UserWarning, match=r"2 pictures.* images/0\.png") as caught:
            images = ImageArray.from_folder(folder, SIZE_PIXELS)
        assert len(caught) == 1
        assert len(images) == 2
    assert [np.array_equal(images[i], np.asarray(picture(n))) for i, n in enumerate((1, 3))] == [True, True]


def test_nothing_is_left_behind_when_no_picture_can_be_read(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"]])
    (folder / "images" / "0.png").write_bytes(b"broken")
    with pytest.raises(CogViewError, match=r"no picture of .* can be read"):
        ImageArray.from_folder(folder, 8)
    assert not list((folder / "cache").iterdir())


def test_what_a_kill_left_is_removed_but_not_what_a_living_process_decodes(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    (folder / "cache").mkdir()
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom cogview.folders import temporary_folder\n"
        "with temporary_folder(Path(sys.argv[1]) / 'pixels') as scratch:\n"
        "    (scratch / 'all.npy').touch()\n    print(scratch, flush=True)\n    time.sleep(300)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, folder / "cache"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(process.stdout.readline().strip()) for process in processes)
        processes[0].kill()
        processes[0].wait()
        assert killed.is_dir()
        assert living.is_dir()
        ImageArray.from_folder(folder, SIZE_PIXELS)
        assert not killed.exists()
        assert (living / "all.npy").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_full_disk_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    def full(pairs, size_pixels):
        yield b"", np.zeros((size_pixels, size_pixels, 3), np.uint8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    monkeypatch.setattr(image_array, "squares", full)
    with pytest.raises(CogViewError, match="cannot be written"):
        ImageArray.from_folder(folder, 8)
    assert not list((folder / "cache").iterdir())


def test_progress_counts_to_the_end(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"], ["c"]])
    seen = []
    ImageArray.from_folder(folder, 8, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    folder = write_image_folder(tmp_path / "data", [["a"]])
    (folder / "cache").write_text("in the way")
    with pytest.raises(CogViewError, match="cannot be written"):
        ImageArray.from_folder(folder, 8)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00"])
def test_a_damaged_cache_is_one_line_that_says_what_to_do(tmp_path, content):
    folder = write_image_folder(tmp_path / "data", [["a"], ["b"]])
    ImageArray.from_folder(folder, SIZE_PIXELS)
    (path,) = (folder / "cache").glob("pixels-*.npy")
    path.write_bytes(content)
    with pytest.raises(CogViewError, match="damaged"):
        ImageArray.from_folder(folder, SIZE_PIXELS)


def test_a_split_that_is_changed_beside_its_picture_is_seen(tmp_path):
    for index, split in enumerate(("train", "held-out")):
        (tmp_path / f"{index}.png").write_bytes(png(index))
        (tmp_path / f"{index}.json").write_text(json.dumps({"text": "a", "split": split}))
    assert len(ImageArray.from_folder(tmp_path, 8, "train")) == 1
    (tmp_path / "1.json").write_text(json.dumps({"text": "a", "split": "train"}))
    assert len(ImageArray.from_folder(tmp_path, 8, "train")) == 2


def test_the_cache_serves_only_the_very_same_bytes(tmp_path):
    def members(number):
        return {"0.png": png(number), "0.txt": b"a"}

    tar = write_tar(tmp_path / "a.tar", members(1))
    first = ImageArray.from_folder(tar, SIZE_PIXELS)[0].copy()
    status, length = tar.stat(), len(tar.read_bytes())
    write_tar(tar, members(2))
    assert len(tar.read_bytes()) == length
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = ImageArray.from_folder(tar, SIZE_PIXELS)[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(second, np.asarray(picture(2)))


def test_captions_are_not_needed_and_other_ones_change_nothing(tmp_path, monkeypatch):
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    assert len(ImageArray.from_folder(tmp_path, 8)) == 2
    assert splits_of(tmp_path) == frozenset()
    (tmp_path / "0.txt").write_text("a caption")
    monkeypatch.setattr(image_array, "decode_into", None)
    assert len(ImageArray.from_folder(tmp_path, 8)) == 2


def test_a_picture_that_lies_on_its_side_is_decoded_anew_once_that_is_told(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0))
    lying = ImageArray.from_folder(tmp_path, SIZE_PIXELS)[0].copy()
    (tmp_path / "0.json").write_text(json.dumps({"exif": json.dumps({"Image Orientation": "Rotated 90 CW"})}))
    assert np.array_equal(ImageArray.from_folder(tmp_path, SIZE_PIXELS)[0], np.rot90(lying, -1))
