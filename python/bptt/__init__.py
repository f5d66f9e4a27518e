"""Back-propagation through time as compiled kernels.

Fused forward pass and BPTT of recurrent networks, on NumPy arrays (or anything with DLPack)::

    params = bptt.init_params("tanh", input_size=1, hidden_size=64, output_size=10, rng=0)
    loss, grads = bptt.value_and_grad("tanh", params, x, target, loss="cross_entropy", at="last")
"""

from .backends import BackendStatus, backends
from .cells import CELLS, Cell
from .custom_cell import CellDefinition, cell
from .forward_pass import forward
from .gradient import value_and_grad
from .gradient_check import GradientCheck, check_gradients
from .grads import Grads, StackGrads
from .info import Info, info
from .initial import init_params
from .jacobians import JacobianNorms, LyapunovExponents, jacobian_norms, lyapunov_exponents
from .lags import (
    AdaptiveHorizon,
    LagGradients,
    LagMonitor,
    LagRecord,
    LagTerm,
    lag_gradients,
    lag_terms,
)
from .library import get_include, get_library_dir
from .params import Params
from .plan import DevicePlan, Plan, plan
from .prediction import Prediction, predict
from .stacked import StackTape
from .stepper import Stepper
from .subnormals import get_flush_subnormals, set_flush_subnormals
from .tape import Tape
from .threads import get_num_threads, set_num_threads

__version__ = "0.2.0"

__all__ = [
    "CELLS",
    "AdaptiveHorizon",
    "BackendStatus",
    "Cell",
    "CellDefinition",
    "DevicePlan",
    "GradientCheck",
    "Grads",
    "Info",
    "JacobianNorms",
    "LagGradients",
    "LagMonitor",
    "LagRecord",
    "LagTerm",
    "LyapunovExponents",
    "Params",
    "Plan",
    "Prediction",
    "StackGrads",
    "StackTape",
    "Stepper",
    "Tape",
    "__version__",
    "backends",
    "cell",
    "check_gradients",
    "forward",
    "get_flush_subnormals",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "info",
    "init_params",
    "jacobian_norms",
    "lag_gradients",
    "lag_terms",
    "lyapunov_exponents",
    "plan",
    "predict",
    "set_flush_subnormals",
    "set_num_threads",
    "value_and_grad",
]
