"""Training: the place where data, engines, labelers and policies are joined."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setsail.training.config import SailConfig
    from setsail.training.trainer import SailTrainer

__all__ = ["SailConfig", "SailTrainer"]


def __getattr__(name: str) -> Any:
    """Load the trainer, and transformers with it, when it is asked for."""
    if name == "SailConfig":
        from setsail.training.config import SailConfig

        return SailConfig
    if name == "SailTrainer":
        from setsail.training.trainer import SailTrainer

        return SailTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
