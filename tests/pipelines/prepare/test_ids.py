import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.prepare.ids import Index, dictionary, integers

NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-30, 300)).map(str)
NOT_USUAL = st.sampled_from(
    ["007", "-0", "+5", "0x1F", "0xFFFFFFFF", "1.0", " 1", "1 ", "", "b", "é", "1e3", str(2**63)]
)


def is_usual(text):
    try:
        return str(int(text)) == text and -(2**63) <= int(text) < 2**63
    except ValueError:
        return False


@given(st.lists(st.one_of(NUMBERS, NUMBERS, NOT_USUAL), min_size=1))
@example(["0xFFFFFFFF"])
@example(["12", "-0", "3"])
@example([str(-(2**63)), str(2**63 - 1)])
def test_integers_are_those_that_python_would_print_so(texts):
    found = integers(pa.array(texts, pa.string()))
    if all(map(is_usual, texts)):
        assert found.tolist() == [int(text) for text in texts]
    else:
        assert found is None


def test_integers_of_a_slice_do_not_see_what_is_outside():
    texts = pa.array(["x", "10", "9", "y"])
    assert integers(texts.slice(1, 2)).tolist() == [10, 9]
    assert integers(texts.slice(0, 2)) is None


@given(st.lists(st.one_of(NUMBERS, st.none())) | st.lists(NOT_USUAL) | st.lists(NUMBERS))
def test_dictionary_gives_back_the_ids_and_names_each_once(ids):
    encoded = dictionary(pa.array(ids, pa.string()))
    assert encoded.to_pylist() == ids
    assert encoded.type == pa.dictionary(pa.int32(), pa.string())
    values = encoded.dictionary.to_pylist()
    assert sorted(values) == sorted({i for i in ids if i is not None})


@pytest.mark.parametrize("numbers", [[5, 3, 5, 4], [10**17, -(10**17), 3, 10**17], [7]])
def test_dictionary_of_dense_and_of_scattered_integers(numbers):
    assert dictionary(pa.array([str(n) for n in numbers])).to_pylist() == [str(n) for n in numbers]
    assert dictionary(pa.array(numbers)).to_pylist() == numbers, "of other types too"


LISTS = [
    ([["10", "9", "-3"], ["007", "7", "9"]], ["-3", "007", "7", "9", "10"], "integer"),
    ([["10", "9"], ["9", "-3", "7"]], ["-3", "7", "9", "10"], "integer"),
    ([["b", "10"], ["é", "Z", "9"]], ["10", "9", "Z", "b", "é"], "bytes"),
    ([["10", "9.5"], ["9"]], ["10", "9", "9.5"], "bytes"),
    ([["1234567890123456789"], ["9"]], ["1234567890123456789", "9"], "bytes"),
    ([["-1000000000000000000"], ["9", "10"]], ["-1000000000000000000", "10", "9"], "bytes"),
    ([[str(-(2**63)), "10"], ["9"]], [str(-(2**63)), "10", "9"], "bytes"),
    ([["a b", "a"], []], ["a", "a b"], "bytes"),
    ([[], ["3", "20"]], ["3", "20"], "integer"),
]


@pytest.mark.parametrize(("lists", "ids", "order"), LISTS)
def test_an_index_numbers_the_ids_of_all_lists_in_order(lists, ids, order):
    index = Index.of([pa.array(names, pa.string()) for names in lists])
    assert (index.ids.to_pylist(), index.order) == (ids, order)
    assert [[ids[place] for place in places] for places in index.places] == lists
    assert all(places.dtype == np.int32 for places in index.places)


@given(st.lists(st.lists(st.text(max_size=3), unique=True), min_size=1).filter(any), st.randoms())
def test_the_index_depends_on_the_set_of_ids_only(lists, random):
    shuffled = [random.sample(names, len(names)) for names in random.sample(lists, len(lists))]
    one, other = (Index.of([pa.array(names, pa.string()) for names in given]) for given in (lists, shuffled))
    assert one.ids.equals(other.ids)
    assert set(one.ids.to_pylist()) == {name for names in lists for name in names}
