"""The gradient resolved by lag.

The gradient of the losses L_t is a sum over the steps k that they reach back to,

    dL/dW = sum_lag sum_t  dL_t/dS_t · ( prod_{j=t-lag+1..t} dS_j/dS_{j-1} ) · dS_{t-lag}/dW

and these modules compute each term of the sum over lags, lag = t - k.
"""

from .adaptive_horizon import AdaptiveHorizon
from .gradients import lag_gradients, lag_terms
from .monitor import LagMonitor
from .record import LagRecord
from .result import LagGradients, LagTerm

__all__ = [
    "AdaptiveHorizon",
    "LagGradients",
    "LagMonitor",
    "LagRecord",
    "LagTerm",
    "lag_gradients",
    "lag_terms",
]
