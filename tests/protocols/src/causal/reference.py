"""PCMCI+ of tigramite on the same data: reads {"sets": [{"lags", "alpha", "columns"}]} from the
file named by the first argument, writes {"version", "sets": [{"seconds", "links"}]} to stdout.
Links are [from, to, lag, mark], each end of one within a step."""

import json
import sys
import time
import warnings

import numpy
import tigramite
from tigramite import data_processing
from tigramite.independence_tests.parcorr import ParCorr
from tigramite.pcmci import PCMCI

warnings.filterwarnings("ignore")


def search(one):
    data = numpy.array(one["columns"], dtype=float).T
    begun = time.process_time()
    frame = data_processing.DataFrame(data)
    pcmci = PCMCI(dataframe=frame, cond_ind_test=ParCorr(significance="analytic"), verbosity=0)
    found = pcmci.run_pcmciplus(tau_min=0, tau_max=one["lags"], pc_alpha=one["alpha"])
    seconds = time.process_time() - begun
    graph = found["graph"]
    links = [[int(i), int(j), int(t), str(graph[i, j, t])] for i, j, t in zip(*numpy.where(graph != ""))]
    return {"seconds": seconds, "links": links}


with open(sys.argv[1]) as file:
    sets = json.load(file)["sets"]
search(sets[0])  # warms up
try:
    from importlib.metadata import version

    told = version("tigramite")
except Exception:
    told = "?"
json.dump({"version": told, "sets": [search(one) for one in sets]}, sys.stdout)
