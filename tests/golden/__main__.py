"""Store what is read out of the golden runs now: look at the difference before committing it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from esper_analyze.schema import VERSIONS
from esper_analyze.strict_json import strict_json
from tests.golden.facts import EXPECTED, GOLDEN, found

for version in VERSIONS:
    with tempfile.TemporaryDirectory() as scratch:
        (GOLDEN / version.number / EXPECTED).write_text(strict_json(found(version.number, Path(scratch))))
