"""Networks as files that other runtimes open: written, compared with the network, quantised; and the fastest chosen."""
