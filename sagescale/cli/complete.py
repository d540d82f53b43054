"""What <TAB> offers where a name is wanted; files are completed by the shell."""

from __future__ import annotations


def traces(incomplete: str) -> list[str]:
    """Names of shipped traces."""
    from sagescale.files import shipped

    return _begin(incomplete, sorted(path.stem for path in shipped("traces").glob("*.csv")))


def profiles(incomplete: str) -> list[str]:
    """Names of shipped profiles."""
    from sagescale.files import shipped

    return _begin(incomplete, sorted(path.stem for path in shipped("profiles").glob("*.yaml")))


def predictors(incomplete: str) -> list[str]:
    """Names of predictors, installed packages' included."""
    from sagescale.planner.forecast import predictor_names

    return _begin(incomplete, predictor_names())


def policies(incomplete: str) -> list[str]:
    """Names of sizing policies."""
    from sagescale.planner.policy import policy_names

    return _begin(incomplete, policy_names())


def keys(incomplete: str) -> list[str]:
    """Configuration keys, as ``KEY=``."""
    from sagescale.declare import declared
    from sagescale.live.config import configuration_classes

    found = [name for cls in configuration_classes() for name in declared(cls)]
    return _begin(incomplete, [f"{name}=" for name in found])


def _begin(incomplete: str, names: list[str] | tuple[str, ...]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
