"""Test reading label tables written by hand or by spreadsheet programs."""

import pytest

from leaf.errors import LeafError
from leaf.ingest.folder_source import Finder
from leaf.ingest.label_tables import read_labels


@pytest.fixture
def table(tmp_path):
    """Return a function that writes text or bytes to labels.csv and parses it."""

    def run(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return read_labels(path)

    return run


def cells(table):
    return list(table.rows.values())


ROWS = [{"file": "bäum.jpg", "label": "healthy"}, {"file": "b.jpg", "label": "rust, brown"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separator_encoding_and_line_ends_are_detected(table, encoding, separator, end):
    lines = [["file", "label"], ["bäum.jpg", "healthy"], ["b.jpg", '"rust, brown"']]
    assert cells(table(end.join(map(separator.join, lines)) + end, encoding)) == ROWS


def test_latin_1_is_noted(table):
    assert "not UTF-8, read as cp1252" in table("file\nbäum.jpg\n", "latin-1").notes[0]


def test_separator_hint_of_excel_and_blank_rows_are_skipped(table):
    assert cells(table("sep=;\r\n\r\nfile;label\r\n;\r\na.jpg;x\r\n")) == [{"file": "a.jpg", "label": "x"}]


HEADERS = [("Filename", "file"), ("image_id", "file"), ("Image Path", "file"), ("ID", "file"), (" file ", "file")]
HEADERS += [("Class", "label"), ("target", "label"), ("Category", "label"), ("plant", "group"), ("Leaf-ID", "group")]
HEADERS += [("set", "split"), ("Subset", "split"), ("Site", "site"), ("camera", "camera"), ("date", "date")]


@pytest.mark.parametrize(("header", "role"), HEADERS)
def test_columns_are_detected_by_common_names(table, header, role):
    other = "" if role == "file" else "file,"
    assert role in table(f"{other}{header}\n{'a,' if other else ''}b\n").roles


def test_error_for_several_columns_of_one_role_lists_the_choices(table):
    with pytest.raises(LeafError, match=r"'image'.*'path'.*columns\.file=NAME"):
        table("image,path\na,b\n")


def test_unknown_column_is_reported_with_the_closest_known_name(table):
    assert table("file,lable,weather\na,b,c\n").notes[0].endswith("'lable' (did you mean label?), 'weather'")


def test_one_hot_columns_are_labels(table):
    read = table("image_id,healthy,multiple_diseases,rust\nTrain_0,0,0,1\nTrain_1,1,0,0\nTrain_2,0,1.0,0\n")
    assert [row["label"] for row in cells(read)] == ["rust", "healthy", "multiple_diseases"]


def test_0_1_columns_are_not_labels_if_several_are_set(table):
    read = table("file,wet,night\na,1,1\nb,0,1\n")
    assert "label" not in read.roles
    assert "'wet', 'night'" in read.notes[0]


@pytest.mark.parametrize("nothing", ["", " ", "NA", "n/a", "NaN", "None", "null"])
def test_na_and_blanks_mean_no_group(table, nothing):
    assert cells(table(f"file,group\na,{nothing}\n"))[0]["group"] == ""


def test_class_can_be_called_none(table):
    assert cells(table("file,label\na,none\n"))[0]["label"] == "none"


def test_number_with_a_zero_fraction_becomes_an_integer(table):
    assert [row["label"] for row in cells(table("file,label\na,1.0\nb,0\n"))] == ["1", "0"]


def test_spreadsheet_file_is_rejected(table):
    with pytest.raises(LeafError, match="CSV"):
        table(b"PK\x03\x04rest")


FILES = ["a/0007.JPG", "b/8.jpg", "bäum/ä.jpg", "b/x y.jpg", "c/1.jpg", "d/1.jpg", "c/leaf.12.png"]


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("a/0007.JPG", "a/0007.JPG"),
        ("./a/0007.JPG", "a/0007.JPG"),
        ("a\\0007.JPG", "a/0007.JPG"),
        ("0007.JPG", "a/0007.JPG"),
        ("A/0007.jpg", "a/0007.JPG"),
        ("a/0007", "a/0007.JPG"),
        ("7", "a/0007.JPG"),
        ("7.0", "a/0007.JPG"),
        ("8", "b/8.jpg"),
        ("ba\u0308um/a\u0308.jpg", "bäum/ä.jpg"),
        (" x y.jpg ", "b/x y.jpg"),
        ("c/1.jpg", "c/1.jpg"),
        ("d/1", "d/1.jpg"),
        ("leaf.12", "c/leaf.12.png"),
        ("/home/else/leaves/b/8.jpg", "b/8.jpg"),
    ],
)
def test_cell_matches_its_file(tmp_path, cell, file):
    assert Finder(tmp_path / "leaves", FILES).find(cell) == [file]


def test_decomposed_file_names_are_matched(tmp_path):
    assert Finder(tmp_path, ["ba\u0308um.jpg"]).find("bäum.jpg") == ["ba\u0308um.jpg"]


def test_ambiguous_name_returns_both_files(tmp_path):
    assert Finder(tmp_path, FILES).find("1.jpg") == ["c/1.jpg", "d/1.jpg"]


@pytest.mark.parametrize("cell", ["b/0007.JPG", "", "9", "../a/0007.JPG", "healthy", "a"])
def test_same_name_in_another_folder_does_not_match(tmp_path, cell):
    assert Finder(tmp_path / "leaves", FILES).find(cell) == []


@pytest.mark.parametrize("cell", [r"C:\me\a\1.jpg", "/home/me/a/1.jpg", "d:/a/1.jpg", r"\\server\share\a\1.jpg"])
def test_path_from_another_machine_is_matched_by_its_longest_suffix(tmp_path, cell):
    assert Finder(tmp_path, ["a/1.jpg", "b/1.jpg", "2.jpg"]).find(cell) == ["a/1.jpg"]


def test_0_1_columns_that_are_not_classes_are_reported(table):
    read = table("id,rust,scab\n1,1,0\n2,1,1\n")
    assert "label" not in read.roles
    assert "line 3 sets 2 of the 0/1 columns ('rust', 'scab' …)" in read.notes[0]


def test_yes_and_no_are_1_and_0(table):
    assert [row["label"] for row in cells(table("id,rust,scab\n1,yes,No\n2,no,YES\n"))] == ["rust", "scab"]
