"""DBW, dynamic backup workers: the server waits for as many gradients as promise the fastest descent.

Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696. The paper's body was not at
hand: the formulas are derived here.
"""

from consensus.rules.dbw.arrivals import FirstArrivals, WaitingSample
from consensus.rules.dbw.choice import bound_after_rise, bound_on_fall, choose, choose_blindly
from consensus.rules.dbw.fitted import FittedTimes
from consensus.rules.dbw.gain import GainEstimator
from consensus.rules.dbw.horizon import HorizonGain
from consensus.rules.dbw.isotonic import diagonal_isotonic
from consensus.rules.dbw.rule import Dbw, DbwState
from consensus.rules.dbw.steady import SteadyTimes
from consensus.rules.dbw.trips import RoundTrips
from consensus.rules.dbw.waiting import WaitingTimes

__all__ = [
    "Dbw", "DbwState", "FirstArrivals", "FittedTimes", "GainEstimator", "HorizonGain", "RoundTrips", "SteadyTimes",
    "WaitingSample", "WaitingTimes", "bound_after_rise", "bound_on_fall", "choose", "choose_blindly", "diagonal_isotonic",
]
