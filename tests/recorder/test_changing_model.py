"""Parameters that come, go or are replaced while training: norms are torch's own, the change is an event."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from esper_analyze.cli import run as command
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.reports.sections.heads import frame, words
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema.tables import TABLES
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.verify import verify
from recorder import Recorder
from tests.recorder.plain import norm_of

STEPS = 3


class ChangingNet(nn.Module):
    """A body and two heads; what a head gives is its forward, so that it may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.heads = nn.ModuleDict({"op": nn.Linear(4, 3), "slot": nn.Linear(4, 2)})
        self.extra = nn.ModuleList()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.tanh(self.body(x))
        for one in self.extra:
            hidden = hidden + one(hidden)
        return {name: head(hidden).log_softmax(-1)[:, 0] for name, head in self.heads.items()}


Change = Callable[["ChangingTraining"], None]


class ChangingTraining:
    """A loop whose model may be changed at any place; ``true`` are torch's own norms of whatever has a gradient."""

    def __init__(self, run_dir: Path, rec: bool = True, **options: Any) -> None:
        torch.manual_seed(0)
        self.net = ChangingNet()
        self.x = torch.randn(16, 3)
        self.renew()
        self.rec = None
        if rec:
            options = {"heads": dict(self.net.heads.items()), "overhead_budget": None, "strict": True} | options
            self.rec = Recorder(run_dir, self.net, **options)
        self.true: list[float] = []

    def renew(self) -> None:
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def update(self, changes: dict[str, Change] | None = None) -> None:
        """One update; ``changes`` by place: before, middle (after the second minibatch call), between steps."""
        changes = changes or {}
        self._change(changes, "before")
        old = {name: one.detach() for name, one in self.net(self.x).items()}
        for step in range(STEPS):
            if step == 1:
                self._change(changes, "between")
            new = self.net(self.x)
            loss = -sum((one * (1 + self.x[:, 0])).mean() for one in new.values())
            assert isinstance(loss, torch.Tensor)
            if self.rec is not None:
                self.rec.minibatch(
                    log_prob={name: new.get(name, torch.zeros(16)) for name in ("op", "slot")},
                    old_log_prob={name: old.get(name, torch.zeros(16)) for name in ("op", "slot")},
                    clip_range=0.2,
                    loss=loss,
                    returns=1 + self.x[:, 0],
                    old_values=self.x[:, 1],
                    advantages=1 + self.x[:, 0] - self.x[:, 1],
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.true.append(norm_of(p.grad for p in self.net.parameters()))
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
            self.optimizer.step()
        if self.rec is not None:
            values, returns, rewards = self.x[:, 1].reshape(8, 2), 1 + self.x[:, 0].reshape(8, 2), self.x[:, 2]
            self.rec.update(
                values=values,
                returns=returns,
                advantages=returns - values,
                rewards=rewards.reshape(8, 2),
                ends=torch.arange(16).reshape(8, 2) % 5 == 0,
                value_coef=0.5,
                gamma=0.99,
            )

    def _change(self, changes: dict[str, Change], place: str) -> None:
        if place in changes:
            changes[place](self)


def grow(training: ChangingTraining) -> None:
    layer = nn.Linear(4, 4)
    training.net.extra.append(layer)
    training.optimizer.add_param_group({"params": list(layer.parameters())})


def replace_head(training: ChangingTraining) -> None:
    training.net.heads["slot"] = nn.Linear(4, 5)
    training.renew()


def replace_weight(training: ChangingTraining) -> None:
    head = training.net.heads["slot"]
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.detach().clone())
    training.renew()


def remove_head(training: ChangingTraining) -> None:
    del training.net.heads["slot"]
    training.renew()


CHANGES = {"grow": grow, "replace_head": replace_head, "replace_weight": replace_weight, "remove_head": remove_head}


def trained(run_dir: Path, change: str, place: str, **options: Any) -> tuple[RecordedRun, ChangingTraining]:
    training = ChangingTraining(run_dir, **options)
    for update in range(6):
        training.update({place: CHANGES[change]} if update == 3 else None)
    assert training.rec is not None
    training.rec.close()
    return open_run(run_dir), training


