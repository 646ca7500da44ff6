"""Pipelines opened and called for the page: ours of labels and text, and stock ones."""

import pytest
import tiny_families as tiny

from genkit.hub import shipped
from genkit_apps.lanes import MOST, Asked, Lane, Pair


def test_a_shipped_student_brings_its_teacher():
    pair = Pair.open("digits-onestep")
    assert pair.teacher is not None and pair.teacher.name == "digits-teacher"
    assert (pair.student.steps, pair.teacher.steps) == (1, 50)
    assert pair.led is pair.teacher and pair.light and not pair.missing
    assert [lane.role for lane in pair.lanes] == ["teacher", "student"]


def test_a_teacher_alone_leads_itself():
    pair = Pair.open("digits-teacher")
    assert pair.teacher is None and pair.led is pair.student
    assert "names no teacher" in pair.missing


def test_a_recorded_teacher_that_is_gone_is_said(tiny_teacher, tmp_path):
    from genkit.hub import Pipeline, save_pipeline

    facts = {"steps": 4, "guidance": 1.0, "teacher": "runs/gone"}
    save_pipeline(Pipeline.from_pretrained(tiny_teacher), tmp_path / "student", facts)
    pair = Pair.open(str(tmp_path / "student"))
    assert pair.teacher is None and "runs/gone, cannot be opened" in pair.missing


def test_a_teacher_asked_for_must_open(tiny_teacher):
    with pytest.raises(ValueError, match="no pipeline 'digits-teachr'"):
        Pair.open(str(tiny_teacher), "digits-teachr")


def test_every_shipped_pipeline_can_be_shown():
    for name in shipped():
        lane = Lane.open(name, "student")
        assert lane.steps is not None and lane.weights > 0


def test_labels_become_a_call(labels_lane):
    call = labels_lane.arguments(Asked("3,5", seed=1, n=2))
    assert call["class_labels"] == [3, 5] and len(call["generator"]) == 4
    assert (call["num_inference_steps"], call["guidance_scale"]) == (4, 2.0)
    assert "negative_prompt" not in labels_lane.arguments(Asked("3", negative="a ball"))
    assert len(labels_lane.arguments(Asked(" "))["class_labels"]) == 10


def test_text_becomes_a_call(text_teacher):
    call = text_teacher.arguments(Asked(" a ball ", steps=2, guidance=1.5, negative="red"))
    assert (call["prompt"], call["negative_prompt"]) == (["a ball"], ["red"])
    assert (call["num_inference_steps"], call["guidance_scale"]) == (2, 1.5)
    assert "negative_prompt" not in text_teacher.arguments(Asked("a ball", negative="  "))


@pytest.mark.parametrize(
    "asked, message",
    [
        (Asked(""), "type what is to be drawn"),
        (Asked("a ball", n=MOST + 1), f"ask for 1 to {MOST}"),
        (Asked("a ball", n=0), f"ask for 1 to {MOST}"),
    ],
)
def test_what_cannot_be_drawn(text_teacher, asked, message):
    with pytest.raises(ValueError, match=message):
        text_teacher.arguments(asked)


def test_labels_there_are_none_of(labels_lane):
    with pytest.raises(ValueError, match="there is no class 11"):
        labels_lane.arguments(Asked("11"))


def test_stock_pipelines_draw_with_their_own_defaults():
    lane = Lane.of("sd", "student", tiny.stable_diffusion())
    assert (lane.steps, lane.guidance, lane.record) == (50, 7.5, {})
    call = lane.arguments(Asked("abc", negative="d", n=2))
    assert (call["guidance_scale"], len(call["generator"])) == (7.5, 2)


def test_a_pipeline_without_prompts_is_refused():
    with pytest.raises(ValueError, match="DDPMPipeline, which takes no prompt"):
        Lane.of("ddpm", "student", tiny.ddpm())
