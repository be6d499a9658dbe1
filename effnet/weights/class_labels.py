"""What outputs mean if the file does not say: the classes of ImageNet, or two classes for a single output."""

from dataclasses import replace

import torch

from effnet.data import class_names
from effnet.metadata import Labels
from effnet.weights import conversion

_CLASSIFIER = "classifier.weight", "classifier.bias"  # ours: (outputs, head channels), (outputs,)


def complete_labels(
    tensors: conversion.Tensors, stated: Labels, task: str | None = None
) -> tuple[conversion.Tensors, Labels, tuple[str, ...]]:
    """Return tensors, labels and notes for the user, with what a network's number of outputs says about their meaning.

    - 1000 outputs without names are ImageNet's classes, 1001 those after "background";
    - one output, unless it is a value (or a label by ``task``), is the log-odds of the second of two classes, as
      trained with a sigmoid. It becomes two outputs, the first of them always 0: their softmax is that sigmoid.

    Args:
        tensors: the network's, under our names.
        stated: names and task that its file states.
        task: given by the caller, instead of the file's.

    Example:
        >>> tensors, labels, _ = complete_labels(tensors, Labels(("cat", "dog")))  # one output
        >>> tensors["classifier.bias"]
        tensor([0.0000, 0.3712])
    """
    stated = stated if task is None else replace(stated, task=task)
    weight = tensors.get(_CLASSIFIER[0])
    outputs = 0 if weight is None else len(weight)
    if outputs == 1 and stated.task != "regression" and task != "multilabel":
        two = {name: torch.cat([torch.zeros_like(tensors[name]), tensors[name]]) for name in _CLASSIFIER}
        names = stated.names if len(stated.names) != 1 else (f"not {stated.names[0]}", stated.names[0])
        hint = "" if names else "; name both, one per line, with --labels FILE"
        note = f"its one output is taken for a sigmoid's logit, and the network for one of two classes{hint}"
        note += "; if it is a value, pass --task regression"
        return {**tensors, **two}, Labels(names), (note,)
    is_imagenet = outputs in (class_names.IMAGENET_CLASSES, class_names.IMAGENET_CLASSES + 1)
    if is_imagenet and not stated.names and stated.task == "classification":
        note = f"its {outputs:,} classes are taken for ImageNet's; others are named with --labels FILE"
        return tensors, class_names.imagenet_labels(outputs), (note,)
    return tensors, stated, ()
