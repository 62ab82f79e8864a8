"""The frozen records that flow from stage to stage, a module for each part of the way.

Request -> Checkpoint -> Model -> Captured -> Emission -> Structure, Verdict, Latency -> Artifact -> Report

Nothing here imports a framework. Shapes are tuples of ints, dtypes are NumPy's names ("float32").
"""

from exporter.records.accuracy import *
from exporter.records.artifact import *
from exporter.records.latency import *
from exporter.records.network import *
from exporter.records.report import *
from exporter.records.values import *
from exporter.records.verdict import *
