"""The sections of a run file, with every default there is. docs/run-files.md says what each key means."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import networkx as nx
from pydantic import Field, model_validator

from consensus import rules, timing, topology
from consensus.checkpoint.due import Due
from consensus.coding import GradientCode
from consensus.coding.layout import Layout
from consensus.config.coding import CODED_RULES, SELECTED, Coding
from consensus.config.partition import Partition
from consensus.config.section import Above, Count, Index, OpenSection, Section
from consensus.data.catalogue import DATASETS
from consensus.errors import ConfigError
from consensus.names import lookup, suggestion
from consensus.protocol.decision import ActiveWeights, Rule
from consensus.protocol.server import check_push
from consensus.protocol.service import Factor, PushMode, ServerRule
from consensus.rules.rates import build_rate
from consensus.timing import ParameterError
from consensus.topology.families import parameters_of
from consensus.types import Rank, Seconds

ALLREDUCE = "allreduce"
"""The baseline that averages gradients over all ranks; it stands where a wait rule's name does, but is none."""


class Target(Section):
    """A quality to reach: accuracy at least, or loss at most, ``value``, on the averaged model."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    value: Above

    @model_validator(mode="after")
    def _is_possible(self) -> Target:
        if self.metric == "accuracy" and self.value > 1:
            raise ParameterError("target", [f"value = {self.value}: expected an accuracy above 0, at most 1"])
        return self


class Stop(Section):
    """When a run ends: at the first of the conditions given."""

    samples: Count | None = None
    seconds: Above | None = None
    rounds: Count | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _ends(self) -> Stop:
        if all(getattr(self, condition) is None for condition in type(self).model_fields):
            raise ConfigError(f"nothing would end the run, expected one or more of {', '.join(type(self).model_fields)}")
        return self


class Run(Section):
    """The run as a whole."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "run"
    ranks: Count | None = None
    seed: Index = 1
    stop: Stop
    out: str = "runs"
    on_nan: Literal["stop", "ignore"] = "stop"
    stall_warning: Above = 30.0
    stall_abort: Above | None = None
    stuck_after: Above = 60.0
    progress: bool = True
    trace: bool = True
    record: bool = True
    record_limit: Above = 64.0

    @property
    def stall_limit(self) -> Seconds:
        """``stall_abort``, or infinity if there is none."""
        return math.inf if self.stall_abort is None else self.stall_abort


class Topology(OpenSection):
    """The graph: a family with its parameters, or a file."""

    selectors: ClassVar[tuple[str, ...]] = ("kind", "file")

    kind: str | None = "torus"
    file: str | None = None
    seed: Index | None = None

    @model_validator(mode="before")
    @classmethod
    def _file_replaces_the_default(cls, table: Any) -> Any:
        return {"kind": None, **table} if isinstance(table, dict) and table.get("file") is not None else table

    @model_validator(mode="after")
    def _is_one_graph(self) -> Topology:
        if self.kind is not None and self.file is not None:
            raise ConfigError(f"both kind = {self.kind!r} and file = {self.file!r}, expected one of them")
        known = self._known_parameters()
        unknown = {key: value for key, value in self.parameters.items() if key not in known}
        if unknown:
            whose = [f"{key} = {value!r}: unknown parameter; {suggestion(key, known)}" for key, value in unknown.items()]
            raise ParameterError("topology", whose)
        return self

    def _known_parameters(self) -> list[str]:
        if self.kind is None:
            return []
        if self.kind not in topology.FAMILIES:
            near = suggestion(self.kind, topology.FAMILIES)
            raise ParameterError("topology", [f"kind = {self.kind!r}: unknown family; {near}"])
        return list(parameters_of(topology.FAMILIES[self.kind]))

    def build(self, ranks: int, seed: int) -> nx.Graph[int]:
        """The graph for so many ranks; ``seed``, of the run, draws random families that have none of their own."""
        spec = self.file if self.file is not None else str(self.kind)
        return topology.build(spec, ranks, seed=seed if self.seed is None else self.seed, **self.parameters)


