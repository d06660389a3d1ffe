"""Shared by the commands that answer a single question: judge the runs, answer, and write the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from esper_analyze.commands.options import RunPaths
from esper_analyze.commands.output import Form, PictureOutput
from esper_analyze.commands.run_options import JudgingOptions, UpdateRange, open_runs
from esper_analyze.errors import FINDINGS, UsageError
from esper_analyze.terminal import put, tell

if TYPE_CHECKING:
    from esper_analyze.reports.render.rows import SectionTable
    from esper_analyze.reports.render.section import Section
    from esper_analyze.runs.run import RecordedRun

_OTHERS = "ranks but the first record groups and layers with Recorder(..., all_ranks=True) only"


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(JudgingOptions, UpdateRange, PictureOutput):
    """The options of a command that answers a question: of which runs and updates, how judged, how written."""

    paths: RunPaths


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What a section says of one run. ``shown``: first and last update of it, None for all; ``fails``: by --fail-on."""

    run: str
    data: Any
    sentences: list[str]
    table: SectionTable
    updates: str
    shown: tuple[int, int] | None
    fails: bool


def answer(options: AnswerOptions, section: Section) -> None:
    """Answer with the section's figure or rows, and exit by the findings of its rules.

    Several runs are answered one after the other, and one that lacks the data is named and left out. Raises
    ``UsageError`` when no run has the data.
    """
    _ = options.resolved
    options.refuse_contradiction()
    _ = options.custom
    runs = open_runs(options.paths, skip_broken=options.skip_broken).runs
    if len(options.paths) == 1 and runs[0][1].path == options.paths[0]:
        answered = _answered(options, section, *runs[0])
        _write(options, section, answered)
    else:
        answers = _all_answers(options, section, runs)
        _write_all(options, section, answers)
        answered = max(answers, key=lambda one: one.fails)
    if answered.fails:
        raise typer.Exit(FINDINGS)


def _all_answers(options: AnswerOptions, section: Section, runs: Sequence[tuple[str, RecordedRun]]) -> list[RunAnswer]:
    """Return the answers of the runs that have one; why others have none goes to stderr."""
    from esper_analyze.detector.custom import with_custom
    from esper_analyze.detector.thresholds import Thresholds

    options.changed(Thresholds.defaults(with_custom(options.custom)))  # what is wrong is said once, not by each run
    answers = []
    for count, (label, run) in enumerate(runs, start=1):
        try:
            answers.append(_answered(options, section, label, run, f"judging {count} of {len(runs)}"))
        except UsageError as error:
            tell(error)
    if not answers:
        raise UsageError(f"none of these {len(runs)} runs can answer this")
    return answers


def _answered(
    options: AnswerOptions, section: Section, label: str, run: RecordedRun, doing: str = "judging"
) -> RunAnswer:
    """Judge ``run`` and return its answer. Raises ``UsageError`` when it lacks the data."""
    from esper_analyze.reports.render.draw import UPDATES
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    run = options.chosen_rank(run)
    shown, scope = options.shown(run)
    evidence = options.evidence(run, doing)
    with naming_damaged_shard(run):
        evidence = evidence if shown is None else evidence.between(*shown)
        data = section.frame(evidence)
        if data is None:
            of = "" if shown is None else f" for updates {shown[0]:,} to {shown[1]:,}"
            hint = _OTHERS if options.rank else ""
            raise UsageError(f"{run.path} cannot answer this{of}: {section.without}", hint=hint)
        sentences, table = [*scope, *section.words(data)], section.table(data)
    findings = (one for one in evidence.replay.findings if not section.rules or one.rule in section.rules)
    label_of_updates = evidence.moments.axis if shown is None else UPDATES
    return RunAnswer(label, data, sentences, table, label_of_updates, shown, options.fails(run, findings))


def _write(options: AnswerOptions, section: Section, answered: RunAnswer) -> None:
    """Write the complete answer of a single run."""
    from esper_analyze.reports.render.csv import section_csv
    from esper_analyze.reports.render.terminal import print_section
    from esper_analyze.strict_json import strict_json

    form = options.resolved
    if form in (Form.PNG, Form.SVG):
        options.write(_picture(section, [answered], form))
    elif form is Form.JSON:
        options.write(strict_json(_facts(section, answered)))
    elif form is Form.CSV:
        options.write(section_csv(answered.table, safe=options.safe))
    else:
        options.write(lambda: print_section(answered.sentences, answered.table, whole=options.out is not None))


def _write_all(options: AnswerOptions, section: Section, answers: Sequence[RunAnswer]) -> None:
    """Write the answers of several runs, each with its name."""
    from esper_analyze.reports.render.csv import section_csv
    from esper_analyze.reports.render.terminal import print_heading, print_section
    from esper_analyze.strict_json import strict_json

    def print_all() -> None:
        for index, one in enumerate(answers):
            put("\n" if index else "")
            print_heading(one.run)
            print_section(one.sentences, one.table, whole=options.out is not None)

    form = options.resolved
    if form in (Form.PNG, Form.SVG):
        options.write(_picture(section, answers, form, headed=True))
    elif form is Form.JSON:
        options.write(strict_json([{"run": one.run, **_facts(section, one)} for one in answers]))
    elif form is Form.CSV:
        tables = [one.table.labelled("run", one.run) for one in answers]
        options.write(section_csv(*tables, safe=options.safe))
    else:
        options.write(print_all)


def _facts(section: Section, answered: RunAnswer) -> dict[str, object]:
    from esper_analyze.reports.render.json import section_facts

    facts = section_facts(section, answered.sentences, answered.table)
    return facts if answered.shown is None else {"updates": answered.shown, **facts}


def _picture(section: Section, answers: Sequence[RunAnswer], form: Form, *, headed: bool = False) -> bytes:
    from esper_analyze.reports.render.figure import DrawnData, joint_picture
    from esper_analyze.terminal import cleaned

    parts = [DrawnData(one.data, one.updates, one.shown, cleaned(one.run, 90) if headed else "") for one in answers]
    return joint_picture(section, parts, form)
