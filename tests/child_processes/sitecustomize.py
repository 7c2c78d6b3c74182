"""Python imports this first in the child processes of tests: warnings that users would see are errors.

pytest's filters, in pyproject.toml, hold in its own process only. The ignored ones are the same as there. Nothing is
set where PYTHONWARNINGS is, as in the matrix's environment of the lowest versions.
"""

import sys
import warnings

if not sys.warnoptions:
    warnings.filterwarnings("error", category=FutureWarning)
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    for category in (DeprecationWarning, PendingDeprecationWarning):
        warnings.filterwarnings("error", category=category, module=r"red_lightning(\.|$)")
