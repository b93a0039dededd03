"""The model of a rank as contiguous numbers: what is sent to neighbours, and mixed with what arrives from them.

The exchanged parameters of one dtype on one device lie in one contiguous region and become views of it, so sending the model
copies nothing. Behind the parameters comes the tail: copies of the averaged buffers. Arriving models are accumulated chunk by
chunk, as they arrive, while a chunk is in cache; no model of a neighbour is ever kept whole, unless its weight is not known yet.
Memory: the parameters, at most one model of accumulated chunks, those that are arriving, and one tail per neighbour.

Once a round has no more exchange to come, a chunk that has been swapped with everybody is mixed at once, while it and what
arrived last are in cache. In a round that ends otherwise the rest is mixed when it closes.

float16 and bfloat16 are accumulated in float32 and rounded once a round; a difference below their precision is lost, so the mean
over ranks is kept to that precision only. Parameters are laid out contiguously, in channels_last models too: values are the
same, the memory format of weights is not.

A model on an accelerator is staged through (pinned) host memory: copied there when a round opens, mixed there, copied back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from consensus.buffers import ALIGNMENT, BufferPolicy, MeanInPlace, Place, averaged_buffers, fixed
from consensus.errors import ConfigError, ProtocolError
from consensus.region import ACCUMULATED_IN, EXCHANGEABLE, Arriving, Region, as_bytes
from consensus.transport.base import CHUNK_BYTES, Bytes
from consensus.types import Rank


class _View(NamedTuple):
    """An exchanged parameter, and how to tell that it still is a view of its region."""

    name: str
    parameter: nn.Parameter
    address: int
    holder: dict[str, nn.Parameter | None]
    key: str


class FlatModel:
    """A rank's model as contiguous numbers; the parcel of a transport, and the arithmetic of mixing.

    A round: :meth:`begin`, then for each exchange :meth:`expect`, and one :meth:`deliver` and one :meth:`release` a chunk (or
    :meth:`forget`), then :meth:`mix`.

    Parameters
    ----------
    model : nn.Module
        Already on its device and in its dtype.
    parameters : iterable of nn.Parameter
        Those to exchange, in the same order at every rank; frozen ones left out. Tied ones (the same object, or the same
        memory) count once. Their ``data`` becomes a view of the region.
    buffers : {"average", "local"}
        Whether floating buffers are averaged too; see :mod:`consensus.buffers`.
    chunk_bytes : int, default CHUNK_BYTES
        Largest chunk, bytes; at least 64.
    staging : bool, optional
        Send from a host copy of the numbers. Default: where the model is not in host memory.

    Raises
    ------
    ConfigError
        If there is nothing to exchange, or it cannot be exchanged (dtype, no shape yet, no values).

    Examples
    --------
    >>> models = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    >>> for value, model in enumerate(models):
    ...     _ = nn.init.constant_(model.weight, float(value))
    >>> left, right = (FlatModel(model, model.parameters(), buffers="average") for model in models)
    >>> left.begin()
    >>> left.expect(1, 0.25)
    >>> for index, data in enumerate(right.chunks):
    ...     left.deliver(1, index, data)
    >>> left.mix(((1, 0.25),))
    >>> models[0].weight.tolist()
    [[0.25, 0.25]]
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Iterable[nn.Parameter],
        *,
        buffers: BufferPolicy,
        chunk_bytes: int = CHUNK_BYTES,
        staging: bool | None = None,
    ) -> None:
        if chunk_bytes < ALIGNMENT:
            raise ConfigError(f"chunk_bytes={chunk_bytes} is too small; use at least {ALIGNMENT}, best {CHUNK_BYTES}")
        self._model = model
        exchanged = list(dict.fromkeys(parameters))
        owners = _owners(model)
        names = {p: owners[p][0] if p in owners else f"#{number} of those given" for number, p in enumerate(exchanged)}
        for parameter in exchanged:
            _check_exchangeable(names[parameter], parameter)
        if not any(p.numel() for p in exchanged):
            raise ConfigError(
                "there is no parameter to exchange: the list is empty or every parameter is frozen; attach after unfreezing"
            )
        leaders = _leaders(exchanged)
        tails = averaged_buffers(model, buffers)
        grouped: dict[Place, list[nn.Parameter]] = {}
        for parameter in dict.fromkeys(leaders.values()):
            grouped.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        places = dict.fromkeys((*grouped, *tails))
        for _, dtype in places:
            if dtype not in ACCUMULATED_IN:
                raise ConfigError(f"buffers of dtype {dtype} cannot be averaged, only {EXCHANGEABLE}; use buffers='local'")
        self._regions = [Region(place, grouped.get(place, ()), tails.get(place), staging) for place in places]
        for parameter, leader in leaders.items():
            parameter.data = leader.data
        self._views = [_View(names[p], p, p.data_ptr(), *owners.get(p, ("", {"": p}, ""))[1:]) for p in exchanged]
        self._chunks = [chunk for region in self._regions for chunk in region.chunks(chunk_bytes)]
        self.chunks: Sequence[Bytes] = tuple(chunk.data for chunk in self._chunks)
        """The own model as it is sent, uint8 arrays of shape (<= chunk_bytes,): views, not copies."""
        self._sizes = [*(data.size for data in self.chunks), 0]  # after the last chunk, nothing fits
        self._peers: dict[Rank, Arriving] = {}
        self._expected: dict[Rank, Arriving] = {}
        self._due = 0
        """How often a chunk comes and leaves in this round; 0 while that is not known."""
        self._complete = True
        """Whether nothing was lost in this round."""

    @property
    def layout(self) -> list[tuple[torch.dtype, int]]:
        """The (dtype, numbers) of each region, padding and averaged buffers included."""
        return [(region.flat.dtype, region.numel) for region in self._regions]

    @property
    def bodies(self) -> list[int]:
        """How many numbers of each region are parameters (padded); averaged buffers follow."""
        return [region.body for region in self._regions]

    @property
    def places(self) -> list[tuple[nn.Parameter, int, int]]:
        """Each exchanged parameter, the number of its region, and where it begins in it; tied ones share a place."""
        number = {(region.flat.device, region.flat.dtype): at for at, region in enumerate(self._regions)}
        found = []
        for view in self._views:
            parameter = view.parameter
            at = number[parameter.device, parameter.dtype]
            start = (parameter.data_ptr() - self._regions[at].flat.data_ptr()) // parameter.element_size()
            found.append((parameter, at, start if parameter.numel() else 0))
        return found

    @property
    def names(self) -> list[str]:
        """The names of the exchanged parameters, in the order of :attr:`places`."""
        return [view.name for view in self._views]

    def rows(self) -> list[Tensor]:
        """The averaged buffers of each region as they are now, in host memory."""
        for region in self._regions:
            if region.tail:
                region.tail.pack()
        return [region.flat[region.body :].cpu() for region in self._regions]

    def pool_rows(self, shares: Sequence[float], rows: Sequence[Sequence[Tensor]]) -> None:
        """Replace the averaged buffers by a mixture: ``rows[i][r]`` is the i-th model's row of region r, ``shares`` sum to 1."""
        for at, region in enumerate(self._regions):
            if region.tail:
                region.flat[region.body :] = region.tail.pool(shares, [row[at] for row in rows]).to(region.flat.device)
                region.tail.unpack()

    @property
    def numel(self) -> int:
        """Numbers exchanged with a neighbour."""
        return sum(region.numel for region in self._regions)

    @property
    def nbytes(self) -> int:
        """Bytes sent to a neighbour, and received, in an exchange."""
        return sum(chunk.nbytes for chunk in self.chunks)

    @property
    def parameter_bytes(self) -> list[int]:
        """How many bytes of each chunk are parameters (and padding); what follows in it is averaged buffers."""
        return [chunk.body_bytes for chunk in self._chunks]

    @property
    def signature(self) -> str:
        """What must be the same at all ranks, as a readable word and a digest of shapes, dtypes, buffers and chunks."""
        shapes = [(tuple(v.parameter.shape), str(v.parameter.dtype)) for v in self._views]
        rows = [(str(r.flat.dtype), r.body, r.numel) for r in self._regions]
        rest = [(tuple(t.shape), str(t.dtype)) for t in self._state()]
        digest = hashlib.sha256(repr((shapes, rows, rest, [c.nbytes for c in self.chunks])).encode()).hexdigest()
        sizes = ", ".join(f"{numel} {str(dtype).removeprefix('torch.')}" for dtype, numel in self.layout)
        return f"{len(shapes)} parameters ({sizes}) {digest[:16]}"

    def begin(self) -> None:
        """Open a round: bring the send buffers up to date and forget the last round's arrivals.

        Raises
        ------
        ConfigError
            If a parameter is no longer a view of its region.
        """
        self.check_views()
        self._expected.clear()
        self._due, self._complete = 0, True
        for chunk in self._chunks:
            chunk.begin()
        for region in self._regions:
            region.open()

    def expect(self, peer: Rank, weight: float | None, last: bool = False) -> None:
        """Be ready for the model of ``peer``.

        Parameters
        ----------
        peer : int
        weight : float or None
            What it counts for; None keeps the model until :meth:`mix` says, at the cost of its size in memory.
        last : bool
            Whether no other exchange of this round is to come. Then chunks are mixed as soon as they have been swapped with
            everybody, from now on.
        """
        if peer in self._expected:
            raise ProtocolError(f"the model of rank {peer} is expected already; one exchange with a rank in a round")
        arriving = self._peers.get(peer)
        if arriving is None:
            arriving = self._peers[peer] = Arriving(self._regions)
        arriving.weight, arriving.arrived = weight, 0
        arriving.store.clear()
        self._expected[peer] = arriving
        if last and weight is not None and self._complete:
            self._due = 2 * len(self._expected)

    def incoming(self, peer: Rank) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """Return the own model: every peer is sent the same."""
        return self.chunks

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of a peer's model to arrive in; :meth:`deliver` takes it back."""
        return self._chunks[index].lend()

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Take chunk ``index`` of ``peer``'s model.

        Parameters
        ----------
        peer : int
        index : int
            Chunks of a peer come in order.
        data : ndarray of uint8, as long as the own chunk of that index
            Belongs to this model from now on.
        """
        arriving = self._expected.get(peer)
        if arriving is None or index != arriving.arrived or data.size != self._sizes[index]:
            raise ProtocolError(
                f"chunk {index} of {data.size} bytes came from rank {peer}, of which "
                + ("nothing" if arriving is None else f"chunk {arriving.arrived} of {self._sizes[arriving.arrived]} bytes")
                + " was expected; do all ranks have the same model?"
            )
        arriving.arrived = index + 1
        if arriving.weight is None:
            arriving.store.append(data)
        else:
            chunk = self._chunks[index]
            chunk.moves += 1
            arriving.take(chunk, data, arriving.weight, last=chunk.moves == self._due)

    def release(self, peer: Rank, index: int) -> None:
        """Take note that chunk ``index`` of the own model has left for ``peer``."""
        chunk = self._chunks[index]
        chunk.moves += 1
        if chunk.moves == self._due:
            chunk.mix()

    def forget(self, peer: Rank) -> None:
        """Stop expecting the model of ``peer``, which is lost.

        Chunks that were accumulated before stay: every chunk has its own sum of weights, so rows still sum to one. Its buffers
        do not count. What is not mixed yet waits for :meth:`mix`.
        """
        self._due, self._complete = 0, False
        self._expected.pop(peer, None)
        self._peers.pop(peer, None)

    def mix(self, weights: Sequence[tuple[Rank, float]]) -> None:
        """Make the model x <- (1 - sum of weights) x + sum of weight_j x_j; without weights, nothing is touched.

        Parameters
        ----------
        weights : sequence of (int, float)
            The peers whose models have arrived since :meth:`begin`, and what they count for.
        """
        self._check_arrived(weights)
        if not weights:
            return
        for peer, weight in weights:
            arriving = self._expected[peer]
            if arriving.weight is None:
                for chunk, data in zip(self._chunks, arriving.store, strict=True):
                    arriving.take(chunk, data, weight, last=False)
                arriving.store.clear()
        for chunk in self._chunks:
            chunk.mix()
        for region in self._regions:
            if region.tail:
                shares = [1.0 - sum(weight for _, weight in weights), *(weight for _, weight in weights)]
                region.pool(shares, [self._expected[peer].rows[region] for peer, _ in weights])
            region.publish()
        self._expected.clear()

    def snapshot(self) -> list[Bytes]:
        """A copy of what is exchanged, as it is now: one array of bytes a region. May be taken while a round is open."""
        return [as_bytes(region.copy()) for region in self._regions]

    def restore(self, snapshot: Sequence[Bytes]) -> None:
        """Put back what :meth:`snapshot` (here or at another rank) returned. Not while a round is open."""
        self.check_views()
        for region, data in zip(self._regions, snapshot, strict=True):
            region.host.copy_(torch.from_numpy(data).view(region.host.dtype))
            region.publish()

    def mean_over(self, mean_in_place: MeanInPlace) -> None:
        """Replace what is exchanged by its mean over ranks (collective, not while a round is open).

        Parameters
        ----------
        mean_in_place : callable
            Makes an array (float32 or float64, one-dimensional or pairs) its mean over ranks, in place.
        """
        self.check_views()
        for region in self._regions:
            region.open()
            region.average(mean_in_place)
            region.publish()

    def initial_state(self) -> list[Bytes]:
        """All parameters, frozen ones too, and all buffers, integer ones too, as bytes that may be overwritten (by a broadcast).

        The arrays are views where memory allows and copies elsewhere: :meth:`load_initial_state` must follow. The order and the
        sizes are the same at ranks of the same :attr:`signature`.
        """
        return [as_bytes(tensor.cpu().contiguous()) for tensor in self._state()]

    def load_initial_state(self, state: Sequence[Bytes]) -> None:
        """Make the arrays that :meth:`initial_state` returned here, overwritten since, the model's state."""
        for tensor, data in zip(self._state(), state, strict=True):
            if data.__array_interface__["data"][0] != tensor.data_ptr():
                tensor.copy_(torch.from_numpy(data).view(tensor.dtype).view(tensor.shape))

    def _state(self) -> list[Tensor]:
        exchanged = {view.parameter for view in self._views}
        rest = [*(p for p in self._model.parameters() if p not in exchanged), *self._model.buffers()]
        bodies = [region.flat[: region.body] for region in self._regions]
        return [tensor for tensor in (*bodies, *(other.detach() for other in rest)) if tensor.numel() and not fixed(tensor)]

    def check_views(self) -> None:
        """Raise :class:`~consensus.errors.ConfigError` if a parameter is no longer a view of its region."""
        for name, parameter, address, holder, key in self._views:
            if parameter.data_ptr() != address or holder.get(key) is not parameter:
                raise ConfigError(
                    f"parameter {name!r} was moved, cast or re-assigned after the model was attached, so it would no longer be "
                    "averaged; attach after model.to(...), .half() and the like, change values in place (copy_, load_state_dict)"
                )

    def _check_arrived(self, weights: Sequence[tuple[Rank, float]]) -> None:
        complete = len(self._chunks)
        for peer, weight in weights:
            arriving = self._expected.get(peer)
            if arriving is None or arriving.arrived != complete:
                seen = "none" if arriving is None else arriving.arrived
                raise ProtocolError(
                    f"the model of rank {peer} is to be mixed, but {seen} of its {complete} chunks arrived since begin"
                )
            if arriving.weight is not None and abs(arriving.weight - weight) > 1e-9:
                raise ProtocolError(f"the model of rank {peer} was accumulated with weight {arriving.weight}, not {weight}")
        if len(weights) != len(self._expected):
            missing = sorted(self._expected.keys() - {peer for peer, _ in weights})
            raise ProtocolError(f"the models of ranks {missing} were expected and are neither mixed nor forgotten")