@pytest.fixture(params=[(change, place) for change in CHANGES for place in ("before", "between")], ids=str)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RecordedRun, ChangingTraining, str, str]:
    change, place = request.param
    return *trained(tmp_path / "run", change, place), change, place


def test_whole_model_norms_are_torch_s_own_and_the_run_is_sound(
    case: tuple[RecordedRun, ChangingTraining, str, str],
) -> None:
    run, training, _, _ = case
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(training.true, rel=1e-5)
    post = [min(true, 0.5) for true in training.true]
    assert run.frame("steps")["grad_norm_post_clip"].to_list() == pytest.approx(post, rel=1e-4)
    assert len(run.frame("losses_of_data")) == 0
    assert verify(run.path).as_dict()["faults"] == []
    assert differences(replay(run), recorded(run)) == []


def test_the_change_is_an_event_at_the_update_from_which_the_map_has_it(
    case: tuple[RecordedRun, ChangingTraining, str, str],
) -> None:
    run, _, change, place = case
    events = [(row["kind"], row["subject"]) for row in run.frame("events").to_dicts()]
    assert run.frame("events")["update"].unique().to_list() == [3 if place == "before" else 4]
    layer = ["heads.slot.weight", "heads.slot.bias", "head:slot"]
    wanted = {
        "grow": [("parameters_added", "extra.0.weight"), ("parameters_added", "extra.0.bias")],
        "replace_head": [("parameters_replaced", name) for name in layer],
        "replace_weight": [("parameters_replaced", name) for name in (layer[0], layer[2])],
        "remove_head": [("parameters_removed", name) for name in layer],
    }
    assert events == wanted[change]


def test_groups_and_layers_are_of_the_parameters_there_are(
    case: tuple[RecordedRun, ChangingTraining, str, str],
) -> None:
    run, training, change, place = case
    last = {row["group"]: row for row in run.frame("groups").to_dicts() if row["update"] == 5}
    assert last["all"]["elements"] == sum(p.numel() for p in training.net.parameters())
    assert last["all"]["grad_norm"] == pytest.approx(sum(training.true[-3:]) / 3, rel=1e-5)
    layers = [row["layer"] for row in run.frame("layers").to_dicts() if row["update"] == 5]
    assert layers == [name for name, _ in training.net.named_parameters()]
    heads = {row["head"]: row for row in run.frame("heads").to_dicts() if row["update"] == 5}
    assert heads["op"]["grad_state"] == "finite"
    assert heads["slot"]["grad_state"] == ("removed" if change == "remove_head" else "finite")
    whole = [row for row in run.frame("groups").to_dicts() if row["group"] == "all"]
    first = 3 if place == "before" else 4  # with the new map
    assert [row["cosine_previous_update"] is None for row in whole[1:]] == [n == first for n in range(1, 6)]
    if place == "between":
        assert whole[3]["update_ratio"] is None  # in whose middle it was
    assert whole[5]["update_ratio"] is not None


def test_a_removed_head_is_never_told_as_learning(tmp_path: Path) -> None:
    run, _ = trained(tmp_path / "run", "remove_head", "before")
    heads = [row for row in run.frame("heads").to_dicts() if row["head"] == "slot"]
    assert [row["grad_state"] for row in heads] == ["finite"] * 3 + ["removed"] * 3
    assert [row["grad_norm"] is None for row in heads] == [False] * 3 + [True] * 3
    findings = [row for row in run.frame("findings").to_dicts() if row["rule"] == "gradient_missing"]
    last = [row for row in findings if row["subject"] == "slot"][-1]
    assert (last["update"], last["verdict"]) == (3, "not_applicable")
    assert "removed" in last["reason"]
    data = frame(gather(run))
    assert data is not None
    said = {head.name: head.sentence for head in data}
    assert "learning" in said["op"]
    assert "learning" not in said["slot"]
    assert "from update 3 on" in said["slot"]
    assert any("removed" in one for one in words(data))


