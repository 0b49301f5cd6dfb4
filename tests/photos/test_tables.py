"""Labels in tables: in any usual encoding, delimiter and naming of columns."""

from __future__ import annotations

from collections import Counter

import pytest

from catordog.errors import CatordogError
from catordog.photos.csv_lists import parse_table
from catordog.photos.datasets import open_dataset
from catordog.photos.splits import SplitFractions
from conftest import write_folder, write_zip

FRACTIONS = SplitFractions(0.25, 0.25)
BREEDS = ("beagle", "boxer", "beagle", "pug", "boxer", "pug")
IMAGES = {f"images/{number:03}.jpg": b"x%d" % number for number in range(6)}


def table(header: str, row: str, breeds: tuple[str, ...] = BREEDS) -> bytes:
    """A table of the photos `IMAGES`; `row` is a format of a number and a breed."""
    rows = [row.format(number=number, breed=breed) for number, breed in enumerate(breeds)]
    return "\n".join([*filter(None, [header]), *rows, ""]).encode()


def tally(found) -> dict[str, int]:
    return dict(Counter(found.classes[photo.label] for photo in found.photos))


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("id,label", "{number:03},{breed}", "'label' of 'id'"),
        ("path,class", "images/{number:03}.jpg,{breed}", "'class' of 'path'"),
        ("filename,breed", "{number:03}.jpg,{breed}", "'breed' of 'filename'"),
        ("Image ID,Breed Name", "{number:03},{breed}", "'Breed Name' of 'Image ID'"),
        ("rasse;bild", "{breed};{number:03}.jpg", "'rasse' of 'bild'"),
        ("nr;id;weight;breed", "{number};{number:03};3,5;{breed}", "'breed' of 'id'"),
        ("file\tcategory", "{number:03}.jpg\t{breed}", "'category' of 'file'"),
        ("", "images/{number:03}.jpg,{breed}", "2 of 1"),
        ("", "{number:03}.jpg {breed}", "2 of 1"),
        ("path,label", "/kaggle/input/dogs/images/{number:03}.jpg,{breed}", "'label' of 'path'"),
        ("path,label", r"C:\dogs\images\{number:03}.jpg,{breed}", "'label' of 'path'"),
        ("id,age,breed,colour", "{number:03},{number},{breed},red", "'breed' of 'id'"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "wrapped", "zip", "table"])
def test_labels_are_found_in_a_table_and_its_columns_are_shown(
    tmp_path, capsys, header, row, columns, form
):
    files = IMAGES | {"labels.csv": table(header, row)}
    if form == "wrapped":
        files = {f"dogs/{name}": data for name, data in files.items()}
    if form == "zip":
        data = write_zip(tmp_path / "dogs.zip", files)
    else:
        data = write_folder(tmp_path / "data", files)
    if form == "table":
        data /= "labels.csv"
    found = open_dataset(str(data))
    assert tally(found) == {"beagle": 2, "boxer": 2, "pug": 2}
    assert [found.classes[photo.label] for photo in found.photos] == list(BREEDS)
    assert found.photos[3].read() == b"x3"
    assert found.unlabelled == 0
    err = capsys.readouterr().err
    assert "labels from " in err
    assert f"labels.csv: column {columns}\n" in err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_table_may_have_any_usual_encoding_and_delimiter(encoding, delimiter, newline):
    text = newline.join(
        delimiter.join(row) for row in (("id", "rasse"), ("Füchsle", "Katze"), ("b", "Hund"))
    )
    found = parse_table(text.encode(encoding))
    assert found.columns == ("id", "rasse")
    assert found.rows == [["Füchsle", "Katze"], ["b", "Hund"]]


def test_cells_in_quotes_may_have_delimiters_and_line_breaks():
    found = parse_table(b'path,label\n"a, b.jpg","two\nlines"\nc.jpg,dog\n')
    assert found.rows == [["a, b.jpg", "two\nlines"], ["c.jpg", "dog"]]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\x00\x01\x02\xff" * 40, b"PK\x03\x04" + bytes(9)])
