"""The public Python API, by use on the sample runs."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

import esper_analyze as ea
from esper_analyze.api.backtests import GROUPS
from esper_analyze.api.tables import RunTables
from esper_analyze.detector.rule import VERDICT
from esper_analyze.detector.rules import RULES
from esper_analyze.schema import BY_NAME, TABLES
from tests.patience import PATIENCE
from tests.present import present
from tests.test_house import imports, modules
from tests.test_imports import HEAVY, loaded_after

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_runs" / "runs"
OWN_RULES = ROOT / "sample_runs" / "own_rules.py"


@pytest.fixture(scope="module")
def run() -> ea.Run:
    return ea.open(SAMPLES / "one_update_collapse")


@pytest.fixture(scope="module")
def fleet() -> ea.Fleet:
    return ea.open_fleet(SAMPLES)


def test_the_import_loads_nothing_heavy_and_names_everything() -> None:
    loaded = loaded_after("import esper_analyze as ea; assert set(ea.__all__) <= set(dir(ea))")
    assert not loaded & {*HEAVY, "numpy", "pyarrow", "textual"}


def test_opening_a_run_draws_nothing_and_needs_no_torch() -> None:
    code = f"import esper_analyze as ea; ea.open({str(SAMPLES / 'masked_healthy')!r})"
    assert not loaded_after(code) & {"matplotlib", "torch", "typer", "rich", "textual"}


def test_nothing_below_imports_the_api_or_the_door_to_the_recorder() -> None:
    below = [module for module in modules() if module != "esper_analyze" and not module.startswith("esper_analyze.api")]
    upwards = [(module, name) for module in below for name in imports(module) if name.startswith("esper_analyze.api")]
    assert upwards == []
    assert [module for module in modules() if "esper_analyze.record" in imports(module)] == []


def test_every_public_name_is_documented() -> None:
    assert [name for name in ea.__all__ if not inspect.getdoc(getattr(ea, name))] == []
    classes = [value for name in ea.__all__ if inspect.isclass(value := getattr(ea, name))]
    members = [
        f"{kind.__name__}.{name}"
        for kind in classes
        for name, member in vars(kind).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
        if not inspect.getdoc(member)
    ]
    assert members == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opem'"):
        getattr(ea, "opem")  # noqa: B009


def test_every_declared_table_is_an_attribute(run: ea.Run) -> None:
    assert {name for name, member in vars(RunTables).items() if isinstance(member, property)} == set(BY_NAME)
    for table in TABLES:
        frame = getattr(run, table.name)
        assert frame.columns == list(table.names)
        assert frame.height == run.rows[table.name]


def test_a_frame_has_the_columns_asked_for_in_their_order(run: ea.Run) -> None:
    frame = run.frame("heads", ["head", "entropy_norm", "update"])
    assert frame.schema == {"head": pl.String, "entropy_norm": pl.Float64, "update": pl.Int64}


def test_missing_and_broken_cells_stay_apart() -> None:
    losses = ea.open(SAMPLES / "nan_reward").updates["value_loss"]
    assert losses.is_nan().any()
    assert losses.null_count() == 0
    returns = ea.open(SAMPLES / "nan_reward").updates["target_kl"]
    assert returns.null_count() == returns.len()


def test_sql_answers_with_a_frame_and_takes_parameters(run: ea.Run) -> None:
    worst = run.sql("select run, update, kl_k3 from updates where kl_k3 > $1", [1])
    assert worst.rows() == [("one_update_collapse", 40, pytest.approx(16.35, abs=0.01))]
    named = run.sql("select count(*) as rows, sum(update) as total from updates where update < $last", {"last": 10})
    assert named.schema == {"rows": pl.Int64, "total": pl.Int64}
    assert named.rows() == [(10, 45)]


def test_sql_keeps_null_nan_and_zero_apart(run: ea.Run) -> None:
    row = run.sql("select null::double as missing, 'nan'::double as broken, 0.0 as zero").row(0, named=True)
    assert row["missing"] is None
    assert row["broken"] != row["broken"]
    assert row["zero"] == 0


def test_a_long_query_is_stopped_and_the_process_goes_on(run: ea.Run) -> None:
    with pytest.raises(ea.EsperError, match=r"stopped after 0\.3 s"):
        run.sql("select count(*) from range(100000000000) a, range(1000000) b", timeout=0.3)
    assert run.sql("select 1 as one").item() == 1


def test_a_result_larger_than_the_memory_allowed_is_refused(run: ea.Run) -> None:
    with pytest.raises(ea.EsperError, match=r"more than 0\.1 GB of memory"):
        run.sql("select range as number from range(20000000)", memory=0.1)


def test_a_traceback_shows_the_hint(run: ea.Run) -> None:
    with pytest.raises(ea.EsperError) as caught:
        run.section("head")
    assert f"hint: {caught.value.hint}" in "".join(traceback.format_exception(caught.value))


def test_verdict_and_incidents_are_those_of_the_report(run: ea.Run, tmp_path: Path) -> None:
    page = run.report(tmp_path / "page")
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    assert page.name == "index.html"
    assert run.verdict == report["verdict"] == "critical"
    assert run.story.headline == report["headline"]
    assert run.incidents["rule"].to_list() == [one["rule"] for one in report["incidents"]]
    assert run.incidents["rule"].to_list()[:2] == ["setting_changed", "kl_spike"]
    assert run.incidents.filter(rule="ratio_explosion")["cause"].to_list() == ["setting_changed"]
    assert run.incidents.filter(rule="entropy_collapse")["cause"].to_list() == [None]


def test_a_healthy_run_is_ok_and_has_typed_empty_incidents() -> None:
    healthy = ea.open(SAMPLES / "masked_healthy")
    assert healthy.verdict == "ok"
    assert healthy.incidents.is_empty()
    assert healthy.incidents.schema["peak"] == pl.Float64


def test_replay_with_the_stored_thresholds_says_what_was_said_live() -> None:
    run = ea.open(SAMPLES / "nan_reward")
    again = run.replay()
    said = ["update", "rule", "subject", "metric", "verdict", "previous"]
    live = json.loads((SAMPLES / "nan_reward" / "run.json").read_text())["thresholds"]
    alike = [rule.name for rule in RULES if rule.name in live and VERDICT not in rule.restated]
    ours, theirs = (one.findings.select(said).filter(pl.col("rule").is_in(alike)) for one in (again, run))
    assert ours.equals(theirs)
    assert not ours.is_empty()
    assert again.levels.equals(run.levels.select(again.levels.columns))
    assert set(again.changes["change"]) <= {"same", "not live"}  # of a rule that was not there yet
    assert "same" in set(again.changes["change"])


def test_replay_with_other_thresholds_says_what_changes() -> None:
    run = ea.open(SAMPLES / "masked_healthy")
    stricter = run.replay(kl_spike={"critical": 0.001})
    assert stricter.thresholds.as_dict()["kl_spike"]["critical"] == 0.001
    assert run.thresholds.as_dict()["kl_spike"]["critical"] != 0.001
    changed, last = stricter.changes.filter(pl.col("change") != "same"), len(run.updates) - 1
    assert set(changed["rule"]) == {"kl_spike"}
    assert repr(stricter) == f"<ReplayedRun masked_healthy: MaskablePPO, last update {last}, 1 threshold changed>"
    assert run.replay(stricter.thresholds).findings.equals(stricter.findings)


def test_every_section_has_sentences_and_a_figure_where_it_has_data(run: ea.Run) -> None:
    for name in run.sections:
        section = run.section(name)
        assert section.name == name
        assert section.sentences
        assert (section.data is None) == (section.figure is None)
    heads = run.section("heads")
    assert heads.rows is not None
    assert heads.rows["head"].to_list() == ["op", "slot", "blueprint", "tempo"]
    assert isinstance(heads.figure, Figure)
    assert run.section("lstm").data is run.section("lstm").rows is None


def test_a_section_shows_itself_in_a_notebook(run: ea.Run) -> None:
    assert 'src="data:image/png;base64,' in run.section("heads")._repr_html_()
    assert "<img" not in run.section("lstm")._repr_html_()


@pytest.mark.parametrize(
    ("metrics", "panels"), [(("kl_k3",), 1), (("kl_k3", "heads.entropy_norm", "groups.grad_norm"), 3)]
)
def test_plot_draws_a_panel_for_each_metric(run: ea.Run, metrics: tuple[str, ...], panels: int) -> None:
    figure = run.plot(*metrics)
    titles = [axes.get_title(loc="left").split()[0].rstrip(":") for axes in figure.axes]
    assert titles == [metric.rpartition(".")[2] for metric in metrics]
    assert len(figure.axes) == panels
    assert all(axes.lines for axes in figure.axes)


def test_plot_draws_one_subject_and_says_what_was_not_recorded(run: ea.Run) -> None:
    (axes,) = run.plot("heads.entropy_norm", subject="op").axes
    assert len([line for line in axes.lines if len(line.get_xdata()) == 90]) == 1  # type: ignore[arg-type]
    (axes,) = run.plot("target_kl").axes
    assert axes.get_title(loc="left").endswith("(not recorded)")


def test_a_plot_shows_itself_in_a_notebook_without_pyplot() -> None:
    path = str(SAMPLES / "masked_healthy")
    code = f"import esper_analyze as ea; assert ea.open({path!r}).plot('kl_k3')._repr_png_()[:4] == b'\\x89PNG'"
    code += "; import sys; assert 'matplotlib.pyplot' not in sys.modules"
    loaded_after(code)


def test_a_fleet_sums_up_its_runs(fleet: ea.Fleet) -> None:
    summary = fleet.summary()
    assert summary["run"].to_list() == list(fleet) == sorted(path.name for path in SAMPLES.iterdir())
    row = summary.row(by_predicate=pl.col("run") == "one_update_collapse", named=True)
    assert (row["verdict"], row["rule"], row["update"], row["updates"]) == ("critical", "kl_spike", 40, 90)
    assert summary.filter(run="masked_healthy")["rule"].item() is None
    assert len(fleet) == 12
    assert repr(fleet["masked_healthy"]) == "<Run masked_healthy: MaskablePPO, last update 119>"
    assert repr(fleet) == "<Fleet of 12 runs: growing_disconnected, growing_exploding, growing_healthy …>"
    assert "masked_healthy" in fleet._repr_html_()


def test_a_fleet_answers_sql_over_all_runs(fleet: ea.Fleet) -> None:
    found = fleet.sql("select run, count(*) as rows from updates group by run having rows = $1 order by run", [40])
    assert found["run"].to_list() == ["growing_disconnected", "growing_exploding", "growing_healthy", "two_ranks"]


def test_a_fleet_draws_a_line_for_each_run(fleet: ea.Fleet) -> None:
    pair = ea.open_fleet([SAMPLES / "masked_healthy", SAMPLES / "one_update_collapse"])
    first, second = pair.plot("kl_k3", "entropy_norm").axes
    assert [text.get_text() for text in present(first.get_legend()).get_texts()] == [
        "masked_healthy",
        "one_update_collapse",
    ]
    assert len(second.lines) == 2
    assert "(12 lines; named: those that end highest, lowest)" in fleet.plot("kl_k3").axes[0].get_title(loc="left")
    assert len(pair.plot("heads.entropy_norm", subject="op").axes[0].lines) == 2


def test_runs_are_compared_opened_or_by_path(run: ea.Run, fleet: ea.Fleet, tmp_path: Path) -> None:
    by_path = ea.compare([SAMPLES / "masked_healthy", SAMPLES / "one_update_collapse"])
    opened = ea.compare([fleet["masked_healthy"], run])
    assert by_path.headline == opened.headline
    assert by_path.divergences["update"].is_sorted()
    assert by_path.divergences.row(0, named=True)["update"] == 40
    assert by_path.settings.filter(setting="max_grad_norm, as used").row(0)[1:] == ("0.5", "1e+09")
    assert repr(by_path).startswith("<Comparison of 2 runs: masked_healthy and one_update_collapse")
    assert by_path.sentences[0] in by_path._repr_html_()
    page = by_path.report(tmp_path / "compared")
    assert json.loads((page.parent / "compare.json").read_text(encoding="utf-8"))["headline"] == by_path.headline


def test_a_fleet_has_a_page_over_the_pages_of_its_runs(tmp_path: Path) -> None:
    runs = ea.open_fleet([SAMPLES / "masked_healthy", SAMPLES / "nan_reward"])
    page = runs.report(tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    for label in ("masked_healthy", "nan_reward"):
        assert f'<a href="{label}/index.html">{label}</a>' in text
        assert (tmp_path / "out" / label / "index.html").is_file()


def test_a_page_that_cannot_be_written_does_not_keep_the_others_away(tmp_path: Path) -> None:
    runs = ea.open_fleet([SAMPLES / "nan_reward", SAMPLES / "masked_healthy"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "nan_reward").write_text("in the way")
    with pytest.raises(ea.EsperError, match=r"no page of 1 run, .* has the others: nan_reward: "):
        runs.report(tmp_path / "out")
    assert (tmp_path / "out" / "masked_healthy" / "index.html").is_file()
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "masked_healthy/index.html" in text
    assert "nan_reward/index.html" not in text


def test_a_comparison_has_tenths_and_means_by_group() -> None:
    compared = ea.compare([SAMPLES / "masked_healthy", SAMPLES / "kl_too_high", SAMPLES / "nan_reward"], by="n_epochs")
    returns = compared.tenths.filter(pl.col("metric") == "episode_return_mean")
    assert returns["run"].to_list() == ["masked_healthy", "kl_too_high", "nan_reward"]
    assert returns["updates"].to_list() == [12, 6, 3]
    first = ea.open(SAMPLES / "masked_healthy").updates["episode_return_mean"][:12].mean()
    assert returns["first"][0] == pytest.approx(first)
    groups = compared.groups.filter(pl.col("metric") == "kl_k3")
    assert groups.select("group", "runs").rows() == [("4", 2), ("10", 1)]
    low, mean, high = groups.select("low", "mean", "high").row(0)
    assert low < mean < high
    assert ea.compare([SAMPLES / "masked_healthy", SAMPLES / "nan_reward"]).groups.is_empty()


def test_a_backtest_scores_rules_and_settings() -> None:
    result = ea.backtest(SAMPLES, sweep={"kl_spike.critical": [0.2, 1e9]})
    assert result.scores["rule"].to_list() == ["kl_spike", "kl_spike", "all rules", "all rules"]
    assert result.scores["setting"].to_list()[:2] == ["critical=0.2", "critical=1e+09"]
    assert result.detections.filter(pl.col("update").is_null()).is_empty()
    assert (result.unlabelled, result.broken) == ([], [])
    assert repr(result) == "<BacktestResult of 12 labelled runs, 6 faults>"
    assert len(result.plot().axes) == 2
    assert "per_1000" in result._repr_html_()


def test_a_backtest_scores_all_rules_as_the_fault_bench_does(tmp_path: Path) -> None:
    healthy, broken = (SAMPLES / name for name in ("masked_healthy", "nan_reward"))
    fault = {"name": "NaN", "onset": 25, "rules": ["numerical_instability"]}
    faulty = {"twin": str(healthy), "fault": [fault], "groups": {"task": "masked"}}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({str(healthy): {"healthy": True}, str(broken): faulty}))
    result = ea.backtest([healthy, broken], labels=file, sweep={"kl_spike.critical": [0.00001, 1e9]})
    figures = {(row["setting"], row["figure"]): row for row in result.figures.to_dicts()}
    net = figures["kl_spike.critical=1e+09", "recall_net"]
    assert (net["hits"], net["of"], net["value"]) == (1, 1, 1.0)
    assert figures["kl_spike.critical=1e-05", "false_incidents"]["value"] > 0
    assert figures["kl_spike.critical=1e+09", "recall_net_by_harm"]["value"] is None
    assert result.faults["named"].to_list() == [1, 1]
    assert result.groups.columns == list(GROUPS)
    assert result.groups["found"].to_list() == [1, 1]
    assert "kl_spike" in result.false_alarms["rule"].to_list()


def test_a_backtest_begins_with_the_thresholds_given(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "kl_too_high", tmp_path / "kl_too_high")
    deaf = {"warning": 1e9, "critical": 1e9, "target_factor": 1e9}
    alone = ea.backtest(tmp_path, changes={"kl_spike": deaf}).scores.filter(rule="kl_spike")
    assert alone["found"].item() == 0
    thresholds = ea.Thresholds.defaults().merged({"kl_spike": deaf})
    assert ea.backtest([tmp_path], thresholds=thresholds).scores.filter(rule="kl_spike").equals(alone)


def test_thresholds_go_through_toml(run: ea.Run) -> None:
    changed = run.replay(kl_spike={"warning": 0.07}).thresholds
    text = ea.thresholds_to_toml(changed, "kl_spike")
    assert "warning = 0.07" in text
    assert "[ratio_explosion]" not in text
    assert ea.thresholds_from_toml(ea.thresholds_to_toml(changed)) == changed


def test_columns_are_described() -> None:
    row = ea.columns("heads").row(by_predicate=pl.col("column") == "entropy_norm", named=True)
    assert row["kind"] == "float"
    assert row["meaning"]
    assert row["null_means"]


def test_labels_and_facts_of_a_run(run: ea.Run) -> None:
    assert run.labels is not None
    assert [fault.onset for fault in run.labels.faults] == [40]
    assert run.status == "closed"
    assert run.last_update == 89
    assert run.info["algorithm"] == "MaskablePPO"


def test_a_rank_can_be_taken_alone() -> None:
    both, second = ea.open(SAMPLES / "two_ranks"), ea.open(SAMPLES / "two_ranks", rank=1)
    assert set(both.updates["rank"]) == {0, 1}
    assert set(second.updates["rank"]) == {1}


def test_rules_of_ones_own_judge_too() -> None:
    own = ea.open(SAMPLES / "masked_healthy", rules=OWN_RULES)
    assert len(own.thresholds.by_rule) > len(ea.Thresholds.defaults().by_rule)


def test_a_damaged_run_is_an_error_and_can_be_read_in_part(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "masked_healthy", tmp_path / "run")
    shard = sorted((tmp_path / "run").rglob("heads-*.parquet"))[0]
    shard.write_bytes(b"")
    with pytest.raises(ea.EsperError, match=shard.name) as caught:
        ea.open(tmp_path / "run")
    assert "skip" in caught.value.hint
    part = ea.open(tmp_path / "run", skip_broken=True)
    assert [line for line in part.broken if shard.name in line]


SCRIPT = '<script>alert("x")</script>\x1b[31m\nsecond line'


@pytest.fixture
def hostile(tmp_path: Path) -> ea.Run:
    shutil.copytree(SAMPLES / "one_update_collapse", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(info | {"name": SCRIPT, "algorithm": SCRIPT}), encoding="utf-8")
    return ea.open(tmp_path / "run")


def test_repr_is_one_line_of_printable_text(hostile: ea.Run) -> None:
    for shown in (repr(hostile), repr(hostile.replay()), repr(ea.open_fleet(hostile.path))):
        assert shown.isprintable()
        assert len(shown) < 250


def test_the_card_says_now_why_next_and_escapes_names(hostile: ea.Run) -> None:
    card = hostile._repr_html_()
    for part in ("Now", "Why", "Next", "critical", "learning_rate was"):
        assert part in card
    assert "<script" not in card
    assert "&lt;script&gt;" in card
    assert "\x1b" not in card


class _Bad:
    """Calls that are refused: what is called, what the error says, what the hint says."""

    run = ea.open(SAMPLES / "one_update_collapse")

    calls: tuple[tuple[Callable[[], object], str, str], ...] = (
        (lambda: ea.open("nowhere"), "nowhere", "recorder"),
        (lambda: ea.open(5), "5 is not a path", "pathlib.Path"),  # type: ignore[arg-type]
        (lambda: ea.open(SAMPLES), "not a recorded run", ""),
        (lambda: ea.open(SAMPLES / "masked_healthy", rank=3), "has no rank 3", "ranks: 0"),
        (lambda: ea.open(SAMPLES / "masked_healthy", rules="no.py"), "no.py cannot be read", "RULES"),
        (lambda: ea.open_fleet([]), "no path is given", "patterns"),
        (lambda: ea.open_fleet(["nowhere"]), "nowhere", "recorder"),
        (lambda: ea.open_fleet("nowhere*"), "nowhere*", ""),
        (lambda: ea.open_fleet(SAMPLES)["masked"], "did you mean 'masked_healthy'", ""),
        (lambda: _Bad.run.frame("head"), "did you mean 'heads'", "schema"),
        (lambda: _Bad.run.frame(["heads"]), "no table", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.frame("heads", ["entropi"]), "table heads has no column 'entropi'; did you mean", "schema"),
        (lambda: _Bad.run.frame("heads", "entropy"), "must be a list", ""),
        (lambda: _Bad.run.frame("heads", 5), "must be a list", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.section("head"), "did you mean 'heads'", "timeline"),
        (run.plot, "plot needs a metric", "kl_k3"),
        (lambda: _Bad.run.plot("kl_k4"), "did you mean 'kl_k3'", "ea.columns"),
        (lambda: _Bad.run.plot("heads.grad_nom"), "did you mean 'grad_norm'", "ea.columns"),
        (lambda: _Bad.run.plot("head.grad_norm"), "did you mean 'heads'", ""),
        (lambda: _Bad.run.plot("status"), "no metric 'status'", ""),
        (lambda: _Bad.run.plot("heads.grad_norm", subject="ops"), "did you mean 'op'", ""),
        (lambda: _Bad.run.plot("kl_k3", subject="op"), "has no subject", ""),
        (lambda: _Bad.run.sql("select kl from updates"), "kl", "schema"),
        (lambda: _Bad.run.sql("drop table updates"), "DROP", "SELECT"),
        (lambda: _Bad.run.sql("select * from read_csv('/etc/hostname')"), "the query failed", ""),
        (lambda: _Bad.run.sql("select $1", 5), "parameters=5 cannot be used", "list"),  # type: ignore[arg-type]
        (lambda: _Bad.run.sql("select $1"), "the query failed", ""),
        (lambda: _Bad.run.sql("select 1 as a, 2 as a"), "two columns named a", "x AS other"),
        (lambda: _Bad.run.sql("select interval 1 day"), "polars cannot hold", "varchar"),
        (lambda: _Bad.run.sql(5), "a query is a text", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.sql("select 1", timeout=0), "timeout=0", ""),
        (lambda: _Bad.run.sql("select 1", timeout="1"), "timeout='1'", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.sql("select 1", memory=None), "memory=None", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.sql("select 1", memory=0), "memory=0", ""),
        (lambda: _Bad.run.replay(kl_spik={}), "did you mean 'kl_spike'", ""),
        (lambda: _Bad.run.replay(kl_spike={"warnin": 1}), "did you mean 'warning'", ""),
        (lambda: _Bad.run.replay(kl_spike={"warning": "x"}), "must be a finite number", ""),
        (lambda: _Bad.run.replay(kl_spike=3), "must be a table", ""),  # type: ignore[arg-type]
        (lambda: _Bad.run.replay(3), "must be ea.Thresholds", "run.thresholds"),  # type: ignore[arg-type]
        (lambda: _Bad.run.report(_Bad.run.path / "page"), "inside a recorded run", ""),
        (lambda: ea.compare([_Bad.run]), "needs two runs", "directory"),
        (lambda: ea.compare([_Bad.run, "x"]), "not both", "ea.open"),  # type: ignore[arg-type]
        (lambda: ea.compare(5), "neither a path nor", ""),  # type: ignore[arg-type]
        (lambda: ea.backtest(SAMPLES, sweep={"kl_spik.warning": [1]}), "did you mean 'kl_spike'", ""),
        (lambda: ea.backtest(SAMPLES, sweep={"kl_spike.warning": 1}), "a list of values", ""),  # type: ignore[dict-item]
        (lambda: ea.backtest(SAMPLES, changes={"kl_spike": {"x": 1}}), "has no threshold 'x'", ""),
        (lambda: ea.backtest("nowhere"), "nowhere does not exist", ""),
        (lambda: ea.columns("head"), "did you mean 'heads'", ""),
        (lambda: ea.Thresholds.defaults()["kl_spik"], "did you mean 'kl_spike'", ""),
        (lambda: ea.thresholds_to_toml(_Bad.run.thresholds, "kl_spik"), "did you mean 'kl_spike'", ""),
        (lambda: ea.thresholds_from_toml("[kl_spike"), "not TOML", ""),
    )


@pytest.mark.parametrize(("call", "message", "hint"), _Bad.calls)
def test_bad_input_is_one_error_that_says_what_and_what_next(
    call: Callable[[], object], message: str, hint: str
) -> None:
    with pytest.raises(ea.EsperError) as caught:
        call()
    assert message in str(caught.value)
    assert hint in caught.value.hint


USE = """
import esper_analyze as ea
import polars as pl
from matplotlib.figure import Figure

