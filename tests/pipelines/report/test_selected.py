import pytest

from pipelines.report import selected_configurations


def test_what_the_grid_varies_and_what_it_cost(fabric):
    chosen = fabric.trial("talos", loss__tau=0.1, optim__lr=0.01)
    fabric.trial("talos", loss__tau=0.1, optim__lr=0.1)
    fabric.trial("talos", loss__tau=0.2, optim__lr=0.1)
    fabric.trial("talos", loss__tau=0.2, optim__lr=0.1, seed=1)
    fabric.trial("talos", loss__tau=0.3, optim__lr=0.1, status="FAILED", error="nan")
    fabric.trial("talos", loss__tau=0.1, optim__lr=0.01, seed=2, stage="confirm", scores={"seconds": 99.0})
    fabric.select(chosen, value=0.4)
    bpr, talos = selected_configurations(fabric.results())
    assert (talos.data, talos.backbone, talos.loss) == ("ml-100k", "MF", "Talos")
    assert talos.params == "loss.tau=0.1 optim.lr=0.01"
    assert talos.value == 0.4
    assert (talos.points, talos.failed, talos.seconds) == (4, 1, pytest.approx(2.0))
    assert (bpr.params, bpr.value, bpr.points, bpr.failed, bpr.seconds) == ("", None, 0, 0, None)
