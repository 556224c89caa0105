"""The critical-difference diagram: every loss is named at its rank, and bars join what cannot be told apart."""

from dataclasses import replace

import pytest

from pipelines.report.figures.critical_difference import draw
from pipelines.report.ranks import Friedman, Ranking


def ranking(ranks, limit=1.0, p=0.001, titles=None):
    titles = titles or tuple(f"loss {index}" for index in range(len(ranks)))
    pairs = tuple(tuple(0.5 if abs(a - b) < limit else 0.01 for b in ranks) for a in ranks)
    test = Friedman(9.0, p, limit, pairs)
    return Ranking("mf", "MF", "ndcg_20", "NDCG@20", ("x", "y", "z"), titles, titles, tuple(ranks), test, ())


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def bars(figure):
    """Ends of the thick lines in ranks, and their heights."""
    n_ticks = [line for line in figure.axes[0].lines if line.get_linewidth() == 4]
    axis = figure.axes[0].lines[0].get_xdata()
    return [(*line.get_xdata(), line.get_ydata()[0]) for line in n_ticks], axis


def test_every_loss_is_named_with_its_rank():
    shown = texts(draw(ranking((1.2, 2.0, 2.5, 4.3))))
    assert {"loss 0  1.20", "loss 1  2.00", "2.50  loss 2", "4.30  loss 3"} <= set(shown)
    assert "critical difference 1.00" in shown
    assert "MF, NDCG@20: mean rank over 3 data sets, 1 is best" in shown
    assert "Friedman's test p = 0.001; bars join losses that cannot be told apart (Nemenyi, 5 %)" in shown


def test_bars_join_the_groups_and_do_not_touch():
    found, (left, right) = bars(draw(ranking((1, 1.9, 2.5, 4, 4.5, 6))))
    unit = (right - left) / 5
    ends = [(1, 1.9), (1.9, 2.5), (4, 4.5)]
    assert [(start, end) for start, end, _ in found] == [
        (pytest.approx((a - 1) * unit - 0.05), pytest.approx((b - 1) * unit + 0.05)) for a, b in ends
    ]
    assert found[0][2] < found[1][2]
    assert found[2][2] == found[0][2]


def test_names_do_not_overlap_with_25_losses():
    titles = tuple(f"{'a long name ' * (index % 3)}{index}" for index in range(25))
    figure = draw(ranking([1 + index * 0.9 for index in range(25)], 6, titles=titles))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    whole = figure.bbox
    assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and whole.y0 <= b.y0 and b.y1 <= whole.y1 for b in boxes)


def test_one_bar_joins_all_where_friedman_does_not_reject():
    figure = draw(ranking((1, 3, 5), p=0.3))
    assert len(bars(figure)[0]) == 1
    assert texts(figure)[-1].endswith("it shows no difference between the losses, so one bar joins them all")


def test_names_are_no_formulas():
    figure = draw(ranking((1, 2, 3), titles=("$x$", "a_b^", r"$\broken")))
    figure.draw_without_rendering()
    assert r"3.00  $\broken" in texts(figure)


def test_without_a_test_there_is_no_figure():
    assert draw(replace(ranking((1, 2, 3)), test=None)) is None
