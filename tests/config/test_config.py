"""Run files: what they say, what --set changes, and what is refused with which words."""

from __future__ import annotations

import pickle
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pydantic
import pytest

from consensus import config, resources, timing
from consensus.config.overrides import override
from consensus.config.schema import RunConfig
from consensus.data.partition import ByClass, Dirichlet, Iid, Scheme
from consensus.errors import ConfigError

MINIMAL = "[run]\nstop = { samples = 200_000 }\n"


def refuse(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.loads(text)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "trial.toml"
    path.write_text(text)
    return path


# What a file says


def test_the_shortest_file() -> None:
    run = config.loads(MINIMAL)
    assert run.run.stop.samples == 200_000
    assert (run.rule.name, run.topology.kind, run.stragglers.model, run.data.name) == ("dtur", "torus", "none", "digits")
    assert run.stragglers.build() is None


def test_open_sections_pass_parameters_on() -> None:
    run = config.loads(
        MINIMAL
        + """
        [topology]
        kind = "random_regular"
        degree = 4
        [rule]
        name = "static_backup"
        b = 2
        [stragglers]
        model = "transient"
        seconds = 0.02
        probability = 0.05
        factor = 10
        [optimizer]
        momentum = 0.9
        scheduler = { name = "StepLR", step_size = 3 }
        """
    )
    assert run.topology.parameters == {"degree": 4}
    assert run.topology.build(8, seed=0).number_of_edges() == 16
    assert run.rule.build().b == 2  # type: ignore[attr-defined]
    assert run.stragglers.build() == timing.Transient(0.02, 0.05, 10)
    assert run.optimizer.parameters == {"momentum": 0.9}
    assert run.optimizer.scheduler is not None
    assert run.optimizer.scheduler.parameters == {"step_size": 3}


def test_a_random_graph_has_the_runs_seed_or_its_own() -> None:
    text = MINIMAL + '[topology]\nkind = "random_regular"\ndegree = 3\n'
    runs, own = config.loads(text).topology, config.loads(text + "seed = 5\n").topology
    assert set(runs.build(16, seed=5).edges) == set(own.build(16, seed=6).edges) != set(runs.build(16, seed=6).edges)


@pytest.mark.parametrize(
    ("written", "scheme"),
    [
        ('"iid"', Iid()),
        ('"by-class"', ByClass()),
        ("{ dirichlet = 0.3 }", Dirichlet(0.3)),
        ("{ by-class = {} }", ByClass()),
        ("{ by-class = { classes_per_rank = 3 } }", ByClass(3)),
    ],
)
def test_partitions(written: str, scheme: Scheme) -> None:
    run = config.loads(f"{MINIMAL}[data]\npartition = {written}")
    assert run.data.partition.build() == scheme
    assert config.loads(config.dumps(run)) == run


def test_a_configuration_is_frozen_and_picklable() -> None:
    run = config.load("digits")
    assert pickle.loads(pickle.dumps(run)) == run
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        run.run.seed = 3


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MINIMAL + '[data]\ndir = "mnist"\n[topology]\nfile = "g.edgelist"\n')
    (tmp_path / "g.edgelist").write_text("0 1\n")
    run = config.load("trial.toml")
    assert (run.run.out, run.data.dir, run.topology.file) == tuple(
        str(tmp_path / name) for name in ("runs", "mnist", "g.edgelist")
    )
    assert run.topology.kind is None
    assert config.load("trial.toml", data_dir=tmp_path / "other").data.dir == str(tmp_path / "other")
    assert config.loads(config.dumps(run)) == run


def test_a_missing_graph_file_is_left_to_the_bundled_names(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[topology]\nfile = "nowhere.edgelist"\n')
    assert config.load(path).topology.file == "nowhere.edgelist"


# The files that come with the package


def test_the_bundled_files_are_found() -> None:
    assert {"digits", "mnist", "cifar10", "noniid"} <= set(resources.names("launch"))


@pytest.mark.parametrize("name", resources.names("launch"))
def test_bundled_files_load_and_come_back(name: str) -> None:
    run = config.load(name)
    assert config.loads(config.dumps(run)) == run
    assert run.run.name == name


# --set


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("run.ranks=16", "run.ranks", 16),
        ("run.stop.samples=1_000", "run.stop.samples", 1000),
        ("run.trace=false", "run.trace", False),
        ("run.name=2026-01-01", "run.name", "2026-01-01"),
        ("optimizer.name=Adam", "optimizer.name", "Adam"),
        ("optimizer.lr = 1e-3", "optimizer.lr", 1e-3),
        ("data.partition={ dirichlet = 0.5 }", "data.partition.dirichlet", 0.5),
        ("data.partition.dirichlet=0.5", "data.partition.dirichlet", 0.5),
        ("evaluation.every=2", "evaluation.every", 2.0),
        ("rule.name='full'", "rule.name", "full"),
    ],
)
def test_set(setting: str, path: str, value: object) -> None:
    found: Any = config.load("digits", [setting])
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value
    assert type(found) is type(value)


