from pathlib import Path

import pytest

import settings
from housekeeping.policies.errors import ConfigurationRefused
from settings.files import read_file
from tests.unit.settings.conftest import Load

FORMS = {
    "h.toml": 'redis_url = "redis://c"\n[milvaion]\ndatabase_url = "postgres://db"\n',
    "h.json": '{"redis_url": "redis://c", "milvaion": {"database_url": "postgres://db"}}',
    "h.yaml": "redis_url: redis://c\nmilvaion:\n  database_url: postgres://db\n",
    "h.YML": "redis_url: redis://c\nmilvaion:\n  database_url: postgres://db\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_all_three_formats_say_the_same(load: Load, name: str) -> None:
    assert load(FORMS[name], name=name) == load(FORMS["h.toml"])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("h.toml", 'a = 1\nb = "s3cret', "broken TOML: "),
        ("h.toml", "a = 1\na = 2\n", "line 2"),
        ("h.json", '{"a": 1,\n "b": s3cret}', "broken JSON: Expecting value (at line 2, column 7)"),
        ("h.json", '{"a": 1, // no\n}', "broken JSON: "),
        ("h.json", '{"a": 1, "a": 2}', "a: given twice; keep one"),
        ("h.json", '{"MaintenanceConfig": {"a": 1, "a": 2,}}', "a: given twice; keep one"),
        ("h.json", "", "broken JSON: "),
        ("h.json", "[1]", "holds no keys"),
        ("h.json", '{"a": ' + "9" * 5000 + "}", "broken JSON: "),
        ("h.json", "[" * 100_000, "nested too deeply"),
        ("h.yaml", "a: 1\nb: [s3cret\n", "broken YAML: "),
        ("h.yaml", "a: 1\nb: *s3cret\n", "broken YAML: found undefined alias ... (at line 2)"),
        ("h.yaml", "- a\n", "holds no keys"),
        ("h.yaml", "false", "holds no keys"),
        ("h.yaml", "a: {b: 1, b: 2}", "b: given twice; keep one"),
        ("h.yaml", "a: \0", "broken YAML: "),
        ("h.yaml", "1.5: a\n", "neither text nor a whole number"),
        ("h.ini", "", "can't tell its format; name it .toml, .json, .yaml, .yml at the end"),
    ],
)
def test_a_broken_file_is_one_sentence_with_the_line(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigurationRefused) as refused:
        read_file(path)
    assert refused.value.message.startswith(f"{path}: ")
    assert told in refused.value.message
    assert "s3cret" not in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.__context__ is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.toml"
    with pytest.raises(ConfigurationRefused, match=r"gone\.toml: no such file"):
        settings.load({"HOUSEKEEPING_CONFIG": str(path)})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "h.toml").mkdir()
    with pytest.raises(ConfigurationRefused, match="can't be read"):
        settings.load({}, tmp_path / "h.toml")


def test_a_file_that_is_not_utf_8_says_where(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    path.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(ConfigurationRefused, match=r"not UTF-8 \(at line 2\)"):
        read_file(path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_file(path) == {"a": 1}


def test_keys_yaml_reads_as_numbers_are_text(tmp_path: Path) -> None:
    path = tmp_path / "h.yaml"
    path.write_text("statuses: {2: 30d, yes: 1d}\n")
    assert read_file(path) == {"statuses": {"2": "30d", "true": "1d"}}
