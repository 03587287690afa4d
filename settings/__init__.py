"""What a user can set, from one file and the environment, checked before anything runs.

    loading.py             load(): everything, or one refusal that tells all problems
    suite.py               Suite: all settings, and the policies that follow from them
    tables.py              [tables.NAME]
    milvaion.py            [milvaion]
    maintenance_config.py  Milvaion's own MaintenanceConfig
    policy_settings.py     the keys every policy has
    sources.py, layers.py  file and environment, one laid over the other; files.py reads one
    problems.py            what is wrong, in our words
    section.py, shape.py   what all sections share; which keys are accepted where
    durations.py, values.py, addresses.py, connection_strings.py   single values

Environment wins over the file. A password is shown by nothing but `StoreUrl.reveal()`.
"""

from settings.addresses import StoreUrl
from settings.loading import load
from settings.suite import OPERATIONS, Suite

__all__ = ["OPERATIONS", "StoreUrl", "Suite", "load"]
