"""Post-training of language models on verifiable numeric reasoning, as a DVC pipeline."""

import gc
import sys
from pathlib import Path

# A stage imports for seconds what it keeps to its end, and a third of that would go into looking for garbage in it.
# `core.stage.run` turns the collector on again.
if Path(sys.argv[0]).parent.name == "stages":
    gc.disable()
