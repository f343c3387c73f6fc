"""What the report's figures mean."""

from __future__ import annotations

TERMS = (
    "Success: share of evaluation episodes with success at any step; 0 to 1.",
    "IQM: interquartile mean, the mean of the middle half of all seeds × tasks. Neither the best nor the worst quarter "
    "moves it.",
    "Interval: 95%, by bootstrap: as many runs as there are, drawn with replacement 2,000 times, each with all its "
    "tasks, for they share a network.",
    "Probability of improvement: that a run of this method beats one of the baseline on a task drawn at random. Ties "
    "count half, so 0.5 is no difference.",
    "Better, worse: where that interval leaves out 0.5, for each method apart. Of twenty methods that are no "
    "different, one seems to be.",
    "Seeds needed: per method, for a two-sided t-test at 5% of the means over tasks to find a difference of the size "
    "seen in 80% of experiments. From few seeds it is a rough guide.",
    "Worst three tasks: mean success of the method's own three worst.",
    "Area under curve: mean height of the learning curve over transitions.",
    "Performance profile: the share of seeds × tasks that reach a success of at least so much. Higher is better.",
    "Training time: environments, updates and transference; without evaluation, logging and checkpoints.",
    "Transference: what a step along one task's gradient does to another task's loss. Blue helps, red harms.",
)