class WaitRule(OpenSection):
    """The wait rule and its parameters, a server rule, the all-reduce baseline, or a scheme of coded gradients."""

    name: str = "dtur"

    @property
    def is_allreduce(self) -> bool:
        """Whether this is the baseline, which exchanges gradients with everybody and has no wait rule."""
        return self.name == ALLREDUCE

    @property
    def is_served(self) -> bool:
        """Whether this is a rule of a parameter server."""
        return not (self.is_allreduce or self.is_coded) and self.name not in rules.RULES and self.name in _server_rules()

    @property
    def is_coded(self) -> bool:
        """Whether this is a scheme of coded gradients."""
        return self.name in CODED_RULES

    @model_validator(mode="after")
    def _exists(self) -> WaitRule:
        if self.is_allreduce or self.is_coded:
            if self.parameters:
                instead = "; what a scheme takes is in the section [coding]" if self.is_coded else ""
                raise ConfigError(f"{self.name} takes no parameters, got {', '.join(self.parameters)}{instead}")
        elif self.is_served:
            self.build_served()
        elif self.name in rules.RULES:
            self.build()
        else:
            near = suggestion(self.name, [*rules.RULES, ALLREDUCE, *_server_rules(), *CODED_RULES])
            raise ParameterError("rule", [f"name = {self.name!r}: unknown rule; {near}"])
        return self

    def build(self) -> Rule:
        """The wait rule; the baseline and a server have none."""
        return rules.build(self.name, **self.parameters)

    def build_served(self) -> ServerRule:
        """The server rule."""
        from consensus.rules.serving import build_server

        return build_server(self.name, **self.parameters)


def _server_rules() -> list[str]:
    # Imported only when asked for: it loads SciPy.
    from consensus.rules.serving import SERVER_RULES

    return list(SERVER_RULES)


class LearningRate(OpenSection):
    """The learning rate rule of a server's updates."""

    name: str = "constant"

    @model_validator(mode="after")
    def _exists(self) -> LearningRate:
        self.build()
        return self

    def build(self) -> Factor:
        """The rule."""
        return build_rate(self.name, **self.parameters)


class Server(Section):
    """How a parameter server works."""

    servers: Count = 1
    push: PushMode | None = None
    learning_rate: LearningRate = LearningRate()


class Exchange(Section):
    """How models are averaged."""

    order: Literal["adapt-combine", "combine-adapt"] = "adapt-combine"
    weights: Literal["static", "active"] = "static"
    every: Count = 1
    buffers: Literal["average", "local"] = "average"
    step_scale: Literal["none", "participation"] = "none"


class Stragglers(OpenSection):
    """The compute time model that stretches local steps."""

    selectors: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "none"

    @model_validator(mode="after")
    def _exists(self) -> Stragglers:
        if self.model != "none" and self.model not in timing.MODELS:
            near = suggestion(self.model, ["none", *timing.MODELS])
            raise ParameterError("stragglers", [f"model = {self.model!r}: unknown compute time model; {near}"])
        self.build()
        return self

    def build(self) -> timing.ComputeTime | None:
        """The model, or None if steps take the time they take."""
        if self.model != "none":
            return timing.build(self.model, **self.parameters)
        if self.parameters:
            raise ConfigError(f"model = 'none' takes no parameters, got {', '.join(self.parameters)}")
        return None


class SlowLink(Section):
    """A link that is slower than the others."""

    ranks: list[Index]
    factor: Annotated[float, Field(ge=1)]

    @model_validator(mode="after")
    def _joins_two(self) -> SlowLink:
        if len(set(self.ranks)) != 2 or len(self.ranks) != 2:
            raise ParameterError("slow", [f"ranks = {self.ranks}: expected two different ranks"])
        return self


class Network(Section):
    """The links of a simulated network."""

    latency: Annotated[float, Field(ge=0)] = 50e-6
    bandwidth: Above = 1.25e9
    slow: list[SlowLink] = Field(default=[])
    model_bytes: Count | None = None

    def build(self) -> timing.Link:
        """The link time model."""
        return timing.Link(self.latency, self.bandwidth, {(min(s.ranks), max(s.ranks)): s.factor for s in self.slow})

    def misfits(self, size: int) -> list[str]:
        """Why it does not suit so many ranks."""
        unknown = [link.ranks for link in self.slow if max(link.ranks) >= size]
        return [f"network.slow: ranks {ranks}, expected ranks from 0 to {size - 1}" for ranks in unknown]


class Data(Section):
    """The data set and each rank's share of it."""

    name: str = "digits"
    dir: str | None = None
    limit: Count | None = None
    partition: Partition = Partition()
    batch: Count = 32

    @model_validator(mode="after")
    def _exists(self) -> Data:
        lookup("data set", self.name, DATASETS)
        return self


class Model(Section):
    """The network."""

    name: str = "2nn"


class Scheduler(OpenSection):
    """A learning rate scheduler of ``torch.optim.lr_scheduler`` and its keywords."""

    name: str


class Optimizer(OpenSection):
    """An optimizer of ``torch.optim`` and its keywords."""

    name: str = "sgd"
    lr: Annotated[float, Field(ge=0)] = 0.1
    clip_norm: Above | None = None
    scheduler: Scheduler | None = None


class Evaluation(Section):
    """Snapshots at common marks of the run's clock, averaged and evaluated out of band."""

    every: Above = 0.25
    marks: Count = 64
    test_samples: Count | None = None