def test_an_empty_value_removes_the_key() -> None:
    stop = config.load("digits", ["run.stop.seconds=", "run.stop.rounds=5", "evaluation.marks="]).run.stop
    assert (stop.seconds, stop.rounds) == (None, 5)


RULE = {"rule": {"name": "static_backup", "b": 2}, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}}


@pytest.mark.parametrize(
    ("settings", "section", "left"),
    [
        (["rule.name=full"], "rule", {"name": "full"}),
        (["rule.name=static_backup"], "rule", {"name": "static_backup", "b": 2}),
        (["rule.name=gap", "rule.window=5"], "rule", {"name": "gap", "window": 5}),
        (["rule.b=3", "rule.name=full"], "rule", {"name": "full"}),
        (["rule.name=full", "rule.name=static_backup"], "rule", {"name": "static_backup"}),
        (["optimizer.name=Adam"], "optimizer", {"name": "Adam", "lr": 0.5}),
        (["optimizer.lr=0.1"], "optimizer", {"name": "sgd", "lr": 0.1, "momentum": 0.9}),
    ],
)
def test_another_name_drops_the_parameters_of_the_first(settings: list[str], section: str, left: dict[str, object]) -> None:
    assert override(RULE, settings)[section] == left
    assert RULE["rule"] == {"name": "static_backup", "b": 2}


def test_a_graphs_family_and_file_take_each_others_place() -> None:
    family = {"topology": {"kind": "random_regular", "degree": 4, "seed": 3}}
    file = override(family, ["topology.file=g.edgelist"])
    assert file == {"topology": {"file": "g.edgelist", "seed": 3}}
    assert override(file, ["topology.kind=torus"]) == {"topology": {"kind": "torus", "seed": 3}}
    assert override({}, ["topology.rows=2"]) == {"topology": {"rows": 2}}


def test_parameters_of_the_default_are_kept() -> None:
    assert override({"topology": {"rows": 2}}, ["topology.kind=torus"]) == {"topology": {"rows": 2, "kind": "torus"}}