run: ea.Run = ea.open("runs/x", skip_broken=True)
heads: pl.DataFrame = run.heads
some: pl.DataFrame = run.frame("heads", ["update", "head"])
rows: pl.DataFrame = run.sql("select 1 as one where 1 = $1", [1])
verdict: str = run.verdict
replayed: ea.ReplayedRun = run.replay(kl_spike={"warning": 0.05})
changes: pl.DataFrame = replayed.changes
figure: Figure = run.plot("kl_k3")
section: ea.ReportSection = run.section("heads")
sentences: tuple[str, ...] = section.sentences
fleet: ea.Fleet = ea.open_fleet("runs")
summary: pl.DataFrame = fleet.summary()
scores: pl.DataFrame = ea.backtest("runs", sweep={"kl_spike.critical": [0.2, 0.5]}).scores
headline: str = ea.compare([run, fleet["y"]]).headline
thresholds: ea.Thresholds = run.thresholds
try:
    run.section("x")
except ea.EsperError as error:
    hint: str = error.hint
reveal_type(ea.open)
"""


def test_mypy_knows_the_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "use.py"
    file.write_text(USE, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    own = [line for line in done.stdout.splitlines() if line.startswith(str(file))]
    assert [line for line in own if ": error:" in line] == []
    assert "Any" not in next(line for line in own if "Revealed type" in line).replace("all_attempts", "")


def test_a_mistake_in_the_use_is_seen_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "misuse.py"
    file.write_text("import esper_analyze as ea\nea.open('x').heds\nea.opem('x')\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert '"Run" has no attribute "heds"' in done.stdout
    assert 'Module has no attribute "opem"' in done.stdout
