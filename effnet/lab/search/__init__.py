"""Networks found by measuring or by training many: latency as a cost, coefficients, blocks, the claim of scaling."""

from effnet.runtime.latency import Latency as Latency
from effnet.runtime.latency import LatencyMeasurement as LatencyMeasurement
from effnet.runtime.latency import latency as latency
