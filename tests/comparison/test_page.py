"""The page and the facts of a comparison: its verdict, tables of settings and runs, and the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.comparison.figures import overlays, words
from esper_analyze.comparison.groups import ComparedGroup
from esper_analyze.comparison.page import _run, _settings, _verdict, page
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.write import FACTS_FILE, PAGE_FILE, facts, write_comparison
from esper_analyze.reports.render.figure import Drawn
from tests.comparison.made import compared, comparison, parting, still

NAN = math.nan


def ended(runs: int = 2) -> SideBySide:
    """Return runs too wild to part anywhere, the first of which ends apart."""
    wild = 1000 * np.random.default_rng(0).normal(size=(runs, 40))
    wild[:, 30:], wild[0, 30:] = 9.0, 1.0
    return comparison([compared("policy_loss", wild)])


def nearly(**facts: Any) -> SideBySide:
    """Return a pair that differs a little at one update."""
    values = still(2)
    values[1, 5] = 100.1
    return comparison([compared("policy_loss", values)], **facts)


SHORT = np.array([[True] * 40, [True] * 3 + [False] * 37])
VERDICT = [
    (comparison([compared("policy_loss", parting(2, b=20))]), ("warning", "diverged")),
    (ended(), ("warning", "different")),
    (comparison([compared("policy_loss", parting(2, b=38))]), ("warning", "cannot tell")),
    (nearly(rows=np.array([[True] * 20 + [False] * 20, [False] * 17 + [True] * 23])), ("ok", "together")),
    (nearly(rows=np.array([[True] * 8 + [False] * 32, [False] * 5 + [True] * 35])), ("warning", "cannot tell")),
    (nearly(), ("ok", "together")),
    (comparison([compared("policy_loss", still(2, 3))]), ("ok", "together")),  # too short, but equal
    (comparison([compared("policy_loss", still(2))]), ("ok", "together")),
]


@pytest.mark.parametrize(("found", "verdict"), VERDICT)
def test_the_verdict(found: SideBySide, verdict: tuple[str, str]) -> None:
    assert _verdict(found) == verdict
    rendered = page(found, [])
    assert f'<span class="chip {verdict[0]}">{verdict[1]}</span>' in rendered


SETTINGS = (
    ("hyperparameters.lr", ("0.1", "0.2", "0.1")),
    ("notes.thresholds.x", ("–", "y", "z")),
    ("thresholds.kl", ("1", "2", "2")),
)


def test_settings_of_a_pair_are_a_column_each_and_thresholds_are_apart() -> None:
    pair = comparison([compared("policy_loss", still(2))], settings=[(name, both[:2]) for name, both in SETTINGS])
    tables = _settings(pair)
    assert tables.titles == ("setting", "a", "b")
    assert tables.training == [("hyperparameters.lr", "0.1", "0.2"), ("notes.thresholds.x", "–", "y")]
    assert tables.thresholds == [("thresholds.kl", "1", "2")]
    assert tables.differing == "1 threshold of the detector differs"


def test_settings_of_many_runs_are_a_row_for_each_value_with_the_runs_that_have_it() -> None:
    many = comparison([compared("policy_loss", still(3))], settings=[*SETTINGS, ("thresholds.ev", ("1", "1", "2"))])
    tables = _settings(many)
    assert tables.titles == ("setting", "value", "runs")
    assert tables.training == [
        ("hyperparameters.lr", "0.1", "a, c"), ("", "0.2", "b"),
        ("notes.thresholds.x", "–", "a"), ("", "y", "b"), ("", "z", "c"),
    ]  # fmt: skip
    assert tables.thresholds == [("thresholds.kl", "1", "a"), ("", "2", "b, c"),
                                 ("thresholds.ev", "1", "a, b"), ("", "2", "c")]  # fmt: skip
    assert tables.differing == "2 thresholds of the detector differ"
    long = comparison([compared("policy_loss", still(3))], settings=[("x", ("y" * 200, "1", "1"))])
    assert _settings(long).training[0][1] == "y" * 119 + "…"
    assert _settings(long).differing == "0 thresholds of the detector differ"


def test_a_run_s_row_has_its_name_and_how_many_updates_it_recorded() -> None:
    rows = np.ones((2, 2000), bool)
    rows[1, 1500:] = False
    infos: list[dict[str, object]] = [{"name": "first", "algorithm": "PPO", "framework": "SB3"}, {"algorithm": None}]
    found = comparison([compared("policy_loss", still(2, 2000), rows=rows)], rows=rows, infos=infos)
    assert _run(found, 0) == ("a", "first", "PPO", "SB3", "2,000")
    assert _run(found, 1) == ("b", "–", "–", "–", "1,500")


def test_the_page_has_the_answer_each_section_and_what_stays_together() -> None:
    metrics = [compared("policy_loss", parting(2, b=20)), compared("value_mean", still(2))]
    found = comparison(metrics)
    empty = Drawn("<svg></svg>", "", b"", 0)
    answers = [(overlay, empty, words(overlay)) for overlay in overlays(found)]
    rendered = page(found, answers)
    assert "<h1>a and b</h1><p>2 metrics compared over 40 updates</p>" in rendered
    assert "No divergence in: value_mean." in rendered
    for section in ("tenths", "divergences", "policy", "value", "settings", "runs", "method"):
        assert rendered.count(f'id="{section}"') == 1
        assert f'href="#{section}"' in rendered
    assert "<h1>3 runs</h1>" in page(comparison([compared("policy_loss", still(3))]), [])


def test_the_table_of_tenths_and_the_groups_come_first_on_page_and_in_the_facts(tmp_path: Path) -> None:
    values = still(3)
    values[:, 36:] = np.array([[2.0], [4.0], [9.0]])
    found = comparison([compared("kl_k3", values)], worst=("ok", "ok", "critical: kl_spike at update 9"))
    groups = (ComparedGroup("<fast>", (0, 1)), ComparedGroup("slow", (2,)))
    page_text = write_comparison(found, tmp_path, groups=groups).read_text()
    assert page_text.index('id="tenths"') < page_text.index('id="groups"') < page_text.index('id="divergences"')
    for cell in ("100 → 2 (×0.02)", "critical: kl_spike at update 9", "3 (-9.71 – 15.7)", "&lt;fast&gt;"):
        assert cell in page_text
    assert "<fast>" not in page_text
    assert (tmp_path / "groups.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / FACTS_FILE).read_text())
    assert told["runs"][2]["tenths"] == {"kl_k3": {"first": 100.0, "last": 9.0, "updates": 4}}
    assert told["runs"][2]["worst"] == "critical: kl_spike at update 9"
    first, second = told["groups"]
    assert (first["group"], first["runs"], first["last_tenth"]["kl_k3"]["runs"]) == ("<fast>", ["a", "b"], 2)
    assert second["last_tenth"]["kl_k3"] == {"mean": 9.0, "low": "NaN", "high": "NaN", "runs": 1}


def test_facts_of_a_pair_that_diverges() -> None:
    infos = [{"name": "one", "run_id": "x1"}, {}]
    metrics = [compared("policy_loss", parting(2, b=30))]
    told: dict[str, Any] = facts(comparison(metrics, infos=infos, settings=[("lr", ("1", "2"))], functions=("f",)))
    assert told["first_difference"] == {"update": 40, "metrics": ("policy_loss",)}
    assert told["runs"] == [
        {"run": "a", "name": "one", "run_id": "x1", "updates": 40, "last_update": 49, "parts_at": None,
         "parts_first_in": None, "worst": "ok", "tenths": {}},
        {"run": "b", "name": None, "run_id": None, "updates": 40, "last_update": 49, "parts_at": 40,
         "parts_first_in": "policy_loss", "worst": "ok", "tenths": {}},
    ]  # fmt: skip
    (metric,) = told["metrics"]
    (parts,) = metric.pop("partings")
    assert metric == {
        "metric": "policy_loss", "title": "Policy loss", "judged_by": "value", "noise": pytest.approx(1.0),
    }  # fmt: skip
    assert parts == {
        "run": "b", "update": 40, "kind": "beyond", "sigmas_beyond": pytest.approx(394.0), "has": "500",
        "others_have": "100",
    }  # fmt: skip
    assert told["different_at_end"] == [{"run": "a", "metric": "policy_loss", "has": 100.0, "others_have": 500.0}]
    assert told["settings"] == [{"name": "lr", "values": {"a": "1", "b": "2"}}]
    assert (told["may_be_parting"], told["too_short"], told["given_as_functions"]) == ([], [], ("f",))


def test_facts_of_what_cannot_be_judged() -> None:
    few = still(3)
    few[:, 3:] = NAN
    broken = still(3)
    broken[1, 5] = math.inf
    pending = parting(3, b=38)
    told: dict[str, Any] = facts(
        comparison([compared("kl_k3", few), compared("policy_loss", broken), compared("value_mean", pending)])
    )
    assert told["first_difference"] is None  # of more than two runs equality is not judged
    few_facts, broken_facts, _ = told["metrics"]
    assert (few_facts["noise"], few_facts["judged_by"], few_facts["partings"]) == (None, "logarithm", [])
    assert [(one["kind"], one["sigmas_beyond"], one["has"]) for one in broken_facts["partings"]] == [
        ("nonfinite", None, "+Inf")
    ]
    assert told["may_be_parting"] == [{"run": "b", "update": 48, "metric": "value_mean"}]
    assert told["unjudged"] == ("kl_k3",)
    assert facts(comparison([compared("kl_k3", few)]))["too_short"] == ["a", "b", "c"]
    assert facts(comparison([compared("kl_k3", still(2))]))["first_difference"] is None


def test_all_files_are_written_and_each_figure_is_counted(tmp_path: Path) -> None:
    found = comparison([compared("policy_loss", still(2, 8)), compared("value_mean", still(2, 8))])
    counts: list[int] = []
    assert write_comparison(found, tmp_path / "new" / "out", progress=counts.append) == tmp_path / "new/out" / PAGE_FILE
    assert counts == [1, 2]
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == sorted([PAGE_FILE, FACTS_FILE, "policy.png", "value.png"])
    assert json.loads((tmp_path / "new" / "out" / FACTS_FILE).read_text())["headline"] == facts(found)["headline"]
    assert (tmp_path / "new" / "out" / "policy.png").read_bytes().startswith(b"\x89PNG")
    write_comparison(found, tmp_path / "new" / "out")  # again, over the old ones