def test_a_head_whose_gradient_is_not_measured_any_more_is_not_told_as_learning(tmp_path: Path) -> None:
    """As in runs recorded before heads could be removed: null from there on."""
    torch.manual_seed(0)
    net = ChangingNet()
    heads = dict(net.heads.items())
    with Recorder(tmp_path / "run", net, heads=heads, strict=True) as rec:
        for update in range(4):
            rec.minibatch(
                log_prob={name: torch.zeros(4) for name in heads}, old_log_prob={name: torch.zeros(4) for name in heads}
            )
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            parts = [net.body, net.heads["op"], *([net.heads["slot"]] if update < 2 else [])]
            torch.nn.utils.clip_grad_norm_([p for part in parts for p in part.parameters()], 1.0)
            rec.update()
    data = frame(gather(open_run(tmp_path / "run")))
    assert data is not None
    said = {head.name: head.sentence for head in data}
    assert "not measured from update 2 on" in said["slot"]


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_a_new_head_that_is_clipped_alone_in_the_middle_of_an_update_counts(tmp_path: Path, norm_type: float) -> None:
    torch.manual_seed(0)
    net, true = ChangingNet(), []
    with Recorder(tmp_path / "run", net, heads=dict(net.heads.items()), strict=True) as rec:
        for step in range(2):
            zeros = {name: torch.zeros(4) for name in ("op", "slot")}
            rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            if step == 1:
                net.heads["slot"] = nn.Linear(4, 7)
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            true.append(norm_of(p.grad for p in net.parameters()))
            if norm_type == 2.0:
                torch.nn.utils.clip_grad_norm_([*net.body.parameters(), *net.heads["op"].parameters()], 1e9)
                torch.nn.utils.clip_grad_norm_(net.heads["slot"].parameters(), 1e9)
            else:
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9, norm_type)
        rec.update()
    assert open_run(tmp_path / "run").frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)


def test_gradients_called_by_hand_count_new_parameters_at_once(tmp_path: Path) -> None:
    net, true = ChangingNet(), []
    with Recorder(tmp_path / "run", net, heads=dict(net.heads.items()), strict=True) as rec:
        for step in range(2):
            zeros = {name: torch.zeros(4) for name in ("op", "slot")}
            rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            if step == 1:
                net.extra.append(nn.Linear(4, 4))
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            true.append(norm_of(p.grad for p in net.parameters()))
            rec.gradients()
        rec.update()
    assert open_run(tmp_path / "run").frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)


def test_rows_of_a_shared_layer_are_followed_by_its_name(tmp_path: Path) -> None:
    from recorder.capture.parameters import ParameterRows

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 5)

    net = Shared()
    weight = net.get_parameter("out.weight")
    heads = {"op": ParameterRows(weight, 0, 3), "slot": ParameterRows(weight, 3, 5)}
    with Recorder(tmp_path / "run", net, heads=heads, strict=True) as rec:
        for update in range(3):
            if update == 1:
                net.out = nn.Linear(3, 6)
            if update == 2:
                net.out = nn.Linear(3, 3)
            zeros = {name: torch.zeros(4) for name in heads}
            rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
            rec.update()
    rows = open_run(tmp_path / "run").frame("heads")
    norms = dict(
        zip(["op", "slot"], [rows.filter(rows["head"] == n)["grad_norm"].to_list() for n in heads], strict=True)
    )
    assert norms["op"] == pytest.approx([3.0] * 3)
    assert norms["slot"][:2] == pytest.approx([math.sqrt(6)] * 2)
    assert norms["slot"][2] is None
    assert rows.filter(rows["head"] == "slot")["grad_state"].to_list() == ["finite", "finite", "removed"]


