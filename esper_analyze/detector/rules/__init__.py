"""Every rule of the detector, written out in the order findings of one update are listed."""

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules.ratio_explosion import RULE as RATIO_EXPLOSION

RULES: tuple[Rule, ...] = (RATIO_EXPLOSION,)

__all__ = ["RULES"]
