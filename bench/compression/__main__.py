"""`python -m bench.compression --data DIR --out OUT`: make the families, time them, write the page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from bench.compression import page
from bench.compression.evidence import Prediction, Seed, compare, read_seed
from bench.compression.goals import answer, goals
from bench.compression.timing import TEXTS_PER_ROUND, time_family
from compress.datasets.data import DATA, read_dataset
from compress.pipeline import dry_run
from contract.family import Family, read_family
from contract.files import write_text

RECIPE = Path(__file__).with_name("clinc150.yaml")


def main() -> None:
    """Make what is missing, measure all, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three CSV files")
    parser.add_argument("--out", type=Path, required=True, help="folder for one family per seed")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--together", type=int, default=2, help="families trained at a time, one thread each")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/compression.md"))
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    with ThreadPoolExecutor(given.together) as pool:
        list(pool.map(lambda seed: _make(seed, given.data, given.out), seeds))
    found = [_read(seed, given.out, given.data, given.rounds) for seed in seeds]
    write_text(given.page, _page(found, given.rounds, given.together) + "\n")
    print(f"written {given.page}")


def _make(seed: int, data: Path, out: Path) -> None:
    """Run the recipe with one seed, in a process of its own; what is done already is not done again."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | {"seed": seed}
    path = out / f"seed-{seed}.yaml"
    write_text(path, yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "sluicegate.main", "compress", str(path)]
    command += ["--out", str(out / f"seed-{seed}"), "--data", str(data)]
    log = out / f"seed-{seed}.log"
    with log.open("a", encoding="utf-8") as stream:
        code = subprocess.run(
            [*command, "--data", data], stdout=stream, stderr=stream, check=False
        ).returncode
    if code not in {0, 3}:
        raise SystemExit(f"seed {seed}: sluice compress ended with {code}; see {log}")


def _read(seed: int, out: Path, data: Path, rounds: int) -> Seed:
    folder = out / f"seed-{seed}"
    family = read_family(folder)
    texts = read_dataset(folder / DATA).of("test").texts
    planned = dry_run(out / f"seed-{seed}.yaml", folder, data_folder=data)
    results = {item.step.name: item.finished.result for item in planned if item.finished is not None}
    predictions = {
        f"{step.name}-int8": Prediction(
            whole=f"{step.inputs['origin']}-int8",
            p50_ms=results[step.name]["latency_ms"],
            whole_p50_ms=results[step.inputs["table"]]["latency_ms"],
        )
        for step in (item.step for item in planned)
        if step.kind == "latency"
    }
    timings = time_family(folder, family, texts, rounds=rounds, seed=seed)
    return read_seed(seed, folder, family, timings, predictions)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _page(seeds: Sequence[Seed], rounds: int, together: int) -> str:
    family: Family = seeds[0].family
    machine = family.machine
    lines = [compare(seeds, name, family.teacher) for name in family.names]
    held = goals(family.teacher, "teacher-int8", "pruned", "small")
    seconds = sum(step.seconds for seed in seeds for step in seed.family.steps)
    return "\n\n".join(
        [
            page.INTRODUCTION.format(
                count=len(seeds),
                seeds=", ".join(str(seed.seed) for seed in seeds),
                train=family.splits["train"].n,
                validation=sum(family.splits[name].n for name in ("validation", "tune", "certify")),
                test=family.splits["test"].n,
                cpu="unknown processor" if machine is None else f"{machine.cpu}, {machine.cores:g} cores",
                threads=1,
                rounds=rounds,
                texts=TEXTS_PER_ROUND,
                wall=_duration(seconds / together),
                together=together,
                steps=_duration(seconds),
            ),
            page.goals_table([answer(goal, seeds) for goal in held]),
            page.variants_table(lines),
            page.table_table(seeds),
            page.ablation_table(page.CONTRASTS, seeds),
            page.PUBLISHED,
        ]
    )


if __name__ == "__main__":
    main()
