"""Faults of real processes, one function each. Each strikes targets that it draws, and returns how to undo it, or None
where there was nothing to strike.

fired      what a fault returns
target     carries out a plan's faults, and counts those that fired
processes  kills and stops
links      partitions, one-way cuts, and Redis servers stopped, paused and cut
machines   clocks that are wrong, damaged files
"""
