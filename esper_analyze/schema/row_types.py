"""Types of the rows of every table, for mypy: written by ``python -m tests.schema.row_types``.

A cell left out is null, as None is. ``rank`` and ``seq`` are added by the store. For some tables there are also types
of their rows as columns, for ``esper_analyze.storage.block.Block``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]] | Sequence[float | None] | float | None
Ints = npt.NDArray[np.integer[Any]] | Sequence[int | None] | int | None
Flags = npt.NDArray[np.bool_] | Sequence[bool | None] | bool | None
Words = Sequence[str | None] | str | None


class UpdatesRow(TypedDict, total=False):
    """A row of table ``updates``."""

    update: int
    env_steps: int | None
    episodes: int | None
    wall_time: float | None
    rollout_s: float | None
    optimisation_s: float | None
    progress: float | None
    learning_rate: float | None
    clip_range: float | None
    entropy_coef: float | None
    value_coef: float | None
    gamma: float | None
    target_kl: float | None
    status: str
    skip_reason: str | None
    minibatches: int | None
    epochs: int | None
    samples: int | None
    optimizer_steps: int | None
    optimizer_state_lost: float | None
    parameter_shift_between_updates: float | None
    inner_loop_measurable: bool | None
    ratio_max: float | None
    ratio_min: float | None
    ratio_mean: float | None
    ratio_std: float | None
    ratio_nonfinite: int | None
    clamped_fraction: float | None
    first_ratio_error: float | None
    ess_fraction: float | None
    kl_k1: float | None
    kl_k2: float | None
    kl_k3: float | None
    kl_k3_last_epoch: float | None
    kl_reference: float | None
    advantage_alignment: float | None
    minibatch_advantage_consistency: float | None
    clip_fraction: float | None
    clip_fraction_positive: float | None
    clip_fraction_negative: float | None
    entropy: float | None
    entropy_norm: float | None
    choice_fraction: float | None
    choices_unknown: bool | None
    choice_samples: int | None
    policy_loss: float | None
    value_loss: float | None
    policy_loss_error: float | None
    value_loss_factor: float | None
    entropy_loss: float | None
    total_loss: float | None
    rollout_samples: int | None
    explained_variance: float | None
    return_variance: float | None
    ev_low_variance: bool | None
    value_nrmse: float | None
    value_return_correlation: float | None
    value_mean: float | None
    value_std: float | None
    value_min: float | None
    value_max: float | None
    td_error_mean: float | None
    td_error_std: float | None
    bellman_error: float | None
    value_error_p01: float | None
    value_error_p10: float | None
    value_error_p50: float | None
    value_error_p90: float | None
    value_error_p99: float | None
    advantage_mean: float | None
    advantage_std: float | None
    advantage_min: float | None
    advantage_max: float | None
    advantage_skewness: float | None
    advantage_kurtosis: float | None
    advantage_positive_fraction: float | None
    advantage_std_floored: bool | None
    return_mean: float | None
    return_std: float | None
    return_min: float | None
    return_max: float | None
    return_skewness: float | None
    return_p10: float | None
    return_p50: float | None
    return_p90: float | None
    reward_mean: float | None
    reward_std: float | None
    reward_min: float | None
    reward_max: float | None
    advantage_consistency: float | None
    observation_mean: float | None
    observation_std: float | None
    observation_min: float | None
    observation_max: float | None
    observation_nonfinite_fraction: float | None
    observation_constant_fraction: float | None
    observation_shift: float | None
    environments: int | None
    environments_distinct: int | None
    rollout_ends: int | None
    ends_continued_fraction: float | None
    return_residual: float | None
    return_gamma: float | None
    return_lambda: float | None
    episodes_finished: int | None
    episode_return_mean: float | None
    episode_length_mean: float | None
    eval_return_mean: float | None
    eval_length_mean: float | None
    response_length_mean: float | None
    response_length_max: float | None
    response_clipped_fraction: float | None
    reward_zero_std_fraction: float | None
    grad_norm_pre_clip: float | None
    grad_norm_pre_clip_max: float | None
    grad_norm_pre_clip_last: float | None
    grad_norm_post_clip: float | None
    grad_norm_post_clip_max: float | None
    grad_norm_post_clip_last: float | None
    max_grad_norm: float | None
    clip_active_fraction: float | None
    clip_scale_mean: float | None
    nan_grad_count: int | None
    inf_grad_count: int | None
    tensors_nonfinite: int | None
    nonfinite_minibatches: int | None
    nonfinite_sources: str | None
    loss_scale: float | None
    level: str
    recorder_ms: float | None
    recorder_fraction: float | None
    dropped_rows: int | None
    sampled_steps: int | None


class StepsRow(TypedDict, total=False):
    """A row of table ``steps``."""

    update: int
    epoch: int
    minibatch: int
    samples: int | None
    kl_k1: float | None
    kl_k2: float | None
    kl_k3: float | None
    ratio_max: float | None
    ratio_min: float | None
    clip_fraction: float | None
    entropy: float | None
    policy_loss: float | None
    value_loss: float | None
    grad_norm_pre_clip: float | None
    grad_norm_post_clip: float | None
    stepped: bool | None


class StepsColumns(TypedDict, total=False):
    """Rows of table ``steps``: a value for each row, or one for all."""

    update: Ints
    epoch: Ints
    minibatch: Ints
    samples: Ints
    kl_k1: Floats
    kl_k2: Floats
    kl_k3: Floats
    ratio_max: Floats
    ratio_min: Floats
    clip_fraction: Floats
    entropy: Floats
    policy_loss: Floats
    value_loss: Floats
    grad_norm_pre_clip: Floats
    grad_norm_post_clip: Floats
    stepped: Flags


class HeadsRow(TypedDict, total=False):
    """A row of table ``heads``."""

    update: int
    head: str
    kind: str | None
    grad_norm: float | None
    grad_state: str | None
    params_without_grad: int | None
    params_nonfinite: int | None
    params_finite: int | None
    samples: int | None
    relevant_samples: int | None
    choice_samples: int | None
    ratio_max: float | None
    ratio_min: float | None
    kl_k3: float | None
    advantage_alignment: float | None
    clip_fraction: float | None
    entropy: float | None
    entropy_conditional: float | None
    entropy_norm: float | None
    log_prob_min: float | None
    log_prob_max: float | None
    std_min: float | None
    std_mean: float | None
    std_max: float | None
    std_nonpositive_fraction: float | None
    std_min_dimension: int | None
    action_bound_fraction: float | None
    rollout_samples: int | None
    valid_actions_min: float | None
    valid_actions_mean: float | None
    valid_actions_max: float | None
    single_action_fraction: float | None
    learnable_fraction: float | None
    relevant_fraction: float | None
    effective_fraction: float | None
    coefficient: float | None
    zero_explained: str | None


class GroupsRow(TypedDict, total=False):
    """A row of table ``groups``."""

    update: int
    group: str
    tensors: int | None
    elements: int | None
    parameters_changed: bool | None
    tensors_without_grad: int | None
    grad_norm: float | None
    health: float | None
    vanishing_severity: float | None
    exploding_severity: float | None
    has_vanishing: bool | None
    has_exploding: bool | None
    min_tensor_norm: float | None
    max_tensor_norm: float | None
    norm_ratio: float | None
    concentration: float | None
    zero_fraction: float | None
    hist_zero: float | None
    hist_below_1e_6: float | None
    hist_1e_6_to_1e_4: float | None
    hist_1e_4_to_1e_2: float | None
    hist_1e_2_to_1: float | None
    hist_1_and_above: float | None
    hist_nonfinite: float | None
    sign_positive_fraction: float | None
    cosine_minibatches: float | None
    cosine_previous_update: float | None
    cosine_actor_critic: float | None
    entropy_grad_norm: float | None
    noise_scale: float | None
    update_ratio: float | None
    drift_norm: float | None
    drift_health: float | None


class LayersRow(TypedDict, total=False):
    """A row of table ``layers``."""

    update: int
    layer: str
    minibatch: int
    elements: int | None
    grad_norm: float | None
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    zero_fraction: float | None
    small_fraction: float | None
    large_fraction: float | None
    nan_count: int | None
    inf_count: int | None
    weight_norm: float | None
    update_ratio: float | None


class LayersColumns(TypedDict, total=False):
    """Rows of table ``layers``: a value for each row, or one for all."""

    update: Ints
    layer: Words
    minibatch: Ints
    elements: Ints
    grad_norm: Floats
    mean: Floats
    std: Floats
    min: Floats
    max: Floats
    zero_fraction: Floats
    small_fraction: Floats
    large_fraction: Floats
    nan_count: Ints
    inf_count: Ints
    weight_norm: Floats
    update_ratio: Floats


class LstmRow(TypedDict, total=False):
    """A row of table ``lstm``."""

    update: int
    phase: str
    elements: int | None
    h_l2_total: float | None
    h_rms: float | None
    h_env_rms_mean: float | None
    h_env_rms_max: float | None
    h_max: float | None
    h_mean: float | None
    c_l2_total: float | None
    c_rms: float | None
    c_env_rms_mean: float | None
    c_env_rms_max: float | None
    c_max: float | None
    c_mean: float | None
    h_saturation: float | None
    has_nan: bool | None
    has_inf: bool | None
    gate_values: int | None
    forget_saturation: float | None
    input_saturation: float | None
    output_saturation: float | None
    cell_mean: float | None


class SlotsRow(TypedDict, total=False):
    """A row of table ``slots``."""

    update: int
    place: str
    env: int
    slot: str
    calls: int | None
    stage: str | None
    blueprint: str | None
    alpha: float | None
    should_train: bool | None
    tensors: int | None
    tensors_without_grad: int | None
    tensors_nonfinite: int | None
    grad_norm: float | None
    health: float | None
    vanishing_severity: float | None
    exploding_severity: float | None
    has_vanishing: bool | None
    has_exploding: bool | None
    host_grad_norm: float | None
    seed_grad_norm: float | None
    seed_elements: int | None
    host_elements: int | None
    normalized_ratio: float | None
    ratio_ema: float | None
    low_ratio_cause: str | None


class SlotsColumns(TypedDict, total=False):
    """Rows of table ``slots``: a value for each row, or one for all."""

    update: Ints
    place: Words
    env: Ints
    slot: Words
    calls: Ints
    stage: Words
    blueprint: Words
    alpha: Floats
    should_train: Flags
    tensors: Ints
    tensors_without_grad: Ints
    tensors_nonfinite: Ints
    grad_norm: Floats
    health: Floats
    vanishing_severity: Floats
    exploding_severity: Floats
    has_vanishing: Flags
    has_exploding: Flags
    host_grad_norm: Floats
    seed_grad_norm: Floats
    seed_elements: Ints
    host_elements: Ints
    normalized_ratio: Floats
    ratio_ema: Floats
    low_ratio_cause: Words


class TransitionsRow(TypedDict, total=False):
    """A row of table ``transitions``."""

    update: int
    head: str
    place: int
    bad: int | None
    nonfinite: int | None
    index: int | None
    env: int | None
    step: int | None
    minibatch: int | None
    epoch: int | None
    log_ratio: float | None
    joint_log_ratio: float | None
    log_prob: float | None
    old_log_prob: float | None
    action: int | None
    advantage: float | None


class TransitionsColumns(TypedDict, total=False):
    """Rows of table ``transitions``: a value for each row, or one for all."""

    update: Ints
    head: Words
    place: Ints
    bad: Ints
    nonfinite: Ints
    index: Ints
    env: Ints
    step: Ints
    minibatch: Ints
    epoch: Ints
    log_ratio: Floats
    joint_log_ratio: Floats
    log_prob: Floats
    old_log_prob: Floats
    action: Ints
    advantage: Floats


class TensorsRow(TypedDict, total=False):
    """A row of table ``tensors``."""

    update: int
    tensor: str
    cause: str
    elements: int | None
    weight_nonfinite: bool | None
    weight_abs_max: float | None
    grad_nonfinite: bool | None
    grad_abs_max: float | None
    grad_norm_max: float | None
    grad_norm_pre_clip: float | None
    loss_finite: bool | None


class TensorsColumns(TypedDict, total=False):
    """Rows of table ``tensors``: a value for each row, or one for all."""

    update: Ints
    tensor: Words
    cause: Words
    elements: Ints
    weight_nonfinite: Flags
    weight_abs_max: Floats
    grad_nonfinite: Flags
    grad_abs_max: Floats
    grad_norm_max: Floats
    grad_norm_pre_clip: Floats
    loss_finite: Flags


class EpisodesRow(TypedDict, total=False):
    """A row of table ``episodes``."""

    update: int
    env: int | None
    episode_return: float | None
    length: int | None
    success: bool | None


class EpisodesColumns(TypedDict, total=False):
    """Rows of table ``episodes``: a value for each row, or one for all."""

    update: Ints
    env: Ints
    episode_return: Floats
    length: Ints
    success: Flags


class LevelsRow(TypedDict, total=False):
    """A row of table ``levels``."""

    update: int
    level: str
    previous: str
    rule: str | None
    subject: str | None
    finding_update: int | None
    until: int


class FindingsRow(TypedDict, total=False):
    """A row of table ``findings``."""

    update: int
    rule: str
    subject: str
    metric: str
    verdict: str
    previous: str | None
    value: float | None
    threshold: float | None
    baseline: float | None
    reason: str | None


class EventsRow(TypedDict, total=False):
    """A row of table ``events``."""

    update: int
    kind: str
    subject: str
    detail: str | None


class LossesOfDataRow(TypedDict, total=False):
    """A row of table ``losses_of_data``."""

    update: int
    kind: str
    detail: str | None
    rows: int


class RanksRow(TypedDict, total=False):
    """A row of table ``ranks``."""

    update: int
    metric: str
    ranks: int | None
    least: float | None
    most: float | None
    spread: float | None
