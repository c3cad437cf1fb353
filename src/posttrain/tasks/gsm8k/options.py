"""The options of this task in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Literal

from posttrain.core.schema import Section

Annotations = Literal["keep", "strip", "execute"]


class Options(Section):
    """annotations: the treatment of calculator annotations such as <<48/2=24>>; see `reading`."""

    annotations: Annotations
