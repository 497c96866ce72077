"""What a search does at which step: its phases, its learning rate, its decision points."""

from __future__ import annotations

from dataclasses import dataclass

from .distributed import World
from .optimisation import learning_rate
from .search_recipe import SearchRecipe


@dataclass(frozen=True)
class Phase:
    """Steps that are made in one way.

    Attributes:
        recipe: whose batch, augmentation, learning rate and schedule hold in it.
        first, steps: number of its first step, and how many it has.
        taken: pictures that the weights have learnt from before it.
    """

    recipe: SearchRecipe
    first: int
    steps: int
    taken: int = 0


@dataclass(frozen=True)
class SearchSchedule:
    """A search for a training split of some number of pictures.

    Attributes:
        phases: one; two where the recipe has a table `pretraining`, unless the search ends within it.
        warmup: the step with which the architecture starts to learn.
        decisions: after how many steps there are decision points.
    """

    phases: tuple[Phase, ...]
    warmup: int
    decisions: tuple[int, ...]

    @classmethod
    def of(cls, recipe: SearchRecipe, pictures: int) -> SearchSchedule:
        """That of a recipe, for a training split of so many pictures."""
        steps, warmup = recipe.length(pictures), recipe.warmup(pictures)
        decisions = recipe.decision_steps(pictures)
        if recipe.pretraining is None:
            return cls((Phase(recipe, 0, steps),), warmup, decisions)
        early = recipe.in_pretraining()
        phases = [Phase(early, 0, min(warmup, steps))]
        if steps > warmup:
            phases.append(Phase(recipe, warmup, steps - warmup, warmup * early.batch))
        return cls(tuple(phases), warmup, decisions)

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def changes(self) -> tuple[int, ...]:
        """After how many steps another phase begins."""
        return tuple(phase.first for phase in self.phases[1:])

    def phase(self, step: int) -> Phase:
        """That a step belongs to, the first step being 0."""
        return next(phase for phase in reversed(self.phases) if phase.first <= step)

    def stop(self, step: int) -> int:
        """The nearest number of steps, above `step`, after which there is something to do, or after which steps are
        made in another way."""
        ends = {*self.decisions, min(self.warmup, self.steps)}
        return min(end for end in ends if end > step)

    def rate(self, step: int) -> float:
        """The learning rate of the weights in a step, by the schedule of its phase, counted from that one's start."""
        phase = self.phase(step)
        return learning_rate(phase.recipe.weights, step - phase.first, phase.steps)


def check_batches(recipe: SearchRecipe, world: World) -> None:
    """Raise `UsageError` unless the batches of all phases can be shared out evenly."""
    world.check_batch(recipe.batch)
    if recipe.pretraining is not None:
        world.check_batch(recipe.in_pretraining().batch, where="pretraining.batch")
