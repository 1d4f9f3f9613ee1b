"""The command line's flags and its help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from raysearch import __version__
from raysearch.errors import RaysearchError, near
from raysearch.experiment._compose import choices

DESCRIPTION = """\
Learns a data-augmentation policy for labelled images, proves what it is worth, and writes
it to a file that drops into a training pipeline.

A run searches a policy, trains a network from scratch with it and with the usual baselines,
on several seeds, and compares them on the test set.
Everything it finds is in runs/<name>/, report.html first; MLflow has the same figures.
"""

EXAMPLES = """\
examples:
  raysearch                                                embedded data, CPU, about a minute
  raysearch data=folder data.root=./photos                 your own images: photos/<class>/*
  raysearch data=parquet data.root=./set                   set/train.parquet, set/test.parquet
  raysearch method=bilevel                                 another search method
  raysearch method=dada data=cifar10 model=wrn28x10 --num-gpus 8
  raysearch data=cifar10 seeds=4 search.gpus_per_trial=0.25    four searches share a GPU
  raysearch search.epochs=5 evaluation.epochs=10 evaluation.seeds=2    a quick look
  raysearch --dry-run data=cifar10                         what it would do and cost
  raysearch --resume NAME                                  continue a run that was stopped

Text is taken as it is typed, whatever it looks like (the shell wants quotes around spaces and the
like: 'data.root=photos (1)'); ~ is the home directory. In a list, [a,b], quotes of its own enclose
what has a comma in it. A relative path goes on from where the run began, when it is resumed too.

settings that are often changed (KEY=VALUE, as many as you like; --dry-run prints all):
  method=NAME data=NAME model=NAME      choices below; model=auto suits the images and the machine
  metric=NAME task=NAME                 error, balanced_error, auroc; with task=multi_label map
  data.root=DIR data.limit=N            where the images are; use N of them
  seeds=N evaluation.seeds=N            searches; trainings per policy (or lists: [3,4,5])
  search.epochs=N evaluation.epochs=N   length of a search and of a training
  method.updates=N finetune.epochs=N finetune.parallel=N    of method=aws: updates of the policy,
                                        length of a trial, trials per update (8)
  method.population=N method.interval=N of method=pba: members, epochs until they copy each other
  method.shared_checkpoint=runs/NAME    of method=aws: begin with that run's shared checkpoint
  method.trials=N method.parallel=N     of validated_magnitude and randaugment: trainings in all,
                                        trainings between two proposals (2)
  method.n=2 method.m=9                 of method=randaugment: nothing is searched
  evaluation.enlarge_batch=2            each image twice in its batch, augmented anew
  evaluation.policies=[none,learned]    of none, predefined, cutout, trivial_augment, entaugment,
                                        sra, randaugment, affine_colour_0.1 (_0.2, _0.3),
                                        autoaugment_cifar10 (_imagenet, _svhn), uniform, learned,
                                        or a policy file
  name=NAME runs_dir=DIR                where the run goes
  storage=DIR_OR_URL                    where its results are copied at its end (s3://bucket/runs)
  tracking=none tracking.uri=URL        without MLflow; to an MLflow server

"""


COMPARE_DESCRIPTION = """\
Runs several methods together and puts them on one page: test errors with paired confidence
intervals, what each search cost and how many plain trainings that would have bought, cost against
error with the Pareto front, and the policies side by side.

All methods are in runs/<name>/, judged on the same seeds. With as many search seeds as evaluation
seeds, every evaluation has a search of its own, so that the interval is about the method; the
policy that is handed over, merged from all searches, has a row of its own. What is there already is
not computed again: add a method to methods=[...] later and only it is run. A comparison that was
stopped or killed is continued by the same command.
"""

COMPARE_EXAMPLES = """\
examples (... is python -m raysearch.compare):
  ... methods=[none,trivial_augment,dada,ddas]            embedded data, CPU, some minutes
  ... methods=[none,dada,aws] data=folder data.root=./photos name=photos
  ... methods=[none,dada] seeds=5 evaluation.seeds=5      a search for every evaluation
  ... methods=[none,dada,aws] aws.method.updates=20       a setting of one method
  ... methods=[none,dada,ddas,bilevel] data=cifar10 search.gpus_per_trial=0.5 --num-gpus 8
  ... runs=[runs/a,runs/b]                                runs that there are
  ... experiment=photos tracking.uri=http://host:5000     the runs of an MLflow experiment
  ... --dry-run methods=[none,dada]                       what it would do and cost

settings, beside those of a run (python -m raysearch.run --help):
  methods=[NAME,...]        of the choices below; baselines too, like none and trivial_augment
  NAME.KEY=VALUE            a setting of the method NAME alone
  runs=[DIR,...]            folders of finished runs or comparisons, to compare (with)
  experiment=NAME           all finished runs of an MLflow experiment, likewise
  name=NAME runs_dir=DIR    where the comparison goes (compare-<data>)
  tracking.experiment=NAME  MLflow experiment of its runs (the comparison's name)

"""


# Of each program: how it is called, what it does, and examples.
RUN = (
    "raysearch [KEY=VALUE ...] [options]      (or: python -m raysearch.run)",
    DESCRIPTION,
    EXAMPLES,
)
COMPARE = (
    "python -m raysearch.compare methods=[NAME,...] [KEY=VALUE ...] [options]",
    COMPARE_DESCRIPTION,
    COMPARE_EXAMPLES,
)


@dataclass(frozen=True)
class Arguments:
    """What was typed."""

    overrides: list[str]
    num_gpus: int | None
    num_cpus: int | None
    address: str | None
    dry_run: bool
    resume: str | None
    quiet: bool
    debug: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RaysearchError(f"{message} (--help explains)")


def parse(arguments: Sequence[str] | None, compare: bool = False) -> Arguments:
    """Read the command line; `--help` and `--version` print and exit.

    Args:
        arguments: words; None is those of this process.
        compare: whether they are those of `raysearch.compare`.

    Raises:
        RaysearchError: a flag that is not known, or a value that it does not take.
    """
    parser = _parser(compare)
    known, rest = parser.parse_known_args(arguments)
    for word in rest:
        if word.startswith("-"):
            raise _unknown_flag(word, parser)
    return Arguments(**{"resume": None, **vars(known), "overrides": [*known.overrides, *rest]})


def _parser(compare: bool) -> argparse.ArgumentParser:
    usage, description, examples = COMPARE if compare else RUN
    parser = _Parser(
        prog="raysearch",
        usage=usage,
        description=description,
        epilog=examples + _choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, see below")
    parser.add_argument(
        "--num-gpus",
        type=_whole,
        metavar="N",
        help="GPUs to use (default: all); 0 stays on the CPU. With device=cpu they are only "
        "counted, to try out how trials are packed",
    )
    parser.add_argument(
        "--num-cpus", type=_whole, metavar="N", help="CPU cores to use (default: all)"
    )
    parser.add_argument(
        "--address", metavar="ADDR", help="a running Ray cluster (HOST:PORT, or auto)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print settings, trials and cost; start nothing"
    )
    if not compare:
        resume = "continue a run: its name or its folder"
        parser.add_argument("--resume", metavar="RUN", help=resume)
    parser.add_argument("--quiet", action="store_true", help="print the result and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"raysearch {__version__}")
    return parser


def _choices() -> str:
    lines = [f"  {group:<8}{', '.join(choices(group))}" for group in ("method", "data", "model")]
    hint = "          model also takes the name of any torchvision classifier"
    return "choices:\n" + "\n".join([*lines, hint]) + "\n"


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def _unknown_flag(word: str, parser: argparse.ArgumentParser) -> RaysearchError:
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    hint = near(word.partition("=")[0], flags)
    return RaysearchError(f"unknown option {word}{hint} (--help lists them)")
