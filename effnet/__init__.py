"""The EfficientNet family as a finished tool. Nothing heavy is imported before it is used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.arch import ARCHS, Arch, Count, Layer, Stage, count, fit, layers, rounding, scale
    from effnet.doctor import Diagnosis, diagnose
    from effnet.evaluation import Evaluation, evaluate
    from effnet.explanation import Explanation, explain
    from effnet.exporting.export import export
    from effnet.exporting.quantize import quantize
    from effnet.metadata import Labels, Numerics, Preprocess, Provenance
    from effnet.net import EfficientNet, FusedMBConv, MBConv, SqueezeExcite, create
    from effnet.prediction import Prediction, Predictor
    from effnet.prediction.ensemble import Ensemble
    from effnet.runtime.autotune import engine
    from effnet.runtime.latency import latency
    from effnet.training.callbacks import Callback
    from effnet.training.config import Resources, TrainConfig
    from effnet.training.cross_validation import train_folds
    from effnet.training.recipes import Recipe
    from effnet.training.train import train
    from effnet.weights import convert, load, save

    __version__: str

_NAMES_OF = {
    "effnet.arch": ("ARCHS", "Arch", "Count", "Layer", "Stage", "count", "fit", "layers", "rounding", "scale"),
    "effnet.metadata": ("Labels", "Numerics", "Preprocess", "Provenance"),
    "effnet.doctor": ("Diagnosis", "diagnose"),
    "effnet.evaluation": ("Evaluation", "evaluate"),
    "effnet.explanation": ("Explanation", "explain"),
    "effnet.runtime.autotune": ("engine",),
    "effnet.exporting.export": ("export",),
    "effnet.exporting.quantize": ("quantize",),
    "effnet.net": ("EfficientNet", "FusedMBConv", "MBConv", "SqueezeExcite", "create"),
    "effnet.prediction": ("Prediction", "Predictor"),
    "effnet.prediction.ensemble": ("Ensemble",),
    "effnet.runtime.latency": ("latency",),
    "effnet.training.cross_validation": ("train_folds",),
    "effnet.training.recipes": ("Recipe",),
    "effnet.training.callbacks": ("Callback",),
    "effnet.training.config": ("Resources", "TrainConfig"),
    "effnet.training.train": ("train",),
    "effnet.weights": ("convert", "load", "save"),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = ["ARCHS", "Arch", "Callback", "Count", "Diagnosis", "EfficientNet", "Ensemble", "Evaluation"]
__all__ += ["Explanation", "FusedMBConv", "Labels", "Layer", "MBConv", "Numerics", "Prediction", "Predictor"]
__all__ += ["Preprocess", "Provenance", "Recipe", "Resources", "SqueezeExcite", "Stage", "TrainConfig", "convert"]
__all__ += ["count", "create", "diagnose", "engine", "evaluate", "explain", "export", "fit", "latency", "layers"]
__all__ += ["load", "quantize", "rounding", "save", "scale", "train", "train_folds"]


if not TYPE_CHECKING:  # a type checker must notice a name that does not exist

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            found = version("effnet")
        elif name in _MODULE_OF:
            from importlib import import_module

            found = getattr(import_module(_MODULE_OF[name]), name)
        else:
            from difflib import get_close_matches

            close = get_close_matches(name, __all__, n=1)
            hint = f"; did you mean effnet.{close[0]}?" if close else ""
            raise AttributeError(f"effnet has no {name!r}{hint}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
