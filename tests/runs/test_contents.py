import json

import pytest

from dlp_fast.runs.contents import CLEAN, FIRST, UNLEARNT, caution, holds_in, holds_of, title


@pytest.mark.parametrize(
    ("stages", "holds"),
    [
        ({"supervised": {}, "unlearning": {}, "finetuning": {}}, CLEAN),
        ({"supervised": {}, "finetuning": {}}, CLEAN),
        ({"supervised": {}, "unlearning": {}}, UNLEARNT),
        ({"supervised": {}, "unlearning": {"skipped": True}}, FIRST),
        ({"supervised": {}}, FIRST),
    ],
)
def test_what_a_run_leaves(stages, holds):
    assert holds_of(stages) == holds


def test_only_a_clean_model_is_called_one_and_needs_no_caution():
    assert title(CLEAN) == "the clean model"
    assert caution(CLEAN) is None
    for holds in (UNLEARNT, FIRST):
        assert "clean" not in title(holds)
        assert "not a clean model" in caution(holds)


def test_runs_of_earlier_versions(tmp_path):
    """Their classes.json says nothing: results.json beside it does; without it, nothing is claimed."""
    assert holds_in(tmp_path, {}) is None
    assert title(None) == "the model"
    assert caution(None) is None
    (tmp_path / "results.json").write_text(json.dumps({"stages": {"supervised": {}, "unlearning": {}}}))
    assert holds_in(tmp_path, {}) == UNLEARNT
    assert holds_in(tmp_path, {"holds": CLEAN}) == CLEAN


@pytest.mark.parametrize("content", ["", "[]", '{"stages": 3}', '{"stages": {"unlearning": 3}}'])
def test_damaged_results(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    assert holds_in(tmp_path, {}) is None
    assert holds_in(tmp_path, {"holds": "something"}) is None
