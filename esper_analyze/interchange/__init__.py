"""Other tools' recordings in, ours out: one file ``import_*`` a source, one file ``export_*`` a target."""
