"""Keys from a file and a variable; a changed file is taken, a broken one is not."""

from __future__ import annotations

import pytest

from hierrouter.errors import ConfigError
from hierrouter.serving.gate import digest
from hierrouter.serving.keys import LOOK_EVERY_S, VARIABLE, Keys, find_keys

ONE, TWO = "first-key-of-sixteen", "second-key-of-sixteen"


def test_none_is_asked_for_where_none_is_given(monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_keys(None) is None


def test_keys_come_from_both(tmp_path, monkeypatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the team\n{ONE}\n\n")
    monkeypatch.setenv(VARIABLE, TWO)
    assert set(find_keys(file)()) == {digest(ONE), digest(TWO)}


def test_a_changed_file_is_taken_and_a_broken_one_is_not(tmp_path) -> None:
    file, now = tmp_path / "keys", [0.0]
    file.write_text(ONE)
    keys = Keys(file, "", lambda: now[0])
    file.write_text(TWO)
    assert keys() == [digest(ONE)]
    now[0] += LOOK_EVERY_S
    assert keys() == [digest(TWO)]
    file.write_text("")
    now[0] += LOOK_EVERY_S
    assert keys() == [digest(TWO)]
    file.unlink()
    now[0] += LOOK_EVERY_S
    assert keys() == [digest(TWO)]
    # A key that is no longer listed does not hold, whatever else is wrong with the file.
    file.write_text(f"{ONE}\nshort")
    now[0] += LOOK_EVERY_S
    assert keys() == [digest(ONE)]
    file.write_text("short")
    now[0] += LOOK_EVERY_S
    assert keys() == []


def test_the_log_says_which_keys_hold_where_the_file_has_none(tmp_path, caplog) -> None:
    file, now = tmp_path / "keys", [0.0]
    file.write_text(ONE)
    keys = Keys(file, "", lambda: now[0])
    stay = "the keys read before stay in force"
    for change in (file.unlink, lambda: file.write_text("")):
        caplog.clear()
        change()
        now[0] += LOOK_EVERY_S
        assert keys() == [digest(ONE)]
        assert stay in caplog.text
    caplog.clear()
    file.write_text("short")
    now[0] += LOOK_EVERY_S
    assert keys() == []
    assert "short" in caplog.text
    assert stay not in caplog.text


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "with space in the key\n"])
def test_a_file_without_usable_keys_is_refused(tmp_path, text) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match="key"):
        find_keys(file)


@pytest.mark.parametrize("text", [",", " , \n", "# none"])
def test_a_variable_without_any_key_is_refused_also_beside_a_file(
    tmp_path, monkeypatch, text
) -> None:
    file = tmp_path / "keys"
    file.write_text(ONE)
    monkeypatch.setenv(VARIABLE, text)
    for given in (None, file):
        with pytest.raises(ConfigError, match=f"{VARIABLE} holds no key"):
            find_keys(given)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        find_keys(tmp_path / "nowhere")