@pytest.mark.parametrize("setting", ["rule.name", "=3", "rule.=3", ""])
def test_set_refuses(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected KEY\.PATH=VALUE"):
        config.load("digits", [setting])


def test_several_lines_are_one_string() -> None:
    assert override({}, ["run.name=1\nranks=2"]) == {"run": {"name": "1\nranks=2"}}


# Refusals


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rule = 3", "rule = 3: expected a table"),
        ("rule = 'full'", "rule = 'full': expected a table, as in { name = \"full\" }"),
        ("server = { learning_rate = 'knee' }", "server.learning_rate = 'knee': expected a table, as in { name = \"knee\" }"),
        ("ruel = {}", "ruel = {}: unknown key; did you mean 'rule'?"),
        ("exchange = { evry = 2 }", "exchange.evry = 2: unknown key; did you mean 'every'?"),
        ("exchange = { every = 0 }", "exchange.every = 0: expected 1 or more"),
        ("exchange = { every = 1.5 }", "exchange.every = 1.5: expected a whole number"),
        ("exchange = { every = true }", "exchange.every = True: expected a whole number"),
        (
            "exchange = { order = 'adapt-combin' }",
            "exchange.order = 'adapt-combin': expected 'adapt-combine' or 'combine-adapt'; did you",
        ),
        ("exchange = { weights = 3 }", "exchange.weights = 3: expected 'static' or 'active'"),
        ("evaluation = { every = nan }", "evaluation.every = nan: expected a finite number"),
        ("evaluation = { every = inf }", "evaluation.every = inf: expected a finite number"),
        ("evaluation = { every = -1.0 }", "evaluation.every = -1.0: expected a number above 0"),
        ("optimizer = { lr = '0.1' }", "optimizer.lr = '0.1': expected a number"),
        ("optimizer = { lr = -0.1 }", "optimizer.lr = -0.1: expected 0 or more"),
        ("optimizer = { scheduler = {} }", "optimizer.scheduler.name: missing, expected a value"),
        ("model = { name = 2 }", "model.name = 2: expected a string"),
        ("data = { name = 'mnits' }", "data: unknown data set 'mnits'; did you mean 'mnist'?"),
        ("data = { partition = 'idd' }", "data.partition: 'idd' is not a partition; expected 'iid', 'by-class', {"),
        ("data = { partition = { dirichlt = 1 } }", "data.partition.dirichlt = 1: unknown key; did you mean 'dirichlet'?"),
        ("data = { partition = { dirichlet = 0 } }", "data.partition.dirichlet = 0: expected a number above 0"),
        ("data = { partition = { dirichlet = 1, by-class = {} } }", "data.partition: both dirichlet and by-class, expected one"),
        ("topology = { kind = 'tours' }", "topology.kind = 'tours': unknown family; did you mean 'torus'?"),
        ("topology = { n = 8 }", "topology.n = 8: unknown parameter; known: "),
        (
            "topology = { kind = 'random_regular', degre = 8 }",
            "topology.degre = 8: unknown parameter; did you mean 'degree'?",
        ),
        ("topology = { file = 'x', degree = 3 }", "topology.degree = 3: unknown parameter"),
        ("stragglers = { model = 'constant', seconds = 1, name = 'x' }", "stragglers.name = 'x': unknown parameter"),
        ("topology = { kind = 'ring', file = 'x' }", "topology: both kind = 'ring' and file = 'x', expected one of them"),
        ("rule = { name = 'dutr' }", "rule.name = 'dutr': unknown rule; did you mean 'dtur'?"),
        ("rule = { name = 'all-reduce' }", "rule.name = 'all-reduce': unknown rule; did you mean 'allreduce'?"),
        ("rule = { name = 'static_backup', bb = 1 }", "rule: rule 'static_backup' has no parameter 'bb'; did you mean 'b'?"),
        ("rule = { name = 'allreduce', b = 1 }", "rule: allreduce takes no parameters, got b"),
        (
            "stragglers = { model = 'transent' }",
            "stragglers.model = 'transent': unknown compute time model; did you mean 'transient'?",
        ),
        ("stragglers = { model = 'constant' }", "stragglers.seconds: missing; constant takes seconds"),
        ("stragglers = { model = 'constant', seconds = -1 }", "stragglers.seconds = -1: expected a finite number of seconds"),
        ("stragglers = { factor = 10 }", "stragglers: model = 'none' takes no parameters, got factor"),
        (
            "rule = { name = 'gap' }\nexchange = { weights = 'active' }",
            "exchange.weights = 'active': partners of rule 'gap' close apart",
        ),
        (
            "architecture = 'server'\nrule = { name = 'full' }",
            "architecture = 'server': rule 'full' is of another kind, expected one of bsp, backup, asp, ssp, dbw, elastic, as "
            "in --set rule.name=dbw",
        ),
        ("architecture = 'neighbours'\nrule = { name = 'bsp' }", "architecture = 'neighbours': rule 'bsp' is of another kind"),
        ("architecture = 'sever'", "architecture = 'sever': expected 'neighbours', 'server' or 'coded'; did you mean 'server'?"),
        ("rule = { name = 'asp' }\nserver = { push = 'wait' }", "server.push = 'wait' does not go with rule 'asp'"),
        ("rule = { name = 'bsp' }\nserver = { push = 'pul' }", "server.push = 'pul': expected 'wait', 'interrupt' or 'pull'"),
        ("rule = { name = 'elastic', R = 0 }", "rule: elastic: R = 0, expected 1 iteration or more"),
        ("rule = { name = 'dtur' }\nserver = { push = 'wait' }", "server: rule 'dtur' has no server; leave the section out"),
        ("rule = { name = 'bsp' }\nexchange = { every = 2 }", "exchange.every = 2: does not apply to a parameter server"),
        ("rule = { name = 'bsp' }\nserver = { servers = 0 }", "server.servers = 0: expected 1 or more"),
        (
            "rule = { name = 'bsp' }\nserver = { servers = 2 }\noptimizer = { clip_norm = 1.5 }",
            "optimizer.clip_norm = 1.5: none of 2 servers has the whole gradient to clip",
        ),
        (
            "rule = { name = 'bsp' }\nserver = { learning_rate = { name = 'kne' } }",
            "server.learning_rate: unknown learning rate rule 'kne'; did you mean 'knee'?",
        ),
    ],
)
def test_refusals(text: str, line: str) -> None:
    assert f"  {line}" in refuse(f"{text}\n{MINIMAL}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "run: missing, expected a table with name, ranks"),
        ("[run]", "run.stop: missing, expected a table with samples, seconds, rounds, target"),
        ("[run]\nstop = {}", "run.stop: nothing would end the run, expected one or more of samples, seconds, rounds, target"),
        ("[run]\nstop = { samples = 2e5 }", "run.stop.samples = 200000.0: expected a whole number"),
        ("[run]\nstop = { target = { metric = 'acuracy', value = 0.5 } }", "did you mean 'accuracy'?"),
        ("[run]\nstop = { target = { value = 95 } }", "run.stop.target.value = 95.0: expected an accuracy above 0, at most 1"),
        ("[run]\nstop = { target = {} }", "run.stop.target.value: missing"),
        ("[run]\nname = '../x'\nstop = { rounds = 1 }", "run.name = '../x': expected letters, digits"),
        ("[run]\nranks = '8'\nstop = { rounds = 1 }", "run.ranks = '8': expected a whole number"),
        ("[run]\ntrace = 1\nstop = { rounds = 1 }", "run.trace = 1: expected true or false"),
        (
            "[run]\nranks = 7\nstop = { rounds = 1 }\n[topology]\nkind = 'hypercube'",
            "topology: hypercube needs a power of two, got n = 7",
        ),
    ],
)
def test_refusals_of_the_run_section(text: str, line: str) -> None:
    assert line in refuse(text)