def _owners(model: nn.Module) -> dict[nn.Parameter, tuple[str, dict[str, nn.Parameter | None], str]]:
    """Parameter -> (its first name, the dictionary that holds it, its key there)."""
    owners: dict[nn.Parameter, tuple[str, dict[str, nn.Parameter | None], str]] = {}
    for path, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(parameter, (f"{path}.{key}".lstrip("."), module._parameters, key))
    return owners


def _leaders(parameters: Sequence[nn.Parameter]) -> dict[nn.Parameter, nn.Parameter]:
    """Each parameter -> the first that lies in the same memory, so that parameters tied by memory stay tied."""
    first: dict[object, nn.Parameter] = {}
    return {
        p: first.setdefault((p.device, p.data_ptr(), p.dtype, p.shape, p.stride()) if p.numel() else id(p), p) for p in parameters
    }


def _check_exchangeable(name: str, parameter: nn.Parameter) -> None:
    if is_lazy(parameter):
        raise ConfigError(f"parameter {name!r} has no shape yet; run one forward pass before attaching")
    if parameter.is_meta or parameter.layout is not torch.strided:
        kind = "on the meta device" if parameter.is_meta else f"of layout {parameter.layout}"
        raise ConfigError(f"parameter {name!r} is {kind}, but must be a dense tensor with values; materialise or freeze it")
    if parameter.dtype not in ACCUMULATED_IN:
        raise ConfigError(
            f"parameter {name!r} is of dtype {parameter.dtype}, but only {EXCHANGEABLE} can be averaged; "
            "freeze it, or cast the model"
        )
