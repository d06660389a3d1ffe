"""Every rule of the detector, written out in the order findings of one update are listed: causes first."""

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules.advantage_collapse import RULE as ADVANTAGE_COLLAPSE
from esper_analyze.detector.rules.advantage_inconsistent import RULE as ADVANTAGE_INCONSISTENT
from esper_analyze.detector.rules.advantage_misaligned import RULE as ADVANTAGE_MISALIGNED
from esper_analyze.detector.rules.advantage_outlier import RULE as ADVANTAGE_OUTLIER
from esper_analyze.detector.rules.clip_saturation import RULE as CLIP_SATURATION
from esper_analyze.detector.rules.clipping_always import RULE as CLIPPING_ALWAYS
from esper_analyze.detector.rules.critic_constant import RULE as CRITIC_CONSTANT
from esper_analyze.detector.rules.critic_not_learning import RULE as CRITIC_NOT_LEARNING
from esper_analyze.detector.rules.data_lost import RULE as DATA_LOST
from esper_analyze.detector.rules.ends_ignored import RULE as ENDS_IGNORED
from esper_analyze.detector.rules.entropy_collapse import RULE as ENTROPY_COLLAPSE
from esper_analyze.detector.rules.entropy_low import RULE as ENTROPY_LOW
from esper_analyze.detector.rules.entropy_rises import RULE as ENTROPY_RISES
from esper_analyze.detector.rules.entropy_stuck import RULE as ENTROPY_STUCK
from esper_analyze.detector.rules.environments_alike import RULE as ENVIRONMENTS_ALIKE
from esper_analyze.detector.rules.episodes_stopped import RULE as EPISODES_STOPPED
from esper_analyze.detector.rules.eval_apart import RULE as EVAL_APART
from esper_analyze.detector.rules.first_ratio import RULE as FIRST_RATIO
from esper_analyze.detector.rules.frozen_update import RULE as FROZEN_UPDATE
from esper_analyze.detector.rules.gradient_drift import RULE as GRADIENT_DRIFT
from esper_analyze.detector.rules.gradient_explosion import RULE as GRADIENT_EXPLOSION
from esper_analyze.detector.rules.gradient_missing import RULE as GRADIENT_MISSING
from esper_analyze.detector.rules.gradient_stopped import RULE as GRADIENT_STOPPED
from esper_analyze.detector.rules.gradient_vanishing import RULE as GRADIENT_VANISHING
from esper_analyze.detector.rules.head_entropy_collapse import RULE as HEAD_ENTROPY_COLLAPSE
from esper_analyze.detector.rules.host_dominating import RULE as HOST_DOMINATING
from esper_analyze.detector.rules.kl_spike import RULE as KL_SPIKE
from esper_analyze.detector.rules.losses_inconsistent import RULE as LOSSES_INCONSISTENT
from esper_analyze.detector.rules.lstm_explosion import RULE as LSTM_EXPLOSION
from esper_analyze.detector.rules.lstm_nonfinite import RULE as LSTM_NONFINITE
from esper_analyze.detector.rules.lstm_saturation import RULE as LSTM_SATURATION
from esper_analyze.detector.rules.lstm_vanishing import RULE as LSTM_VANISHING
from esper_analyze.detector.rules.mask_collapse import RULE as MASK_COLLAPSE
from esper_analyze.detector.rules.numerical_instability import RULE as NUMERICAL_INSTABILITY
from esper_analyze.detector.rules.observations_changed import RULE as OBSERVATIONS_CHANGED
from esper_analyze.detector.rules.optimizer_restarted import RULE as OPTIMIZER_RESTARTED
from esper_analyze.detector.rules.parameters_changed import RULE as PARAMETERS_CHANGED
from esper_analyze.detector.rules.performance_degradation import RULE as PERFORMANCE_DEGRADATION
from esper_analyze.detector.rules.policy_replaced import RULE as POLICY_REPLACED
from esper_analyze.detector.rules.rank_desync import RULE as RANK_DESYNC
from esper_analyze.detector.rules.ratio_collapse import RULE as RATIO_COLLAPSE
from esper_analyze.detector.rules.ratio_explosion import RULE as RATIO_EXPLOSION
from esper_analyze.detector.rules.returns_inconsistent import RULE as RETURNS_INCONSISTENT
from esper_analyze.detector.rules.seed_dormant import RULE as SEED_DORMANT
from esper_analyze.detector.rules.setting_changed import RULE as SETTING_CHANGED
from esper_analyze.detector.rules.slot_gradient_explosion import RULE as SLOT_GRADIENT_EXPLOSION
from esper_analyze.detector.rules.slot_gradient_vanishing import RULE as SLOT_GRADIENT_VANISHING
from esper_analyze.detector.rules.spike_then_silence import RULE as SPIKE_THEN_SILENCE
from esper_analyze.detector.rules.std_collapse import RULE as STD_COLLAPSE
from esper_analyze.detector.rules.std_nonpositive import RULE as STD_NONPOSITIVE
from esper_analyze.detector.rules.std_runaway import RULE as STD_RUNAWAY
from esper_analyze.detector.rules.update_skipped import RULE as UPDATE_SKIPPED
from esper_analyze.detector.rules.value_collapse import RULE as VALUE_COLLAPSE
from esper_analyze.detector.rules.value_divergence import RULE as VALUE_DIVERGENCE
from esper_analyze.detector.rules.value_fit_lost import RULE as VALUE_FIT_LOST

