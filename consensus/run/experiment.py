"""A whole experiment: from a configuration to a folder of results."""

from __future__ import annotations

import logging
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import torch

from consensus.coded_handle import CodedHandle, MasterHandle, attach_coded
from consensus.config import RunConfig
from consensus.config.schema import ALLREDUCE
from consensus.errors import CodingError, ConsensusError, DeadRanks
from consensus.handle import Handle
from consensus.neighbours import NeighbourHandle
from consensus.optim import attach, attach_served
from consensus.recording.folder import file_name
from consensus.recording.writer import MIB, EventWriter
from consensus.run.checkpoints import Checkpoints, Found, find, way_on
from consensus.run.coded_course import CodedCourse
from consensus.run.curves import CURVES, dispensable, draw_curves
from consensus.run.ending import EndByMaster, EndByMessage, EndByVote, Ending
from consensus.run.evaluation import Evaluated, Evaluator
from consensus.run.folder import SNAPSHOTS, agree_on_folder
from consensus.run.loop import Course, Loop
from consensus.run.marks import kept
from consensus.run.position import Position, take_up
from consensus.run.prepare import Task, prepare
from consensus.run.results import to_metrics, write_metrics, write_summary
from consensus.run.service import Service
from consensus.run.signals import Interruption
from consensus.run.snapshots import Recorder, SnapshotFolder, snapshot_folder
from consensus.run.status import Report
from consensus.run.stops import Tally
from consensus.run.summary import LOST, RankResult, coding_of, rank_result, summarise
from consensus.run.watch import TargetWatch
from consensus.serving import ServedHandle, ServerHandle
from consensus.trace import TraceWriter
from consensus.transport.base import Transport
from consensus.transport.idle import cpus
from consensus.transport.straggler import StragglerTransport
from consensus.types import Rank, Seconds


def run(config: RunConfig, transport: Transport, *, report: Report | None = None, resume: str | None = None) -> Path:
    """Train as ``config`` says, evaluate, and write the results. Collective.

    Parameters
    ----------
    config : RunConfig
        The same at all ranks.
    transport : Transport
        Not connected.
    report : callable, optional
        Called on rank 0 with a :class:`~consensus.run.status.Status`, about five times a second.
    resume : str, optional
        Folder of an earlier run to go on from, or "latest", see :func:`consensus.run.checkpoints.find`.

    Returns
    -------
    Path
        The folder of results, see docs/results.md.

    Raises
    ------
    ConfigError
        If the run cannot be started as it is written.
    NonFiniteLoss
        If a loss becomes NaN or infinite and ``run.on_nan`` is "stop".
    DeadRanks
        If ranks have died without whom the others cannot go on, such as a parameter server; the message says from which
        checkpoint another run can.
    CodingError
        Likewise if too few ranks are left to decode gradients.
    """
    config.check(transport.size)
    if config.codes:
        config.code(transport.size)  # nothing is written before all is known to be right
    site = _Site(config, transport, report if transport.rank == 0 else None)
    try:
        with Interruption() as site.interruption, _threads(transport):
            task = prepare(config, transport.rank, transport.size)
            if resume is not None:
                site.found = _find(config, resume, transport)
            started = datetime.now().astimezone()
            site.folder = agree_on_folder(config, transport, started)
            trained = _train(site, task)
            _evaluate(site, trained, started)
            return site.folder
    except (DeadRanks, CodingError) as error:
        # Too many have died, and the run cannot go on by itself.
        further = "" if site.handle is None else f". {way_on(config, site.folder, site.found)}"
        told = type(error)(f"{error}{further}")
        told.add_note(site.where)
        raise told from error
    except BaseException as error:
        error.add_note(site.where)
        raise


_LOG = logging.getLogger("consensus")


class _Site:
    """Where a run takes place: what all its parts share."""

    def __init__(self, config: RunConfig, transport: Transport, report: Report | None) -> None:
        self.config, self.transport, self.report = config, transport, report
        self.interruption = Interruption()
        self.folder = Path()
        self.handle: Handle | None = None
        self.found: Found | None = None
        self.resumed_at: Seconds = 0.0

    @property
    def snapshots(self) -> SnapshotFolder:
        return snapshot_folder(self.config, self.folder / SNAPSHOTS, self.transport.size)

    @property
    def where(self) -> str:
        """For whoever reads a traceback among those of many ranks."""
        round_ = f", round {self.handle.statistics.rounds + 1}" if self.handle is not None else ""
        return f"on rank {self.transport.rank}{round_}"


class _Trained(NamedTuple):
    """What training came to on this rank."""

    result: RankResult
    evaluator: Evaluator
    evaluated: list[Evaluated]
    missed: frozenset[int]


