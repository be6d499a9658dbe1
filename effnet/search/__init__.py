"""Networks found by measuring or by training many: latency as a cost, coefficients, blocks, the claim of scaling."""

from effnet.search.latency import Latency as Latency
from effnet.search.latency import Measured as Measured
from effnet.search.latency import latency as latency