class Checkpoint(Section):
    """The state of the run on disk, to go on from."""

    every: str | Above | None = None
    keep: Count = 2

    @model_validator(mode="after")
    def _is_an_interval(self) -> Checkpoint:
        if self.every is not None:
            Due.parse(self.every)
        return self


def _shards(servers: int, size: int) -> nx.Graph[int]:
    first = ((0, follower) for follower in range(1, servers))
    return nx.Graph([*first, *((server, worker) for server in range(servers) for worker in range(servers, size))])


class RunConfig(Section):
    """A whole run file."""

    architecture: Literal["neighbours", "server", "coded"] | None = None
    run: Run
    topology: Topology = Topology()
    rule: WaitRule = WaitRule()
    exchange: Exchange = Exchange()
    server: Server = Server()
    coding: Coding = Coding()
    stragglers: Stragglers = Stragglers()
    network: Network = Network()
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()

    @model_validator(mode="before")
    @classmethod
    def _architectures_have_their_own_default_rules(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        rule, coding = table.get("rule", {}), table.get("coding", {})
        if not (isinstance(rule, dict) and isinstance(coding, dict)):
            return table
        default = {"server": "dbw", "coded": "hgc"}.get(str(table.get("architecture")))
        scheme = coding.get("scheme", default)
        if "name" not in rule and scheme is not None:
            rule = {"name": scheme, **rule}
            table = {**table, "rule": rule}
        if rule.get("name") in CODED_RULES:
            table = {**table, "coding": {**coding, "scheme": rule["name"]}}
        return table

    @property
    def serves(self) -> bool:
        """Whether rank 0 is a parameter server; the rule's name tells."""
        return self.rule.is_served

    @property
    def codes(self) -> bool:
        """Whether gradients are coded, by a master, edges and workers; the rule's name tells."""
        return self.rule.is_coded

    @property
    def kind(self) -> Literal["neighbours", "server", "coded"]:
        """The architecture."""
        return "server" if self.serves else "coded" if self.codes else "neighbours"

    @property
    def size(self) -> int | None:
        """Number of ranks, if the run file says it: outright, or by the layout of coded gradients."""
        if self.run.ranks is None and self.codes and self.coding.workers_per_edge is not None:
            return self.coding.size(self.rule.name, sum(self.coding.workers_per_edge))
        return self.run.ranks

    def layout(self, size: int) -> Layout:
        """Who is what, with coded gradients."""
        return self.coding.layout(self.rule.name, size)

    def ranks_for(self, workers: int) -> int:
        """How many ranks it takes for so many that train."""
        if self.codes:
            return self.coding.size(self.rule.name, workers)
        return workers + self.server.servers if self.serves else workers

    def first_worker(self, size: int) -> Rank:
        """The first of ``size`` ranks that trains; servers, or a master and its edges, come before it."""
        return self.server.servers if self.serves else self.layout(size).edges.stop if self.codes else 0

    def holders(self, size: int) -> int:
        """How many of ``size`` ranks, the first ones, have a model that counts, or a share of it."""
        return self.server.servers if self.serves else 1 if self.codes else size

    def writers(self, size: int) -> int:
        """How many of ``size`` ranks, the first ones, write checkpoints; with coded gradients the master has all there is."""
        return 1 if self.codes else size

    def workers(self, size: int) -> int:
        """How many of ``size`` ranks train."""
        return size - self.first_worker(size)

    def worker(self, rank: Rank, size: int) -> int:
        """The number of a rank among those that train, which its data and its step times go by; below 0 if it does not."""
        return rank - self.first_worker(size)

    def shares(self, size: int) -> int:
        """Into how many shares the data are divided: one for each rank that trains, or the parts of a code."""
        return self.coding.count_parts(self.layout(size)) if self.codes else self.workers(size)

    def code(self, size: int) -> GradientCode:
        """The code of coded gradients."""
        return self.coding.build(self.rule.name, size, self.run.seed)

    def graph(self, size: int) -> nx.Graph[int]:
        """Who exchanges with whom."""
        if self.serves:
            return _shards(self.server.servers, size)
        if self.codes:
            layout = self.layout(size)
            return nx.Graph([(layout.above(rank), rank) for rank in range(1, size)])
        return self.topology.build(size, self.run.seed)

    @model_validator(mode="after")
    def _agrees(self) -> RunConfig:
        problems = self._of_architecture()
        without = self.rule.is_allreduce or self.kind != "neighbours"
        closes_apart = not without and rules.RULES[self.rule.name].active_weights is ActiveWeights.REFUSED
        if self.exchange.weights == "active" and closes_apart:
            fitting = [name for name, rule in rules.RULES.items() if rule.active_weights is not ActiveWeights.REFUSED]
            problems.append(
                f"exchange.weights = 'active': partners of rule {self.rule.name!r} close apart, "
                f"expected 'static' or one of the rules {', '.join(fitting)}"
            )
        if self.run.ranks is not None:
            problems += self._misfits(self.run.ranks)
        if problems:
            raise ParameterError("", problems)
        return self

    def _of_architecture(self) -> list[str]:
        if self.architecture not in (None, self.kind):
            fitting = {"neighbours": [*rules.RULES, ALLREDUCE], "server": _server_rules(), "coded": [*CODED_RULES]}
            names = fitting[str(self.architecture)]
            first = {"neighbours": "dtur", "server": "dbw", "coded": "hgc"}[str(self.architecture)]
            return [
                f"architecture = {self.architecture!r}: rule {self.rule.name!r} is of another kind, expected one of "
                f"{', '.join(names)}, as in --set rule.name={first}"
            ]
        problems = []
        if not self.serves and self.server != Server():
            problems.append(f"server: rule {self.rule.name!r} has no server; leave the section out, or name a server rule")
        if not self.codes and self.coding != Coding():
            problems.append(f"coding: rule {self.rule.name!r} codes nothing; leave the section out, or name one of its schemes")
        if self.kind != "neighbours":
            default = Exchange()
            whom = "a parameter server" if self.serves else "coded gradients"
            problems += [
                f"exchange.{key} = {value!r}: does not apply to {whom}; leave it out"
                for key, value in self.exchange
                if key != "buffers" and value != getattr(default, key)
            ]
        problems += self._of_checkpoints()
        if self.codes and self.run.on_nan == "ignore":
            problems.append("run.on_nan = 'ignore': a coded gradient with a NaN in it spoils all of them; leave it out")
        if self.serves:
            if self.server.servers > 1 and self.optimizer.clip_norm is not None:
                problems.append(
                    f"optimizer.clip_norm = {self.optimizer.clip_norm:g}: none of {self.server.servers} servers has the whole "
                    "gradient to clip; leave it out, or have one server"
                )
            if self.server.push is not None:
                try:
                    check_push(self.rule.build_served(), self.server.push)
                except ConfigError as error:
                    problems.append(f"server.{error}")
        return problems

    def _of_checkpoints(self) -> list[str]:
        every = self.checkpoint.every
        if every is None or Due.parse(every).counts_rounds:
            return []
        if self.rule.is_allreduce:
            whom = "under all-reduce all ranks have to write after the same step"
        elif self.serves and self.server.servers > 1:
            whom = f"{self.server.servers} servers have a share of the model each and have to write after the same update"
        else:
            return []
        return [f"checkpoint.every = {every!r}: {whom}; give rounds, as in '100 rounds'"]

    def check(self, size: int) -> None:
        """Make sure that the run can go on ``size`` ranks, which the launcher may have decided.

        Parameters
        ----------
        size : int
            Number of ranks there are.

        Raises
        ------
        ConfigError
            If run.ranks asks for another number, or the graph or the stragglers do not suit this one; lists all of it.
        """
        problems = []
        if self.run.ranks not in (None, size):
            problems.append(
                f"run.ranks = {self.run.ranks}: {size} ranks were started; start {self.run.ranks} or leave the key out"
            )
        problems += self._misfits(size)
        if problems:
            raise ConfigError("\n".join(problems))

    def _misfits(self, size: int) -> list[str]:
        problems = self.network.misfits(size)
        if self.codes:
            return problems + self._misfits_of_code(size)
        if self.serves and size <= self.server.servers:
            ranks = f"{size} rank{'s' * (size > 1)}"
            return [*problems, f"server.servers = {self.server.servers} with {ranks}: expected one rank or more that works"]
        try:
            if self.serves:
                self.rule.build_served().fit(self.workers(size))
            else:
                self.topology.build(size, self.run.seed)
        except ConfigError as error:
            problems.append(f"{'rule' if self.serves else 'topology'}: {error}")
        return problems + self._misfits_of_stragglers(self.workers(size))

    def _misfits_of_code(self, size: int) -> list[str]:
        try:
            workers = self.workers(size)
            if self.rule.name != SELECTED or self.coding.system is not None:
                self.code(size).check_dtype(self.coding.payload, allow=self.coding.any_kappa)
        except ParameterError as error:
            return [f"coding.{problem}" for problem in error.problems]
        except ConfigError as error:
            return [f"coding: {error}"]
        return self._misfits_of_stragglers(workers)

    def _misfits_of_stragglers(self, workers: int) -> list[str]:
        model = self.stragglers.build()
        try:
            if model is not None:
                model.fit(workers)
        except ParameterError as error:
            return [f"stragglers.{problem}" for problem in error.problems]
        return []
