"""Scores of sound: metrics by name, their statistics, and a report to read and listen to.

`measure` judges one file, `run.evaluate` runs models over a folder of pairs (vocoders by `resynthesis`),
`sets.evaluate_sets` judges generators by a classifier, `report.write_report` writes the tables and the page. The
packages behind the metrics are imported on first use; without one of them its metrics are NaN with a reason.
"""

from fromnoise.evaluation.speech import DEFAULT_METRICS, METRICS, Metric, Scores, measure
from fromnoise.evaluation.statistics import Summary, paired_difference, summarise

__all__ = ["DEFAULT_METRICS", "METRICS", "Metric", "Scores", "Summary", "measure", "paired_difference", "summarise"]
