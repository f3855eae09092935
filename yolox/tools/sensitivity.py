"""How much each layer costs when it alone is pruned, and the ratios that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.sensitivity import SensitivityOutcome, SensitivitySettings, analyse
from yolox.tools import cli
from yolox.tools.flags.sensitivity import make_parser
from yolox.tools.words import command_line
from yolox.utils.download import resolve_weights


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure what is not known yet, print."""
    args = make_parser().parse_args(argv)
    exp = cli.load_exp(args)
    source = resolve_weights(args.ckpt or exp.output_folder() / "best_ckpt.pth")
    settings = SensitivitySettings(
        ratios=tuple(args.ratios),
        layers=tuple(args.layers),
        metric=args.metric,
        importance=args.importance,
        images=args.images,
        tolerance=args.tolerance,
        device=args.device,
    )
    tell_idle(exp, idle_without_training(exp, evaluates=args.metric == "ap"))
    folder = args.output or exp.output_folder() / "sensitivity"
    with cli.telling_whose_data(args, exp):
        outcome = analyse(source, exp, folder, settings)
    show(outcome, (*cli.recipe_words(args), *args.opts))


def show(outcome: SensitivityOutcome, recipe: Sequence[str]) -> None:
    """Print the table, and say what was written and what to do with it.

    Args:
        outcome: what the analysis found.
        recipe: words that name the Exp and set its fields.
    """
    cli.console().print(outcome.result.table(outcome.suggested))
    logger.info(f"picture in {outcome.picture}")
    if not outcome.ratios:
        logger.warning(
            f"every layer costs more than {outcome.tolerance:.4f} at its smallest ratio: no "
            f"{outcome.output}; measure smaller --ratios, or allow a larger --tolerance"
        )
        return
    logger.info(
        f"{len(outcome.ratios)} layers cost at most {outcome.tolerance:.4f} of "
        f"{outcome.result.metric}, each alone; all together cost more than each does, so measure "
        "the result:"
    )
    words: list[object] = ["-c", outcome.source, "--layer-sparsity", outcome.output]
    words += ["--importance", outcome.importance, "--eval", *recipe]
    logger.info(command_line("prunmodel", *words))


if __name__ == "__main__":
    cli.entry(main, make_parser)
