"""`make fuzz`: looks for inputs without the properties, guided by which code each input reaches.

Each target runs in a process of its own. What it has learnt stays in ``.fuzz``, and so does an
input that fails: ``python -m fuzz.target TARGET FILE`` tries it once more.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

TARGETS = ("arguments", "infotexts", "tags", "sweep_options", "files", "written_pictures")
FOLDER = Path(".fuzz")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=0, help="for each target; 0 is no limit")
    parser.add_argument("--seed", type=int, default=0, help="0 is another each time")
    asked = parser.parse_args()
    total = 0
    for target in asked.targets or TARGETS:
        begin = time.monotonic()
        run = subprocess.Popen(
            [
                *(sys.executable, "-m", "fuzz.target", target, f"-runs={asked.runs}"),
                *(f"-max_total_time={asked.seconds}", f"-seed={asked.seed}"),
                # An input of so many seconds or megabytes is a fault.
                *("-timeout=60", "-rss_limit_mb=1024", "-max_len=1024", "-print_final_stats=1"),
                f"-artifact_prefix={FOLDER / target}-",
            ],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(line)
            if not re.match(r"#\d+\t(NEW|REDUCE|pulse)|INFO", line):
                sys.stderr.write(line)
        made = re.findall(r"stat::number_of_executed_units: (\d+)", "".join(lines))
        if run.wait() or not made:
            sys.exit(f"{target} failed: see above")
        total += int(made[-1])
        print(f"{target}: {made[-1]} inputs in {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{total} inputs, and no fault")


if __name__ == "__main__":
    main()
