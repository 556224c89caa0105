"""Settings: what is accepted, what is refused in one line, and a trial's identity."""

from pathlib import Path

import pytest

from pipelines.settings import ComponentSettings, PrepareSettings, SweepSettings, Trial, make_trial, parse, read
from recloss.errors import InputError
from recloss.sampling import SAMPLERS


def trial(**dotted) -> Trial:
    return make_trial("f" * 64, "mf", "talos", {key.replace("__", "."): value for key, value in dotted.items()})


def test_every_hyper_parameter_is_resolved_and_hashed():
    threshold = {"threshold": "regression", "threshold_lr": 0.001, "refresh": 5, "samples": 1000}
    assert trial().loss.params == {"tau": 0.1, "k": 20, "variant": "full", **threshold}
    assert trial().backbone.params == {"dim": 64, "init": "normal"}
    assert trial().hash == trial(loss__tau=0.1, loss__k=20).hash, "a default spelled out is the same trial"


def test_numbers_are_coerced_before_hashing():
    assert trial(optim__lr="1e-1").hash == trial(optim__lr=0.1).hash
    assert trial(optim__weight_decay=0).hash == trial(optim__weight_decay=0.0).hash
    assert trial(loss__tau="1e-1").hash == trial(loss__tau=0.1).hash


@pytest.mark.parametrize(
    "changed",
    [
        {"loss__tau": 0.2},
        {"optim__lr": 0.1},
        {"train__epochs": 3},
        {"protocol__cutoffs": [20, 50]},
        {"protocol__mask_valid": True},
        {"backbone__dim": 8},
        {"sampler": "popularity"},
        {"sampler": "popularity", "sampler__power": 0.5},
    ],
)
def test_whatever_determines_the_result_is_in_the_identity(changed):
    assert trial(**changed).hash != trial().hash
    *all_but_last, _ = changed
    assert trial(**changed).hash != trial(**{key: changed[key] for key in all_but_last}).hash


def test_seed_data_and_result_version_are_in_the_identity():
    base = trial()
    for update in ({"seed": 1}, {"data": "0" * 64}, {"result_version": 2}):
        assert base.model_copy(update=update).hash != base.hash


def test_the_identity_does_not_move_by_accident():
    assert trial().hash == "1970780b8b0627cf"


def test_a_trial_with_the_default_sampler_has_the_identity_it_had_before_there_were_samplers():
    assert make_trial("f" * 64, "mf", "bpr", {}).hash == "144d4f6ee1f95df7"
    loss = ComponentSettings(name="talos", params={"tau": 0.1, "k": 20, "threshold_lr": 0.001})
    assert trial().model_copy(update={"loss": loss}).hash == "6a9b40c11dac356f"
    assert trial(sampler="uniform").hash == trial().hash
    old = trial().model_dump(mode="json")
    del old["sampler"]
    assert Trial.model_validate(old) == trial(), "a journal of before is read"


@pytest.mark.parametrize(
    ("task", "backbone", "loss", "identity"),
    [
        ("sequence", "sasrec", "bce", "0edebef5eeea0990"),
        ("sequence", "gru4rec", "desorec", "f17ac78d184c7fe7"),
        ("rank", "mlp", "listnet", "f39c24a482c4d751"),
        ("link", "gcn", "bce", "025368c4a0c64643"),
    ],
)
def test_the_identity_of_a_trial_is_what_its_task_reads(task, backbone, loss, identity):
    made = make_trial("f" * 64, backbone, loss, {}, task=task)
    assert made.hash == identity
    unread = {"stream": True} | ({"negatives": 7} if task == "rank" else {"slate": 7})
    other = made.model_copy(update={"train": made.train.model_copy(update=unread)})
    assert other.hash == identity
    assert other.flat() == made.flat()
    assert Trial.model_validate(made.model_dump(mode="json")) == made


