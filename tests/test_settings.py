"""Presets: where they stand, and that what is given goes before them."""

from pathlib import Path

from genkit import catalogue, data
from genkit.settings import Settings


def test_presets_of_a_data_set_lie_under_what_is_given():
    method = catalogue.method_class("dmd2")
    preset = data.presets("digits", "dmd2")
    settings = Settings.of(method, {"pairs": 7}, "digits")
    assert settings.run.pairs == 7 != preset["pairs"]
    assert settings.trainer.max_steps == preset["max_steps"]
    assert settings.method.warmup_share == preset["warmup_share"]
    assert Settings.of(method, {}, "unheard of") == Settings.of(method, {})
    assert Settings.of(catalogue.method_class("hipa"), {}).run.lora == 8  # its own default


def test_presets_may_stand_with_the_data(tmp_path: Path):
    edm = catalogue.method_class("edm")
    found = Settings.of(edm, {"batch_size": 3}, "speech-flite")
    assert found.trainer.batch_size == 3 and found.trainer.measure_every == 0
    assert found.method.warmup == 200  # type: ignore[attr-defined]
    for name in data.names():
        for method in catalogue.methods():
            Settings.of(catalogue.method_class(method), {}, name)


def test_folders_have_the_presets_of_their_layout(tmp_path: Path):
    speech, music = tmp_path / "speech", tmp_path / "music"
    (speech / "wavs").mkdir(parents=True)
    (speech / "metadata.csv").write_text("a|Go.\n")
    music.mkdir()
    (music / "song.wav").touch()
    for folder, like, method in ((speech, "speech-flite", "edm"), (music, "music", "reflow")):
        cls = catalogue.method_class(method)
        own = Settings.of(cls, {}, like)
        assert Settings.of(cls, {}, str(folder)) == own != Settings.of(cls, {})
        assert data.default_method(str(folder)) == data.default_method(like)
    assert not data.presets(str(tmp_path), "edm")  # a folder of neither
