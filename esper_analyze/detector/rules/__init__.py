"""Every rule of the detector, written out in the order findings of one update are listed: causes first."""

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules.entropy_collapse import RULE as ENTROPY_COLLAPSE
from esper_analyze.detector.rules.first_ratio import RULE as FIRST_RATIO
from esper_analyze.detector.rules.gradient_drift import RULE as GRADIENT_DRIFT
from esper_analyze.detector.rules.gradient_missing import RULE as GRADIENT_MISSING
from esper_analyze.detector.rules.head_entropy_collapse import RULE as HEAD_ENTROPY_COLLAPSE
from esper_analyze.detector.rules.kl_spike import RULE as KL_SPIKE
from esper_analyze.detector.rules.lstm_explosion import RULE as LSTM_EXPLOSION
from esper_analyze.detector.rules.lstm_nonfinite import RULE as LSTM_NONFINITE
from esper_analyze.detector.rules.lstm_vanishing import RULE as LSTM_VANISHING
from esper_analyze.detector.rules.mask_collapse import RULE as MASK_COLLAPSE
from esper_analyze.detector.rules.numerical_instability import RULE as NUMERICAL_INSTABILITY
from esper_analyze.detector.rules.ratio_collapse import RULE as RATIO_COLLAPSE
from esper_analyze.detector.rules.ratio_explosion import RULE as RATIO_EXPLOSION
from esper_analyze.detector.rules.update_skipped import RULE as UPDATE_SKIPPED
from esper_analyze.detector.rules.value_collapse import RULE as VALUE_COLLAPSE

RULES: tuple[Rule, ...] = (
    NUMERICAL_INSTABILITY,
    FIRST_RATIO,
    KL_SPIKE,
    ENTROPY_COLLAPSE,
    RATIO_EXPLOSION,
    RATIO_COLLAPSE,
    MASK_COLLAPSE,
    HEAD_ENTROPY_COLLAPSE,
    GRADIENT_MISSING,
    GRADIENT_DRIFT,
    VALUE_COLLAPSE,
    LSTM_NONFINITE,
    LSTM_EXPLOSION,
    LSTM_VANISHING,
    UPDATE_SKIPPED,
)

__all__ = ["RULES"]
