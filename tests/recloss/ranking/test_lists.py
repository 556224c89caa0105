"""Lists: padding, slates, parts."""

import pytest
import torch

from recloss.ranking import PADDING, Lists


@pytest.fixture
def small():
    return Lists(torch.arange(12.0).reshape(6, 2), torch.tensor([0.0, 1, 2, 0, 1, 3]), torch.tensor([0, 2, 2, 6]))


def test_padded_lists_hold_every_document_once_in_order(small):
    features, grades = small.padded(torch.tensor([2, 0, 1]))
    assert grades.tolist() == [[2, 0, 1, 3], [0, 1, PADDING, PADDING], [PADDING] * 4]
    assert features[0].tolist() == [[4, 5], [6, 7], [8, 9], [10, 11]]
    assert features[1].tolist() == [[0, 1], [2, 3], [0, 0], [0, 0]]
    assert not features[2].any()


def test_what_describes_them(small):
    assert (len(small), small.n_queries, small.n_features) == (6, 3, 2)
    assert small.lengths.tolist() == [2, 0, 4]
    assert small.query.tolist() == [0, 0, 2, 2, 2, 2]


def test_a_part_has_the_lists_of_its_queries(small):
    part = small.of(torch.tensor([2, 1]))
    assert part.offsets.tolist() == [0, 4, 4]
    assert part.grades.tolist() == [2, 0, 1, 3]
    assert part.features.tolist() == small.features[2:].tolist()


def test_slates_are_drawn_without_replacement_in_order_and_evenly():
    many = Lists(torch.zeros(30, 1), torch.zeros(30), torch.tensor([0, 12, 15, 30]))
    counts = torch.zeros(30)
    for key in range(600):
        places = many.places(torch.arange(3), slate=5, key=key)
        assert places.shape == (3, 5)
        assert places[1].tolist() == [12, 13, 14, -1, -1], "a short list is whole"
        drawn = places[places >= 0]
        assert (drawn.diff() > 0).all()
        counts[drawn] += 1
    assert ((counts[:12] / 600 - 5 / 12).abs() < 0.07).all()
    assert ((counts[15:] / 600 - 5 / 15).abs() < 0.07).all()


def test_the_documents_drawn_of_a_query_do_not_depend_on_the_others_of_the_batch():
    many = Lists(torch.zeros(30, 1), torch.zeros(30), torch.tensor([0, 12, 15, 30]))
    alone = many.places(torch.tensor([2]), slate=5, key=9)
    assert many.places(torch.tensor([0, 2]), slate=5, key=9)[1].tolist() == alone[0].tolist()
    assert many.places(torch.tensor([2]), slate=5, key=10).tolist() != alone.tolist()


@pytest.mark.parametrize(
    ("features", "grades", "offsets", "message"),
    [
        (torch.zeros(2, 1), torch.zeros(3), [0, 3], r"shapes \(n, F\) and \(n,\)"),
        (torch.zeros(2, 0), torch.zeros(2), [0, 2], "F above 0"),
        (torch.zeros(2, 1).double(), torch.zeros(2), [0, 2], "must be float32"),
        (torch.zeros(2, 1), torch.zeros(2), [0, 3], "offsets must ascend from 0 to the number of documents, 2"),
        (torch.zeros(2, 1), torch.zeros(2), [0, 2, 1, 2], "offsets must ascend"),
        (torch.zeros(2, 1), torch.tensor([0.0, -1]), [0, 2], "at least 0"),
        (torch.full((2, 1), torch.nan), torch.zeros(2), [0, 2], "finite"),
    ],
)
def test_damaged_lists_are_refused(features, grades, offsets, message):
    with pytest.raises(ValueError, match=message):
        Lists(features, grades, torch.tensor(offsets))
