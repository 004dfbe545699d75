"""Runs one plan: makes a simulation, plays a scenario in it under the guard, and returns the outcome.

A run shares nothing with the next one: logging, the event loop and the garbage collector are set up for it and put back
afterwards. Collections within a run would depend on what ran before, so there are none.
"""

import asyncio
import contextlib
import functools
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from simulations import evictions, phases
from simulations.cheap_hashes import cheap_hashes
from simulations.guard import guarded
from simulations.plan import Outcome, Plan
from simulations.process import ProcessDied
from simulations.simulation import Simulation
from simulations.small_limits import small_limits

Scenario = Callable[[Simulation], Awaitable[None]]
"""A coroutine function that is played in a simulation, such as `phases.play`."""


def run(plan: Plan, scenario: Scenario = phases.play, on_event: Callable[[str], None] | None = None) -> Outcome:
    """Play a scenario in a new simulation of a plan: by default all phases of a run. `on_event` gets every event."""
    logging.disable()  # coroutines of killed instances are ended here, and what they say of that means nothing
    gc.collect()
    logging.disable(logging.NOTSET)
    _set_aside()
    gc.disable()  # when it runs is no function of the seed
    simulation = Simulation(plan)
    if on_event is not None:
        simulation.cluster.on_event = on_event
    loop = simulation.cluster.loop
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _, context: _unhandled(simulation, context))
    try:
        with contextlib.ExitStack() as stack:
            for setting in (
                simulation.log_events.received(),
                guarded(),
                small_limits("small" in plan.conditions),
                evictions.eager("evict" in plan.conditions),
                cheap_hashes(),
            ):
                stack.enter_context(setting)
            try:
                loop.run_until_complete(scenario(simulation))
            except Exception as error:  # the other seeds go on
                simulation.violations.report(f"the simulation itself broke: {error!r}")
        return simulation.outcome()
    finally:
        loop.set_exception_handler(lambda _, context: None)
        simulation.cluster.close()
        asyncio.set_event_loop(None)
        gc.enable()


@functools.cache
def _set_aside() -> None:
    """Spare the collector what was there before the first run. Nothing later: what is left of a cluster then, waiting
    for its finalizer, would never go."""
    gc.freeze()


def _unhandled(simulation: Simulation, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, ProcessDied):
        simulation.violations.report(f"an unhandled exception: {error!r}")
