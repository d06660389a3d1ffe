"""The anomaly detector: one for the live recorder and for replay, numpy over columns."""
