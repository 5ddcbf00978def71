"""Pruning in rounds: how training time and progress are shared among them."""

from __future__ import annotations

from dataclasses import replace

from compress.steps import Context

SEEDS_APART = 7919


def round_of(context: Context, number: int, rounds: int) -> Context:
    """Return the context of one round: its stretch of the progress, and a seed that no other round has.

    The only round of a step is the step itself.
    """
    if rounds == 1:
        return context

    def update(share: float, words: str = "") -> None:
        context.update((number + share) / rounds, f"round {number + 1} of {rounds}, {words}")

    seed = context.recipe.seed + SEEDS_APART * number
    return replace(context, recipe=context.recipe.model_copy(update={"seed": seed}), update=update)


def epochs_per_round(epochs: int, rounds: int) -> tuple[int, ...]:
    """Return how many epochs each round trains.

    The last round, whose network is kept, gets what is left over when each of the others has had
    epochs / (rounds + 1), rounded down but one at least: about twice their share where there are epochs
    enough. With fewer epochs than rounds the latest rounds get one each.
    """
    if epochs < rounds:
        return (0,) * (rounds - epochs) + (1,) * epochs
    each = max(1, epochs // (rounds + 1))
    return (*((each,) * (rounds - 1)), epochs - each * (rounds - 1))