def test_a_grown_model_goes_on_in_the_same_run(tmp_path: Path) -> None:
    run, training = trained(tmp_path / "run", "grow", "before")
    assert len(run.frame("events")) == 2
    again = Recorder(tmp_path / "run", training.net, heads=dict(training.net.heads.items()), resume=True, strict=True)
    training.rec = again
    training.update()
    again.close()
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == list(range(7))


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_the_training_is_the_same_to_the_bit(tmp_path: Path, change: str) -> None:
    ends = []
    for rec in (False, True):
        training = ChangingTraining(tmp_path / "run", rec=rec)
        for update in range(4):
            torch.manual_seed(update)
            training.update({"between": CHANGES[change]} if update == 2 else None)
        ends.append([p.detach().clone() for p in training.net.parameters()])
        if training.rec is not None:
            training.rec.close()
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_group_with_other_parameters_is_compared_with_nothing_that_was_before(tmp_path: Path) -> None:
    """Else a new head whose gradient is 1,000 times the old one's would be an explosion, and a drift."""
    torch.manual_seed(0)
    net = ChangingNet()
    with Recorder(tmp_path / "run", net, heads=dict(net.heads.items()), strict=True) as rec:
        for update in range(40):
            if update == 25:
                net.heads["slot"] = nn.Linear(4, 2)
            zeros = {name: torch.zeros(4) for name in ("op", "slot")}
            rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            for name, parameter in net.named_parameters():
                size = 1e3 if "slot" in name and update >= 25 else 1.0
                parameter.grad = torch.full_like(parameter, size)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
            rec.update()
    run = open_run(tmp_path / "run")
    groups = run.frame("groups").to_dicts()
    changed = {(row["update"], row["group"]) for row in groups if row["parameters_changed"]}
    assert changed == {(25, name) for name in ("actor", "head:slot", "all")}
    slot = [row for row in groups if row["group"] == "head:slot"]
    assert [row["drift_norm"] is None for row in slot] == [n < 10 or 25 <= n < 35 for n in range(40)]
    said = {(row["rule"], row["subject"]) for row in run.frame("findings").to_dicts() if row["verdict"] == "critical"}
    assert ("gradient_explosion", "head:slot") not in said
    assert not [row for row in slot if (row["drift_norm"] or 0.0) > 1e-6]
    assert differences(replay(run), recorded(run)) == []


@pytest.mark.parametrize("replaced", [None, 28])
def test_a_replaced_head_is_low_for_as_long_as_the_new_one_is(tmp_path: Path, replaced: int | None) -> None:
    """Twenty updates below the bound are critical: of one head, not of two that had the same name."""
    net, first_low, updates = ChangingNet(), 10, 50
    with Recorder(tmp_path / "run", net, heads=dict(net.heads.items()), sizes={"op": 3, "slot": 2}, strict=True) as rec:
        for update in range(updates):
            if update == replaced:
                net.heads["slot"] = nn.Linear(4, 2)
            zeros = {name: torch.zeros(4) for name in ("op", "slot")}
            entropy = {"op": torch.full((4,), 0.9), "slot": torch.full((4,), 0.9 if update < first_low else 0.01)}
            rec.minibatch(log_prob=zeros, old_log_prob=zeros, entropy=entropy)
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
            rec.update()
    run = open_run(tmp_path / "run")
    findings = [row for row in run.frame("findings").to_dicts() if row["rule"] == "head_entropy_collapse"]
    critical = [row["update"] for row in findings if (row["verdict"], row["subject"]) == ("critical", "slot")]
    assert critical == [(first_low if replaced is None else replaced) + 20 - 1]
    assert differences(replay(run), recorded(run)) == []


