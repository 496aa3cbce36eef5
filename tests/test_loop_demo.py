"""The whole loop, as a newcomer sees it."""

import json

import pytest

from assay.retrain.turned_camera import replay
from assay.serve.loop_demo import loop, sentences


@pytest.mark.slow
def test_a_shift_is_noticed_labelled_retrained_promoted_by_a_test_and_rolled_back_on_command(tmp_path):
    told = loop(out=tmp_path / "loop", time_s=40.0)
    assert [kind for _, kind, _ in told.events] == ["shift", "alarm", "labels", "challenger", "promoted", "rolled_back"]
    assert told.shift < told.alarm < told.promoted
    assert told.share(told.promoted, None) > told.share(told.shift, told.promoted) + 0.2
    assert told.decision["low"] > 0
    assert told.seconds < 180
    assert "<svg" in told.page.read_text(encoding="utf-8")
    assert len(json.loads((tmp_path / "loop" / "loop.json").read_text(encoding="utf-8"))["right"]) == len(replay(0).asked)
    assert all(text.to("zh") != text.to("en") for text in sentences(told))
