"""Table ``updates``: one row for every PPO update, skipped ones included."""

from esper_analyze.schema.column import RANK, SEQ, UPDATE, Table, choice, count, flag, real, text
from esper_analyze.schema.merging import ALONE, ANY, DERIVED, FIRST, MAX, MIN, SUM, TOLD, Mean, RankRows

_SAMPLES = "sample-weighted mean over all minibatches"
_MINIBATCHES = "mean over minibatches, unweighted"
_STEPS = "over the update's optimizer steps"
_NO_LOOP = "no minibatch was seen"
_NO_CLIP = "no clip call and no explicit gradient call was seen"
_NO_ROLLOUT = "rollout values were not handed over"
_CONSTANT = "undefined: the values are constant"
_NO_REWARDS = "rewards were not passed"
_NO_SCALE = "not measured, or undefined because the standard deviation is ~0"

_BY_SAMPLES, _BY_CHOICES, _BY_ROLLOUT = Mean("samples"), Mean("choice_samples"), Mean("rollout_samples")
_BY_MINIBATCHES, _BY_EPISODES = Mean("minibatches"), Mean("episodes_finished")

ALIGNMENT_UNKNOWN = (
    "undefined: in every minibatch of the last epoch the ratio (as before the first optimizer step) or the raw "
    "advantage is constant; or returns and stored values were not passed with the minibatches"
)
LOW_VARIANCE = 1e-8
"""Below this Var(R), explained variance is meaningless."""
_NO_CONSISTENCY = "undefined: either is constant, up to rounding; or returns, values or advantages were not passed"
_NO_STEPS = "values, returns, rewards and ends were not all passed as [timesteps, environments]"
_NO_ENDS = "ends were not passed"
_NO_SETTING = "the loop did not pass it"
_NO_EVALUATION = "no evaluation was made at this update, or the loop did not pass it"
_NO_RESPONSES = "not a language model, or the loop did not pass it"
_NO_OBSERVATIONS = "observations were not passed"
_NO_OBSERVED = "no observation is finite, or observations were not passed"
_SAMPLE = "over a sample of up to 2¹⁶ numbers of the rollout"
_NO_MATRIX = "values were not passed as [timesteps, environments]"
SETTINGS = (
    "learning_rate",
    "clip_range",
    "entropy_coef",
    "value_coef",
    "gamma",
    "target_kl",
    "max_grad_norm",
)
"""Settings of the training, constant or scheduled, as opposed to results."""
STATUSES = ("performed", "kl_stopped", "nonfinite_skipped", "no_usable_steps", "interrupted")

_CLOCK = (
    count("env_steps", "environment steps since the start of the run, all environments together", "steps", merge=SUM),
    count("episodes", "episodes finished since the start of the run", "episodes", merge=SUM),
    real("wall_time", "when the update ended, UTC epoch", "s", merge=MAX),
    real("rollout_s", "time spent collecting the rollout", "s", merge=MAX),
    real("optimisation_s", "time spent in the inner loop", "s", merge=MAX),
    real(
        "progress",
        "share of the planned training done, in [0, 1]; stays 1 beyond the plan. The plan is the total given to the "
        "recorder, else that of the framework's first call (learn, train)",
        "share",
        empty="the total is unknown, or a later call has changed it",
        merge=MIN,
    ),
    real("learning_rate", "learning rate in effect", "1", "last optimizer step", merge=FIRST),
    real("clip_range", "ratio clip range in effect", "1", "last minibatch", merge=FIRST),
    real("entropy_coef", "entropy bonus coefficient in effect", "1", "last minibatch", merge=FIRST),
    real(
        "value_coef",
        "weight of the value loss in effect",
        "1",
        "last minibatch",
        _NO_SETTING,
        merge=FIRST,
    ),
    real("gamma", "discount in effect", "1", "", _NO_SETTING, merge=FIRST),
    real("target_kl", "KL bound of the early stop", "nats", empty="no bound is set", merge=FIRST),
    choice(
        "status",
        "how the update ended; interrupted: an exception or the end of the process came before it was complete",
        STATUSES,
        required=True,
        merge=DERIVED,
    ),
    text("skip_reason", "why the update was skipped or interrupted", "the update was performed", merge=TOLD),
    count("minibatches", "minibatches evaluated", "minibatches", merge=MAX),
    count("epochs", "epochs begun, as numbered by the loop", "epochs", empty=_NO_LOOP, merge=MAX),
    count("samples", "samples evaluated, padding left out, each once an epoch", "samples", "sum", _NO_LOOP, merge=SUM),
    count("optimizer_steps", "optimizer steps taken", "steps", empty="no optimizer hook and no clip call", merge=MAX),
    real(
        "optimizer_state_lost",
        "whether the optimizer lost its moments since its step before: 0 if the watched tensor (the first moment of "
        "one parameter) is still the same one; 1 if it has none; if it was replaced, the share of its elements that "
        "are 0: 1 for moments that begin anew, about 0 for restored ones",
        "share",
        "first optimizer step",
        "no optimizer hook, the optimizer keeps no such tensor, or it was not there in two steps before",
        merge=FIRST,
    ),
    real(
        "parameter_shift_between_updates",
        "distance of the trainable parameters at the first minibatch from where the update before left them (in the "
        "first one: from where the recorder found them), relative to the larger of their norms; of a sample of up to "
        "64 elements of each tensor. 0: nothing changed these in between",
        "share",
        "first minibatch",
        "parameters were added, replaced, frozen or moved, an optimizer stepped in between, the first update after a "
        "resume, no minibatch, or no model was passed",
        merge=MAX,
    ),
)