@pytest.mark.parametrize("unscale", [True, False])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_under_mixed_precision_norms_are_torch_s_own(tmp_path: Path, change: str, unscale: bool) -> None:
    training, scaler, true = ChangingTraining(tmp_path / "run"), torch.amp.GradScaler("cpu", init_scale=1024.0), []
    assert training.rec is not None
    with training.rec as rec:
        for update in range(4):
            if update == 2:
                CHANGES[change](training)
            for _ in range(STEPS):
                new = training.net(training.x)
                loss = sum((one * (1 + training.x[:, 0])).mean() for one in new.values())
                assert isinstance(loss, torch.Tensor)
                log_probs = {name: new.get(name, torch.zeros(16)) for name in ("op", "slot")}
                rec.minibatch(log_prob=log_probs, old_log_prob=log_probs, clip_range=0.2, loss=loss)
                training.optimizer.zero_grad()
                scaler.scale(loss).backward()
                if unscale:
                    scaler.unscale_(training.optimizer)
                    true.append(float(torch.nn.utils.clip_grad_norm_(training.net.parameters(), 0.5)))
                else:
                    true.append(norm_of(p.grad / 1024 for p in training.net.parameters() if p.grad is not None))
                    rec.gradients()
                scaler.step(training.optimizer)
                scaler.update()
            rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)
    assert run.frame("updates")["loss_scale"].to_list() == [1024.0] * 4
    assert run.frame("events")["update"].unique().to_list() == [2]
    groups = {row["group"]: row for row in run.frame("groups").to_dicts() if row["update"] == 3}
    assert groups["all"]["grad_norm"] == pytest.approx(sum(true[-STEPS:]) / STEPS, rel=1e-5)
    slot = {"slot": "removed"} if change == "remove_head" else {"slot": "finite"}
    last = {row["head"]: row["grad_state"] for row in run.frame("heads").to_dicts() if row["update"] == 3}
    assert last == {"op": "finite"} | slot
    assert len(run.frame("losses_of_data")) == 0
    assert differences(replay(run), recorded(run)) == []


@pytest.mark.parametrize("every", [False, True], ids=["first rank's gradients", "all ranks' gradients"])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_ranks_that_change_together_are_joined_as_the_one_model_they_are(
    tmp_path: Path, change: str, every: bool
) -> None:
    alone, training = trained(tmp_path / "alone", change, "before")
    for rank in range(2):
        trained(tmp_path / "ranks", change, "before", rank=rank, world_size=2, all_ranks=every)
    run = merge_ranks(open_run(tmp_path / "ranks"))
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(training.true, rel=1e-5)
    for table, columns in {
        "groups": ["update", "group", "elements", "parameters_changed", "grad_norm", "update_ratio"],
        "heads": ["update", "head", "grad_state", "grad_norm"],
        "updates": ["update", "grad_norm_pre_clip", "grad_norm_post_clip"],
    }.items():
        assert run.frame(table, columns).equals(alone.frame(table, columns)), table
    told = ["update", "kind", "subject", "detail"]
    for rank in range(2):
        one = open_run(tmp_path / "ranks").only(rank)
        changes = run.frame("events").filter(pl.col("rank") == rank).select(told)
        assert changes.equals(one.frame("events", told))
        assert changes.equals(alone.frame("events", told)) or (rank == 1 and not every and not len(changes))
        assert differences(replay(one), recorded(one)) == []
    assert verify(run.path).as_dict()["faults"] == []
    of_ranks = [one for one in replay(run).findings if one.rule != "rank_desync"]
    assert all(one.same_as(other) for one, other in zip(of_ranks, replay(alone).findings, strict=True))


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_changed_model_survives_compaction_and_export(tmp_path: Path, change: str) -> None:
    run, _ = trained(tmp_path / "run", change, "between")
    before = {table.name: run.frame(table.name) for table in TABLES}
    assert len(before["events"])
    compact(run.path)
    after = open_run(run.path)
    for name, rows in before.items():
        assert after.frame(name).equals(rows), name
    assert verify(run.path).as_dict()["faults"] == []
    assert differences(replay(after), recorded(after)) == []
    assert command(["export", str(run.path), "--to", "csv", "--out", str(tmp_path / "csv")]) == 0
    csv = pl.read_csv(tmp_path / "csv" / "events.csv", schema_overrides=dict(before["events"].schema))
    assert csv.equals(before["events"])
    out = tmp_path / "events.parquet"
    assert command(["export", str(run.path), "--to", "parquet", "--table", "events", "--out", str(out)]) == 0
    assert pl.read_parquet(out).equals(before["events"])
    lines = tmp_path / "jsonl"
    assert command(["export", str(run.path), "--to", "jsonl", "--out", str(lines)]) == 0
    read = [json.loads(line) for line in (lines / "events.jsonl").read_text().splitlines()]
    assert read == before["events"].to_dicts()
    groups = pl.read_ndjson(lines / "groups.jsonl")["parameters_changed"].to_list()
    assert groups == before["groups"]["parameters_changed"].to_list()
