"""Whole corpora: the same work for every file, by many processes, in many parts, gone on with after any end.

    items      one input file with its outputs, and the picklable task that every worker runs on each, or on a few
    manifest   the list of what is done, one line of JSON a file; what an earlier run left half-written
    pool       workers on this machine
    cluster    workers by Ray Data, on this machine or many
    corpus     what is left to do, longest first, over one of the two, in batches of one length if wanted, with retries

A worker loads the model once. Nothing here knows what is done to a file: the command line hands the task over.
"""

from fromnoise.batch.corpus import Outcome, buckets, run
from fromnoise.batch.items import Item, Task
from fromnoise.batch.manifest import Manifest

__all__ = ["Item", "Manifest", "Outcome", "Task", "buckets", "run"]