def _train(site: _Site, task: Task) -> _Trained:
    config, rank = site.config, site.transport.rank
    keeps_models = rank < config.holders(site.transport.size)
    with ExitStack() as stack:
        ending = _ending(site)
        position = None if site.found is None else take_up(site.found, config, task, site.transport)
        if position is not None:
            samples = site.transport.gather(position.samples)  # of the members: who died since the start is none
            counts = dict(zip(site.transport.members, samples, strict=True))
            ending.tally.resume(counts.pop(rank), counts)
        watch = stack.enter_context(TargetWatch(site.folder)) if rank == 0 and config.run.stop.target is not None else None
        ending.watch = watch
        # A second model costs memory; during training it is there only where snapshots need buffers that are not exchanged.
        own = config.exchange.buffers == "local" and keeps_models
        evaluator = Evaluator(config, task.dataset) if own else None
        events = _event_writer(site)
        if events is not None:
            stack.enter_context(events)
        handle = stack.enter_context(_attach(site, task, ending, events, position))
        if position is not None:
            position.check_start(site.transport)
        site.handle = handle
        loop = _course(site, task, handle, ending)
        started = time.time()
        if position is not None:
            position.restore(task)
            handle.statistics = position.statistics
            if isinstance(handle, ServedHandle):
                handle.resume(position.engine)
            loop.origin -= position.seconds
            site.resumed_at = position.seconds
            loop.resume(position.steps)
            started -= position.seconds
        if config.checkpoint.every is not None and rank < config.writers(site.transport.size):
            loop.checkpoint(Checkpoints(config, site.folder, task, handle, site.resumed_at))
        if events is not None:
            events.set_clock(loop.origin, started)
        if config.run.trace:
            path = site.folder / f"trace-{rank}.jsonl"
            loop.trace(stack.enter_context(TraceWriter(path, rank, loop.origin, started)))
        if keeps_models:
            take = handle.flat.snapshot if evaluator is None else lambda: evaluator.copy_of(task.model)
            marks = config.evaluation
            recorder = Recorder(site.snapshots, rank, marks.every, marks.marks, take, loop.counts)
            recorder.resume(site.resumed_at)
            loop.keep(recorder)
            seconds = loop.run()
            recorder.end(seconds)
            missed = frozenset(recorder.missed)
        else:
            missed = frozenset()
            seconds = loop.run()
        handle.close()
        result = rank_result(handle, ending.tally.own, ending.reason, seconds)
        return _Trained(result, evaluator or Evaluator(config, task.dataset), watch.finish() if watch is not None else [], missed)


def _find(config: RunConfig, resume: str, transport: Transport) -> Found | None:
    """What to go on from; rank 0 looks, for all files of a set are read. Collective."""
    found: Found | ConsensusError | None = None
    if transport.rank == 0:
        try:
            found = find(config, resume, transport.size)
        except ConsensusError as error:
            found = error
    found = transport.gather(found)[0]
    if isinstance(found, ConsensusError):
        raise found
    return found


def _course(site: _Site, task: Task, handle: Handle, ending: Ending) -> Course:
    if isinstance(handle, CodedHandle):
        return CodedCourse(site.config, task, handle, ending, site.report)
    if isinstance(handle, ServerHandle):
        return Service(site.config, task, handle, ending, site.report)
    return Loop(site.config, task, handle, ending, site.report)


def _event_writer(site: _Site) -> EventWriter | None:
    """What records this rank's events, if they are wanted and there are any. Collective."""
    config, transport = site.config, site.transport
    if not config.run.record or config.rule.is_allreduce or config.kind != "neighbours":
        return None
    # The folder's name would not do: two hosts may have made one of the same name.
    run = transport.gather(uuid.uuid4().hex)[0]
    return EventWriter(site.folder / file_name(transport.rank), run=run, limit=config.run.record_limit * MIB)


def _attach(site: _Site, task: Task, ending: Ending, events: EventWriter | None, position: Position | None) -> Handle:
    config, transport = site.config, site.transport
    seed, exchange = config.run.seed, config.exchange
    stragglers = config.stragglers.build()
    worker = config.worker(transport.rank, transport.size)
    code = config.code(transport.size) if config.codes else None
    if stragglers is not None and worker >= 0:
        stream = stragglers.stream(worker, seed)
        stretched = StragglerTransport(transport, stream if code is None else stream.times(code.loads[worker]))
        stretched.skip(0 if position is None else position.rounds)
        transport = stretched
    if code is not None:
        coding = config.coding
        coded = attach_coded(
            task.model,
            task.optimizer,
            code=code,
            buffers=exchange.buffers,
            transport=transport,
            payload=coding.payload,
            push=coding.push,
            approximate=coding.approximate,
            any_kappa=coding.any_kappa,
            stall_warning=config.run.stall_warning,
            stall_abort=config.run.stall_limit,
            on_message=ending.hear,
        )
        ending.bind(coded)
        return coded
    if config.serves:
        served = attach_served(
            task.model,
            task.optimizer,
            rule=config.rule.build_served(),
            buffers=exchange.buffers,
            transport=transport,
            push=config.server.push,
            learning_rate=config.server.learning_rate.build(),
            servers=config.server.servers,
            stall_warning=config.run.stall_warning,
            stall_abort=config.run.stall_limit,
            on_message=ending.hear,
        )
        ending.bind(served)
        return served
    handle = attach(
        task.model,
        task.optimizer,
        topology=config.graph(transport.size),
        rule=ALLREDUCE if config.rule.is_allreduce else config.rule.build(),
        every=exchange.every,
        order=exchange.order,
        weights=exchange.weights,
        buffers=exchange.buffers,
        step_scale=exchange.step_scale,
        transport=transport,
        stall_warning=config.run.stall_warning,
        stall_abort=config.run.stall_limit,
        stuck_after=config.run.stuck_after,
        on_message=ending.hear,
        recorder=events,
    )
    ending.bind(handle)
    if position is not None and isinstance(handle, NeighbourHandle):
        handle.resume(position.steps)
    return handle