def test_what_is_no_table_is_refused(tmp_path, data):
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(CatordogError, match=r"labels\.csv") as caught:
        open_dataset(str(tmp_path / "labels.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["folder", "table"])
def test_rows_without_a_file_and_files_without_a_row_are_counted_and_named(tmp_path, capsys, form):
    breeds = (*BREEDS, "pug", "pug")
    files = IMAGES | {"labels.csv": table("id,breed", "{number:03},{breed}", breeds)}
    files |= {"images/extra.jpg": b"x", "images/more.jpg": b"x"}
    root = write_folder(tmp_path, files)
    found = open_dataset(str(root if form == "folder" else root / "labels.csv"))
    assert tally(found) == {"beagle": 2, "boxer": 2, "pug": 2}
    assert "2 rows have no file: 006, 007" in capsys.readouterr().err
    assert found.unlabelled == 2
    assert "2 without a label left out: images/extra.jpg, images/more.jpg" in found.summary()


def test_a_table_whose_photos_are_all_missing_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(table("path,label", "{number}.jpg,{breed}"))
    with pytest.raises(CatordogError, match=r"none of the 6 photos that it lists.*0\.jpg, beagle"):
        open_dataset(str(tmp_path / "labels.csv"))


def test_class_folders_win_over_a_table(tmp_path):
    files = {f"{label}/{i}.jpg": b"x" for label in ("cat", "dog") for i in range(3)}
    files["list.csv"] = b"path,label\ncat/0.jpg,dog\ncat/1.jpg,pug\n"
    assert open_dataset(str(write_folder(tmp_path, files))).classes == ("cat", "dog")


def test_a_table_wins_over_numbered_parts_of_a_dataset(tmp_path):
    files = {f"images_part_{1 + i % 2}/{i:03}.jpg": b"x" for i in range(6)}
    files["metadata.csv"] = table("image_id,dx", "{number:03},{breed}")
    found = open_dataset(str(write_folder(tmp_path, files)))
    assert found.classes == ("beagle", "boxer", "pug")
    del files["metadata.csv"]
    parts = write_zip(tmp_path / "parts.zip", files)
    assert open_dataset(str(parts)).classes == ("images_part_1", "images_part_2")


def test_kaggles_labels_of_a_train_folder_leave_its_test_folder_out(tmp_path):
    files = {f"train/{i:03}.jpg": b"x%d" % i for i in range(6)}
    files |= {f"test/{i}.jpg": b"y%d" % i for i in range(900, 904)}
    files["labels.csv"] = table("id,breed", "{number:03},{breed}")
    files["sample_submission.csv"] = b"id,beagle,pug\n" + b"".join(
        b"%d,0.5,0.5\n" % i for i in range(900, 904)
    )
    found = open_dataset(str(write_folder(tmp_path, files)))
    assert tally(found) == {"beagle": 2, "boxer": 2, "pug": 2}
    assert found.unlabelled == 4
    assert "test/" in found.summary()


def test_a_table_for_each_split_gives_the_splits(tmp_path):
    files = dict(IMAGES)
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        rows = "".join(f"{n:03}.jpg,{('cat', 'dog')[n % 2]}\n" for n in numbers)
        files[f"{split}_labels.csv"] = f"file,label\n{rows}".encode()
    found = open_dataset(str(write_folder(tmp_path, files)))
    assert found.splits(FRACTIONS) == ["train"] * 4 + ["val"] * 2


def test_a_file_name_that_several_photos_have_means_none_of_them(tmp_path, capsys):
    files = {f"{part}/{i}.jpg": b"x" for part in ("a", "b") for i in range(3)}
    files["labels.csv"] = b"path,label\na/0.jpg,cat\na/1.jpg,dog\nb/2.jpg,dog\n2.jpg,cat\n"
    found = open_dataset(str(write_folder(tmp_path, files) / "labels.csv"))
    assert tally(found) == {"cat": 1, "dog": 2}
    assert "1 row has no file: 2.jpg" in capsys.readouterr().err


def test_a_column_of_long_texts_does_no_harm(tmp_path):
    rows = [f"{i:03}.jpg,{breed},{'long ' * 900}" for i, breed in enumerate(BREEDS)]
    text = "\n".join(["file,breed,description", *rows])
    root = write_folder(tmp_path, IMAGES | {"labels.csv": text.encode()})
    for data in (root, root / "labels.csv"):
        assert tally(open_dataset(str(data))) == {"beagle": 2, "boxer": 2, "pug": 2}


def test_a_quote_that_is_not_closed_is_named(tmp_path):
    rows = ["file,breed", '000.jpg,"beagle', *(f"{i:06}.jpg,pug" for i in range(10_000))]
    root = write_folder(tmp_path, IMAGES | {"labels.csv": "\n".join(rows).encode()})
    with pytest.raises(CatordogError, match="a cell has over 131,072 characters: is it a table"):
        open_dataset(str(root / "labels.csv"))


def test_a_column_called_dataset_may_say_where_a_photo_is_from(tmp_path):
    rows = table("id,label,dataset", "{number:03},{breed},kaggle")
    found = open_dataset(str(write_folder(tmp_path / "a", IMAGES | {"labels.csv": rows})))
    assert {photo.own_split for photo in found.photos} == {None}
    rows = table("id,label,dataset", "{number:03},{breed},test")
    found = open_dataset(str(write_folder(tmp_path / "b", IMAGES | {"labels.csv": rows})))
    assert {photo.own_split for photo in found.photos} == {"test"}


def test_a_photo_that_a_table_lists_under_several_paths_counts_once(tmp_path):
    folder = write_folder(tmp_path / "pets", {f"{number}.jpg": number.encode() for number in "12"})
    lines = ["path,label", "1.jpg,cat", "../pets/1.jpg,cat", f"{folder}/1.jpg,cat", "2.jpg,dog"]
    (folder / "labels.csv").write_text("\n".join(lines))
    assert open_dataset(str(folder / "labels.csv")).photos.names == ["1.jpg", "2.jpg"]


def test_where_labels_are_optional_a_table_without_labels_is_no_error(tmp_path, capsys):
    rows = table("file,width,height", "{number:03}.jpg,{number},{number}")
    data = str(write_folder(tmp_path / "pets", IMAGES | {"sizes.csv": rows}))
    with pytest.raises(CatordogError, match="which of its columns has the labels"):
        open_dataset(data)
    assert len(open_dataset(data, labels="optional").photos) == 6
    assert "which of its columns has the labels" in capsys.readouterr().err


def test_other_faults_of_a_table_are_errors_also_where_labels_are_optional(tmp_path):
    rows = table("id,label", "{number:03},{breed}") + b"000,pug\n"
    data = str(write_folder(tmp_path / "pets", IMAGES | {"labels.csv": rows}))
    with pytest.raises(CatordogError, match="listed twice, differently"):
        open_dataset(data, labels="optional")


def test_a_photo_beyond_a_link_is_not_taken_for_another_of_its_name(tmp_path):
    write_folder(tmp_path, {"pets/a.png": b"here", "far/a.png": b"there", "far/in/b.png": b"b"})
    (tmp_path / "pets" / "link").symlink_to(tmp_path / "far" / "in", target_is_directory=True)
    listed = tmp_path / "pets" / "labels.csv"
    listed.write_text("path,label\nlink/../a.png,cat\na.png,dog\n")
    found = open_dataset(str(listed))
    assert {photo.read() for photo in found.photos} == {b"here", b"there"}
