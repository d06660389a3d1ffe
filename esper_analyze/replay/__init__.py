"""A recorded run judged again: as recorded, with other thresholds, or against labels."""
