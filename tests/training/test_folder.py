"""Whose a run's folder is, and what a resumed run may change."""

import json

import pytest

from genkit.training.folder import changed, check_folder, open_folder

RECORD = {"method": "toy", "betas": (0.9, 0.99), "trainer": {"max_steps": 10, "max_minutes": None}}


def test_a_new_folder_gets_the_whole_configuration(tmp_path):
    open_folder(tmp_path / "a" / "run", RECORD, resume=False)
    written = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert changed(written, RECORD) == [] and written["trainer"]["max_steps"] == 10


def test_another_run_is_not_written_over(tmp_path):
    open_folder(tmp_path, RECORD, resume=False)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="--resume"):
        open_folder(tmp_path, {"method": "other"}, resume=False)
    assert (tmp_path / "config.json").read_text() == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        check_folder(tmp_path / "file", RECORD, resume=False)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="no run to resume"):
        check_folder(tmp_path / "none", RECORD, resume=True)


def test_changed_settings_are_named_on_resume(tmp_path):
    open_folder(tmp_path, RECORD, resume=False)
    other = {**RECORD, "trainer": {"max_steps": 20, "max_minutes": 5.0}, "extra": 1}
    with pytest.raises(ValueError) as seen:
        open_folder(tmp_path, other, resume=True)
    assert "trainer.max_steps was 10 and is 20" in str(seen.value)
    assert "extra was 'not set'" in str(seen.value) and "max_minutes" not in str(seen.value)


def test_limits_may_change_on_resume(tmp_path):
    open_folder(tmp_path, RECORD, resume=False)
    open_folder(tmp_path, {**RECORD, "trainer": {"max_steps": 10, "max_minutes": 5.0}}, resume=True)
