"""Record the golden run of today's version again: ``python -m tests.golden.record``, then ``python -m tests.golden``.

For a version that is not released yet: its columns still change. A small model grows in update 3 and loses a head in 6.
"""

from __future__ import annotations

import shutil

from esper_analyze.schema import VERSION
from sample_runs.make import name_no_machine
from tests.golden.facts import GOLDEN
from tests.recorder.test_changing_model import ChangingTraining, grow, remove_head

folder = GOLDEN / VERSION
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
training = ChangingTraining(folder / "run", name="changing_model")
for change in (None, None, None, grow, None, None, remove_head, None):
    training.update({} if change is None else {"before": change})
assert training.rec is not None
training.rec.close()
name_no_machine(folder / "run")