RULES: tuple[Rule, ...] = (
    SETTING_CHANGED,
    PARAMETERS_CHANGED,
    OBSERVATIONS_CHANGED,
    NUMERICAL_INSTABILITY,
    STD_NONPOSITIVE,
    DATA_LOST,
    RANK_DESYNC,
    OPTIMIZER_RESTARTED,
    ENDS_IGNORED,
    RETURNS_INCONSISTENT,
    ADVANTAGE_INCONSISTENT,
    LOSSES_INCONSISTENT,
    ENVIRONMENTS_ALIKE,
    EPISODES_STOPPED,
    FIRST_RATIO,
    KL_SPIKE,
    POLICY_REPLACED,
    SPIKE_THEN_SILENCE,
    FROZEN_UPDATE,
    ENTROPY_LOW,
    ENTROPY_COLLAPSE,
    ENTROPY_RISES,
    ENTROPY_STUCK,
    STD_RUNAWAY,
    STD_COLLAPSE,
    RATIO_EXPLOSION,
    RATIO_COLLAPSE,
    CLIP_SATURATION,
    MASK_COLLAPSE,
    HEAD_ENTROPY_COLLAPSE,
    ADVANTAGE_MISALIGNED,
    ADVANTAGE_COLLAPSE,
    ADVANTAGE_OUTLIER,
    VALUE_FIT_LOST,
    CRITIC_CONSTANT,
    CRITIC_NOT_LEARNING,
    VALUE_COLLAPSE,
    VALUE_DIVERGENCE,
    GRADIENT_MISSING,
    GRADIENT_STOPPED,
    GRADIENT_EXPLOSION,
    GRADIENT_VANISHING,
    GRADIENT_DRIFT,
    CLIPPING_ALWAYS,
    LSTM_NONFINITE,
    LSTM_EXPLOSION,
    LSTM_VANISHING,
    LSTM_SATURATION,
    SLOT_GRADIENT_EXPLOSION,
    SLOT_GRADIENT_VANISHING,
    SEED_DORMANT,
    HOST_DOMINATING,
    UPDATE_SKIPPED,
    PERFORMANCE_DEGRADATION,
    EVAL_APART,
)

__all__ = ["RULES"]


def rules_over(table: str) -> tuple[str, ...]:
    """Return the names of the rules that judge ``table``."""
    return tuple(rule.name for rule in RULES if rule.table == table)


def shaded_in(panel: str) -> tuple[str, ...]:
    """Return the names of the rules whose incidents are shaded in ``panel``, named section.panel."""
    return tuple(rule.name for rule in RULES if panel in rule.panels)