def test_all_problems_are_listed_at_once() -> None:
    message = refuse(
        """
        [run]
        seed = -1
        stop = { sampels = 3 }
        [rule]
        name = "dutr"
        [stragglers]
        model = "transient"
        seconds = -1
        probability = 2
        factor = 10
        """
    )
    first, *lines = message.splitlines()
    assert first == "run file: 5 problems"
    assert [line.split()[0] for line in lines] == [
        "run.seed",
        "run.stop.sampels",
        "rule.name",
        "stragglers.seconds",
        "stragglers.probability",
    ]


def test_an_accuracy_beyond_one_may_be_a_loss() -> None:
    target = config.loads("[run]\nstop = { target = { metric = 'loss', value = 2.0 } }").run.stop.target
    assert target is not None
    assert target.value == 2.0


def test_the_number_of_ranks_is_checked_against_those_started() -> None:
    text = "[topology]\nkind = 'hypercube'\n[stragglers]\nmodel = 'persistent'\nseconds = 1\nranks = [6]\nfactor = 2\n"
    config.loads(text + MINIMAL).check(8)
    with pytest.raises(
        ConfigError, match=r"topology: hypercube needs a power of two, got n = 6.*\nstragglers\.ranks = \[6\]: expected"
    ):
        config.loads(text + MINIMAL).check(6)
    with pytest.raises(ConfigError, match=r"run\.ranks = 8: 4 ranks were started; start 8 or leave the key out"):
        config.load("digits").check(4)


@pytest.mark.parametrize(
    ("text", "position"),
    [("[run]\nname = dtur\n", ":2:8: "), ("[run\n", ":1:5: "), ("x = 'a", ":1:7: "), ("[run]\n[run]\n", ":2:5: ")],
)
def test_what_is_no_toml(tmp_path: Path, text: str, position: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value).startswith(f"{path}{position}")
    assert "(at " not in str(caught.value)


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 8\)"):
        config.load(path)


def test_a_misspelt_bundled_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        config.load("digts")


# docs/run-files.md


def leaves(model: type[pydantic.BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not NoneType]
        tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)]
        if len(here) > 1:
            yield ".".join(here), field
        for table in tables:
            yield from leaves(table, here)


@pytest.mark.parametrize(("key", "field"), [pytest.param(key, field, id=key) for key, field in leaves(RunConfig)])
def test_every_key_is_documented_with_its_default(key: str, field: Any) -> None:
    rows = (Path(__file__).parents[2] / "docs" / "run-files.md").read_text().splitlines()
    row = [row for row in rows if row.startswith(f"| `{key}` |")]
    assert len(row) == 1, f"docs/run-files.md has {len(row)} rows for {key}"
    shown = row[0].split(" | ")[2].strip()
    if field.is_required():
        assert shown == "required"
    elif field.default is None:
        assert shown == "none"
    elif isinstance(field.default, pydantic.BaseModel):
        assert tomllib.loads(f"x = {shown.strip('`')}")["x"] == field.default.model_dump()
    else:
        assert tomllib.loads(f"x = {shown.strip('`')}")["x"] == field.default


def test_no_other_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "run-files.md").read_text().splitlines()
    documented = [row.split("`")[1] for row in text if row.startswith("| `") and "." in row.split("`")[1]]
    assert sorted(documented) == sorted(key for key, _ in leaves(RunConfig))


@pytest.mark.parametrize("name", timing.MODELS)
def test_every_straggler_model_is_documented_with_its_parameters(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "run-files.md").read_text().splitlines()
    (row,) = [row for row in text if row.startswith(f"| `{name}` |")]
    parameters = ", ".join(f"`{key}`" for key in timing.MODELS[name].__dataclass_fields__)
    assert row.split(" | ")[1] == parameters