def _ending(site: _Site) -> Ending:
    config, size = site.config, site.transport.size
    if config.codes:
        return EndByMaster(config, Tally(size, config.run.stop.samples, config.data.batch), site.interruption)
    if config.rule.is_allreduce:
        # In step, so that ranks know each other's counts without a word.
        return EndByVote(config, Tally(size, None, config.data.batch), site.interruption)
    return EndByMessage(config, Tally(size, config.run.stop.samples, config.data.batch), site.interruption)


def _evaluate(site: _Site, trained: _Trained, started: datetime) -> None:
    """Share the marks out over the ranks, evaluate them, and let the first one write what came of it.

    A rank may die at that, too: what it was to evaluate or to write then falls to the others.
    """
    config, transport = site.config, site.transport
    rank, every = transport.rank, config.evaluation.every
    results = dict(transport.gather((rank, trained.result)))
    known = {evaluated.mark: evaluated for evaluated in transport.gather(trained.evaluated)[0]}
    end = max(result.ended_at for result in results.values())
    # A mark at which some rank's disk was full has no mean.
    missed = frozenset().union(*transport.gather(trained.missed))
    marks = [mark for mark in kept(int(end / every), config.evaluation.marks) if mark * every > site.resumed_at]
    marks = [mark for mark in marks if mark not in missed]
    while missing := [mark for mark in (None, *marks) if mark not in known]:
        living = [peer for peer in transport.members if peer in results]
        if not any(holder in living for holder in range(config.holders(transport.size))):
            raise DeadRanks(f"rank {rank} cannot evaluate the model: rank 0, which had it, died when training was over")
        # Of a rank that died there is no last model, so it counts at none of the marks that are left to evaluate.
        snapshots, own = site.snapshots.among(living), missing[living.index(rank) :: len(living)]
        shares = transport.gather([trained.evaluator.mark(snapshots, mark) for mark in own])
        known |= {evaluated.mark: evaluated for share in shares for evaluated in share}
    while True:
        first = transport.members[0]
        if rank == first:
            _write(site, results, known, end, started)
        transport.gather(None)  # no rank says that the results are there before they are
        if transport.members[0] == first:
            return


def _write(
    site: _Site, results: Mapping[Rank, RankResult], known: Mapping[int | None, Evaluated], end: Seconds, started: datetime
) -> None:
    """Remove the snapshots, from which ``known`` came, and write the results: what is needed first, and the picture last."""
    config = site.config
    every = config.evaluation.every
    timed = [(end if mark is None else mark * every, evaluated) for mark, evaluated in known.items()]
    metrics = to_metrics(sorted(timed, key=lambda item: (item[0], item[1].mark is None)))
    # First, for they may be what fills the disk; perhaps by a rank that died before it wrote the rest.
    shutil.rmtree(site.folder / SNAPSHOTS, ignore_errors=True)
    write_metrics(site.folder, metrics)
    lost = [peer for peer in range(site.transport.size) if peer not in results]
    if lost:
        _LOG.warning("ranks %s died during the run; the results are those of the others", lost)
    by_rank = [results.get(peer, LOST) for peer in range(site.transport.size)]
    handle = site.handle
    server = handle.decides if isinstance(handle, ServerHandle) else None
    coding = coding_of(handle.code, handle.engine, handle.worst_residual) if isinstance(handle, MasterHandle) else None
    told = summarise(config, started, by_rank, metrics, server=server, coding=coding, found=site.found, lost=lost)
    write_summary(site.folder, told)
    with dispensable(site.folder / CURVES):
        draw_curves({config.rule.name: metrics}, site.folder / CURVES)


@contextmanager
def _threads(transport: Transport) -> Iterator[None]:
    """Give torch this rank's share of the host's processors; threads that outnumber them only wait for each other."""
    node = platform.node()
    here = [processors for host, processors in transport.gather((node, cpus())) if host == node]
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, len(frozenset().union(*here)) // len(here))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