_RATIO = (
    flag(
        "inner_loop_measurable",
        "whether a minibatch followed an optimizer step of its update; else ratio 1, KL 0 and clip fraction 0 hold by "
        "construction (one epoch of one minibatch, or gradients accumulated into one step). Where steps cannot be "
        "observed, as without a model: whether there was a second minibatch",
        empty=_NO_LOOP,
        merge=ANY,
    ),
    real(
        "ratio_max",
        "largest joint ratio π_new/π_old; the joint log-ratio is the loop's own, or the sum over the heads that are "
        "relevant at the sample",
        "1",
        "max over every sample",
        _NO_LOOP,
        merge=MAX,
    ),
    real("ratio_min", "smallest joint ratio", "1", "min over every sample", _NO_LOOP, merge=MIN),
    real("ratio_mean", "joint ratio", "1", _SAMPLES, _NO_LOOP, merge=_BY_SAMPLES),
    real(
        "ratio_std",
        "standard deviation of the joint ratio (population)",
        "1",
        "over every sample",
        _NO_LOOP,
        merge=DERIVED,
    ),
    count("ratio_nonfinite", "samples whose unclamped log-ratio is NaN or ±Inf", "samples", "sum", _NO_LOOP, merge=SUM),
    real(
        "clamped_fraction",
        "share of samples where the joint log-ratio reached its clamp (±30) or that of a relevant head did (±20)",
        "share",
        _SAMPLES,
        _NO_LOOP,
        merge=_BY_SAMPLES,
    ),
    real(
        "first_ratio_error",
        "max |log r| in the very first minibatch: 0 up to float noise, else rollout and "
        "update disagree (masks, dropout, normalisation, hidden state)",
        "nats",
        "first minibatch",
        _NO_LOOP,
        merge=MAX,
    ),
    real("ess_fraction", "effective sample size (Σr)²/(N Σr²)", "share", "over every sample", _NO_LOOP, merge=DERIVED),
    real("kl_k1", "KL(old‖new) estimator mean(−log r) (Schulman 2020)", "nats", _SAMPLES, _NO_LOOP, merge=_BY_SAMPLES),
    real("kl_k2", "KL estimator mean(½ log² r)", "nats", _SAMPLES, _NO_LOOP, merge=_BY_SAMPLES),
    real("kl_k3", "KL estimator mean(r − 1 − log r), never negative", "nats", _SAMPLES, _NO_LOOP, merge=_BY_SAMPLES),
    real(
        "kl_k3_last_epoch",
        "k3 of the last epoch begun: what Stable-Baselines3 logs as approx_kl",
        "nats",
        "mean over the last epoch's minibatches, unweighted",
        _NO_LOOP,
        merge=_BY_MINIBATCHES,
    ),
    real(
        "kl_reference",
        "KL from the policy to a reference model that is not trained, per token, as the loop estimates it",
        "nats",
        "mean over the samples of the update",
        "there is no reference model, or the loop did not pass it",
        merge=_BY_SAMPLES,
    ),
    real(
        "advantage_alignment",
        "Pearson correlation of the joint log-ratio log π_new − log π_old with the raw advantage (returns − values "
        "stored at collection), within each minibatch, −1 to 1. Positive where the policy moves towards actions that "
        "were better than expected: about +0.1 or more in a sound update, negative with a flipped sign, about 0 with "
        "shuffled advantages. NaN: an input was NaN or ±Inf",
        "1",
        "mean over the last epoch's minibatches, weighted by samples",
        ALIGNMENT_UNKNOWN,
        merge=_BY_SAMPLES,
    ),
    real(
        "minibatch_advantage_consistency",
        "Pearson correlation of the advantages as the loss uses them with the raw advantages (returns − values stored "
        "at collection), within each minibatch, −1 to 1: 1 for any estimator whose returns are advantages + values, "
        "normalised or not",
        "1",
        "mean over minibatches, weighted by samples",
        _NO_CONSISTENCY,
        merge=MIN,
    ),
    real(
        "clip_fraction",
        "share of samples with |r − 1| > clip_range",
        "share",
        _MINIBATCHES,
        "no minibatch was seen, or no clip range is known",
        merge=_BY_MINIBATCHES,
    ),
    real(
        "clip_fraction_positive",
        "share with r > 1 + clip_range",
        "share",
        _MINIBATCHES,
        "no minibatch was seen, or no clip range is known",
        merge=_BY_MINIBATCHES,
    ),
    real(
        "clip_fraction_negative",
        "share with r < 1 − clip_range",
        "share",
        _MINIBATCHES,
        "no minibatch was seen, or no clip range is known",
        merge=_BY_MINIBATCHES,
    ),
)

