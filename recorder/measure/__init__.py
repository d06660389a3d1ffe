"""Measurements: tensors in, device scalars out. Nothing here waits for the device."""
