"""implicit: epochs of its BPR, and its ranking_metrics_at_k. Started by run.py, see there.

An epoch draws as many samples as there are training pairs, with replacement, each a pair and an item of another random
pair, skipped if the user has that item: negatives follow popularity. Plain SGD, sample by sample, without locks between
threads (Hogwild), with an item bias: no batches, no Adam.
"""

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix
from turns import DIM, TOP, Turns, arguments, load

NEVER = 10**9


def main() -> None:
    settings = arguments()
    data = load(settings.data)
    train, test = (matrix(data, split) for split in ("train", "test"))
    turns = Turns(settings, ("implicit",), threads=settings.threads)
    if settings.task == "evaluate":
        model = BayesianPersonalizedRanking(factors=DIM, iterations=1, num_threads=settings.threads)
        model.fit(train, show_progress=False)
        model.user_factors = np.pad(data["user"], ((0, 0), (0, 1)), constant_values=1)
        model.item_factors = np.pad(data["item"], ((0, 0), (0, 1)))

        def rank() -> None:
            metrics = ranking_metrics_at_k(model, train, test, TOP, show_progress=False, num_threads=settings.threads)
            turns.facts["ndcg"] = metrics["ndcg"]

        turns.repeat(rank)
    model = BayesianPersonalizedRanking(factors=DIM, iterations=NEVER, num_threads=settings.threads)
    turns.start()
    model.fit(train, show_progress=False, callback=lambda *_: turns.lap())


def matrix(data: dict[str, np.ndarray], split: str) -> csr_matrix:
    """The pairs of a split."""
    user, item = data[f"{split}_user"], data[f"{split}_item"]
    return csr_matrix((np.ones(len(user), np.float32), (user, item)), (int(data["n_users"]), int(data["n_items"])))


if __name__ == "__main__":
    main()
