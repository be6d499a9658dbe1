"""The EfficientNet family as a finished tool. Nothing heavy is imported before it is used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.arch import ARCHS as ARCHS
    from effnet.arch import Arch as Arch
    from effnet.arch import Count as Count
    from effnet.arch import Layer as Layer
    from effnet.arch import Stage as Stage
    from effnet.arch import count as count
    from effnet.arch import fit as fit
    from effnet.arch import layers as layers
    from effnet.arch import rounding as rounding
    from effnet.arch import scale as scale
    from effnet.doctor import Diagnosis as Diagnosis
    from effnet.doctor import diagnose as diagnose
    from effnet.evaluation import Evaluation as Evaluation
    from effnet.evaluation import evaluate as evaluate
    from effnet.explanation import Explanation as Explanation
    from effnet.explanation import explain as explain
    from effnet.exporting.export import export as export
    from effnet.exporting.quantize import quantize as quantize
    from effnet.metadata import Labels as Labels
    from effnet.metadata import Numerics as Numerics
    from effnet.metadata import Preprocess as Preprocess
    from effnet.metadata import Provenance as Provenance
    from effnet.net import EfficientNet as EfficientNet
    from effnet.net import FusedMBConv as FusedMBConv
    from effnet.net import MBConv as MBConv
    from effnet.net import SqueezeExcite as SqueezeExcite
    from effnet.net import create as create
    from effnet.prediction import Prediction as Prediction
    from effnet.prediction import Predictor as Predictor
    from effnet.prediction.ensemble import Ensemble as Ensemble
    from effnet.runtime.autotune import engine as engine
    from effnet.runtime.latency import latency as latency
    from effnet.training.callbacks import Callback as Callback
    from effnet.training.config import Resources as Resources
    from effnet.training.config import TrainConfig as TrainConfig
    from effnet.training.cross_validation import train_folds as train_folds
    from effnet.training.recipes import Recipe as Recipe
    from effnet.training.train import train as train
    from effnet.weights import convert as convert
    from effnet.weights import load as load
    from effnet.weights import save as save

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

__all__ = sorted(_MODULE_OF)


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