_POLICY = (
    real(
        "entropy",
        "entropy of the joint action distribution: the loop's own, or the sum over all heads, relevant or not "
        "(a distribution has its entropy before an action makes a head irrelevant)",
        "nats",
        _SAMPLES,
        "no minibatch was seen, or the distribution has no closed-form entropy",
        merge=_BY_SAMPLES,
    ),
    real(
        "entropy_norm",
        "joint entropy / Σ ln(n_valid), over steps where some head had a choice",
        "share",
        _SAMPLES,
        "no head ever had a choice, or an action head is continuous",
        merge=_BY_CHOICES,
    ),
    real(
        "choice_fraction",
        "share of samples where some head had more than one valid action",
        "share",
        _SAMPLES,
        "no categorical head, or no minibatch was seen",
        merge=_BY_SAMPLES,
    ),
    flag(
        "choices_unknown",
        "all heads are categorical, and for some the number of valid actions is unknown (no masks, no size): their "
        "entropy cannot be normalised",
        empty="no joint entropy is known",
        merge=ANY,
    ),
    count(
        "choice_samples",
        "samples where some head had more than one valid action",
        "samples",
        "sum",
        "no categorical head, or no minibatch was seen",
        merge=SUM,
    ),
    real("policy_loss", "clipped surrogate loss", "1", _MINIBATCHES, _NO_LOOP, merge=_BY_MINIBATCHES),
    real(
        "value_loss", "value loss on the targets the loop trains on", "1", _MINIBATCHES, _NO_LOOP, merge=_BY_MINIBATCHES
    ),
    real(
        "policy_loss_error",
        "distance of the policy losses that the loop passed from −mean(min(r·A, clip(r)·A)) of the ratios, advantages "
        "and clip range passed: root mean square over minibatches, relative to mean |r·A|. About 1e-6 for PPO's loss",
        "share",
        "over all minibatches",
        "undefined: all r·A are 0; or the loop did not pass advantages, clip range and policy loss with each minibatch",
        merge=MAX,
    ),
    real(
        "value_loss_factor",
        "the value losses that the loop passed, divided by mean (V − R)² of the values and returns passed: 1, or ½ by "
        "another convention, where the value loss is not clipped",
        "1",
        "ratio of the means over minibatches",
        "undefined: all V − R are 0; or the loop did not pass values, returns and value loss with each minibatch",
        merge=_BY_MINIBATCHES,
    ),
    real("entropy_loss", "−entropy, before its coefficient", "nats", _MINIBATCHES, _NO_LOOP, merge=_BY_MINIBATCHES),
    real("total_loss", "the loss that was differentiated", "1", _MINIBATCHES, _NO_LOOP, merge=_BY_MINIBATCHES),
)

