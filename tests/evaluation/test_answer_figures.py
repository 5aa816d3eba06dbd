"""What answers say: shares and means as counted by hand, intervals as of a slow plain bootstrap."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cogview.errors import CogViewError, UsageError
from cogview.evaluation.questionnaire.answers import Answer, parse_answer
from cogview.evaluation.questionnaire.charts import draw_charts
from cogview.evaluation.questionnaire.figures import bootstrap_ratios, figures_of
from cogview.evaluation.questionnaire.folder import Key, Questionnaire, read_key
from questionnaire_folder import COLOURS, questionnaire_in, record_of


@pytest.fixture
def asked(tmp_path: Path) -> Questionnaire:
    return questionnaire_in(tmp_path)


def answer_of(
    asked: Questionnaire, key: Key, rater: str, question: int, best: str, scores: dict[str, int]
) -> Answer:
    """Return an answer that picks a system, and gives each system the same score on every scale."""
    record = record_of(asked, rater, question)
    for picture in record["order"]:
        record["scores"][picture] = dict.fromkeys(record["scores"][picture], scores[key.system_of[picture]])
    record["best"] = next(picture for picture in record["order"] if key.system_of[picture] == best)
    return parse_answer(record, asked)


def test_shares_and_means_are_those_of_the_answers(asked: Questionnaire) -> None:
    key = read_key(asked)
    answers = [
        answer_of(asked, key, "anna", 0, "truth", {"baseline": 1, "ours": 3, "truth": 5}),
        answer_of(asked, key, "ben", 0, "truth", {"baseline": 2, "ours": 3, "truth": 5}),
        answer_of(asked, key, "anna", 2, "ours", {"baseline": 1, "ours": 5, "truth": 4}),
    ]
    figures = figures_of(answers, key, num_draws=500)
    shares = {system: figures["preference_share"][system]["value"] for system in COLOURS}
    assert shares == pytest.approx({"baseline": 0.0, "ours": 1 / 3, "truth": 2 / 3})
    for scale in ("clarity", "texture", "relevance", "overall"):
        means = {system: figures["mean_scores"][scale][system]["value"] for system in COLOURS}
        assert means == pytest.approx({"baseline": 4 / 3, "ours": 11 / 3, "truth": 14 / 3})
    # Of two questions all draws are one, the other, or both.
    assert figures["preference_share"]["ours"] == pytest.approx({"value": 1 / 3, "low": 0.0, "high": 1.0})
    assert (figures["num_answers"], figures["num_raters"]) == (3, 2)
    assert (figures["num_questions_answered"], figures["num_questions_of_several_raters"]) == (2, 1)
    assert figures["median_seconds_per_question"] == 1.5
    # Two raters answered question 0 alone: (1, 2), (3, 3), (5, 5), and both picked the same. Ordinal distances: 1-2 1,
    # 1-3 2.5^2, 1-5 4.5^2, 2-3 1.5^2, 2-5 3.5^2, 3-5 2^2; there are two threes and two fives.
    expected = 2 * (1 + 2 * 6.25 + 2 * 20.25 + 2 * 2.25 + 2 * 12.25 + 4 * 4) / 30
    first = 1 - (2 * 1 / 6) / expected
    assert figures["krippendorff_alpha"]["clarity"] == pytest.approx(first)
    assert figures["krippendorff_alpha"]["best"] is None
    assert figures == figures_of(answers, key, num_draws=500)
    assert figures != figures_of(answers, key, num_draws=501)


def test_one_question_has_no_interval(asked: Questionnaire) -> None:
    key = read_key(asked)
    figures = figures_of([parse_answer(record_of(asked), asked)], key)
    assert all(figures["preference_share"][system]["low"] is None for system in COLOURS)
    with pytest.raises(CogViewError, match="no answers yet"):
        figures_of([], key)
    with pytest.raises(UsageError, match="num_draws"):
        figures_of([parse_answer(record_of(asked), asked)], key, num_draws=0)
    with pytest.raises(UsageError, match="seed"):
        figures_of([parse_answer(record_of(asked), asked)], key, seed=-1)


def test_intervals_are_those_of_a_plain_bootstrap_and_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    counts = random.integers(1, 4, 120)
    sums = np.stack([random.binomial(counts, 0.3), random.binomial(counts, 0.6)], axis=1)[:, :, None]
    value, low, high = bootstrap_ratios(sums, counts, num_draws=4000, seed=0)[:, :, 0]
    draws = []
    for _ in range(4000):
        drawn = random.integers(0, 120, 120)
        draws.append(sums[drawn, :, 0].sum(axis=0) / counts[drawn].sum())
    plain_low, plain_high = np.quantile(draws, [0.025, 0.975], axis=0)
    assert value == pytest.approx(sums[:, :, 0].sum(axis=0) / counts.sum())
    # Ends of an interval vary by about 0.001 from one set of 4,000 draws to another.
    assert low == pytest.approx(plain_low, abs=0.006)
    assert high == pytest.approx(plain_high, abs=0.006)
    assert np.all((low < [0.3, 0.6]) & (high > [0.3, 0.6]))


@pytest.mark.slow
def test_charts_show_a_bar_and_an_interval_for_each_figure(
    asked: Questionnaire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from matplotlib.figure import Figure

    key = read_key(asked)
    names = {"baseline": r"$\frac$", "ours": "ours, $1 a picture", "truth": "truth"}  # no formulas
    key = Key(
        systems=tuple(names.values()),
        system_of={picture: names[system] for picture, system in key.system_of.items()},
    )
    answers = [parse_answer(record_of(asked, rater, number), asked) for rater in "ab" for number in range(3)]
    figures = figures_of(answers, key, num_draws=200)
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **named: (drawn.append(self), save(self, *args, **named))[1]
    )
    assert draw_charts(figures, tmp_path / "charts.png")
    with Image.open(tmp_path / "charts.png") as picture:
        assert picture.format == "PNG"
    preferred, scored, overall = drawn[0].axes
    assert [label.get_text() for label in preferred.get_yticklabels()] == list(key.systems)
    widths = [bar.get_width() for bar in preferred.patches]
    assert widths == pytest.approx(
        [100 * figures["preference_share"][system]["value"] for system in key.systems]
    )
    assert len(scored.patches) == 9
    for line, system in zip(overall.lines, key.systems, strict=True):
        ends = figures["mean_scores"]["overall"][system]
        assert list(line.get_xdata()) == pytest.approx([ends["low"], ends["high"]])
