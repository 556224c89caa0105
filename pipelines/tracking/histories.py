"""How metrics of trials went over the epochs."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.tracking.read import Results
from pipelines.tracking.store import contact, impatient

History = Mapping[int, float]
"""Value by epoch, ascending."""

_AT_ONCE = 4
"""Requests at the same time."""
_REQUEST_SECONDS = 30


def read_histories(
    uri: str, results: Results, hashes: Iterable[str], metrics: Sequence[str]
) -> dict[str, dict[str, History]]:
    """Metrics of trials over the epochs, with one request per finished trial and metric that it has.

    Args:
        uri: of the tracking store.
        results: what the tracking store holds.
        hashes: of the trials.
        metrics: such as ``["valid/ndcg_20", "train/threshold"]``.

    Returns:
        By trial hash and metric; what was not measured is absent.

    Raises:
        InputError: if the store does not answer.
    """
    wanted = set(hashes)
    trials = [trial for trial in results.trials if trial.hash in wanted]
    asked = [(trial, metric) for trial in trials for metric in metrics if metric in trial.metrics]
    histories: dict[str, dict[str, History]] = {}
    with contact(uri, create=False) as client, impatient(_REQUEST_SECONDS), ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(lambda ask: client.get_metric_history(ask[0].run_id, ask[1]), asked)
        for (trial, metric), points in zip(asked, answers, strict=True):
            history = {point.step: point.value for point in points}
            histories.setdefault(trial.hash, {})[metric] = dict(sorted(history.items()))
    return histories
