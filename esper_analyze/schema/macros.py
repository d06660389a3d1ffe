"""Common questions as DuckDB table macros, declared once; ``sql`` offers them in addition to the tables.

In ``sql`` every table has a column ``run``. Means are over finite numbers; NaN and infinite values are counted in
columns of their own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Macro:
    """``name(parameters)`` answers ``asks`` from ``tables``; ``select`` is its query."""

    name: str
    asks: str
    tables: tuple[str, ...]
    select: str
    parameters: str = ""

    @property
    def create(self) -> str:
        """The statement that creates it."""
        return f"create macro {self.name}({self.parameters}) as table {self.select}"

    @property
    def example(self) -> str:
        """A query that uses it."""
        return f"from {self.name}()"


_PHASE = """case when update < first_one + (last_one - first_one + 1) / 3.0 then 'early'
    when update < first_one + 2 * (last_one - first_one + 1) / 3.0 then 'middle' else 'late' end"""
_ORDER = "array_position(['early', 'middle', 'late'], phase)"
_ALARM = "('warning', 'critical')"

MACROS: tuple[Macro, ...] = (
    Macro(
        "learnable_by_phase",
        "how much could each head learn in the first, second and last third of the training, and did it?",
        ("heads",),
        f"""with span as (select run, min(update) as first_one, max(update) as last_one from heads group by run)
  select run, head, {_PHASE} as phase, count(*) as updates,
    avg(learnable_fraction) as learnable_fraction, avg(effective_fraction) as effective_fraction,
    avg(entropy_norm) filter (isfinite(entropy_norm)) as entropy_norm,
    avg(grad_norm) filter (isfinite(grad_norm)) as grad_norm,
    count(*) filter (not isfinite(grad_norm)) as grad_nonfinite,
    count(*) filter (zero_explained = 'unexplained') as unexplained_zeros
  from heads join span using (run) group by run, head, phase order by run, head, {_ORDER}""",
    ),
    Macro(
        "zeros",
        "where was a gradient zero or missing, and why?",
        ("heads",),
        """select run, head, zero_explained, count(*) as updates, min(update) as first_update,
    max(update) as last_update, avg(learnable_fraction) as learnable_fraction
  from heads where zero_explained <> 'not_zero'
  group by run, head, zero_explained order by zero_explained = 'unexplained' desc, updates desc, run, head""",
    ),
    Macro(
        "worst_layers",
        "which layers had the largest gradients, or NaN in them?",
        ("layers",),
        """with found as (select run, layer, max(elements) as elements, count(*) as rows_seen,
      max(grad_norm) filter (isfinite(grad_norm)) as grad_norm_max,
      median(grad_norm) filter (isfinite(grad_norm)) as grad_norm_median,
      avg(zero_fraction) as zero_fraction, sum(nan_count) as nan_count, sum(inf_count) as inf_count,
      min(update) filter (nan_count > 0 or inf_count > 0) as first_nonfinite
    from layers group by run, layer)
  select * from found qualify row_number() over (partition by run
    order by first_nonfinite nulls last, grad_norm_max desc nulls last, layer) <= n
  order by run, first_nonfinite nulls last, grad_norm_max desc nulls last, layer""",
        "n := 10",
    ),
    Macro(
        "alarms",
        "when did each alarm begin, and what were the metrics then?",
        ("findings", "updates"),
        f"""select f.run, f.rank, f.update, f.rule, f.subject, f.verdict, f.metric, f.value, f.threshold,
    u.kl_k3, u.ratio_max, u.entropy_norm, u.explained_variance, u.grad_norm_pre_clip, u.episode_return_mean
  from findings f left join updates u on u.run = f.run and u.rank = f.rank and u.update = f.update
  where f.verdict in {_ALARM} and coalesce(f.previous, '') not in {_ALARM}
  order by f.run, f.update, f.rank, f.verdict, f.rule, f.subject""",
    ),
    Macro(
        "first_fired",
        "when did each rule first warn, how often, and how bad did it get?",
        ("findings",),
        f"""select run, rule, min(update) as first_update, arg_min(subject, update) as first_subject,
    min(update) filter (verdict = 'critical') as first_critical, count(*) as findings,
    count(distinct subject) as subjects
  from findings where verdict in {_ALARM} group by run, rule order by run, first_update, rule""",
    ),
    Macro(
        "worst_transitions",
        "which samples moved farthest from the policy that collected them?",
        ("transitions",),
        """select run, update, head, env, step, action, log_ratio, joint_log_ratio, log_prob, old_log_prob, advantage
  from transitions qualify row_number() over (partition by run
    order by isfinite(log_ratio), abs(log_ratio) desc nulls last, update, head, place) <= n
  order by run, isfinite(log_ratio), abs(log_ratio) desc nulls last, update, head""",
        "n := 10",
    ),
    Macro(
        "nonfinite_updates",
        "where did NaN or Inf appear, and in what?",
        ("updates",),
        """select run, rank, update, status, nonfinite_sources, nonfinite_minibatches, tensors_nonfinite,
    nan_grad_count, inf_grad_count, skip_reason
  from updates where nonfinite_minibatches > 0 or tensors_nonfinite > 0 or nonfinite_sources is not null
  order by run, update, rank""",
    ),
    Macro(
        "by_phase",
        "how did policy, value function and returns develop over the first, second and last third?",
        ("updates",),
        f"""with span as (select run, min(update) as first_one, max(update) as last_one from updates group by run)
  select run, {_PHASE} as phase, count(*) as updates,
    avg(episode_return_mean) filter (isfinite(episode_return_mean)) as episode_return,
    avg(kl_k3) filter (isfinite(kl_k3)) as kl_k3, avg(clip_fraction) as clip_fraction,
    avg(entropy_norm) filter (isfinite(entropy_norm)) as entropy_norm,
    avg(explained_variance) filter (isfinite(explained_variance)) as explained_variance,
    avg(grad_norm_pre_clip) filter (isfinite(grad_norm_pre_clip)) as grad_norm,
    count(*) filter (not isfinite(kl_k3) or not isfinite(grad_norm_pre_clip)) as nonfinite,
    count(*) filter (status <> 'performed') as not_performed
  from updates join span using (run) group by run, phase order by run, {_ORDER}""",
    ),
    Macro(
        "rank_spread",
        "do the ranks of a distributed training agree on what must be the same?",
        ("updates",),
        """select run, update, count(*) as ranks, min(grad_norm_post_clip) as least, max(grad_norm_post_clip) as most,
    count(distinct grad_norm_post_clip) as different_norms, count(distinct learning_rate) as different_rates
  from updates group by run, update having count(*) > 1
  order by run, (count(distinct grad_norm_post_clip) > 1 or count(distinct learning_rate) > 1) desc, update""",
    ),
    Macro(
        "slots_by_stage",
        "how did each seed module do in each of its stages?",
        ("slots",),
        """select run, place, stage, any_value(blueprint) as blueprint, count(*) as updates,
    min(update) as first_update, max(update) as last_update, min(health) as least_health,
    avg(normalized_ratio) filter (isfinite(normalized_ratio)) as normalized_ratio,
    mode(low_ratio_cause) as low_ratio_cause, count(low_ratio_cause) as updates_low
  from slots group by run, place, stage order by run, place, first_update""",
    ),
    Macro(
        "recording_cost",
        "what did recording cost, and was anything lost?",
        ("updates",),
        """select run, rank, count(*) as updates, avg(recorder_ms) as ms_an_update,
    sum(recorder_ms) / 1000 / sum(rollout_s + optimisation_s) as share_of_time, sum(dropped_rows) as dropped_rows,
    count(*) filter (sampled_steps > 0) as updates_with_detail
  from updates group by run, rank order by run, rank""",
    ),
)
"""Every macro, the most common questions first."""
BY_NAME = {macro.name: macro for macro in MACROS}