def test_flat_names_every_setting():
    flat = trial(loss__tau=0.3).flat()
    assert flat["loss"] == "talos"
    assert flat["loss.tau"] == 0.3
    assert flat["protocol.cutoffs"] == [20]
    assert flat["sampler"] == "uniform"
    popular = trial(sampler="popularity", sampler__power="5e-1")
    assert {key: value for key, value in popular.flat().items() if key.startswith("sampler")} == {
        "sampler": "popularity",
        "sampler.power": 0.5,
    }
    for each in (trial(), popular):
        assert Trial.model_validate(each.model_dump(mode="json")) == each, "a trial survives its JSON form"


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"loss.tua": 1}, "'loss.tua'; did you mean 'loss.tau'?"),
        ({"loss.tau": -1}, "loss 'talos': tau must be a number above 0, got -1.0"),
        ({"loss.tau": "hot"}, "tau: Input should be a valid number"),
        ({"loss.k": 0}, "k must lie in 1.."),
        ({"backbone.init": "zeros"}, "init must be one of normal, xavier_normal, xavier_uniform, got 'zeros'"),
        ({"backbone.layers": 2}, "unknown parameter of the backbone 'mf':"),
        ({"optim.lr": 0}, "optim: lr: Input should be greater than 0, got 0"),
        ({"optim.lr": float("nan")}, "optim: lr: Input should be a finite number"),
        ({"train.epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"optm.lr": 3}, "unknown setting 'optm.lr'; did you mean 'optim.lr'?"),
        ({"lr": 3}, "unknown setting 'lr'"),
        ({"protocol.metric": "ndgc_20"}, "unknown metric 'ndgc_20'; did you mean 'ndcg_20'?"),
        ({"protocol.metric": "ndcg_50"}, "'ndcg_50' is not among the measured metrics (precision_20, recall_20"),
        ({"protocol.ties": "luck"}, "protocol.ties is always item-hash in the task 'pairs'"),
        ({"samplr": "shared"}, "unknown setting 'samplr'; did you mean 'sampler'?"),
        ({"sampler": "popularty"}, "unknown sampler 'popularty'; did you mean 'popularity'?"),
        (
            {"sampler": 3},
            "unknown sampler '3'; (accepted: false_negatives, in_batch, pooled_false_negatives, popularity",
        ),
        ({"sampler": ["uniform"]}, "unknown sampler \"['uniform']\"; did you mean 'uniform'?"),
        ({"sampler": "popularity", "sampler.powr": 1}, "'sampler.powr'; did you mean 'sampler.power'?"),
        ({"sampler": "popularity", "sampler.power": -1}, "sampler 'popularity': power must be a number of at least 0"),
        ({"sampler": "popularity", "sampler.power": "x"}, "sampler: power: Input should be a valid number"),
        (
            {"sampler": "false_negatives", "sampler.ratio": 2},
            "sampler 'false_negatives': ratio must lie in 0..1, got 2.0",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(dotted, message):
    with pytest.raises(InputError) as caught:
        make_trial("f", "mf", "talos", dotted)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_without_effect_is_refused():
    with pytest.raises(InputError, match=r"the loss 'bpr' has no parameters, so loss\.tau would have no effect"):
        make_trial("f", "mf", "bpr", {"loss.tau": 0.1})
    with pytest.raises(InputError, match=r"the sampler 'uniform' has no parameters, so sampler\.power would have no"):
        make_trial("f", "mf", "bpr", {"sampler.power": 0.1})
    with pytest.raises(
        InputError, match=r"'sl' reads no sampled negatives here, so the sampler 'shared' would have no"
    ):
        make_trial("f", "mf", "sl", {"loss.over": "all", "sampler": "shared"})
    make_trial("f", "mf", "sl", {"loss.over": "all", "sampler": "uniform"})


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_makes_a_trial_with_its_defaults_filled_in(name):
    pooled = {"sampler.ratio": 0.3} if name == "pooled_false_negatives" else {}
    sampler = trial(sampler=name, **pooled).sampler
    filled = {"popularity": {"power": 0.75}, "false_negatives": {"ratio": 0.125}}
    filled["pooled_false_negatives"] = {"ratio": 0.3}
    assert (sampler.name, sampler.params) == (name, filled.get(name, {}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": {"talso": {}}}, "unknown loss 'talso'; did you mean 'talos'?"),
        ({"backbones": {"fm": {}}}, "unknown backbone 'fm'; did you mean 'mf'?"),
        ({"losss": {}}, "unknown setting 'losss'; did you mean 'losses'?"),
        ({"losses": {}}, "losses: Dictionary should have at least 1 item"),
        ({"data": []}, "data: Tuple should have at least 1 item"),
        ({"data": [{"name": "a b", "path": "x"}]}, "data.0.name: String should match pattern"),
        ({"data": [{"name": "a", "path": "x", "raw": "y", "fetch": "z"}]}, "give either 'fetch' or 'raw', not both"),
        ({"data": [{"name": "a", "path": "x", "prepare": {}}]}, "'prepare' needs 'raw' (a file) or 'fetch'"),
        ({"data": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "two entries have the same name"),
        ({"data": [{"name": "a", "path": "x", "raw": "y", "prepare": {"kcore": 3}}]}, "did you mean 'k_core'?"),
        ({"confirm_seeds": [1, 1]}, "names a seed twice"),
        ({"baselines": ["psl"]}, "unknown loss or reference of this sweep 'psl'"),
        ({"search": "magic"}, "search.method: Input should be 'grid', 'random' or 'tpe', got 'magic'"),
        ({"search": "random"}, "search: method 'random' needs 'trials', the number of configurations per cell"),
        ({"search": {"method": "grid", "trials": 3}}, "search: a grid is exhaustive, 'trials' has no effect on it"),
        ({"search": {"method": "random", "trials": 0}}, "search.trials: Input should be greater than or equal to 1"),
        ({"search": {"method": "random", "trials": 3, "in_flight": 2}}, "'in_flight' has no effect with method 'ran"),
        ({"search": {"method": "tpe", "trails": 3}}, "search: unknown setting 'trails'; did you mean 'trials'?"),
        (
            {"search": {"method": "tpe", "trials": 3}, "budget": {"trials_per_cell": 2}},
            "search: 3 trials exceed budget.trials_per_cell = 2",
        ),
        ({"halving": {"reduction": 3}}, "halving.first: Field required"),
        ({"halving": {"first": 1, "reduction": 1}}, "halving.reduction: Input should be greater than or equal to 2"),
        ({"budget": {"hours_per_cell": 0}}, "budget.hours_per_cell: Input should be greater than 0"),
        ({"data": [{"name": "a", "path": "x", "split_seeds": [0]}]}, "'split_seeds' needs 'raw' (a file) or 'fetch'"),
        ({"data": [{"name": "a", "path": "x", "raw": "y", "split_seeds": [1, 1]}]}, "[1, 1] must be different numbers"),
        (
            {"data": [{"name": "a", "path": "x", "raw": "y", "split_seeds": [1], "prepare": {"split_seed": 2}}]},
            "data 'a': give either 'split_seeds' or 'prepare: {split_seed: ...}', not both",
        ),
        ({"resources": {"cpus": 0}}, "resources.cpus: Input should be greater than 0"),
        ({"name": None}, "name: Input should be a valid string"),
    ],
)
def test_a_wrong_sweep_is_one_line_that_names_the_key(change, message):
    raw = {"name": "s", "data": [{"name": "a", "path": "x"}], "backbones": {"mf": None}, "losses": {"sl": None}}
    with pytest.raises(InputError) as caught:
        parse(SweepSettings, raw | change, "sweep.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("sweep.yaml: ")
    assert "\n" not in str(caught.value)


def test_broken_yaml_names_the_file_and_the_line(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("name: x\nlosses: [unclosed\n")
    with pytest.raises(InputError, match=r"sweep\.yaml, line 3: not valid YAML"):
        read(SweepSettings, file)
    file.write_text("- a list\n")
    with pytest.raises(InputError, match=r"sweep\.yaml: expected a mapping of settings, got list"):
        read(SweepSettings, file)
    file.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match=r"sweep\.yaml, line 1: not valid YAML"):
        read(SweepSettings, file)
    with pytest.raises(InputError, match=r"absent\.yaml: no such file"):
        read(SweepSettings, Path("absent.yaml"))


def test_prepare_settings_are_checked_too():
    with pytest.raises(InputError, match=r"k_core\.users: Input should be greater than or equal to 1, got 0"):
        parse(PrepareSettings, {"k_core": 0}, "recloss prepare")
    with pytest.raises(InputError, match="split: Input should be 'iid', .* or 'given', got 'random'"):
        parse(PrepareSettings, {"split": "random"}, "recloss prepare")
