"""log.jsonl: what a line holds, and how it is cut back."""

import json

from genkit.training.log import Log, measured, read_log


def test_lines_come_back(tmp_path):
    log = Log(tmp_path)
    log.write(1, stage="a", loss=0.5)
    log.write(2, distance=float("inf"))
    log.close()
    assert read_log(tmp_path) == [
        {"step": 1, "stage": "a", "loss": 0.5},
        {"step": 2, "distance": "inf"},
    ]
    assert [line["step"] for line in measured(read_log(tmp_path))] == [2]
    assert list((tmp_path / "tb").glob("events*"))


def test_what_was_written_after_the_position_goes(tmp_path):
    log = Log(tmp_path)
    log.write(1, loss=1.0)
    position = log.position()
    log.write(2, loss=2.0)
    log.close()
    again = Log(tmp_path, position, 1)
    again.write(2, loss=3.0)
    again.close()
    assert [line["loss"] for line in read_log(tmp_path)] == [1.0, 3.0]


def test_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]


def test_no_log_is_no_lines(tmp_path):
    assert read_log(tmp_path) == []