_VALUE = (
    count("rollout_samples", "timesteps of the rollout", "steps", "", _NO_ROLLOUT, merge=SUM),
    real(
        "explained_variance",
        "1 − Var(R − V)/Var(R) of the rollout, before the update",
        "1",
        "",
        "undefined: Var(R) is 0; or rollout values were not handed over",
        merge=DERIVED,
    ),
    real("return_variance", "Var(R) (population)", "1", "", _NO_ROLLOUT, merge=DERIVED),
    flag(
        "ev_low_variance",
        "Var(R) is below its floor, so explained variance is meaningless",
        empty=_NO_ROLLOUT,
        merge=DERIVED,
    ),
    real("value_nrmse", "RMSE(V, R) / std(R)", "1", "", _CONSTANT, merge=DERIVED),
    real(
        "value_return_correlation",
        "Pearson correlation of V and R",
        "1",
        "",
        "undefined: either is constant",
        merge=DERIVED,
    ),
    real("value_mean", "predicted values", "1", "mean over the rollout", _NO_ROLLOUT, merge=_BY_ROLLOUT),
    real("value_std", "predicted values", "1", "standard deviation over the rollout", _NO_ROLLOUT, merge=DERIVED),
    real("value_min", "predicted values", "1", "min over the rollout", _NO_ROLLOUT, merge=MIN),
    real("value_max", "predicted values", "1", "max over the rollout", _NO_ROLLOUT, merge=MAX),
    real("td_error_mean", "r + γV' − V", "1", "mean over the rollout", merge=_BY_ROLLOUT),
    real("td_error_std", "r + γV' − V", "1", "standard deviation over the rollout", merge=DERIVED),
    real("bellman_error", "|r + γV' − V|", "1", "mean over the rollout", merge=_BY_ROLLOUT),
    *(
        real(f"value_error_p{p:02d}", "R − V", "1", f"quantile {p / 100:g} over the rollout", _NO_ROLLOUT, merge=ALONE)
        for p in (1, 10, 50, 90, 99)
    ),
    real(
        "advantage_mean",
        "advantages before normalisation",
        "1",
        "mean over the rollout",
        _NO_ROLLOUT,
        merge=_BY_ROLLOUT,
    ),
    real(
        "advantage_std",
        "advantages before normalisation (population)",
        "1",
        "over the rollout",
        _NO_ROLLOUT,
        merge=DERIVED,
    ),
    real("advantage_min", "advantages before normalisation", "1", "min over the rollout", _NO_ROLLOUT, merge=MIN),
    real("advantage_max", "advantages before normalisation", "1", "max over the rollout", _NO_ROLLOUT, merge=MAX),
    real("advantage_skewness", "third standardised moment", "1", "over the rollout", _NO_SCALE, merge=DERIVED),
    real("advantage_kurtosis", "excess fourth standardised moment", "1", "over the rollout", _NO_SCALE, merge=DERIVED),
    real(
        "advantage_positive_fraction",
        "share of advantages > 0",
        "share",
        "over the rollout",
        _NO_ROLLOUT,
        merge=_BY_ROLLOUT,
    ),
    flag(
        "advantage_std_floored",
        "the advantages' standard deviation is below the floor or epsilon that the loop uses when normalising",
        empty="the loop does not normalise, or its floor is not known",
        merge=ANY,
    ),
    real("return_mean", "value targets (returns)", "1", "mean over the rollout", _NO_ROLLOUT, merge=_BY_ROLLOUT),
    real("return_std", "value targets (population)", "1", "over the rollout", _NO_ROLLOUT, merge=DERIVED),
    real("return_min", "value targets", "1", "min over the rollout", _NO_ROLLOUT, merge=MIN),
    real("return_max", "value targets", "1", "max over the rollout", _NO_ROLLOUT, merge=MAX),
    real(
        "return_skewness",
        "third standardised moment of value targets",
        "1",
        "over the rollout",
        _NO_SCALE,
        merge=DERIVED,
    ),
    real("return_p10", "value targets", "1", "quantile 0.1 over the rollout", _NO_ROLLOUT, merge=ALONE),
    real("return_p50", "value targets", "1", "quantile 0.5 over the rollout", _NO_ROLLOUT, merge=ALONE),
    real("return_p90", "value targets", "1", "quantile 0.9 over the rollout", _NO_ROLLOUT, merge=ALONE),
    real(
        "reward_mean",
        "rewards of the rollout as the training used them: scaled, clipped, and with whatever the framework added",
        "1",
        "mean over the rollout",
        _NO_REWARDS,
        merge=_BY_ROLLOUT,
    ),
    real("reward_std", "the same (population)", "1", "over the rollout", _NO_REWARDS, merge=DERIVED),
    real("reward_min", "the same", "1", "min over the rollout", _NO_REWARDS, merge=MIN),
    real("reward_max", "the same", "1", "max over the rollout", _NO_REWARDS, merge=MAX),
    real(
        "advantage_consistency",
        "Pearson correlation of the advantages with returns − values, −1 to 1: 1 for any estimator whose returns are "
        "advantages + values, normalised or not",
        "1",
        "over the rollout",
        _NO_CONSISTENCY,
        merge=MIN,
    ),
    real("observation_mean", "observations as the networks see them", "1", _SAMPLE, _NO_OBSERVED, merge=_BY_ROLLOUT),
    real("observation_std", "the same (population)", "1", _SAMPLE, _NO_OBSERVED, merge=MAX),
    real("observation_min", "the same", "1", _SAMPLE, _NO_OBSERVED, merge=MIN),
    real("observation_max", "the same", "1", _SAMPLE, _NO_OBSERVED, merge=MAX),
    real(
        "observation_nonfinite_fraction",
        "share of the observations that are NaN or ±Inf",
        "share",
        _SAMPLE,
        _NO_OBSERVATIONS,
        merge=MAX,
    ),
    real(
        "observation_constant_fraction",
        "share of the features whose finite values are all equal, or that have none",
        "share",
        _SAMPLE,
        _NO_OBSERVATIONS,
        merge=MIN,
    ),
    real(
        "observation_shift",
        "how far the observations are from those of the update before: squared Hellinger distance between normal "
        "distributions with the mean and variance of each feature in both, mean over features, 0 to 1",
        "1",
        _SAMPLE,
        "the first update of a recording, other features than before, or observations were not passed",
        merge=MAX,
    ),
    count("environments", "environments of the rollout", "environments", "", _NO_MATRIX, merge=SUM),
    count(
        "environments_distinct",
        "environments whose values are not the same as another's at every timestep, each group of equal ones counted "
        "once: 1 means that all saw the same observations",
        "environments",
        "over the rollout",
        _NO_MATRIX,
        merge=SUM,
    ),
    count(
        "rollout_ends",
        "timesteps at which an episode ended, as the returns count it",
        "steps",
        "sum over the rollout",
        _NO_ENDS,
        merge=SUM,
    ),
    real(
        "ends_continued_fraction",
        "share of the ends whose return is not the reward of that timestep: it looks beyond the end. 0 where ends cut "
        "returns off; 1 where they are ignored, or each is a time limit whose return goes on with the last value",
        "share",
        "over the rollout's ends",
        f"no episode ended, or {_NO_STEPS}",
        merge=MAX,
    ),
    real(
        "return_residual",
        "distance of the returns from r + γ·((1 − λ)·V' + λ·R'), V' and R' those of the next timestep, with the γ and "
        "λ that fit best, where no episode ended: root mean square, relative to that of the returns. About 1e-6 for "
        "GAE of any γ and λ",
        "share",
        "over the rollout",
        _NO_STEPS,
        merge=MAX,
    ),
    real("return_gamma", "the γ of that fit", "1", "over the rollout", _NO_STEPS, merge=_BY_ROLLOUT),
    real(
        "return_lambda",
        "the λ of that fit",
        "1",
        "over the rollout",
        f"undefined: values and returns are alike; or {_NO_STEPS}",
        merge=_BY_ROLLOUT,
    ),
    count(
        "episodes_finished",
        "episodes finished in this update",
        "episodes",
        "",
        "no episode was ever reported",
        merge=SUM,
    ),
    real(
        "episode_return_mean",
        "undiscounted return of episodes finished in this update",
        "1",
        "mean over episodes",
        "no episode finished",
        merge=_BY_EPISODES,
    ),
    real(
        "episode_length_mean",
        "length of episodes finished in this update",
        "steps",
        "mean over episodes",
        "no episode finished",
        merge=_BY_EPISODES,
    ),
    real(
        "eval_return_mean",
        "undiscounted return in the evaluation that was made at this update: episodes that are not trained on",
        "1",
        "mean over the episodes of the evaluation",
        _NO_EVALUATION,
        merge=FIRST,
    ),
    real(
        "eval_length_mean",
        "length of those episodes",
        "steps",
        "mean over the episodes of the evaluation",
        _NO_EVALUATION,
        merge=FIRST,
    ),
    real(
        "response_length_mean",
        "length of the responses that a language model was trained on",
        "tokens",
        "mean over responses",
        _NO_RESPONSES,
        merge=_BY_MINIBATCHES,
    ),
    real("response_length_max", "the same", "tokens", "max over responses", _NO_RESPONSES, merge=MAX),
    real(
        "response_clipped_fraction",
        "share of the responses that were cut off at the longest length allowed",
        "share",
        "over responses",
        _NO_RESPONSES,
        merge=_BY_MINIBATCHES,
    ),
    real(
        "reward_zero_std_fraction",
        "share of the groups of responses to one prompt whose rewards are all equal: nothing is learnt from them",
        "share",
        "over groups",
        "advantages are not relative to a group, or the loop did not pass it",
        merge=_BY_MINIBATCHES,
    ),
)

