"""Record a trajectory of TensorFlow's RMSProp for tests/training/test_optim.py. Needs TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

SETTINGS = {"lr": 0.02, "momentum": 0.9, "alpha": 0.9, "eps": 1e-3}
SEED, START = 7, [1.0, -2.0, 0.5, 4.0, -0.1, 0.0]
CURVATURE = [1.0, 0.1, 10.0, 0.01, 3.0, 0.5]


def main() -> None:
    """Write the weights after every 20 of 200 steps."""
    tf.compat.v1.disable_eager_execution()
    weight = tf.compat.v1.get_variable("weight", initializer=tf.constant(START, tf.float32))
    gradient = tf.compat.v1.placeholder(tf.float32, [len(START)])
    optimizer = tf.compat.v1.train.RMSPropOptimizer(
        SETTINGS["lr"], SETTINGS["alpha"], SETTINGS["momentum"], SETTINGS["eps"]
    )
    step = optimizer.apply_gradients([(gradient, weight)])
    rng, weights = np.random.default_rng(SEED), []
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        for count in range(200):
            noise = rng.standard_normal(len(START)).astype(np.float32)
            now = session.run(weight)
            session.run(step, {gradient: np.array(CURVATURE, np.float32) * now + noise})
            if count % 20 == 19:
                weights.append(session.run(weight).tolist())
    recorded = {"settings": SETTINGS, "seed": SEED, "start": START, "curvature": CURVATURE, "weights": weights}
    path = Path(__file__).parents[1] / "tests" / "training" / "rmsprop_tensorflow.json"
    path.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