_GRADIENT = (
    real(
        "grad_norm_pre_clip",
        "whole-model L2 norm before clipping, as the clip call returned it",
        "1",
        f"mean {_STEPS}",
        _NO_CLIP,
        merge=FIRST,
    ),
    real("grad_norm_pre_clip_max", "the same", "1", f"max {_STEPS}", _NO_CLIP, merge=FIRST),
    real("grad_norm_pre_clip_last", "the same", "1", f"last {_STEPS}", _NO_CLIP, merge=FIRST),
    real(
        "grad_norm_post_clip",
        "whole-model L2 norm at the optimizer step: measured at the first step of each update; at the others the "
        "pre-clip norm times the clip coefficient, as long as all measured norms agree with it",
        "1",
        f"mean {_STEPS}",
        "no optimizer hook",
        merge=FIRST,
    ),
    real("grad_norm_post_clip_max", "the same", "1", f"max {_STEPS}", "no optimizer hook", merge=FIRST),
    real("grad_norm_post_clip_last", "the same", "1", f"last {_STEPS}", "no optimizer hook", merge=FIRST),
    real(
        "max_grad_norm", "clip norm given to the clip call", "1", "last clip call", "no clip call was seen", merge=FIRST
    ),
    real(
        "clip_active_fraction",
        "share of optimizer steps whose pre-clip norm was above the clip norm",
        "share",
        _STEPS,
        "no clip call was seen, or several per step with different bounds",
        merge=FIRST,
    ),
    real(
        "clip_scale_mean",
        "post-clip / pre-clip norm",
        "1",
        f"mean {_STEPS}",
        "no clip call, no optimizer hook, or a pre-clip norm of 0",
        merge=FIRST,
    ),
    count(
        "nan_grad_count",
        "gradient elements that are NaN, before clipping",
        "elements",
        f"sum {_STEPS}",
        "no clip call, or a large model on a device, where counting costs too much",
        merge=FIRST,
    ),
    count(
        "inf_grad_count",
        "gradient elements that are ±Inf, before clipping",
        "elements",
        f"sum {_STEPS}",
        "no clip call, or a large model on a device, where counting costs too much",
        merge=FIRST,
    ),
    count(
        "tensors_nonfinite",
        "gradient tensors with any NaN or ±Inf, before clipping",
        "tensors",
        f"sum {_STEPS}",
        _NO_CLIP,
        merge=FIRST,
    ),
    count(
        "nonfinite_minibatches",
        "minibatches in which a log-prob, value, entropy or loss was NaN or ±Inf",
        "minibatches",
        "sum",
        _NO_LOOP,
        merge=SUM,
    ),
    text(
        "nonfinite_sources", "names of what was NaN or ±Inf, separated by commas", "nothing was non-finite", merge=TOLD
    ),
    real(
        "loss_scale",
        "loss scale under automatic mixed precision",
        "1",
        "last optimizer step",
        "no loss scaling",
        merge=FIRST,
    ),
)

_RECORDER = (
    choice("level", "telemetry level in effect", ("OFF", "MINIMAL", "NORMAL", "DEBUG"), required=True, merge=FIRST),
    real("recorder_ms", "time the recorder took in the training thread", "ms", "sum over the update", merge=MAX),
    real("recorder_fraction", "recorder_ms / (rollout + optimisation time)", "share", merge=MAX),
    count("dropped_rows", "rows lost since the previous update", "rows", merge=SUM),
    count(
        "sampled_steps",
        "optimizer steps on which detail was measured (layers, histogram, direction); 0: none, because of the budget",
        "steps",
        merge=MAX,
    ),
)

UPDATES = Table(
    "updates",
    "One row per PPO update: clock, policy change, losses, value function, advantages, gradients.",
    ("rank", "update"),
    (RANK, UPDATE, SEQ, *_CLOCK, *_RATIO, *_POLICY, *_VALUE, *_GRADIENT, *_RECORDER),
    RankRows.MERGED,
)
